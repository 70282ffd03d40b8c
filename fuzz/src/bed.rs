//! A whole vault in memory: a simulated disk, a local root key, two operators and a workload.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use pollster::block_on;
use vault_core::audit::{LogVerifier, VerifyOptions, verify};
use vault_core::envelope::Context;
use vault_core::fs::Fs;
use vault_core::id::{DatasetId, Reason, Subject, TenantId};
use vault_core::keys::{ApprovalState, CacheSettings, Seen};
use vault_core::kms::{LocalRoot, RootKey, Roots};
use vault_core::principal::{Operator, Workload};
use vault_core::store::Store;
use vault_core::time::{ManualClock, Timestamp};
use vault_core::vault::{ControlCall, DecryptRequest, EncryptRequest, Sealed, Target};
use vault_core::{Error, Vault};

use crate::fixture::{because, call, open_store, open_vault_on, resume, target};
use crate::simfs::SimFs;
use crate::{tokens, unlocked};

const DIR: &str = "/data";

/// A disk and a clock.
pub struct Bed {
    fs: Arc<dyn Fs>,
    clock: Arc<ManualClock>,
}

/// Who calls, proven once.
struct People {
    billing: Workload,
    alice: Operator,
    bob: Operator,
    reason: Reason,
}

static WHO: LazyLock<People> = LazyLock::new(|| People {
    billing: tokens::workload(tokens::BILLING),
    alice: tokens::operator("alice"),
    bob: tokens::operator("bob"),
    reason: because(),
});

fn by(who: fn(&People) -> &Operator) -> ControlCall<'static> {
    call(who(&WHO), &WHO.reason)
}

fn alice() -> ControlCall<'static> {
    by(|people| &people.alice)
}

/// Tenant, dataset, subject.
pub type Place = (&'static str, &'static str, Option<&'static str>);

/// One of a few sets of pairs.
pub fn context(which: u8) -> Context {
    let pairs: &[(&str, &str)] = match which % 4 {
        0 => &[],
        1 => &[("column", "iban")],
        2 => &[("column", "name")],
        _ => &[("column", "iban"), ("row", "7")],
    };
    Context::from_pairs(pairs.iter().copied()).unwrap()
}

fn at((tenant, dataset, subject): Place) -> Target {
    target(tenant, dataset, subject)
}

impl Default for Bed {
    fn default() -> Self {
        unlocked();
        Self {
            fs: Arc::new(SimFs::new()),
            clock: Arc::new(ManualClock::new(Timestamp(1_907_755_200_000))),
        }
    }
}

impl Bed {
    /// The root key of this disk.
    pub fn roots(&self) -> Arc<Roots> {
        let path = Path::new(DIR).join("root.key");
        let root = if self.fs.exists(&path) { LocalRoot::open(&*self.fs, &path) } else { LocalRoot::create(&*self.fs, &path) };
        Roots::single(Arc::new(root.unwrap()) as Arc<dyn RootKey>).unwrap()
    }

    /// The store of this disk.
    pub fn embedded(&self) -> Arc<dyn Store> {
        Arc::new(open_store(&self.fs, Path::new(DIR)))
    }

    /// Opens the vault of this disk over some store.
    pub fn open(&self, store: Arc<dyn Store>, roots: Arc<Roots>) -> Vault {
        let clock = Arc::clone(&self.clock) as _;
        open_vault_on(store, Arc::clone(&self.fs), Path::new(DIR), clock, CacheSettings::default(), roots)
    }

    /// Fails unless the closed audit log of this disk is sound.
    pub fn check_log(&self) {
        let dir = Path::new(DIR).join("audit");
        let vkey = self.fs.read(&dir.join("log.pub"), 4096).unwrap();
        let verifier = LogVerifier::parse(std::str::from_utf8(&vkey).unwrap()).unwrap();
        let report = verify(&*self.fs, &dir, &verifier, &VerifyOptions::default()).unwrap();
        assert!(report.is_sound(), "{report:?}");
    }

    pub fn create_tenant(&self, vault: &Vault, tenant: &str) -> Result<(), Error> {
        block_on(vault.create_tenant(&alice(), &TenantId::parse(tenant)?)).map(drop)
    }

    pub fn create_dataset(&self, vault: &Vault, tenant: &str, dataset: &str) -> Result<(), Error> {
        let about = (&TenantId::parse(tenant)?, &DatasetId::parse(dataset)?);
        block_on(vault.create_dataset(&alice(), about, None, None)).map(drop)
    }

    pub fn suspend(&self, vault: &Vault, tenant: &str) -> Result<(), Error> {
        block_on(vault.suspend_tenant(&alice(), &TenantId::parse(tenant)?, None)).map(drop)
    }

    /// One operator asks, the other approves.
    pub fn resume(&self, vault: &Vault, tenant: &str) -> Result<(), Error> {
        resume(vault, (&WHO.alice, &WHO.bob), tenant).map(drop)
    }

    pub fn rotate_tenant_key(&self, vault: &Vault, tenant: &str) -> Result<(), Error> {
        block_on(vault.rotate_tenant_key(&alice(), &TenantId::parse(tenant)?, None)).map(drop)
    }

    pub fn rotate_data_keys(&self, vault: &Vault, tenant: &str) -> Result<(), Error> {
        block_on(vault.rotate_data_keys(&alice(), &TenantId::parse(tenant)?, None)).map(drop)
    }

    /// One operator asks, the other approves.
    pub fn shred(&self, vault: &Vault, tenant: &str, subject: &str) -> Result<(), Error> {
        let (tenant, subject) = (TenantId::parse(tenant)?, Subject::parse(subject)?);
        let asked = block_on(vault.shred_subject(&alice(), &tenant, &subject))?;
        let seen = Seen { request_sha256: asked.request_sha256, subject: asked.ordered.subject() };
        let done = block_on(vault.approve(&by(|people| &people.bob), (&tenant, asked.id), seen))?;
        assert_eq!(done.state, ApprovalState::Executed);
        Ok(())
    }

    /// Lets hours pass, and has the vault do what is due.
    pub fn tend(&self, vault: &Vault, hours: u64) {
        self.clock.advance_millis(hours * 3_600_000);
        assert_eq!(block_on(vault.tend(|| true)).unwrap().failed, 0);
    }

    pub fn encrypt(&self, vault: &Vault, place: Place, pairs: u8, plaintext: &[u8]) -> Result<Sealed, Error> {
        let request = EncryptRequest { target: &at(place), context: &context(pairs), plaintext };
        block_on(vault.encrypt(&WHO.billing, request))
    }

    pub fn decrypt(&self, vault: &Vault, place: Place, pairs: u8, envelope: &[u8]) -> Result<Vec<u8>, Error> {
        let request = DecryptRequest { target: &at(place), context: &context(pairs), envelope };
        block_on(vault.decrypt(&WHO.billing, request)).map(|opened| opened.plaintext.expose().to_vec())
    }

    pub fn rewrap(&self, vault: &Vault, place: Place, pairs: u8, envelope: &[u8]) -> Result<Sealed, Error> {
        block_on(vault.rewrap(&WHO.billing, DecryptRequest { target: &at(place), context: &context(pairs), envelope }))
    }
}
