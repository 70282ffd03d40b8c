//! The commands that answer and end.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vault_core::Error;
use vault_core::audit::{LogKey, LogVerifier, listed_keys};
use vault_core::keys::ReceiptText;
use vault_grpc::build;
use vault_grpc::config::{Config, ConfigError};
use vault_grpc::hardening;
use vault_grpc::release::{self, ReleaseKey};
use vault_grpc::telemetry::{Event, log};

use super::print;

fn bad(error: ConfigError) -> ExitCode {
    log(&Event::Misconfigured(error));
    ExitCode::FAILURE
}

#[cfg(feature = "dev")]
pub(super) fn init(dir: &Path) -> ExitCode {
    let made = match vault_grpc::init::init(dir, 8443, 8444) {
        Ok(made) => made,
        Err(error) => return bad(error),
    };
    let config = made.config.display();
    print::line(format_args!("made a development configuration: {config}"));
    print::line(format_args!("serve it with: vault-grpc serve --config {config}"));
    ExitCode::SUCCESS
}

pub(super) fn check(config: Option<&Path>, release: Option<(PathBuf, String)>) -> ExitCode {
    if let Some((signature, key)) = release
        && let Err(error) = is_released(&signature, &key)
    {
        return bad(error);
    }
    config.map_or(ExitCode::SUCCESS, check_config)
}

fn is_released(signature: &Path, key: &str) -> Result<(), ConfigError> {
    let key = ReleaseKey::parse_or_read(key).map_err(|error| ConfigError::new("--key", error.to_string()))?;
    let own = release::own_digest().map_err(|why| ConfigError::new("this executable", why))?;
    release::verify(signature, &key, own).map_err(|error| ConfigError::new("--release", error.to_string()))?;
    print::line(format_args!("in order: {} {own} is a release", release::VERSION));
    Ok(())
}

fn check_config(config: &Path) -> ExitCode {
    // Root keys of AWS KMS want a runtime to live on, though nothing is asked of them here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
    let checked = Config::load(config).and_then(|config| {
        let checked = build::check(&config)?;
        hardening::rehearse(&config)?;
        Ok(checked)
    });
    match checked {
        Ok(checked) => {
            let (policies, workloads) = (checked.policies, checked.workloads);
            print::line(format_args!("in order: {policies} policies, {workloads} entries in the registry"));
            ExitCode::SUCCESS
        }
        Err(error) => bad(error),
    }
}

/// Longest receipt and verifier key, in bytes.
const MAX_RECEIPT: u64 = 64 * 1024;

pub(super) fn receipt_verify(file: &Path, key: &str) -> ExitCode {
    let checked = verifier_of(key).and_then(|verifier| {
        let note = text_of("FILE", file, MAX_RECEIPT)?;
        let receipt = ReceiptText::verify(&note, &verifier)?;
        Ok((receipt, verifier.origin().to_owned()))
    });
    match checked {
        Ok((receipt, origin)) => {
            print::line(receipt.text().trim_end());
            print::line(format_args!("in order: signed by {origin}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            log(&Event::Failed { what: "verify the receipt", error });
            ExitCode::FAILURE
        }
    }
}

/// A verifier key, given as its text or as a file that holds it: the first, if there are several.
pub(super) fn verifier_of(key: &str) -> Result<LogVerifier, Error> {
    let first = keys_of(key)?.into_iter().next();
    first.map(|key| key.verifier).ok_or_else(|| Error::invalid("--key", "holds no key"))
}

/// The verifier keys of a log, given as the text of one or as a file in which they are listed.
pub(super) fn keys_of(key: &str) -> Result<Vec<LogKey>, Error> {
    match listed_keys(key) {
        Ok(keys) => Ok(keys),
        Err(_) => listed_keys(&text_of("--key", Path::new(key), MAX_RECEIPT)?),
    }
}

/// A file's text, if it is not longer than it may be.
pub(super) fn text_of(field: &'static str, file: &Path, most: u64) -> Result<String, Error> {
    let unreadable = |_| Error::invalid(field, "the file cannot be read as text");
    let mut text = String::new();
    fs::File::open(file).and_then(|file| file.take(most + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > most {
        return Err(Error::invalid(field, "the file is too long"));
    }
    Ok(text)
}
