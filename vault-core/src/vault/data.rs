//! The data plane: encrypt, decrypt, rewrap, alone or in batches.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Vault;
use crate::audit::{Audited, KeyRef};
use crate::envelope::{Context, DataKey, Header, Suite};
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{DatasetId, KeyId, KeyVersion, Purpose, RequestId, Subject, TenantId};
use crate::keys::OpeningPlan;
use crate::policy::{DataAction, DataRequest, Decrypt, Encrypt, Permit, Resource, Rewrap};
use crate::principal::{EndUser, TokenError, Workload};
use crate::secret::SecretBytes;

/// What a data call is about.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whose data.
    pub tenant: TenantId,
    /// Which body of data.
    pub dataset: DatasetId,
    /// The person it is about, if it is under their own key.
    pub subject: Option<Subject>,
    /// Why; in the audit entry, and policies may demand a certain one.
    pub purpose: Purpose,
    /// The end user for whom the workload asks, if there is one; policies may demand one.
    pub end_user: Option<Arc<EndUser>>,
    /// Names the call in the audit log; make one with [`super::new_request_id`] where the caller brings none.
    pub request: RequestId,
}

/// What a call with a token that is refused was about.
#[derive(Debug, Clone, Copy)]
pub struct AskedFor<'a> {
    /// Whose data.
    pub tenant: &'a TenantId,
    /// Which body of data; `None` for a batch, whose items may be of several.
    pub dataset: Option<&'a DatasetId>,
    /// The person it is about, if one is named.
    pub subject: Option<&'a Subject>,
    /// Why.
    pub purpose: &'a Purpose,
    /// Names the call in the audit log.
    pub request: RequestId,
}

/// One value to encrypt. It does not implement `Debug`: it holds plaintext.
#[derive(Clone, Copy)]
pub struct EncryptRequest<'a> {
    /// What it is about.
    pub target: &'a Target,
    /// Pairs that must be given again to decrypt.
    pub context: &'a Context,
    /// 1 MiB at most.
    pub plaintext: &'a [u8],
}

/// One envelope to decrypt.
#[derive(Debug, Clone, Copy)]
pub struct DecryptRequest<'a> {
    /// What it is about.
    pub target: &'a Target,
    /// The pairs that were given to encrypt.
    pub context: &'a Context,
    /// The envelope.
    pub envelope: &'a [u8],
}

/// One envelope to bring under the active key version. Tenant, dataset, subject and context stay.
pub type RewrapRequest<'a> = DecryptRequest<'a>;

/// An envelope, and what sealed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The envelope.
    pub envelope: Vec<u8>,
    /// The data key.
    pub key_id: KeyId,
    /// Its version.
    pub key_version: KeyVersion,
    /// The entry of the intent, from which an [audit receipt](crate::audit::AuditReceipt) is made.
    pub audited: Audited,
}

/// A plaintext, and what had sealed it.
pub struct Opened {
    /// The plaintext; wiped when dropped.
    pub plaintext: SecretBytes,
    /// The data key.
    pub key_id: KeyId,
    /// Its version.
    pub key_version: KeyVersion,
    /// The entry of the intent, from which an [audit receipt](crate::audit::AuditReceipt) is made.
    pub audited: Audited,
}

impl Vault {
    /// Facts, then policy. A refusal is in the log before it is told.
    pub(super) async fn permit<A: DataAction>(
        &self,
        who: &Workload,
        target: &Target,
        items: u32,
    ) -> Result<Permit<A>, Error> {
        self.policies_ready()?;
        // For a workload that may ask nothing of the tenant nothing is looked up, and no root key is asked.
        let facts = if self.authorizer.lists(who, &target.tenant) {
            self.keys.facts(&target.tenant, &target.dataset).await?
        } else {
            None
        };
        let request = DataRequest {
            tenant: target.tenant.clone(),
            dataset: target.dataset.clone(),
            subject: target.subject.clone(),
            purpose: target.purpose.clone(),
            end_user: target.end_user.clone(),
            request: target.request,
            items,
        };
        match self.authorizer.authorize_data::<A>(who, request, facts.as_ref(), self.clock.now()) {
            Ok(permit) => Ok(permit),
            Err(refusal) => Err(self.refuse(&refusal).await),
        }
    }

    /// Refuses a call whose end user's token proves nobody: the refusal is in the log, with the rule and without the
    /// token, before the error is told. A text that is no token is the request's fault like any field, and not logged.
    pub async fn refuse_token<A: DataAction>(&self, who: &Workload, asked: AskedFor<'_>, rule: TokenError) -> Error {
        if rule.is_malformed() {
            return rule.into();
        }
        let AskedFor { tenant, dataset, subject, purpose, request } = asked;
        let (dataset, subject, purpose) = (dataset.cloned(), subject.cloned(), Some(purpose.clone()));
        let resource = Resource { tenant: None, dataset, subject, purpose };
        let refusal = self.authorizer.refuse_token::<A>(who, tenant, (resource, request), rule, self.clock.now());
        self.refuse(&refusal).await
    }

    /// Encrypts one value under the active data key of its dataset, or of its subject.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `plaintext` or `context`; [`Error::Denied`]; [`Error::Unavailable`] if anything the
    /// call depends on is not there.
    pub async fn encrypt(&self, who: &Workload, request: EncryptRequest<'_>) -> Result<Sealed, Error> {
        self.encrypt_one_of(who, request, 1).await
    }

