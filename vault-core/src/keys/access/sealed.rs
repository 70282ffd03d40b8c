//! Rows that bind themselves: sealed under a key of their tenant, for their place.
//!
//! ```text
//! sealed  N(24) ‖ C(32) ‖ ciphertext ‖ tag(16)                            KC-XAES-256-GCM, as for wrapped keys
//! key     HKDF-Expand-SHA256(the tenant's side key "audit-pseudonym", "blindvault/accessrow/v1" ‖ 00, 32)
//! AAD     "blindvault/accessrow/v1" ‖ 00 ‖ LP(table) ‖ LP(row key) ‖ u8 (1 if it has ended)
//! ```
//!
//! So whoever can write the store's file can neither make nor change a consent or a grant, nor move one to another place
//! or tenant, nor read who gave it; and they are gone with the tenant's keys. It does not show that a row is the newest:
//! that is the store's part (`docs/consent.md`).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base64_bytes;
use crate::crypto::{KcKey, expand_sha256, open_bytes, seal_bytes};
use crate::error::Error;
use crate::id::TenantId;
use crate::keys::keyring::Keyring;
use crate::keys::rows;
use crate::store::{Expect, Row, Table, Write};

const LABEL: &[u8] = b"blindvault/accessrow/v1\0";

/// A consent's or grant's row as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keys) struct SealedRow {
    #[serde(with = "base64_bytes")]
    sealed: Vec<u8>,
    /// It was withdrawn or revoked, for ever: a restore takes such rows over from newer backups. Bound into the seal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// Seals and opens the rows of one tenant.
pub(super) struct RowKey(KcKey);

impl Keyring {
    /// The key for a tenant's rows.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant, [`Error::FailedPrecondition`] for a destroyed one;
    /// [`Error::Unavailable`], [`Error::RootKey`].
    pub(super) async fn row_key(&self, tenant: &TenantId) -> Result<RowKey, Error> {
        let side_key = self.pseudonym_key(tenant).await?;
        Ok(RowKey(KcKey::new(&expand_sha256(&side_key.0, &[LABEL])?)?))
    }
}

fn aad(table: Table, key: &[u8], ended: bool) -> Vec<u8> {
    let mut aad = LABEL.to_vec();
    for part in [table.name().as_bytes(), key] {
        // Names of tables and keys of rows are far below 64 KiB.
        aad.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        aad.extend_from_slice(part);
    }
    aad.push(u8::from(ended));
    aad
}

impl RowKey {
    /// A write of a row.
    pub(super) fn write<T: Serialize>(
        &self,
        (table, key): (Table, Vec<u8>),
        expect: Expect,
        value: &T,
        ended: bool,
    ) -> Result<Write, Error> {
        let plain =
            serde_json::to_vec(value).map_err(|_| Error::corrupt("store", "a row cannot be written as JSON"))?;
        let sealed = seal_bytes(&self.0, &aad(table, &key, ended), plain)?;
        rows::write(table, key, expect, &SealedRow { sealed, ended })
    }

    /// Opens a row; whether it has ended comes with it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a row that this tenant's key did not seal for this place.
    pub(super) fn open<T: DeserializeOwned>(&self, table: Table, key: &[u8], row: &Row) -> Result<(T, bool), Error> {
        let damaged = || Error::corrupt("store", format!("table {}: a row is not as it was sealed", table.name()));
        let stored: SealedRow = rows::decode(table, row)?;
        let plain = match open_bytes(&self.0, &aad(table, key, stored.ended), &stored.sealed) {
            Err(Error::Unopenable) => return Err(damaged()),
            opened => opened?,
        };
        Ok((serde_json::from_slice(&plain).map_err(|_| damaged())?, stored.ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Key32;

    fn key(byte: u8) -> RowKey {
        RowKey(KcKey::new(&Key32::copy_of(&[byte; 32]).unwrap()).unwrap())
    }

    fn row(write: &Write) -> Row {
        Row { version: 1, value: write.value.clone() }
    }

    #[test]
    fn a_row_opens_under_its_key_in_its_place_as_it_was() {
        let place = || (Table::Consents, b"acme\x000123456789abcdef".to_vec());
        let write = key(1).write(place(), Expect::Absent, &"consent", false).unwrap();
        assert_eq!(key(1).open(Table::Consents, &write.key, &row(&write)), Ok(("consent".to_owned(), false)));
        let refused = |key: &RowKey, table, at: &[u8], row: &Row| {
            assert!(matches!(key.open::<String>(table, at, row), Err(Error::Corrupt { .. })));
        };
        refused(&key(2), Table::Consents, &write.key, &row(&write));
        refused(&key(1), Table::Grants, &write.key, &row(&write));
        refused(&key(1), Table::Consents, b"acme\x000123456789abcdeg", &row(&write));
        // Withdrawn cannot be made out of one that holds, nor the other way round.
        let text = String::from_utf8(write.value.clone()).unwrap();
        let ended = Row { version: 1, value: text.replace("\"}", "\",\"ended\":true}").into_bytes() };
        assert!(rows::decode::<SealedRow>(Table::Consents, &ended).unwrap().ended);
        refused(&key(1), Table::Consents, &write.key, &ended);
        let over = key(1).write(place(), Expect::Absent, &"consent", true).unwrap();
        assert_eq!(key(1).open(Table::Consents, &over.key, &row(&over)), Ok(("consent".to_owned(), true)));
        let text = String::from_utf8(over.value.clone()).unwrap();
        let again = Row { version: 1, value: text.replace(",\"ended\":true", "").into_bytes() };
        refused(&key(1), Table::Consents, &over.key, &again);
    }
}
