//! What the caches hold keys under, and how those are wiped.

use super::cache::{CacheKey, Wipe};
use crate::envelope::DataKey;
use crate::id::{KeyId, KeyVersion, TenantId};
use crate::secret::Key32;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DataKeyName(pub TenantId, pub KeyId);
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WrappingKeyName(pub TenantId, pub KeyVersion);
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SideKeyName(pub TenantId, pub &'static str);

impl CacheKey for DataKeyName {
    fn tenant(&self) -> &TenantId {
        &self.0
    }

    fn least(tenant: &TenantId) -> Self {
        Self(tenant.clone(), KeyId([0; 16]))
    }
}
impl CacheKey for WrappingKeyName {
    fn tenant(&self) -> &TenantId {
        &self.0
    }

    fn least(tenant: &TenantId) -> Self {
        Self(tenant.clone(), KeyVersion(0))
    }
}
impl CacheKey for SideKeyName {
    fn tenant(&self) -> &TenantId {
        &self.0
    }

    fn least(tenant: &TenantId) -> Self {
        Self(tenant.clone(), "")
    }
}

impl Wipe for DataKey {
    fn wipe(&self) {
        Self::wipe(self);
    }

    fn rest(&self) {
        Self::rest(self);
    }
}

/// A side key; wiped when the last call that uses it is over.
pub(super) struct SideKey(pub Key32);

impl Wipe for SideKey {
    fn wipe(&self) {}
}
