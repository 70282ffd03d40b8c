//! Where the database is, and how long it may take.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;
use crate::secret::SecretBytes;
use crate::store::Anchor;

/// Where the database listens.
#[derive(Debug)]
pub enum Address {
    /// Over TCP, always with TLS 1.3. The hosts are tried in turn until one takes writes: name every node of a cluster
    /// that fails over.
    Tcp {
        /// Host name or IP address, which the server's certificate must name, and port.
        hosts: Vec<(String, u16)>,
        /// Who vouches for the server.
        tls: Tls,
    },
    /// Over a Unix socket of this machine, in the clear.
    Socket {
        /// The directory of the socket.
        dir: PathBuf,
        /// The port, which is a part of the socket's name.
        port: u16,
    },
}

/// TLS to the database.
pub struct Tls {
    /// The authorities that the server's certificate must come from; the machine's own are not asked.
    pub ca: Vec<CertificateDer<'static>>,
    /// A certificate and key to show to the server, leaf first.
    pub client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("ca", &self.ca.len()).field("client", &self.client.is_some()).finish()
    }
}

/// How to reach a PostgreSQL, and the bounds of everything it does.
pub struct PostgresSettings {
    /// Where it listens.
    pub address: Address,
    /// The database.
    pub database: String,
    /// The role, which owns the tables or may make them.
    pub user: String,
    /// Its password, if the server wants one.
    pub password: Option<SecretBytes>,
    /// Connections at the same time at most; 8, and one more that listens.
    pub connections: usize,
    /// How long making a connection may take, with TLS and password; 3 s.
    pub connect_timeout: Duration,
    /// How long a call may wait for one of the connections; 2 s.
    pub wait_timeout: Duration,
    /// How long one statement may take; 5 s.
    pub statement_timeout: Duration,
    /// How long data calls go on from memory without the database confirming that nothing was revoked; 10 s.
    pub revocation_lease: Duration,
    /// A state of the rows that is known, which the database must continue; see [`Store::anchor`](crate::store::Store).
    pub anchor: Option<Anchor>,
    /// Rows in memory at most, for data calls; 200,000, some 600 bytes each.
    pub cached_rows: usize,
    /// This gateway's name among those on the same database, for erasure receipts: 1 to 63 of `a-z 0-9 . _ -`;
    /// `gateway`. Two of one name are told apart by the number that each start adds.
    pub gateway: String,
}

impl PostgresSettings {
    /// The defaults, for a database and a role.
    pub fn new(address: Address, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            address,
            database: database.into(),
            user: user.into(),
            password: None,
            connections: 8,
            connect_timeout: Duration::from_secs(3),
            wait_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            revocation_lease: Duration::from_secs(10),
            anchor: None,
            cached_rows: 200_000,
            gateway: "gateway".into(),
        }
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.address {
            Address::Tcp { hosts, .. } if hosts.is_empty() || hosts.iter().any(|(host, _)| host.is_empty()) => {
                return Err(Error::invalid("hosts", "must name at least one host"));
            }
            // The client would take a host that begins like a path for a socket, and send in the clear.
            Address::Tcp { hosts, .. } if hosts.iter().any(|(host, _)| host.starts_with(['/', '@'])) => {
                return Err(Error::invalid("hosts", "must be host names or IP addresses"));
            }
            Address::Tcp { tls, .. } if tls.ca.is_empty() => {
                return Err(Error::invalid("ca", "must hold at least one certificate"));
            }
            Address::Socket { dir, .. } if !dir.is_absolute() => {
                return Err(Error::invalid("socket", "must be the absolute path of a directory"));
            }
            _ => {}
        }
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        if !(1..=1000).contains(&self.connections) {
            return Err(Error::invalid("connections", "must be 1 to 1000"));
        }
        if !seconds(1, 60).contains(&self.revocation_lease) {
            return Err(Error::invalid("revocation_lease", "must be 1 to 60 seconds"));
        }
        let within = Duration::from_millis(10)..=Duration::from_secs(60);
        for (field, value) in [
            ("connect_timeout", self.connect_timeout),
            ("wait_timeout", self.wait_timeout),
            ("statement_timeout", self.statement_timeout),
        ] {
            if !within.contains(&value) {
                return Err(Error::invalid(field, "must be 10 milliseconds to 60 seconds"));
            }
        }
        if self.cached_rows == 0 {
            return Err(Error::invalid("cached_rows", "must be 1 or more"));
        }
        if !is_gateway_name(&self.gateway) {
            return Err(Error::invalid("gateway", "must be 1 to 63 of the characters a-z 0-9 . _ -"));
        }
        Ok(())
    }
}

/// Whether a gateway may be called so.
fn is_gateway_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(good)
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("address", &self.address)
            .field("database", &self.database)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
