//! The `local` root key: a file on this machine. For development: whoever reads the file opens everything.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{EncryptionContext, Generated, MAX_INNER, RootError, RootKey};
use crate::crypto::{COMMITMENT, KcKey, NONCE, TAG, open_bytes, seal_bytes, sha256, unwrap32, wrap32};
use crate::error::{Dependency, Error};
use crate::fs::{Fs, Open};
use crate::secret::Key32;
use crate::store::BoxFuture;

const MAGIC: &[u8; 16] = b"blindvault-root1";
/// Magic ‖ key (32) ‖ the first 16 bytes of SHA-256 over both.
const FILE: usize = 16 + 32 + 16;
const OUTER_VERSION: u8 = 1;

/// A root key in a file with mode 0600, made once.
pub struct LocalRoot {
    id: String,
    key: KcKey,
}

impl fmt::Debug for LocalRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalRoot({})", self.id)
    }
}

impl LocalRoot {
    /// Makes a new key file.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the name is taken: a key file is never replaced. [`Error::Unavailable`] if the disk
    /// fails.
    pub fn create(fs: &dyn Fs, path: &Path) -> Result<Self, Error> {
        if fs.exists(path) {
            return Err(Error::AlreadyExists("local root key file"));
        }
        let key = Key32::generate()?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(key.expose()?);
        let check = sha256(&[&bytes]);
        bytes.extend_from_slice(check.first_chunk::<16>().map_or(&[], |c| c.as_slice()));
        fs.replace(path, &bytes).map_err(|_| failed("the local root key file cannot be written"))?;
        Self::from_key(&key)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged file or one that others may read; [`Error::Unavailable`] if there is none.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Self, Error> {
        let what = || path.display().to_string();
        let file = fs.open(path, Open::Read).map_err(|_| failed("the local root key file cannot be opened"))?;
        let mode = file.mode().map_err(|_| failed("the local root key file cannot be read"))?;
        if mode & 0o077 != 0 {
            return Err(Error::corrupt(what(), "file mode: others may read it, it must be 0600"));
        }
        let len = file.len().map_err(|_| failed("the local root key file cannot be read"))?;
        if len != FILE as u64 {
            return Err(Error::corrupt(what(), format!("length: {len} bytes, must be {FILE}")));
        }
        let mut bytes = Zeroizing::new([0u8; FILE]);
        file.read_exact_at(0, &mut bytes[..]).map_err(|_| failed("the local root key file cannot be read"))?;
        let (body, check) = bytes.split_at(FILE - 16);
        if body.first_chunk() != Some(MAGIC) {
            return Err(Error::corrupt(what(), "byte 0: not a local root key of version 1"));
        }
        if sha256(&[body]).get(..16) != Some(check) {
            return Err(Error::corrupt(what(), "byte 48: the checksum does not match"));
        }
        let key: &[u8; 32] = body.last_chunk().ok_or_else(|| Error::corrupt(what(), "length"))?;
        Self::from_key(&Key32::copy_of(key)?)
    }

    fn from_key(key: &Key32) -> Result<Self, Error> {
        let id = sha256(&[b"blindvault local root id", key.expose()?]);
        let id = id.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
        Ok(Self { id: format!("local:{id}"), key: KcKey::new(key)? })
    }
}

const fn failed(why: &'static str) -> Error {
    Error::unavailable(Dependency::RootKey, why)
}

/// The outer layer of a split root: `01 ‖ N(24) ‖ C(32) ‖ ciphertext ‖ tag(16)`, KC-XAES-256-GCM as for wrapped keys.
fn seal(key: &KcKey, aad: &[u8], inner: &[u8]) -> Result<Vec<u8>, Error> {
    Ok([vec![OUTER_VERSION], seal_bytes(key, aad, inner.to_vec())?].concat())
}

fn open(key: &KcKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    match sealed.split_first() {
        Some((&OUTER_VERSION, rest)) if rest.len() <= NONCE + COMMITMENT + MAX_INNER + TAG => {
            open_bytes(key, aad, rest)
        }
        _ => Err(Error::Unopenable),
    }
}

fn refused(error: Error) -> RootError {
    match error {
        Error::Unopenable => RootError::NotMine,
        _ => RootError::Unavailable("no entropy or locked memory"),
    }
}

impl RootKey for LocalRoot {
    fn id(&self) -> &str {
        &self.id
    }

    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>> {
        Box::pin(async move {
            let generated = || -> Result<Generated, Error> {
                let key = Key32::generate()?;
                let wrapped = wrap32(&self.key, &context.aad(), &key)?.to_vec();
                Ok(Generated { key, wrapped })
            };
            generated().map_err(|_| RootError::Unavailable("no entropy or locked memory for a new key"))
        })
    }

