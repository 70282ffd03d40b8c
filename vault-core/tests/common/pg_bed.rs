//! A store in a fresh database of the tests' PostgreSQL, as the contract suite and others want one.

use std::sync::Arc;
use std::time::Duration;

use pollster::block_on;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use vault_core::Error;
use vault_core::fs::OsFs;
use vault_core::kms::{LocalRoot, Roots};
use vault_core::secret::SecretBytes;
use vault_core::store::{Address, PostgresSettings, PostgresStore, Tls};

use super::postgres::{PASSWORD, Server, USER};

/// The instance of every store here.
pub(crate) const INSTANCE: &str = "test";

/// A root key in a file of its own.
pub(crate) fn root() -> Arc<Roots> {
    let dir = tempfile::tempdir().unwrap();
    Roots::single(Arc::new(LocalRoot::create(&OsFs, &dir.path().join("root.key")).unwrap())).unwrap()
}

/// TLS to a loopback port, by a certificate of this authority.
pub(crate) fn tcp(port: u16, ca_pem: &str) -> Address {
    let ca = vec![CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()];
    Address::Tcp { hosts: vec![("localhost".into(), port)], tls: Tls { ca, client: None } }
}

/// The settings for a database, with a password, and time for a busy machine.
pub(crate) fn settings(address: Address, database: &str) -> PostgresSettings {
    let password = Some(SecretBytes::copy_of(PASSWORD.as_bytes()));
    let long = Duration::from_secs(30);
    PostgresSettings {
        password,
        connect_timeout: long,
        wait_timeout: long,
        statement_timeout: long,
        ..PostgresSettings::new(address, database, USER)
    }
}

/// A fresh database on a server.
pub(crate) struct Database {
    pub(crate) server: &'static Server,
    pub(crate) name: String,
    pub(crate) root: Arc<Roots>,
}

impl Database {
    /// `None` after saying that the test is skipped.
    pub(crate) fn fresh() -> Option<Self> {
        let server = Server::shared()?;
        Some(Self { server, name: server.database(), root: root() })
    }

    pub(crate) fn settings(&self) -> PostgresSettings {
        settings(tcp(self.server.port, &self.server.ca_pem), &self.name)
    }

    pub(crate) fn try_open(&self, settings: PostgresSettings) -> Result<Arc<PostgresStore>, Error> {
        block_on(PostgresStore::open(settings, Arc::clone(&self.root), INSTANCE)).map(Arc::new)
    }

    pub(crate) fn open(&self) -> Arc<PostgresStore> {
        self.try_open(self.settings()).unwrap()
    }

    /// What a database administrator does.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql)
    }
}

/// Every bound of [`hasty`].
pub(crate) const HASTY: Duration = Duration::from_millis(1500);

/// Settings whose every bound is short.
pub(crate) fn hasty(settings: PostgresSettings) -> PostgresSettings {
    let short = HASTY;
    PostgresSettings { connect_timeout: short, wait_timeout: short, statement_timeout: short, ..settings }
}

// A test file uses a part of this; naming all of it here keeps the rest from being reported as dead.
const _: () = {
    let _ = (Database::fresh, Database::settings, Database::try_open, Database::open, Database::sql, hasty, tcp, root);
};
