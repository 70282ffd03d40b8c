//! Policy signers, bundles, and a vault that takes its policies from them.

use std::path::Path;
use std::sync::Arc;

use pollster::block_on;
use vault_core::audit::{LogSigner, Recovery};
use vault_core::bundle::{Bundle, BundleRef, PolicyFile, PolicyTrust, SignedBundle, Signers, StoredBundle};
use vault_core::error::Check;
use vault_core::fs::{Fs, OsFs};
use vault_core::id::{Fingerprint, Reason};
use vault_core::keys::{Approval, CacheSettings, Seen};
use vault_core::kms::{LocalRoot, RootKey, Roots};
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA};
use vault_core::principal::{Operator, Workload};
use vault_core::store::{EmbeddedStore, Expect, POLICY_ROWS, Store, Table, Write};
use vault_core::time::{Clock as _, ManualClock, Timestamp};
use vault_core::vault::{DecryptRequest, EncryptRequest};
use vault_core::{Error, Vault};

use crate::fixture::{People, REGISTRY, because, call, context, dataset, recover_vault_on, target, tenant};

/// The instance of the fixture's vaults.
const INSTANCE: &str = "test";

/// Two signers, both of whom it takes, and one who is none.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) billing: Workload,
    pub(crate) alice: Operator,
    pub(crate) bob: Operator,
    pub(crate) reason: Reason,
    pub(crate) ines: LogSigner,
    pub(crate) jan: LogSigner,
    pub(crate) mallory: LogSigner,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let (people, dir) = (People::new(), tempfile::tempdir().unwrap());
        let key = |name: &str| LogSigner::create(&OsFs, &dir.path().join(name), &format!("policy/{name}")).unwrap();
        let (ines, jan, mallory) = (key("ines"), key("jan"), key("mallory"));
        Self {
            dir,
            clock: Arc::new(ManualClock::new(Timestamp(1_907_755_200_000))),
            billing: people.workload("/ns/shop/sa/billing"),
            alice: people.operator("alice"),
            bob: people.operator("bob"),
            reason: because(),
            ines,
            jan,
            mallory,
        }
    }

    pub(crate) fn trust(&self) -> PolicyTrust {
        let keys = [&self.ines, &self.jan].map(|signer| signer.verifier().clone());
        let signers = Signers::new(keys.to_vec(), 2).unwrap();
        PolicyTrust { signers, workload_domain: "prod.example".into(), proof: None }
    }

    pub(crate) fn roots(&self) -> Arc<Roots> {
        let path = self.dir.path().join("root.key");
        let root: Arc<dyn RootKey> = Arc::new(
            if OsFs.exists(&path) { LocalRoot::open(&OsFs, &path) } else { LocalRoot::create(&OsFs, &path) }.unwrap(),
        );
        Roots::single(root).unwrap()
    }

    /// A vault with its log in a directory of its own; its policies are still those of the fixture.
    pub(crate) fn bare(&self, store: Arc<dyn Store>, name: &str) -> (Vault, Recovery) {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        self.bare_in(store, &dir)
    }

    fn bare_in(&self, store: Arc<dyn Store>, dir: &Path) -> (Vault, Recovery) {
        let clock = Arc::clone(&self.clock) as _;
        recover_vault_on(store, Arc::new(OsFs), dir, clock, CacheSettings::default(), self.roots())
    }

    pub(crate) fn try_open(&self, store: Arc<dyn Store>, name: &str) -> Result<Vault, Error> {
        let (vault, recovery) = self.bare(store, name);
        block_on(vault.adopt_policies(self.trust(), recovery.policy))
    }

    pub(crate) fn open(&self, store: Arc<dyn Store>, name: &str) -> Vault {
        self.try_open(store, name).unwrap()
    }

    /// Makes the tenant and its dataset.
    pub(crate) fn set_up(&self, vault: &Vault) {
        block_on(vault.create_tenant(&call(&self.alice, &self.reason), &tenant("acme"))).unwrap();
        let at = (&tenant("acme"), &dataset("customers"));
        block_on(vault.create_dataset(&call(&self.alice, &self.reason), at, None, None)).unwrap();
    }

    /// A bundle: the baseline, with one policy more.
    pub(crate) fn bundle(&self, version: u64, previous: Option<Fingerprint>, extra: &str) -> Bundle {
        let file = |name: &str, text: &str| PolicyFile { name: name.into(), text: text.into() };
        Bundle {
            instance: INSTANCE.into(),
            version,
            previous,
            created: self.clock.now(),
            not_before: self.clock.now(),
            comment: "for a test".into(),
            schema: BASELINE_SCHEMA.text.into(),
            policies: vec![file("baseline.cedar", BASELINE_POLICIES.text), file("extra.cedar", extra)],
            registry: REGISTRY.into(),
        }
    }

    pub(crate) fn sign(&self, bundle: Bundle) -> SignedBundle {
        SignedBundle::new(bundle).unwrap().sign(&self.ines).unwrap().sign(&self.jan).unwrap()
    }

    pub(crate) fn propose(&self, vault: &Vault, signed: &SignedBundle) -> Result<StoredBundle, Error> {
        block_on(vault.propose_policy(&call(&self.alice, &self.reason), signed))
    }

    /// Alice asks for it.
    pub(crate) fn ask(&self, vault: &Vault, bundle: BundleRef) -> Result<Approval, Error> {
        block_on(vault.activate_policy(&call(&self.alice, &self.reason), bundle))
    }

    pub(crate) fn approve(&self, vault: &Vault, who: &Operator, asked: &Approval) -> Result<Approval, Error> {
        let seen = Seen { request_sha256: asked.request_sha256, subject: None };
        block_on(vault.approve_activation(&call(who, &self.reason), asked.id, seen))
    }

    /// Proposes, asks, and has bob approve.
    pub(crate) fn activate(&self, vault: &Vault, signed: &SignedBundle) -> Result<BundleRef, Error> {
        let stored = self.propose(vault, signed)?;
        let asked = self.ask(vault, stored.reference)?;
        self.approve(vault, &self.bob, &asked)?;
        Ok(stored.reference)
    }

    pub(crate) fn encrypt(&self, vault: &Vault) -> Result<Vec<u8>, Error> {
        let target = target("acme", "customers", None);
        let request = EncryptRequest { target: &target, context: &context(), plaintext: b"DE89 3704" };
        block_on(vault.encrypt(&self.billing, request)).map(|sealed| sealed.envelope)
    }

    pub(crate) fn decrypt(&self, vault: &Vault, envelope: &[u8]) -> Result<(), Error> {
        let target = target("acme", "customers", None);
        let request = DecryptRequest { target: &target, context: &context(), envelope };
        block_on(vault.decrypt(&self.billing, request)).map(drop)
    }
}

