//! End users: the issuers of their tokens, and the keys of these as they come and go.

mod fetch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use vault_core::principal::{EndUser, Issuers, KeySet, TokenError, Workload};
use vault_core::time::{Clock, SystemClock, Timestamp};

use crate::config::{Config, ConfigError, EndUserIssuer, IssuerKeys};
use crate::telemetry::{Event, log};
use fetch::{Fetch, from_file};

/// Verifies the tokens of end users. By default there are no issuers, and every token is refused.
#[derive(Default)]
pub struct EndUsers {
    issuers: Issuers,
    /// In the order of the issuers.
    sources: Vec<Source>,
    /// Tokens that were refused since the start, by the name of the rule.
    refused: Mutex<BTreeMap<&'static str, u64>>,
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

impl fmt::Debug for EndUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndUsers").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

/// Key sets from files, that all were in order.
#[derive(Debug)]
pub struct FileKeys(Vec<(usize, KeySet)>);

/// Reads every key file that a configuration names.
///
/// # Errors
/// The first that is not acceptable.
pub fn file_keys(config: &Config) -> Result<FileKeys, ConfigError> {
    let files = config.end_users.iter().enumerate().filter_map(|(at, issuer)| match &issuer.keys {
        IssuerKeys::File(file) => Some((at, file)),
        IssuerKeys::Url(_) => None,
    });
    files.map(|(at, file)| Ok((at, from_file(file)?))).collect::<Result<_, _>>().map(FileKeys)
}

impl EndUsers {
    /// The issuers of a configuration, with the keys that are in files; others are fetched once [`Self::fetch`] runs.
    ///
    /// # Errors
    /// The first file that is not acceptable.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        let place = || config.file.display().to_string();
        let settings = config.end_users.iter().map(|issuer| issuer.settings.clone()).collect();
        let issuers = Issuers::new(settings).map_err(|error| ConfigError::new(place(), error.to_string()))?;
        let sources = config.end_users.iter().map(Source::new).collect::<Result<_, _>>()?;
        let this = Self { issuers, sources, refused: Mutex::default() };
        this.put(file_keys(config)?);
        Ok(this)
    }

    /// Puts keys from files in force.
    pub fn put(&self, keys: FileKeys) {
        for (at, keys) in keys.0 {
            self.told(at, keys, None);
        }
    }

    /// Begins to fetch, for as long as the tasks live.
    #[must_use]
    pub fn fetch(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let urls = self.sources.iter().enumerate().filter(|(_, source)| matches!(source.keys, Keys::Url(_)));
        urls.map(|(at, _)| tokio::spawn(Arc::clone(self).keep(at))).collect()
    }

    /// Verifies a token in the hand of a workload. One whose key is not known has the keys fetched, if that was not done
    /// a short time ago, and waits for it as long as a fetch may take.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub async fn verify(&self, token: &[u8], who: &Workload) -> Result<Arc<EndUser>, TokenError> {
        let verified = self.verified(token, who).await;
        if let Err(rule) = &verified {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let count = refused.entry(rule.name()).or_default();
            *count = count.saturating_add(1);
        }
        verified
    }

    /// How many tokens were refused since the start, by the rule.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn verified(&self, token: &[u8], who: &Workload) -> Result<Arc<EndUser>, TokenError> {
        match self.issuers.end_user(token, who, SystemClock.now()) {
            Err(rule @ (TokenError::UnknownKey | TokenError::NoKeys)) => {
                let source = self.issuers.claimed(token).and_then(|at| self.sources.get(at));
                match source.map(|source| &source.keys) {
                    Some(Keys::Url(fetched)) if fetched.renewed().await => {
                        self.issuers.end_user(token, who, SystemClock.now())
                    }
                    _ => Err(rule),
                }
            }
            known => known,
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
    fn new(issuer: &EndUserIssuer) -> Result<Self, ConfigError> {
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
