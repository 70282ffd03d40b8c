//! Reading a backup, and saying whether it is whole.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::format::{Chunks, Header, MAGIC, MAX_CHUNK, MAX_HEADER, Record, damaged};
use super::write::context;
use crate::crypto::KcKey;
use crate::error::{Dependency, Error};
use crate::keys::check_row;
use crate::kms::Roots;
use crate::store::Table;
use crate::time::Timestamp;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The installation whose store it was.
    pub instance: String,
    /// When it was begun.
    pub created: Timestamp,
    /// Rows by table.
    pub tables: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(super) fn new(header: Header) -> Self {
        let tables = Table::ALL.into_iter().map(|table| (table.name(), 0)).collect();
        Self { instance: header.instance, created: Timestamp(header.created), tables }
    }

    pub(super) fn count(&mut self, table: Table) {
        *self.tables.entry(table.name()).or_default() += 1;
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        self.tables.values().sum()
    }
}

/// A row's table, key and value.
pub(super) type Entry = (Table, Vec<u8>, Vec<u8>);

/// A backup being read.
pub(super) struct Reader<'a> {
    from: &'a mut (dyn Read + Send),
    chunks: Chunks,
    report: Report,
    /// The sealed chunk that comes next.
    next: Option<Vec<u8>>,
    plain: Vec<u8>,
    at: usize,
    ended: bool,
}

fn unreadable(_: io::Error) -> Error {
    Error::unavailable(Dependency::Store, "the backup cannot be read")
}

/// Fills the buffer, or says how many bytes there were.
fn fill(from: &mut (dyn Read + Send), buffer: &mut [u8]) -> Result<usize, Error> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(filled)
}

/// Bytes behind their u32 length; `None` at the end of the file.
fn sized(from: &mut (dyn Read + Send), most: usize, what: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut len = [0; 4];
    match fill(from, &mut len)? {
        0 => return Ok(None),
        4 => {}
        _ => return Err(damaged(format!("{what}: cut within its length"))),
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > most {
        return Err(damaged(format!("{what}: longer than {most} bytes")));
    }
    let mut bytes = vec![0; len];
    if fill(from, &mut bytes)? != len {
        return Err(damaged(format!("{what}: cut")));
    }
    Ok(Some(bytes))
}

impl<'a> Reader<'a> {
    /// Reads the header and has its key opened by the roots that it names.
    pub(super) async fn open(from: &'a mut (dyn Read + Send), roots: &Roots, instance: &str) -> Result<Self, Error> {
        let mut magic = [0; MAGIC.len()];
        if fill(from, &mut magic)? != magic.len() || magic != *MAGIC {
            return Err(damaged("byte 0: not a backup of version 1"));
        }
        let json = sized(from, MAX_HEADER, "the header")?.ok_or_else(|| damaged("the header: missing"))?;
        let header: Header = serde_json::from_slice(&json).map_err(|_| damaged("the header: not as it was written"))?;
        if header.instance != instance {
            return Err(Error::FailedPrecondition("the backup is of another instance"));
        }
        let key = roots.unwrap(&header.wrapping, &context(instance)).await?;
        let len = u32::try_from(json.len()).unwrap_or(u32::MAX);
        let start = [MAGIC.as_slice(), &len.to_be_bytes(), &json].concat();
        let chunks = Chunks::new(KcKey::new(&key)?, &start);
        let next = sized(from, MAX_CHUNK, "chunk 0")?;
        let report = Report::new(header);
        Ok(Self { from, chunks, report, next, plain: Vec::new(), at: 0, ended: false })
    }

    /// The next row; `None` after the last, if the backup ends as it must.
    pub(super) fn row(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            let mut rest = self.plain.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                if !self.chunk()? {
                    return if self.ended { Ok(None) } else { Err(damaged("it ends before its end")) };
                }
                continue;
            }
            if self.ended {
                return Err(damaged("something follows its end"));
            }
            let record = Record::read(&mut rest).ok_or_else(|| damaged("a chunk is no row and no end"))?;
            self.at = self.plain.len() - rest.len();
            match record {
                Record::Row { table, key, value, .. } => {
                    self.report.count(table);
                    return Ok(Some((table, key, value)));
                }
                Record::End { rows } if rows == self.report.rows() => self.ended = true,
                Record::End { .. } => return Err(damaged("the number of rows is not that of its end")),
            }
        }
    }

    fn chunk(&mut self) -> Result<bool, Error> {
        let Some(sealed) = self.next.take() else { return Ok(false) };
        self.next = sized(self.from, MAX_CHUNK, "a chunk")?;
        self.plain = self.chunks.open(&sealed, self.next.is_none())?;
        self.at = 0;
        Ok(true)
    }

    pub(super) fn report(self) -> Report {
        self.report
    }
}

/// Reads a backup to its end: the root keys open its key, nothing of it was altered or is missing, and each row is one
/// that this version reads.
///
/// # Errors
/// [`Error::Corrupt`] naming the place; [`Error::FailedPrecondition`] for a backup of another instance;
/// [`Error::RootKey`], [`Error::Unavailable`].
pub async fn verify(from: &mut (dyn Read + Send), roots: &Roots, instance: &str) -> Result<Report, Error> {
    let mut reader = Reader::open(from, roots, instance).await?;
    while let Some((table, _, value)) = reader.row()? {
        check_row(table, &value)?;
    }
    Ok(reader.report())
}
