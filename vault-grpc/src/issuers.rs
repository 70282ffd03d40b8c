//! The issuers of tokens, and the keys of these as they come and go: for end users and for operators alike.

mod fetch;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use vault_core::principal::{Issuers, KeySet, TokenError};
use vault_core::time::{Clock, SystemClock, Timestamp};

use crate::config::{ConfigError, IssuerKeys, TokenIssuer};
use crate::telemetry::{Event, log};
use fetch::{Fetch, from_file};

/// Issuers with the keys that they have now. By default there are none, and every token is refused.
#[derive(Default)]
pub(crate) struct TokenKeys {
    issuers: Issuers,
    /// In the order of the issuers.
    sources: Vec<Source>,
}

struct Source {
    /// As configured: for log lines.
    issuer: String,
    keys: Keys,
}

enum Keys {
    File,
    Url(Box<Fetched>),
}

/// Keys that are fetched by one task, which sleeps in between.
struct Fetched {
    fetch: Fetch,
    /// Wakes the task.
    wanted: Notify,
    /// Counts fetches that ended.
    ended: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    running: bool,
    last_end: Option<Instant>,
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeys").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

/// Key sets from files, that all were in order.
#[derive(Debug)]
pub struct FileKeys(Vec<(usize, KeySet)>);

/// Reads every key file that these issuers name.
///
/// # Errors
/// The first that is not acceptable.
pub(crate) fn file_keys(issuers: &[TokenIssuer]) -> Result<FileKeys, ConfigError> {
    let files = issuers.iter().enumerate().filter_map(|(at, issuer)| match &issuer.keys {
        IssuerKeys::File(file) => Some((at, file)),
        IssuerKeys::Url(_) => None,
    });
    files.map(|(at, file)| Ok((at, from_file(file)?))).collect::<Result<_, _>>().map(FileKeys)
}

impl TokenKeys {
    /// These issuers, with the keys that are in files; others are fetched once [`Self::fetch`] runs. `place` is where the
    /// configuration names them.
    ///
    /// # Errors
    /// The first file that is not acceptable.
    pub(crate) fn load(place: &str, issuers: &[TokenIssuer]) -> Result<Self, ConfigError> {
        let settings = issuers.iter().map(|issuer| issuer.settings.clone()).collect();
        let sources = issuers.iter().map(Source::new).collect::<Result<_, _>>()?;
        let keys = file_keys(issuers)?;
        let issuers = Issuers::new(settings).map_err(|error| ConfigError::new(place, error.to_string()))?;
        let this = Self { issuers, sources };
        this.put(keys);
        Ok(this)
    }

    /// How many issuers there are.
    pub(crate) const fn len(&self) -> usize {
        self.issuers.len()
    }

    /// Puts keys from files in force.
    pub(crate) fn put(&self, keys: FileKeys) {
        for (at, keys) in keys.0 {
            self.told(at, keys, None);
        }
    }

    /// Begins to fetch, for as long as the tasks live.
    #[must_use]
    pub(crate) fn fetch(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let urls = self.sources.iter().enumerate().filter(|(_, source)| matches!(source.keys, Keys::Url(_)));
        urls.map(|(at, _)| tokio::spawn(Arc::clone(self).keep(at))).collect()
    }

    /// Judges a token by the keys that are there. One whose key is not known has the keys fetched, if that was not done a
    /// short time ago, waits for it as long as a fetch may take, and is judged again.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub(crate) async fn judge<T, E: Copy>(
        &self,
        token: &[u8],
        rule: impl Fn(E) -> Option<TokenError>,
        judge: impl Fn(&Issuers, Timestamp) -> Result<T, E>,
    ) -> Result<T, E> {
        let error = match judge(&self.issuers, SystemClock.now()) {
            Err(error) => error,
            done => return done,
        };
        if !matches!(rule(error), Some(TokenError::UnknownKey | TokenError::NoKeys)) {
            return Err(error);
        }
        let source = self.issuers.claimed(token).and_then(|at| self.sources.get(at));
        match source.map(|source| &source.keys) {
            Some(Keys::Url(fetched)) if fetched.renewed().await => judge(&self.issuers, SystemClock.now()),
            _ => Err(error),
        }
    }

    fn told(&self, at: usize, keys: KeySet, until: Option<Timestamp>) {
        let (count, issuer) = (keys.len(), self.sources.get(at).map(|source| source.issuer.clone()));
        if let (Ok(true), Some(issuer)) = (self.issuers.put_keys(at, keys, until), issuer) {
            log(&Event::IssuerKeys { issuer, count });
        }
    }

    async fn keep(self: Arc<Self>, at: usize) {
        let Some(Source { issuer, keys: Keys::Url(fetched) }) = self.sources.get(at) else { return };
        let url = fetched.fetch.url();
        loop {
            fetched.set(|state| state.running = true);
            let got = fetched.fetch.get().await;
            let pause = if got.is_ok() { url.refresh } else { url.refresh.min(url.cooldown) };
            match got {
                Ok(keys) => self.told(at, keys, Some(SystemClock.now().plus_millis(millis(url.stale)))),
                Err(why) => log(&Event::NoIssuerKeys { issuer: issuer.clone(), why }),
            }
            fetched.set(|state| *state = State { running: false, last_end: Some(Instant::now()) });
            fetched.ended.send_modify(|ended| *ended = ended.wrapping_add(1));
            let wake = Instant::now() + pause;
            // A wish from before this fetch ended is fulfilled.
            while timeout_at(wake, fetched.wanted.notified()).await.is_ok() && fetched.is_cooling() {}
        }
    }
}

impl Source {
    fn new(issuer: &TokenIssuer) -> Result<Self, ConfigError> {
        let keys = match &issuer.keys {
            IssuerKeys::File(_) => Keys::File,
            IssuerKeys::Url(url) => Keys::Url(Box::new(Fetched {
                fetch: Fetch::new(url)?,
                wanted: Notify::new(),
                ended: watch::Sender::new(0),
                state: Mutex::default(),
            })),
        };
        Ok(Self { issuer: issuer.settings.issuer.clone(), keys })
    }
}

impl Fetched {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_cooling(&self) -> bool {
        self.state().last_end.is_some_and(|end| end.elapsed() < self.fetch.url().cooldown)
    }

    /// Whether a fetch has ended since it was asked: one that is under way, or a new one, unless the last has only just
    /// ended. Waits no longer than a fetch may take.
    async fn renewed(&self) -> bool {
        let mut ended = self.ended.subscribe();
        if !self.state().running {
            if self.is_cooling() {
                return false;
            }
            self.wanted.notify_one();
        }
        matches!(timeout(self.fetch.url().at.timeout, ended.changed()).await, Ok(Ok(())))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
