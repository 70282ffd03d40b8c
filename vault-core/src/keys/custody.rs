//! Tenant keys and their custody: which root keys a new version goes under.

use super::keyring::Keyring;
use super::rows::{Kept, KeyState, TenantKeyRow};
use crate::audit::Recorded;
use crate::error::Error;
use crate::id::{KeyVersion, TenantId};
use crate::kms::Custody;
use crate::policy::{ControlAction, Permit};
use crate::secret::Key32;

impl Keyring {
    /// Of a new tenant: the custody that was permitted, else the default one.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the root key that this vault is not given.
    pub(super) fn custody_of_new<A: ControlAction>(&self, recorded: &Recorded<Permit<A>>) -> Result<Custody, Error> {
        let roots = &self.parts.roots;
        let custody = recorded.permit().decision().custody.as_ref().unwrap_or(roots.default_custody());
        roots.check(custody)?;
        Ok(custody.clone())
    }

    /// Of a tenant key's next version: the custody that was permitted, else that of the version before.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the root key that this vault is not given; [`Error::FailedPrecondition`] if it is one of
    /// the version before.
    pub(super) fn custody_of_next<A: ControlAction>(
        &self,
        recorded: &Recorded<Permit<A>>,
        before: &TenantKeyRow,
    ) -> Result<Custody, Error> {
        let roots = &self.parts.roots;
        if let Some(custody) = &recorded.permit().decision().custody {
            roots.check(custody)?;
            return Ok(custody.clone());
        }
        let custody = before.wrapping.custody();
        match roots.check(&custody) {
            Ok(()) => Ok(custody),
            Err(_) => Err(Error::FailedPrecondition(
                "the tenant's custody has a root key that this vault is not given; rotate to another custody",
            )),
        }
    }

    /// A fresh tenant key and its row.
    pub(super) async fn new_tenant_key(
        &self,
        tenant: &TenantId,
        version: KeyVersion,
        custody: Custody,
    ) -> Result<(Key32, TenantKeyRow), Error> {
        let context = self.root_context(tenant, version);
        let (key, wrapping) = self.parts.roots.generate(&custody, &context).await?;
        let created = self.parts.clock.now().0;
        Ok((key, TenantKeyRow { wrapping: Kept::Wrapped(wrapping), state: KeyState::Active, created }))
    }
}
