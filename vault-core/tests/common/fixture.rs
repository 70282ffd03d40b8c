//! A whole vault over a temporary directory: embedded store, local root key, audit log, baseline policies, and
//! principals that real certificates prove.

use std::path::Path;
use std::sync::Arc;

use vault_core::audit::{Log, LogSigner, Recovery};
use vault_core::envelope::Context;
use vault_core::fs::{Fs, OsFs};
use vault_core::id::{DatasetId, Purpose, Reason, Subject, TenantId};
use vault_core::keys::{Approval, CacheSettings, Keyring, KeyringParts, Seen};
use vault_core::kms::{LocalRoot, RootKey, Roots};
use vault_core::policy::{Authorizer, PolicySet, Registry};
use vault_core::principal::{
    Operator, OperatorBundle, OperatorList, Person, Role, TrustDomain, Workload, WorkloadBundle,
};
use vault_core::store::{EmbeddedStore, Store};
use vault_core::time::{Clock, SystemClock};
use vault_core::vault::{ControlCall, Target, VaultParts, new_request_id};
use vault_core::{Error, Vault};

use super::pki::Ca;

pub(crate) const REGISTRY: &str = r#"
[[workload]]
id = "spiffe://prod.example/ns/shop/sa/billing"
service = "billing"
environment = "production"
tenants = ["acme", "globex"]
roles = ["writer", "reader", "rewrapper"]

[[workload]]
id = "spiffe://prod.example/ns/shop/sa/signup"
service = "signup"
environment = "production"
tenants = ["acme"]
roles = ["writer"]

[[workload]]
id = "spiffe://prod.example/ns/shop/sa/portal"
service = "portal"
environment = "production"
tenants = ["acme", "globex", "nobody"]
roles = ["consent"]

[[workload]]
id = "spiffe://prod.example/ns/other/sa/globex-app"
service = "globex-app"
environment = "production"
tenants = ["globex"]
roles = ["writer", "reader"]
"#;

/// The certificate authorities of both planes.
pub(crate) struct People {
    workloads: Ca,
    operators: Ca,
}

impl People {
    pub(crate) fn new() -> Self {
        Self { workloads: Ca::root("prod.example"), operators: Ca::root("operators.example") }
    }

    pub(crate) fn workload(&self, path: &str) -> Workload {
        let domain = TrustDomain::parse("prod.example").unwrap();
        let bundle = WorkloadBundle::new(domain, std::slice::from_ref(&self.workloads.certificate)).unwrap();
        let leaf = self.workloads.leaf(&format!("spiffe://prod.example{path}"));
        Workload::verify(&leaf.chain, &bundle, SystemClock.now()).unwrap()
    }

    pub(crate) fn operator(&self, name: &str) -> Operator {
        let domain = TrustDomain::parse("operators.example").unwrap();
        let bundle = OperatorBundle::new(domain, std::slice::from_ref(&self.operators.certificate)).unwrap();
        let leaf = self.operators.leaf(&format!("spiffe://operators.example/operator/{name}"));
        let proven = Operator::verify(&leaf.chain, &bundle, SystemClock.now()).unwrap();
        with_every_role(&proven, name)
    }
}

/// The only person of a list, with every role.
pub(crate) fn with_every_role(proven: &Operator, person: &str) -> Operator {
    let person = Person {
        id: person.to_owned(),
        certificates: vec![proven.id().clone()],
        tokens: Vec::new(),
        roles: Role::ALL.into(),
    };
    OperatorList::new("test", 1, vec![person]).unwrap().admit(proven, None).unwrap()
}

/// Opens the vault that lives in `dir`, or makes it.
pub(crate) fn open_vault(fs: Arc<dyn Fs>, dir: &Path, clock: Arc<dyn Clock>, cache: CacheSettings) -> Vault {
    let root_path = dir.join("root.key");
    let root: Arc<dyn RootKey> = if fs.exists(&root_path) {
        Arc::new(LocalRoot::open(&*fs, &root_path).unwrap())
    } else {
        Arc::new(LocalRoot::create(&*fs, &root_path).unwrap())
    };
    open_vault_with(fs, dir, clock, cache, root)
}

/// The same with a root key of the test's own.
pub(crate) fn open_vault_with(
    fs: Arc<dyn Fs>,
    dir: &Path,
    clock: Arc<dyn Clock>,
    cache: CacheSettings,
    root: Arc<dyn RootKey>,
) -> Vault {
    open_vault_under(fs, dir, clock, cache, Roots::single(root).unwrap())
}

