//! The framed file `entries.log`: the durable record (docs/audit.md, section "Frames").
//!
//! One frame is one commit group, written at once and synced before the next is begun. So after a crash at most the
//! last frame is incomplete, and what is missing of it is missing at the end of the file or reads as zeros. Frames are
//! written masked, without a single zero byte, so that what is missing shows; everything else that does not check is
//! damage.

use super::merkle::{Hash, leaf_hash, sha256};
use crate::error::{Dependency, Error};
use crate::fs::File;

/// The first bytes of a log's first segment: magic ‖ version.
const MAGIC: &[u8; 10] = b"BLVAUDIT\0\x01";
/// The same of every later segment.
const MAGIC_LATER: &[u8; 10] = b"BLVAUDIT\0\x02";
/// Longest header of a segment: origins have at most 200 bytes.
const MAX_HEADER: usize = 10 + 2 + 200 + 44 + 32;
const FRAME: &[u8; 4] = b"BLVF";
const END: &[u8; 4] = b"FEND";
const LABEL: &[u8] = b"blindvault/audit/frame/v1\0";
/// Bytes of a frame before its entries, and after them.
const HEAD: usize = 60;
const TAIL: usize = 36;
/// Largest body of a frame in bytes.
pub(super) const MAX_BODY: usize = 32 << 20;
/// Bytes around each entry in a frame: its length, and the first 8 bytes of its leaf hash.
const AROUND: usize = 2 + 8;
/// Bytes of a frame that share one mask byte: fewer than there are masks, so that one always fits.
const BLOCK: usize = 254;

pub(super) const UNREADABLE: Error = Error::unavailable(Dependency::Audit, "a file of the log cannot be read");

