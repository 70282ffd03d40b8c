//! `[[audit.witness]]`: who is asked to cosign the audit log's checkpoints.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use toml::Spanned;
use vault_core::audit::WitnessVerifier;

use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile};

/// Most witnesses.
const MOST: usize = 16;

/// A witness of the audit log (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWitness {
    /// Its verifier key; nothing that it answers is believed without a cosignature of it.
    pub key: WitnessVerifier,
    /// Where it is.
    pub url: WitnessUrl,
    /// How long the log may have what it has not cosigned before the log takes no more entries; `None` if it is
    /// best-effort.
    pub mandatory: Option<Duration>,
}

/// Where a witness is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessUrl {
    /// Host, as the URL has it; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The path of its add-checkpoint call.
    pub path: String,
    /// The roots that may vouch for the host; `None` for plain HTTP to this machine, in a development build.
    pub roots: Option<NamedFile>,
    /// How long a call may take.
    pub timeout: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWitness {
    key: Text,
    url: Text,
    roots: Option<Text>,
    mandatory: Option<bool>,
    deadline_s: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
}

pub(super) fn witnesses(
    reader: &Reader<'_>,
    raw: Vec<Spanned<RawWitness>>,
    environment: Environment,
) -> Result<Vec<LogWitness>, ConfigError> {
    let mut found: Vec<LogWitness> = Vec::with_capacity(raw.len());
    for spanned in raw {
        let at = spanned.span().start;
        let witness = witness(reader, &spanned.into_inner(), environment)?;
        let refuse = |why: &str| Err(reader.refuse(at, "audit.witness", why));
        if found.iter().any(|other| other.key.name() == witness.key.name()) {
            return refuse("another witness has the same name");
        }
        found.push(witness);
        if found.len() > MOST {
            return refuse("there may be 16 witnesses at most");
        }
    }
    Ok(found)
}

fn witness(reader: &Reader<'_>, raw: &RawWitness, environment: Environment) -> Result<LogWitness, ConfigError> {
    let key = WitnessVerifier::parse(raw.key.get_ref()).map_err(|_| {
        let why = "must be the witness's verifier key, name+hash+base64, as `witness init` prints it";
        reader.refuse(raw.key.span().start, "audit.witness.key", why)
    })?;
    let url = url(reader, raw, environment)?;
    let deadline = reader.within(&raw.deadline_s, "audit.witness.deadline_s", 60, 1, 86_400)?;
    let mandatory = match (raw.mandatory.unwrap_or(false), &raw.deadline_s) {
        (true, _) => Some(Duration::from_secs(deadline)),
        (false, None) => None,
        (false, Some(set)) => {
            let why = "is for a witness with mandatory = true: the others stop nothing";
            return Err(reader.refuse(set.span().start, "audit.witness.deadline_s", why));
        }
    };
    Ok(LogWitness { key, url, mandatory })
}

fn url(reader: &Reader<'_>, raw: &RawWitness, environment: Environment) -> Result<WitnessUrl, ConfigError> {
    let refuse = |why: &str| reader.refuse(raw.url.span().start, "audit.witness.url", why);
    let text = raw.url.get_ref();
    let parsed: Uri = text.parse().map_err(|_| refuse("must be a URL such as https://witness.example/"))?;
    let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(|| refuse("must name a host"))?;
    if text.contains(['@', '#', '?']) {
        return Err(refuse("must have no user, query or fragment"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let roots = raw.roots.as_ref().map(|file| reader.file(file, "audit.witness.roots")).transpose()?;
    let port = match (parsed.scheme_str(), &roots) {
        (Some("https"), Some(_)) => 443,
        (Some("https"), None) => return Err(refuse("needs roots, the certificates that may vouch for the host")),
        (Some("http"), None) => {
            let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            if !(cfg!(feature = "dev") && environment == Environment::Dev && loopback) {
                return Err(refuse("must begin with https://"));
            }
            80
        }
        (Some("http"), Some(_)) => return Err(refuse("must begin with https:// where roots is given")),
        _ => return Err(refuse("must begin with https://")),
    };
    Ok(WitnessUrl {
        host,
        port: parsed.port_u16().unwrap_or(port),
        path: format!("{}/add-checkpoint", parsed.path().trim_end_matches('/')),
        roots,
        timeout: Duration::from_millis(reader.within(
            &raw.timeout_ms,
            "audit.witness.timeout_ms",
            5000,
            100,
            60_000,
        )?),
    })
}
