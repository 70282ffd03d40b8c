//! `[[audit.sink]]`: who else gets every entry of the audit log.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::audit::{MAX_SINK_NAME, SinkSettings};

use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile, PinnedUrl};

/// Most sinks.
const MOST: usize = 16;
/// The port of syslog over TLS (RFC 5425).
const SYSLOG_PORT: u16 = 6514;

/// A sink of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSink {
    /// How it is treated.
    pub settings: SinkSettings,
    /// The fields that an entry is written in.
    pub fields: Fields,
    /// Where entries go.
    pub to: SinkTarget,
}

/// Whose names the fields of an entry have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// OCSF 1.3.
    Ocsf,
    /// Elastic Common Schema 8.
    Ecs,
}

/// Where entries go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    /// To a file, one JSON object a line.
    File(NamedFile),
    /// To a syslog server over TLS.
    Syslog(Syslog),
    /// To an OpenTelemetry collector: OTLP over HTTP, in protobuf.
    Otlp {
        /// Where it is.
        url: PinnedUrl,
        /// The certificate to show (PEM) and its private key (PEM, mode 0600).
        client: Option<(NamedFile, NamedFile)>,
    },
}

/// A syslog server (RFC 5424 over RFC 5425).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Its name or IP address: what its certificate has to be for.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The roots that may vouch for it.
    pub roots: NamedFile,
    /// The certificate to show (PEM) and its private key (PEM, mode 0600).
    pub client: Option<(NamedFile, NamedFile)>,
    /// Longest message in bytes; a longer entry is sent without what it says.
    pub message_bytes: usize,
}

type Number = Option<Spanned<u64>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSink {
    name: Text,
    kind: Text,
    mandatory: Option<bool>,
    deadline_ms: Number,
    queue: Number,
    history: Option<bool>,
    format: Option<Text>,
    path: Option<Text>,
    address: Option<Text>,
    url: Option<Text>,
    roots: Option<Text>,
    certificate: Option<Text>,
    key: Option<Text>,
    message_bytes: Number,
}

pub(super) fn sinks(
    reader: &Reader<'_>,
    raw: Vec<Spanned<RawSink>>,
    environment: Environment,
) -> Result<Vec<LogSink>, ConfigError> {
    let mut found: Vec<LogSink> = Vec::with_capacity(raw.len());
    for spanned in raw {
        let at = spanned.span().start;
        let sink = Raw { reader, at, raw: &spanned.into_inner() }.sink(environment)?;
        let refuse = |why: &str| Err(reader.refuse(at, "audit.sink", why));
        if found.iter().any(|other| other.settings.name == sink.settings.name) {
            return refuse("another sink has the same name");
        }
        let path = |sink: &LogSink| match &sink.to {
            SinkTarget::File(file) => Some(file.path.clone()),
            _ => None,
        };
        if path(&sink).is_some() && found.iter().any(|other| path(other) == path(&sink)) {
            return refuse("another sink writes the same file");
        }
        found.push(sink);
        if found.len() > MOST {
            return refuse("there may be 16 sinks at most");
        }
    }
    Ok(found)
}

struct Raw<'a> {
    reader: &'a Reader<'a>,
    at: usize,
    raw: &'a RawSink,
}

