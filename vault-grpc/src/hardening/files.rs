//! Which files the gateway may open, by its configuration, and holding it to them (Landlock).
//!
//! A rule of Landlock is about what is there now, not about a name. A file that is replaced (certificates, tokens of
//! clouds, mounted secrets) is another one under its old name, so what may be read is the *directory* that holds it, and
//! the one where it really lies if its name is a link.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use vault_core::fs::{Fs, OsFs};

use crate::config::{Config, ConfigError, IssuerKeys, NamedFile, PostgresAddress, Prove, Root, SinkTarget, Store};

/// What resolving names of hosts, loading modules and telling the time of day read.
const SYSTEM: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    // How many processors there are, which libc asks again for each new thread.
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/urandom",
];
/// The authorities of the machine, which AWS's client reads.
#[cfg(feature = "aws")]
const AUTHORITIES: &[&str] = &["/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls", "/usr/share/ca-certificates"];

/// What may be opened, and for what. Directories stand for all that is in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// May be read.
    pub read: Vec<PathBuf>,
    /// May be read, written, made and removed.
    pub write: Vec<PathBuf>,
    /// May be listed: the directories above, into which names are synced.
    pub list: Vec<PathBuf>,
    /// Programs that may be run, and the loaders that they name.
    pub execute: Vec<PathBuf>,
}

impl Paths {
    /// What a configuration needs; `read` is what may be read besides. Directories of store and log that are not there
    /// are not made: `make_directories` does that before.
    ///
    /// # Errors
    /// [`ConfigError`] naming the program that is not there.
    pub fn of(config: &Config, read: &[PathBuf]) -> Result<Self, ConfigError> {
        let mut paths = Self::default();
        for file in named(config) {
            paths.read_around(&file.path);
        }
        #[cfg(feature = "aws")]
        if let Some(aws) = &config.aws {
            paths.aws(aws.credentials.profile_file.as_deref());
        }
        if let Ok(link) = std::fs::canonicalize("/etc/resolv.conf")
            && !link.starts_with("/etc")
        {
            paths.read.push(directory(&link).to_owned());
        }
        paths.read.extend(SYSTEM.iter().map(PathBuf::from));
        paths.read.extend(config.hardening.read.iter().map(|file| file.path.clone()));
        paths.read.extend_from_slice(read);
        for (_, dir) in written(config) {
            paths.list.push(directory(dir).to_owned());
            paths.write.push(dir.to_owned());
        }
        paths.write.extend(config.hardening.write.iter().map(|file| file.path.clone()));
        for program in &config.hardening.executables {
            paths.program(program)?;
        }
        if let Some(prove) = &config.policy.prove {
            paths.prover(prove)?;
        }
        Ok(paths)
    }

    fn read_around(&mut self, path: &Path) {
        self.read.push(directory(path).to_owned());
        if let Ok(real) = std::fs::canonicalize(path) {
            self.read.push(directory(&real).to_owned());
        }
    }

    /// The SDK takes names of files from the environment, and none of them is a secret.
    #[cfg(feature = "aws")]
    fn aws(&mut self, profile: Option<&Path>) {
        use std::env;

        self.read.extend(AUTHORITIES.iter().map(PathBuf::from));
        let variables = [
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_CONFIG_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "SSL_CERT_FILE",
        ];
        for file in variables.iter().filter_map(env::var_os).map(PathBuf::from).chain(profile.map(Path::to_owned)) {
            self.read_around(&file);
        }
        self.read.extend(env::var_os("SSL_CERT_DIR").map(PathBuf::from));
        if let Some(home) = env::home_dir() {
            self.read.push(home.join(".aws"));
        }
    }

    /// A proof is a child: this program again, which becomes the solver. What an interpreter reads besides the script that
    /// is among its arguments, `hardening.read` names.
    fn prover(&mut self, prove: &Prove) -> Result<(), ConfigError> {
        self.program(&prove.solver)?;
        if let Ok(own) = std::fs::canonicalize("/proc/self/exe") {
            self.execute.extend(loader(&own));
            self.execute.push(own);
        }
        for file in prove.arguments.iter().map(Path::new).filter(|path| path.is_absolute()) {
            self.read_around(file);
        }
        Ok(())
    }

    fn program(&mut self, named: &NamedFile) -> Result<(), ConfigError> {
        let path = std::fs::canonicalize(&named.path).map_err(|e| named.error(crate::config::cannot_read(&e)))?;
        self.execute.extend(loader(&path));
        self.read.push(path.clone());
        self.execute.push(path);
        // What a process is given for an input or an output that nobody wants.
        self.write.push("/dev/null".into());
        Ok(())
    }
}

/// The directories of store, audit log, its archive, and the files that are its sinks.
fn written(config: &Config) -> Vec<(&NamedFile, &Path)> {
    let mut dirs = vec![(&config.audit_dir, config.audit_dir.path.as_path())];
    if let Store::Embedded(file) = &config.store {
        dirs.push((file, directory(&file.path)));
    }
    for sink in &config.sinks {
        if let SinkTarget::File(file) = &sink.to {
            dirs.push((file, directory(&file.path)));
        }
    }
    dirs.extend(config.segments.archive.as_ref().map(|archive| (archive, archive.path.as_path())));
    dirs
}

/// Makes the directories of store and log where they are not there yet: a rule needs something to be about.
///
/// # Errors
/// [`ConfigError`] naming the one that cannot be made.
pub(super) fn make_directories(config: &Config) -> Result<(), ConfigError> {
    let fs: &dyn Fs = &OsFs;
    let archive = config.segments.archive.as_ref();
    // An archive that is not there may be one that is not mounted: it is not made in its place.
    for (named, dir) in written(config).into_iter().filter(|(named, _)| Some(*named) != archive) {
        fs.create_dir_durable(dir).map_err(|e| named.error(format!("its directory: {}", e.kind())))?;
    }
    Ok(())
}

