//! `audit`: the log's files, read without a gateway. Nothing here changes them, and no command needs a secret.

mod prove;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use vault_core::Error;
use vault_core::audit::{AuditReceipt, Checkpoint, LogVerifier, VerifyOptions, WitnessVerifier, verify};
use vault_core::fs::{Fs, OsFs};
use vault_grpc::telemetry::{Event, log};

use super::commands::{text_of, verifier_of};
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
        AuditCommand::Verify { dir, key, checkpoint, receipt, witness } => {
            ("verify the audit log", verify_log(&dir, &key, &checkpoint, &receipt, &witness))
        }
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
) -> Result<bool, Error> {
    let verifier = log_of(dir, key)?;
    let mut options = VerifyOptions::default();
    let mut keys = Vec::new();
    for witness in witnesses {
        keys.push(match WitnessVerifier::parse(witness) {
            Ok(key) => key,
            Err(_) => WitnessVerifier::parse(&text_of("--witness", Path::new(witness), MAX_CHECKPOINT)?)?,
        });
    }
    for file in checkpoints {
        let note = text_of("--checkpoint", file, MAX_CHECKPOINT)?;
        options.outside.push(Checkpoint::verify(&note, &verifier)?);
        for key in &keys {
            if key.cosigned(&note)?.is_none() {
                return Err(Error::invalid("--checkpoint", "is not cosigned by each witness that is named"));
            }
        }
    }
    for file in receipts {
        options.keep(&receipt_of("--receipt", file)?, &verifier)?;
    }
    report(dir, &verifier, &options)
}

fn report(dir: &Path, verifier: &LogVerifier, options: &VerifyOptions) -> Result<bool, Error> {
    let report = verify(&OsFs, dir, verifier, options)?;
    print::line(&report);
    Ok(report.is_sound())
}

fn verify_receipt(file: &Path, key: &str, dir: Option<&Path>) -> Result<bool, Error> {
    let verifier = verifier_of(key)?;
    let receipt = receipt_of("FILE", file)?;
    let head = receipt.verify(&verifier)?;
    for entry in &receipt.entries {
        print::line(format_args!("entry {} of {}", entry.index, verifier.origin()));
    }
    print::line(format_args!("in order: in the log of {} entries that {} signed", head.size, verifier.origin()));
    let Some(dir) = dir else {
        print::line("that the log still holds this was not shown: give --dir, a copy of the log");
        return Ok(true);
    };
    let mut options = VerifyOptions::default();
    options.keep(&receipt, &log_of(dir, key)?)?;
    let sound = report(dir, &verifier, &options)?;
    if !sound {
        print::line(
            "this log does not show what the receipt shows: it was altered, rolled back, or is another history",
        );
    }
    Ok(sound)
}
