//! What is neither in the log nor in the store: certificates, witnesses, sinks, what the process denies itself, and whether
//! the log's files hold.

use vault_core::audit::{Checkpoint, LogVerifier};
use vault_core::fs::{Fs, OsFs};
use vault_core::principal::{Operator, Workload};
use vault_core::time::Timestamp;

use crate::config::Config;
use crate::hardening;
use crate::tls::Material;

/// Until when a certificate, a root or a revocation list may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// `certificate`, `root` or `list`.
    pub kind: &'static str,
    /// The plane, and of several which.
    pub name: String,
    /// The instant.
    pub at: Timestamp,
}

/// What is known of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessState {
    /// The name in its verifier key.
    pub name: String,
    /// Entries that it has cosigned.
    pub size: u64,
    /// For how long there has been what it has not cosigned; `None` if nobody is here who knows.
    pub lag_millis: Option<u64>,
    /// Why it did not cosign the last time, if it did not.
    pub why: Option<&'static str>,
    /// Its deadline, if it is mandatory, in milliseconds.
    pub mandatory_millis: Option<u64>,
}

/// What is known of a sink of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// The name in the configuration.
    pub name: String,
    /// Whether the data plane stops without it.
    pub mandatory: bool,
    /// For how long there has been what it has not taken, in milliseconds.
    pub lag_millis: u64,
    /// Entries that it never will have got, or that it refused.
    pub lost: u64,
    /// Whether it takes entries now.
    pub healthy: bool,
}

/// Whether the log's files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// Frames, their chain and every entry were read, nothing else was recomputed.
    Read,
    /// Everything was recomputed, as `audit verify` does.
    Verified {
        /// Checkpoints that hold.
        checkpoints: u64,
    },
    /// The first thing that does not hold.
    Broken(String),
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Certificates, roots and revocation lists of both listeners.
    pub endings: Vec<Ending>,
    /// The configured witnesses.
    pub witnesses: Vec<WitnessState>,
    /// The configured sinks.
    pub sinks: Vec<SinkState>,
    /// What the serving process denies itself; `None` where none is asked.
    pub hardening: Option<hardening::State>,
    /// The log's files.
    pub log: LogState,
}

/// The ends of what both listeners were loaded with.
pub fn endings(data: &Material<Workload>, control: &Material<Operator>) -> Vec<Ending> {
    let mut all = Vec::new();
    let planes =
        [("data", data.own_end(), data.bundle().ends()), ("control", control.own_end(), control.bundle().ends())];
    for (plane, own, (roots, lists)) in planes {
        all.extend(own.map(|at| Ending { kind: "certificate", name: plane.to_owned(), at }));
        for (kind, ends) in [("root", roots), ("list", lists)] {
            let several = ends.len() > 1;
            all.extend(ends.into_iter().enumerate().map(|(n, at)| {
                let name = if several { format!("{plane} {}", n + 1) } else { plane.to_owned() };
                Ending { kind, name, at }
            }));
        }
    }
    all
}

/// What is known of the configured witnesses without a gateway: what each cosigned last, from the log's directory.
pub fn kept_witnesses(config: &Config, verifier: &LogVerifier) -> Vec<WitnessState> {
    let files: &dyn Fs = &OsFs;
    let kept = |witness: &crate::config::LogWitness| {
        let name = witness.key.name();
        let file = config.audit_dir.path.join("cosigned").join(format!("{}.note", name.replace('/', "+")));
        let note = String::from_utf8(files.read(&file, 64 * 1024).ok()?).ok()?;
        witness.key.cosigned(&note).ok()??;
        Checkpoint::verify(&note, verifier).ok()
    };
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    config
        .witnesses
        .iter()
        .map(|witness| WitnessState {
            name: witness.key.name().to_owned(),
            size: kept(witness).map_or(0, |checkpoint| checkpoint.size),
            lag_millis: None,
            why: None,
            mandatory_millis: witness.mandatory.map(millis),
        })
        .collect()
}
