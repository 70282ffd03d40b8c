//! The scorecard of a gateway on which things happened that the test counted itself: asked over the wire, computed from
//! the files afterwards, and told as metrics.
#![expect(clippy::panic, clippy::indexing_slicing, reason = "what is not there fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};
use vault_client::{OperatorClient, Target, VaultClient};
use vault_core::audit::{Body, EntryReader, LogVerifier};
use vault_core::fs::OsFs;
use vault_grpc::scorecard::{Line, Scorecard, Verdict, from_wire};
use vault_proto::v1::{CreateDatasetRequest, Plane};
use vault_proto::{Timestamp, rpcs};

use super::metrics::{metrics, start};
use super::shredding::bob;
use super::support::{Fixture, made, operator_id};

async fn call(channel: &Channel, path: &'static str) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let done: Result<tonic::Response<()>, _> =
        grpc.unary(Request::new(()), PathAndQuery::from_static(path), codec).await;
    done.unwrap_err().code()
}

fn line<'a>(card: &'a Scorecard, id: &str) -> &'a Line {
    card.line(id).unwrap_or_else(|| panic!("no line {id}"))
}

fn number(card: &Scorecard, id: &str) -> f64 {
    line(card, id).number.unwrap_or_else(|| panic!("no figure in {id}"))
}

fn part<'a>(card: &'a Scorecard, id: &str, name: &str) -> &'a str {
    let details = &line(card, id).details;
    &details.iter().find(|part| part.name == name).unwrap_or_else(|| panic!("no {name} in {details:?}")).value
}

async fn asked(operator: &OperatorClient) -> Scorecard {
    from_wire(&operator.get_scorecard(None, None, "quarterly report").await.unwrap()).unwrap()
}

/// What the scene made happen.
struct Happened {
    data_rpcs: usize,
}

async fn scene(fixture: &Fixture) -> Happened {
    fixture.tenants().await;
    let (alice, bob) = (fixture.operator().await, bob(fixture).await);
    let billing = fixture.workload("billing").await;
    let target = |subject: &str| Target::new("acme", "customers", "billing").subject(subject);
    // 4 encrypted, 3 of them decrypted; 5 denied.
    let mut envelopes = Vec::new();
    for subject in ["mia", "noa", "ida", "zoe"] {
        envelopes.push((subject, billing.encrypt(&target(subject), b"DE89").await.unwrap().envelope));
    }
    for (subject, envelope) in envelopes.iter().take(3) {
        billing.decrypt(&target(subject), envelope.clone()).await.unwrap();
    }
    for _ in 0..5 {
        billing.encrypt(&Target::new("globex", "customers", "billing"), b"x").await.unwrap_err();
    }
    // 1 whose plaintext needs a consent that nobody gave.
    let wanted = CreateDatasetRequest {
        tenant: "acme".into(),
        dataset: "consented".into(),
        reason: "test".into(),
        consent_required: true,
        ..Default::default()
    };
    alice.create_dataset_as(wanted).await.unwrap();
    let consented = Target::new("acme", "consented", "billing");
    let sealed = billing.encrypt(&consented, b"x").await.unwrap().envelope;
    billing.decrypt(&consented, sealed).await.unwrap_err();
    // Alice asks for three shreds; Bob approves one, rejects one, and one waits.
    let first = alice.shred_subject("acme", "mia", "asked by her").await.unwrap();
    let second = alice.shred_subject("acme", "noa", "asked by him").await.unwrap();
    alice.shred_subject("acme", "ida", "asked by her").await.unwrap();
    bob.approve(&first, Some("mia"), "as she asked").await.unwrap();
    bob.reject("acme", &second.approval, "not proven").await.unwrap();
    alice.rotate_data_keys("acme", None, "spring").await.unwrap();
    alice.rotate_tenant_key("acme", "spring").await.unwrap();
    // Alice tries every data call at the control plane, Decrypt a second time; and Bob one.
    let channel = fixture.endpoint(fixture.gateway.control_addr(), "operator-alice").channel().await.unwrap();
    let data: Vec<_> = rpcs().iter().filter(|rpc| rpc.plane == Plane::Data).collect();
    for rpc in &data {
        assert_eq!(call(&channel, rpc.path).await, Code::Unimplemented, "{}", rpc.path);
    }
    assert_eq!(call(&channel, "/vault.v1.CryptoService/Decrypt").await, Code::Unimplemented);
    // And shows her certificate to the data plane, three times.
    for _ in 0..3 {
        let stranger = fixture.endpoint(fixture.gateway.data_addr(), "operator-alice");
        assert!(VaultClient::connect(&stranger).await.is_err());
    }
    Happened { data_rpcs: data.len() }
}

