//! `policy key` and `policy bundle`: what policy signers do, without a gateway.

use std::fmt::Display;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use vault_core::Error;
use vault_core::audit::{LogSigner, LogVerifier};
use vault_core::bundle::{Bundle, MAX_DOCUMENT, MAX_PROOF, PolicyFile, SignedBundle};
use vault_core::fs::{Fs, OsFs};
use vault_core::time::{Clock as _, SystemClock, Timestamp};
use vault_grpc::build::{self, StartError};
use vault_grpc::config::{Config, ConfigError, cannot_read};
use vault_grpc::telemetry::{Event, log};

use super::print;

/// Longest file of a verifier key, in bytes.
pub(super) const MAX_VKEY: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make the key of a policy signer: FILE (mode 0600), and FILE.pub, whose line goes into `policy.signers`.
    New {
        /// The signer's name, for example `policy/alice`: 1 to 200 of `a-z A-Z 0-9 . / - _ :`.
        #[arg(long)]
        name: String,
        /// The file, which must not exist yet.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Put the schema, the policies and the registry that a configuration names into a bundle.
    Make {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The bundle's file, which must not exist yet.
        #[arg(long)]
        out: PathBuf,
        /// Why there is a new one, 1 to 512 bytes; it is kept with it.
        #[arg(long)]
        comment: String,
        /// The bundle in force, which the new one follows; without, it is the first.
        #[arg(long)]
        after: Option<PathBuf>,
        /// Its version; without, one more than that of the one it follows.
        #[arg(long)]
        version: Option<u64>,
        /// Seconds since 1970 before which it cannot come into force.
        #[arg(long)]
        not_before: Option<u64>,
    },
    /// Add a signature to a bundle. Read what it says first.
    Sign {
        /// The bundle's file.
        file: PathBuf,
        /// The signer's key; its FILE.pub must be beside it.
        #[arg(long)]
        key: PathBuf,
    },
    /// Put a proof record into a bundle: `policy prove --sign` makes one. The signatures do not cover it, and stay.
    AddProof {
        /// The bundle's file.
        file: PathBuf,
        /// The record's file.
        #[arg(long)]
        proof: PathBuf,
    },
    /// Put a bundle in force by its signatures alone, while no gateway serves. For a new version of this program to which
    /// the bundle in force means nothing; else propose it to a gateway.
    Install {
        /// The bundle's file.
        file: PathBuf,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Say whether a gateway with this configuration would accept a bundle: signatures, schema, policies, registry.
    Verify {
        /// The bundle's file.
        file: PathBuf,
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The bundle in force, which it must follow.
        #[arg(long)]
        after: Option<PathBuf>,
    },
}

pub(super) fn done(what: &'static str, result: Result<(), StartError>) -> ExitCode {
    match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(StartError::Config(error)) => log(&Event::Misconfigured(error)),
        Err(StartError::Vault(error)) => log(&Event::Failed { what, error }),
    }
    ExitCode::FAILURE
}

pub(super) fn key(command: KeyCommand) -> ExitCode {
    match command {
        KeyCommand::New { name, out } => done("make a policy signer's key", new_key(&name, &out)),
    }
}

pub(super) fn bundle(command: BundleCommand) -> ExitCode {
    match command {
        BundleCommand::Make { config, out, comment, after, version, not_before } => {
            let made = make(&config, &out, comment, after.as_deref(), (version, not_before));
            done("make a policy bundle", made)
        }
        BundleCommand::Sign { file, key } => done("sign a policy bundle", sign(&file, &key)),
        BundleCommand::AddProof { file, proof } => done("add a proof to a policy bundle", add_proof(&file, &proof)),
        BundleCommand::Install { file, config } => done("install a policy bundle", install(&file, &config)),
        BundleCommand::Verify { file, config, after } => {
            done("verify a policy bundle", verify(&file, &config, after.as_deref()))
        }
    }
}

pub(super) fn refuse(file: &Path, why: impl Display) -> StartError {
    ConfigError::new(file.display().to_string(), why.to_string()).into()
}

/// The errors of a library call that are about a file.
pub(super) fn about(file: &Path) -> impl Fn(Error) -> StartError + '_ {
    move |error| refuse(file, error)
}

pub(super) fn read(file: &Path, most: u64) -> Result<String, StartError> {
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(|error| refuse(file, cannot_read(&error)))?;
    opened.take(most + 1).read_to_string(&mut text).map_err(|error| refuse(file, cannot_read(&error)))?;
    if text.len() as u64 > most {
        return Err(refuse(file, format_args!("is longer than {most} bytes")));
    }
    Ok(text)
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), StartError> {
    let fs: &dyn Fs = &OsFs;
    fs.replace(&within(file), text.as_bytes())
        .map_err(|error| refuse(file, format_args!("cannot be written: {}", error.kind())))
}