/// The file's header for the log of that origin, and the hash that the first frame names as its previous one.
pub(super) fn header(origin: &str) -> (Vec<u8>, Hash) {
    let mut bytes = MAGIC.to_vec();
    // Origins are at most 200 bytes (checked where the signer is made).
    bytes.extend_from_slice(&u16::try_from(origin.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(origin.as_bytes());
    let hash = sha256(&[&bytes]);
    bytes.extend_from_slice(&hash);
    (bytes, hash)
}

/// Where a segment begins in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// Which segment it is, from 0.
    pub(super) number: u32,
    /// The index of its first entry.
    pub(super) first: u64,
    /// The hash of the last frame before it; for segment 0 nothing.
    pub(super) previous: Hash,
}

impl Start {
    /// The start of the log.
    pub(super) const FIRST: Self = Self { number: 0, first: 0, previous: [0; 32] };

    /// The segment's header, and the hash that its first frame names as its previous one.
    pub(super) fn header(&self, origin: &str) -> (Vec<u8>, Hash) {
        if self.number == 0 {
            return header(origin);
        }
        let mut bytes = MAGIC_LATER.to_vec();
        bytes.extend_from_slice(&u16::try_from(origin.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(origin.as_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.previous);
        let hash = sha256(&[&bytes]);
        bytes.extend_from_slice(&hash);
        (bytes, hash)
    }

    /// Reads the header that a file starts with; `None` if it is none of that origin's log.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be read.
    pub(super) fn read(file: &dyn File, origin: &str) -> Result<Option<Self>, Error> {
        let len = usize::try_from(file.len().map_err(|_| UNREADABLE)?).unwrap_or(MAX_HEADER).min(MAX_HEADER);
        let mut found = vec![0; len];
        file.read_exact_at(0, &mut found).map_err(|_| UNREADABLE)?;
        if found.starts_with(&header(origin).0) {
            return Ok(Some(Self::FIRST));
        }
        let at = MAGIC_LATER.len() + 2 + origin.len();
        let fields = || {
            let (number, first) = (u32::from_be_bytes(field(&found, at)?), u64::from_be_bytes(field(&found, at + 4)?));
            Some(Self { number, first, previous: field(&found, at + 12)? })
        };
        Ok(fields().filter(|start| start.number > 0 && found.starts_with(&start.header(origin).0)))
    }
}

/// One frame being built, in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    masked: Vec<u8>,
    count: u32,
}

/// Appends `plain` block by block: a mask byte that does not occur in the block, the lowest but zero, then the block's
/// bytes each XOR the mask. So no byte is zero.
fn mask(plain: &[u8], out: &mut Vec<u8>) {
    for block in plain.chunks(BLOCK) {
        let mut seen = [false; 256];
        for byte in block {
            if let Some(seen) = seen.get_mut(usize::from(*byte)) {
                *seen = true;
            }
        }
        let free = seen.iter().skip(1).position(|seen| !seen).map_or(255, |at| at + 1);
        let mask = u8::try_from(free).unwrap_or(u8::MAX);
        out.push(mask);
        out.extend(block.iter().map(|byte| byte ^ mask));
    }
}

/// Replaces `out` by what was masked.
fn unmask(masked: &[u8], out: &mut Vec<u8>) {
    out.clear();
    for block in masked.chunks(BLOCK + 1) {
        if let Some((mask, block)) = block.split_first() {
            out.extend(block.iter().map(|byte| byte ^ mask));
        }
    }
}

/// How long a frame is in the file, of so many bytes before masking.
const fn masked_len(plain: usize) -> usize {
    plain + plain.div_ceil(BLOCK)
}

impl Builder {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEAD, 0);
        self.count = 0;
    }

    pub(super) fn body_len(&self) -> usize {
        self.bytes.len().saturating_sub(HEAD)
    }

    /// Appends one entry that `encode` writes, and returns its leaf hash.
    pub(super) fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Hash, Error> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        encode(&mut self.bytes);
        let too_long = Error::invalid("entry", "is longer than 65,535 bytes");
        let entry = self.bytes.get(start + 2..).unwrap_or_default();
        let leaf = leaf_hash(entry);
        let Ok(len) = u16::try_from(entry.len()) else {
            self.bytes.truncate(start);
            return Err(too_long);
        };
        if let Some(place) = self.bytes.get_mut(start..start + 2) {
            place.copy_from_slice(&len.to_be_bytes());
        }
        self.bytes.extend(leaf.iter().take(8));
        self.count += 1;
        Ok(leaf)
    }

    /// Closes the frame: its bytes as they are in the file, and its hash, which the next one names.
    pub(super) fn finish(&mut self, first_index: u64, previous: &Hash) -> (&[u8], Hash) {
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(FRAME);
        head.extend_from_slice(&self.count.to_be_bytes());
        head.extend_from_slice(&u32::try_from(self.body_len()).unwrap_or(u32::MAX).to_be_bytes());
        head.extend_from_slice(&first_index.to_be_bytes());
        head.extend_from_slice(previous);
        let check = sha256(&[&head]);
        head.extend(check.iter().take(8));
        if let Some(place) = self.bytes.get_mut(..HEAD) {
            place.copy_from_slice(&head);
        }
        let hash = sha256(&[LABEL, &self.bytes]);
        self.bytes.extend_from_slice(&hash);
        self.bytes.extend_from_slice(END);
        self.masked.clear();
        mask(&self.bytes, &mut self.masked);
        (&self.masked, hash)
    }
}

/// The fields of a frame's head.
struct Head {
    count: u32,
    body: usize,
    first_index: u64,
    previous: Hash,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads a head, if these bytes start with one.
fn parse_head(bytes: &[u8]) -> Option<Head> {
    let head = bytes.get(..HEAD)?;
    let check = sha256(&[head.get(..HEAD - 8)?]);
    if !head.starts_with(FRAME) || head.get(HEAD - 8..)? != check.get(..8)? {
        return None;
    }
    let body = usize::try_from(u32::from_be_bytes(field(head, 8)?)).ok()?;
    (body <= MAX_BODY).then_some(Head {
        count: u32::from_be_bytes(field(head, 4)?),
        body,
        first_index: u64::from_be_bytes(field(head, 12)?),
        previous: field(head, 20)?,
    })
}

/// One entry of a frame that was read.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: usize,
    to: usize,
    leaf: Hash,
}

