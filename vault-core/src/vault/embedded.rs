//! A vault over a directory: the parts that one machine needs, put together.

use std::path::Path;
use std::sync::Arc;

use super::{Vault, VaultParts};
use crate::audit::{Log, LogSigner};
use crate::error::{Dependency, Error};
use crate::fs::{Fs, OsFs};
use crate::keys::{CacheSettings, Keyring, KeyringParts};
use crate::kms::{RootKey, Roots};
use crate::policy::{Authorizer, PolicySet, Registry};
use crate::store::EmbeddedStore;
use crate::time::{Clock, SystemClock};

impl Vault {
    /// Opens the vault in `dir`, or makes one: the embedded store (`vault.redb`), the audit log (`audit/`, signed with
    /// `audit.key`) and the baseline policies. `instance` names this installation; keep it, and the root key, outside
    /// `dir`, so that a copy of `dir` opens nothing elsewhere.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for damaged files, which are left as they are; [`Error::Unavailable`] if the disk or locked
    /// memory fails; [`Error::Invalid`] naming `root_key_id` if the root key's id is none.
    pub fn embedded(dir: &Path, instance: &str, root: Arc<dyn RootKey>, registry: Registry) -> Result<Self, Error> {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        fs.create_dir_durable(dir)
            .map_err(|_| Error::unavailable(Dependency::Store, "the vault's directory cannot be made"))?;
        let store = Arc::new(EmbeddedStore::open(Arc::clone(&fs), &dir.join("vault.redb"))?);
        let origin = format!("blindvault/{instance}/audit");
        let signer = LogSigner::load_or_create(&*fs, &dir.join("audit.key"), &origin)?;
        let (audit, _) = Log::open(Arc::clone(&fs), &dir.join("audit"), signer, Arc::clone(&clock))?;
        let keys = Keyring::new(KeyringParts {
            store,
            roots: Roots::single(root)?,
            instance: instance.to_owned(),
            cache: CacheSettings::default(),
            clock: Arc::clone(&clock),
        })?;
        let authorizer = Authorizer::new(PolicySet::baseline()?, registry);
        Ok(Self::new(VaultParts { authorizer, audit, keys, clock }))
    }
}
