//! Opening a part of a stream.

use super::open::Front;
use super::{Layout, PlainRange, STREAM_CHUNK, STREAM_FRONT};
use crate::envelope::{Context, DataKey};
use crate::error::Error;
use crate::secret::SecretBytes;

/// Opens a part of a stream of a stated length. It takes the last chunk first, so that the length is proven before
/// anything else opens; then the chunks before it that hold the range, and no others.
pub struct RangeOpener {
    front: Front,
    layout: Layout,
    range: PlainRange,
    /// The plaintext of the last chunk, kept for the end, once it has opened.
    last: Option<SecretBytes>,
    /// The next chunk, and the one behind the last that is needed, before the last chunk of the stream.
    next: u64,
    behind: u64,
    opened: u64,
}

impl std::fmt::Debug for RangeOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeOpener").field("layout", &self.layout).field("range", &self.range).finish_non_exhaustive()
    }
}

impl RangeOpener {
    /// Begins; `front` is the first 78 bytes of the envelope, `layout` that of its stated length.
    ///
    /// # Errors
    /// As [`DataKey::open_stream`].
    pub fn begin(
        key: &DataKey,
        context: &Context,
        front: &[u8; STREAM_FRONT],
        (layout, range): (Layout, PlainRange),
    ) -> Result<Self, Error> {
        let front = Front::check(key, context, front)?;
        let (next, behind) = layout.covering(range);
        Ok(Self { front, layout, range, last: None, next, behind, opened: 0 })
    }

    /// Bytes of the chunk that is to be opened next; `None` when all have been.
    pub fn wants(&self) -> Option<usize> {
        match &self.last {
            None => self.layout.chunk(self.layout.last()).map(|(_, len)| len),
            Some(_) if self.next < self.behind => self.layout.chunk(self.next).map(|(_, len)| len),
            Some(_) => None,
        }
    }

    /// Chunks opened so far.
    pub const fn chunks(&self) -> u64 {
        self.opened
    }

    /// Whether the keys were wiped: [`Self::resume`] may bring them back.
    pub fn is_wiped(&self) -> bool {
        self.front.is_wiped()
    }

    /// Goes on with the same key, loaded anew, after it was wiped.
    ///
    /// # Errors
    /// As [`DataKey::open_stream`].
    pub fn resume(&mut self, key: &DataKey, context: &Context) -> Result<(), Error> {
        self.front.resume(key, context)
    }

    /// Opens the chunk that [`Self::wants`] spoke of, in place; returns the part of its plaintext that is in the range,
    /// a part of `sealed`. For the last chunk, which comes first, that is nothing yet.
    ///
    /// # Errors
    /// [`Error::Unopenable`] whatever is wrong, and from then on always; [`Error::Invalid`] naming `offset` if it is
    /// behind the end, which is told only once the length is proven; [`Error::Unavailable`] once the keys are wiped: the
    /// same call works after [`Self::resume`].
    pub fn open<'c>(&mut self, sealed: &'c mut [u8]) -> Result<&'c mut [u8], Error> {
        if self.wants() != Some(sealed.len()) {
            return Err(self.front.fail());
        }
        if self.last.is_none() {
            let chunk = self.front.open(self.layout.last(), sealed)?;
            self.last = Some(SecretBytes::copy_of(chunk));
            zeroize::Zeroize::zeroize(chunk);
            self.opened += 1;
            if self.range.offset > self.layout.plaintext_len() {
                self.front.fail();
                return Err(Error::invalid("offset", "must not be behind the end of the plaintext"));
            }
            return Ok(&mut []);
        }
        let k = self.next;
        let chunk = self.front.open(k, sealed)?;
        self.next += 1;
        self.opened += 1;
        let (from, to) = self.part(k, chunk.len());
        chunk.get_mut(from..to).ok_or(Error::Unopenable)
    }

    /// The part of the range that lies in the last chunk, when every other chunk has been opened. Calling it shows that
    /// the range is whole.
    ///
    /// # Errors
    /// [`Error::Unopenable`] if a chunk is still wanted.
    pub fn finish(&mut self) -> Result<SecretBytes, Error> {
        if self.wants().is_some() || self.front.has_failed() {
            return Err(self.front.fail());
        }
        let last = self.last.take().ok_or(Error::Unopenable)?;
        let (from, to) = self.part(self.layout.last(), last.len());
        Ok(SecretBytes::copy_of(last.expose().get(from..to).unwrap_or_default()))
    }

    /// Which part of chunk `k`, of `len` bytes, is in the range.
    fn part(&self, k: u64, len: usize) -> (usize, usize) {
        let start = k.saturating_mul(STREAM_CHUNK as u64);
        let within = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(len);
        let (from, to) = (self.range.offset, self.range.offset.saturating_add(self.range.length));
        (within(from), within(to))
    }
}