/// What stands at the reader's position.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole frame; its entries are with the reader.
    Frame,
    /// The end of the file.
    End,
    /// The last frame, incomplete: so many bytes up to the end of the file.
    Torn { bytes: u64 },
    /// Damage: the first index that is not as it was written.
    Bad { index: u64, at: u64, why: &'static str },
}

/// Reads frame after frame. Memory: one frame.
#[derive(Debug)]
pub(super) struct Reader {
    file: Box<dyn File>,
    len: u64,
    pos: u64,
    chain: Hash,
    next_index: u64,
    masked: Vec<u8>,
    /// The frame as it was before masking.
    buf: Vec<u8>,
    spans: Vec<Span>,
}

impl Reader {
    /// Starts behind the header of the first segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the header is not the one of this origin.
    #[cfg(test)]
    pub(super) fn new(file: Box<dyn File>, origin: &str) -> Result<Self, Error> {
        Self::at(file, origin, &Start::FIRST)
    }

    /// Starts behind the header of the segment that begins there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the header is another.
    pub(super) fn at(file: Box<dyn File>, origin: &str, start: &Start) -> Result<Self, Error> {
        let (expected, chain) = start.header(origin);
        let len = file.len().map_err(|_| UNREADABLE)?;
        let mut found = vec![0; expected.len()];
        let pos = u64::try_from(expected.len()).unwrap_or(u64::MAX);
        if len < pos {
            return Err(Error::corrupt("entries.log", "byte 0: the file ends within its header"));
        }
        if let Err(error) = file.read_exact_at(0, &mut found) {
            return Err(if is_damage(&error) {
                Error::corrupt("entries.log", "byte 0: the archive is damaged")
            } else {
                UNREADABLE
            });
        }
        if found != expected {
            return Err(Error::corrupt("entries.log", "byte 0: not the header of this log, or of another version"));
        }
        let next_index = start.first;
        Ok(Self { file, len, pos, chain, next_index, masked: Vec::new(), buf: Vec::new(), spans: Vec::new() })
    }

    /// The hash of the last frame read.
    pub(super) const fn chain(&self) -> Hash {
        self.chain
    }

    /// Where the next frame starts.
    pub(super) const fn position(&self) -> u64 {
        self.pos
    }

