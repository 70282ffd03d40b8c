//! A vault to measure: its root key, its workloads and operators.

use std::path::Path;
use std::slice::from_ref;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use vault_core::Vault;
use vault_core::audit::{Log, LogSigner};
use vault_core::envelope::Scope;
use vault_core::fs::{Fs, OsFs};
use vault_core::id::{DatasetId, KeyId, KeyVersion, Purpose, Reason, Subject, TenantId};
use vault_core::keys::{CacheSettings, Keyring, KeyringParts, WrappingKey};
use vault_core::kms::{EncryptionContext, Generated, RootError, RootKey, Roots};
use vault_core::policy::{Authorizer, PolicySet, Registry};
use vault_core::principal::{
    Operator, OperatorBundle, OperatorList, Person, Role, TrustDomain, Workload, WorkloadBundle,
};
use vault_core::secret::Key32;
use vault_core::store::{BoxFuture, EmbeddedStore, Store};
use vault_core::time::{Clock, SystemClock};
use vault_core::vault::{ControlCall, Target, VaultParts, new_request_id};

/// The dataset of every tenant here.
pub const DATASET: &str = "customers";
/// Tenants that one workload of [`Bed::workload`] may use.
pub const TENANTS_EACH: usize = 1000;
/// The root key's id.
pub const ROOT: &str = "bench:root";

/// A root key in memory, the same in every process, so that a filled store can be kept. It wraps as tenant keys wrap data
/// keys, and protects nothing.
pub struct BenchRoot(WrappingKey);

impl std::fmt::Debug for BenchRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BenchRoot")
    }
}

impl BenchRoot {
    /// The root key.
    pub fn shared() -> Arc<Self> {
        let tenant = TenantId::parse("root").unwrap();
        Arc::new(Self(WrappingKey::derive(&Key32::copy_of(&[9; 32]).unwrap(), &tenant, KeyVersion::FIRST).unwrap()))
    }

    fn scope(context: &EncryptionContext) -> Scope {
        let tenant = context.tenant.as_ref().map_or("", TenantId::as_str);
        Scope {
            tenant: TenantId::parse("root").unwrap(),
            dataset: DatasetId::parse("root").unwrap(),
            subject: Some(Subject::parse(&format!("{tenant}/{}", context.version)).unwrap()),
        }
    }

    /// A fresh tenant key, and the same wrapped.
    pub fn make(&self, context: &EncryptionContext) -> (Key32, Vec<u8>) {
        let key = Key32::generate().unwrap();
        let wrapped = self.0.wrap(&Self::scope(context), KeyId([0; 16]), KeyVersion::FIRST, &key).unwrap();
        (key, wrapped)
    }

    /// The tenant key again.
    pub fn open(&self, context: &EncryptionContext, wrapped: &[u8]) -> Key32 {
        self.0.unwrap(&Self::scope(context), KeyId([0; 16]), KeyVersion::FIRST, wrapped).unwrap()
    }
}

const NOT_HERE: RootError = RootError::Unavailable("a root key of the benches only wraps and unwraps");

impl RootKey for BenchRoot {
    fn id(&self) -> &str {
        ROOT
    }

    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>> {
        Box::pin(async move {
            let (key, wrapped) = self.make(context);
            Ok(Generated { key, wrapped })
        })
    }

    fn wrap<'a>(&'a self, _: &'a Key32, _: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async { Err(NOT_HERE) })
    }

    fn seal<'a>(&'a self, _: &'a [u8], _: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async { Err(NOT_HERE) })
    }

    fn open<'a>(&'a self, _: &'a [u8], _: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async { Err(NOT_HERE) })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>> {
        Box::pin(async move { Ok(Self::open(self, context, wrapped)) })
    }
}

/// This installation's id.
pub const INSTANCE: &str = "bench";

/// A vault, its store, and who may use it.
pub struct Bed {
    /// The vault.
    pub vault: Arc<Vault>,
    /// Its rows.
    pub store: Arc<dyn Store>,
    workloads: Ca,
    operators: Ca,
}

impl Bed {
    /// Over the store in `dir/vault.redb`, with an audit log in `audit`, which is another directory if the store is kept.
    /// `tenants` are those that workloads may use, [`TENANTS_EACH`] each.
    pub fn open(dir: &Path, audit: &Path, cache: CacheSettings, tenants: &[TenantId]) -> Self {
        Self::open_at(Arc::new(SystemClock), dir, audit, cache, tenants)
    }

    /// The same with a clock of one's own.
    pub fn open_at(
        clock: Arc<dyn Clock>,
        dir: &Path,
        audit: &Path,
        cache: CacheSettings,
        tenants: &[TenantId],
    ) -> Self {
        // Keys are what is measured here; kept decisions would be counted as theirs.
        let authorizer = Authorizer::caching(PolicySet::baseline().unwrap(), registry(tenants), 0);
        Self::open_on(Arc::new(OsFs), authorizer, clock, (dir, audit), cache)
    }

