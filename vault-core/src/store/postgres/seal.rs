//! Rows as the database sees them (`docs/postgres.md`): sealed, bound to their place, under keys that name no person.
//!
//! ```text
//! sealed value = 01 ‖ N(24) ‖ C(32) ‖ ciphertext ‖ tag(16)                  KC-XAES-256-GCM, as for wrapped keys
//! key          = HKDF-Expand-SHA256(store key, "blindvault/storerow/v1" ‖ 00, 32)
//! AAD          = "blindvault/storerow/v1" ‖ 00 ‖ LP(instance) ‖ LP(table) ‖ LP(stored key) ‖ u64 version
//! plaintext    = LP(key) ‖ value
//! ```
//!
//! The stored key is the key, but for the third part of keys in `active_keys`: the subject, in whose place stands
//! HMAC-SHA256 over table, tenant, dataset and subject, under HKDF-Expand-SHA256(store key, "blindvault/rowkey/v1" ‖ 00,
//! 32). The heads of `chain` are sealed in the same way.

use ring::hmac;

use super::fault::Fault;
use crate::crypto::{KcKey, expand_sha256, open_bytes, seal_bytes};
use crate::error::Error;
use crate::secret::{Key32, scrub_stack};
use crate::store::{Row, Scanned, Table};

const VERSION: u8 = 1;
const ROW: &[u8] = b"blindvault/storerow/v1\0";
const MASK: &[u8] = b"blindvault/rowkey/v1\0";
const ELEMENT: &[u8] = b"blindvault/freshness/v1\0";

/// Seals and opens rows.
pub(super) struct Sealer {
    instance: String,
    row: KcKey,
    mask: Key32,
    element: Key32,
}

fn lp(out: &mut Vec<u8>, bytes: &[u8]) {
    // Instance, names and keys are bounded far below 64 KiB.
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take_lp(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// What comes before the subject in a key that names one, and the subject, if there is one.
fn subject_in(table: Table, key: &[u8]) -> Option<(&[u8], &[u8])> {
    let parts_before = match table {
        Table::ActiveKeys => 2,
        Table::Subjects => 1,
        _ => return None,
    };
    let last = key.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(parts_before - 1)?.0;
    key.split_at_checked(last + 1).filter(|(_, subject)| !subject.is_empty())
}

impl Sealer {
    pub(super) fn new(store_key: &Key32, instance: &str) -> Result<Self, Error> {
        let row = KcKey::new(&expand_sha256(store_key, &[ROW])?)?;
        let (mask, element) = (expand_sha256(store_key, &[MASK])?, expand_sha256(store_key, &[ELEMENT])?);
        Ok(Self { instance: instance.to_owned(), row, mask, element })
    }

    /// The key under which a row stands in the database.
    pub(super) fn stored_key(&self, table: Table, key: &[u8]) -> Result<Vec<u8>, Error> {
        let Some((before, subject)) = subject_in(table, key) else { return Ok(key.to_vec()) };
        let masked = mac(&self.mask, MASK, &[table.name().as_bytes(), before, subject], None)?;
        Ok([before, masked.as_slice()].concat())
    }

    /// HMAC-SHA256 that stands for something with a number, such as a row with its version, in the sums of `chain`.
    pub(super) fn element(&self, parts: &[&[u8]], number: i64) -> Result<[u8; 32], Error> {
        mac(&self.element, ELEMENT, parts, Some(number))
    }

    /// What a scan's prefix is in the database. None of a subject's key can be a prefix.
    pub(super) fn stored_prefix<'a>(&self, table: Table, prefix: &'a [u8]) -> Result<&'a [u8], Error> {
        if subject_in(table, prefix).is_some() {
            return Err(Error::invalid("prefix", "ends in a subject, by which rows cannot be found in a database"));
        }
        Ok(prefix)
    }

    fn aad(&self, kind: &str, stored_key: &[u8], number: u64) -> Vec<u8> {
        let mut aad = ROW.to_vec();
        for part in [self.instance.as_bytes(), kind.as_bytes(), stored_key] {
            lp(&mut aad, part);
        }
        aad.extend_from_slice(&number.to_be_bytes());
        aad
    }

    /// Seals bytes for a place and a number.
    pub(super) fn close(&self, (kind, name): (&str, &[u8]), number: u64, body: Vec<u8>) -> Result<Vec<u8>, Error> {
        Ok([vec![VERSION], seal_bytes(&self.row, &self.aad(kind, name, number), body)?].concat())
    }

    /// Opens what [`Self::close`] made for this place and number.
    pub(super) fn disclose(&self, (kind, name): (&str, &[u8]), number: i64, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let damaged = || Error::from(Fault::Damaged("a row is not as it was written, or not where"));
        let number = u64::try_from(number).map_err(|_| damaged())?;
        let (format, rest) = sealed.split_first().ok_or_else(damaged)?;
        if *format != VERSION {
            return Err(damaged());
        }
        match open_bytes(&self.row, &self.aad(kind, name, number), rest) {
            Err(Error::Unopenable) => Err(damaged()),
            done => done,
        }
    }

    /// Seals a row's value, and its key with it.
    pub(super) fn seal(
        &self,
        table: Table,
        (key, stored_key): (&[u8], &[u8]),
        version: u64,
        value: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let mut body = Vec::with_capacity(2 + key.len() + value.len());
        lp(&mut body, key);
        body.extend_from_slice(value);
        self.close((table.name(), stored_key), version, body)
    }

    /// Opens a row that stands in this place of the database with this version.
    pub(super) fn open(&self, table: Table, stored_key: &[u8], version: i64, sealed: &[u8]) -> Result<Scanned, Error> {
        let damaged = || Error::from(Fault::Damaged("a row holds what belongs to another"));
        let body = self.disclose((table.name(), stored_key), version, sealed)?;
        let (key, value) = take_lp(&body).ok_or_else(damaged)?;
        if self.stored_key(table, key)? != stored_key {
            return Err(damaged());
        }
        let version = u64::try_from(version).map_err(|_| damaged())?;
        Ok(Scanned { key: key.to_vec(), row: Row { version, value: value.to_vec() } })
    }
}

