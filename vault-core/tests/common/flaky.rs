//! A real local root key in front of which faults can be put.

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vault_core::fs::OsFs;
use vault_core::kms::{EncryptionContext, Generated, LocalRoot, RootError, RootId, RootKey};
use vault_core::secret::Key32;
use vault_core::store::BoxFuture;

/// How a root answers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    Up,
    Down,
    Disabled,
    /// It opens nothing, but makes and wraps.
    WrapsOnly,
    /// It opens everything to a key of its own choice.
    WrongKey,
}

/// A local root key with a switch.
#[derive(Debug)]
pub(crate) struct Flaky {
    inner: LocalRoot,
    mode: AtomicU8,
    /// How often it was asked to open something.
    pub(crate) opened: AtomicUsize,
}

impl Flaky {
    pub(crate) fn new(dir: &Path, name: &str) -> Arc<Self> {
        let inner = LocalRoot::create(&OsFs, &dir.join(name)).unwrap();
        Arc::new(Self { inner, mode: AtomicU8::new(Mode::Up as u8), opened: AtomicUsize::new(0) })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    pub(crate) fn root_id(&self) -> RootId {
        RootId::parse(self.inner.id()).unwrap()
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    fn answers(&self) -> Result<(), RootError> {
        if self.is(Mode::Down) {
            Err(RootError::Unavailable("switched off"))
        } else if self.is(Mode::Disabled) {
            Err(RootError::Disabled)
        } else {
            Ok(())
        }
    }

    fn opens(&self) -> Result<(), RootError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.answers()?;
        if self.is(Mode::WrapsOnly) { Err(RootError::NotMine) } else { Ok(()) }
    }
}

impl RootKey for Flaky {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>> {
        Box::pin(async move {
            self.answers()?;
            self.inner.generate(context).await
        })
    }

    fn wrap<'a>(&'a self, key: &'a Key32, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async move {
            self.answers()?;
            self.inner.wrap(key, context).await
        })
    }

    fn seal<'a>(
        &'a self,
        inner: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async move {
            self.answers()?;
            self.inner.seal(inner, context).await
        })
    }

    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        Box::pin(async move {
            self.opens()?;
            self.inner.open(sealed, context).await
        })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>> {
        Box::pin(async move {
            self.opens()?;
            if self.is(Mode::WrongKey) {
                return Key32::generate().map_err(|_| RootError::Unavailable("no entropy"));
            }
            self.inner.unwrap(wrapped, context).await
        })
    }
}

/// What a watch was told, as text.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub(crate) fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