/// A policy that nobody decrypts.
pub(crate) const NO_DECRYPT: &str =
    "@id(\"no-decrypt\") forbid (principal, action == Vault::Action::\"Decrypt\", resource);";

pub(crate) const DENIED: Error = Error::Denied(Check::Policy);

pub(crate) fn store(bed: &Bed) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(Arc::new(OsFs), &bed.dir.path().join("store.redb")).unwrap())
}

/// Changes a row of bundles behind the vault's back.
pub(crate) fn put<F: FnOnce(Vec<u8>) -> Vec<u8>>(store: &dyn Store, key: &[u8], change: F) {
    let row = block_on(store.get(Table::Policies, key)).unwrap().unwrap();
    let (expect, value) = (Expect::Version(row.version), change(row.value));
    let write = Write { table: Table::Policies, key: key.to_vec(), expect, value, revokes: false };
    block_on(store.commit(vec![write])).unwrap();
}

/// The key of a row of bundles.
pub(crate) fn row_key(kind: &str, rest: &[u8]) -> Vec<u8> {
    let rest = if rest.is_empty() { Vec::new() } else { [&[0], rest].concat() };
    [POLICY_ROWS, &[0], kind.as_bytes(), &rest].concat()
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (Bed::new, Bed::bare, Bed::try_open, Bed::open, Bed::set_up, Bed::activate, Bed::encrypt, Bed::decrypt);
    let _ = (NO_DECRYPT, DENIED, store, put::<fn(Vec<u8>) -> Vec<u8>>, row_key);
};
