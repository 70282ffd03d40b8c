//! The store key: 32 random bytes of one installation, made and wrapped by its root key, kept beside the rows.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::chain::Total;
use super::fault::{Fault, of_commit};
use super::seal::Sealer;
use crate::error::{Dependency, Error};
use crate::id::KeyVersion;
use crate::kms::{EncryptionContext, Layer, RootError, RootKey};

/// Reads the store key, or makes it if there are no rows yet.
///
/// # Errors
/// [`Error::FailedPrecondition`] if another root key or instance made it; [`Error::Corrupt`] if there are rows but no
/// key; [`Error::Unavailable`] without root key or database.
pub(super) async fn load(client: &mut Client, root: &Arc<dyn RootKey>, instance: &str) -> Result<Sealer, Error> {
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
        let made = root.generate(&context).await.map_err(refused)?;
        let total = Total::EMPTY.seal(&Sealer::new(&made.key, instance)?)?;
        make(client, root.id(), &made.wrapped, &total).await?;
    }
    // Read back: another gateway may have been faster, and its key is the key then.
    let (by, wrapped) =
        stored(client).await?.ok_or_else(|| Error::corrupt("database", "the store key is gone again"))?;
    if by != root.id() {
        return Err(Error::FailedPrecondition("the store's key is under another root key"));
    }
    Sealer::new(&root.unwrap(&wrapped, &context).await.map_err(refused)?, instance)
}

/// Writes the key, and the state of no rows sealed under it, unless there is one.
async fn make(client: &mut Client, root: &str, wrapped: &[u8], total: &[u8]) -> Result<(), Error> {
    let work = client.transaction().await.map_err(Fault::from)?;
    let sql = "INSERT INTO blindvault_store_key (id, root, wrapped) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
    let made = work.execute_typed(sql, &[(&root, Type::TEXT), (&wrapped, Type::BYTEA)]).await.map_err(Fault::from)?;
    if made == 1 {
        let sql = "UPDATE blindvault_epoch SET sealed = $1 WHERE id = 1 AND epoch = 1 AND sealed IS NULL";
        let begun = work.execute_typed(sql, &[(&total, Type::BYTEA)]).await.map_err(Fault::from)?;
        if begun != 1 {
            return Err(Error::corrupt("database", "table blindvault_epoch: there were changes, but no key to them"));
        }
    }
    work.commit().await.map_err(|error| of_commit(Some(&error)))
}

async fn stored(client: &Client) -> Result<Option<(String, Vec<u8>)>, Fault> {
    let rows = client.query_typed("SELECT root, wrapped FROM blindvault_store_key WHERE id = 1", &[]).await?;
    rows.first().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

fn refused(error: RootError) -> Error {
    match error {
        RootError::NotMine => Error::FailedPrecondition(
            "the root key does not open the store's key: another instance or root key made it",
        ),
        RootError::Disabled => Error::FailedPrecondition("the root key of the store is disabled"),
        RootError::Unavailable(why) => Error::unavailable(Dependency::RootKey, why),
    }
}
