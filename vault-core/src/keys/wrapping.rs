//! The wrapping key: what a tenant key is used for (`docs/format.md`, "Wrapped keys").

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cache::Wipe;
use crate::crypto::{KcKey, expand_sha256, unwrap32, wrap32};
use crate::envelope::Scope;
use crate::error::{Dependency, Error};
use crate::id::{KeyId, KeyVersion, TenantId};
use crate::secret::Key32;

const INFO: &[u8] = b"blindvault/wrap/v1\0";
const DATA_AAD: &[u8] = b"blindvault/wrapaad/v1\0";
const SIDE_AAD: &[u8] = b"blindvault/sideaad/v1\0";

/// One version of a tenant key, as the key that wraps this tenant's data keys and side keys.
pub struct WrappingKey {
    tenant: TenantId,
    version: KeyVersion,
    key: Mutex<Option<KcKey>>,
}

fn lp(out: &mut Vec<u8>, bytes: &[u8]) {
    // Identifiers are at most 256 bytes long.
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl WrappingKey {
    /// Derives the wrapping key: HKDF-Expand-SHA256(tenant key, `"blindvault/wrap/v1" ‖ 00 ‖ LP(tenant) ‖ u32
    /// version`, 32).
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `key_version` for version 0; [`Error::Unavailable`] without locked memory.
    pub fn derive(tenant_key: &Key32, tenant: &TenantId, version: KeyVersion) -> Result<Self, Error> {
        version.check()?;
        let mut name = Vec::new();
        lp(&mut name, tenant.as_str().as_bytes());
        let key = expand_sha256(tenant_key, &[INFO, &name, &version.0.to_be_bytes()])?;
        Ok(Self { tenant: tenant.clone(), version, key: Mutex::new(Some(KcKey::new(&key)?)) })
    }

    /// The version of the tenant key.
    pub const fn version(&self) -> KeyVersion {
        self.version
    }

    fn lock(&self) -> MutexGuard<'_, Option<KcKey>> {
        // Nothing is written under this lock but `None`.
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&KcKey) -> Result<T, Error>) -> Result<T, Error> {
        let key = self.lock();
        work(key.as_ref().ok_or(Error::unavailable(Dependency::Memory, "the key was evicted; try again"))?)
    }

    /// True once the key has been wiped.
    pub(super) fn is_wiped(&self) -> bool {
        self.lock().is_none()
    }

    fn data_aad(&self, scope: &Scope, id: KeyId, version: KeyVersion) -> Result<Vec<u8>, Error> {
        version.check()?;
        if scope.tenant != self.tenant {
            return Err(Error::Unopenable);
        }
        let mut aad = DATA_AAD.to_vec();
        lp(&mut aad, scope.tenant.as_str().as_bytes());
        lp(&mut aad, scope.dataset.as_str().as_bytes());
        lp(&mut aad, scope.subject.as_ref().map_or(b"", |s| s.as_str().as_bytes()));
        aad.extend_from_slice(&id.0);
        aad.extend_from_slice(&version.0.to_be_bytes());
        aad.extend_from_slice(&self.version.0.to_be_bytes());
        Ok(aad)
    }

    /// Wraps a data key, bound to its place: 105 bytes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without entropy or locked memory; [`Error::Unopenable`] for another tenant's scope;
    /// [`Error::Invalid`] naming `key_version` for version 0.
    pub fn wrap(&self, scope: &Scope, id: KeyId, version: KeyVersion, data_key: &Key32) -> Result<Vec<u8>, Error> {
        let aad = self.data_aad(scope, id, version)?;
        self.with(|key| wrap32(key, &aad, data_key)).map(Vec::from)
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`Error::Unopenable`] for anything but what [`Self::wrap`] made for the same place; [`Error::Invalid`] naming
    /// `key_version` for version 0.
    pub fn unwrap(&self, scope: &Scope, id: KeyId, version: KeyVersion, wrapped: &[u8]) -> Result<Key32, Error> {
        let aad = self.data_aad(scope, id, version)?;
        self.with(|key| unwrap32(key, &aad, wrapped))
    }

    fn side_aad(&self, kind: &str) -> Vec<u8> {
        let mut aad = SIDE_AAD.to_vec();
        lp(&mut aad, self.tenant.as_str().as_bytes());
        lp(&mut aad, kind.as_bytes());
        aad.extend_from_slice(&self.version.0.to_be_bytes());
        aad
    }

    /// Wraps a side key (index, token, audit pseudonyms), bound to its kind.
    pub(super) fn wrap_side(&self, kind: &str, side_key: &Key32) -> Result<Vec<u8>, Error> {
        self.with(|key| wrap32(key, &self.side_aad(kind), side_key)).map(Vec::from)
    }

    /// Unwraps a side key.
    pub(super) fn unwrap_side(&self, kind: &str, wrapped: &[u8]) -> Result<Key32, Error> {
        self.with(|key| unwrap32(key, &self.side_aad(kind), wrapped))
    }
}

impl Wipe for WrappingKey {
    fn wipe(&self) {
        *self.lock() = None;
    }
}
