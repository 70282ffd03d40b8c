//! A release, as `cargo build -p vault-grpc --no-default-features --features aws,postgres` makes it: what it does not have
//! in it, and what it refuses. `BLINDVAULT_RELEASE` names the program; `cargo xtask test` builds it.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

#[path = "hardening/served.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod served;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use served::{Served, Site, as_user};
use vault_client::VaultClient;
use vault_grpc::dev_tokens::DevIssuer;
use vault_grpc::init::OPERATOR_ISSUER;

fn program(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("BLINDVAULT_RELEASE").map(PathBuf::from);
    if found.is_none() {
        assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none(), "BLINDVAULT_RELEASE is required here");
        println!("SKIPPED {test}: BLINDVAULT_RELEASE names no program");
    }
    found
}

/// What `init` makes, turned into what a release takes: production, a root key in AWS KMS, keys that it may own.
fn site() -> Site {
    let site = Site::new();
    let text = fs::read_to_string(&site.made.config).unwrap();
    let kms = "kind = \"aws-kms\"\nkey = \"arn:aws:kms:eu-west-1:111122223333:key/12\"";
    let text = text.replace("environment = \"dev\"", "environment = \"production\"");
    let text = text.replace("kind = \"local\"\npath = \"root.key\"", kms);
    let issuer = DevIssuer::new(OPERATOR_ISSUER, "https://vault.example").unwrap();
    fs::write(site.path("operators.jwks"), issuer.jwks()).unwrap();
    let text = text + &issuer.table("operators.issuer", "operators.jwks");
    let aws = "[aws]\ncredentials = [\"profile\"]\nprofile_file = \"aws.profile\"\n";
    fs::write(&site.made.config, format!("{text}\n{aws}")).unwrap();
    let profile = site.path("aws.profile");
    fs::write(&profile, "[default]\naws_access_key_id = A\naws_secret_access_key = B\n").unwrap();
    fs::set_permissions(&profile, fs::Permissions::from_mode(0o600)).unwrap();
    site
}

/// The release, with these arguments and the configuration, as this user.
fn command(program: &Path, site: &Site, arguments: &[&str], user: Option<u32>) -> Command {
    let copy = site.dir.path().join("release");
    if !copy.exists() {
        fs::hard_link(program, &copy).or_else(|_| fs::copy(program, &copy).map(drop)).unwrap();
    }
    let mut command = Command::new(copy);
    command.args(arguments).arg(&site.made.config).stdin(Stdio::null()).current_dir(site.dir.path());
    as_user(&mut command, user);
    command
}

fn check(program: &Path, site: &Site, user: Option<u32>) -> (Option<i32>, String) {
    let out = command(program, site, &["check", "--config"], user).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn a_release_has_no_demo_no_init_no_failpoints_no_prover_and_no_local_root() {
    let Some(release) = program("a_release_has_no_demo_no_init_no_failpoints_no_prover_and_no_local_root") else {
        return;
    };
    let code = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap().status.code()
    };
    let development = Path::new(env!("CARGO_BIN_EXE_vault-grpc"));
    for arguments in [
        &["demo", "--help"][..],
        &["init", "--help"],
        &["serve", "--failpoint", "x", "--help"],
        &["policy", "prove", "--help"],
        &["policy", "test", "--help"],
    ] {
        assert_eq!(code(&release, arguments), Some(2), "{arguments:?}");
        assert_eq!(code(development, arguments), Some(0), "the control: {arguments:?}");
    }
    let holds = |program: &Path, text: &str| {
        let bytes = fs::read(program).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for text in ["blindvault development: ", "Keep serving afterwards", "BLINDVAULT_", "the step at which the process"]
    {
        assert!(!holds(&release, text), "{text}");
    }
    assert!(holds(development, "blindvault development: "), "the control");
    assert!(holds(&release, "a local root key exists in development builds only"), "the control in a release");
    let site = site();
    let text = fs::read_to_string(&site.made.config).unwrap();
    let at = text.find("kind = \"aws-kms\"").unwrap();
    let line = text[at..].lines().nth(1).unwrap();
    let local = text.replacen(line, "path = \"root.key\"", 1).replacen("\"aws-kms\"", "\"local\"", 1);
    let local = local.split("[aws]").next().unwrap();
    fs::write(&site.made.config, local).unwrap();
    site.hand_over();
    let (code, said) = check(&release, &site, site.user);
    assert!(code == Some(1) && said.contains("root") && said.contains("development builds only"), "{said}");
}

#[test]
fn a_release_refuses_root_open_keys_and_memory_that_is_not_locked_and_check_tells_each() {
    let test = "a_release_refuses_root_open_keys_and_memory_that_is_not_locked_and_check_tells_each";
    let Some(release) = program(test) else { return };
    let site = site();
    site.hand_over();
    let (code, said) = check(&release, &site, site.user);
    assert_eq!(code, Some(0), "{said}");
    if site.user.is_some() {
        let (code, said) = check(&release, &site, None);
        assert!(code == Some(1) && said.contains("environment: \\\"production\\\" does not run as root"), "{said}");
        let out = command(&release, &site, &["serve", "--config"], None).output().unwrap();
        assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("does not run as root"));
        assert!(!site.path("data").exists(), "and has made nothing");
    }
    for (file, field) in
        [("certs/gateway.key", "data.key"), ("audit.key", "audit.key"), ("aws.profile", "aws.profile_file")]
    {
        for mode in [0o640, 0o604] {
            fs::set_permissions(site.path(file), fs::Permissions::from_mode(mode)).unwrap();
            let (code, said) = check(&release, &site, site.user);
            assert!(code == Some(1) && said.contains(field) && said.contains("must be 0600"), "{said}");
        }
        fs::set_permissions(site.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let command = command(&release, &site, &["check", "--config"], site.user);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -l 0 && exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    limited.stdin(Stdio::null()).current_dir("/");
    as_user(&mut limited, site.user);
    let out = limited.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // Root without a limit of its own may lock memory whatever the limit is.
    assert!(site.user.is_none() || (out.status.code() == Some(1) && said.contains("RLIMIT_MEMLOCK")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_serves_restricted_without_being_told_to() {
    let Some(release) = program("a_release_serves_restricted_without_being_told_to") else { return };
    let site = site();
    let rest =
        fs::read_to_string(&site.made.config).unwrap().replace("\n[aws]", "\n[limits]\nmax_streams = 8\n\n[aws]");
    fs::write(&site.made.config, rest).unwrap();
    site.hand_over();
    let served = Served::start(command(&release, &site, &["serve", "--config"], site.user));
    let status = fs::read_to_string(format!("/proc/{}/status", served.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    drop(VaultClient::connect(&site.endpoint(served.data, "billing")).await.unwrap());
    let said = served.stop();
    assert!(said.last().unwrap().contains("stopped"), "{said:?}");
}