/// A path that names its directory, as what makes files durable wants it.
fn within(file: &Path) -> PathBuf {
    match file.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new(".").join(file),
        _ => file.to_owned(),
    }
}

pub(super) fn public_half(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

pub(super) fn new_key(name: &str, out: &Path) -> Result<(), StartError> {
    let public = public_half(out);
    if public.exists() {
        return Err(refuse(&public, "exists already"));
    }
    let signer = LogSigner::create(&OsFs, &within(out), name).map_err(about(out))?;
    let vkey = signer.verifier().vkey();
    write(&public, &format!("{vkey}\n"))?;
    print::line(vkey);
    Ok(())
}

fn read_bundle(file: &Path) -> Result<SignedBundle, StartError> {
    SignedBundle::from_document(&read(file, MAX_DOCUMENT as u64)?).map_err(about(file))
}

fn make(
    config: &Path,
    out: &Path,
    comment: String,
    after: Option<&Path>,
    (version, not_before): (Option<u64>, Option<u64>),
) -> Result<(), StartError> {
    let config = Config::load(config)?;
    if out.exists() {
        return Err(refuse(out, "exists already"));
    }
    // Whatever is wrong with the files is told with their own names and lines.
    build::policies(&config)?;
    let text = |file: &vault_grpc::config::NamedFile| read(&file.path, MAX_DOCUMENT as u64);
    let mut policies = Vec::new();
    for file in &config.policy.policies {
        let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        policies.push(PolicyFile { name, text: text(file)? });
    }
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    let before = after.map(read_bundle).transpose()?.map(|signed| signed.reference());
    let now = SystemClock.now();
    let bundle = Bundle {
        instance: config.instance.clone(),
        version: version.unwrap_or_else(|| before.map_or(1, |before| before.version.saturating_add(1))),
        previous: before.map(|before| before.digest),
        created: now,
        not_before: not_before.map_or(now, |seconds| Timestamp(seconds.saturating_mul(1000))),
        comment,
        schema: text(&config.policy.schema)?,
        policies,
        registry: text(&config.policy.registry)?,
    };
    let signed = SignedBundle::new(bundle)?;
    if before.is_some_and(|before| before.version >= signed.reference().version) {
        return Err(Error::invalid("--version", "must be above that of the bundle it follows").into());
    }
    write(out, &signed.to_document()?)?;
    print::line(format_args!("wrote {}", out.display()));
    print::line(signed.statement().trim_end());
    Ok(())
}

fn sign(file: &Path, key: &Path) -> Result<(), StartError> {
    let signed = read_bundle(file)?;
    let public = public_half(key);
    let verifier = LogVerifier::parse(&read(&public, MAX_VKEY)?).map_err(about(&public))?;
    let signer = LogSigner::load(&OsFs, key, verifier.origin()).map_err(about(key))?;
    if *signer.verifier() != verifier {
        return Err(refuse(&public, "is not the public half of the key"));
    }
    let signed = signed.sign(&signer).map_err(about(file))?;
    write(file, &signed.to_document()?)?;
    print::line(signed.statement().trim_end());
    print::line(format_args!("signed by {}; {} in all", verifier.origin(), signed.signatures().len()));
    Ok(())
}

fn add_proof(file: &Path, proof: &Path) -> Result<(), StartError> {
    let signed = read_bundle(file)?.with_proof(Some(read(proof, MAX_PROOF as u64)?)).map_err(about(file))?;
    write(file, &signed.to_document()?)?;
    print::line(signed.statement().trim_end());
    Ok(())
}

fn install(file: &Path, config: &Path) -> Result<(), StartError> {
    let config = Config::load(config)?;
    let signed = read_bundle(file)?;
    // Root keys of AWS KMS want a runtime to live on, though nothing is asked of them here.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|_| ConfigError::new("the operating system", "gave no threads"))?;
    let work = async { tokio::task::spawn_blocking(move || build::install_policy(&config, &signed)).await };
    let installed = runtime.block_on(work).map_err(|_| ConfigError::new("the store", "opening it panicked"))??;
    print::line(format_args!("in force: {installed}"));
    Ok(())
}

fn verify(file: &Path, config: &Path, after: Option<&Path>) -> Result<(), StartError> {
    let config = Config::load(config)?;
    let trust = build::policy_trust(&config, &build::signer(&config)?)?;
    let signed = read_bundle(file)?;
    let judged = trust.judge(&signed, &config.instance).map_err(about(file))?;
    if let Some(after) = after {
        let before = read_bundle(after)?.reference();
        if signed.bundle().previous != Some(before.digest) || signed.reference().version <= before.version {
            return Err(refuse(file, "does not follow the bundle of --after"));
        }
    }
    print::line(signed.statement().trim_end());
    let (policies, workloads) = (judged.set.ids().len(), judged.registry.len());
    let signers = judged.signers.join(", ");
    print::line(format_args!(
        "in order: {policies} policies, {workloads} entries in the registry; signed by {signers}"
    ));
    Ok(())
}
