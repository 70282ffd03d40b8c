//! Header, chunks and records.

use serde::{Deserialize, Serialize};

use crate::crypto::{COMMITMENT, KcKey, NONCE, TAG, open_bytes, seal_bytes, sha256};
use crate::error::Error;
use crate::kms::Wrapping;
use crate::store::{MAX_KEY, MAX_VALUE, Table};

pub(super) const MAGIC: &[u8; 8] = b"BLVBACK1";
/// Longest header, in bytes: a wrapping by five roots is far shorter.
pub(super) const MAX_HEADER: usize = 64 * 1024;
/// A chunk is sealed once it holds this many bytes; one more record always fits.
pub(super) const ENOUGH: usize = 256 * 1024;
const MAX_RECORD: usize = 1 + 1 + u8::MAX as usize + 2 + MAX_KEY + 8 + 4 + MAX_VALUE;
const AROUND: usize = NONCE + COMMITMENT + TAG;
/// Longest chunk, sealed.
pub(super) const MAX_CHUNK: usize = ENOUGH + MAX_RECORD + 9 + AROUND;

const LABEL: &[u8] = b"blindvault/backup/v1\0";
const ROW: u8 = 1;
const END: u8 = 2;

/// What a backup says about itself in the clear.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// The installation whose store it was; bound into the wrapping.
    pub instance: String,
    /// When it was begun, in milliseconds since 1970.
    pub created: u64,
    /// The backup's key, as the roots of the default custody wrapped it.
    pub wrapping: Wrapping,
}

/// A damaged backup.
pub(super) fn damaged(at: impl Into<String>) -> Error {
    Error::corrupt("the backup", at)
}

/// The start of a file.
pub(super) fn start(header: &Header) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(header).map_err(|_| Error::corrupt("backup", "the header cannot be written"))?;
    let len = u32::try_from(json.len()).map_err(|_| Error::invalid("header", "too long"))?;
    Ok([MAGIC.as_slice(), &len.to_be_bytes(), &json].concat())
}

/// Seals and opens the chunks of one file, in order.
pub(super) struct Chunks {
    key: KcKey,
    start: [u8; 32],
    index: u64,
}

impl Chunks {
    pub(super) fn new(key: KcKey, start: &[u8]) -> Self {
        Self { key, start: sha256(&[start]), index: 0 }
    }

    fn aad(&mut self, last: bool) -> Vec<u8> {
        let aad = [LABEL, &self.start, &self.index.to_be_bytes(), &[u8::from(last)]].concat();
        self.index += 1;
        aad
    }

    /// The next chunk, with its length.
    pub(super) fn seal(&mut self, plain: Vec<u8>, last: bool) -> Result<Vec<u8>, Error> {
        let aad = self.aad(last);
        let sealed = seal_bytes(&self.key, &aad, plain)?;
        let len = u32::try_from(sealed.len()).map_err(|_| Error::invalid("chunk", "too long"))?;
        Ok([&len.to_be_bytes()[..], &sealed].concat())
    }

    /// Opens the next chunk; `last` if nothing follows it in the file.
    pub(super) fn open(&mut self, sealed: &[u8], last: bool) -> Result<Vec<u8>, Error> {
        let at = format!("chunk {}: does not open; altered, cut, or of another backup", self.index);
        let aad = self.aad(last);
        match open_bytes(&self.key, &aad, sealed) {
            Err(Error::Unopenable) => Err(damaged(at)),
            done => done,
        }
    }
}

/// One record of a backup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A row as the store held it.
    Row { table: Table, key: Vec<u8>, version: u64, value: Vec<u8> },
    /// The end, with the number of rows before it.
    End { rows: u64 },
}

impl Record {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Row { table, key, version, value } => {
                out.push(ROW);
                // The names of tables, and the bounds of rows, are far below what these lengths can hold.
                out.push(u8::try_from(table.name().len()).unwrap_or(u8::MAX));
                out.extend_from_slice(table.name().as_bytes());
                out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(&version.to_be_bytes());
                out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(value);
            }
            Self::End { rows } => {
                out.push(END);
                out.extend_from_slice(&rows.to_be_bytes());
            }
        }
    }

    /// Takes one record off the front; `None` if the bytes are no record.
    pub(super) fn read(from: &mut &[u8]) -> Option<Self> {
        fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
            let (front, rest) = from.split_at_checked(len)?;
            *from = rest;
            Some(front)
        }
        fn number<const N: usize>(from: &mut &[u8]) -> Option<u64> {
            let bytes: &[u8; N] = take(from, N)?.try_into().ok()?;
            Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        fn sized<'a, const N: usize>(from: &mut &'a [u8], most: usize) -> Option<&'a [u8]> {
            let len = usize::try_from(number::<N>(from)?).ok()?;
            if len > most { None } else { take(from, len) }
        }
        match number::<1>(from)? {
            kind if kind == u64::from(ROW) => {
                let name = sized::<1>(from, 255)?;
                let table = Table::ALL.into_iter().find(|table| table.name().as_bytes() == name)?;
                let key = sized::<2>(from, MAX_KEY)?.to_vec();
                let version = number::<8>(from)?;
                let value = sized::<4>(from, MAX_VALUE)?.to_vec();
                Some(Self::Row { table, key, version, value })
            }
            kind if kind == u64::from(END) => Some(Self::End { rows: number::<8>(from)? }),
            _ => None,
        }
    }
}