    /// The index of the next frame's first entry.
    pub(super) const fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Looks again how long the file is: for following a log that grows.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        self.len = self.file.len().map_err(|_| UNREADABLE)?;
        Ok(())
    }

    /// The entries of the frame just read, with their leaf hashes.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&[u8], Hash)> {
        self.spans.iter().map(|span| (self.buf.get(span.from..span.to).unwrap_or_default(), span.leaf))
    }

    /// False if what an archive holds there is damaged.
    fn load(&mut self, from: u64, to: u64) -> Result<bool, Error> {
        self.masked.resize(usize::try_from(to - from).map_err(|_| UNREADABLE)?, 0);
        match self.file.read_exact_at(from, &mut self.masked) {
            Ok(()) => {}
            Err(error) if is_damage(&error) => return Ok(false),
            Err(_) => return Err(UNREADABLE),
        }
        unmask(&self.masked, &mut self.buf);
        Ok(true)
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be read.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        self.spans.clear();
        let rest = self.len.saturating_sub(self.pos);
        if rest == 0 {
            return Ok(Step::End);
        }
        let at = self.pos;
        let bad = |index, why| Ok(Step::Bad { index, at, why });
        let next_index = self.next_index;
        let damaged = || bad(next_index, "the archive is damaged here, or before and its checksum shows it");
        if !self.load(at, at + rest.min(masked_len(HEAD) as u64))? {
            return damaged();
        }
        let Some(head) = parse_head(&self.buf) else {
            if rest <= masked_len(HEAD + MAX_BODY + TAIL) as u64 {
                if !self.load(at, self.len)? {
                    return damaged();
                }
                if looks_torn(&self.masked) {
                    return Ok(Step::Torn { bytes: rest });
                }
            }
            return bad(self.next_index, "no frame starts here");
        };
        let whole = masked_len(HEAD + head.body + TAIL) as u64;
        if rest < whole {
            return Ok(Step::Torn { bytes: rest });
        }
        if !self.load(at, at + whole)? {
            return damaged();
        }
        let body_end = HEAD + head.body;
        let hash = sha256(&[LABEL, self.buf.get(..body_end).unwrap_or_default()]);
        let (stored, end) = self.buf.get(body_end..).unwrap_or_default().split_at(TAIL - END.len());
        if stored != hash || end != END {
            if rest == whole && looks_torn(&self.masked) {
                return Ok(Step::Torn { bytes: rest });
            }
            let sound = self.find_entries(&head);
            // If each entry is as it was, the damage is in what holds the frame together.
            let index = if sound == head.count { head.first_index } else { head.first_index + u64::from(sound) };
            return bad(index, "an entry or the frame around it was altered");
        }
        if head.first_index != self.next_index {
            return bad(self.next_index, "entries are missing, repeated or out of order here");
        }
        if head.previous != self.chain {
            return bad(self.next_index, "the frame does not follow the one before it");
        }
        let sound = self.find_entries(&head);
        if head.count == 0 || sound != head.count || self.spans.last().map(|s| s.to + 8) != Some(body_end) {
            return bad(head.first_index + u64::from(sound), "an entry is not what its check says");
        }
        self.pos += whole;
        self.chain = hash;
        self.next_index += u64::from(head.count);
        Ok(Step::Frame)
    }

    /// Finds the entries in the buffer; returns how many are sound, up to the first that is not.
    fn find_entries(&mut self, head: &Head) -> u32 {
        let body_end = HEAD + head.body;
        let mut at = HEAD;
        let mut sound = 0;
        while sound < head.count {
            let Some(len) = field::<2>(&self.buf, at).map(|b| usize::from(u16::from_be_bytes(b))) else { break };
            let (from, to) = (at + 2, at + 2 + len);
            if at + AROUND + len > body_end {
                break;
            }
            let (Some(entry), Some(check)) = (self.buf.get(from..to), self.buf.get(to..to + 8)) else { break };
            let leaf = leaf_hash(entry);
            if !leaf.starts_with(check) {
                break;
            }
            self.spans.push(Span { from, to, leaf });
            at += AROUND + len;
            sound += 1;
        }
        sound
    }
}

/// Whether an error says that an archive's bytes are not as they were written, not that they cannot be read.
fn is_damage(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData
}

/// Whether these bytes of the file, from a frame's start to the file's end, may be one write that did not all reach the
/// disk: what is missing is at the end or reads as zeros, and nothing that was written later follows.
fn looks_torn(masked: &[u8]) -> bool {
    let mut plain = Vec::new();
    let mut starts_frame = |at: usize, len: usize| {
        let head = masked.get(at..).unwrap_or_default();
        unmask(head.get(..head.len().min(masked_len(len))).unwrap_or_default(), &mut plain);
        plain.iter().zip(FRAME).all(|(found, expected)| found == expected)
    };
    let is_beginning = masked.len() < masked_len(HEAD) && starts_frame(0, FRAME.len());
    if !is_beginning && !masked.contains(&0) {
        return false;
    }
    // A frame is begun only after the one before it was synced: if one follows, the first was complete once.
    !(1..masked.len().saturating_sub(HEAD)).any(|at| {
        if !starts_frame(at, FRAME.len()) {
            return false;
        }
        let mut head = Vec::new();
        unmask(masked.get(at..at + masked_len(HEAD)).unwrap_or_default(), &mut head);
        parse_head(&head).is_some()
    })
}
