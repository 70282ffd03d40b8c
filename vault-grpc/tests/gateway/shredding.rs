//! Shredding over the wire: two operators, a receipt that the binary checks.

use std::fs;
use std::process::Command;

use vault_client::{Code, OperatorClient, Target};
use vault_grpc::pki::Leaf;
use vault_proto::v1::{ApprovalState, TenantState};

use super::support::{Fixture, operator_id};

/// Another operator than alice.
pub(crate) async fn bob(fixture: &Fixture) -> OperatorClient {
    let issued = fixture.made.operator_ca.issue(&Leaf::client("bob", &operator_id("bob"))).unwrap();
    let address = fixture.gateway.control_addr().to_string();
    let server_ca = fixture.made.server_ca.pem();
    let endpoint =
        vault_client::Endpoint::new(address, "localhost", server_ca, issued.certificate.as_str(), issued.key.as_str());
    OperatorClient::connect(&endpoint).await.unwrap()
}

/// The exit code and what was said.
fn verify(receipt: &str, key: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("receipt.txt");
    fs::write(&file, receipt).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
        .args(["receipt", "verify"])
        .arg(file)
        .args(["--key", key])
        .output()
        .unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shred_takes_two_operators_and_leaves_a_receipt_that_verifies() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let (alice, bob) = (fixture.operator().await, bob(&fixture).await);
    let billing = fixture.workload("billing").await;
    let mia = Target::new("acme", "customers", "billing").subject("mia");
    let whole = Target::new("acme", "customers", "billing");
    let of_mia = billing.encrypt(&mia, b"DE89 3704").await.unwrap().envelope;
    let of_whole = billing.encrypt(&whole, b"DE89 3704").await.unwrap().envelope;

    let asked = alice.shred_subject("acme", "mia", "she asked for it").await.unwrap();
    assert_eq!(asked.state(), ApprovalState::Pending);
    let own = alice.approve(&asked, Some("mia"), "why not").await.unwrap_err();
    assert_eq!(own.code(), Code::FailedPrecondition, "{own}");
    let listed = bob.list_approvals(0, "").await.unwrap().approvals;
    assert_eq!(listed, std::slice::from_ref(&asked));
    assert_eq!((listed[0].subject_pseudonym.len(), listed[0].action.as_str()), (32, "ShredSubject"));
    let other = bob.approve(&listed[0], Some("noa"), "as she asked").await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument, "{other}");
    billing.decrypt(&mia, of_mia.clone()).await.unwrap();
    let done = bob.approve(&listed[0], Some("mia"), "as she asked").await.unwrap();
    assert_eq!(done.state(), ApprovalState::Executed);
    assert_eq!(bob.approve(&asked, Some("mia"), "again").await.unwrap_err().code(), Code::FailedPrecondition);
    let gone = billing.decrypt(&mia, of_mia.clone()).await.unwrap_err();
    assert_eq!(gone.code(), Code::InvalidArgument, "like any envelope that does not open: {gone}");
    let gone = billing.encrypt(&mia, b"x").await.unwrap_err();
    assert_eq!(gone.code(), Code::FailedPrecondition, "{gone}");
    billing.decrypt(&whole, of_whole.clone()).await.unwrap();

    let receipt = alice.get_approval("acme", &asked.approval).await.unwrap().receipt;
    assert_eq!(receipt, done.receipt);
    let vkey = fixture.root().join("audit.vkey");
    let text = fs::read_to_string(&vkey).unwrap();
    assert_eq!(verify(&receipt, vkey.to_str().unwrap()).0, 0);
    let (code, said) = verify(&receipt, text.trim());
    assert!(code == 0 && said.contains("tenant: acme") && said.contains("in order"), "{said}");
    for (bad, why) in
        [(receipt.replace("tenant: acme", "tenant: acmf"), "signature"), (receipt.replace("\n\n", "\n"), "empty line")]
    {
        let (code, said) = verify(&bad, text.trim());
        assert!(code == 1 && said.contains(why), "{said}");
    }
    assert_eq!(verify(&receipt, "no-such-file").0, 1);

    let asked = alice.shred_tenant("acme", "they left").await.unwrap();
    let rejected = bob.reject("acme", &asked.approval, "they came back").await.unwrap();
    assert_eq!(rejected.state(), ApprovalState::Rejected);
    let asked = alice.shred_tenant("acme", "they left again").await.unwrap();
    bob.approve(&asked, None, "they did").await.unwrap();
    assert_eq!(alice.get_tenant("acme").await.unwrap().state(), TenantState::Destroyed);
    assert!(billing.decrypt(&whole, of_whole).await.is_err());
    assert_eq!(billing.encrypt(&whole, b"x").await.unwrap_err().code(), Code::FailedPrecondition);
    let again = alice.create_tenant("acme", None, "again").await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition, "{again}");
    fixture.gateway.shutdown().await.unwrap();
}
