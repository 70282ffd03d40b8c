//! A SoftHSM of the test's own: its tokens are in a temporary directory.
//!
//! SoftHSM finds its tokens by an environment variable, and a login holds for a whole process; so each test runs in a
//! process of its own: the test binary once more, with that one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use std::os::unix::fs::PermissionsExt as _;

use vault_core::kms::{IvSource, Pkcs11Settings};

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];
const CHILD: &str = "BLINDVAULT_SOFTHSM_DIR";
pub(crate) const PIN: &str = "9753-pin-canary";

/// The tokens, inside of the process that uses them.
pub(crate) struct Hsm {
    pub(crate) dir: PathBuf,
    pub(crate) module: PathBuf,
}

/// Runs `test` in a process of its own with fresh tokens of these labels; `name` is the test's.
pub(crate) fn with_tokens(name: &str, labels: &[&str], test: impl FnOnce(&Hsm)) {
    let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    let util = Command::new("softhsm2-util").arg("--version").stdout(Stdio::null()).status();
    let (Some(module), Ok(_)) = (module, util) else {
        assert!(env::var_os("BLINDVAULT_REQUIRE").is_none(), "SoftHSM is required here and is missing");
        println!("SKIPPED {name}: SoftHSM is not installed (apt-get install softhsm2)");
        return;
    };
    if let Some(dir) = env::var_os(CHILD) {
        return test(&Hsm { dir: dir.into(), module });
    }
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = dir.path().join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    fs::write(&conf, text).unwrap();
    for label in labels {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN])
            .env("SOFTHSM2_CONF", &conf)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("SOFTHSM2_CONF", &conf)
        .env(CHILD, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the child ran another test than {name}: {said}");
}

impl Hsm {
    /// Settings for a key of a token, with a PIN file that is as it should be.
    pub(crate) fn settings(&self, token: &str, key: &str) -> Pkcs11Settings {
        let pin_file = self.dir.join(format!("{token}.pin"));
        if !pin_file.exists() {
            write_pin(&pin_file, PIN, 0o600);
        }
        Pkcs11Settings {
            module: self.module.clone(),
            token: token.into(),
            key: key.into(),
            pin_file,
            sessions: 4,
            timeout: Duration::from_secs(30),
            iv: IvSource::Os,
        }
    }
}

pub(crate) fn write_pin(path: &Path, pin: &str, mode: u32) {
    fs::write(path, format!("{pin}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
