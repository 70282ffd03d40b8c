//! Which gateways have wiped what was revoked, as each of them confirmed it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::types::Type;

use super::Shared;
use super::chain::open_tenant;
use super::fault::Fault;
use super::gateways::{CONFIRMATION, Entry};
use crate::error::Error;
use crate::store::Eviction;
use crate::time::Timestamp;

/// Between two looks at what others have confirmed.
const LOOK: Duration = Duration::from_millis(20);
/// How often what was read is read again because more was known.
const ATTEMPTS: usize = 16;

const TOLD: &str = "SELECT id, epoch, sealed FROM blindvault_gateways";
const HEAD: &str = "SELECT rows_epoch, sealed FROM blindvault_changes WHERE tenant = $1";

impl Shared {
    /// What each gateway confirmed last, as it stands in the database.
    pub(super) async fn told(&self) -> Result<HashMap<String, (i64, Vec<u8>)>, Error> {
        let rows = self.read(TOLD, &[]).await?;
        let rows = rows.iter().map(|row| {
            let id: &[u8] = row.try_get(0)?;
            Ok((String::from_utf8_lossy(id).into_owned(), (row.try_get(1)?, row.try_get(2)?)))
        });
        Ok(rows.collect::<Result<_, tokio_postgres::Error>>().map_err(Fault::from)?)
    }

    /// The gateways, and which of them have wiped what was last revoked of a tenant; waits a while for the others.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(super) async fn evictions(&self, tenant: &[u8], patience: Duration) -> Result<Vec<Eviction>, Error> {
        let until = Instant::now() + patience;
        loop {
            let found = self.look_at_evictions(tenant).await?;
            if Instant::now() >= until || found.iter().all(|gateway| gateway.evicted.is_some()) {
                return Ok(found);
            }
            sleep(LOOK).await;
        }
    }

    async fn look_at_evictions(&self, tenant: &[u8]) -> Result<Vec<Eviction>, Error> {
        // In this order: a gateway that joins later finds the keys gone.
        let revoked = self.revoked_of(tenant).await?;
        let (directory, _) = self.directory().await?;
        let told = self.told().await?;
        let evicted = |entry: &Entry| {
            let (epoch, sealed) = told.get(&entry.id)?;
            let body = self.sealer.disclose((CONFIRMATION, entry.id.as_bytes()), *epoch, sealed).ok()?;
            let at = u64::from_be_bytes(body.as_slice().try_into().ok()?);
            (*epoch >= revoked).then_some(Timestamp(at))
        };
        let seen = directory.gateways.iter().map(|entry| Eviction {
            gateway: entry.shown(),
            lease: Duration::from_millis(entry.lease_ms),
            evicted: evicted(entry),
        });
        Ok(seen.collect())
    }

    /// The last epoch at which keys of a tenant were revoked.
    async fn revoked_of(&self, tenant: &[u8]) -> Result<i64, Error> {
        for _ in 0..ATTEMPTS {
            let before = self.fresh.total().epoch;
            let found = self.read(HEAD, &[(&tenant, Type::BYTEA)]).await?;
            let head =
                found.first().map(|row| Ok::<_, Fault>((row.try_get::<_, i64>(0)?, row.try_get::<_, Vec<u8>>(1)?)));
            let head = head.transpose()?;
            let epoch = head.as_ref().map_or(0, |(epoch, _)| *epoch);
            if !self.is_newest(tenant, (before, epoch), &[]).await? {
                continue;
            }
            return match head {
                Some((epoch, sealed)) => Ok(open_tenant(&self.sealer, tenant, epoch, &sealed)?.keys),
                None => Ok(0),
            };
        }
        Err(Fault::Again.into())
    }
}
