//! `[[audit.witness]]`: who is asked to cosign the audit log's checkpoints.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::audit::WitnessVerifier;

use super::read::{Reader, Text};
use super::{ConfigError, Environment, PinnedUrl};

/// Most witnesses.
const MOST: usize = 16;

/// A witness of the audit log (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWitness {
    /// Its verifier key; nothing that it answers is believed without a cosignature of it.
    pub key: WitnessVerifier,
    /// Where it is.
    pub url: PinnedUrl,
    /// How long the log may have what it has not cosigned before the log takes no more entries; `None` if it is
    /// best-effort.
    pub mandatory: Option<Duration>,
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

/// The call's URL: its prefix is in the configuration.
fn url(reader: &Reader<'_>, raw: &RawWitness, environment: Environment) -> Result<PinnedUrl, ConfigError> {
    const KEY: &str = "audit.witness.url";
    if raw.url.get_ref().contains('?') {
        return Err(reader.refuse(raw.url.span().start, KEY, "must have no query"));
    }
    let millis = reader.within(&raw.timeout_ms, "audit.witness.timeout_ms", 5000, 100, 60_000)?;
    let roots = (raw.roots.as_ref(), "audit.witness.roots");
    let mut url = reader.pinned((&raw.url, KEY), roots, Duration::from_millis(millis), environment)?;
    url.path = format!("{}/add-checkpoint", url.path.trim_end_matches('/'));
    Ok(url)
}