    async fn encrypt_one_of(&self, who: &Workload, request: EncryptRequest<'_>, items: u32) -> Result<Sealed, Error> {
        let permit = self.permit::<Encrypt>(who, request.target, items).await?;
        let plan = self.keys.plan_sealing(permit.resource()).await;
        let recorded = self.intend(permit, plan.as_ref().ok().map(|plan| plan.key)).await?;
        let sealed = match plan {
            Ok(plan) => self.keys.seal_with(&recorded, plan, |key| key.seal(request.context, request.plaintext)).await,
            Err(error) => Err(error),
        };
        let audited = recorded.audited();
        let (envelope, key) = self.settle(recorded, sealed).await?;
        Ok(Sealed { envelope, key_id: key.key_id, key_version: key.version, audited })
    }

    /// Decrypts one envelope.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Unopenable`] whatever is wrong with envelope, key or context;
    /// [`Error::Invalid`] naming `context`; [`Error::Unavailable`].
    pub async fn decrypt(&self, who: &Workload, request: DecryptRequest<'_>) -> Result<Opened, Error> {
        self.decrypt_one_of(who, request, 1).await
    }

    async fn decrypt_one_of(&self, who: &Workload, request: DecryptRequest<'_>, items: u32) -> Result<Opened, Error> {
        let header = Header::parse_as(Suite::Record, request.envelope).ok();
        let permit = self.permit::<Decrypt>(who, request.target, items).await?;
        let plan = self.plan_opening(&permit, header).await;
        let recorded = self.intend(permit, key_of(&plan, header)).await.map_err(opaque)?;
        let opened = match plan {
            Ok(plan) => {
                let open = |key: &DataKey| key.open(request.context, request.envelope);
                self.keys.open_with(&recorded, &plan, open).await.map(|plaintext| (plaintext, plan.key))
            }
            Err(error) => Err(error),
        };
        let audited = recorded.audited();
        let (plaintext, key) = self.settle(recorded, opened).await?;
        Ok(Opened { plaintext, key_id: key.key_id, key_version: key.version, audited })
    }

    /// Brings an envelope under the active key version without releasing its plaintext.
    ///
    /// # Errors
    /// As [`Self::decrypt`]; [`Error::Invalid`] naming `envelope` for a stream, which is decrypted and encrypted again.
    pub async fn rewrap(&self, who: &Workload, request: RewrapRequest<'_>) -> Result<Sealed, Error> {
        let header = Header::parse(request.envelope).ok();
        if header.is_some_and(|header| header.suite == Suite::Stream) {
            return Err(Error::invalid("envelope", "is a stream: decrypt it and encrypt it again to move it"));
        }
        let permit = self.permit::<Rewrap>(who, request.target, 1).await?;
        let from = self.plan_opening(&permit, header).await;
        let to = self.keys.plan_sealing(permit.resource()).await;
        let intent = self.intend(permit, key_of(&from, header));
        let recorded = around(Step::RewrapIntent, intent).await.map_err(opaque)?;
        let rewrapped = async {
            let (from, to) = (from?, to?);
            let plaintext =
                self.keys.open_with(&recorded, &from, |key| key.open(request.context, request.envelope)).await?;
            let seal = |key: &DataKey| key.seal(request.context, plaintext.expose());
            around(Step::RewrapSeal, self.keys.seal_with(&recorded, to, seal)).await
        }
        .await;
        let audited = recorded.audited();
        let (envelope, key) = self.settle(recorded, rewrapped).await?;
        Ok(Sealed { envelope, key_id: key.key_id, key_version: key.version, audited })
    }

    pub(super) async fn plan_opening<A: DataAction>(
        &self,
        permit: &Permit<A>,
        header: Option<Header>,
    ) -> Result<OpeningPlan, Error> {
        let header = header.ok_or(Error::Unopenable)?;
        self.keys.plan_opening(permit.resource(), header.key_id).await?.ok_or(Error::Unopenable)
    }

    /// Encrypts several values, each decided (with their number, for policies that bound it) and logged by itself; all
    /// their entries share a commit.
    pub async fn encrypt_all(
        &self,
        who: &Workload,
        requests: impl IntoIterator<Item = EncryptRequest<'_>>,
    ) -> Vec<Result<Sealed, Error>> {
        let requests: Vec<_> = requests.into_iter().collect();
        let items = count(requests.len());
        join_all(requests.into_iter().map(|request| self.encrypt_one_of(who, request, items))).await
    }

    /// Decrypts several envelopes, each decided (with their number) and logged by itself; all their entries share a
    /// commit.
    pub async fn decrypt_all(
        &self,
        who: &Workload,
        requests: impl IntoIterator<Item = DecryptRequest<'_>>,
    ) -> Vec<Result<Opened, Error>> {
        let requests: Vec<_> = requests.into_iter().collect();
        let items = count(requests.len());
        join_all(requests.into_iter().map(|request| self.decrypt_one_of(who, request, items))).await
    }
}

/// What a destroyed tenant's keys refuse, as a call is told that opens: nothing of it opens any more, like nothing of a
/// tenant that never had the key.
pub(super) fn opaque(error: Error) -> Error {
    match error {
        Error::FailedPrecondition(_) => Error::Unopenable,
        other => other,
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// The key for the intent entry: as planned, or as far as the envelope names one.
pub(super) fn key_of(plan: &Result<OpeningPlan, Error>, header: Option<Header>) -> Option<KeyRef> {
    match plan {
        Ok(plan) => Some(plan.key),
        // A key that is none of this resource's: version 0 is no key's version.
        Err(_) => header.map(|header| KeyRef::new(header.key_id, KeyVersion(0))),
    }
}
