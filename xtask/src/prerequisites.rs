//! What the steps need beside Rust: Python packages and LocalStack in virtual environments, `strace`, `gdb`, SoftHSM,
//! PostgreSQL, `minisign`, `promtool`, rsyslog, `buf`, an identity provider, a C++ compiler, cargo-fuzz. Each is installed when it is missing, in exact
//! versions, and all but Debian's packages below the target directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{cargo, program, root, run, target, tools, works};
use crate::say;

/// The version of `@bufbuild/buf`.
const BUF: &str = "1.75.0";
/// The version of cargo-fuzz.
const CARGO_FUZZ: &str = "0.13.2";

fn is_root() -> bool {
    program("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n")
}

/// Installs Debian packages.
fn debian(packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" ");
    let by_hand = format!("apt-get install --no-install-recommends {names}");
    if !works(program("apt-get").arg("--version")) {
        return Err(format!("needed, and there is no apt-get to install them with: {names}"));
    }
    if !is_root() {
        return Err(format!("no right to install Debian packages; type: sudo {by_hand}"));
    }
    let apt = |args: &[&str]| run(program("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    // Without the lists a fresh machine has nothing to install from; old lists do no harm.
    apt(&["update", "-q"]);
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    if apt(&[&install, packages].concat()) { Ok(()) } else { Err(format!("could not do: {by_hand}")) }
}

/// Runs `make` for a directory whose contents `stamp` decides, unless it was made for the same already.
fn once(dir: &Path, stamp: &str, make: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let made = dir.join("made-for");
    if fs::read_to_string(&made).is_ok_and(|text| text == stamp) {
        return Ok(());
    }
    make()?;
    fs::write(&made, stamp).map_err(|error| format!("{}: {error}", made.display()))
}

/// The interpreter with every package of `xtask/requirements.txt`.
pub(crate) fn python() -> Result<PathBuf, String> {
    venv("venv", "xtask/requirements.txt")
}

/// The interpreter with LocalStack, whose packages do not agree with the others'.
pub(crate) fn localstack() -> Result<PathBuf, String> {
    venv("localstack", "xtask/localstack-requirements.txt")
}

/// The interpreter of a virtual environment with every package that a file of the workspace lists.
fn venv(name: &str, list: &str) -> Result<PathBuf, String> {
    let requirements = root().join(list);
    let dir = tools().join(name);
    let python = dir.join("bin/python3");
    let stamp = fs::read_to_string(&requirements).map_err(|error| format!("{list}: {error}"))?;
    once(&dir, &stamp, || {
        let make = || run(program("python3").args(["-m", "venv", "--clear"]).arg(&dir));
        if !works(program("python3").args(["-c", "import ensurepip, venv"])) {
            debian(&["python3", "python3-venv"])?;
        }
        if !make() {
            return Err("the virtual environment could not be made; see above".into());
        }
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r"];
        if run(program(&python).args(pip).arg(&requirements)) {
            Ok(())
        } else {
            Err(format!("the packages of {list} could not be installed; see above"))
        }
    })?;
    Ok(python)
}

/// The gateway as releases are built, but for the profile: what it refuses and lacks is the same.
pub(crate) fn release() -> Result<PathBuf, String> {
    let build = ["build", "-p", "vault-grpc", "--no-default-features", "--features", "aws,postgres"];
    if !run(&mut cargo(&build)) {
        return Err("the gateway could not be built as a release; see above".into());
    }
    // Aside: the tests' own build takes the name.
    let aside = tools().join("release");
    fs::create_dir_all(&aside).map_err(|error| format!("{}: {error}", aside.display()))?;
    let program = aside.join("vault-grpc");
    fs::copy(target().join("debug/vault-grpc"), &program).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(program)
}

/// `strace`, which counts system calls.
pub(crate) fn strace() -> Result<(), String> {
    if works(program("strace").arg("--version")) { Ok(()) } else { debian(&["strace"]) }
}

/// `gdb`, which tries to attach to the gateway.
pub(crate) fn gdb() -> Result<(), String> {
    if works(program("gdb").arg("--version")) { Ok(()) } else { debian(&["gdb"]) }
}

/// SoftHSM, the hardware security module that is none.
pub(crate) fn softhsm() -> Result<(), String> {
    if works(program("softhsm2-util").arg("--version")) { Ok(()) } else { debian(&["softhsm2"]) }
}

/// The programs of a PostgreSQL server: the tests start their own. The package starts one too where it may; nobody asks
/// that one anything.
pub(crate) fn postgres() -> Result<(), String> {
    let installed = fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|mut versions| versions.any(|found| found.is_ok_and(|at| at.path().join("bin/initdb").exists())));
    if installed { Ok(()) } else { debian(&["postgresql"]) }
}

