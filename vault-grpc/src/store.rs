//! The store that a configuration names.

use std::path::Path;
use std::sync::Arc;

use vault_core::fs::{Fs, OsFs};
use vault_core::kms::Roots;
use vault_core::store::{Anchor, EmbeddedStore};

use crate::build::StartError;
use crate::config::{Config, ConfigError, Store};

/// Reads the files that the `[store]` part names; opens and changes nothing.
///
/// # Errors
/// The first that is not acceptable.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    match &config.store {
        Store::Embedded(_) => Ok(()),
        #[cfg(feature = "postgres")]
        Store::Postgres(postgres) => postgres::settings(postgres).map(drop),
        #[cfg(not(feature = "postgres"))]
        Store::Postgres(_) => Err(without_postgres(config)),
    }
}

/// Opens the store, or makes it where there is none. One that gateways share must continue the state that our own log
/// recorded last.
///
/// # Errors
/// [`StartError`]: what is wrong, and where.
pub(crate) fn open(
    config: &Config,
    roots: &Arc<Roots>,
    anchor: Option<Anchor>,
) -> Result<Arc<dyn vault_core::store::Store>, StartError> {
    match &config.store {
        Store::Embedded(file) => {
            let fs: Arc<dyn Fs> = Arc::new(OsFs);
            let dir = match file.path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                _ => Path::new("."),
            };
            fs.create_dir_durable(dir).map_err(|e| file.error(format!("its directory: {}", e.kind())))?;
            Ok(Arc::new(EmbeddedStore::open(fs, &file.path)?))
        }
        #[cfg(feature = "postgres")]
        Store::Postgres(at) => postgres::open(at, roots, &config.instance, anchor),
        #[cfg(not(feature = "postgres"))]
        Store::Postgres(_) => {
            let _ = (roots, anchor);
            Err(without_postgres(config).into())
        }
    }
}

/// A configuration that was not read by this build.
#[cfg(not(feature = "postgres"))]
fn without_postgres(config: &Config) -> ConfigError {
    ConfigError::new(config.file.display().to_string(), "this build has no feature `postgres`")
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::sync::Arc;

    use vault_core::Error;
    use vault_core::error::Dependency;
    use vault_core::kms::Roots;
    use vault_core::principal::certificates_from_pem;
    use vault_core::secret::SecretBytes;
    use vault_core::store::{Address, Anchor, PostgresSettings, PostgresStore, Store, Tls};

    use crate::build::StartError;
    use crate::config::{ConfigError, NamedFile, Postgres, PostgresAddress};
    use crate::tls::files::{MAX_PEM, private_key, read};

    /// Longest password file, in bytes.
    const MAX_PASSWORD: u64 = 4096;

    pub(super) fn settings(from: &Postgres) -> Result<PostgresSettings, ConfigError> {
        let certificates =
            |file: &NamedFile| certificates_from_pem(&read(file, MAX_PEM, false)?).map_err(|e| file.error(e));
        let address = match &from.address {
            PostgresAddress::Tcp { hosts, ca, client } => {
                let client = match client {
                    Some((certificate, key)) => Some((certificates(certificate)?, private_key(key)?)),
                    None => None,
                };
                Address::Tcp { hosts: hosts.clone(), tls: Tls { ca: certificates(ca)?, client } }
            }
            PostgresAddress::Socket { dir, port } => Address::Socket { dir: dir.clone(), port: *port },
        };
        Ok(PostgresSettings {
            address,
            database: from.database.clone(),
            user: from.user.clone(),
            password: from.password.as_ref().map(password).transpose()?,
            connections: from.connections,
            connect_timeout: from.connect_timeout,
            wait_timeout: from.wait_timeout,
            statement_timeout: from.statement_timeout,
            revocation_lease: from.revocation_lease,
            anchor: None,
            cached_rows: from.cached_rows,
            gateway: from.gateway.clone(),
        })
    }

    /// The first line of a file that nobody else may read.
    fn password(file: &NamedFile) -> Result<SecretBytes, ConfigError> {
        let bytes = read(file, MAX_PASSWORD, true)?;
        match bytes.split(|byte| *byte == b'\n').next() {
            Some(line) if !line.is_empty() => Ok(SecretBytes::copy_of(line)),
            _ => Err(file.error("holds no password in its first line")),
        }
    }

    pub(super) fn open(
        from: &Postgres,
        roots: &Arc<Roots>,
        instance: &str,
        anchor: Option<Anchor>,
    ) -> Result<Arc<dyn Store>, StartError> {
        let settings = PostgresSettings { anchor, ..settings(from)? };
        let opening = PostgresStore::open(settings, Arc::clone(roots), instance);
        // The store brings its own threads; this only waits. The caller is on a thread that may block.
        let waiting = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|_| Error::unavailable(Dependency::Store, "no thread to wait for the database"))?;
        Ok(Arc::new(waiting.block_on(opening)?))
    }
}
