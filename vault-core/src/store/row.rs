//! A row as the embedded store keeps it.
//!
//! `01 ‖ version (u64, big-endian) ‖ sum (16) ‖ value`, where sum is the first 16 bytes of
//! SHA-256("blindvault/row/v1" ‖ 00 ‖ LP(table) ‖ LP(key) ‖ version ‖ value) and LP(x) is x behind its u16 length. It
//! finds damage and a row in the wrong place; it is no signature, whoever can write the file can make one.

use ring::digest;

use super::{Row, Table};

/// The row format's only version.
const FORMAT: u8 = 1;
const SUM_LEN: usize = 16;
/// How much longer the stored bytes are than the value.
const HEADER_LEN: usize = 1 + 8 + SUM_LEN;

/// Why stored bytes are not the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// Shorter than a row's header.
    Short,
    /// A format byte this program does not know.
    Format,
    /// The checksum does not fit.
    Sum,
}

impl Damage {
    /// For the message.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Short => "shorter than a row's header",
            Self::Format => "an unknown row format",
            Self::Sum => "checksum mismatch",
        }
    }
}

fn sum(table: Table, key: &[u8], version: [u8; 8], value: &[u8]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"blindvault/row/v1\0");
    for part in [table.name().as_bytes(), key] {
        // Keys are bounded far below the saturation.
        context.update(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        context.update(part);
    }
    context.update(&version);
    context.update(value);
    context.finish()
}

/// The bytes to store.
pub(super) fn encode(table: Table, key: &[u8], version: u64, value: &[u8]) -> Vec<u8> {
    let version = version.to_be_bytes();
    let sum = sum(table, key, version, value);
    let mut bytes = Vec::with_capacity(HEADER_LEN + value.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&version);
    bytes.extend(sum.as_ref().iter().take(SUM_LEN));
    bytes.extend_from_slice(value);
    bytes
}

/// The row in stored bytes.
pub(super) fn decode(table: Table, key: &[u8], bytes: &[u8]) -> Result<Row, Damage> {
    let (format, rest) = bytes.split_first().ok_or(Damage::Short)?;
    if *format != FORMAT {
        return Err(Damage::Format);
    }
    let (version, rest) = rest.split_first_chunk::<8>().ok_or(Damage::Short)?;
    let (stored, value) = rest.split_first_chunk::<SUM_LEN>().ok_or(Damage::Short)?;
    if !sum(table, key, *version, value).as_ref().starts_with(stored) {
        return Err(Damage::Sum);
    }
    Ok(Row { version: u64::from_be_bytes(*version), value: value.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for value in [&b""[..], b"v", &[9; 65536]] {
            let bytes = encode(Table::DataKeys, b"key", 7, value);
            assert_eq!(bytes.len(), HEADER_LEN + value.len());
            assert_eq!(decode(Table::DataKeys, b"key", &bytes), Ok(Row { version: 7, value: value.to_vec() }));
        }
    }

    #[test]
    fn every_flipped_bit_and_cut_is_found() {
        let bytes = encode(Table::Tenants, b"acme", 1, b"some value");
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[i / 8] ^= 1 << (i % 8);
            assert!(decode(Table::Tenants, b"acme", &bad).is_err(), "bit {i}");
        }
        for len in 0..bytes.len() {
            assert!(decode(Table::Tenants, b"acme", &bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_row_in_the_wrong_place_is_found() {
        let bytes = encode(Table::Tenants, b"acme", 1, b"v");
        assert_eq!(decode(Table::Datasets, b"acme", &bytes), Err(Damage::Sum));
        assert_eq!(decode(Table::Tenants, b"acmf", &bytes), Err(Damage::Sum));
        // The boundary between key and value is bound too.
        assert_eq!(decode(Table::Tenants, b"acm", &bytes), Err(Damage::Sum));
    }

    /// The layout is a file format: this vector must not change.
    #[test]
    fn known_bytes() {
        assert_eq!(
            hex::encode(encode(Table::Tenants, b"acme", 258, b"value")),
            "0100000000000001022ad62fdeca2cc81c453e4dac54a1cad176616c7565"
        );
    }
}
