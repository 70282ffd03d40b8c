//! A tenant reads what was done with its data and keys, and believes nothing of it that it has not checked.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

#[expect(unreachable_pub, dead_code, reason = "shared by several tests")]
mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{DATASET, Site, TENANT};
use prost::bytes::Bytes;
use tonic::Code;
use vault_client::{
    AccessBody, AccessEntry, AccessLogClient, AccessLogFault, AccessLogVerifier, AuditClient, BatchItem, Bookmark,
    LogKey, OperatorClient, Target, VaultClient, read_all,
};
use vault_core::audit::merkle::{Hash, verify_consistency, verify_inclusion};
use vault_core::audit::{Checkpoint, LogVerifier};
use vault_grpc::config::Config;
use vault_grpc::{Gateway, init};
use vault_proto::Timestamp;
use vault_proto::v1::{ListAccessesRequest, ListAccessesResponse, audit_entry};

const OTHER: &str = "globex";

struct Scene {
    site: Site,
    keys: Vec<LogKey>,
    log: String,
}

impl Scene {
    /// Two tenants, each with a dataset, its own workload, and some accesses.
    async fn new() -> Self {
        let site = Site::start().await;
        let key = LogKey::parse(&site.file("audit.vkey")).unwrap();
        let log = key.origin().to_owned();
        let scene = Self { site, keys: vec![key], log };
        let operator = scene.operator().await;
        operator.create_tenant(OTHER, None, "test").await.unwrap();
        operator.create_dataset(OTHER, DATASET, "", "", "test").await.unwrap();
        scene
    }

    async fn operator(&self) -> OperatorClient {
        OperatorClient::connect(&self.site.operator(self.site.gateway.control_addr())).await.unwrap()
    }

    fn storefront(&self) -> vault_client::Endpoint {
        let (cert, key) = (self.site.file("certs/storefront.pem"), self.site.file("certs/storefront.key"));
        self.site.endpoint(self.site.gateway.data_addr(), &cert, &key)
    }

    async fn acme(&self) -> AccessLogClient {
        AccessLogClient::connect(&self.site.workload(self.site.gateway.data_addr())).await.unwrap()
    }

    async fn acme_data(&self) -> VaultClient {
        VaultClient::connect(&self.site.workload(self.site.gateway.data_addr())).await.unwrap()
    }

    async fn globex_data(&self) -> VaultClient {
        VaultClient::connect(&self.storefront()).await.unwrap()
    }

    fn verifier(&self) -> AccessLogVerifier {
        AccessLogVerifier::new(TENANT, &self.log, &self.keys).unwrap()
    }

    async fn read(&self) -> Vec<AccessEntry> {
        self.acme().await.read(&mut self.verifier(), None).await.unwrap()
    }
}

fn target() -> Target {
    Target::new(TENANT, DATASET, "billing")
}