/// The directory that holds a path.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        // Never all there is.
        Some(dir) if dir.parent().is_some() => dir,
        _ => path,
    }
}

/// Every file that the configuration names to be read.
fn named(config: &Config) -> Vec<&NamedFile> {
    let mut files = vec![&config.audit_key, &config.policy.schema, &config.policy.registry];
    files.extend(&config.policy.policies);
    for listener in [&config.data, &config.control] {
        files.extend([&listener.certificate, &listener.key, &listener.client_ca]);
        files.extend(&listener.crls);
    }
    for root in &config.roots.roots {
        match &root.root {
            Root::Local(file) => files.push(file),
            Root::Pkcs11(pkcs11) => files.extend([&pkcs11.module, &pkcs11.pin]),
            #[cfg(feature = "aws")]
            Root::AwsKms(_) => {}
        }
    }
    files.extend(config.operators.list.as_ref().map(|list| &list.file));
    for issuer in config.end_users.iter().chain(&config.operators.issuers) {
        match &issuer.keys {
            IssuerKeys::File(file) => files.push(file),
            IssuerKeys::Url(url) => files.extend(&url.at.roots),
        }
    }
    files.extend(config.witnesses.iter().filter_map(|witness| witness.url.roots.as_ref()));
    for sink in &config.sinks {
        let (roots, client) = match &sink.to {
            SinkTarget::File(_) => continue,
            SinkTarget::Syslog(server) => (Some(&server.roots), &server.client),
            SinkTarget::Otlp { url, client } => (url.roots.as_ref(), client),
        };
        files.extend(roots);
        files.extend(client.iter().flat_map(|(certificate, key)| [certificate, key]));
    }
    files.extend(config.release.as_ref().map(|release| &release.signature));
    if let Store::Postgres(postgres) = &config.store {
        files.extend(&postgres.password);
        if let PostgresAddress::Tcp { ca, client, .. } = &postgres.address {
            files.push(ca);
            files.extend(client.iter().flat_map(|(certificate, key)| [certificate, key]));
        }
    }
    files
}

/// The loader that an ELF program (System V ABI, "Program Header", `PT_INTERP`) or a script names: the kernel runs it
/// first, so it needs to be allowed, too.
fn loader(program: &Path) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    let mut file = File::open(program).ok()?;
    let mut head = [0; 64];
    file.read_exact(&mut head).ok()?;
    let number = |bytes: &[u8], at: usize, len: usize| {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if let Some(line) = head.strip_prefix(b"#!") {
        let path = line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty())?;
        return std::fs::canonicalize(std::ffi::OsStr::from_bytes(path)).ok();
    }
    // 64 bits, little endian: all that we build for.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (start, size, count) = (number(&head, 32, 8)?, number(&head, 54, 2)?, number(&head, 56, 2)?);
    for index in 0..count {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, start.checked_add(index.checked_mul(size)?)?).ok()?;
        if number(&entry, 0, 4)? == u64::from(PT_INTERP) {
            let len = usize::try_from(number(&entry, 32, 8)?).ok().filter(|len| *len <= 4096)?;
            let mut name = vec![0; len];
            file.read_exact_at(&mut name, number(&entry, 8, 8)?).ok()?;
            let name = name.split(|byte| *byte == 0).next()?;
            return std::fs::canonicalize(std::ffi::OsStr::from_bytes(name)).ok();
        }
    }
    None
}

/// Holds this thread, and every thread that it makes, to these files; and to signals within the process.
///
/// The first version of Landlock is needed. What later ones add is taken where it is there: moving between directories
/// (6.1), truncating (6.2), device controls (6.10), signals and abstract sockets (6.12).
pub(super) fn restrict(paths: &Paths) -> Result<(), &'static str> {
    const NO: &str = "the kernel does not offer Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK and lsm=landlock)";
    let known = ABI::V6;
    let not_run: BitFlags<AccessFs> = AccessFs::Execute.into();
    let read = AccessFs::from_read(known) & !not_run;
    let made: BitFlags<AccessFs> =
        AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::MakeFifo | AccessFs::MakeSym;
    let write = AccessFs::from_all(known) & !not_run & !made;
    let build = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(known))?
            .scope(Scope::from_all(known))?
            .create()?
            .add_rules(path_beneath_rules(&paths.read, read))?
            .add_rules(path_beneath_rules(&paths.list, AccessFs::ReadDir))?
            .add_rules(path_beneath_rules(&paths.write, write))?
            .add_rules(path_beneath_rules(&paths.execute, AccessFs::Execute | AccessFs::ReadFile))?
            .restrict_self()
    };
    match build() {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(()),
        _ => Err(NO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_a_program_is_found_and_of_anything_else_none() {
        let own = loader(&std::fs::canonicalize("/proc/self/exe").unwrap());
        assert!(own.as_ref().is_none_or(|loader| loader.exists()), "{own:?}");
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, format!("#! /bin/sh -e\n{}", "#".repeat(64))).unwrap();
        assert_eq!(loader(&script), Some(std::fs::canonicalize("/bin/sh").unwrap()));
        std::fs::write(&script, [0x7f; 64]).unwrap();
        assert_eq!(loader(&script), None);
        assert_eq!(loader(&dir.path().join("absent")), None);
    }

    #[test]
    fn a_directory_is_never_all_there_is() {
        assert_eq!(directory(Path::new("/etc/vault/a.pem")), Path::new("/etc/vault"));
        assert_eq!(directory(Path::new("/a.pem")), Path::new("/a.pem"));
        assert_eq!(directory(Path::new("a.pem")), Path::new("."));
    }
}
