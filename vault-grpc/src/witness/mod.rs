//! Witnesses (C2SP tlog-witness): asking those of the configuration for cosignatures on the log's checkpoints, and being
//! one ([`serve`]).
//!
//! A witness that has cosigned a checkpoint does not cosign another history, nor an earlier state. Its last cosignature is
//! kept in the log's directory, in `cosigned/`, and is worth keeping elsewhere. A mandatory witness that has not cosigned
//! what is there for longer than its deadline stops the log, until it does.

mod server;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use vault_core::audit::merkle::consistency_proof;
use vault_core::audit::{Checkpoint, LogVerifier, TileReader, published_checkpoint, request};
use vault_core::fs::{Fs, OsFs};
use vault_core::{Error, Vault};

use crate::config::{Config, ConfigError, LogWitness};
use crate::pinned::Pinned;
use crate::scorecard::WitnessState;
use crate::telemetry::{Event, log};

pub use server::serve;

const FILES: &dyn Fs = &OsFs;
/// How often a witness is asked while there is something new.
const EVERY: Duration = Duration::from_secs(1);
/// Attempts of one round: a witness that is elsewhere than was thought says where.
const ATTEMPTS: usize = 2;

/// The witnesses of a gateway.
#[derive(Debug, Default)]
pub struct Witnesses {
    all: Vec<Arc<One>>,
}

struct One {
    settings: LogWitness,
    host: Pinned,
    dir: PathBuf,
    verifier: LogVerifier,
    state: Mutex<State>,
}

impl std::fmt::Debug for One {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("One").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Where a witness is.
#[derive(Debug, Clone, Default)]
struct State {
    /// The size it cosigned last, as far as known.
    size: u64,
    /// Since when there has been something that it has not cosigned.
    behind_since: Option<Instant>,
    /// Why the last round did not end with a cosignature.
    why: Option<&'static str>,
}

impl Witnesses {
    /// Reads roots, and what each witness cosigned last.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that is not as it should be.
    pub fn load(config: &Config, verifier: &LogVerifier) -> Result<Self, ConfigError> {
        let mut all = Vec::new();
        for settings in &config.witnesses {
            let one = One {
                host: Pinned::new(&settings.url)?,
                settings: settings.clone(),
                dir: config.audit_dir.path.clone(),
                verifier: verifier.clone(),
                state: Mutex::default(),
            };
            one.lock().size = one.kept().map_or(0, |kept| kept.size);
            all.push(Arc::new(one));
        }
        Ok(Self { all })
    }

    /// Asks each, every second, until the tasks are aborted.
    pub fn ask(&self, vault: &Arc<Vault>) -> Vec<JoinHandle<()>> {
        let begin = |one: &Arc<One>| tokio::spawn(follow(Arc::clone(one), Arc::clone(vault)));
        let mut tasks: Vec<_> = self.all.iter().map(begin).collect();
        if !tasks.is_empty() {
            tasks.push(tokio::spawn(hold(self.all.clone(), Arc::clone(vault))));
        }
        tasks
    }

    /// What is known of each, for the scorecard.
    pub fn states(&self) -> Vec<WitnessState> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let state = |one: &Arc<One>| {
            let lag = millis(one.lag());
            let State { size, why, .. } = one.lock().clone();
            let (name, mandatory) = (one.name().to_owned(), one.settings.mandatory.map(millis));
            WitnessState { name, size, lag_millis: Some(lag), why, mandatory_millis: mandatory }
        };
        self.all.iter().map(state).collect()
    }

    /// Metrics: for each witness the size it cosigned, and for how long it has been behind.
    pub fn render(&self) -> String {
        let mut out = String::new();
        out.push_str("# HELP blindvault_audit_witness_size Entries of the audit log that the witness has cosigned.\n");
        out.push_str("# TYPE blindvault_audit_witness_size gauge\n");
        for one in &self.all {
            let _ = writeln!(out, "blindvault_audit_witness_size{{witness=\"{}\"}} {}", one.name(), one.lock().size);
        }
        out.push_str("# HELP blindvault_audit_witness_lag_seconds How long there has been what it has not cosigned.\n");
        out.push_str("# TYPE blindvault_audit_witness_lag_seconds gauge\n");
        for one in &self.all {
            let lag = one.lag().as_secs_f64();
            let _ = writeln!(out, "blindvault_audit_witness_lag_seconds{{witness=\"{}\"}} {lag:.3}", one.name());
        }
        out
    }
}

impl One {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> &str {
        self.settings.key.name()
    }

