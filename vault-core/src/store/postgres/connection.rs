//! One connection: made within its deadline, checked, and closed when it is dropped.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::Fault;
use super::settings::{Address, PostgresSettings, Tls};
use crate::error::{Dependency, Error};

/// Makes connections.
pub(super) struct Connector {
    /// One for each host.
    hosts: Vec<Config>,
    tls: Option<MakeRustlsConnect>,
    timeout: std::time::Duration,
    setup: String,
}

/// A connection and the task that moves its bytes.
pub(super) struct Connection {
    pub(super) client: Client,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // At once: a peer that no longer reads must not keep the task.
        self.driver.abort();
    }
}

impl Connector {
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self, Error> {
        let mut base = Config::new();
        base.dbname(&settings.database).user(&settings.user).application_name("blindvault");
        base.keepalives_idle(std::time::Duration::from_secs(10));
        if let Some(password) = &settings.password {
            // The client keeps a copy that nobody wipes: docs/threat-model.md, residues.
            base.password(password.expose());
        }
        let (hosts, tls) = match &settings.address {
            Address::Tcp { hosts, tls } => {
                base.ssl_mode(tokio_postgres::config::SslMode::Require);
                let of = |(host, port): &(String, u16)| {
                    let mut config = base.clone();
                    config.host(host).port(*port);
                    config
                };
                (hosts.iter().map(of).collect(), Some(MakeRustlsConnect::new(client_config(tls)?)))
            }
            Address::Socket { dir, port } => {
                base.ssl_mode(tokio_postgres::config::SslMode::Disable).host_path(dir).port(*port);
                (vec![base], None)
            }
        };
        let limit = settings.statement_timeout.as_millis();
        // A transaction whose client is gone must not keep its row locks.
        let setup = format!(
            "SET statement_timeout = {limit}; SET lock_timeout = {limit}; \
             SET idle_in_transaction_session_timeout = {limit}; \
             SELECT name, setting FROM pg_settings WHERE name IN \
             ('fsync', 'full_page_writes', 'synchronous_commit', 'transaction_read_only')"
        );
        Ok(Self { hosts, tls, timeout: settings.connect_timeout, setup })
    }

    /// A connection to the first host that takes writes. What it is notified of goes to `notify`.
    pub(super) async fn connect(&self, notify: Option<&Arc<Notify>>) -> Result<Connection, Fault> {
        // A host that swallows everything must leave time for the next.
        let share = self.timeout / u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let mut last = Fault::Lost("no host of the database is known");
        for host in &self.hosts {
            match timeout(share, self.connect_to(host, notify)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(fault)) => last = fault,
                Err(_) => last = Fault::Lost("the database did not answer in time"),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, host: &Config, notify: Option<&Arc<Notify>>) -> Result<Connection, Fault> {
        let connection = match &self.tls {
            Some(tls) => open(host, tls.clone(), notify).await?,
            None => open(host, NoTls, notify).await?,
        };
        let client = &connection.client;
        let mut weak = false;
        for message in client.simple_query(&self.setup).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            match (row.get("name"), row.get("setting")) {
                (Some("fsync" | "full_page_writes"), Some("off")) => {
                    return Err(Fault::Refused(
                        "the database does not make commits durable: fsync or full_page_writes is off",
                    ));
                }
                (Some("synchronous_commit"), Some("off" | "local")) => weak = true,
                (Some("transaction_read_only"), Some("on")) => return Err(Fault::Lost("the database takes no writes")),
                _ => {}
            }
        }
        if weak {
            // What is stronger, `remote_apply` for example, stays.
            client.batch_execute("SET synchronous_commit = 'on'").await?;
        }
        Ok(connection)
    }
}

/// TLS 1.3, the configured authorities and no others.
fn client_config(tls: &Tls) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in &tls.ca {
        roots.add(certificate.clone()).map_err(|_| Error::invalid("ca", "holds a certificate that is not one"))?;
    }
    let unusable = |_| Error::unavailable(Dependency::Store, "no TLS for the database");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots);
    match &tls.client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|_| Error::invalid("certificate", "does not go with its key, or is not acceptable")),
    }
}

async fn open<T>(config: &Config, tls: T, notify: Option<&Arc<Notify>>) -> Result<Connection, Fault>
where
    T: MakeTlsConnect<Socket> + 'static,
    T::Stream: Send,
    T::TlsConnect: Send,
    <T::TlsConnect as tokio_postgres::tls::TlsConnect<Socket>>::Future: Send,
{
    let (client, mut connection) = config.connect(tls).await?;
    let notify = notify.cloned();
    let driver = tokio::spawn(async move {
        loop {
            let next = std::future::poll_fn(|context| connection.poll_message(context)).await;
            match (&notify, next) {
                (Some(notify), Some(Ok(AsyncMessage::Notification(_)))) => notify.notify_one(),
                (_, Some(Ok(_))) => {}
                (_, None | Some(Err(_))) => break,
            }
        }
        // Whoever waits for notifications learns at once that none will come.
        if let Some(notify) = notify {
            notify.notify_one();
        }
    });
    Ok(Connection { client, driver: driver.abort_handle() })
}
