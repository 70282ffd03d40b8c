//! The façade: what an embedder or the gateway calls. Each call runs straight down:
//!
//! facts → policy ([`Permit`]) → key metadata → audit
//! ([`Recorded`]) → keys → seal or open.
//!
//! A service that embeds the vault, without any gateway. Its own identity goes through [`Workload::verify`] like any
//! caller's:
//!
#![cfg_attr(feature = "dev", doc = "```")]
#![cfg_attr(not(feature = "dev"), doc = "```ignore")]
//! # use std::{path::Path, sync::Arc};
//! use vault_core::envelope::Context;
//! use vault_core::id::{DatasetId, Purpose, Reason, TenantId};
//! use vault_core::policy::Registry;
//! use vault_core::principal::{Operator, Workload};
//! use vault_core::vault::{ControlCall, DecryptRequest, EncryptRequest, Target, new_request_id};
//! use vault_core::{Error, Vault};
//! # use vault_core::fs::OsFs;
//! # use vault_core::kms::{LocalRoot, RootKey};
//! # use vault_core::principal::{OperatorBundle, OperatorList, Person, Role, TrustDomain, WorkloadBundle};
//! # use vault_core::time::{Clock, SystemClock};
//! # type Chain = Vec<rustls_pki_types::CertificateDer<'static>>;
//! # fn issue(domain: &str, path: &str) -> (Chain, Chain) {
//! #     use rcgen::*;
//! #     let mut ca = CertificateParams::default();
//! #     ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
//! #     ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
//! #     let ca_key = KeyPair::generate().unwrap();
//! #     let root = ca.self_signed(&ca_key).unwrap().der().clone();
//! #     let mut leaf = CertificateParams::default();
//! #     leaf.is_ca = IsCa::ExplicitNoCa;
//! #     leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
//! #     leaf.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}{path}").try_into().unwrap())];
//! #     let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(ca, ca_key)).unwrap();
//! #     (vec![leaf.der().clone()], vec![root])
//! # }
//! # async fn example(dir: &Path, root: Arc<dyn RootKey>, workload: (Chain, Chain), operator: (Chain, Chain)) -> Result<(), Error> {
//! # let now = SystemClock.now();
//! # let workloads = WorkloadBundle::new(TrustDomain::parse("prod.example")?, &workload.1)?;
//! # let operators = OperatorBundle::new(TrustDomain::parse("ops.example")?, &operator.1)?;
//! # let registry = r#"
//! # [[workload]]
//! # id = "spiffe://prod.example/billing"
//! # service = "billing"
//! # environment = "production"
//! # tenants = ["acme"]
//! # roles = ["writer", "reader"]
//! # "#;
//! # let (my_chain, alices_chain) = (workload.0, operator.0);
//! let vault = Vault::embedded(dir, "shop-1", root, Registry::parse(registry, "prod.example")?)?;
//! let me = Workload::verify(&my_chain, &workloads, now)?;
//! # let proven = Operator::verify(&alices_chain, &operators, now)?;
//! # let people = vec![Person { id: "alice".into(), certificates: vec![proven.id().clone()], tokens: vec![], roles: [Role::Custodian].into() }];
//! # let alice = OperatorList::new("shop-1", 1, people)?.admit(&proven, None)?;
//! # let (acme, customers) = (TenantId::parse("acme")?, DatasetId::parse("customers")?);
//! # let reason = Reason::parse("first customer")?;
//! # let call = || Ok::<_, Error>(ControlCall { who: &alice, request: new_request_id()?, reason: Some(&reason) });
//! # vault.create_tenant(&call()?, &acme).await?;
//! # vault.create_dataset(&call()?, (&acme, &customers), None, None).await?;
//! let target = Target {
//!     tenant: TenantId::parse("acme")?,
//!     dataset: DatasetId::parse("customers")?,
//!     subject: None,
//!     purpose: Purpose::parse("billing")?,
//!     end_user: None,
//!     request: new_request_id()?,
//! };
//! let context = Context::from_pairs([("column", "iban")])?;
//! let sealed = vault.encrypt(&me, EncryptRequest { target: &target, context: &context, plaintext: b"DE89 3704" }).await?;
//! let opened = vault.decrypt(&me, DecryptRequest { target: &target, context: &context, envelope: &sealed.envelope }).await?;
//! assert_eq!(opened.plaintext.expose(), b"DE89 3704");
//! # Ok(())
//! # }
//! # let dir = tempfile::tempdir().unwrap();
//! # let root = Arc::new(LocalRoot::create(&OsFs, &dir.path().join("root.key")).unwrap());
//! # let (billing, alice) = (issue("prod.example", "/billing"), issue("ops.example", "/operator/alice"));
//! # pollster::block_on(example(&dir.path().join("vault"), root, billing, alice)).unwrap();
//! ```
//!
//! [`Workload::verify`]: crate::principal::Workload::verify

