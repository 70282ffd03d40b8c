//! `dist`: the production build, made twice in different folders and compared byte by byte, with what a release needs
//! beside it: a bill of materials, the descriptor set, what it was built with, digests, and their signature.
//!
//! Nothing of the machine may be in it: paths are remapped, the one time there is is that of the commit, and the source
//! is what git has of it.

mod artefacts;
#[cfg(test)]
mod pinned;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use artefacts::{digests, first_difference, names_of_the_machine};

use crate::run::{cargo, program, root, run, target};
use crate::say;

/// What production is built with, and nothing else.
const FEATURES: &str = "aws,postgres";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Two folders whose paths differ in length, too.
const FOLDERS: [&str; 2] = ["first", "second/further/down"];
/// Below the folder: what is shipped, and the list of digests in it.
const RELEASE: &str = "release";
const DIGESTS: &str = "SHA256SUMS";

/// How it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    /// To be shipped; signed with a minisign key, if one is given.
    Ship(Option<&'a Path>),
    /// Every step, but the compiler does not optimize: shows in a part of the time that paths, times and order of this
    /// machine do not reach the executable. It is not to be shipped, and is not signed.
    Smoke,
}

/// Makes a release in `target/dist/release`; whether all of it is good.
pub(crate) fn dist(mode: Mode<'_>) -> bool {
    say::heading("dist");
    match make(mode) {
        Ok(release) => {
            say::line(format_args!("made: {}", release.display()));
            true
        }
        Err(reason) => {
            say::line(format_args!("FAILED: {reason}"));
            false
        }
    }
}

/// What a build is of, and by what.
struct Origin {
    commit: String,
    /// Seconds since 1970, and the same for people.
    epoch: String,
    time: String,
    /// `rustc -vV`.
    rustc: String,
    host: String,
}

impl Origin {
    fn find() -> Result<Self, String> {
        if !output(program("git").args(["status", "--porcelain"]))?.is_empty() {
            return Err("there are changes that are not committed: nobody else could make this build".into());
        }
        let commit = output(program("git").args(["rev-parse", "HEAD"]))?;
        let epoch = output(program("git").args(["log", "-1", "--format=%ct"]))?;
        let date = ["log", "-1", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd"];
        let time = output(program("git").env("TZ", "UTC").args(date))?;
        let rustc = output(program("rustc").arg("-vV"))?;
        let host = field(&rustc, "host").ok_or("rustc does not say its host")?;
        Ok(Self { commit, epoch, time, rustc, host })
    }
}

fn field(rustc: &str, name: &str) -> Option<String> {
    rustc.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
}

/// The trimmed stdout of a command that ends well.
fn output(command: &mut Command) -> Result<String, String> {
    let done = command.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    if !done.status.success() {
        return Err(format!("{}: {}", crate::run::shown(command), done.status));
    }
    String::from_utf8(done.stdout).map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
}

fn make(mode: Mode<'_>) -> Result<PathBuf, String> {
    let origin = Origin::find()?;
    let all = target().join("dist");
    clear(&all)?;
    for folder in FOLDERS {
        build(&all.join(folder), &origin, mode)?;
    }
    let [first, second] = FOLDERS.map(|folder| all.join(folder).join(RELEASE));
    if let Some(difference) = first_difference(&first, &second)? {
        return Err(format!("the two builds differ: {difference}"));
    }
    say::line("both builds are the same, byte by byte");
    let release = all.join(RELEASE);
    fs::rename(&first, &release).map_err(|error| error.to_string())?;
    for folder in ["first", "second"] {
        clear(&all.join(folder))?;
    }
    let list = digests(&release)?;
    fs::write(release.join(DIGESTS), &list).map_err(|error| error.to_string())?;
    say::line(list.trim_end());
    match mode {
        Mode::Smoke => say::line("not optimized, so not to be shipped"),
        Mode::Ship(Some(key)) => sign(&release, key, &origin)?,
        Mode::Ship(None) => say::line(format_args!("not signed; with --sign KEY, or: {}", by_hand(&origin))),
    }
    Ok(release)
}

fn clear(dir: &Path) -> Result<(), String> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", dir.display())),
        _ => Ok(()),
    }
}

