//! The gateway's own proofs of policy bundles, each in a process of its own.
//!
//! ```text
//! mod          asked for a proof of a bundle: a record that was brought, what was proved before, or a new proof
//!   child      the process, its limits and its end
//!     wire     what is said to it and what it answers
//! ```
//!
//! The process is this program again, `policy prove-inside`, without environment, with standard input and output alone,
//! held to memory and time, and killed when this process ends. It is told texts of policies and the solver's name, nothing
//! else. The answer is a record as a prover would sign it, and is held against the texts here: it must be about exactly
//! these policies, this schema and the guards of this version, and show every property.

mod child;
pub mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use vault_core::Error;
use vault_core::bundle::{Bundle, ProofCheck, Provers};
use vault_core::error::Unproven;
use vault_core::policy::Source;
use vault_core::proof::{ProofText, digest_of_policies, digest_of_schema};

use crate::config::{ConfigError, Prove, cannot_read};
use wire::{Answer, Question, Text};

/// How many sets are remembered as proven.
const REMEMBERED: usize = 64;

const REFUTED: &str = "the gateway's own proof found a request that breaks a property";
const UNKNOWN: &str = "the gateway's own proof could not show a property";
const UNUSABLE: &str = "the gateway's own prover cannot use the set";
const OTHERWISE: &str = "the gateway's own prover proved something else";

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says what to start as `policy prove-inside`: this program. Only the first time counts; a process that never says it
/// proves nothing.
pub fn set_program(program: PathBuf) {
    drop(PROGRAM.set(program));
}

/// Accepts a bundle with a record of a prover, or proves it.
pub struct OwnProof {
    provers: Option<Provers>,
    settings: Prove,
    /// Digests of policies and schema that were proved here, the latest last. The guards are this version's.
    proven: Mutex<VecDeque<(String, String)>>,
    /// One proof at a time.
    turn: Mutex<()>,
}

impl fmt::Debug for OwnProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnProof").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl OwnProof {
    /// With this solver; `provers` are those whose records are accepted as well.
    ///
    /// # Errors
    /// [`ConfigError`] naming the solver: it is not there, no program, or others may write it.
    pub fn new(settings: Prove, provers: Option<Provers>) -> Result<Self, ConfigError> {
        let solver = &settings.solver;
        let found = fs::metadata(&solver.path).map_err(|error| solver.error(cannot_read(&error)))?;
        if !found.is_file() || found.mode() & 0o111 == 0 {
            return Err(solver.error("is no program"));
        }
        if found.mode() & 0o022 != 0 {
            return Err(solver.error("others may write it, and what it says is believed: mode 0755 or less"));
        }
        Ok(Self { provers, settings, proven: Mutex::default(), turn: Mutex::default() })
    }

    fn knows(&self, set: &(String, String)) -> bool {
        lock(&self.proven).contains(set)
    }

    fn prove(&self, bundle: &Bundle) -> Result<(), Error> {
        let Some(program) = PROGRAM.get() else { return Err(not_proven(child::NOT_STARTED, "", "", "")) };
        let named = |name: &str, text: &str| Text { name: name.to_owned(), text: text.to_owned() };
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let question = Question {
            schema: named("schema", &bundle.schema),
            policies: bundle.policies.iter().map(|file| named(&file.name, &file.text)).collect(),
            solver: self.settings.solver.path.clone(),
            arguments: self.settings.arguments.clone(),
            timeout_ms: millis(self.settings.timeout),
            memory_mib: self.settings.memory_mib,
        };
        match child::ask(program, &question).map_err(|why| not_proven(why, "", "", ""))? {
            Answer::Proven { record } => {
                let policies = sources(bundle);
                let schema = Source { name: "schema", text: &bundle.schema };
                let about = ProofText::parse(&record).and_then(|record| record.is_about(schema, &policies));
                about.map_err(|_| not_proven(OTHERWISE, "", "", ""))
            }
            Answer::Refuted { property, requests, example } => Err(not_proven(REFUTED, &property, &requests, &example)),
            Answer::Unknown { property, requests, why } => Err(not_proven(UNKNOWN, &property, &requests, &why)),
            Answer::Unusable { field, why } => Err(not_proven(UNUSABLE, "", &field, &why)),
        }
    }
}

impl ProofCheck for OwnProof {
    fn check(&self, bundle: &Bundle, record: Option<&str>) -> Result<(), Error> {
        // A record that is not good enough is no reason to refuse what can be proved here: it is not what was signed.
        if let (Some(provers), Some(_)) = (&self.provers, record)
            && provers.check(bundle, record).is_ok()
        {
            return Ok(());
        }
        let schema = Source { name: "schema", text: &bundle.schema };
        let set = (digest_of_policies(&sources(bundle)), digest_of_schema(schema));
        if self.knows(&set) {
            return Ok(());
        }
        let _turn = lock(&self.turn);
        // The one before may have proved it.
        if self.knows(&set) {
            return Ok(());
        }
        self.prove(bundle)?;
        let mut proven = lock(&self.proven);
        if proven.len() >= REMEMBERED {
            proven.pop_front();
        }
        proven.push_back(set);
        Ok(())
    }
}

fn sources(bundle: &Bundle) -> Vec<Source<'_>> {
    bundle.policies.iter().map(|file| Source { name: &file.name, text: &file.text }).collect()
}

fn not_proven(why: &'static str, property: &str, requests: &str, detail: &str) -> Error {
    Error::NotProven(Box::new(Unproven::new(why, property, requests, detail)))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
