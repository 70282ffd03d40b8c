//! The header H, the 22 bytes every envelope starts with.

use super::HEADER;
use crate::error::Error;
use crate::id::KeyId;

const MAGIC: [u8; 3] = *b"BLV";
const VERSION: u8 = 1;
const FLAGS: u8 = 0;

/// How the body behind a header is sealed. Each has a key of its own, so bytes of one never open as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// 0x01: one value of up to 1 MiB, KC-XAES-256-GCM.
    Record = 1,
    /// 0x02: a stream of chunks, Cobblestone-256.
    Stream = 2,
}

impl Suite {
    /// The byte that names it.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// A parsed header. Only what is valid can be one: version 1, a suite that is assigned, no flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How the body is sealed.
    pub suite: Suite,
    /// Which version of which data key sealed the envelope.
    pub key_id: KeyId,
}

impl Header {
    /// The header of an envelope of one suite.
    pub const fn new(suite: Suite, key_id: KeyId) -> Self {
        Self { suite, key_id }
    }

    /// Reads the header of an envelope.
    ///
    /// # Errors
    /// [`Error::Unopenable`] for anything but version 1, suite 0x01 or 0x02, flags 0x00 and enough bytes.
    pub fn parse(envelope: &[u8]) -> Result<Self, Error> {
        let header: &[u8; HEADER] = envelope.first_chunk().ok_or(Error::Unopenable)?;
        let [m0, m1, m2, VERSION, suite, FLAGS, ref key_id @ ..] = *header else { return Err(Error::Unopenable) };
        let suite = match suite {
            1 => Suite::Record,
            2 => Suite::Stream,
            _ => return Err(Error::Unopenable),
        };
        if [m0, m1, m2] != MAGIC {
            return Err(Error::Unopenable);
        }
        Ok(Self { suite, key_id: KeyId(*key_id) })
    }

    /// Reads the header of an envelope that must be of one suite.
    ///
    /// # Errors
    /// [`Error::Unopenable`] as for [`Self::parse`], and for another suite.
    pub fn parse_as(suite: Suite, envelope: &[u8]) -> Result<Self, Error> {
        Self::parse(envelope).and_then(|header| if header.suite == suite { Ok(header) } else { Err(Error::Unopenable) })
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let (front, id) = out.split_at_mut(HEADER - 16);
        front.copy_from_slice(&[MAGIC[0], MAGIC[1], MAGIC[2], VERSION, self.suite.byte(), FLAGS]);
        id.copy_from_slice(&self.key_id.0);
        out
    }
}
