//! `[aws]`: which keys of AWS KMS may be used, and how they are asked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::Error;
use vault_core::kms::aws::{AwsKmsSettings, BreakerSettings, CredentialSettings, CredentialSource, KeyArn};

use super::ConfigError;
use super::read::{Reader, Text};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    #[serde(default)]
    keys: Vec<Text>,
    accounts: Option<Spanned<Vec<String>>>,
    regions: Option<Spanned<Vec<String>>>,
    endpoints: Option<Spanned<BTreeMap<String, String>>>,
    home_region: Option<Text>,
    credentials: Option<Spanned<Vec<Text>>>,
    profile_file: Option<Text>,
    profile: Option<Text>,
    deadline_ms: Option<Spanned<u64>>,
    attempt_ms: Option<Spanned<u64>>,
    calls_per_key: Option<Spanned<usize>>,
    calls_per_region: Option<Spanned<usize>>,
    breaker_failures: Option<Spanned<u32>>,
    breaker_pause_ms: Option<Spanned<u64>>,
}

fn start<T>(value: &Option<Spanned<T>>) -> Option<usize> {
    value.as_ref().map(|value| value.span().start)
}

fn or<T: Clone>(value: &Option<Spanned<T>>, default: T) -> T {
    value.as_ref().map_or(default, |value| value.get_ref().clone())
}

impl RawAws {
    /// The place and the key of a setting, by the name that the library gives it.
    fn place(&self, field: &str, otherwise: usize) -> (usize, String) {
        let name = field.split(['[', '.']).next().unwrap_or(field);
        let (at, key) = match (name, field) {
            ("keys", _) => (self.keys.first().map(|key| key.span().start), field),
            ("accounts", _) => (start(&self.accounts), field),
            ("regions", _) => (start(&self.regions), field),
            ("endpoints", _) => (start(&self.endpoints), field),
            ("home_region", _) => (start(&self.home_region), field),
            ("credentials", _) => (start(&self.credentials), "credentials"),
            ("deadline", _) => (start(&self.deadline_ms), "deadline_ms"),
            ("attempt", _) => (start(&self.attempt_ms), "attempt_ms"),
            ("calls_per_key", _) => (start(&self.calls_per_key), field),
            ("calls_per_region", _) => (start(&self.calls_per_region), field),
            (_, "breaker.failures") => (start(&self.breaker_failures), "breaker_failures"),
            (_, "breaker.pause") => (start(&self.breaker_pause_ms), "breaker_pause_ms"),
            _ => (None, field),
        };
        (at.unwrap_or(otherwise), format!("aws.{key}"))
    }
}

/// A key's ARN, as `key` of the configuration.
pub(super) fn arn(reader: &Reader<'_>, text: &Text, key: &str) -> Result<KeyArn, ConfigError> {
    KeyArn::parse(text.get_ref()).map_err(|error| match error {
        Error::Invalid { why, .. } => reader.refuse(text.span().start, key, why),
        other => reader.refuse(text.span().start, key, other.to_string()),
    })
}

fn source(reader: &Reader<'_>, text: &Text) -> Result<CredentialSource, ConfigError> {
    match text.get_ref().as_str() {
        "profile" => Ok(CredentialSource::Profile),
        "web-identity" => Ok(CredentialSource::WebIdentity),
        "container" => Ok(CredentialSource::Container),
        "instance" => Ok(CredentialSource::Instance),
        _ => {
            let why = "must be \"profile\", \"web-identity\", \"container\" or \"instance\"";
            Err(reader.refuse(text.span().start, "aws.credentials", why))
        }
    }
}

/// The settings; `roots` are the root keys of the configuration, which are allowed without being listed, and `otherwise`
/// the place that an error has which is about nothing written.
pub(super) fn settings(
    reader: &Reader<'_>,
    raw: &RawAws,
    roots: &[&KeyArn],
    otherwise: usize,
) -> Result<AwsKmsSettings, ConfigError> {
    let default = AwsKmsSettings::default();
    let mut keys = raw.keys.iter().map(|key| arn(reader, key, "aws.keys")).collect::<Result<Vec<_>, _>>()?;
    for root in roots {
        if !keys.contains(root) {
            keys.push((*root).clone());
        }
    }
    let sources = match &raw.credentials {
        Some(sources) => sources.get_ref().iter().map(|text| source(reader, text)).collect::<Result<_, _>>()?,
        None => CredentialSettings::default().sources,
    };
    let millis = |value: &Option<Spanned<u64>>, default: Duration| {
        value.as_ref().map_or(default, |value| Duration::from_millis(*value.get_ref()))
    };
    let deadline = millis(&raw.deadline_ms, default.deadline);
    let settings = AwsKmsSettings {
        keys,
        accounts: or(&raw.accounts, Vec::new()),
        regions: or(&raw.regions, Vec::new()),
        endpoints: or(&raw.endpoints, BTreeMap::new()),
        home_region: raw.home_region.as_ref().map(|region| region.get_ref().clone()),
        credentials: CredentialSettings {
            sources,
            profile_file: match &raw.profile_file {
                Some(file) => Some(reader.file(file, "aws.profile_file")?.path),
                None => None,
            },
            profile: raw.profile.as_ref().map(|profile| profile.get_ref().clone()),
        },
        deadline,
        attempt: millis(&raw.attempt_ms, default.attempt.min(deadline)),
        calls_per_key: or(&raw.calls_per_key, default.calls_per_key),
        calls_per_region: or(&raw.calls_per_region, default.calls_per_region),
        breaker: BreakerSettings {
            failures: or(&raw.breaker_failures, default.breaker.failures),
            pause: millis(&raw.breaker_pause_ms, default.breaker.pause),
        },
    };
    match settings.check() {
        Ok(()) => Ok(settings),
        Err(Error::Invalid { field, why }) => {
            let (at, key) = raw.place(&field, otherwise);
            Err(reader.refuse(at, &key, why))
        }
        Err(other) => Err(reader.refuse(otherwise, "aws", other.to_string())),
    }
}
