//! `audit`: the log's files, read without a gateway. All but `rotate-key` change nothing and need no secret.

mod prove;
mod rotate;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use vault_core::Error;
use vault_core::audit::{
    AuditReceipt, Checkpoint, LogKey, LogVerifier, VerifyOptions, WitnessVerifier, known_keys, verify,
};
use vault_core::fs::{Fs, OsFs};
use vault_grpc::telemetry::{Event, log};

use super::commands::{keys_of, text_of, verifier_of};
use super::print;

/// Longest receipt in bytes: 1,000 entries with their hashes.
const MAX_RECEIPT: u64 = 8 << 20;
/// Longest checkpoint in bytes.
const MAX_CHECKPOINT: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute a log from its files: entries, chains, tree, checkpoints, tiles; and hold it against what was kept
    /// elsewhere. Without any such evidence, that the log was not rolled back is not shown.
    Verify {
        /// The log's directory, or a copy of it.
        #[arg(long)]
        dir: PathBuf,
        /// The log's verifier key, or a file with it, kept outside the log.
        #[arg(long)]
        key: String,
        /// A file with a checkpoint that was kept elsewhere: the log must extend it. May be given more than once.
        #[arg(long)]
        checkpoint: Vec<PathBuf>,
        /// A file with an audit receipt: the log must hold what it names. May be given more than once.
        #[arg(long)]
        receipt: Vec<PathBuf>,
        /// The verifier key of a witness, or a file with it: each checkpoint given must be cosigned by it. May be given
        /// more than once.
        #[arg(long, requires = "checkpoint")]
        witness: Vec<String>,
        /// Where archived segments are, if not where the log says.
        #[arg(long)]
        archive: Option<PathBuf>,
        /// Where segments are missing, begin at the newest state that the log signed, and say what was not checked.
        #[arg(long)]
        skip_missing: bool,
    },
    /// Give the log a new signing key, with the gateway stopped: the old key names it in the log, and both sign the
    /// checkpoint over that. What was cut off is finished by running this again.
    RotateKey {
        /// The gateway's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Only make the key and print its verifier key, for witnesses and verifiers to know it before.
        #[arg(long)]
        prepare: bool,
    },
    /// Print the last entries, one a line.
    Tail {
        /// The log's directory.
        #[arg(long)]
        dir: PathBuf,
        /// The log's verifier key, or a file with it.
        #[arg(long)]
        key: String,
        /// How many.
        #[arg(long, short = 'n', default_value_t = 10)]
        lines: usize,
        /// Go on with what is written from now on.
        #[arg(long, short)]
        follow: bool,
    },
    /// Print the entries as JSON Lines for a security information system.
    Export {
        /// The log's directory.
        #[arg(long)]
        dir: PathBuf,
        /// The log's verifier key, or a file with it.
        #[arg(long)]
        key: String,
        /// Which fields: OCSF 1.3 (class API Activity), or Elastic Common Schema.
        #[arg(long, value_enum, default_value = "ocsf")]
        format: Format,
        /// The first index; go on there another time.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Go on with what is written from now on.
        #[arg(long, short)]
        follow: bool,
    },
    /// Print a proof from the log's tiles: that an entry is in the log, as a C2SP tlog-proof; or that the log of one size
    /// extends the log of another.
    Prove {
        /// The log's directory, or a copy of it.
        #[arg(long)]
        dir: PathBuf,
        /// The log's verifier key, or a file with it.
        #[arg(long)]
        key: String,
        /// The entry.
        #[arg(long, conflicts_with = "old", required_unless_present = "old")]
        index: Option<u64>,
        /// The smaller size.
        #[arg(long)]
        old: Option<u64>,
        /// The size of the log that the proof leads to: that of a checkpoint it kept. Without, the newest.
        #[arg(long)]
        to: Option<u64>,
    },
    /// Audit receipts, which callers get with each answer.
    #[command(subcommand)]
    Receipt(AuditReceiptCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditReceiptCommand {
    /// Check an audit receipt without network or vault; and, given a copy of the log, whether the log still holds what it
    /// shows.
    Verify {
        /// The file with the receipt.
        file: PathBuf,
        /// The log's verifier key, or a file with it, kept outside the log.
        #[arg(long)]
        key: String,
        /// The log's directory, or a copy of it.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// The fields of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Open Cybersecurity Schema Framework 1.3, class 6003.
    Ocsf,
    /// Elastic Common Schema 8.
    Ecs,
}

pub(super) fn run(command: AuditCommand) -> ExitCode {
    let (what, done) = match command {
        AuditCommand::Verify { dir, key, checkpoint, receipt, witness, archive, skip_missing } => {
            let options = VerifyOptions { archive, skip_missing, ..VerifyOptions::default() };
            ("verify the audit log", verify_log(&dir, &key, &checkpoint, &receipt, &witness, options))
        }
        AuditCommand::RotateKey { config, prepare } => return rotate::rotate(&config, prepare),
        AuditCommand::Tail { dir, key, lines, follow } => ("read the audit log", show::tail(&dir, &key, lines, follow)),
        AuditCommand::Export { dir, key, format, from, follow } => {
            ("read the audit log", show::export(&dir, &key, format, from, follow))
        }
        AuditCommand::Prove { dir, key, index, old, to } => {
            ("prove from the audit log", prove::prove(&dir, &key, index, old, to))
        }
        AuditCommand::Receipt(AuditReceiptCommand::Verify { file, key, dir }) => {
            ("verify the audit receipt", verify_receipt(&file, &key, dir.as_deref()))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log(&Event::Failed { what, error });
            ExitCode::FAILURE
        }
    }
}

/// The log's verifier key; and the directory must be there.
fn log_of(dir: &Path, key: &str) -> Result<LogVerifier, Error> {
    let verifier = verifier_of(key)?;
    if OsFs.exists(dir) { Ok(verifier) } else { Err(Error::invalid("--dir", "there is no such directory")) }
}

fn receipt_of(field: &'static str, file: &Path) -> Result<AuditReceipt, Error> {
    AuditReceipt::parse(&text_of(field, file, MAX_RECEIPT)?)
}

fn verify_log(
    dir: &Path,
    key: &str,
    checkpoints: &[PathBuf],
    receipts: &[PathBuf],
    witnesses: &[String],
    mut options: VerifyOptions,
) -> Result<bool, Error> {
    let verifier = log_of(dir, key)?;
    let mut evidence = Evidence::of(dir, &verifier)?;
    let mut keys = Vec::new();
    for witness in witnesses {
        keys.push(match WitnessVerifier::parse(witness) {
            Ok(key) => key,
            Err(_) => WitnessVerifier::parse(&text_of("--witness", Path::new(witness), MAX_CHECKPOINT)?)?,
        });
    }
    for file in checkpoints {
        let note = text_of("--checkpoint", file, MAX_CHECKPOINT)?;
        options.outside.push(evidence.checkpoint(&note)?);
        for key in &keys {
            if key.cosigned(&note)?.is_none() {
                return Err(Error::invalid("--checkpoint", "is not cosigned by each witness that is named"));
            }
        }
    }
    for file in receipts {
        evidence.keep(&receipt_of("--receipt", file)?, &mut options)?;
    }
    report(dir, &verifier, &options, &evidence)
}

/// What somebody kept elsewhere of a log whose key was rotated may be signed by any of its keys. Which those are, the log
/// lists; that it is so, `verify` shows.
struct Evidence {
    keys: Vec<LogKey>,
    used: Vec<(LogVerifier, u64)>,
}

impl Evidence {
    fn of(dir: &Path, verifier: &LogVerifier) -> Result<Self, Error> {
        Ok(Self { keys: known_keys(&OsFs, dir, verifier)?, used: Vec::new() })
    }

    fn checkpoint(&mut self, note: &str) -> Result<Checkpoint, Error> {
        let (checkpoint, key) = Checkpoint::verify_any(note, self.keys.iter().map(|key| &key.verifier))?;
        self.used.push((key.clone(), checkpoint.size));
        Ok(checkpoint)
    }

    fn keep(&mut self, receipt: &AuditReceipt, options: &mut VerifyOptions) -> Result<(), Error> {
        self.checkpoint(&receipt.checkpoint)?;
        match self.used.last() {
            Some((key, _)) => options.keep(receipt, key),
            None => Ok(()),
        }
    }

    /// True if each key was the log's when it signed what was kept.
    fn is_proven(&self, keys: &[LogKey]) -> bool {
        self.used.iter().all(|(used, size)| {
            let at = keys.iter().position(|key| key.verifier == *used);
            at.is_some_and(|at| keys.get(at + 1).is_none_or(|next| *size <= next.from))
        })
    }
}

fn report(dir: &Path, verifier: &LogVerifier, options: &VerifyOptions, evidence: &Evidence) -> Result<bool, Error> {
    let report = verify(&OsFs, dir, verifier, options)?;
    if report.is_sound() && !evidence.is_proven(&report.keys) {
        print::line("NOT SOUND: what was kept elsewhere is signed by a key that was not the log's at that size");
        return Ok(false);
    }
    print::line(&report);
    Ok(report.is_sound())
}

fn verify_receipt(file: &Path, key: &str, dir: Option<&Path>) -> Result<bool, Error> {
    let verifier = verifier_of(key)?;
    let receipt = receipt_of("FILE", file)?;
    // With the log at hand, its keys follow from the one given; else those in the file that was given are meant.
    let mut evidence = match dir {
        Some(dir) => Evidence::of(dir, &verifier)?,
        None => Evidence { keys: keys_of(key)?, used: Vec::new() },
    };
    let mut options = VerifyOptions::default();
    evidence.keep(&receipt, &mut options)?;
    let Some(head) = options.outside.first().copied() else { return Ok(false) };
    for entry in &receipt.entries {
        print::line(format_args!("entry {} of {}", entry.index, verifier.origin()));
    }
    print::line(format_args!("in order: in the log of {} entries that {} signed", head.size, verifier.origin()));
    let Some(dir) = dir else {
        print::line("that the log still holds this was not shown: give --dir, a copy of the log");
        return Ok(true);
    };
    let sound = report(dir, &log_of(dir, key)?, &options, &evidence)?;
    if !sound {
        print::line(
            "this log does not show what the receipt shows: it was altered, rolled back, or is another history",
        );
    }
    Ok(sound)
}
