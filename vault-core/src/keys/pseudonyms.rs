//! What stands for people in the audit log: made under a side key of the tenant, which dies with the tenant key.

use std::sync::Arc;

use super::keyring::{Keyring, PSEUDONYMS};
use super::lifecycle::DESTROYED;
use super::names::{SideKey, SideKeyName};
use super::rows::{self, SideKeyRow};
use crate::audit::Pseudonym;
use crate::error::Error;
use crate::id::{KeyVersion, Subject, TenantId};
use crate::principal::EndUser;
use crate::store::Table;

impl Keyring {
    /// What stands for a subject in audit entries.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`], or [`Error::NotFound`] for an unknown tenant.
    pub async fn pseudonym(&self, tenant: &TenantId, subject: &Subject) -> Result<Pseudonym, Error> {
        Pseudonym::of(&self.pseudonym_key(tenant).await?.0, tenant, subject)
    }

    /// What stands for an end user in audit entries.
    ///
    /// # Errors
    /// As [`Self::pseudonym`].
    pub async fn end_user_pseudonym(&self, tenant: &TenantId, user: &EndUser) -> Result<Pseudonym, Error> {
        Pseudonym::of_end_user(&self.pseudonym_key(tenant).await?.0, tenant, user)
    }

    /// The side key from which they are made, and the key of consents' and grants' rows.
    pub(super) async fn pseudonym_key(&self, tenant: &TenantId) -> Result<Arc<SideKey>, Error> {
        let name = SideKeyName(tenant.clone(), PSEUDONYMS);
        self.side_keys.get_or_load(&name, || self.load_side_key(tenant, PSEUDONYMS)).await
    }

    async fn load_side_key(&self, tenant: &TenantId, kind: &'static str) -> Result<SideKey, Error> {
        let row = self
            .known_row::<SideKeyRow>(Table::SideKeys, &rows::side_key(tenant, kind))
            .await?
            .ok_or(Error::NotFound("tenant"))?;
        if row.wrapped.is_empty() {
            return Err(DESTROYED);
        }
        let version = KeyVersion(row.tenant_key_version);
        self.with_wrapping_key(tenant, version, |wrapping| wrapping.unwrap_side(kind, &row.wrapped).map(SideKey)).await
    }
}
