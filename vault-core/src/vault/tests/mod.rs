//! Consents and grants through the whole vault. They are here because only the crate itself can make an end user whom no
//! token proves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod approvals;
mod consents;
mod forged;
#[cfg(feature = "postgres")]
mod gateways;
mod grants;
mod streams;

#[path = "../../../tests/common/fixture.rs"]
mod fixture;
#[path = "../../../tests/common/pki.rs"]
mod pki;

use std::path::Path;
use std::sync::Arc;

use fixture::{because, call, context, dataset, open_vault, resume, tenant};
use pollster::block_on;

use super::{ConsentCall, ConsentReceipt, DecryptRequest, EncryptRequest, Target, Vault, new_request_id};
use crate::error::{Check, Error};
use crate::fs::OsFs;
use crate::id::{ConsentId, Purpose};
use crate::keys::{CacheSettings, ConsentScope, DatasetProperties, NewConsent};
use crate::principal::{EndUser, Operator, Workload};
#[cfg(feature = "postgres")]
use crate::time::Clock as _;
use crate::time::{ManualClock, Timestamp};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// With the baseline a policy forbids it before the code would: `Check::Consent` is the answer where no policy does.
const NO_CONSENT: Result<(), Error> = Err(Error::Denied(Check::Policy));

fn workload(name: &str) -> Workload {
    Workload::for_test(&format!("spiffe://prod.example/ns/shop/sa/{name}"))
}

fn operator(name: &str) -> Operator {
    Operator::for_test(&format!("spiffe://operators.example/operator/{name}"))
}

/// A vault with the tenants `acme` and `globex`; of each the dataset `customers`, which demands consent, and `orders`,
/// which does not. Every caller of it is valid for as long as the tests' clock may show.
struct Scene {
    vault: Vault,
    clock: Arc<ManualClock>,
}

impl Scene {
    fn open(dir: &Path) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let vault = open_vault(Arc::new(OsFs), dir, clock.clone(), CacheSettings::default());
        Self { vault, clock }
    }

    fn new() -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self::open(dir.path());
        set_up(&scene.vault);
        (dir, scene)
    }

    fn later(&self, millis: u64) {
        self.clock.advance_millis(millis);
    }
}

fn set_up(vault: &Vault) {
    let (alice, reason) = (operator("alice"), because());
    for id in ["acme", "globex"] {
        block_on(vault.create_tenant(&call(&alice, &reason), &tenant(id))).unwrap();
        declare(vault, id, "customers", true);
        declare(vault, id, "orders", false);
    }
}

fn declare(vault: &Vault, of: &str, name: &str, consent_required: bool) {
    let (alice, reason) = (operator("alice"), because());
    let properties = DatasetProperties { consent_required, ..DatasetProperties::default() };
    let at = (&tenant(of), &dataset(name));
    let made = block_on(vault.create_dataset_as(&call(&alice, &reason), at, properties)).unwrap();
    assert_eq!(made.consent_required, consent_required);
}

fn to(of: &str, name: &str, purpose: &str) -> Target {
    Target { purpose: Purpose::parse(purpose).unwrap(), ..fixture::target(of, name, None) }
}

fn seal(vault: &Vault, target: &Target) -> Vec<u8> {
    let request = EncryptRequest { target, context: &context(), plaintext: b"plain" };
    block_on(vault.encrypt(&workload("billing"), request)).unwrap().envelope
}

fn open_as(vault: &Vault, who: &str, target: &Target, envelope: &[u8]) -> Result<(), Error> {
    let request = DecryptRequest { target, context: &context(), envelope };
    let opened = block_on(vault.decrypt(&workload(who), request))?;
    assert_eq!(opened.plaintext.expose(), b"plain");
    Ok(())
}

fn open(vault: &Vault, target: &Target, envelope: &[u8]) -> Result<(), Error> {
    open_as(vault, "billing", target, envelope)
}

/// An end user who signed in with a second factor.
fn ann(of: &str) -> EndUser {
    EndUser::for_test("ann", of, Some(Timestamp(4_000_000_000_000)))
}

fn new_consent(datasets: &[&str], purpose: &str) -> NewConsent {
    let scope = match datasets {
        [] => ConsentScope::All,
        named => ConsentScope::Datasets(named.iter().map(|name| dataset(name)).collect()),
    };
    NewConsent { scope, purposes: vec![Purpose::parse(purpose).unwrap()], from: None, until: None }
}

/// Asks through the portal for an end user.
fn through_portal<T>(user: EndUser, of: &str, ask: impl AsyncFnOnce(&ConsentCall<'_>) -> T) -> T {
    let (portal, of) = (workload("portal"), tenant(of));
    let end_user = Arc::new(user);
    block_on(ask(&ConsentCall { who: &portal, end_user, tenant: &of, request: new_request_id().unwrap() }))
}

fn give(vault: &Vault, of: &str, new: &NewConsent) -> Result<ConsentReceipt, Error> {
    through_portal(ann(of), of, async |call| vault.grant_consent(call, new).await)
}

fn consent(vault: &Vault, of: &str, datasets: &[&str], purpose: &str) -> ConsentId {
    give(vault, of, &new_consent(datasets, purpose)).unwrap().consent.id
}

fn withdraw(vault: &Vault, of: &str, id: ConsentId) -> Result<ConsentReceipt, Error> {
    through_portal(ann(of), of, async |call| vault.withdraw_consent(call, id).await)
}