impl Raw<'_> {
    fn sink(&self, environment: Environment) -> Result<LogSink, ConfigError> {
        let Self { reader, raw, .. } = *self;
        let kind = raw.kind.get_ref().as_str();
        let deadline = reader.within(&raw.deadline_ms, "audit.sink.deadline_ms", 2000, 50, 60_000)?;
        let to = match kind {
            "file" => self.file()?,
            "syslog" => self.syslog()?,
            "otlp" => self.otlp(environment, Duration::from_millis(deadline))?,
            _ => {
                let why = "must be \"file\", \"syslog\" or \"otlp\"";
                return Err(reader.refuse(raw.kind.span().start, "audit.sink.kind", why));
            }
        };
        let settings = SinkSettings {
            name: self.name()?,
            mandatory: raw.mandatory.unwrap_or(false),
            deadline: Duration::from_millis(deadline),
            queue: reader.within(&raw.queue, "audit.sink.queue", 8192, 1, 1_000_000)?,
            history: raw.history.unwrap_or(false),
        };
        Ok(LogSink { settings, fields: self.fields()?, to })
    }

    fn name(&self) -> Result<String, ConfigError> {
        let name = self.raw.name.get_ref();
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=MAX_SINK_NAME).contains(&name.len()) && name.bytes().all(good) {
            return Ok(name.clone());
        }
        let why = "must be 1 to 32 of the characters a-z 0-9 -";
        Err(self.reader.refuse(self.raw.name.span().start, "audit.sink.name", why))
    }

    fn fields(&self) -> Result<Fields, ConfigError> {
        match self.raw.format.as_ref().map(|format| (format, format.get_ref().as_str())) {
            None | Some((_, "ocsf")) => Ok(Fields::Ocsf),
            Some((_, "ecs")) => Ok(Fields::Ecs),
            Some((format, _)) => {
                let why = "must be \"ocsf\" or \"ecs\"";
                Err(self.reader.refuse(format.span().start, "audit.sink.format", why))
            }
        }
    }

    /// Refuses a key that the kind does not have.
    fn only(&self, allowed: &[&str]) -> Result<(), ConfigError> {
        let raw = self.raw;
        let texts = [
            ("path", &raw.path),
            ("address", &raw.address),
            ("url", &raw.url),
            ("roots", &raw.roots),
            ("certificate", &raw.certificate),
            ("key", &raw.key),
        ];
        let set = texts.iter().filter_map(|(name, text)| Some((*name, text.as_ref()?.span().start)));
        let set = set.chain(raw.message_bytes.as_ref().map(|number| ("message_bytes", number.span().start)));
        for (name, at) in set {
            if !allowed.contains(&name) {
                let why = format!("is not for a sink of kind {:?}", raw.kind.get_ref());
                return Err(self.reader.refuse(at, &format!("audit.sink.{name}"), why));
            }
        }
        Ok(())
    }

    fn required<'b>(&self, text: &'b Option<Text>, key: &str) -> Result<&'b Text, ConfigError> {
        text.as_ref().ok_or_else(|| {
            let why = format!("is required for a sink of kind {:?}", self.raw.kind.get_ref());
            self.reader.refuse(self.at, key, why)
        })
    }

    fn file(&self) -> Result<SinkTarget, ConfigError> {
        self.only(&["path"])?;
        let text = self.required(&self.raw.path, "audit.sink.path")?;
        let file = self.reader.file(text, "audit.sink.path")?;
        if file.path.file_name().is_none() {
            return Err(file.error("must name a file"));
        }
        Ok(SinkTarget::File(file))
    }

    fn client(&self) -> Result<Option<(NamedFile, NamedFile)>, ConfigError> {
        let file = |text: &Text, key| self.reader.file(text, key);
        match (&self.raw.certificate, &self.raw.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Ok(Some((file(certificate, "audit.sink.certificate")?, file(key, "audit.sink.key")?)))
            }
            _ => Err(self.reader.refuse(self.at, "audit.sink", "needs certificate and key together, or neither")),
        }
    }

    fn syslog(&self) -> Result<SinkTarget, ConfigError> {
        self.only(&["address", "roots", "certificate", "key", "message_bytes"])?;
        let address = self.required(&self.raw.address, "audit.sink.address")?;
        let (host, port) = host_and_port(address.get_ref()).ok_or_else(|| {
            let why = "must be a host, with a port or without (then 6514), such as siem.example:6514 or [::1]:6514";
            self.reader.refuse(address.span().start, "audit.sink.address", why)
        })?;
        let roots = self.required(&self.raw.roots, "audit.sink.roots")?;
        let key = "audit.sink.message_bytes";
        let message_bytes = self.reader.within(&self.raw.message_bytes, key, 8192, 2048, 131_072)?;
        Ok(SinkTarget::Syslog(Syslog {
            host,
            port,
            roots: self.reader.file(roots, "audit.sink.roots")?,
            client: self.client()?,
            message_bytes: usize::try_from(message_bytes).unwrap_or(usize::MAX),
        }))
    }

    fn otlp(&self, environment: Environment, timeout: Duration) -> Result<SinkTarget, ConfigError> {
        self.only(&["url", "roots", "certificate", "key"])?;
        let url = self.required(&self.raw.url, "audit.sink.url")?;
        let roots = (self.raw.roots.as_ref(), "audit.sink.roots");
        let mut url = self.reader.pinned((url, "audit.sink.url"), roots, timeout, environment)?;
        if url.path == "/" {
            "/v1/logs".clone_into(&mut url.path);
        }
        let client = self.client()?;
        if let (Some((certificate, _)), None) = (&client, &url.roots) {
            return Err(certificate.error("a certificate is shown over https:// only"));
        }
        Ok(SinkTarget::Otlp { url, client })
    }
}

/// `host`, `host:port`, `[address]` or `[address]:port`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(good) {
        return None;
    }
    let port = port.map_or(Some(SYSLOG_PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn addresses_are_hosts_with_or_without_a_port() {
        let some = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(host_and_port("siem.example"), some("siem.example", 6514));
        assert_eq!(host_and_port("siem.example:1"), some("siem.example", 1));
        assert_eq!(host_and_port("[::1]:7"), some("::1", 7));
        assert_eq!(host_and_port("[::1]"), some("::1", 6514));
        for bad in ["", ":6514", "a:", "a:0", "a:65536", "::1", "[::1", "[x]:1", "a b", "a/b", "[::1]6514", "tls://a"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