/// The store of a directory. The thread that wipes keys may hold a vault that was just closed for a moment longer.
pub(crate) fn open_store(fs: &Arc<dyn Fs>, dir: &Path) -> EmbeddedStore {
    let begun = std::time::Instant::now();
    loop {
        match EmbeddedStore::open(Arc::clone(fs), &dir.join("store.redb")) {
            Err(Error::Unavailable { .. }) if begun.elapsed() < std::time::Duration::from_secs(10) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// The same with several root keys.
pub(crate) fn open_vault_under(
    fs: Arc<dyn Fs>,
    dir: &Path,
    clock: Arc<dyn Clock>,
    cache: CacheSettings,
    roots: Arc<Roots>,
) -> Vault {
    let store = Arc::new(open_store(&fs, dir));
    open_vault_on(store, fs, dir, clock, cache, roots)
}

/// The same on a store of the test's own.
pub(crate) fn open_vault_on(
    store: Arc<dyn Store>,
    fs: Arc<dyn Fs>,
    dir: &Path,
    clock: Arc<dyn Clock>,
    cache: CacheSettings,
    roots: Arc<Roots>,
) -> Vault {
    recover_vault_on(store, fs, dir, clock, cache, roots).0
}

/// The same, and what opening its log found.
pub(crate) fn recover_vault_on(
    store: Arc<dyn Store>,
    fs: Arc<dyn Fs>,
    dir: &Path,
    clock: Arc<dyn Clock>,
    cache: CacheSettings,
    roots: Arc<Roots>,
) -> (Vault, Recovery) {
    let signer = LogSigner::load_or_create(&*fs, &dir.join("audit.key"), "vault.example/audit/0").unwrap();
    let (audit, recovery) = Log::open(Arc::clone(&fs), &dir.join("audit"), signer, Arc::clone(&clock)).unwrap();
    let keys = Keyring::new(KeyringParts { store, roots, instance: "test".into(), cache, clock: Arc::clone(&clock) });
    let registry = Registry::parse(REGISTRY, "prod.example").unwrap();
    let authorizer = Authorizer::new(PolicySet::baseline().unwrap(), registry);
    (Vault::new(VaultParts { authorizer, audit, keys: keys.unwrap(), clock }), recovery)
}

/// A vault in a fresh directory, with the operating system's clock and files.
pub(crate) fn fresh() -> (tempfile::TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = open_vault(Arc::new(OsFs), dir.path(), Arc::new(SystemClock), CacheSettings::default());
    (dir, vault)
}

pub(crate) fn tenant(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

pub(crate) fn dataset(id: &str) -> DatasetId {
    DatasetId::parse(id).unwrap()
}

pub(crate) fn target(tenant_id: &str, dataset_id: &str, subject: Option<&str>) -> Target {
    Target {
        tenant: tenant(tenant_id),
        dataset: dataset(dataset_id),
        subject: subject.map(|s| Subject::parse(s).unwrap()),
        purpose: Purpose::parse("billing").unwrap(),
        end_user: None,
        request: new_request_id().unwrap(),
    }
}

pub(crate) fn context() -> Context {
    Context::from_pairs([("table", "orders"), ("column", "iban")]).unwrap()
}

/// A control call with a reason.
pub(crate) fn call<'a>(who: &'a Operator, reason: &'a Reason) -> ControlCall<'a> {
    ControlCall { who, request: new_request_id().unwrap(), reason: Some(reason) }
}

/// Has a tenant's suspension lifted: one operator asks, the other approves.
pub(crate) fn resume(vault: &Vault, (alice, bob): (&Operator, &Operator), id: &str) -> Result<Approval, Error> {
    let (reason, id) = (because(), tenant(id));
    let asked = pollster::block_on(vault.resume_tenant(&call(alice, &reason), &id, None))?;
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    pollster::block_on(vault.approve(&call(bob, &reason), (&id, asked.id), seen))
}

pub(crate) fn because() -> Reason {
    Reason::parse("set up for a test").unwrap()
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (People::new, People::workload, People::operator);
    let _ = (fresh, open_vault, open_vault_with, open_vault_on, tenant, dataset, target, context, call, because);
    let _ = resume;
};
