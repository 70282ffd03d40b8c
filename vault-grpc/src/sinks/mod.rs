//! Sinks of the audit log (`docs/sinks.md`): files, syslog over TLS, OTLP. What they have in common with each other, and
//! with the log, is in `vault_core::audit`: each has a thread there, which may block.

pub mod fields;
mod otlp;
mod syslog;

use std::fmt::{self, Write as _};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use vault_core::audit::{Delivered, FileSink, LogVerifier, Sink, SinkSettings, SinkState, SinkStatus};
use vault_core::fs::{Fs, OsFs};
use vault_core::{Error, Vault};

use crate::config::{Config, ConfigError, Fields, LogSink, SinkTarget};
use crate::telemetry::{Event, log};

/// How often it is looked whether something is to be told.
const EVERY: Duration = Duration::from_millis(250);
/// How often it is looked whether a start has waited long enough.
const SOON: Duration = Duration::from_millis(5);

/// The sinks of a configuration, not at work yet.
#[derive(Debug)]
pub struct Sinks(Vec<(SinkSettings, Box<dyn Sink>)>);

impl Sinks {
    /// Reads what they need: roots, certificates, keys.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that is not as it should be, or a directory that is not there.
    pub fn load(config: &Config, log: &LogVerifier) -> Result<Self, ConfigError> {
        let sink = |sink: &LogSink| Ok((sink.settings.clone(), made(sink, log.origin())?));
        config.sinks.iter().map(sink).collect::<Result<_, _>>().map(Self)
    }

    /// Puts them to work. From here on no call is answered whose entry a mandatory one has not confirmed.
    ///
    /// # Errors
    /// As [`vault_core::audit::Log::attach`].
    pub fn attach(self, vault: &Vault) -> Result<(), Error> {
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        vault.audit().attach(&fs, self.0)
    }

    /// How long a start waits for the mandatory ones.
    pub(crate) fn patience(&self) -> Duration {
        let mandatory = self.0.iter().filter(|(settings, _)| settings.mandatory);
        mandatory.map(|(settings, _)| settings.deadline).max().unwrap_or_default()
    }
}

/// What an entry says, in the names of a schema.
fn text(fields: Fields, origin: &str, entry: &Delivered) -> String {
    let of = match fields {
        Fields::Ocsf => fields::ocsf,
        Fields::Ecs => fields::ecs,
    };
    of(origin, &entry.entry, &entry.leaf_hash).to_string()
}

fn made(sink: &LogSink, origin: &str) -> Result<Box<dyn Sink>, ConfigError> {
    let fields = sink.fields;
    Ok(match &sink.to {
        SinkTarget::File(file) => {
            let dir = file.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            if dir.is_some_and(|dir| !dir.is_dir()) {
                return Err(file.error("its directory is not there"));
            }
            let origin = origin.to_owned();
            let line = move |entry: &Delivered| text(fields, &origin, entry);
            Box::new(FileSink::new(Arc::new(OsFs), file.path.clone(), Box::new(line)))
        }
        SinkTarget::Syslog(server) => {
            Box::new(syslog::SyslogSink::load(server, sink.settings.deadline, origin, fields)?)
        }
        SinkTarget::Otlp { url, client } => Box::new(otlp::OtlpSink::load(url, client.as_ref(), origin, fields)?),
    })
}

/// Waits until every mandatory sink has caught up, so that the first calls are not refused for it; or for so long. One that
/// is not there then does not keep the gateway from starting: calls are refused until it is.
pub(crate) async fn ready(vault: &Vault, patience: Duration) {
    let is_good = |sink: &SinkStatus| !sink.mandatory || sink.state == SinkState::Good;
    let wait = async {
        while !vault.audit().sinks().iter().all(is_good) {
            sleep(SOON).await;
        }
    };
    if timeout(patience, wait).await.is_err() {
        log(&Event::Warning("a mandatory audit sink has not caught up: calls are refused until it has"));
    }
}

/// Tells in the log lines when a sink fails, and when it works again: each reason once, until it is over.
pub(crate) async fn tell(vault: Weak<Vault>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: Vec<Option<&'static str>> = Vec::new();
    let mut failures: Vec<u64> = Vec::new();
    loop {
        ticks.tick().await;
        let Some(vault) = vault.upgrade() else { return };
        let all = vault.audit().sinks();
        told.resize(all.len(), None);
        failures.resize(all.len(), 0);
        for ((status, told), failures) in all.into_iter().zip(&mut told).zip(&mut failures) {
            let SinkStatus { name, kind, mandatory, state, last_error, .. } = status;
            let now = match state {
                SinkState::Behind => Some("more entries wait for it than its queue holds"),
                // One that failed and works again between two looks is told, too.
                _ if state == SinkState::Failing || status.failures > *failures => last_error,
                SinkState::CatchingUp => *told,
                _ => None,
            };
            *failures = status.failures;
            if now.is_some() && now != *told {
                log(&Event::AuditSink { sink: name, kind, mandatory, why: now.unwrap_or_default() });
            } else if now.is_none() && told.is_some() {
                log(&Event::AuditSink { sink: name, kind, mandatory, why: "takes all entries again" });
            }
            *told = now;
        }
    }
}

/// One metric of a sink.
type Row = (&'static str, &'static str, &'static str, fn(&SinkStatus) -> f64);

#[expect(clippy::cast_precision_loss, reason = "what metrics are")]
const ROWS: [Row; 5] = [
    ("healthy", "gauge", "1 if the sink has failed nowhere it has not caught up from since.", |sink| {
        f64::from(u8::from(sink.state == SinkState::Good))
    }),
    (
        "confirmed_entries",
        "gauge",
        "Entries of the audit log, from its start, that the sink has or need not have.",
        |s| s.confirmed as f64,
    ),
    ("lag_entries", "gauge", "Durable entries that the sink has not confirmed.", |sink| sink.lag as f64),
    ("lag_seconds", "gauge", "How long there has been an entry that the sink has not confirmed.", |sink| {
        sink.behind_for.as_secs_f64()
    }),
    ("failures_total", "counter", "How often the sink has failed.", |sink| sink.failures as f64),
];

/// Metrics of the sinks; nothing where there are none.
pub(crate) fn render(sinks: &[SinkStatus]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = rows(&mut out, sinks);
    out
}

fn rows(out: &mut String, sinks: &[SinkStatus]) -> fmt::Result {
    if sinks.is_empty() {
        return Ok(());
    }
    for (row, kind, help, value) in ROWS {
        writeln!(out, "# HELP blindvault_audit_sink_{row} {help}\n# TYPE blindvault_audit_sink_{row} {kind}")?;
        for sink in sinks {
            let SinkStatus { name, kind, mandatory, .. } = sink;
            let labels = format!("sink=\"{name}\",kind=\"{kind}\",mandatory=\"{mandatory}\"");
            writeln!(out, "blindvault_audit_sink_{row}{{{labels}}} {}", value(sink))?;
        }
    }
    Ok(())
}