/// The refused handshakes are told to the log once a second.
async fn when_told(operator: &OperatorClient) -> Scorecard {
    for _ in 0..200 {
        let card = asked(operator).await;
        if number(&card, "operators.data_connections") >= 3.0 {
            return card;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the refused handshakes were not told within 20 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scorecard_counts_what_happened_online_and_offline_alike() {
    let fixture = start().await;
    let Happened { data_rpcs } = scene(&fixture).await;
    let alice = fixture.operator().await;
    let card = when_told(&alice).await;
    let (me, other) = (operator_id("alice"), operator_id("bob"));

    assert_eq!(number(&card, "operators.data_allowed"), 0.0);
    assert_eq!(line(&card, "operators.data_allowed").verdict, Verdict::Ok);
    assert_eq!(number(&card, "operators.data_attempts"), (data_rpcs + 1) as f64);
    assert_eq!(line(&card, "operators.data_attempts").verdict, Verdict::Attention);
    assert_eq!(part(&card, "operators.data_attempts", &format!("{me} Decrypt")), "2");
    assert_eq!(part(&card, "operators.data_attempts", &format!("{me} GrantConsent")), "1");
    assert_eq!(number(&card, "operators.data_connections"), 3.0);
    assert_eq!(number(&card, "operators.active"), 2.0);

    for (id, count, by) in
        [("approvals.asked", 3.0, &me), ("approvals.approved", 1.0, &other), ("approvals.rejected", 1.0, &other)]
    {
        assert_eq!(number(&card, id), count, "{id}");
        assert_eq!(part(&card, id, by), count.to_string(), "{id}");
    }
    assert_eq!(number(&card, "approvals.own"), 0.0);
    assert_eq!(number(&card, "approvals.pending"), 1.0);
    assert_eq!(number(&card, "approvals.expired"), 0.0);
    assert!(number(&card, "approvals.median_wait") < 60.0);

    // One key a tenant; of acme one data key each of noa, ida, zoe, and one of the consented dataset.
    assert_eq!((number(&card, "keys.tenant.count"), number(&card, "keys.data.count")), (2.0, 4.0));
    assert_eq!((number(&card, "keys.tenant.due"), number(&card, "keys.data.due")), (0.0, 0.0));
    assert_eq!(part(&card, "keys.rotated", "tenant keys rotated"), "1");
    assert_eq!(part(&card, "keys.rotated", "rotations of data keys that operators began"), "1");

    assert_eq!(number(&card, "access.calls"), 8.0);
    assert_eq!((part(&card, "access.calls", "Encrypt"), part(&card, "access.calls", "Decrypt")), ("5", "3"));
    let denied = &line(&card, "access.denied").details;
    let of = |check: &str| -> u64 {
        denied.iter().filter(|one| one.name.starts_with(check)).map(|one| one.value.parse::<u64>().unwrap()).sum()
    };
    assert_eq!((of("data, registry"), of("control, identity")), (5, data_rpcs as u64 + 1), "{denied:?}");
    assert_eq!(number(&card, "access.denied"), (5 + 1 + data_rpcs + 1) as f64, "{denied:?}");
    assert_eq!((line(&card, "consent.datasets").value.as_str(), number(&card, "consent.releases")), ("1 of 3", 0.0));
    assert_eq!(number(&card, "revocation.receipts"), 0.0);
    assert_eq!(line(&card, "log.health").verdict, Verdict::Ok);
    assert_eq!(line(&card, "witness").value, "not configured");
    // The development configuration has its policies in files, which nobody proved.
    assert_eq!((number(&card, "policy.unproved"), line(&card, "policy.unproved").verdict), (1.0, Verdict::Bad));
    for series in &card.series {
        assert!(series.bands.iter().all(|band| band.values.len() == series.labels.len()), "{series:?}");
    }
    let today = card.series.iter().find(|series| series.id == "denials").unwrap();
    let sum: f64 = today.bands.iter().flat_map(|band| &band.values).sum();
    assert_eq!(sum, number(&card, "access.denied") + number(&card, "access.unproven"));
    // Nothing of whom the data is about, of data, or of who may not be named.
    let text = card.to_json();
    for secret in ["mia", "noa", "ida", "zoe", "DE89", "asked by", "billing", "spring"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }

    told_as_metrics(&fixture, data_rpcs).await;
    another_period_has_none_of_it(&alice).await;
    let (online, config) = (asked(&alice).await, fixture.made.config.clone());
    drop(alice);
    fixture.gateway.shutdown().await.unwrap();
    let offline: Scorecard =
        serde_json::from_str(&run(&["--config", config.to_str().unwrap(), "--format", "json"])).unwrap();
    same(&online, &offline);
    assert_eq!(line(&offline, "log.health").value, "verified");
    drop(fixture.dir);
}

async fn told_as_metrics(fixture: &Fixture, data_rpcs: usize) {
    let text = metrics(fixture).await;
    let sum = |name: &str| -> f64 {
        let of_it = text.lines().filter(|line| line.starts_with(name));
        of_it.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    assert_eq!(sum("blindvault_operator_data_calls_total{"), (data_rpcs + 1) as f64);
    assert_eq!(sum("blindvault_operator_data_connections_total "), 3.0);
    assert_eq!(sum("blindvault_calls_denied_total{plane=\"data\",check=\"registry\""), 5.0);
    assert!(sum("blindvault_certificate_end_timestamp_seconds{plane=\"data\",kind=\"certificate\"}") > 1.7e9);
    for secret in ["acme", "alice", "billing", "mia"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

async fn another_period_has_none_of_it(operator: &OperatorClient) {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let card = operator.get_scorecard(at(1_000_000_000), at(1_000_600_000), "").await.unwrap();
    let card = from_wire(&card).unwrap();
    assert_eq!((card.from.as_str(), card.until.as_str()), ("2001-09-09", "2001-09-17"));
    for id in ["operators.data_attempts", "approvals.asked", "access.calls", "access.denied", "log.entries"] {
        assert_eq!(number(&card, id), 0.0, "{id}");
    }
    assert_eq!(line(&card, "consent.releases").value, "nothing released");
    // What there is now is there whatever the period.
    assert_eq!(number(&card, "keys.tenant.count"), 2.0);
    let refused = operator.get_scorecard(at(1_000_600_000), at(1_000_000_000), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.violations()[0].field, "from_time");
}

/// The lines that are not about the moment or the serving process.
fn same(online: &Scorecard, offline: &Scorecard) {
    // The scorecard itself is logged, and so is the end.
    let moving = ["log.", "process.", "certificates.", "operators.active", "keys.tenant.oldest", "keys.data.oldest"];
    let lasting = |card: &Scorecard| -> BTreeMap<String, (String, Option<f64>, Verdict)> {
        let lines = card.lines.iter().filter(|line| !moving.iter().any(|prefix| line.id.starts_with(prefix)));
        lines.map(|line| (line.id.clone(), (line.value.clone(), line.number, line.verdict))).collect()
    };
    assert_eq!(lasting(online), lasting(offline));
    assert!(lasting(online).len() > 20);
    let ids = |card: &Scorecard| card.lines.iter().map(|line| line.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(online), ids(offline));
    assert_eq!(online.series, offline.series);
}

fn run(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_vault-grpc")).arg("scorecard").args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// The command line asks a running gateway; with the configuration of a running one it says that the store is in use.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_a_gateway_in_every_format() {
    let fixture = Fixture::start().await;
    fixture.tenants().await;
    let url = format!("https://localhost:{}", fixture.gateway.control_addr().port());
    let file = |name: &str| fixture.root().join("certs").join(name).display().to_string();
    let (cert, key) = (file("operator-alice.pem"), file("operator-alice.key"));
    let ca = file("server-ca.pem");
    let to = ["--gateway", &url, "--cert", &cert, "--key", &key, "--ca", &ca];
    let of = |format: &str| {
        let args = [&to[..], &["--format", format]].concat();
        tokio::task::block_in_place(|| run(&args))
    };
    let json: Value = serde_json::from_str(&of("json")).unwrap();
    assert_eq!(json["format"], "blindvault scorecard v1");
    let table = of("table");
    assert!(table.contains("operators' data calls that were not refused") && !table.contains('\x1b'), "{table}");
    let page = of("html");
    assert!(page.starts_with("<!doctype html>") && page.contains("operators&#39; data calls"), "{page}");
    let config = fixture.made.config.display().to_string();
    let busy = tokio::task::block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_vault-grpc")).args(["scorecard", "--config", &config]).output().unwrap()
    });
    assert_eq!(busy.status.code(), Some(1));
    assert!(busy.stdout.is_empty() && !busy.stderr.is_empty());
    for wrong in
        [&["--gateway", "http://localhost:1", "--cert", &cert, "--key", &key, "--ca", &ca][..], &["--format", "json"]]
    {
        let done = tokio::task::block_in_place(|| {
            Command::new(env!("CARGO_BIN_EXE_vault-grpc")).arg("scorecard").args(wrong).output().unwrap()
        });
        assert!(!done.status.success() && done.stdout.is_empty(), "{wrong:?}");
    }
    fixture.gateway.shutdown().await.unwrap();
}

/// A gateway that has done nothing has a scorecard, offline too.
#[test]
fn an_empty_log_has_a_scorecard() {
    let (dir, made) = made();
    // Opening it makes store and log.
    let config = vault_grpc::config::Config::load(&made.config).unwrap();
    vault_grpc::build::vault(&config).unwrap().close().unwrap();
    let text = run(&["--config", made.config.to_str().unwrap(), "--format", "json"]);
    let card: Scorecard = serde_json::from_str(&text).unwrap();
    for id in ["operators.data_attempts", "approvals.asked", "access.calls", "keys.data.count"] {
        assert_eq!(number(&card, id), 0.0, "{id}");
    }
    for id in ["approvals.median_wait", "keys.data.oldest", "consent.datasets", "revocation.slowest", "witness", "sink"]
    {
        assert_eq!((line(&card, id).verdict, line(&card, id).number), (Verdict::NotMeasured, None), "{id}");
    }
    drop(dir);
}

/// An operator's data call is in the log before it is told that there is none.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_data_call_is_an_entry_that_names_both() {
    let fixture = Fixture::start().await;
    let channel = fixture.endpoint(fixture.gateway.control_addr(), "operator-alice").channel().await.unwrap();
    assert_eq!(call(&channel, "/vault.v1.CryptoService/BatchDecrypt").await, Code::Unimplemented);
    let workload = fixture.endpoint(fixture.gateway.data_addr(), "billing").channel().await.unwrap();
    assert_eq!(call(&workload, "/vault.v1.TenantService/ListTenants").await, Code::Unimplemented);
    // What is no call at all is nobody's attempt.
    assert_eq!(call(&channel, "/vault.v1.CryptoService/Nothing").await, Code::Unimplemented);
    let verifier = LogVerifier::parse(&fs::read_to_string(fixture.root().join("audit.vkey")).unwrap()).unwrap();
    let dir = vault_grpc::config::Config::load(&fixture.made.config).unwrap().audit_dir.path;
    let mut found = Vec::new();
    let mut reader = EntryReader::open(&OsFs, &dir, &verifier).unwrap();
    let mut each = |entry: vault_core::audit::Entry, _| {
        if let Body::Refused { decided, check, reason } = entry.body {
            found.push((decided.principal, decided.action, check, reason));
        }
        Ok(())
    };
    while reader.group(&mut each).unwrap() {}
    let expected = |who: String, action: &str| {
        (who, action.to_owned(), "identity".to_owned(), "the call belongs to the other plane".to_owned())
    };
    let billing = super::support::workload_id("/ns/shop/sa/billing");
    assert_eq!(found, [expected(operator_id("alice"), "BatchDecrypt"), expected(billing, "ListTenants")]);
    fixture.gateway.shutdown().await.unwrap();
}
