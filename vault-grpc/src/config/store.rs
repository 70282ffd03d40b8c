//! The `[store]` part: where the rows are.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::read::{Reader, Text};
use super::{ConfigError, NamedFile};

/// Where the rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Store {
    /// In one file on this machine.
    Embedded(NamedFile),
    /// In a PostgreSQL that several gateways share.
    Postgres(Box<Postgres>),
}

/// A PostgreSQL; the bounds are those of `vault_core::store::PostgresSettings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Where it listens.
    pub address: PostgresAddress,
    /// The database.
    pub database: String,
    /// The role.
    pub user: String,
    /// Its password (mode 0600).
    pub password: Option<NamedFile>,
    /// Connections at the same time.
    pub connections: usize,
    /// How long making one may take.
    pub connect_timeout: Duration,
    /// How long a call may wait for one.
    pub wait_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long data calls go on without the database.
    pub revocation_lease: Duration,
    /// Rows in memory.
    pub cached_rows: usize,
    /// This gateway's name in erasure receipts.
    pub gateway: String,
}

/// Where a PostgreSQL listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresAddress {
    /// Over TCP, with TLS.
    Tcp {
        /// The nodes of the cluster, tried in turn: name or IP address, and port.
        hosts: Vec<(String, u16)>,
        /// The authorities of the servers' certificates (PEM).
        ca: NamedFile,
        /// A certificate to show (PEM), and its private key (PEM, mode 0600).
        client: Option<(NamedFile, NamedFile)>,
    },
    /// Over a Unix socket of this machine.
    Socket {
        /// Its directory.
        dir: PathBuf,
        /// The port that is in its name.
        port: u16,
    },
}

type Number = Option<Spanned<u64>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    kind: Option<Text>,
    path: Option<Text>,
    hosts: Option<Vec<Text>>,
    ca: Option<Text>,
    certificate: Option<Text>,
    key: Option<Text>,
    socket: Option<Text>,
    port: Number,
    database: Option<Text>,
    user: Option<Text>,
    password_file: Option<Text>,
    connections: Number,
    connect_timeout_ms: Number,
    wait_timeout_ms: Number,
    statement_timeout_ms: Number,
    revocation_lease_ms: Number,
    cached_rows: Number,
    gateway: Option<Text>,
}

/// PostgreSQL's usual port.
const PORT: u16 = 5432;

/// Whether a gateway may be called so.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(good)
}

/// The machine's name, as far as a gateway may be called so.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    if is_name(&name) { name } else { "gateway".to_owned() }
}

