//! The store key: 32 random bytes of one installation, made under its default custody, kept beside the rows.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::chain::Total;
use super::fault::{Fault, of_commit};
use super::seal::Sealer;
use crate::error::Error;
use crate::id::KeyVersion;
use crate::kms::{EncryptionContext, Layer, RootFailure, Roots, Wrapping};

/// Reads the store key, or makes it if there are no rows yet.
///
/// # Errors
/// [`Error::FailedPrecondition`] if another root key or instance made it; [`Error::Corrupt`] if there are rows but no
/// key; [`Error::Unavailable`] without root key or database.
pub(super) async fn load(client: &mut Client, roots: &Arc<Roots>, instance: &str) -> Result<Sealer, Error> {
    let context = EncryptionContext {
        instance: instance.to_owned(),
        tenant: None,
        version: KeyVersion::FIRST,
        layer: Layer::StoreKey,
    };
    if stored(client).await?.is_none() {
        let rows = client.query_typed("SELECT 1 FROM blindvault_rows LIMIT 1", &[]).await.map_err(Fault::from)?;
        if !rows.is_empty() {
            return Err(Error::corrupt("database", "table blindvault_store_key: there are rows, but no key to them"));
        }
        let (key, wrapping) = roots.generate(roots.default_custody(), &context).await.map_err(refused)?;
        let total = Total::EMPTY.seal(&Sealer::new(&key, instance)?)?;
        let wrapped = serde_json::to_vec(&wrapping).map_err(|_| damaged())?;
        make(client, &wrapping.custody().to_string(), &wrapped, &total).await?;
    }
    // Read back: another gateway may have been faster, and its key is the key then.
    let wrapped = stored(client).await?.ok_or_else(|| Error::corrupt("database", "the store key is gone again"))?;
    let wrapping: Wrapping = serde_json::from_slice(&wrapped).map_err(|_| damaged())?;
    Sealer::new(&roots.unwrap(&wrapping, &context).await.map_err(refused)?, instance)
}

/// Writes the key, and the state of no rows sealed under it, unless there is one.
async fn make(client: &mut Client, custody: &str, wrapped: &[u8], total: &[u8]) -> Result<(), Error> {
    let work = client.transaction().await.map_err(Fault::from)?;
    let sql = "INSERT INTO blindvault_store_key (id, custody, wrapped) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
    let made =
        work.execute_typed(sql, &[(&custody, Type::TEXT), (&wrapped, Type::BYTEA)]).await.map_err(Fault::from)?;
    if made == 1 {
        let sql = "UPDATE blindvault_epoch SET sealed = $1 WHERE id = 1 AND epoch = 1 AND sealed IS NULL";
        let begun = work.execute_typed(sql, &[(&total, Type::BYTEA)]).await.map_err(Fault::from)?;
        if begun != 1 {
            return Err(Error::corrupt("database", "table blindvault_epoch: there were changes, but no key to them"));
        }
    }
    work.commit().await.map_err(|error| of_commit(Some(&error)))
}

async fn stored(client: &Client) -> Result<Option<Vec<u8>>, Fault> {
    let rows = client.query_typed("SELECT wrapped FROM blindvault_store_key WHERE id = 1", &[]).await?;
    rows.first().map(|row| Ok(row.try_get(0)?)).transpose()
}

fn damaged() -> Error {
    Error::corrupt("database", "table blindvault_store_key: not as it was written")
}

/// A root that does not know the key, or is not given here, is one of another installation, as far as one can tell.
fn refused(failure: RootFailure) -> Error {
    failure.into()
}
