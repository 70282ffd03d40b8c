//! Time-bound grants: roles of a workload beyond its registry entry. [`Vault::approve`] makes them.

use super::Vault;
use super::control::{About, Ask, ControlCall};
use crate::audit::Recorded;
use crate::error::Error;
use crate::id::{ApprovalId, GrantId, TenantId};
use crate::keys::{Approval, Grant, GrantOrder, Ordered};
use crate::policy::{ListGrants, Permit, RequestGrant, RevokeGrant};

impl Vault {
    /// Asks for a grant. Nothing happens until another operator approves it; then it is made exactly as it was asked for,
    /// and ends by itself.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Invalid`] naming `workload`, `roles` or one of them, `until`, or `reason` if the call
    /// has none; [`Error::NotFound`] for an unknown tenant or dataset; [`Error::FailedPrecondition`] if the tenant is
    /// destroyed; [`Error::Unavailable`].
    pub async fn request_grant(&self, call: &ControlCall<'_>, order: GrantOrder) -> Result<Approval, Error> {
        order.check(self.clock.now())?;
        self.ask_for::<RequestGrant>(call, &Ordered::Grant(order)).await
    }

    /// Ends a grant early, for ever: as fast as [`Self::withdraw_consent`]. It takes one operator, and may be called
    /// again.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::FailedPrecondition`] if the tenant is destroyed;
    /// [`Error::Unavailable`].
    pub async fn revoke_grant(&self, call: &ControlCall<'_>, tenant: &TenantId, id: GrantId) -> Result<Grant, Error> {
        let ask = Ask { tenant: Some(tenant), ..Ask::default() };
        self.operate_about(call, ask, async |recorded: &Recorded<Permit<RevokeGrant>>| {
            let grant = self.keys.revoke_grant(recorded, tenant, id).await?;
            // A grant has the name of the approval that made it.
            let about = About { detail: "revoked", approval: Some((ApprovalId(id.0), grant.request_sha256)) };
            Ok((grant, about))
        })
        .await
    }

    /// Lists up to `limit` grants of a tenant after one, oldest first, those that are over or revoked too.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::NotFound`]; [`Error::FailedPrecondition`] if the tenant is destroyed;
    /// [`Error::Unavailable`].
    pub async fn list_grants(
        &self,
        call: &ControlCall<'_>,
        tenant: &TenantId,
        after: Option<GrantId>,
        limit: usize,
    ) -> Result<Vec<Grant>, Error> {
        let ask = Ask { tenant: Some(tenant), ..Ask::default() };
        let list = async |_: &Recorded<Permit<ListGrants>>| {
            Ok((self.keys.list_grants(tenant, after, limit).await?, About::executed()))
        };
        self.operate_about(call, ask, list).await
    }
}
