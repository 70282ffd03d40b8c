//! Consents of a tenant's end users, through a workload. No operator can give one, or take one back.

use std::sync::Arc;

use super::Vault;
use crate::audit::Recorded;
use crate::error::{Check, Error};
use crate::id::{ConsentId, Fingerprint, RequestId, TenantId};
use crate::keys::{Consent, NewConsent};
use crate::policy::{ConsentAction, ConsentRequest, GrantConsent, ListConsents, Permit, Resource, WithdrawConsent};
use crate::principal::{EndUser, TokenError, Workload};

/// For whom a call about consents is made, and through whom.
#[derive(Debug, Clone)]
pub struct ConsentCall<'a> {
    /// The workload that asks.
    pub who: &'a Workload,
    /// The end user for whom it asks.
    pub end_user: Arc<EndUser>,
    /// Whose consents.
    pub tenant: &'a TenantId,
    /// Names the call in the audit log.
    pub request: RequestId,
}

/// A consent, and where the audit log has what was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentReceipt {
    /// The consent as it is now.
    pub consent: Consent,
    /// The index of the entry that names it, and its hash.
    pub audit_entry: u64,
}

/// What a call did: its answer, for the entry what to call it, and which consent it was.
type Done<T> = (T, &'static str, Option<(ConsentId, Fingerprint)>);

/// A workload learns no more of a tenant that is not there than by a data call.
fn opaque(error: Error) -> Error {
    match error {
        Error::NotFound("tenant") => Error::Denied(Check::Policy),
        other => other,
    }
}

impl Vault {
    /// Policy, intent, `work`, and the entry that it was done; that entry is durable before the answer.
    async fn consent<A: ConsentAction, T>(
        &self,
        call: &ConsentCall<'_>,
        work: impl AsyncFnOnce(&Recorded<Permit<A>>) -> Result<Done<T>, Error>,
    ) -> Result<(T, u64), Error> {
        let end_user = Arc::clone(&call.end_user);
        let request = ConsentRequest { tenant: call.tenant.clone(), end_user, request: call.request };
        let permit = match self.authorizer.authorize_consent::<A>(call.who, request, self.clock.now()) {
            Ok(permit) => permit,
            Err(refusal) => return Err(self.refuse(&refusal).await),
        };
        let recorded = self.intend(permit, None).await.map_err(opaque)?;
        match work(&recorded).await {
            Ok((done, detail, consent)) => {
                let entry = self.audit.consent_of(&recorded, detail, consent).await?;
                Ok((done, entry.index))
            }
            Err(error) => self.settle(recorded, Err(opaque(error))).await,
        }
    }

    /// Refuses a call whose end user's token proves nobody, as [`Self::refuse_token`] does for data calls.
    pub async fn refuse_consent_token<A: ConsentAction>(
        &self,
        who: &Workload,
        (tenant, request): (&TenantId, RequestId),
        rule: TokenError,
    ) -> Error {
        if rule.is_malformed() {
            return rule.into();
        }
        let about = (Resource::default(), request);
        let refusal = self.authorizer.refuse_token::<A>(who, tenant, about, rule, self.clock.now());
        self.refuse(&refusal).await
    }

    /// Consents for the tenant. It is in force, on every gateway that does not go by an older state of the store, when
    /// this returns.
    ///
    /// # Errors
    /// [`Error::Denied`], among others for an end user who did not sign in with a second factor; [`Error::Invalid`] naming
    /// the field; [`Error::FailedPrecondition`] if the tenant is destroyed, or has too many consents in force;
    /// [`Error::Unavailable`].
    pub async fn grant_consent(&self, call: &ConsentCall<'_>, new: &NewConsent) -> Result<ConsentReceipt, Error> {
        new.check(self.clock.now())?;
        let grant = async |recorded: &Recorded<Permit<GrantConsent>>| {
            let consent = self.keys.grant_consent(recorded, new).await?;
            let named = Some((consent.id, consent.sha256));
            Ok((consent, "granted", named))
        };
        let (consent, audit_entry) = self.consent(call, grant).await?;
        Ok(ConsentReceipt { consent, audit_entry })
    }

    /// Takes a consent back, for ever: no call that begins after this returns is decided by it, here at once, on other
    /// gateways within a second, on one that is cut off from the store when its lease has run out at the latest. It may
    /// be called again.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::FailedPrecondition`] if the tenant is destroyed;
    /// [`Error::Unavailable`].
    pub async fn withdraw_consent(&self, call: &ConsentCall<'_>, id: ConsentId) -> Result<ConsentReceipt, Error> {
        let withdraw = async |recorded: &Recorded<Permit<WithdrawConsent>>| {
            let (consent, now) = self.keys.withdraw_consent(recorded, id).await?;
            let named = Some((consent.id, consent.sha256));
            Ok((consent, if now { "withdrawn" } else { "withdrawn before" }, named))
        };
        let (consent, audit_entry) = self.consent(call, withdraw).await?;
        Ok(ConsentReceipt { consent, audit_entry })
    }

    /// Lists up to `limit` consents of the tenant after one, oldest first, those that are over or withdrawn too.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::FailedPrecondition`] if the tenant is destroyed; [`Error::Unavailable`].
    pub async fn list_consents(
        &self,
        call: &ConsentCall<'_>,
        after: Option<ConsentId>,
        limit: usize,
    ) -> Result<Vec<Consent>, Error> {
        let list = async |recorded: &Recorded<Permit<ListConsents>>| {
            Ok((self.keys.list_consents(recorded, after, limit).await?, "executed", None))
        };
        self.consent(call, list).await.map(|(found, _)| found)
    }
}