/// One build in a folder of its own, whose `release` then holds what is shipped; the rest is gone.
fn build(folder: &Path, origin: &Origin, mode: Mode<'_>) -> Result<(), String> {
    say::heading(format_args!("build in {}", folder.display()));
    let (source, built, release) = (folder.join("source"), folder.join("target"), folder.join(RELEASE));
    for dir in [&source, &release] {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let packed = folder.join("source.tar");
    let mut steps = [program("git"), program("tar")];
    let [pack, unpack] = &mut steps;
    pack.args(["archive", "--format=tar", "--output"]).arg(&packed).arg(&origin.commit);
    unpack.arg("-xf").arg(&packed).arg("-C").arg(&source);
    if !run(pack) || !run(unpack) {
        return Err("the source could not be copied".into());
    }
    let remapped = remapped(&source, &built, origin)?;
    let mut command = cargo(&["build", "--locked", "--profile", "dist", "-p", "vault-grpc", "--no-default-features"]);
    command.args(["--features", FEATURES, "--target", &origin.host, "--target-dir"]).arg(&built);
    let rust: Vec<String> = remapped.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let c: Vec<String> = remapped.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    command.current_dir(&source).env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    command.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\x1f")).env("CFLAGS", c.join(" ")).env("CXXFLAGS", c.join(" "));
    command.env("SOURCE_DATE_EPOCH", &origin.epoch).env("CARGO_INCREMENTAL", "0").env("TZ", "UTC").env("LC_ALL", "C");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(name);
        }
    }
    if mode == Mode::Smoke {
        for (setting, value) in [("OPT_LEVEL", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16")] {
            command.env(format!("CARGO_PROFILE_DIST_{setting}"), value);
        }
    }
    if !run(&mut command) {
        return Err("the build failed; see above".into());
    }
    let made = built.join(&origin.host).join("dist");
    let copy = |from: &Path, name: &str| {
        fs::copy(from, release.join(name)).map(drop).map_err(|error| format!("{}: {error}", from.display()))
    };
    copy(&made.join("vault-grpc"), "vault-grpc")?;
    copy(&descriptor_set(&made.join("build"))?, "vault.binpb")?;
    let write = |name: &str, text: String| fs::write(release.join(name), text).map_err(|error| error.to_string());
    write("vault-grpc.cdx.json", sbom::of(&source, FEATURES, origin)?)?;
    write("BUILD.txt", built_with(origin, mode)?)?;
    clean_of_the_machine(&release.join("vault-grpc"), &remapped)?;
    without_conveniences(&release.join("vault-grpc"))?;
    // Disk is short where builds run: only what is shipped stays.
    clear(&built)?;
    clear(&source)?;
    fs::remove_file(packed).map_err(|error| error.to_string())
}

/// What the paths of this machine are called in the build.
fn remapped(source: &Path, built: &Path, origin: &Origin) -> Result<Vec<(String, String)>, String> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| format!("{}: not UTF-8", path.display()));
    let home = std::env::var_os("HOME").map(PathBuf::from).ok_or("HOME is not set")?;
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let sysroot = PathBuf::from(output(program("rustc").args(["--print", "sysroot"]))?);
    let hash = field(&origin.rustc, "commit-hash").unwrap_or_default();
    // The last one that fits counts, so folders within others come after them.
    Ok(vec![
        (text(&home)?, "/home".into()),
        (text(&cargo_home)?, "/cargo".into()),
        (text(&sysroot.join("lib/rustlib/src/rust"))?, format!("/rustc/{hash}")),
        (text(source)?, "/blindvault".into()),
        (text(built)?, "/target".into()),
    ])
}

/// The one file of the protocol's build script that is shipped.
fn descriptor_set(build: &Path) -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(build).map_err(|error| error.to_string())? {
        let file = entry.map_err(|error| error.to_string())?.path().join("out/descriptor_set.bin");
        if file.exists() {
            found.push(file);
        }
    }
    match (found.pop(), found.pop()) {
        (Some(file), None) => Ok(file),
        _ => Err("the build did not make exactly one descriptor set".into()),
    }
}

/// What somebody else needs to make the same.
fn built_with(origin: &Origin, mode: Mode<'_>) -> Result<String, String> {
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let cc = first(output(program("cc").arg("--version"))?);
    let ld = first(output(program("ld").arg("--version"))?);
    let Origin { commit, epoch, rustc, .. } = origin;
    let profile = if mode == Mode::Smoke { "dist, not optimized" } else { "dist" };
    Ok(format!(
        "blindvault {VERSION}\ncommit: {commit}\nSOURCE_DATE_EPOCH: {epoch}\nfeatures: {FEATURES}, without defaults\n\
         profile: {profile}\ncc: {cc}\nld: {ld}\n{rustc}\n"
    ))
}

fn clean_of_the_machine(executable: &Path, remapped: &[(String, String)]) -> Result<(), String> {
    let bytes = fs::read(executable).map_err(|error| error.to_string())?;
    let names: Vec<String> = remapped.iter().map(|(from, _)| format!("{from}/")).collect();
    match names_of_the_machine(&bytes, &names) {
        Some(name) => Err(format!("the executable names {name}, a folder of this machine")),
        None => Ok(()),
    }
}

/// Development builds have `demo` and `init`; what is shipped does not know the words.
fn without_conveniences(executable: &Path) -> Result<(), String> {
    for word in ["demo", "init"] {
        let known = program(executable).args([word, "--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if known.map_err(|error| error.to_string())?.code() != Some(2) {
            return Err(format!("the executable knows the command {word}"));
        }
    }
    Ok(())
}

/// What the signature says of itself, and is signed with it.
fn comment(origin: &Origin) -> String {
    format!("blindvault {VERSION} {} {}", origin.host, origin.commit)
}

fn by_hand(origin: &Origin) -> String {
    format!("minisign -S -s KEY -m {DIGESTS} -t \"{}\"", comment(origin))
}

fn sign(release: &Path, key: &Path, origin: &Origin) -> Result<(), String> {
    let key = fs::canonicalize(root().join(key)).map_err(|error| format!("{}: {error}", key.display()))?;
    let mut minisign = program("minisign");
    minisign.current_dir(release).arg("-S").arg("-s").arg(key).args(["-m", DIGESTS, "-t", &comment(origin)]);
    // It may ask for the key's password.
    if run(minisign.stdin(Stdio::inherit())) { Ok(()) } else { Err("the digests could not be signed".into()) }
}
