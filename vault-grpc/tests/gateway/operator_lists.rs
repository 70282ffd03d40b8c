//! The list of operators over the wire: who has which role, what another list changes, and which lists are refused.

use std::fs;
use std::path::Path;
use std::process::Command;

use vault_client::{Code, OperatorClient};
use vault_core::audit::{Body, LogSigner, LogVerifier};
use vault_core::fs::OsFs;
use vault_core::principal::{OperatorList, Person, Role};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::operators::sign;

use super::audit_entries::entries;
use super::support::{Fixture, operator_id};

fn owner(root: &Path) -> LogSigner {
    let vkey = fs::read_to_string(root.join("owner.key.pub")).unwrap();
    let origin = LogVerifier::parse(&vkey).unwrap().origin().to_owned();
    LogSigner::load(&OsFs, &root.join("owner.key"), &origin).unwrap()
}

fn in_file(root: &Path) -> OperatorList {
    let note = fs::read_to_string(root.join("operators.note")).unwrap();
    OperatorList::parse(owner(root).verifier().note(&note).unwrap()).unwrap()
}

/// Puts another list in the place of the one that `init` made, signed by the owner.
pub(crate) fn rewrite(root: &Path, version: u64, edit: impl FnOnce(&mut Vec<Person>)) -> OperatorList {
    let list = in_file(root);
    let mut people = list.people().to_vec();
    edit(&mut people);
    let list = OperatorList::new(list.instance(), version, people).unwrap();
    fs::write(root.join("operators.note"), sign(&list, &owner(root)).unwrap()).unwrap();
    list
}