    /// As in production, but for the file system under the audit log.
    pub fn logging_to(fs: Arc<dyn Fs>, dir: &Path, tenants: &[TenantId]) -> Self {
        let cache = CacheSettings::default();
        Self::open_on(fs, Self::authorizer(tenants), Arc::new(SystemClock), (dir, dir), cache)
    }

    /// Decides for the workloads of these tenants by the baseline, as a gateway does.
    pub fn authorizer(tenants: &[TenantId]) -> Authorizer {
        Authorizer::new(PolicySet::baseline().unwrap(), registry(tenants))
    }

    fn open_on(
        audit_fs: Arc<dyn Fs>,
        authorizer: Authorizer,
        clock: Arc<dyn Clock>,
        (dir, audit): (&Path, &Path),
        cache: CacheSettings,
    ) -> Self {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        fs.create_dir_durable(dir).unwrap();
        fs.create_dir_durable(audit).unwrap();
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(Arc::clone(&fs), &dir.join("vault.redb")).unwrap());
        let signer = LogSigner::load_or_create(&*fs, &audit.join("audit.key"), "vault.example/bench").unwrap();
        let (audit, _) = Log::open(audit_fs, &audit.join("audit"), signer, Arc::clone(&clock)).unwrap();
        let keys = Keyring::new(KeyringParts {
            store: Arc::clone(&store),
            roots: Roots::single(BenchRoot::shared()).unwrap(),
            instance: INSTANCE.into(),
            cache,
            clock: Arc::clone(&clock),
        });
        let parts = VaultParts { authorizer, audit, keys: keys.unwrap(), clock };
        let (workloads, operators) = (Ca::new(), Ca::new());
        Self { vault: Arc::new(Vault::new(parts)), store, workloads, operators }
    }

    /// The workload of the `number`th thousand of tenants.
    pub fn workload(&self, number: usize) -> Workload {
        let bundle = WorkloadBundle::new(TrustDomain::parse("prod.example").unwrap(), from_ref(&self.workloads.0));
        let chain = self.workloads.leaf(&format!("spiffe://prod.example/app/{number}"));
        Workload::verify(&chain, &bundle.unwrap(), SystemClock.now()).unwrap()
    }

    /// Makes a tenant with its dataset, as operators do.
    pub fn make_tenant(&self, tenant: &TenantId) {
        let (who, reason) = (self.operator("alice"), Reason::parse("to be measured").unwrap());
        let call = || ControlCall { who: &who, request: new_request_id().unwrap(), reason: Some(&reason) };
        pollster::block_on(self.vault.create_tenant(&call(), tenant)).unwrap();
        let about = (tenant, &DatasetId::parse(DATASET).unwrap());
        pollster::block_on(self.vault.create_dataset(&call(), about, None, None)).unwrap();
    }

    /// An operator with every role.
    pub fn operator(&self, name: &str) -> Operator {
        let bundle = OperatorBundle::new(TrustDomain::parse("ops.example").unwrap(), from_ref(&self.operators.0));
        let chain = self.operators.leaf(&format!("spiffe://ops.example/operator/{name}"));
        let proven = Operator::verify(&chain, &bundle.unwrap(), SystemClock.now()).unwrap();
        let (certificates, roles) = (vec![proven.id().clone()], Role::ALL.into());
        let person = Person { id: name.to_owned(), certificates, tokens: Vec::new(), roles };
        OperatorList::new("bench", 1, vec![person]).unwrap().admit(&proven, None).unwrap()
    }
}

/// What a data call is about.
pub fn target(tenant: &TenantId, subject: Option<Subject>) -> Target {
    Target {
        tenant: tenant.clone(),
        dataset: DatasetId::parse(DATASET).unwrap(),
        subject,
        purpose: Purpose::parse("billing").unwrap(),
        end_user: None,
        request: new_request_id().unwrap(),
    }
}

fn registry(tenants: &[TenantId]) -> Registry {
    let mut text = String::new();
    for (number, tenants) in tenants.chunks(TENANTS_EACH).enumerate() {
        let names: Vec<String> = tenants.iter().map(|tenant| format!("\"{tenant}\"")).collect();
        text += &format!(
            "[[workload]]\nid = \"spiffe://prod.example/app/{number}\"\nservice = \"app\"\n\
             environment = \"production\"\ntenants = [{}]\nroles = [\"writer\", \"reader\"]\n",
            names.join(", ")
        );
    }
    Registry::parse(&text, "prod.example").unwrap()
}

/// A certificate authority: its certificate, and what it signs with.
struct Ca(CertificateDer<'static>, Issuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self(certificate, Issuer::new(params, key))
    }

    fn leaf(&self, uri: &str) -> Vec<CertificateDer<'static>> {
        let mut leaf = CertificateParams::default();
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        vec![leaf.signed_by(&KeyPair::generate().unwrap(), &self.1).unwrap().der().clone()]
    }
}