    fn wrap<'a>(&'a self, key: &'a Key32, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async move { wrap32(&self.key, &context.aad(), key).map(Vec::from).map_err(refused) })
    }

    fn seal<'a>(
        &'a self,
        inner: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async move {
            if inner.len() > MAX_INNER {
                return Err(RootError::Unavailable("the inner wrapping is too long"));
            }
            seal(&self.key, &context.aad(), inner).map_err(refused)
        })
    }

    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async move { open(&self.key, &context.aad(), sealed).map_err(refused) })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>> {
        Box::pin(async move { unwrap32(&self.key, &context.aad(), wrapped).map_err(refused) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;
    use crate::id::{KeyVersion, TenantId};
    use crate::kms::Layer;

    fn context(tenant: &str, instance: &str) -> EncryptionContext {
        EncryptionContext {
            instance: instance.into(),
            tenant: Some(TenantId::parse(tenant).unwrap()),
            version: KeyVersion::FIRST,
            layer: Layer::TenantKey,
        }
    }

    #[test]
    fn an_outer_layer_opens_only_where_and_as_what_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = LocalRoot::create(&OsFs, &dir.path().join("root.key")).unwrap();
        let outer = EncryptionContext { layer: Layer::Outer, ..context("acme", "one") };
        let sealed = pollster::block_on(root.seal(b"inner", &outer)).unwrap();
        let open = |bytes: &[u8], context: &EncryptionContext| pollster::block_on(root.open(bytes, context));
        assert_eq!(open(&sealed, &outer).unwrap(), b"inner");
        assert_eq!(open(&sealed, &context("acme", "one")).err(), Some(RootError::NotMine));
        for len in 0..sealed.len() {
            assert_eq!(open(&sealed[..len], &outer).err(), Some(RootError::NotMine), "{len} bytes");
        }
        // A tenant key is 32 bytes, so its wrapping would pass for an outer layer but for the context.
        let key = Key32::generate().unwrap();
        let wrapped = pollster::block_on(root.wrap(&key, &context("acme", "one"))).unwrap();
        assert_eq!(open(&wrapped, &outer).err(), Some(RootError::NotMine));
        assert!(pollster::block_on(root.seal(&[0; MAX_INNER], &outer)).is_ok());
        assert!(pollster::block_on(root.seal(&[0; MAX_INNER + 1], &outer)).is_err());
    }

    #[test]
    fn a_key_file_is_made_once_and_opens_only_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.key");
        let made = LocalRoot::create(&OsFs, &path).unwrap();
        assert_eq!(LocalRoot::create(&OsFs, &path).err(), Some(Error::AlreadyExists("local root key file")));
        let opened = LocalRoot::open(&OsFs, &path).unwrap();
        assert_eq!(made.id(), opened.id());
        let acme = context("acme", "one");
        let generated = pollster::block_on(made.generate(&acme)).unwrap();
        let unwrap = |root: &LocalRoot, context: &EncryptionContext| {
            pollster::block_on(root.unwrap(&generated.wrapped, context))
        };
        assert!(unwrap(&opened, &acme).is_ok_and(|key| key == generated.key));
        for other in [context("acme2", "one"), context("acme", "two")] {
            assert_eq!(unwrap(&opened, &other).err(), Some(RootError::NotMine));
        }
        let stranger = LocalRoot::create(&OsFs, &dir.path().join("other.key")).unwrap();
        assert_eq!(unwrap(&stranger, &acme).err(), Some(RootError::NotMine));
    }

    #[test]
    fn damaged_or_readable_key_files_are_refused_and_left_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.key");
        LocalRoot::create(&OsFs, &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(LocalRoot::open(&OsFs, &path), Err(Error::Corrupt { .. })), "byte {at}");
            assert_eq!(std::fs::read(&path).unwrap(), bad);
        }
        for len in [0, 1, good.len() - 1] {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(matches!(LocalRoot::open(&OsFs, &path), Err(Error::Corrupt { .. })));
        }
        std::fs::write(&path, &good).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(LocalRoot::open(&OsFs, &path), Err(Error::Corrupt { at, .. }) if at.contains("0600")));
    }
}
