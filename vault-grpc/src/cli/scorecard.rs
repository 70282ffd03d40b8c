//! `scorecard`: asked of a running gateway, or computed from the files of one that is stopped.

use std::future::ready;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vault_client::Limits;
use vault_core::Error;
use vault_core::audit::{VerifyOptions, verify};
use vault_core::fs::OsFs;
use vault_core::time::{Clock as _, SystemClock, Timestamp};
use vault_grpc::build::{self, StartError};
use vault_grpc::config::{Config, ConfigError, Store};
use vault_grpc::scorecard::{
    Facts, LogState, Period, Reading, Scorecard, Status, compute, endings, from_wire, html, kept_witnesses, table,
};
use vault_grpc::telemetry::{Event, log};
use vault_grpc::tls::Materials;
use vault_proto::Timestamp as WireTime;

use super::connect::{Connect, Unanswered};

/// How long a gateway may take that reads its log for the first time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct ScorecardArgs {
    /// The configuration of a gateway that is stopped: its audit log and store are read here, and nothing is changed.
    #[arg(long, conflicts_with = "gateway", required_unless_present = "gateway")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
    /// A table for a terminal, JSON for programs, or a page for people.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The first day, YYYY-MM-DD in UTC; without, 92 days before the end.
    #[arg(long, value_parser = date)]
    from: Option<Timestamp>,
    /// The first day that no longer belongs to it; without, tomorrow.
    #[arg(long, value_parser = date)]
    until: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns of text.
    Table,
    /// One JSON document; `docs/scorecard.md` has its fields.
    Json,
    /// One HTML page that refers to nothing outside of it.
    Html,
}

fn date(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_date(text).ok_or_else(|| "must be a date as YYYY-MM-DD, from 1970 on".to_owned())
}

/// Why there is none.
enum Failed {
    Start(StartError),
    Client(Unanswered),
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::Start(error.into())
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Start(error.into())
    }
}

pub(super) fn scorecard(args: &ScorecardArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return told(Failed::Start(ConfigError::new("the operating system", "gave no threads").into())),
    };
    let made = match &args.config {
        Some(config) => {
            // The store and root keys of some kinds want to be opened on a thread that may block.
            let (config, from, until) = (config.clone(), args.from, args.until);
            let opened = runtime.spawn_blocking(move || offline(&config, (from, until)));
            runtime
                .block_on(opened)
                .unwrap_or_else(|_| Err(Failed::from(ConfigError::new("the scorecard", "panicked"))))
        }
        None => runtime.block_on(asked(args)),
    };
    match made.and_then(|card| show(&card, args.format)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => told(failed),
    }
}

fn told(failed: Failed) -> ExitCode {
    match failed {
        Failed::Start(StartError::Config(error)) => log(&Event::Misconfigured(error)),
        Failed::Start(StartError::Vault(error)) => log(&Event::Failed { what: "make the scorecard", error }),
        Failed::Client(unanswered) => unanswered.tell(),
    }
    ExitCode::FAILURE
}

fn show(card: &Scorecard, format: Format) -> Result<(), Failed> {
    let text = match format {
        Format::Table => table(card, stdout().is_terminal()),
        Format::Json => card.to_json() + "\n",
        Format::Html => html(card),
    };
    let mut out = stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| ConfigError::new("the output", error.kind().to_string()).into())
}

async fn asked(args: &ScorecardArgs) -> Result<Scorecard, Failed> {
    let seconds = |at: Timestamp| WireTime { seconds: i64::try_from(at.secs()).unwrap_or(i64::MAX), nanos: 0 };
    let operator = args.connect.operator().await.map_err(Failed::Client)?;
    let operator = operator.with_limits(Limits { deadline: PATIENCE, ..Limits::default() });
    let card = operator.get_scorecard(args.from.map(seconds), args.until.map(seconds), "scorecard").await;
    Ok(from_wire(&card.map_err(|error| Failed::Client(error.into()))?)?)
}

/// From the files. The log is only read; the embedded store is opened as a gateway opens it, so that none may run.
fn offline(file: &Path, (from, until): (Option<Timestamp>, Option<Timestamp>)) -> Result<Scorecard, Failed> {
    let config = Config::load(file)?;
    let made = SystemClock.now();
    let period = Period::new(from, until, made).map_err(|error| match error {
        Error::Invalid { field, why } => Error::Invalid { field: format!("--{field}"), why },
        other => other,
    })?;
    if let Store::Postgres(_) = &config.store {
        let why = "gateways share this store: ask one of them with --gateway";
        return Err(ConfigError::new(file.display().to_string(), why).into());
    }
    build::require_store(&config)?;
    let signer = build::signer(&config)?;
    let verifier = signer.verifier();
    let materials = Materials::load(&config)?;
    let mut reading = Reading::new(&config, verifier);
    reading.catch_up(None);
    let log_state = match reading.state() {
        LogState::Read => {
            let report = verify(&OsFs, &config.audit_dir.path, verifier, &VerifyOptions::default())?;
            match report.finding {
                None => LogState::Verified { checkpoints: report.checkpoints },
                Some(finding) => LogState::Broken(finding.to_string()),
            }
        }
        other => other,
    };
    let keys = build::keyring(&config)?;
    let waiting = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| ConfigError::new("the operating system", error.kind().to_string()))?;
    let census = waiting.block_on(keys.census((&config.lifecycle).into(), verifier, &|| Box::pin(ready(Ok(())))))?;
    let status = Status {
        endings: endings(&materials.data, &materials.control),
        witnesses: kept_witnesses(&config, verifier),
        sinks: Vec::new(),
        hardening: None,
        log: log_state,
    };
    Ok(compute(&Facts {
        instance: &config.instance,
        log: verifier.origin(),
        period,
        made,
        tally: reading.tally(),
        census: Some(&census),
        status: &status,
        lifecycle: &config.lifecycle,
        demands_proof: config.demands_proof(),
    }))
}
