//! The `pkcs11` root key: an AES-256 key that never leaves a hardware security module.
//!
//! Tenant keys are encrypted and decrypted *inside* the module by `CKM_AES_GCM` (PKCS #11 v2.40 mechanisms, section
//! 2.12; NIST SP 800-38D) with the encryption context as AAD:
//!
//! ```text
//! 01 ‖ IV (12) ‖ ciphertext ‖ tag (16)
//! ```
//! IVs are random, so one key makes 2^32 wrappings at most (SP 800-38D, section 8.3). Each version of a tenant key takes
//! one or two; a process that comes to the bound refuses to wrap and goes on unwrapping.
//!
//! Calls into a module block, so they run on threads of their own: `sessions` of them, each with one session of the token.
//! A call that is not answered in time is answered without it. A session that was lost, with or without its login, is
//! opened again. What the module itself copies of a key while it works is not ours to wipe.

mod cipher;
mod key;
mod module;
mod pin;
mod pool;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use cipher::Sealed;
use pool::Pool;
use worker::Worker;

use super::{EncryptionContext, Generated, MAX_INNER, RootError, RootKey};
use crate::crypto::random_bytes;
use crate::error::{Dependency, Error};
use crate::secret::Key32;
use crate::store::BoxFuture;

/// Calls that wait for a session at most.
const QUEUE: usize = 1024;

/// Who makes the initialization vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IvSource {
    /// The operating system: 96 random bits.
    Os,
    /// The module, which writes the one it used into a buffer of zeros. For modules that insist on it. One that does not,
    /// and so leaves the zeros, is refused.
    Module,
}

/// Which key of which token, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Settings {
    /// The module: a shared library from the vendor, which is loaded into this process. It must not be writable by
    /// others.
    pub module: PathBuf,
    /// The token's label: 1 to 32 of `A-Z a-z 0-9 . _ -`.
    pub token: String,
    /// The key's label: 1 to 64 of the same characters.
    pub key: String,
    /// A file that holds the user PIN and is readable by its owner only (0600). Read at each login, kept nowhere.
    pub pin_file: PathBuf,
    /// Sessions at most, each with a thread of its own.
    pub sessions: usize,
    /// How long a call may take, logging in included.
    pub timeout: Duration,
    /// Who makes the initialization vectors.
    pub iv: IvSource,
}

impl Pkcs11Settings {
    /// The id of the root key: `pkcs11:<token label>/<key label>`.
    pub fn root_id(&self) -> String {
        format!("pkcs11:{}/{}", self.token, self.key)
    }

    fn check(&self) -> Result<(), Error> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let label = |label: &str, most: usize| (1..=most).contains(&label.len()) && label.bytes().all(good);
        if !label(&self.token, 32) {
            return Err(Error::invalid("token", "must be 1 to 32 of the characters A-Z a-z 0-9 . _ -"));
        }
        if !label(&self.key, 64) {
            return Err(Error::invalid("key", "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -"));
        }
        if !(1..=64).contains(&self.sessions) {
            return Err(Error::invalid("sessions", "must be 1 to 64"));
        }
        Ok(())
    }
}

/// Why there is no session to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Something that the settings name is not what it must be.
    Wrong(&'static str, &'static str),
    /// The token is not there, or does not answer.
    Absent(&'static str),
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Wrong(field, why) => Self::invalid(field, why),
            Trouble::Absent(why) => Self::unavailable(Dependency::RootKey, why),
        }
    }
}

impl From<Trouble> for RootError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Wrong(_, why) | Trouble::Absent(why) => Self::Unavailable(why),
        }
    }
}

/// A root key in a hardware security module.
pub struct Pkcs11Root {
    id: String,
    pool: Pool<Worker>,
    timeout: Duration,
}

impl fmt::Debug for Pkcs11Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Root({})", self.id)
    }
}

