//! Where a gateway's scorecard comes from.
//!
//! The log is read once: what its entries count up to is kept, and each scorecard goes on where the last one ended. So the
//! first costs as much as reading the whole log, the next ones as much as what was written since. One at a time is made;
//! one that does not end in time leaves what it has read to the next.

use std::future::ready;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use vault_core::audit::{EntryReader, LogVerifier};
use vault_core::error::Dependency;
use vault_core::fs::OsFs;
use vault_core::principal::{Operator, Workload};
use vault_core::store::BoxFuture;
use vault_core::time::{Clock, SystemClock};
use vault_core::{Error, Vault};

use super::period::Period;
use super::status::{LogState, Status, endings};
use super::tally::Tally;
use super::{Facts, Scorecard, compute};
use crate::config::Config;
use crate::hardening;
use crate::tls::Current;
use crate::witness::Witnesses;

/// How long a scorecard may take, both halves together.
const PATIENCE: Duration = Duration::from_secs(20);

const AGAIN: Error = Error::unavailable(
    Dependency::Audit,
    "the log and the store are still being counted; what was read is kept, so ask again",
);

/// A log that is read once, and as far as it has been read.
#[derive(Debug)]
pub struct Reading {
    dir: PathBuf,
    verifier: LogVerifier,
    operator_domain: String,
    reader: Option<EntryReader>,
    tally: Tally,
    broken: Option<String>,
}

impl Reading {
    /// Nothing of the log that a configuration names has been read.
    pub fn new(config: &Config, verifier: &LogVerifier) -> Self {
        Self {
            dir: config.audit_dir.path.clone(),
            verifier: verifier.clone(),
            operator_domain: config.control.trust_domain.clone(),
            reader: None,
            tally: Tally::new(&config.control.trust_domain),
            broken: None,
        }
    }

    /// Reads on until the log's end. False if it was not reached by `until`. What does not hold ends it, and is read again
    /// from the beginning the next time.
    pub fn catch_up(&mut self, until: Option<Instant>) -> bool {
        if self.broken.take().is_some() {
            (self.reader, self.tally) = (None, Tally::new(&self.operator_domain));
        }
        match self.read_on(until) {
            Ok(done) => done,
            Err(error) => {
                self.broken = Some(error.to_string());
                true
            }
        }
    }

    fn read_on(&mut self, until: Option<Instant>) -> Result<bool, Error> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            place => place.insert(EntryReader::open(&OsFs, &self.dir, &self.verifier)?),
        };
        let tally = &mut self.tally;
        while reader.group(&mut |entry, _| {
            tally.take(&entry);
            Ok(())
        })? {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the entries that were read count up to.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What reading has shown of the log.
    pub fn state(&self) -> LogState {
        self.broken.clone().map_or(LogState::Read, LogState::Broken)
    }
}

/// What a gateway makes its scorecards from.
pub struct Source {
    reading: Arc<Mutex<Reading>>,
    turn: Semaphore,
    config: Config,
    verifier: LogVerifier,
    witnesses: Arc<Witnesses>,
    data: Arc<Current<Workload>>,
    control: Arc<Current<Operator>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

impl Source {
    /// Of a gateway's parts.
    pub fn new(
        config: &Config,
        verifier: &LogVerifier,
        witnesses: &Arc<Witnesses>,
        (data, control): (&Arc<Current<Workload>>, &Arc<Current<Operator>>),
    ) -> Self {
        Self {
            reading: Arc::new(Mutex::new(Reading::new(config, verifier))),
            turn: Semaphore::new(1),
            config: config.clone(),
            verifier: verifier.clone(),
            witnesses: Arc::clone(witnesses),
            data: Arc::clone(data),
            control: Arc::clone(control),
        }
    }

    /// Makes one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not done within 20 s, or the store is not there; [`Error::Corrupt`] for a damaged
    /// row. A damaged log is a line, not an error.
    pub async fn make(&self, vault: &Vault, period: Period) -> Result<Scorecard, Error> {
        let until = Instant::now() + PATIENCE;
        let Ok(Ok(_turn)) = timeout(PATIENCE, self.turn.acquire()).await else { return Err(AGAIN) };
        let reading = Arc::clone(&self.reading);
        let read = spawn_blocking(move || {
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            let done = reading.catch_up(Some(until));
            (done, reading.tally().clone(), reading.state())
        });
        let (done, tally, log) =
            read.await.map_err(|_| Error::unavailable(Dependency::Audit, "reading the log panicked"))?;
        if !done {
            return Err(AGAIN);
        }
        let in_time = move || -> BoxFuture<'static, Result<(), Error>> {
            Box::pin(ready(if Instant::now() < until { Ok(()) } else { Err(AGAIN) }))
        };
        let census = vault.census(&self.verifier, &in_time).await?;
        Ok(compute(&Facts {
            instance: &self.config.instance,
            log: self.verifier.origin(),
            period,
            made: SystemClock.now(),
            tally: &tally,
            census: Some(&census),
            status: &self.status(log),
            lifecycle: &self.config.lifecycle,
            demands_proof: self.config.demands_proof(),
        }))
    }

    fn status(&self, log: LogState) -> Status {
        Status {
            endings: endings(&self.data.load(), &self.control.load()),
            witnesses: self.witnesses.states(),
            sinks: Vec::new(),
            hardening: Some(hardening::state()),
            log,
        }
    }
}
