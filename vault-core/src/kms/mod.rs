//! Root keys: the top of the hierarchy, kept where this process cannot read them. [`RootKey`] is the seam.

#[cfg(feature = "dev")]
mod local;

use std::fmt;

#[cfg(feature = "dev")]
pub use local::LocalRoot;

use crate::error::{Dependency, Error};
use crate::id::{KeyVersion, TenantId};
use crate::secret::Key32;
use crate::store::BoxFuture;

/// What a tenant key is wrapped for. A root key binds it into the wrapping (AWS KMS: the encryption context; elsewhere
/// the AAD), so that a wrapped key moved to another tenant, version or instance opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionContext {
    /// This installation. It lives outside the store, so that a restored copy of the store opens nothing elsewhere.
    pub instance: String,
    /// Whose key it is.
    pub tenant: TenantId,
    /// Which version of it.
    pub version: KeyVersion,
}

impl EncryptionContext {
    /// The map, in ascending order of its names.
    pub fn pairs(&self) -> [(&'static str, String); 5] {
        [
            ("app", "blindvault".to_owned()),
            ("instance", self.instance.clone()),
            ("purpose", "tenant-key".to_owned()),
            ("tenant", self.tenant.to_string()),
            ("tenant_key_version", self.version.to_string()),
        ]
    }

    /// The map as AAD bytes: a label, then each name and value behind its u16 length.
    pub fn aad(&self) -> Vec<u8> {
        let mut aad = b"blindvault/rootaad/v1\0".to_vec();
        for (name, value) in &self.pairs() {
            for part in [name.as_bytes(), value.as_bytes()] {
                // Names and values are bounded by their types and by the configuration far below 64 KiB.
                aad.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
                aad.extend_from_slice(part);
            }
        }
        aad
    }
}

/// Why a root key did not answer with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootError {
    /// The wrapped key was not wrapped by this root, or for another context, or it was altered.
    NotMine,
    /// The root key is disabled or being deleted, perhaps by the customer who owns it.
    Disabled,
    /// The root could not be asked, or gave no usable answer.
    Unavailable(&'static str),
}

impl From<RootError> for Error {
    fn from(error: RootError) -> Self {
        match error {
            RootError::NotMine => Self::FailedPrecondition("the root key does not open this tenant's key"),
            RootError::Disabled => Self::FailedPrecondition("the tenant's root key is disabled"),
            RootError::Unavailable(why) => Self::unavailable(Dependency::RootKey, why),
        }
    }
}

/// A fresh tenant key, and the same key wrapped for the store.
pub struct Generated {
    /// The key.
    pub key: Key32,
    /// The key wrapped by the root.
    pub wrapped: Vec<u8>,
}

/// A key that wraps tenant keys.
pub trait RootKey: Send + Sync + fmt::Debug + 'static {
    /// Names the root key for good, for example by its ARN; kept in each row it wrapped.
    fn id(&self) -> &str;

    /// Makes a tenant key.
    ///
    /// # Errors
    /// [`RootError::Disabled`] or [`RootError::Unavailable`].
    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>>;

    /// Unwraps a tenant key.
    ///
    /// # Errors
    /// Any [`RootError`].
    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>>;
}
