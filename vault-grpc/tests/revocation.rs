//! What is revoked on one of two gateways, and how soon both deny it: the measurements of `docs/revocation.md`.
#![cfg(all(feature = "dev", feature = "postgres"))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, which say what they measured")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use pg_site::{alice, bob, configure, endpoint, patient, start};
use postgres::Server;
use vault_client::{ClientError, Endpoint, OperatorClient, Target, VaultClient};
use vault_grpc::Gateway;
use vault_grpc::init::{Made, WORKLOAD_DOMAIN};
use vault_grpc::pki::{Issued, Leaf};
use vault_proto::v1::ApprovalState;

#[path = "common/pg_site.rs"]
mod pg_site;
#[path = "../../vault-core/tests/common/postgres.rs"]
mod postgres;

/// A revocation that has not come so long after what it needs has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tenant's envelope, and whoever reads it on both gateways.
struct Reader {
    a: VaultClient,
    b: VaultClient,
    target: Target,
    envelope: Bytes,
}

/// How long until calls end this way. It need not be long before.
async fn until(client: &VaultClient, target: &Target, envelope: &Bytes, refused: bool) -> Duration {
    let begun = Instant::now();
    while client.decrypt(target, envelope.clone()).await.is_err() != refused {
        assert!(begun.elapsed() < PATIENCE, "refused: {}", !refused);
    }
    begun.elapsed()
}

impl Reader {
    /// How long until both refuse.
    async fn refused(&self) -> (Duration, Duration) {
        let until = |client| until(client, &self.target, &self.envelope, true);
        tokio::join!(until(&self.a), until(&self.b))
    }

    async fn served(&self) {
        for client in [&self.a, &self.b] {
            until(client, &self.target, &self.envelope, false).await;
        }
    }

    async fn is_served(&self, client: &VaultClient) -> Result<(), ClientError> {
        client.decrypt(&self.target, self.envelope.clone()).await.map(drop)
    }
}

/// Two gateways, and whoever uses them.
struct Place {
    made: Made,
    _dir: tempfile::TempDir,
    a: Gateway,
    b: Gateway,
    alice: OperatorClient,
    bob: OperatorClient,
}

impl Place {
    async fn new(server: &Server) -> Self {
        let (dir, made) = configure(server);
        patient(&made);
        fs::write(made.config.with_file_name("certs").join("workload.crl"), made.workload_ca.revoke(&[]).unwrap())
            .unwrap();
        let text = fs::read_to_string(&made.config).unwrap();
        fs::write(&made.config, text.replacen("crls = []", "crls = [\"certs/workload.crl\"]", 1)).unwrap();
        let (a, b) = (start(&made, "a").await, start(&made, "b").await);
        let (alice, bob) = (alice(&made, a.control_addr()).await, bob(&made, a.control_addr()).await);
        for tenant in ["acme", "globex"] {
            alice.create_tenant(tenant, None, "test").await.unwrap();
            alice.create_dataset(tenant, "customers", "", "", "test").await.unwrap();
        }
        Self { made, _dir: dir, a, b, alice, bob }
    }

    async fn reader(&self, who: impl Fn(&Gateway) -> Endpoint, target: Target) -> Reader {
        let connect = async |gateway| VaultClient::connect(&who(gateway)).await.unwrap();
        let (a, b) = (connect(&self.a).await, connect(&self.b).await);
        let envelope = a.encrypt(&target, b"DE89 3704").await.unwrap().envelope;
        let reader = Reader { a, b, target, envelope };
        reader.served().await;
        reader
    }

    /// A workload with a certificate of this moment.
    fn issue(&self, change: impl FnOnce(&mut Leaf)) -> Issued {
        let mut leaf = Leaf::client("billing", &format!("spiffe://{WORKLOAD_DOMAIN}/ns/shop/sa/billing"));
        change(&mut leaf);
        self.made.workload_ca.issue(&leaf).unwrap()
    }

    fn with(&self, gateway: &Gateway, issued: &Issued) -> Endpoint {
        let (at, server_ca) = (gateway.data_addr().to_string(), self.made.server_ca.pem());
        Endpoint::new(at, "localhost", server_ca, issued.certificate.as_str(), issued.key.as_str())
    }

