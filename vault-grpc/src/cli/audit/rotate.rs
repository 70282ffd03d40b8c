//! `audit rotate-key`: a new signing key for the log, with the gateway stopped.
//!
//! Three steps, each durable before the next: the new key in `KEY.next`; the log's checkpoint that both keys have signed;
//! the new key in the place of the old one, which is gone then. Killed between the last two, the gateway goes on with
//! `KEY.next`, because the log says so.

use std::path::Path;
use std::process::ExitCode;

use vault_core::Error;
use vault_core::audit::{LogSigner, LogVerifier, has_signed_last};
use vault_core::error::Dependency;
use vault_core::fs::{Fs, OsFs};
use vault_grpc::build::{self, StartError};
use vault_grpc::config::Config;
use vault_grpc::telemetry::{Event, log};

use crate::cli::print;

pub(super) fn rotate(config: &Path, prepare: bool) -> ExitCode {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            log(&Event::Misconfigured(error));
            return ExitCode::FAILURE;
        }
    };
    match run(&config, prepare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(error)) => {
            log(&Event::Misconfigured(error));
            ExitCode::FAILURE
        }
        Err(StartError::Vault(error)) => {
            log(&Event::Failed { what: "rotate the audit log's key", error });
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, prepare: bool) -> Result<(), StartError> {
    let (key, waits) = (&config.audit_key.path, build::next_key(config));
    let old = LogSigner::load(&OsFs, key, &config.log_origin())?;
    let next = LogSigner::load_or_create(&OsFs, &waits, &config.log_origin())?;
    let verifier = next.verifier().clone();
    print::line(format_args!("next key {}", verifier.vkey()));
    if prepare {
        print::line("make it known to witnesses and verifiers, beside the old one; then run this without --prepare");
        return Ok(());
    }
    let fs: &dyn Fs = &OsFs;
    if has_signed_last(fs, &config.audit_dir.path, &verifier)? {
        print::line("the log is under this key already; only the file was left");
    } else {
        let (audit, _) = build::audit(config)?;
        let from = audit.hand_over(next)?.from;
        print::line(format_args!("in force from size {from} on; the checkpoint of that size is signed by both"));
    }
    put_in_place(fs, &waits, key, old.verifier(), &verifier)?;
    Ok(())
}

fn put_in_place(fs: &dyn Fs, waits: &Path, key: &Path, old: &LogVerifier, new: &LogVerifier) -> Result<(), Error> {
    let unwritable = |_| Error::unavailable(Dependency::Audit, "the new key cannot be put in the place of the old one");
    fs.rename(waits, key).map_err(unwritable)?;
    let dir = key.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs.sync_dir(dir).map_err(unwritable)?;
    print::line(format_args!("{} is retired, and its file is gone; {} signs", old.short(), new.short()));
    Ok(())
}
