//! Writing a backup.

use std::io;

use super::format::{Chunks, ENOUGH, Header, Record, start};
use super::{READ_ORDER, Report};
use crate::crypto::KcKey;
use crate::error::{Dependency, Error};
use crate::id::KeyVersion;
use crate::kms::{EncryptionContext, Layer, Roots};
use crate::store::Store;
use crate::time::Timestamp;

/// Rows read at a time.
const PAGE: usize = 256;

pub(super) fn context(instance: &str) -> EncryptionContext {
    EncryptionContext {
        instance: instance.to_owned(),
        tenant: None,
        version: KeyVersion::FIRST,
        layer: Layer::BackupKey,
    }
}

fn failed(_: io::Error) -> Error {
    Error::unavailable(Dependency::Store, "the backup cannot be written")
}

/// Writes all rows of a store, sealed under a fresh key that the roots of the default custody hold. What was written is
/// a backup only if this answers `Ok`, and durable only once the caller has synced it.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::RootKey`], [`Error::Corrupt`].
pub async fn write(
    store: &dyn Store,
    roots: &Roots,
    instance: &str,
    now: Timestamp,
    to: &mut (dyn io::Write + Send),
) -> Result<Report, Error> {
    let (key, wrapping) = roots.generate(roots.default_custody(), &context(instance)).await?;
    let header = Header { instance: instance.to_owned(), created: now.0, wrapping };
    let start = start(&header)?;
    to.write_all(&start).map_err(failed)?;
    let mut chunks = Chunks::new(KcKey::new(&key)?, &start);
    let mut report = Report::new(header);
    let mut plain = Vec::with_capacity(ENOUGH);
    for table in READ_ORDER {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(table, b"", after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for scanned in page {
                report.count(table);
                let (version, value) = (scanned.row.version, scanned.row.value);
                Record::Row { table, key: scanned.key, version, value }.write(&mut plain);
                if plain.len() >= ENOUGH {
                    let sealed = chunks.seal(std::mem::take(&mut plain), false)?;
                    to.write_all(&sealed).map_err(failed)?;
                }
            }
        }
    }
    Record::End { rows: report.rows() }.write(&mut plain);
    to.write_all(&chunks.seal(plain, true)?).map_err(failed)?;
    to.flush().map_err(failed)?;
    Ok(report)
}