/// As `Encrypt allowed`, `SuspendTenant executed`.
fn shown(entry: &AccessEntry) -> String {
    match &entry.body {
        AccessBody::Intent { decision, .. } => format!("{} allowed", decision.action),
        AccessBody::Refused { decision, check, .. } => format!("{} refused: {check}", decision.action),
        AccessBody::Outcome { status, .. } => (*status).to_owned(),
        AccessBody::Executed { action, .. } => format!("{action} executed"),
        AccessBody::Event { event, .. } => event.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_every_access_and_every_operators_action_and_nothing_of_others() {
    let scene = Scene::new().await;
    let (acme, globex) = (scene.acme_data().await, scene.globex_data().await);
    let operator = scene.operator().await;
    let sealed = acme.encrypt(&target(), b"1").await.unwrap();
    acme.decrypt(&target(), sealed.envelope.clone()).await.unwrap();
    acme.rewrap(&target(), sealed.envelope.clone()).await.unwrap();
    // Of the other tenant, in between.
    globex.encrypt(&Target::new(OTHER, DATASET, "orders"), b"2").await.unwrap();
    let items = vec![BatchItem::plaintext(DATASET, b"3"), BatchItem::plaintext(DATASET, b"4")];
    acme.batch_encrypt(TENANT, "billing", items).await.unwrap();
    acme.encrypt_stream(&target(), &b"a stream"[..], &mut Vec::new()).await.unwrap();
    // One that fails, one that is refused, one by a stranger: whoever tried it on this tenant is in this tenant's log.
    acme.decrypt(&target().context("column", "other"), sealed.envelope.clone()).await.unwrap_err();
    acme.encrypt(&Target::new(TENANT, "no-such-dataset", "billing"), b"5").await.unwrap_err();
    globex.decrypt(&target(), sealed.envelope.clone()).await.unwrap_err();
    // And the other way round: in the other's.
    acme.decrypt(&Target::new(OTHER, DATASET, "billing"), sealed.envelope.clone()).await.unwrap_err();
    let receipt = acme.encrypt(&target(), b"6").await.unwrap().audit_receipt.unwrap();
    operator.rotate_data_keys(TENANT, Some(DATASET), "it is time").await.unwrap();
    operator.shred_subject(TENANT, "ann", "she asked for it").await.unwrap();
    operator.suspend_tenant(TENANT, "looking into it").await.unwrap();
    acme.encrypt(&target(), b"7").await.unwrap_err();
    // Suspended, the tenant still reads what was done.
    let entries = scene.read().await;
    let story: Vec<String> = entries.iter().map(shown).collect();
    let expected = [
        "CreateTenant allowed",
        "CreateTenant executed",
        "CreateDataset allowed",
        "CreateDataset executed",
        "Encrypt allowed",
        "Decrypt allowed",
        "Rewrap allowed",
        "Encrypt allowed",
        "Encrypt allowed",
        "Encrypt allowed",
        "done",
        "Decrypt allowed",
        "failed",
        "Encrypt refused: policy",
        "Decrypt refused: registry",
        "Encrypt allowed",
        "RotateDataKeys allowed",
        "RotateDataKeys executed",
        "ShredSubject allowed",
        "ShredSubject executed",
        "SuspendTenant allowed",
        "SuspendTenant executed",
        "Encrypt refused: suspended",
        "ListAccesses allowed",
    ];
    assert_eq!(story, expected);
    let told = |what: &str| entries.iter().find(|entry| shown(entry) == what).unwrap().decision().unwrap();
    let stranger = told("Decrypt refused: registry");
    assert!(stranger.principal.ends_with("/storefront"), "{}", stranger.principal);
    assert_eq!(told("SuspendTenant allowed").reason.as_deref(), Some("looking into it"));
    // What a caller kept of its call is there.
    let (index, leaf) = receipt.entries().next().unwrap();
    let kept = entries.iter().find(|entry| entry.index == index).unwrap();
    assert_eq!(kept.leaf_hash(), leaf);
    // Nothing of the other tenant, in any byte.
    assert!(entries.iter().all(|entry| !entry.bytes.windows(OTHER.len()).any(|part| part == OTHER.as_bytes())));
    scene.site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operator_no_other_tenants_workload_and_none_without_the_role_reads_it() {
    let scene = Scene::new().await;
    let request = || ListAccessesRequest { tenant: TENANT.into(), page_size: 1, ..Default::default() };
    // On the data plane the operator's certificate is none; on the control plane the service is not there.
    let site = &scene.site;
    assert!(AccessLogClient::connect(&site.operator(site.gateway.data_addr())).await.is_err());
    let at_control = AccessLogClient::connect(&site.operator(site.gateway.control_addr())).await.unwrap();
    assert_eq!(at_control.page(request()).await.unwrap_err().code(), Code::Unimplemented);
    let globex = AccessLogClient::connect(&scene.storefront()).await.unwrap();
    let denied = globex.page(request()).await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "denied by registry"));
    // A tenant that is not there looks the same as one that is another's.
    let unknown = ListAccessesRequest { tenant: "nobody".into(), ..request() };
    assert_eq!(globex.page(unknown).await.unwrap_err().message(), denied.message());
    let registry = site.file("policies/registry.toml").replace("\"access-log\", ", "");
    fs::write(site.made.config.with_file_name("policies/registry.toml"), registry).unwrap();
    site.gateway.reload().await.unwrap();
    let refused = scene.acme().await.page(request()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "denied by policy"));
    for (wrong, field) in [
        (ListAccessesRequest { tenant: "Bad".into(), ..request() }, "tenant"),
        (ListAccessesRequest { page_size: -1, ..request() }, "page_size"),
        (ListAccessesRequest { subject: Some(String::new()), ..request() }, "subject"),
        (ListAccessesRequest { end_user_token: Bytes::from_static(b"no token"), ..request() }, "end_user_token"),
        (ListAccessesRequest { start_time: Some(Timestamp { seconds: -1, nanos: 0 }), ..request() }, "start_time"),
    ] {
        let error = scene.acme().await.page(wrong).await.unwrap_err();
        assert_eq!(error.violations().first().map(|violation| violation.field.as_str()), Some(field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_says_that_it_is_one() {
    let scene = Scene::new().await;
    let (acme, log) = (scene.acme_data().await, scene.acme().await);
    scene.operator().await.create_dataset(TENANT, "orders", "", "", "test").await.unwrap();
    acme.encrypt(&target().subject("ann"), b"1").await.unwrap();
    let sealed = acme.encrypt(&target().subject("bob"), b"2").await.unwrap();
    acme.decrypt(&target().subject("bob").context("a", "b"), sealed.envelope.clone()).await.unwrap_err();
    acme.encrypt(&Target::new(TENANT, "orders", "shipping"), b"3").await.unwrap();
    let wanted = || ListAccessesRequest { tenant: TENANT.into(), ..Default::default() };
    let select = async |wanted: ListAccessesRequest| -> Vec<String> {
        log.select(&scene.keys, &wanted).await.unwrap().iter().map(shown).collect()
    };
    let of = |subject: &str| ListAccessesRequest { subject: Some(subject.into()), ..wanted() };
    // A failure is about what its intent is about; the reading itself is an access to the person's history.
    let bobs = ["Encrypt allowed", "Decrypt allowed", "failed", "ListAccesses allowed"];
    assert_eq!(select(of("bob")).await, bobs);
    assert_eq!(select(of("ann")).await, ["Encrypt allowed", "ListAccesses allowed"]);
    assert_eq!(select(of("nobody")).await, ["ListAccesses allowed"]);
    let orders = ListAccessesRequest { dataset: "orders".into(), ..wanted() };
    assert_eq!(select(orders).await, ["CreateDataset allowed", "CreateDataset executed", "Encrypt allowed"]);
    let shipping = ListAccessesRequest { purpose: "shipping".into(), ..wanted() };
    assert_eq!(select(shipping).await, ["Encrypt allowed"]);
    let entries = scene.read().await;
    let at = |entry: &AccessEntry, plus: u64| {
        let millis = i64::try_from(entry.time_ms + plus).unwrap();
        Some(Timestamp { seconds: millis / 1000, nanos: i32::try_from(millis % 1000).unwrap() * 1_000_000 })
    };
    let first = entries.first().unwrap();
    let before = ListAccessesRequest { end_time: at(first, 0), ..wanted() };
    assert_eq!(select(before).await.len(), 0);
    let since = ListAccessesRequest { start_time: at(first, 0), end_time: at(first, 1), ..wanted() };
    assert_eq!(select(since).await[0], "CreateTenant allowed");
    // Nobody takes a selection for all.
    let page = log.page(ListAccessesRequest { purpose: "shipping".into(), ..wanted() }).await.unwrap();
    assert!(page.selection);
    assert_eq!(scene.verifier().accept(&page), Err(AccessLogFault::Selection));
    // No entry names a person.
    assert!(entries.iter().all(|entry| !entry.bytes.windows(3).any(|part| part == b"bob" || part == b"ann")));
}

/// A gateway that lies: each lie is made of a true answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_the_log_is_found() {
    let scene = Scene::new().await;
    let (acme, globex) = (scene.acme_data().await, scene.globex_data().await);
    for n in 0..5u8 {
        acme.encrypt(&target(), &[n]).await.unwrap();
        globex.encrypt(&Target::new(OTHER, DATASET, "orders"), &[n]).await.unwrap();
    }
    let ask = scene.verifier().request(1000);
    let log = scene.acme().await;
    let truth = log.page(ask.clone()).await.unwrap();
    let mut told = scene.verifier();
    let entries = told.accept(&truth).unwrap();
    assert!(told.is_complete() && entries.len() >= 9);
    let lied = |change: &dyn Fn(&mut ListAccessesResponse)| {
        let mut lie = truth.clone();
        change(&mut lie);
        let mut verifier = scene.verifier();
        let found = verifier.accept(&lie);
        // A page with more to come is no lie by itself: the next one is.
        found.map(|_| verifier.is_complete())
    };
    let foreign = {
        let client = AccessLogClient::connect(&scene.storefront()).await.unwrap();
        let page = client.page(ListAccessesRequest { tenant: OTHER.into(), ..ask.clone() }).await.unwrap();
        (page.checkpoint.clone(), page.entries[0].clone())
    };
    // Dropped: in the middle, at the start, at the end.
    assert_eq!(lied(&|page| drop(page.entries.remove(4))), Err(AccessLogFault::Gap { expected: 5, found: 6 }));
    assert_eq!(lied(&|page| drop(page.entries.remove(0))), Err(AccessLogFault::Gap { expected: 1, found: 2 }));
    assert_eq!(lied(&|page| drop(page.entries.pop())), Ok(false));
    assert!(matches!(lied(&|page| page.entries.clear()), Err(AccessLogFault::Truncated { .. })));
    // The end hidden, too: then the call's own entry is missing.
    let hide = |page: &mut ListAccessesResponse| {
        page.entries.pop();
        page.head = page.entries.last().cloned();
    };
    assert_eq!(lied(&hide), Err(AccessLogFault::Stale));
    assert!(lied(&|page| page.head = None).is_err());
    // Repeated, reordered.
    assert!(matches!(lied(&|page| page.entries.swap(2, 3)), Err(AccessLogFault::Gap { .. })));
    assert!(matches!(lied(&|page| page.entries.insert(3, page.entries[2].clone())), Err(AccessLogFault::Gap { .. })));
    // Edited: the last byte of an entry, its index, its number, its path.
    let edit = |page: &mut ListAccessesResponse| {
        let mut bytes = page.entries[4].entry.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        page.entries[4].entry = bytes.into();
    };
    assert!(matches!(lied(&edit), Err(AccessLogFault::NotInLog { .. })));
    assert!(matches!(lied(&|page| page.entries[4].index += 1), Err(AccessLogFault::NotInLog { .. })));
    assert!(matches!(lied(&|page| page.entries[4].sequence += 1), Err(AccessLogFault::Malformed(_))));
    assert!(matches!(
        lied(&|page| page.entries[4].inclusion_path = Bytes::from_static(&[0; 32])),
        Err(AccessLogFault::NotInLog { .. })
    ));
    // Another's entry, proven under the checkpoint that holds it.
    let mut verifier = scene.verifier();
    let mut with_foreign = truth.clone();
    with_foreign.checkpoint.clone_from(&foreign.0);
    with_foreign.entries = vec![foreign.1.clone()];
    assert!(matches!(verifier.accept(&with_foreign), Err(AccessLogFault::Foreign { .. })));
    // Another checkpoint: unsigned, by another key, of another log.
    let size = |page: &mut ListAccessesResponse| {
        let size = page.checkpoint.lines().nth(1).unwrap().to_owned();
        page.checkpoint = page.checkpoint.replacen(&size, &format!("{size}0"), 1);
    };
    assert_eq!(lied(&size), Err(AccessLogFault::Signature));
    assert!(lied(&|page| page.checkpoint.clear()).is_err());
    assert_eq!(lied(&|page| page.log = "blindvault/other".into()), Err(AccessLogFault::OtherLog));
    // An old answer to a new question.
    acme.encrypt(&target(), b"more").await.unwrap();
    assert!(told.accept(&truth).is_err());
    let bookmark = told.bookmark();
    let mut again = scene.verifier().resume(Bookmark::parse(&bookmark.to_string()).unwrap());
    let news: Vec<String> = log.read(&mut again, None).await.unwrap().iter().map(shown).collect();
    assert!(news.ends_with(&["Encrypt allowed".to_owned(), "ListAccesses allowed".to_owned()]), "{news:?}");
    assert!(again.bookmark().size() > bookmark.size() && again.bookmark().sequence() > bookmark.sequence());
}

/// Between two visits the log is put back, or replaced by another history under the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_or_a_fork_between_two_visits_is_seen() {
    let scene = Scene::new().await;
    let acme = scene.acme_data().await;
    for n in 0..20u8 {
        acme.encrypt(&target(), &[n]).await.unwrap();
    }
    let mut visit = scene.verifier();
    scene.acme().await.read(&mut visit, None).await.unwrap();
    let bookmark = visit.bookmark();
    let Scene { site, keys, log } = scene;
    let Site { dir, made, gateway } = site;
    gateway.shutdown().await.unwrap();
    // Whoever can sign makes another history: the same key, a new log.
    fs::remove_dir_all(made.config.with_file_name("data/audit")).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let scene = Scene { site: Site { dir, made, gateway }, keys, log };
    let client = scene.acme().await;
    let resumed = || scene.verifier().resume(bookmark.clone());
    let rolled_back = client.read(&mut resumed(), None).await.unwrap_err();
    assert!(matches!(&rolled_back, vault_client::ReadError::Fault(AccessLogFault::RolledBack)), "{rolled_back}");
    // Longer than it was, it does not extend it.
    let acme = scene.acme_data().await;
    while scene.site.gateway.vault().audit().head().size < bookmark.size() + 5 {
        acme.encrypt(&target(), b"x").await.unwrap();
    }
    let forked = client.read(&mut resumed(), None).await.unwrap_err();
    assert!(matches!(&forked, vault_client::ReadError::Fault(AccessLogFault::Forked)), "{forked}");
    // Without a bookmark nothing shows.
    let mut bookmarks = Vec::new();
    let all = read_all(&[client], TENANT, None, &scene.keys, &mut bookmarks).await.unwrap();
    assert_eq!((bookmarks.len(), bookmarks[0].sequence()), (1, all.last().unwrap().sequence));
    assert!(init::WORKLOADS.iter().any(|(_, _, tenant, roles)| *tenant == TENANT && roles.contains("access-log")));
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.chunks(32).map(|hash| hash.try_into().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_verifies_entries_by_the_answers_alone() {
    let scene = Scene::new().await;
    let acme = scene.acme_data().await;
    acme.encrypt(&target().subject("ann"), b"a value").await.unwrap();
    scene.globex_data().await.decrypt(&target(), vec![0; 100]).await.unwrap_err();
    let audit = AuditClient::connect(&scene.site.operator(scene.site.gateway.control_addr())).await.unwrap();
    let older = audit.checkpoint().await.unwrap();
    let verifier = LogVerifier::parse(&older.verifier_key).unwrap();
    assert_eq!((verifier.vkey(), older.log.as_str()), (scene.site.file("audit.vkey").trim_end().into(), &*scene.log));
    let older = Checkpoint::verify(&older.checkpoint, &verifier).unwrap();
    scene.read().await;
    let newer = Checkpoint::verify(&audit.checkpoint().await.unwrap().checkpoint, &verifier).unwrap();
    assert!(newer.size > older.size);
    let proof = audit.consistency_proof(older.size, newer.size).await.unwrap();
    assert!(verify_consistency(older.size, &older.root, newer.size, &newer.root, &hashes(&proof.consistency_proof)));
    // Until a checkpoint covers the readings themselves: every reading is an entry, too.
    let body = |entry: &vault_proto::v1::AuditEntry| entry.body.clone().unwrap();
    let is_of = |entry: &vault_proto::v1::AuditEntry, action: &str| match body(entry) {
        audit_entry::Body::Executed(done) => done.action == action,
        _ => false,
    };
    let readings = ["GetCheckpoint", "GetConsistencyProof", "ListEntries"];
    let mut all: Vec<vault_proto::v1::AuditEntry> = Vec::new();
    let begun = Instant::now();
    while !readings.iter().all(|action| all.iter().any(|entry| is_of(entry, action))) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{all:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        all.extend(audit.entries(all.len() as u64, 7).await.unwrap().entries);
    }
    assert!(all.len() as u64 >= newer.size);
    assert!(all.iter().zip(0..).all(|(entry, index)| entry.index == index));
    for entry in all.iter().take(usize::try_from(newer.size).unwrap()) {
        let proof = audit.inclusion_proof(entry.index, newer.size).await.unwrap();
        assert_eq!((&proof.leaf_hash, proof.tree_size), (&entry.leaf_hash, newer.size));
        let leaf = entry.leaf_hash.as_ref().try_into().unwrap();
        assert!(verify_inclusion(&leaf, entry.index, newer.size, &hashes(&proof.inclusion_path), &newer.root));
    }
    let encrypt = all.iter().find_map(|entry| match body(entry) {
        audit_entry::Body::Intent(decision) if decision.action == "Encrypt" => Some((entry.tenant.clone(), decision)),
        _ => None,
    });
    let (tenant, encrypt) = encrypt.unwrap();
    assert_eq!((tenant.as_str(), encrypt.dataset.as_str(), encrypt.purpose.as_str()), (TENANT, DATASET, "billing"));
    assert!(encrypt.subject_pseudonym.len() == 32 && encrypt.key.is_some());
    let refused = all.iter().find_map(|entry| match body(entry) {
        audit_entry::Body::Refused(decision) => Some(decision.check),
        _ => None,
    });
    assert_eq!(refused.as_deref(), Some("registry"));
    for (index, size, field) in [(u64::MAX, 0, "index"), (0, u64::MAX, "tree_size")] {
        let wrong = audit.inclusion_proof(index, size).await.unwrap_err();
        assert_eq!((wrong.code(), wrong.violations()[0].field.as_str()), (Code::InvalidArgument, field));
    }
    let wrong = audit.consistency_proof(u64::MAX, 0).await.unwrap_err();
    assert_eq!(wrong.violations()[0].field, "old_size");
    // No workload is an auditor.
    let endpoint = scene.site.workload(scene.site.gateway.data_addr());
    let as_workload = AuditClient::connect(&endpoint).await.unwrap();
    assert_eq!(as_workload.checkpoint().await.unwrap_err().code(), Code::Unimplemented);
}

/// The same checks by somebody else's gRPC, TLS, hashes and signatures, written from the documents.
#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_verifies_its_entries_by_itself() {
    let python = std::env::var("BLINDVAULT_PYTHON").unwrap_or_else(|_| "python3".into());
    let needed = ["-c", "import grpc, grpc_tools.protoc, cryptography"];
    let found = Command::new(&python).args(needed).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        let reason = format!("{python} with the packages `grpcio`, `grpcio-tools` and `cryptography` is needed");
        assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{reason}");
        println!("SKIPPED a_python_client_verifies_its_entries_by_itself: {reason}");
        return;
    }
    let scene = Scene::new().await;
    let (acme, globex) = (scene.acme_data().await, scene.globex_data().await);
    for n in 0..10u8 {
        acme.encrypt(&target(), &[n]).await.unwrap();
        globex.encrypt(&Target::new(OTHER, DATASET, "orders"), &[n]).await.unwrap();
    }
    let dir = scene.site.dir.path();
    let config = serde_json::json!({
        "proto": format!("{}/../proto", env!("CARGO_MANIFEST_DIR")),
        "target": scene.site.gateway.data_addr().to_string(),
        "ca": dir.join("site/certs/server-ca.pem"),
        "cert": dir.join("site/certs/billing.pem"),
        "key": dir.join("site/certs/billing.key"),
        "tenant": TENANT,
        "vkey": scene.site.file("audit.vkey").trim_end(),
    });
    fs::write(dir.join("case.json"), config.to_string()).unwrap();
    let script = format!("{}/tests/python/access_log.py", env!("CARGO_MANIFEST_DIR"));
    let case = dir.join("case.json");
    let run = tokio::task::spawn_blocking(move || Command::new(python).arg(script).arg(case).output().unwrap());
    let output = run.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Two actions of an operator, ten accesses, and one entry for each page that it read.
    let kinds: Vec<u64> = said["kinds"].as_array().unwrap().iter().map(|kind| kind.as_u64().unwrap()).collect();
    assert_eq!(kinds[..4], [6, 4, 1, 4], "an intent with a custody, executed; an intent, executed");
    assert!(said["entries"].as_u64().unwrap() >= 4 + 10 + 3, "{said}");
    assert_eq!((&said["altered"], &said["own"]), (&said["bytes"], &serde_json::json!(true)));
}