/// `minisign`, which signs releases.
pub(crate) fn minisign() -> Result<(), String> {
    if works(program("minisign").arg("-v")) { Ok(()) } else { debian(&["minisign"]) }
}

/// `promtool`, which checks alert rules. It comes with Prometheus, which the package starts where it may; nobody asks it
/// anything.
pub(crate) fn promtool() -> Result<(), String> {
    if works(program("promtool").arg("--version")) { Ok(()) } else { debian(&["prometheus"]) }
}

/// `rsyslogd` and its TLS driver, which receive the audit log. The package starts one where it may; the tests start their
/// own.
pub(crate) fn rsyslog() -> Result<(), String> {
    let driver = |dir: &str| Path::new(dir).join("rsyslog/lmnsd_ossl.so").exists();
    let multiarch = fs::read_dir("/usr/lib")
        .is_ok_and(|mut found| found.any(|dir| dir.is_ok_and(|dir| dir.path().join("rsyslog/lmnsd_ossl.so").exists())));
    if Path::new("/usr/sbin/rsyslogd").exists() && (multiarch || driver("/usr/lib")) {
        Ok(())
    } else {
        debian(&["rsyslog", "rsyslog-openssl"])
    }
}

/// `buf`, from npm.
pub(crate) fn buf() -> Result<PathBuf, String> {
    let dir = tools().join("npm");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    once(&dir, BUF, || {
        if !works(program("npm").arg("--version")) {
            debian(&["nodejs", "npm"])?;
        }
        let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"];
        if run(program("npm").args(install).arg(&dir).arg(format!("@bufbuild/buf@{BUF}"))) {
            Ok(())
        } else {
            Err("buf could not be installed; see above".into())
        }
    })?;
    Ok(dir.join("node_modules/.bin/buf"))
}

/// An identity provider and the Node.js that it asks for, from npm: the directory `node_modules`. The lock file of
/// `xtask/identity-provider` names every package with its hash.
pub(crate) fn identity_provider() -> Result<PathBuf, String> {
    let from = root().join("xtask/identity-provider");
    let dir = tools().join("identity-provider");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let lock = from.join("package-lock.json");
    let stamp = fs::read_to_string(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    once(&dir, &stamp, || {
        if !works(program("npm").arg("--version")) {
            debian(&["nodejs", "npm"])?;
        }
        for name in ["package.json", "package-lock.json"] {
            fs::copy(from.join(name), dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
        }
        if run(program("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&dir)) {
            Ok(())
        } else {
            Err("the identity provider could not be installed; see above".into())
        }
    })?;
    Ok(dir.join("node_modules"))
}

/// `cargo fuzz`, and the C++ compiler that libFuzzer is built with.
pub(crate) fn fuzzing() -> Result<(), String> {
    if !works(program("c++").arg("--version")) {
        debian(&["g++"])?;
    }
    if works(&mut cargo(&["fuzz", "--version"])) {
        return Ok(());
    }
    say::line("cargo-fuzz is missing and is installed for this user");
    let target = tools().join("cargo-fuzz");
    let mut install = cargo(&["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--target-dir"]);
    if run(install.arg(target)) { Ok(()) } else { Err("cargo-fuzz could not be installed; see above".into()) }
}
