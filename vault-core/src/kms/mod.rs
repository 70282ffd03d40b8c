//! Root keys: the top of the hierarchy, kept where this process cannot read them. [`RootKey`] is the seam; [`Roots`] are
//! those of an installation, [`Custody`] says which of them hold a tenant's key.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "dev")]
mod local;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod roots;
mod wrapping;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "dev")]
pub use local::LocalRoot;
#[cfg(feature = "pkcs11")]
pub use pkcs11::{IvSource, Pkcs11Root, Pkcs11Settings};
pub use roots::{RootEvent, RootFailure, Roots, RootsBuilder};
pub use wrapping::Wrapping;

pub use crate::custody::{Custody, MAX_CUSTODY, MAX_REPLICAS, MAX_ROOT_ID, Replicas, RootId, SplitRoots};
use crate::error::{Dependency, Error};
use crate::id::{KeyVersion, TenantId};
use crate::secret::Key32;
use crate::store::BoxFuture;

/// What a root key wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// A tenant key.
    TenantKey,
    /// What another root key made of a tenant key: the outer layer of a split root.
    Outer,
    /// The key that binds the rows of a store to their places; it belongs to no tenant.
    StoreKey,
    /// The key that seals one backup of a store; it belongs to no tenant.
    BackupKey,
}

impl Layer {
    /// The value of `purpose` in the encryption context.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::TenantKey => "tenant-key",
            Self::Outer => "tenant-key-outer",
            Self::StoreKey => "store-key",
            Self::BackupKey => "backup-key",
        }
    }
}

/// What a tenant key is wrapped for. A root key binds it into the wrapping (AWS KMS: the encryption context; elsewhere
/// the AAD), so that a wrapped key moved to another tenant, version or instance opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionContext {
    /// This installation. It lives outside the store, so that a restored copy of the store opens nothing elsewhere.
    pub instance: String,
    /// Whose key it is; `None` only for a key of the installation itself.
    pub tenant: Option<TenantId>,
    /// Which version of it.
    pub version: KeyVersion,
    /// What is wrapped, so that an outer layer never passes for a tenant key.
    pub layer: Layer,
}

impl EncryptionContext {
    /// The map, in ascending order of its names.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("app", "blindvault".to_owned()),
            ("instance", self.instance.clone()),
            ("purpose", self.layer.purpose().to_owned()),
        ];
        pairs.extend(self.tenant.as_ref().map(|tenant| ("tenant", tenant.to_string())));
        pairs.push(("tenant_key_version", self.version.to_string()));
        pairs
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
    /// The root key is disabled, perhaps by the customer who owns it.
    Disabled,
    /// The root key is being deleted, or in another state in which it does nothing.
    InvalidState,
    /// Whoever owns the root key does not let this installation use it.
    Forbidden,
    /// There is no such root key, or no longer.
    Missing,
    /// The answer names another root key than the one that was asked. Nothing of it was used. An alarm: it never
    /// happens by itself.
    WrongKey,
    /// The root could not be asked, or gave no usable answer.
    Unavailable(&'static str),
}

impl RootError {
    /// True if the root was not there to decide, so that a replica may be asked in its place. A root that *refuses* ends
    /// the search.
    pub const fn is_absence(self) -> bool {
        matches!(self, Self::Disabled | Self::InvalidState | Self::Forbidden | Self::Missing | Self::Unavailable(_))
    }
}

impl From<RootError> for Error {
    fn from(error: RootError) -> Self {
        match error {
            RootError::NotMine => Self::FailedPrecondition("the root key does not open this tenant's key"),
            RootError::Disabled => Self::FailedPrecondition("the tenant's root key is disabled"),
            RootError::InvalidState => {
                Self::FailedPrecondition("the tenant's root key is being deleted or otherwise out of use")
            }
            RootError::Forbidden => {
                Self::FailedPrecondition("the owner of the tenant's root key does not let this installation use it")
            }
            RootError::Missing => Self::FailedPrecondition("the tenant's root key does not exist"),
            RootError::WrongKey => Self::Alarm("the root key service answered with another key; it was not used"),
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

/// Longest wrapping that a root key takes as the inner layer of a split root, in bytes. AWS KMS encrypts 4,096 bytes at
/// most, and its own ciphertexts of 32 bytes are far shorter than this.
pub const MAX_INNER: usize = 2048;

/// A key that wraps tenant keys.
pub trait RootKey: Send + Sync + fmt::Debug + 'static {
    /// Names the root key for good, for example by its ARN; kept in each row it wrapped.
    fn id(&self) -> &str;

    /// Makes a tenant key.
    ///
    /// # Errors
    /// [`RootError::Disabled`] or [`RootError::Unavailable`].
    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>>;

    /// Wraps a tenant key that another root key made, for a replica of it.
    ///
    /// # Errors
    /// [`RootError::Disabled`] or [`RootError::Unavailable`].
    fn wrap<'a>(&'a self, key: &'a Key32, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>>;

    /// Wraps what another root key made of a tenant key, as the outer layer of a split root; [`MAX_INNER`] bytes at
    /// most.
    ///
    /// # Errors
    /// [`RootError::Disabled`] or [`RootError::Unavailable`].
    fn seal<'a>(&'a self, inner: &'a [u8], context: &'a EncryptionContext)
    -> BoxFuture<'a, Result<Vec<u8>, RootError>>;

    /// Gives back what [`Self::seal`] took.
    ///
    /// # Errors
    /// Any [`RootError`].
    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>>;

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

/// Gives root keys by their ids, for installations that know more than one: a customer's own, or one a region.
pub trait RootProvider: Send + Sync + fmt::Debug + 'static {
    /// The root key of this id; `None` if it is not one of this provider's, or not one that the configuration allows.
    fn root(&self, id: &str) -> Option<Arc<dyn RootKey>>;
}