impl Pkcs11Root {
    /// A root key whose token is reached when it is first used, and whenever it was lost. Starts the threads.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting; [`Error::Unavailable`] if no thread can be started.
    pub fn new(settings: Pkcs11Settings) -> Result<Self, Error> {
        settings.check()?;
        let (id, threads, timeout) = (settings.root_id(), settings.sessions, settings.timeout);
        let shared = Arc::new(worker::Shared::new(settings));
        let pool = Pool::start(threads, QUEUE, timeout, || Worker::new(Arc::clone(&shared)))?;
        Ok(Self { id, pool, timeout })
    }

    /// Logs in, and looks at the key: it must be one AES-256 key that is sensitive and cannot be extracted, and it must
    /// open what it seals. Blocks, for as long as a call may take at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting that names something wrong; [`Error::Unavailable`] if the token is not there
    /// or does not answer in time.
    pub fn check(&self) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel();
        let call = self.pool.call(move |worker| {
            // Whoever asked may have gone.
            sender.send(worker.reconnect()).unwrap_or_default();
            Ok(())
        });
        let found = receiver.recv_timeout(self.timeout);
        drop(call);
        let late = Trouble::Absent("the module did not answer in time");
        found.unwrap_or(Err(late)).map_err(Error::from)
    }

    /// Makes the key in the token, which must not have one of that label. Never called by the gateway: a root key is made
    /// once, by a person who knows how it is backed up. Blocks.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Invalid`] naming the setting; [`Error::Unavailable`].
    pub fn create_key(settings: &Pkcs11Settings) -> Result<(), Error> {
        settings.check()?;
        key::create(settings)
    }

    async fn open_bytes(&self, sealed: &[u8], context: &EncryptionContext, most: usize) -> Result<Opened, RootError> {
        let sealed = Sealed::parse(sealed, most).ok_or(RootError::NotMine)?;
        let aad = context.aad();
        self.pool.call(move |worker| worker.open(&sealed, &aad)).await
    }
}

/// What was opened, wiped when it goes.
type Opened = zeroize::Zeroizing<Vec<u8>>;

impl RootKey for Pkcs11Root {
    fn id(&self) -> &str {
        &self.id
    }

    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>> {
        let aad = context.aad();
        Box::pin(self.pool.call(move |worker| {
            let key = worker.random_key()?;
            let wrapped = worker.seal(exposed(&key)?, &aad)?;
            Ok(Generated { key, wrapped })
        }))
    }

    fn wrap<'a>(&'a self, key: &'a Key32, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        let aad = context.aad();
        Box::pin(async move {
            let key = exposed(key).and_then(copy)?;
            self.pool.call(move |worker| worker.seal(exposed(&key)?, &aad)).await
        })
    }

    fn seal<'a>(
        &'a self,
        inner: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        let aad = context.aad();
        Box::pin(async move {
            if inner.len() > MAX_INNER {
                return Err(RootError::Unavailable("the inner wrapping is too long"));
            }
            let inner = inner.to_vec();
            self.pool.call(move |worker| worker.seal(&inner, &aad)).await
        })
    }

    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        // An inner wrapping is no secret: it says nothing without the inner root.
        Box::pin(async move { self.open_bytes(sealed, context, MAX_INNER).await.map(|opened| opened.to_vec()) })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>> {
        Box::pin(async move {
            let opened = self.open_bytes(wrapped, context, 32).await?;
            opened.as_slice().try_into().map_err(|_| RootError::NotMine).and_then(copy)
        })
    }
}

const NO_MEMORY: RootError = RootError::Unavailable("no locked memory for a key");

fn exposed(key: &Key32) -> Result<&[u8; 32], RootError> {
    key.expose().map_err(|_| NO_MEMORY)
}

fn copy(bytes: &[u8; 32]) -> Result<Key32, RootError> {
    Key32::copy_of(bytes).map_err(|_| NO_MEMORY)
}

/// A fresh initialization vector, or the buffer that the module fills.
fn fresh_iv(source: IvSource) -> Result<[u8; cipher::IV], RootError> {
    let mut iv = [0; cipher::IV];
    if source == IvSource::Os {
        random_bytes(&mut iv).map_err(|_| RootError::Unavailable("no entropy for an initialization vector"))?;
    }
    Ok(iv)
}
