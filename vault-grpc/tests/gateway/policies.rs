//! Policy bundles from the command line to a decision: made, signed, proposed, approved over the wire.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use vault_client::{ClientError, Code, Target};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_proto::v1::{ApprovalState, PolicyState};

use super::shredding::bob;
use super::support::{Fixture, made};

/// Exit code, stdout, stderr.
fn policy(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault-grpc"));
    let done = command.arg("policy").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn good(arguments: &[&str]) -> String {
    let (code, out, error) = policy(arguments);
    assert_eq!(code, 0, "{error}");
    out
}

fn bad(arguments: &[&str], why: &str) {
    let (code, out, error) = policy(arguments);
    assert!(code == 1 && error.contains(why), "{code} {out} {error} lacks {why}");
}

/// Makes the keys of two signers, and names them in a configuration.
pub(super) fn name_signers(config: &Path, text: &str) -> String {
    let keys = ["ines", "jan"].map(|name| {
        let file = config.with_file_name(name);
        good(&["key", "new", "--name", &format!("policy/{name}"), "--out", file.to_str().unwrap()])
    });
    let signers = format!("signers = [{:?}, {:?}]\nquorum = 2", keys[0].trim(), keys[1].trim());
    text.replacen("[policy]\n", &format!("[policy]\n{signers}\n"), 1)
}

pub(super) struct Files(pub(super) PathBuf);

impl Files {
    pub(super) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn make(&self, out: &str, more: &[&str]) {
        let (config, out) = (self.path("vault.toml"), self.path(out));
        let arguments = ["bundle", "make", "--config", &config, "--out", &out, "--comment", "for a test"];
        good(&[&arguments, more].concat());
    }

    pub(super) fn sign(&self, file: &str, key: &str) {
        good(&["bundle", "sign", &self.path(file), "--key", &self.path(key)]);
    }

    pub(super) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(self.path(name), text.replacen(from, to, 1)).unwrap();
    }

    pub(super) fn document(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

fn refused(error: ClientError, code: Code, what: &str) {
    let field = error.violations().first().map(|violation| violation.field.clone()).unwrap_or_default();
    assert!(error.code() == code && (field.contains(what) || error.message().contains(what)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_made_signed_proposed_and_approved_and_then_decides() {
    let fixture = Fixture::start_with(|made, text| name_signers(&made.config, &text)).await;
    fixture.tenants().await;
    let (alice, bob) = (fixture.operator().await, bob(&fixture).await);
    let billing = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing");
    let sealed = billing.encrypt(&target, b"DE89 3704").await.unwrap();
    let files = Files(fixture.root().to_owned());

    // Nobody decrypts any more: from here on in the files, which decide nothing as long as nobody signs them.
    let baseline = "@id(\"workload-decrypt\")\npermit";
    files.edit("policies/baseline.cedar", baseline, "@id(\"workload-decrypt\")\nforbid");
    fixture.gateway.reload().await.unwrap();
    billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    refused(alice.get_policy(0).await.unwrap_err(), Code::NotFound, "policy bundle");

    files.make("one.json", &[]);
    refused(alice.validate_policy(&files.document("one.json")).await.unwrap_err(), Code::InvalidArgument, "signatures");
    files.sign("one.json", "ines");
    let half = files.document("one.json");
    refused(alice.propose_policy(&half, "test").await.unwrap_err(), Code::InvalidArgument, "signatures");
    files.sign("one.json", "jan");
    let whole = files.document("one.json");
    for (document, what) in [
        ("", "document"),
        (&whole[..whole.len() / 2], "bundle line"),
        (&whole.replacen("\"version\": 1", "\"version\": 2", 1), "signatures"),
    ] {
        refused(alice.propose_policy(document, "test").await.unwrap_err(), Code::InvalidArgument, what);
    }
    let valid = alice.validate_policy(&whole).await.unwrap();
    assert_eq!((valid.version, valid.workloads, valid.signers.len()), (1, 2, 2));
    assert!(valid.policies.contains(&"workload-decrypt".to_owned()));
    let bundle = alice.propose_policy(&whole, "test").await.unwrap();
    assert_eq!((bundle.state(), &bundle.sha256), (PolicyState::Pending, &valid.sha256));
    let other = vault_proto::v1::PolicyBundle { sha256: "0".repeat(64), ..bundle.clone() };
    refused(alice.activate_policy(&other, "test").await.unwrap_err(), Code::InvalidArgument, "sha256");
    let asked = alice.activate_policy(&bundle, "test").await.unwrap();
    assert_eq!((asked.action.as_str(), asked.tenant.as_str()), ("ActivatePolicy", ""));
    assert_eq!((asked.policy_version, &asked.policy_sha256), (1, &bundle.sha256));
    refused(alice.approve(&asked, None, "test").await.unwrap_err(), Code::FailedPrecondition, "another operator");
    assert_eq!(bob.list_approvals(0, "").await.unwrap().approvals, std::slice::from_ref(&asked));
    assert_eq!(bob.get_approval("", &asked.approval).await.unwrap(), asked);
    billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    let done = bob.approve(&asked, None, "test").await.unwrap();
    assert_eq!(done.state(), ApprovalState::Executed);
    let denied = billing.decrypt(&target, sealed.envelope.clone()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    billing.encrypt(&target, b"x").await.unwrap();
    let found = alice.get_policy(0).await.unwrap();
    assert_eq!((found.document, found.bundle.unwrap().state()), (whole.clone(), PolicyState::Active));

    // The way back is a new bundle; its registry counts as well.
    files.edit("policies/baseline.cedar", "@id(\"workload-decrypt\")\nforbid", baseline);
    files.edit("policies/registry.toml", "\"writer\", \"reader\", \"rewrapper\"", "\"reader\"");
    files.make("two.json", &["--after", &files.path("one.json")]);
    files.sign("two.json", "jan");
    files.sign("two.json", "ines");
    let bundle = alice.propose_policy(&files.document("two.json"), "test").await.unwrap();
    let asked = alice.activate_policy(&bundle, "test").await.unwrap();
    let rejected = bob.reject("", &asked.approval, "not yet").await.unwrap();
    assert_eq!(rejected.state(), ApprovalState::Rejected);
    let asked = alice.activate_policy(&bundle, "test").await.unwrap();
    bob.approve(&asked, None, "test").await.unwrap();
    billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    assert_eq!(billing.encrypt(&target, b"x").await.unwrap_err().code(), Code::PermissionDenied);
    refused(alice.propose_policy(&whole, "test").await.unwrap_err(), Code::InvalidArgument, "version");
    let page = alice.list_policies(1, "").await.unwrap();
    assert_eq!((page.bundles[0].version, page.bundles[0].state()), (1, PolicyState::Retired));
    let next = alice.list_policies(1, &page.next_page_token).await.unwrap();
    assert_eq!((next.bundles[0].version, next.next_page_token.as_str()), (2, ""));
    assert_eq!(next.bundles[0].approval, asked.approval);

    // And so it stays, whatever the files say.
    files.make("three.json", &["--after", &files.path("two.json")]);
    files.sign("three.json", "jan");
    let (config, three) = (files.path("vault.toml"), files.path("three.json"));
    let install = ["bundle", "install", &three, "--config", &config];
    bad(&install, "open already");
    let Fixture { dir: _dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    bad(&install, "signatures");
    fs::write(made.config.with_file_name("policies/baseline.cedar"), "").unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    assert_eq!(gateway.vault().policy_bundle().unwrap().version, 2);
    gateway.shutdown().await.unwrap();
    // While no gateway serves, signatures are enough.
    files.sign("three.json", "ines");
    assert!(good(&install).contains("in force: 3 sha256:"));
    bad(&install, "in force");
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    assert_eq!(gateway.vault().policy_bundle().unwrap().version, 3);
    gateway.shutdown().await.unwrap();
    // Without the signers it is not even begun.
    let text = fs::read_to_string(&made.config).unwrap();
    let text: String = text
        .lines()
        .filter(|l| !l.starts_with("signers") && !l.starts_with("quorum"))
        .map(|l| format!("{l}\n"))
        .collect();
    fs::write(&made.config, text).unwrap();
    let refused = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("no policy signers"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_signers_policies_come_from_files_and_bundles_are_refused() {
    let fixture = Fixture::start().await;
    let alice = fixture.operator().await;
    let files = Files(fixture.root().to_owned());
    files.make("one.json", &[]);
    let document = files.document("one.json");
    let none = "no policy signers are configured";
    refused(alice.validate_policy(&document).await.unwrap_err(), Code::FailedPrecondition, none);
    refused(alice.propose_policy(&document, "test").await.unwrap_err(), Code::FailedPrecondition, none);
    assert_eq!(alice.list_policies(0, "").await.unwrap().bundles, []);
    let before = fixture.gateway.vault().authorizer().epoch();
    assert_eq!(fixture.gateway.reload().await.unwrap(), before + 1);
    fixture.gateway.shutdown().await.unwrap();
}

#[test]
fn the_command_line_makes_signs_and_verifies_and_names_what_is_wrong() {
    let (_dir, made) = made();
    let text = fs::read_to_string(&made.config).unwrap();
    fs::write(&made.config, name_signers(&made.config, &text)).unwrap();
    let files = Files(made.config.parent().unwrap().to_owned());
    let (config, one) = (files.path("vault.toml"), files.path("one.json"));
    let mode = fs::metadata(files.path("ines")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bad(&["key", "new", "--name", "x", "--out", &files.path("ines")], "exists already");
    bad(&["key", "new", "--name", "two words", "--out", &files.path("new")], "origin");
    assert!(!Path::new(&files.path("new")).exists());

    files.make("one.json", &[]);
    bad(&["bundle", "make", "--config", &config, "--out", &one, "--comment", "x"], "exists already");
    bad(&["bundle", "make", "--config", &config, "--out", &files.path("new"), "--comment", ""], "comment");
    bad(&["bundle", "verify", &one, "--config", &config], "signatures");
    files.sign("one.json", "ines");
    files.sign("one.json", "ines");
    bad(&["bundle", "verify", &one, "--config", &config], "signatures");
    files.sign("one.json", "jan");
    let verified = good(&["bundle", "verify", &one, "--config", &config]);
    assert!(verified.contains("version: 1") && verified.contains("signed by policy/ines, policy/jan"), "{verified}");
    files.make("two.json", &["--after", &one, "--version", "9"]);
    for key in ["ines", "jan"] {
        files.sign("two.json", key);
    }
    let two = files.path("two.json");
    assert!(good(&["bundle", "verify", &two, "--config", &config, "--after", &one]).contains("version: 9"));
    bad(&["bundle", "verify", &one, "--config", &config, "--after", &two], "does not follow");
    let three = files.path("three.json");
    let back = ["bundle", "make", "--config", &config, "--out", &three, "--comment", "x", "--after", &two];
    bad(&[&back[..], &["--version", "9"]].concat(), "--version");

    // A text that was changed after it was signed; half a file; a key that others may read; another's public half.
    files.edit("two.json", "for a test", "for two tests");
    bad(&["bundle", "verify", &two, "--config", &config], "signatures");
    let document = files.document("one.json");
    fs::write(&three, &document[..document.len() - 40]).unwrap();
    bad(&["bundle", "verify", &three, "--config", &config], "is it complete?");
    bad(&["bundle", "sign", &three, "--key", &files.path("ines")], "is it complete?");
    fs::copy(files.path("jan.pub"), files.path("ines.pub")).unwrap();
    bad(&["bundle", "sign", &one, "--key", &files.path("ines")], "public half");
    fs::set_permissions(files.path("jan"), fs::Permissions::from_mode(0o640)).unwrap();
    bad(&["bundle", "sign", &one, "--key", &files.path("jan")], "0600");
    // The policies of the configuration are judged before a bundle is made of them.
    files.edit("policies/baseline.cedar", "@id(\"workload-decrypt\")\npermit (", "permit (");
    bad(&["bundle", "make", "--config", &config, "--out", &files.path("four.json"), "--comment", "x"], "no @id");
    assert!(!Path::new(&files.path("four.json")).exists());
}