async fn client(fixture: &Fixture, name: &str) -> OperatorClient {
    let at = fixture.endpoint(fixture.gateway.control_addr(), &format!("operator-{name}"));
    OperatorClient::connect(&at).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_may_do_what_their_roles_are_for() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let (alice, carol, dave) =
        (client(&fixture, "alice").await, client(&fixture, "carol").await, client(&fixture, "dave").await);
    let denied = |code: Code, who: &str| assert_eq!(code, Code::PermissionDenied, "{who}");
    for (who, name) in [(&carol, "carol"), (&dave, "dave")] {
        who.get_tenant("acme").await.unwrap();
        denied(who.create_tenant("initech", None, "test").await.unwrap_err().code(), name);
        denied(who.shred_subject("acme", "mia", "test").await.unwrap_err().code(), name);
    }
    let asked = alice.shred_subject("acme", "mia", "she asked for it").await.unwrap();
    denied(dave.approve(&asked, Some("mia"), "why not").await.unwrap_err().code(), "a viewer approves nothing");
    carol.approve(&asked, Some("mia"), "as she asked").await.unwrap();
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_their_own_through_another_certificate() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let (alice, again) = (client(&fixture, "alice").await, client(&fixture, "alice-2").await);
    let asked = alice.shred_subject("acme", "mia", "she asked for it").await.unwrap();
    let own = again.approve(&asked, Some("mia"), "it is somebody else").await.unwrap_err();
    assert_eq!(own.code(), Code::FailedPrecondition, "{own}");
    client(&fixture, "bob").await.approve(&asked, Some("mia"), "as she asked").await.unwrap();
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_list_is_in_force_for_the_next_call_and_in_the_log() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let first = in_file(fixture.root());
    let dave = client(&fixture, "dave").await;
    assert_eq!(dave.suspend_tenant("acme", "test").await.unwrap_err().code(), Code::PermissionDenied);
    let second = rewrite(fixture.root(), 2, |people| people[3].roles = [Role::Custodian].into());
    assert_eq!(dave.suspend_tenant("acme", "test").await.unwrap_err().code(), Code::PermissionDenied, "not read yet");
    fixture.gateway.reload().await.unwrap();
    dave.suspend_tenant("acme", "test").await.unwrap();
    let third = rewrite(fixture.root(), 3, |people| people.truncate(3));
    fixture.gateway.reload().await.unwrap();
    let gone = dave.resume_tenant("acme", "test").await.unwrap_err();
    assert_eq!((gone.code(), gone.message()), (Code::PermissionDenied, "denied by operator"));
    let audit = fixture.root().join("data/audit");
    fixture.gateway.shutdown().await.unwrap();
    let told: Vec<_> = entries(&audit)
        .into_iter()
        .filter_map(|entry| match entry.body {
            Body::System { event, detail, first, .. } if event == "operators" => Some((first, detail)),
            _ => None,
        })
        .collect();
    let lists = [first, second, third].map(|list| (list.reference().version, list.reference().digest.to_string()));
    assert_eq!(told, lists);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worse_list_is_not_taken_and_the_one_before_stays() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let root = fixture.root().to_owned();
    let old = fs::read(root.join("operators.note")).unwrap();
    rewrite(&root, 2, |_| {});
    fixture.gateway.reload().await.unwrap();
    let good = fs::read_to_string(root.join("operators.note")).unwrap();
    let stranger = LogSigner::create(&OsFs, &root.join("stranger.key"), owner(&root).verifier().origin()).unwrap();
    let list = in_file(&root);
    let elsewhere = OperatorList::new("elsewhere", 3, list.people().to_vec()).unwrap();
    let other = OperatorList::new(list.instance(), 2, list.people()[..2].to_vec()).unwrap();
    for (text, why) in [
        (String::from_utf8(old.clone()).unwrap(), "an old list was put back"),
        (sign(&other, &owner(&root)).unwrap(), "raise it with every change"),
        (sign(&elsewhere, &owner(&root)).unwrap(), "another instance"),
        (sign(&list, &stranger).unwrap(), "not signed by"),
        (good.replace("roles: viewer", "roles: custodian"), "signature does not verify"),
        (list.text(), "not a signed note"),
        (String::new(), "not a signed note"),
    ] {
        fs::write(root.join("operators.note"), text).unwrap();
        let refused = fixture.gateway.reload().await.unwrap_err();
        assert!(refused.why().contains(why) && refused.place().contains("operators.list"), "{refused}, not {why}");
        fixture.operator().await.get_tenant("acme").await.unwrap();
        let dave = client(&fixture, "dave").await;
        assert_eq!(dave.suspend_tenant("acme", "test").await.unwrap_err().code(), Code::PermissionDenied);
    }
    // Nor does a gateway start with one that is older than what its log knows.
    let config = fixture.made.config.clone();
    fixture.gateway.shutdown().await.unwrap();
    fs::write(root.join("operators.note"), old).unwrap();
    let refused = Gateway::start(Config::load(&config).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("an old list was put back"), "{refused}");
    fs::write(root.join("operators.note"), good).unwrap();
    Gateway::start(Config::load(&config).unwrap()).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_there_is_no_operator() {
    let fixture = Fixture::start_with(|_, text| {
        let start = text.find("[operators]").unwrap();
        let end = start + text[start..].find("[store]").unwrap();
        format!("{}{}", &text[..start], &text[end..])
    })
    .await;
    let refused = fixture.operator().await.list_tenants(0, "").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "denied by operator"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_was_issued_for_too_long_is_no_operators() {
    let fixture =
        Fixture::start_with(|_, text| text.replace("[operators]", "[operators]\nmax_certificate_lifetime_s = 86400"))
            .await;
    let at = fixture.gateway.control_addr();
    let long = OperatorClient::connect(&fixture.endpoint(at, "operator-alice")).await.map(drop).unwrap_err();
    assert!(long.tls().is_some(), "{long}");
    let mut leaf = vault_grpc::pki::Leaf::client("alice", &operator_id("alice"));
    leaf.not_after = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    let issued = fixture.made.operator_ca.issue(&leaf).unwrap();
    let (address, server_ca) = (at.to_string(), fixture.made.server_ca.pem());
    let short =
        vault_client::Endpoint::new(address, "localhost", server_ca, issued.certificate.as_str(), issued.key.as_str());
    OperatorClient::connect(&short).await.unwrap().list_tenants(0, "").await.unwrap();
    // Workloads are none of its business.
    fixture.workload("billing").await;
}

fn run(arguments: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).arg("operators").args(arguments).output().unwrap();
    (done.status.code().unwrap(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

#[test]
fn the_owner_signs_an_edited_list_and_sees_what_it_changes() {
    let (_dir, made) = super::support::made();
    let root = made.config.parent().unwrap();
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let (note, edited, key) = (path("operators.note"), path("edited"), path("owner.key"));
    let (code, said) = run(&["verify", &note, "--key", &path("owner.key.pub")]);
    assert!(code == 0 && said.contains("alice: approver auditor author custodian; 2 certificates, 1 tokens"), "{said}");
    let text = fs::read_to_string(&note).unwrap();
    let text = text.replace("version: 1", "version: 2").replace("roles: viewer", "roles: auditor viewer");
    fs::write(&edited, &text).unwrap();
    let (code, said) = run(&["verify", &edited, "--key", &path("owner.key.pub")]);
    assert!(code == 1 && said.contains("signature does not verify"), "{said}");
    let (code, said) = run(&["sign", &edited, "--key", &key, "--after", &note]);
    assert!(code == 0 && said.contains("~ dave: roles +auditor"), "{said}");
    let (code, said) = run(&["verify", &edited, "--key", &path("owner.key.pub"), "--after", &note]);
    assert!(code == 0 && said.contains("~ dave: roles +auditor") && said.contains("in order"), "{said}");
    let (code, said) = run(&["verify", &note, "--key", &path("owner.key.pub"), "--after", &edited]);
    assert!(code == 1 && said.contains("an old list was put back"), "{said}");
    fs::write(&edited, text.replace("roles: auditor viewer", "roles: root")).unwrap();
    let (code, said) = run(&["sign", &edited, "--key", &key]);
    assert!(code == 1 && said.contains("operators line") && said.contains("must be of approver"), "{said}");
    let (code, said) = run(&["key", "--name", "shop-1/owner", "--out", &path("another.key")]);
    assert!(code == 0 && said.starts_with("shop-1/owner+"), "{said}");
    let (code, said) = run(&["verify", &note, "--key", &path("another.key.pub")]);
    assert!(code == 1 && said.contains("not signed by"), "{said}");
}
