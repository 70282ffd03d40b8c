//! `serve`: the gateway until a signal ends it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vault_core::audit::SystemEvent;
use vault_core::id::Fingerprint;
use vault_grpc::Gateway;
use vault_grpc::build::{self, StartError};
use vault_grpc::config::Config;
use vault_grpc::hardening::{self, Confined};
use vault_grpc::release;
use vault_grpc::telemetry::{Event, log, set_json};

/// Serves; `read` are directories that may be read beside those of the configuration.
pub(super) fn serve(config: &Path, read: &[PathBuf]) -> ExitCode {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return not_started(StartError::Config(error)),
    };
    set_json(config.json_logs);
    let executable = match build::executable(&config) {
        Ok(executable) => executable,
        Err(error) => return not_started(StartError::Config(error)),
    };
    log(&Event::Serving { version: release::VERSION, executable, release: config.release.is_some() });
    // Before there is any other thread.
    let confined = match hardening::confine(&config, read) {
        Ok(confined) => confined,
        Err(error) => return not_started(StartError::Config(error)),
    };
    let mut builder = runtime::Builder::new_multi_thread();
    let runtime = match builder.worker_threads(confined.processors).enable_all().thread_name("vault").build() {
        Ok(runtime) => runtime,
        Err(_) => {
            log(&Event::Warning("the operating system gave no threads"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(until_signal(config, executable, confined))
}

fn not_started(error: StartError) -> ExitCode {
    match error {
        StartError::Config(error) => log(&Event::Misconfigured(error)),
        StartError::Vault(error) => log(&Event::Failed { what: "start", error }),
    }
    ExitCode::FAILURE
}

struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn until_signal(config: Config, executable: Fingerprint, confined: Confined) -> ExitCode {
    // Before the gateway: a signal that comes while it starts must not kill it half made.
    let Ok(mut signals) = Signals::new() else {
        log(&Event::Warning("signals cannot be handled"));
        return ExitCode::FAILURE;
    };
    let gateway = match Gateway::start(config).await {
        Ok(gateway) => gateway,
        Err(error) => return not_started(error),
    };
    // Which program it was that wrote what follows, for whoever asks the log later.
    if let Err(error) = gateway.vault().audit().system(SystemEvent::Executable(executable)).await {
        log(&Event::Failed { what: "record the executable", error });
        drop(gateway.shutdown().await);
        return ExitCode::FAILURE;
    }
    if let Err(error) = confined.seal() {
        drop(gateway.shutdown().await);
        return not_started(StartError::Config(error));
    }
    loop {
        tokio::select! {
            Some(()) = signals.reload.recv() => {
                if let Err(error) = gateway.reload().await {
                    log(&Event::ReloadFailed(error));
                }
            }
            Some(()) = signals.terminate.recv() => break,
            Some(()) = signals.interrupt.recv() => break,
        }
    }
    log(&Event::Notice("draining"));
    match gateway.shutdown().await {
        Ok(()) => {
            log(&Event::Notice("stopped"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            log(&Event::Failed { what: "stop", error });
            ExitCode::FAILURE
        }
    }
}
