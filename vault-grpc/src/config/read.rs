//! From the text to a [`Config`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::principal::TrustDomain;

use super::approvals::RawApprovals;
use super::charter::RawCharter;
use super::end_users::{self, RawEndUsers};
use super::hardening::RawHardening;
use super::lifecycle::RawLifecycle;
use super::limits::RawLimits;
use super::operators::{self, RawOperators};
use super::policy::RawPolicy;
use super::release::RawRelease;
use super::roots::{RawCustody, RawRoot};
use super::sink;
use super::store::RawStore;
use super::{Cache, Config, ConfigError, Environment, Listener, NamedFile, segments, witness};

pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    environment: Text,
    instance: Text,
    data: RawListener,
    control: RawListener,
    store: Spanned<RawStore>,
    audit: RawAudit,
    root: Option<Spanned<RawRoot>>,
    #[serde(default)]
    roots: BTreeMap<Text, Spanned<RawRoot>>,
    custody: Option<Spanned<RawCustody>>,
    #[cfg(feature = "aws")]
    aws: Option<Spanned<super::aws::RawAws>>,
    policy: RawPolicy,
    #[serde(default)]
    charter: RawCharter,
    #[serde(default)]
    end_users: RawEndUsers,
    operators: Option<Spanned<RawOperators>>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    cache: RawCache,
    #[serde(default)]
    hardening: RawHardening,
    #[serde(default)]
    lifecycle: RawLifecycle,
    #[serde(default)]
    approvals: RawApprovals,
    #[serde(default)]
    logs: RawLogs,
    #[serde(default)]
    metrics: RawMetrics,
    release: Option<RawRelease>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListener {
    address: Text,
    certificate: Text,
    key: Text,
    client_ca: Text,
    #[serde(default)]
    crls: Vec<Text>,
    trust_domain: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAudit {
    dir: Text,
    key: Text,
    #[serde(default)]
    witness: Vec<Spanned<witness::RawWitness>>,
    #[serde(default)]
    sink: Vec<Spanned<sink::RawSink>>,
    segments: Option<segments::RawSegments>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCache {
    capacity: Option<Spanned<u64>>,
    ttl_ms: Option<Spanned<u64>>,
    idle_ms: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetrics {
    address: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogs {
    format: Option<Text>,
}

pub(super) fn read(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let reader = Reader { text, file };
    let raw: Raw = toml::from_str(text).map_err(|error| reader.refuse_toml(&error))?;
    reader.config(raw)
}

pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) file: &'a Path,
}

#[cfg(test)]
impl<'a> Reader<'a> {
    pub(super) const fn of(text: &'a str, file: &'a Path) -> Self {
        Self { text, file }
    }
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn place(&self, offset: usize, key: &str) -> String {
        format!("{} line {}, {key}", self.file.display(), self.line(offset))
    }

    pub(super) fn refuse(&self, offset: usize, key: &str, why: impl Into<String>) -> ConfigError {
        ConfigError::new(self.place(offset, key), why)
    }

    /// The parser's message, without the value that it found: only what it expected.
    fn refuse_toml(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message();
        let why = if message.starts_with("unknown field") || message.starts_with("missing field") {
            message.to_owned()
        } else if let Some((_, expected)) = message.rsplit_once(", expected ") {
            format!("expected {expected}")
        } else {
            "not valid TOML; is the file complete?".to_owned()
        };
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::new(format!("{} line {}", self.file.display(), self.line(offset)), why)
    }

    pub(super) fn file(&self, text: &Text, key: &str) -> Result<NamedFile, ConfigError> {
        if text.get_ref().is_empty() {
            return Err(self.refuse(text.span().start, key, "must name a file"));
        }
        let dir = self.file.parent().unwrap_or(Path::new(""));
        Ok(NamedFile { path: dir.join(text.get_ref()), place: self.place(text.span().start, key) })
    }

    pub(super) fn files(&self, texts: &[Text], key: &str) -> Result<Vec<NamedFile>, ConfigError> {
        texts.iter().map(|text| self.file(text, key)).collect()
    }

    fn config(&self, raw: Raw) -> Result<Config, ConfigError> {
        let environment = self.environment(&raw.environment)?;
        let json_logs = match raw.logs.format {
            None => environment == Environment::Production,
            Some(format) => match format.get_ref().as_str() {
                "json" => true,
                "text" => false,
                _ => return Err(self.refuse(format.span().start, "logs.format", "must be \"json\" or \"text\"")),
            },
        };
        let roots = self.roots(raw.root.as_ref(), &raw.roots, raw.custody.as_ref())?;
        #[cfg(feature = "aws")]
        let aws = self.aws(raw.aws.as_ref(), &roots)?;
        let end_users = end_users::issuers(self, raw.end_users, environment)?;
        let config = Config {
            file: self.file.to_owned(),
            environment,
            instance: self.instance(raw.instance)?,
            data: self.listener(&raw.data, "data")?,
            control: self.listener(&raw.control, "control")?,
            store: self.store(&raw.store)?,
            audit_dir: self.file(&raw.audit.dir, "audit.dir")?,
            audit_key: self.file(&raw.audit.key, "audit.key")?,
            segments: segments::segments(self, raw.audit.segments.as_ref())?,
            witnesses: witness::witnesses(self, raw.audit.witness, environment)?,
            sinks: sink::sinks(self, raw.audit.sink, environment)?,
            roots,
            #[cfg(feature = "aws")]
            aws,
            policy: self.policy(&raw.policy, environment)?,
            charter_enforced: self.charter(&raw.charter, environment)?,
            operators: operators::operators(self, raw.operators, &end_users, environment)?,
            end_users,
            limits: raw.limits.check(|offset, key, why| self.refuse(offset, key, why))?,
            cache: self.cache(&raw.cache)?,
            metrics: raw.metrics.address.as_ref().map(|text| self.metrics(text)).transpose()?,
            hardening: self.hardening(&raw.hardening, environment)?,
            lifecycle: self.lifecycle(&raw.lifecycle)?,
            approvals: self.approvals(&raw.approvals, environment)?,
            release: raw.release.as_ref().map(|raw| self.release(raw)).transpose()?,
            json_logs,
        };
        if config.data.trust_domain == config.control.trust_domain {
            let why = "must differ from data.trust_domain: operators and workloads share nothing";
            return Err(ConfigError::new(&config.control.trust_domain_place, why));
        }
        if config.data.address == config.control.address && config.data.address.port() != 0 {
            let why = "must differ from data.address";
            return Err(self.refuse(raw.control.address.span().start, "control.address", why));
        }
        Ok(config)
    }

    fn environment(&self, text: &Text) -> Result<Environment, ConfigError> {
        let refuse = |why: &str| Err(self.refuse(text.span().start, "environment", why));
        match text.get_ref().as_str() {
            "dev" => Ok(Environment::Dev),
            "production" if cfg!(feature = "dev") => {
                refuse("this is a development build (feature `dev`), which refuses \"production\"; use a release")
            }
            "production" => Ok(Environment::Production),
            _ => refuse("must be \"dev\" or \"production\""),
        }
    }

    fn instance(&self, text: Text) -> Result<String, ConfigError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let value = text.get_ref();
        if (1..=63).contains(&value.len()) && value.bytes().all(good) {
            return Ok(text.into_inner());
        }
        Err(self.refuse(text.span().start, "instance", "must be 1 to 63 of the characters a-z 0-9 . _ -"))
    }

    fn listener(&self, raw: &RawListener, plane: &str) -> Result<Listener, ConfigError> {
        let key = |name: &str| format!("{plane}.{name}");
        let at = raw.address.span().start;
        let address: SocketAddr = raw.address.get_ref().parse().map_err(|_| {
            self.refuse(at, &key("address"), "must be an IP address and a port, such as 127.0.0.1:8443")
        })?;
        if cfg!(feature = "dev") && !address.ip().is_loopback() {
            let why = "a development build (feature `dev`) listens on loopback only, such as 127.0.0.1";
            return Err(self.refuse(at, &key("address"), why));
        }
        let trust_domain_place = self.place(raw.trust_domain.span().start, &key("trust_domain"));
        TrustDomain::parse(raw.trust_domain.get_ref())
            .map_err(|_| ConfigError::new(&trust_domain_place, "must be a trust domain such as prod.example"))?;
        Ok(Listener {
            address,
            certificate: self.file(&raw.certificate, &key("certificate"))?,
            key: self.file(&raw.key, &key("key"))?,
            client_ca: self.file(&raw.client_ca, &key("client_ca"))?,
            crls: self.files(&raw.crls, &key("crls"))?,
            trust_domain: raw.trust_domain.get_ref().clone(),
            trust_domain_place,
        })
    }

    fn metrics(&self, text: &Text) -> Result<SocketAddr, ConfigError> {
        let address: Option<SocketAddr> = text.get_ref().parse().ok();
        address.filter(|address| address.ip().is_loopback()).ok_or_else(|| {
            let why = "must be a loopback address and a port, such as 127.0.0.1:9464: nobody proves who asks there";
            self.refuse(text.span().start, "metrics.address", why)
        })
    }

    /// A number within its bounds, or the default.
    pub(super) fn within(
        &self,
        value: &Option<Spanned<u64>>,
        key: &str,
        default: u64,
        least: u64,
        most: u64,
    ) -> Result<u64, ConfigError> {
        match value {
            None => Ok(default),
            Some(value) if (least..=most).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => Err(self.refuse(value.span().start, key, format!("must be {least} to {most}"))),
        }
    }

    fn cache(&self, raw: &RawCache) -> Result<Cache, ConfigError> {
        let capacity = self.within(&raw.capacity, "cache.capacity", 100_000, 1, 10_000_000)?;
        Ok(Cache {
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            ttl: Duration::from_millis(self.within(&raw.ttl_ms, "cache.ttl_ms", 300_000, 1000, 3_600_000)?),
            idle: Duration::from_millis(self.within(&raw.idle_ms, "cache.idle_ms", 60_000, 1000, 3_600_000)?),
        })
    }
}
