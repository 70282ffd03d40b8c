//! What one thread does: keeps a session, and gets another when it was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cipher::{Failure, Live, Sealed};
use super::{Opened, Pkcs11Settings, Trouble, key, module};
use crate::kms::RootError;
use crate::secret::Key32;

/// Wrappings that one key makes at most, under random initialization vectors of 96 bits (NIST SP 800-38D, section 8.3).
const MOST_SEALS: u64 = 1 << 32;

/// What the threads of one root key share.
pub(super) struct Shared {
    settings: Pkcs11Settings,
    /// Wrappings made by this process.
    seals: AtomicU64,
}

impl Shared {
    pub(super) const fn new(settings: Pkcs11Settings) -> Self {
        Self { settings, seals: AtomicU64::new(0) }
    }

    fn count_seal(&self) -> Result<(), RootError> {
        // Failed ones count too: what the module did with their vector is not known.
        if self.seals.fetch_add(1, Ordering::Relaxed) < MOST_SEALS {
            return Ok(());
        }
        self.seals.fetch_sub(1, Ordering::Relaxed);
        Err(RootError::Unavailable("the key has made 2^32 wrappings: rotate to another root key"))
    }
}

/// One thread's session.
pub(super) struct Worker {
    shared: Arc<Shared>,
    live: Option<Live>,
}

impl Worker {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, live: None }
    }

    /// Opens a session, logs in and finds the key, whether or not there was one.
    pub(super) fn reconnect(&mut self) -> Result<(), Trouble> {
        self.live = None;
        self.live = Some(self.connect()?);
        Ok(())
    }

    fn connect(&self) -> Result<Live, Trouble> {
        let settings = &self.shared.settings;
        let session = module::token(&settings.module, &settings.token)?.session(&settings.pin_file, false)?;
        let key = key::find(&session, settings)?;
        self.shared.count_seal().map_err(|_| Trouble::Absent("the key has made 2^32 wrappings"))?;
        Live::new(session, key, settings.iv).map_err(|failure| match failure {
            Failure::Other(RootError::Unavailable(why)) => Trouble::Wrong("key", why),
            _ => Trouble::Wrong("key", "it does not open what it seals by AES-GCM"),
        })
    }

    /// Runs `work` on a session, on a fresh one if the first turns out to be lost. `no` is what a refusal by a session
    /// that works means.
    fn with_session<T>(
        &mut self,
        no: RootError,
        mut work: impl FnMut(&Live) -> Result<T, Failure>,
    ) -> Result<T, RootError> {
        for _ in 0..2 {
            let live = match self.live.take() {
                Some(live) => live,
                None => self.connect()?,
            };
            let answer = match work(&live) {
                Ok(done) => Ok(done),
                Err(Failure::Other(error)) => Err(error),
                Err(Failure::Module) if live.works() => Err(no),
                // The session, its login or its key is gone.
                Err(Failure::Module) => continue,
            };
            self.live = Some(live);
            return answer;
        }
        Err(RootError::Unavailable("the token loses its sessions"))
    }

    pub(super) fn seal(&mut self, plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>, RootError> {
        self.shared.count_seal()?;
        let no = RootError::Unavailable("the module refuses to wrap");
        self.with_session(no, |live| live.seal(plaintext, aad)).map(|sealed| sealed.bytes())
    }

    pub(super) fn open(&mut self, sealed: &Sealed, aad: &[u8]) -> Result<Opened, RootError> {
        self.with_session(RootError::NotMine, |live| live.open(sealed, aad))
    }

    /// A random key: the operating system's random bytes, XORed with the module's if it has a generator, so that it is as
    /// good as the better of the two.
    pub(super) fn random_key(&mut self) -> Result<Key32, RootError> {
        const NO_KEY: Failure = Failure::Other(RootError::Unavailable("no entropy or locked memory for a new key"));
        self.with_session(RootError::Unavailable("the module gives no random bytes"), |live| {
            let own = Key32::generate().map_err(|_| NO_KEY)?;
            let mut refused = None;
            let key = Key32::init_with(|bytes| {
                refused = live.random(bytes).err();
                bytes.iter_mut().zip(own.expose()?).for_each(|(byte, own)| *byte ^= own);
                Ok(())
            });
            refused.map_or_else(|| key.map_err(|_| NO_KEY), Err)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::pkcs11::IvSource;

    #[test]
    fn a_key_wraps_so_often_and_no_more() {
        let settings = Pkcs11Settings {
            module: "/absent.so".into(),
            token: "t".into(),
            key: "k".into(),
            pin_file: "/absent".into(),
            sessions: 1,
            timeout: std::time::Duration::from_secs(1),
            iv: IvSource::Os,
        };
        let shared = Shared::new(settings);
        shared.seals.store(MOST_SEALS - 1, Ordering::Relaxed);
        assert!(shared.count_seal().is_ok());
        for _ in 0..3 {
            assert!(matches!(shared.count_seal(), Err(RootError::Unavailable(why)) if why.contains("2^32")));
        }
    }
}