impl Reader<'_> {
    pub(super) fn store(&self, raw: &Spanned<RawStore>) -> Result<Store, ConfigError> {
        let (at, raw) = (raw.span().start, raw.get_ref());
        match &raw.kind {
            None => self.embedded(at, raw),
            Some(kind) => match kind.get_ref().as_str() {
                "embedded" => self.embedded(at, raw),
                "postgres" if cfg!(feature = "postgres") => {
                    self.postgres(at, raw).map(|found| Store::Postgres(Box::new(found)))
                }
                "postgres" => {
                    let why = "this build has no feature `postgres`";
                    Err(self.refuse(kind.span().start, "store.kind", why))
                }
                _ => Err(self.refuse(kind.span().start, "store.kind", "must be \"embedded\" or \"postgres\"")),
            },
        }
    }

    fn embedded(&self, at: usize, raw: &RawStore) -> Result<Store, ConfigError> {
        let texts = [
            &raw.ca,
            &raw.certificate,
            &raw.key,
            &raw.socket,
            &raw.database,
            &raw.user,
            &raw.password_file,
            &raw.gateway,
        ];
        let numbers = [
            &raw.port,
            &raw.connections,
            &raw.connect_timeout_ms,
            &raw.wait_timeout_ms,
            &raw.statement_timeout_ms,
            &raw.revocation_lease_ms,
            &raw.cached_rows,
        ];
        let foreign = texts.into_iter().flatten().map(|text| text.span().start);
        let foreign = foreign.chain(numbers.into_iter().flatten().map(|number| number.span().start));
        let foreign = foreign.chain(raw.hosts.iter().flatten().map(|host| host.span().start));
        if let Some(at) = foreign.min() {
            return Err(self.refuse(at, "store", "the embedded store has no key but `path`"));
        }
        match &raw.path {
            Some(path) => Ok(Store::Embedded(self.file(path, "store.path")?)),
            None => Err(self.refuse(at, "store.path", "the embedded store needs the path of its file")),
        }
    }

    fn postgres(&self, at: usize, raw: &RawStore) -> Result<Postgres, ConfigError> {
        if let Some(path) = &raw.path {
            return Err(self.refuse(path.span().start, "store.path", "belongs to the embedded store"));
        }
        let name = |text: &Option<Text>, key: &str| match text {
            Some(text) if !text.get_ref().is_empty() => Ok(text.get_ref().clone()),
            Some(text) => Err(self.refuse(text.span().start, key, "must not be empty")),
            None => Err(self.refuse(at, key, "a PostgreSQL store needs one")),
        };
        let millis = |value: &Number, key, default, least, most| {
            self.within(value, key, default, least, most).map(Duration::from_millis)
        };
        let count = |value: &Number, key, default, most| {
            let value = self.within(value, key, default, 1, most)?;
            Ok::<_, ConfigError>(usize::try_from(value).unwrap_or(usize::MAX))
        };
        Ok(Postgres {
            address: self.address(at, raw)?,
            database: name(&raw.database, "store.database")?,
            user: name(&raw.user, "store.user")?,
            password: self.optional(&raw.password_file, "store.password_file")?,
            connections: count(&raw.connections, "store.connections", 8, 1000)?,
            connect_timeout: millis(&raw.connect_timeout_ms, "store.connect_timeout_ms", 3000, 10, 60_000)?,
            wait_timeout: millis(&raw.wait_timeout_ms, "store.wait_timeout_ms", 2000, 10, 60_000)?,
            statement_timeout: millis(&raw.statement_timeout_ms, "store.statement_timeout_ms", 5000, 10, 60_000)?,
            revocation_lease: millis(&raw.revocation_lease_ms, "store.revocation_lease_ms", 10_000, 1000, 60_000)?,
            cached_rows: count(&raw.cached_rows, "store.cached_rows", 200_000, 100_000_000)?,
            gateway: match &raw.gateway {
                None => machine(),
                Some(name) if is_name(name.get_ref()) => name.get_ref().clone(),
                Some(name) => {
                    let why = "must be 1 to 63 of the characters a-z 0-9 . _ -";
                    return Err(self.refuse(name.span().start, "store.gateway", why));
                }
            },
        })
    }

    fn optional(&self, text: &Option<Text>, key: &str) -> Result<Option<NamedFile>, ConfigError> {
        text.as_ref().map(|text| self.file(text, key)).transpose()
    }

    fn address(&self, at: usize, raw: &RawStore) -> Result<PostgresAddress, ConfigError> {
        match (&raw.hosts, &raw.socket) {
            (Some(hosts), None) => self.tcp(at, hosts, raw),
            (None, Some(socket)) => {
                let foreign = [&raw.ca, &raw.certificate, &raw.key].into_iter().flatten().next();
                if let Some(text) = foreign {
                    return Err(self.refuse(text.span().start, "store", "TLS belongs to `hosts`, not to `socket`"));
                }
                let dir = PathBuf::from(socket.get_ref());
                if !dir.is_absolute() {
                    let why = "must be the absolute path of the socket's directory";
                    return Err(self.refuse(socket.span().start, "store.socket", why));
                }
                let port = self.within(&raw.port, "store.port", PORT.into(), 1, u16::MAX.into())?;
                Ok(PostgresAddress::Socket { dir, port: u16::try_from(port).unwrap_or(PORT) })
            }
            _ => Err(self.refuse(at, "store.hosts", "a PostgreSQL store needs either `hosts` or `socket`")),
        }
    }

    fn tcp(&self, at: usize, hosts: &[Text], raw: &RawStore) -> Result<PostgresAddress, ConfigError> {
        if let Some(port) = &raw.port {
            let why = "belongs to `socket`; a host's port is written behind it, as in \"db.example:5432\"";
            return Err(self.refuse(port.span().start, "store.port", why));
        }
        let ca = self.optional(&raw.ca, "store.ca")?.ok_or_else(|| {
            let why = "a PostgreSQL over the network needs the certificate authority of its servers";
            self.refuse(at, "store.ca", why)
        })?;
        let client = match (&raw.certificate, &raw.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some((self.file(certificate, "store.certificate")?, self.file(key, "store.key")?))
            }
            (Some(alone), None) | (None, Some(alone)) => {
                let why = "`certificate` and `key` go together";
                return Err(self.refuse(alone.span().start, "store", why));
            }
        };
        let hosts = hosts.iter().map(|host| self.host(host)).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(self.refuse(at, "store.hosts", "must name at least one host"));
        }
        Ok(PostgresAddress::Tcp { hosts, ca, client })
    }

    /// `name`, `name:port`, `1.2.3.4:port` or `[::1]:port`.
    fn host(&self, text: &Text) -> Result<(String, u16), ConfigError> {
        let given = text.get_ref().as_str();
        let (host, port) = match given.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (given, Some(PORT)),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
        match port {
            Some(port) if port > 0 && !host.is_empty() && host.bytes().all(good) => Ok((host.to_owned(), port)),
            _ => {
                let why = "must be a host and a port, such as \"db.example:5432\"";
                Err(self.refuse(text.span().start, "store.hosts", why))
            }
        }
    }
}
