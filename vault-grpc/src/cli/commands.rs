//! The commands that answer and end.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use vault_core::Error;
use vault_core::audit::{LogVerifier, VerifyOptions, verify};
use vault_core::fs::{Fs, OsFs};
use vault_grpc::build;
use vault_grpc::config::{Config, ConfigError};
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

pub(super) fn check(config: &Path) -> ExitCode {
    // Root keys of AWS KMS want a runtime to live on, though nothing is asked of them here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
    match Config::load(config).and_then(|config| build::check(&config)) {
        Ok(checked) => {
            let (policies, workloads) = (checked.policies, checked.workloads);
            print::line(format_args!("in order: {policies} policies, {workloads} entries in the registry"));
            ExitCode::SUCCESS
        }
        Err(error) => bad(error),
    }
}

pub(super) fn policy_check(config: &Path) -> ExitCode {
    match Config::load(config).and_then(|config| build::policies(&config)) {
        Ok((set, registry)) => {
            for id in set.ids() {
                print::line(id);
            }
            print::line(format_args!("{} policies, {} entries in the registry", set.ids().len(), registry.len()));
            ExitCode::SUCCESS
        }
        Err(error) => bad(error),
    }
}

pub(super) fn audit_verify(dir: &Path, key: &Path) -> ExitCode {
    let failed = |error| {
        log(&Event::Failed { what: "verify the audit log", error });
        ExitCode::FAILURE
    };
    let Ok(text) = fs::read_to_string(key) else {
        return failed(Error::invalid("--key", "the file cannot be read"));
    };
    let verifier = match LogVerifier::parse(&text) {
        Ok(verifier) => verifier,
        Err(error) => return failed(error),
    };
    let fs: &dyn Fs = &OsFs;
    if !fs.exists(dir) {
        return failed(Error::invalid("--dir", "there is no such directory"));
    }
    match verify(fs, dir, &verifier, &VerifyOptions::default()) {
        Ok(report) => {
            print::line(&report);
            if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => failed(error),
    }
}