    fn lag(&self) -> Duration {
        self.lock().behind_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The file with what it cosigned last: the name in its verifier key, with `+`, which no name holds, for `/`.
    fn file(&self) -> PathBuf {
        self.dir.join("cosigned").join(format!("{}.note", self.name().replace('/', "+")))
    }

    fn kept(&self) -> Option<Checkpoint> {
        let bytes = FILES.read(&self.file(), 64 * 1024).ok()?;
        let note = String::from_utf8(bytes).ok()?;
        self.settings.key.cosigned(&note).ok()??;
        Checkpoint::verify(&note, &self.verifier).ok()
    }

    /// One round: asks for a cosignature on the newest published checkpoint, if there is something new.
    async fn round(&self) -> Result<(), &'static str> {
        const UNREADABLE: &str = "the log's own checkpoint or tiles cannot be read";
        let (dir, verifier) = (self.dir.clone(), self.verifier.clone());
        let read = spawn_blocking(move || published_checkpoint(&OsFs, &dir, &verifier)).await;
        let Some((head, note)) = read.ok().and_then(Result::ok).ok_or(UNREADABLE)? else { return Ok(()) };
        let mut old = self.lock().size;
        if head.size == old && self.lock().why.is_none() {
            return Ok(());
        }
        self.lock().behind_since.get_or_insert_with(Instant::now);
        if old > head.size {
            return Err("the witness has cosigned more entries than the log has: it was rolled back");
        }
        for _ in 0..ATTEMPTS {
            let body = self.body(old, head, note.clone()).await.map_err(|_| UNREADABLE)?;
            let answer = self.host.call(Request::builder().method(Method::POST), body).await?;
            let status = answer.status();
            let answer = str::from_utf8(answer.body()).map_err(|_| "the answer is not UTF-8")?;
            match status {
                StatusCode::OK => return self.keep(head, &note, answer),
                StatusCode::CONFLICT => {
                    let size: u64 = answer.trim_end().parse().map_err(|_| "the witness answers without a size")?;
                    if size > head.size {
                        return Err("the witness has cosigned more entries than the log has: it was rolled back");
                    }
                    if size == old {
                        return Err("the witness has cosigned another history of this log");
                    }
                    old = size;
                }
                StatusCode::UNPROCESSABLE_ENTITY => {
                    return Err("the witness has cosigned another history of this log");
                }
                StatusCode::NOT_FOUND => return Err("the witness does not know this log"),
                StatusCode::FORBIDDEN => return Err("the witness knows another key of this log"),
                _ => return Err("the witness did not cosign"),
            }
        }
        Err("the witness is asked by somebody else for the same log")
    }

    async fn body(&self, old: u64, head: Checkpoint, note: String) -> Result<String, Error> {
        let dir = self.dir.clone();
        let made = spawn_blocking(move || {
            let proof = consistency_proof(&TileReader::new(&OsFs, &dir, head.size), old, head.size)?;
            Ok(request(old, &proof, &note))
        });
        made.await
            .unwrap_or(Err(Error::unavailable(vault_core::error::Dependency::Audit, "reading the tiles panicked")))
    }

    /// Believes no answer without the cosignature in it.
    fn keep(&self, head: Checkpoint, note: &str, answer: &str) -> Result<(), &'static str> {
        const LIES: &str = "the witness's answer holds no cosignature with its key";
        let mut cosigned = note.to_owned();
        for line in answer.lines() {
            let alone = format!("{note}{line}\n");
            if self.settings.key.cosigned(&alone).ok().flatten().is_some() {
                cosigned.push_str(line);
                cosigned.push('\n');
            }
        }
        if cosigned.len() == note.len() {
            return Err(LIES);
        }
        let file = self.file();
        let kept = FILES.create_dir_durable(file.parent().unwrap_or(Path::new(".")));
        let kept = kept.and_then(|()| FILES.replace(&file, cosigned.as_bytes()));
        kept.map_err(|_| "the cosigned checkpoint cannot be written")?;
        let mut state = self.lock();
        state.size = head.size;
        state.behind_since = None;
        Ok(())
    }
}

async fn follow(one: Arc<One>, vault: Arc<Vault>) {
    let vault = Arc::downgrade(&vault);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if vault.strong_count() == 0 {
            return;
        }
        let why = one.round().await.err();
        let told = std::mem::replace(&mut one.lock().why, why);
        // Each reason once, until it is over.
        if let Some(why) = why.filter(|_| told != why) {
            log(&Event::Witness { witness: one.name().to_owned(), why });
        } else if why.is_none() && told.is_some() {
            log(&Event::Witness { witness: one.name().to_owned(), why: "cosigns again" });
        }
    }
}

/// Stops the log while a mandatory witness is behind for longer than its deadline.
async fn hold(all: Vec<Arc<One>>, vault: Arc<Vault>) {
    let mut ticks = interval(Duration::from_millis(250));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let late = |one: &Arc<One>| one.settings.mandatory.is_some_and(|deadline| one.lag() > deadline);
        let why = all.iter().any(late).then_some("a mandatory witness has not cosigned the log within its deadline");
        vault.audit().hold(why);
        let mandatory = all.iter().filter(|one| one.settings.mandatory.is_some());
        if let Some(size) = mandatory.map(|one| one.lock().size).min() {
            vault.audit().cosigned(size);
        }
    }
}
