//! The encoding that entries are written in: big-endian integers, `LP(x)` = u16 length ‖ bytes, presence bytes 00 or 01.

use crate::error::Error;

/// Appends to an entry's bytes.
pub(super) struct Out<'a>(pub(super) &'a mut Vec<u8>);

impl Out<'_> {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// `LP(text)`, cut at the last character that fits `max` bytes; callers check lengths where cutting would lie.
    pub(super) fn text(&mut self, text: &str, max: usize) {
        let mut end = text.len().min(max).min(usize::from(u16::MAX));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&u16::try_from(end).unwrap_or(u16::MAX).to_be_bytes());
        self.bytes(text.as_bytes().get(..end).unwrap_or_default());
    }

    /// An addition: its tag, and what `write` appends behind the length of that.
    pub(super) fn addition(&mut self, tag: u8, write: impl FnOnce(&mut Out<'_>)) {
        let mut value = Vec::new();
        write(&mut Out(&mut value));
        self.u8(tag);
        // What is written is bounded far below.
        self.bytes(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.bytes(&value);
    }

    /// 00, or 01 and what `write` appends.
    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Reads an entry's bytes; every refusal names the position.
pub(super) struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A refusal at the current position.
    pub(super) fn refuse(&self, why: &str) -> Error {
        Error::corrupt("audit entry", format!("byte {}: {why}", self.at))
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(n).ok_or_else(|| self.refuse("a length is too large"))?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.refuse("the entry ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N)?;
        <[u8; N]>::try_from(taken).map_err(|_| self.refuse("the entry ends too early"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self, max: usize) -> Result<&'a str, Error> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(self.refuse("a text is longer than its field allows"));
        }
        std::str::from_utf8(self.take(len)?).map_err(|_| self.refuse("a text is not UTF-8"))
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<Option<T>, Error> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.refuse("a presence byte is neither 00 nor 01")),
        }
    }

    /// A count of at least 1, and that many additions by ascending tag; `read` takes all of each one's value.
    pub(super) fn additions(&mut self, mut read: impl FnMut(&mut Self, u8) -> Result<(), Error>) -> Result<(), Error> {
        let count = self.u8()?;
        if count == 0 {
            return Err(self.refuse("an entry of this kind has at least one addition"));
        }
        let mut last = 0;
        for _ in 0..count {
            let tag = self.u8()?;
            if tag <= last {
                return Err(self.refuse("additions ascend by their tags"));
            }
            last = tag;
            let len = usize::from(self.u16()?);
            let end = self.at.checked_add(len).ok_or_else(|| self.refuse("a length is too large"))?;
            read(self, tag)?;
            if self.at != end {
                return Err(self.refuse("an addition has another length than its value"));
            }
        }
        Ok(())
    }

    /// Refuses what is left over.
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.refuse("bytes follow the end of the entry")) }
    }
}