/// HMAC-SHA256(key, label ‖ LP(part) … ‖ number).
fn mac(key: &Key32, label: &[u8], parts: &[&[u8]], number: Option<i64>) -> Result<[u8; 32], Error> {
    let made = compute(key, label, parts, number);
    scrub_stack();
    made
}

// ring builds its HMAC state on the stack and leaves it there.
#[inline(never)]
fn compute(key: &Key32, label: &[u8], parts: &[&[u8]], number: Option<i64>) -> Result<[u8; 32], Error> {
    let mut message = label.to_vec();
    for part in parts {
        lp(&mut message, part);
    }
    message.extend(number.iter().flat_map(|number| number.to_be_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()?), &message);
    tag.as_ref().first_chunk().copied().ok_or(Error::Unopenable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(key: u8, instance: &str) -> Sealer {
        Sealer::new(&Key32::copy_of(&[key; 32]).unwrap(), instance).unwrap()
    }

    #[test]
    fn a_row_opens_only_in_its_place() {
        let own = sealer(1, "one");
        for (table, key) in [(Table::Tenants, &b"acme"[..]), (Table::ActiveKeys, b"acme\0orders\0alice")] {
            let stored = own.stored_key(table, key).unwrap();
            let sealed = own.seal(table, (key, &stored), 7, b"value").unwrap();
            let opened = own.open(table, &stored, 7, &sealed).unwrap();
            assert_eq!(opened, Scanned { key: key.to_vec(), row: Row { version: 7, value: b"value".to_vec() } });
            let refused = |sealer: &Sealer, table, stored: &[u8], version, sealed: &[u8]| {
                matches!(sealer.open(table, stored, version, sealed), Err(Error::Corrupt { .. }))
            };
            assert!(refused(&own, Table::Datasets, &stored, 7, &sealed));
            assert!(refused(&own, table, b"acmf", 7, &sealed));
            for version in [6, 8, 0, -7, i64::MAX] {
                assert!(refused(&own, table, &stored, version, &sealed));
            }
            assert!(refused(&sealer(1, "two"), table, &stored, 7, &sealed));
            assert!(refused(&sealer(2, "one"), table, &stored, 7, &sealed));
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(refused(&own, table, &stored, 7, &bad), "bit {bit}");
            }
            for len in 0..sealed.len() {
                assert!(refused(&own, table, &stored, 7, &sealed[..len]), "{len} bytes");
            }
        }
    }

    #[test]
    fn subjects_are_masked_each_in_its_place_and_nothing_else_is() {
        let own = sealer(1, "one");
        let stored = |table, key: &[u8]| own.stored_key(table, key).unwrap();
        let alice = stored(Table::ActiveKeys, b"acme\0orders\0alice");
        assert!(alice.starts_with(b"acme\0orders\0") && alice.len() == 12 + 32);
        assert_eq!(alice, stored(Table::ActiveKeys, b"acme\0orders\0alice"));
        let others =
            [&b"acme\0orders\0bob"[..], b"acme\0bills\0alice", b"globex\0orders\0alice", b"acme\0orders\0Alice"];
        let tails = others.map(|key| stored(Table::ActiveKeys, key)[key.len() - 5..].to_vec());
        assert!(tails.iter().all(|tail| !alice.ends_with(tail)));
        assert_ne!(alice, sealer(2, "one").stored_key(Table::ActiveKeys, b"acme\0orders\0alice").unwrap());
        for (table, key) in [
            (Table::ActiveKeys, &b"acme\0orders\0"[..]),
            (Table::ActiveKeys, b"acme\0orders"),
            (Table::DataKeys, b"acme\0\0id with zeros"),
            (Table::Subjects, b"acme\0"),
        ] {
            assert_eq!(stored(table, key), key);
        }
        assert!(own.stored_prefix(Table::ActiveKeys, b"acme\0orders\0").is_ok());
        assert!(matches!(own.stored_prefix(Table::ActiveKeys, b"acme\0orders\0a"), Err(Error::Invalid { .. })));
    }
}