mod approvals;
mod charter;
mod chores;
mod consents;
mod control;
mod data;
mod denials;
mod embedded;
mod grants;
mod in_force;
mod policies;
mod scorecard;
mod settings;
mod shredding;
mod streams;
#[cfg(all(test, feature = "dev"))]
mod tests;
mod upkeep;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use approvals::Wanted;
pub use charter::CharterStanding;
pub use consents::{ConsentCall, ConsentReceipt};
pub use control::{ControlCall, CustodyChange};
pub use data::{AskedFor, DecryptRequest, EncryptRequest, Opened, RewrapRequest, Sealed, Target};
pub use denials::{Denied, STRAYED};
pub use policies::ValidPolicy;
pub use settings::{ApprovalSettings, LifecycleSettings};
pub use streams::{DecryptStream, DecryptStreamRequest, EncryptStream, EncryptStreamRequest, StreamPart};
pub use upkeep::Tended;

use crate::audit::{Anchor, KeyRef, Log, Outcome, Pseudonyms, Recorded, SystemEvent};
use crate::error::{Check, Error};
use crate::id::RequestId;
use crate::keys::Keyring;
use crate::policy::{Action, Authorizer, Decision, Permit, Refusal};
use crate::time::Clock;

/// What a vault is put together from.
#[derive(Debug)]
pub struct VaultParts {
    /// Who may do what.
    pub authorizer: Authorizer,
    /// What was done.
    pub audit: Log,
    /// With which keys.
    pub keys: Arc<Keyring>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The vault.
///
/// Data calls take a [`Workload`](crate::principal::Workload), control calls an
/// [`Operator`](crate::principal::Operator); neither can stand in for the other:
///
/// ```compile_fail,E0308
/// async fn peek(vault: &vault_core::Vault, who: &vault_core::principal::Operator,
///               request: vault_core::vault::DecryptRequest<'_>) {
///     let _ = vault.decrypt(who, request).await;
/// }
/// ```
pub struct Vault {
    authorizer: Authorizer,
    audit: Log,
    keys: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    /// The last state of the store in the log.
    anchored: Mutex<Option<Anchor>>,
    lifecycle: LifecycleSettings,
    denials: denials::Denials,
    charter: charter::Own,
    approvals: ApprovalSettings,
    due: Mutex<upkeep::DuePlaces>,
    approvals_seen: Mutex<chores::ApprovalPlaces>,
    /// `None` if policies are no business of the store's.
    in_force: Option<Arc<in_force::InForce>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Vault {
    /// A vault of these parts.
    pub fn new(parts: VaultParts) -> Self {
        let VaultParts { authorizer, audit, keys, clock } = parts;
        let (lifecycle, due) = (LifecycleSettings::default(), Mutex::default());
        let (anchored, approvals_seen) = (Mutex::default(), Mutex::default());
        let (in_force, approvals, denials) = (None, ApprovalSettings::default(), denials::Denials::default());
        let charter = charter::Own::default();
        Self {
            authorizer,
            audit,
            keys,
            clock,
            anchored,
            lifecycle,
            denials,
            charter,
            approvals,
            due,
            approvals_seen,
            in_force,
        }
        .with_lifecycle(lifecycle)
    }

    /// The same vault with other lifetimes.
    #[must_use]
    pub fn with_lifecycle(self, lifecycle: LifecycleSettings) -> Self {
        self.keys.count_for(lifecycle.data_key_uses.min(LifecycleSettings::MOST_USES));
        Self { lifecycle, ..self }
    }

    /// The same vault with other demands on approvals.
    #[must_use]
    pub const fn with_approvals(mut self, approvals: ApprovalSettings) -> Self {
        self.approvals = approvals;
        self
    }

    /// The audit log: its health, its checkpoints.
    pub const fn audit(&self) -> &Log {
        &self.audit
    }

    /// The keys in memory: statistics, and wiping them.
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The policies and the registry in force.
    pub const fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Records the state that the store has reached, if it is another than the last recorded: whoever opens the store
    /// with that ([`Recovery::anchor`](crate::audit::Recovery)) finds an older database out. Call it every second or so,
    /// and before [`Self::close`]; a store that no others share has nothing to record.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn anchor(&self) -> Result<(), Error> {
        let anchor = self.keys.anchor();
        let known = |of: &Mutex<Option<Anchor>>| *of.lock().unwrap_or_else(PoisonError::into_inner);
        match anchor {
            Some(anchor) if known(&self.anchored) != Some(anchor) => {
                self.audit.system(SystemEvent::StoreAnchor(anchor)).await?;
                *self.anchored.lock().unwrap_or_else(PoisonError::into_inner) = Some(anchor);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Wipes every key in memory. Where gateways share the store, refuses data calls from then on, and tells the others
    /// that nobody has to wait for this one: call it before [`Self::close`], else a shred waits until its lease has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]: the others do not know then; the keys are wiped.
    pub async fn leave(&self) -> Result<(), Error> {
        self.keys.leave().await
    }

    /// Wipes every key in memory and closes the audit log: what waits is written, the last checkpoint signed. Blocks until
    /// then. A vault that is only dropped leaves a log that recovers when it is opened again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log had failed, or fails meanwhile.
    pub fn close(self) -> Result<(), Error> {
        self.keys.evict_all();
        self.audit.close()
    }

    /// Writes a refusal to the log before it is told. The caller learns the check only.
    async fn refuse(&self, refusal: &Refusal) -> Error {
        self.denials.count(refusal);
        // The pseudonym is looked up only where the tenant's keys may be asked for: past the registry's check.
        let resource = &refusal.decision.resource;
        let pseudonyms = match (&resource.tenant, refusal.check) {
            (Some(_), Check::Policy | Check::Suspended | Check::EndUser | Check::Consent) => {
                self.pseudonyms(&refusal.decision).await.unwrap_or_default()
            }
            _ => Pseudonyms::default(),
        };
        match self.audit.refused(refusal, pseudonyms).await {
            Ok(_) => refusal.into(),
            Err(error) => error,
        }
    }

    /// Makes the intent durable. Where a pseudonym cannot be made, the call ends here, and says so in the log without it.
    async fn intend<A: Action>(&self, permit: Permit<A>, key: Option<KeyRef>) -> Result<Recorded<Permit<A>>, Error> {
        match self.pseudonyms(permit.decision()).await {
            Ok(pseudonyms) => self.audit.record(permit, key, pseudonyms).await,
            Err(error) => {
                let decision = Box::new(permit.decision().clone());
                let reason = "allowed, but a pseudonym could not be made";
                let refusal = Refusal { decision, check: Check::Policy, reason };
                self.audit.refused(&refusal, Pseudonyms::default()).await?;
                Err(error)
            }
        }
    }

    /// What stands for the people that a decision names.
    async fn pseudonyms(&self, decision: &Decision) -> Result<Pseudonyms, Error> {
        let mut made = Pseudonyms::default();
        if let Some(tenant) = &decision.resource.tenant {
            if let Some(subject) = &decision.resource.subject {
                made.subject = Some(self.keys.pseudonym(tenant, subject).await?);
            }
            if let Some(user) = &decision.end_user {
                made.end_user = Some(self.keys.end_user_pseudonym(tenant, user).await?);
            }
        }
        Ok(made)
    }

    /// Ends a recorded call: well, or with an outcome entry that is durable before the error is told.
    async fn settle<A: Action, T>(&self, recorded: Recorded<Permit<A>>, result: Result<T, Error>) -> Result<T, Error> {
        match result {
            Ok(done) => {
                recorded.complete();
                Ok(done)
            }
            Err(error) => {
                self.audit.outcome(&recorded, Outcome::failed(reason(&error))).await?;
                Err(error)
            }
        }
    }
}

/// A fresh request id.
///
/// # Errors
/// [`Error::Unavailable`] without entropy.
pub fn new_request_id() -> Result<RequestId, Error> {
    let mut id = [0; 16];
    crate::crypto::random_bytes(&mut id)?;
    Ok(RequestId(id))
}

/// An error as an outcome entry names it: decided at compile time.
const fn reason(error: &Error) -> &'static str {
    match error {
        Error::Invalid { .. } => "invalid request",
        Error::Denied(_) => "denied",
        Error::Unopenable => "the envelope does not open",
        Error::NotFound(_) => "no such resource",
        Error::AlreadyExists(_) => "the resource exists already",
        Error::FailedPrecondition(why) | Error::Conflict(why) | Error::Alarm(why) => why,
        Error::NotProven(what) => what.why(),
        Error::Unavailable { why, .. } | Error::RootKey { why, .. } => why,
        Error::Corrupt { .. } => "a file of the vault is damaged",
    }
}