    /// Reloads both, one after the other: each denies from its own reload on, and the other not before.
    async fn reload(&self, what: &str, reader: &Reader) {
        let begun = Instant::now();
        self.a.reload().await.unwrap();
        let reload = begun.elapsed();
        let here = until(&reader.a, &reader.target, &reader.envelope, true).await;
        reader.is_served(&reader.b).await.unwrap();
        self.b.reload().await.unwrap();
        let there = until(&reader.b, &reader.target, &reader.envelope, true).await;
        println!("measured: {what}: reload {reload:?}, then refused after {here:?}, and there {there:?} after its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn states_of_tenants_subjects_and_keys_reach_both_gateways() {
    let Some(server) = Server::shared() else { return };
    let place = Place::new(server).await;
    let (alice, bob) = (&place.alice, &place.bob);
    let acme = Target::new("acme", "customers", "billing");
    let by_billing = |gateway: &Gateway| endpoint(&place.made, gateway.data_addr(), "billing");
    let reader = place.reader(by_billing, acme.clone()).await;
    let of_mia = place.reader(by_billing, acme.clone().subject("mia")).await;

    alice.suspend_tenant("acme", "test").await.unwrap();
    let (here, there) = reader.refused().await;
    println!("measured: tenant suspended: refused after {here:?}, and on the other gateway after {there:?}");
    assert!(there < Duration::from_secs(1));
    let asked = alice.resume_tenant("acme", "test").await.unwrap();
    bob.approve(&asked, None, "test").await.unwrap();
    reader.served().await;

    let version = |sealed: vault_client::Sealed| sealed.key_version;
    let before = version(reader.b.encrypt(&acme, b"x").await.unwrap());
    alice.rotate_data_keys("acme", None, "test").await.unwrap();
    let begun = Instant::now();
    while version(reader.b.encrypt(&acme, b"x").await.unwrap()) == before {
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    println!("measured: data key rotated: the other gateway seals under the next after {:?}", begun.elapsed());
    assert!(version(reader.a.encrypt(&acme, b"x").await.unwrap()) > before);

    for (what, subject, reader) in [("subject shredded", Some("mia"), &of_mia), ("tenant shredded", None, &reader)] {
        let asked = match subject {
            Some(subject) => alice.shred_subject("acme", subject, "test").await,
            None => alice.shred_tenant("acme", "test").await,
        };
        let begun = Instant::now();
        let done = bob.approve(&asked.unwrap(), subject, "test").await.unwrap();
        let approved = begun.elapsed();
        assert_eq!(done.state(), ApprovalState::Executed);
        for client in [&reader.a, &reader.b] {
            reader.is_served(client).await.unwrap_err();
        }
        println!("measured: {what}: refused on both gateways when the approval answers, after {approved:?}");
    }
    let Place { a, b, .. } = place;
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn registry_policies_and_certificates_are_in_force_from_each_gateways_reload_on() {
    let Some(server) = Server::shared() else { return };
    let place = Place::new(server).await;
    let acme = Target::new("acme", "customers", "billing");
    let reader = place.reader(|gateway| endpoint(&place.made, gateway.data_addr(), "billing"), acme.clone()).await;
    let policies = place.made.config.with_file_name("policies");
    let cedar = fs::read_dir(&policies).unwrap().map(|found| found.unwrap().path());
    let cedar = cedar.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "cedar")).unwrap();
    for (what, file, change) in [
        ("registry entry removed", policies.join("registry.toml"), ""),
        ("policy changed", cedar, "\n@id(\"stop\")\nforbid (principal, action, resource);\n"),
    ] {
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, if change.is_empty() { String::new() } else { format!("{before}{change}") }).unwrap();
        place.reload(what, &reader).await;
        fs::write(&file, before).unwrap();
        place.a.reload().await.unwrap();
        place.b.reload().await.unwrap();
        reader.served().await;
    }

    let stolen = place.issue(|_| {});
    let thief = place.reader(|gateway| place.with(gateway, &stolen), acme.clone()).await;
    let list = place.made.workload_ca.revoke(&[stolen.serial]).unwrap();
    fs::write(place.made.config.with_file_name("certs").join("workload.crl"), list).unwrap();
    place.reload("certificate revoked by a list, its connections open", &thief).await;
    reader.served().await;

    // A certificate ends with a whole second.
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(now + 12);
    let short = place.issue(|leaf| leaf.not_after = ends);
    let late = place.reader(|gateway| place.with(gateway, &short), acme).await;
    let ended = async |client: &VaultClient| {
        until(client, &late.target, &late.envelope, true).await;
        SystemTime::now().duration_since(ends).unwrap_or_default()
    };
    let (here, there) = tokio::join!(ended(&late.a), ended(&late.b));
    println!("measured: certificate expired, its connections open: refused {here:?} and {there:?} after its end");
    assert!(here.max(there) < Duration::from_secs(2));
    let Place { a, b, .. } = place;
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
}
