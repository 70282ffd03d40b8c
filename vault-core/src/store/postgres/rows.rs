//! Reading rows, and single statements that write.

use tokio::time::timeout;
use tokio_postgres::Row as SqlRow;
use tokio_postgres::types::{ToSql, Type};

use super::Shared;
use super::cache::tenant_of;
use super::fault::Fault;
use super::fresh::Seen;
use crate::error::Error;
use crate::store::{Row, Scanned, Table};

/// A row, and the epoch of its tenant's last change, of one moment; each may be absent.
const GET: &str = "SELECT r.version, r.value, h.rows_epoch FROM (SELECT 1) AS one (one) \
    LEFT JOIN blindvault_rows r ON r.kind = $1 AND r.key = $2 LEFT JOIN blindvault_changes h ON h.tenant = $3";

/// How often rows are read again because more was known than they showed: another gateway was writing.
const ATTEMPTS: u32 = 8;

pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The first key behind all that start with `prefix`; `None` if there is none.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut key = prefix.get(..=last)?.to_vec();
    *key.last_mut()? += 1;
    Some(key)
}

impl Shared {
    /// Runs one statement that reads. A connection that had died while it was idle is no reason to fail.
    pub(super) async fn read(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<SqlRow>, Error> {
        loop {
            let loan = self.pool.take().await?;
            let fault = match timeout(self.limit, loan.connection.client.query_typed(sql, parameters)).await {
                Ok(Ok(rows)) => {
                    self.pool.give_back(loan);
                    return Ok(rows);
                }
                Ok(Err(error)) => Fault::from(error),
                Err(_) => return Err(Fault::Lost("the database did not answer in time").into()),
            };
            if !(loan.reused && matches!(fault, Fault::Lost(_))) {
                return Err(fault.into());
            }
            // The others of its age are dead too.
            self.pool.forget_idle();
        }
    }

    /// Runs one statement that writes and may be repeated. Returns how many rows it changed.
    pub(super) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Error> {
        loop {
            let loan = self.pool.take().await?;
            let fault = match timeout(self.limit, loan.connection.client.execute_typed(sql, parameters)).await {
                Ok(Ok(changed)) => {
                    self.pool.give_back(loan);
                    return Ok(changed);
                }
                Ok(Err(error)) => Fault::from(error),
                Err(_) => Fault::Lost("the database did not answer in time"),
            };
            if !(loan.reused && matches!(fault, Fault::Lost(_))) {
                return Err(fault.into());
            }
            self.pool.forget_idle();
        }
    }

    pub(super) async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        let stored_key = self.sealer.stored_key(table, key)?;
        let tenant = tenant_of(key);
        let parameters: &[Parameter<'_>] =
            &[(&table.name(), Type::TEXT), (&stored_key, Type::BYTEA), (&tenant, Type::BYTEA)];
        for _ in 0..ATTEMPTS {
            let before = self.fresh.total().epoch;
            let found = self.read(GET, parameters).await?;
            let (version, sealed, head) = found.first().map_or(Ok((None, None, None)), columns).map_err(Fault::from)?;
            let row = match (version, sealed) {
                (Some(version), Some(sealed)) => Some(self.sealer.open(table, &stored_key, version, sealed)?),
                _ => None,
            };
            if row.as_ref().is_some_and(|row| row.key != key) {
                return Err(Fault::Damaged("a row holds the key of another").into());
            }
            let seen = Seen { kind: table.name(), key: &stored_key, version: version.unwrap_or(0) };
            if self.is_newest(tenant, (before, head.unwrap_or(0)), &[seen]).await? {
                return Ok(row.map(|row| row.row));
            }
        }
        Err(Fault::Again.into())
    }

    pub(super) async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Scanned>, Error> {
        let prefix = self.sealer.stored_prefix(table, prefix)?;
        let after = after.map(|key| self.sealer.stored_key(table, key)).transpose()?;
        let (from, starts) = match &after {
            Some(after) if after.as_slice() >= prefix => (after.as_slice(), ">"),
            _ => (prefix, ">="),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let behind = behind(prefix);
        let name = table.name();
        let mut parameters: Vec<Parameter<'_>> = vec![(&name, Type::TEXT), (&from, Type::BYTEA), (&limit, Type::INT8)];
        let ends = match &behind {
            Some(behind) => {
                parameters.push((behind, Type::BYTEA));
                "AND r.key < $4 "
            }
            None => "",
        };
        let sql = format!(
            "SELECT r.version, r.value, h.rows_epoch, r.key FROM blindvault_rows r \
             LEFT JOIN blindvault_changes h ON h.tenant = r.tenant \
             WHERE r.kind = $1 AND r.key {starts} $2 {ends}ORDER BY r.key LIMIT $3"
        );
        for _ in 0..ATTEMPTS {
            let before = self.fresh.total().epoch;
            if let Some(found) = self.opened(table, before, &self.read(&sql, &parameters).await?).await? {
                return Ok(found);
            }
        }
        Err(Fault::Again.into())
    }

    /// The rows of a scan, if they are the newest; `None` if more is known than they show.
    async fn opened(&self, table: Table, before: i64, found: &[SqlRow]) -> Result<Option<Vec<Scanned>>, Error> {
        let mut opened = Vec::with_capacity(found.len());
        let (mut tenant, mut head, mut seen) = (Vec::new(), 0, Vec::new());
        for row in found {
            let (version, sealed, epoch) = columns(row).map_err(Fault::from)?;
            let key: &[u8] = row.try_get(3).map_err(Fault::from)?;
            let version = version.unwrap_or(0);
            let scanned = self.sealer.open(table, key, version, sealed.unwrap_or_default())?;
            // In order of their keys, the rows of a tenant are beside each other.
            let (own, epoch) = (tenant_of(&scanned.key), epoch.unwrap_or(0));
            if own != tenant || epoch != head {
                if !seen.is_empty() && !self.is_newest(&tenant, (before, head), &seen).await? {
                    return Ok(None);
                }
                (tenant, head, seen) = (own.to_vec(), epoch, Vec::new());
            }
            seen.push(Seen { kind: table.name(), key, version });
            opened.push(scanned);
        }
        let newest = seen.is_empty() || self.is_newest(&tenant, (before, head), &seen).await?;
        Ok(newest.then_some(opened))
    }
}

type Columns<'a> = (Option<i64>, Option<&'a [u8]>, Option<i64>);

fn columns(row: &SqlRow) -> Result<Columns<'_>, tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys_and_before_the_next() {
        assert_eq!(behind(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(behind(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(behind(b"acme\0").as_deref(), Some(&b"acme\x01"[..]));
        assert_eq!(behind(b""), None);
        assert_eq!(behind(b"\xff\xff"), None);
    }
}
