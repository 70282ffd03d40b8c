//! Log lines, which cannot carry a secret: an [`Event`] has fields of types that hold none, and nothing else in the
//! gateway writes to stderr.

use std::io::Write as _;
use std::net::SocketAddr;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use vault_core::Error;
use vault_core::id::Fingerprint;
use vault_core::kms::RootId;
use vault_core::principal::ListRef;
use vault_core::time::{Clock, SystemClock};

use crate::config::ConfigError;

static JSON: AtomicBool = AtomicBool::new(false);

/// JSON lines from here on, or lines for people (the default).
pub fn set_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// No lines from here on: for commands whose answer is on stdout.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// What the gateway tells. Names are decided at compile time; numbers, addresses and our own error types are the rest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The process serves from here on: what it is.
    Serving {
        /// The version that it was built as.
        version: &'static str,
        /// SHA-256 of the executable.
        executable: Fingerprint,
        /// Whether the configuration names a release that it was found to be.
        release: bool,
    },
    /// A listener is open.
    Listening {
        /// `data` or `control`.
        plane: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Something that is worth knowing, decided at compile time.
    Notice(&'static str),
    /// Something that should not stay so, decided at compile time.
    Warning(&'static str),
    /// The kernel does not offer a restriction that the configuration asks for as far as it goes.
    Unhardened {
        /// Which, decided at compile time.
        what: &'static str,
        /// Why, decided at compile time.
        why: &'static str,
    },
    /// The audit log was opened.
    AuditOpened {
        /// How many entries were there.
        entries: u64,
        /// Bytes of an incomplete last frame that were cut.
        cut: u64,
    },
    /// Connections that came to nothing, within one second.
    Refused {
        /// `data` or `control`.
        plane: &'static str,
        /// The rule or the circumstance.
        reason: &'static str,
        /// How many.
        count: u64,
    },
    /// An open connection was cut because its certificate is no longer accepted.
    Cut {
        /// `data` or `control`.
        plane: &'static str,
        /// The rule.
        reason: &'static str,
    },
    /// Certificates, bundles, revocation lists, policies and registry were read again and are in force.
    Reloaded {
        /// The policy epoch from here on.
        epoch: u64,
    },
    /// A policy bundle decides from here on.
    Policies {
        /// Its version.
        version: u64,
        /// The policy epoch from here on.
        epoch: u64,
    },
    /// What was read again is not acceptable; what was in force stays.
    ReloadFailed(ConfigError),
    /// A file that the configuration names, or the configuration, is not acceptable.
    Misconfigured(ConfigError),
    /// The vault could not do something.
    Failed {
        /// What, decided at compile time.
        what: &'static str,
        /// Why.
        error: Error,
    },
    /// A root key that had failed answers again.
    RootRecovered {
        /// Which: a name, not a key.
        root: RootId,
    },
    /// Whether the gateway takes data calls changed.
    Health {
        /// True if it does.
        serving: bool,
    },
    /// A list of operators is in force.
    Operators {
        /// Which.
        list: ListRef,
        /// How many there are.
        people: usize,
    },
    /// An issuer of end users' tokens has other keys from here on.
    IssuerKeys {
        /// Which, as configured.
        issuer: String,
        /// How many can be used.
        count: usize,
    },
    /// An issuer's keys could not be fetched; those of before are used until they are too old.
    NoIssuerKeys {
        /// Which, as configured.
        issuer: String,
        /// Why, decided at compile time.
        why: &'static str,
    },
    /// A witness of the audit log does not cosign, or does again.
    Witness {
        /// Its name, as configured.
        witness: String,
        /// Why, decided at compile time.
        why: &'static str,
    },
    /// A sink of the audit log does not take entries, or does again.
    AuditSink {
        /// Its name, as configured.
        sink: String,
        /// Its kind.
        kind: &'static str,
        /// Whether answers wait for it.
        mandatory: bool,
        /// Why, decided at compile time.
        why: &'static str,
    },
    /// A thread panicked. The payload is never shown: it could quote what the thread held.
    Panic {
        /// Source file.
        file: String,
        /// Line.
        line: u64,
    },
}

impl Event {
    fn parts(&self) -> (&'static str, &'static str, Vec<(&'static str, Value)>) {
        match self {
            Self::Serving { version, executable, release } => (
                "info",
                "serving",
                vec![
                    ("version", (*version).into()),
                    ("executable_sha256", executable.to_string().into()),
                    ("release", (*release).into()),
                ],
            ),
            Self::Listening { plane, address } => {
                ("info", "listening", vec![("plane", (*plane).into()), ("address", address.to_string().into())])
            }
            Self::Notice(text) => ("info", "notice", vec![("text", (*text).into())]),
            Self::Warning(text) => ("warn", "warning", vec![("text", (*text).into())]),
            Self::Unhardened { what, why } => {
                ("warn", "unhardened", vec![("what", (*what).into()), ("why", (*why).into())])
            }
            Self::AuditOpened { entries, cut } => {
                ("info", "audit_opened", vec![("entries", (*entries).into()), ("bytes_cut", (*cut).into())])
            }
            Self::Refused { plane, reason, count } => (
                "warn",
                "connections_refused",
                vec![("plane", (*plane).into()), ("reason", (*reason).into()), ("count", (*count).into())],
            ),
            Self::Cut { plane, reason } => {
                ("warn", "connection_cut", vec![("plane", (*plane).into()), ("reason", (*reason).into())])
            }
            Self::Reloaded { epoch } => ("info", "reloaded", vec![("policy_epoch", (*epoch).into())]),
            Self::Policies { version, epoch } => {
                ("info", "policies", vec![("version", (*version).into()), ("policy_epoch", (*epoch).into())])
            }
            Self::ReloadFailed(error) => ("error", "reload_failed", vec![("error", error.to_string().into())]),
            Self::Misconfigured(error) => ("error", "misconfigured", vec![("error", error.to_string().into())]),
            Self::Failed { what, error } => {
                ("error", "failed", vec![("what", (*what).into()), ("error", error.to_string().into())])
            }
            Self::RootRecovered { root } => ("info", "root_recovered", vec![("root", root.as_str().into())]),
            Self::Health { serving } => ("info", "health", vec![("serving", (*serving).into())]),
            Self::Operators { list, people } => {
                let fields = [("version", list.version.into()), ("digest", list.digest.to_string().into())];
                ("info", "operators", fields.into_iter().chain([("people", (*people).into())]).collect())
            }
            Self::IssuerKeys { issuer, count } => {
                ("info", "issuer_keys", vec![("issuer", issuer.as_str().into()), ("keys", (*count).into())])
            }
            Self::NoIssuerKeys { issuer, why } => {
                ("warn", "no_issuer_keys", vec![("issuer", issuer.as_str().into()), ("why", (*why).into())])
            }
            Self::Witness { witness, why } => {
                ("warn", "witness", vec![("witness", witness.as_str().into()), ("why", (*why).into())])
            }
            Self::AuditSink { sink, kind, mandatory, why } => (
                "warn",
                "audit_sink",
                vec![
                    ("sink", sink.as_str().into()),
                    ("kind", (*kind).into()),
                    ("mandatory", (*mandatory).into()),
                    ("why", (*why).into()),
                ],
            ),
            Self::Panic { file, line } => {
                ("error", "panic", vec![("file", file.as_str().into()), ("line", (*line).into())])
            }
        }
    }

    fn line(&self, json: bool, unix_ms: u64) -> String {
        let (level, event, fields) = self.parts();
        if json {
            let mut map = Map::new();
            map.insert("unix_ms".into(), unix_ms.into());
            map.insert("level".into(), level.into());
            map.insert("event".into(), event.into());
            map.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
            return format!("{}\n", Value::Object(map));
        }
        let mut line = format!("{level:<5} {event}");
        for (key, value) in fields {
            // `Value`'s form quotes strings and escapes control characters: one event stays one line.
            line.push_str(&format!(" {key}={value}"));
        }
        line.push('\n');
        line
    }
}

/// Writes one line to stderr. A stderr that is closed or full changes nothing else.
pub fn log(event: &Event) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    let line = event.line(JSON.load(Ordering::Relaxed), SystemClock.now().0);
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

/// From here on a panic tells where it happened and nothing else.
pub fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let (file, line) = info.location().map_or(("unknown", 0), |at| (at.file(), u64::from(at.line())));
        log(&Event::Panic { file: file.to_owned(), line });
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_in_both_forms() {
        let event = Event::Failed { what: "reload", error: Error::corrupt("a\nb", "c") };
        let json = event.line(true, 7);
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["event"], "failed");
        assert_eq!(parsed["unix_ms"], 7);
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(event.line(false, 7).matches('\n').count(), 1);
    }
}
