//! The header H, the 22 bytes every envelope starts with.

use super::HEADER;
use crate::error::Error;
use crate::id::KeyId;

const MAGIC: [u8; 3] = *b"BLV";
const VERSION: u8 = 1;
/// Suite 0x01, record: KC-XAES-256-GCM.
pub(crate) const SUITE_RECORD: u8 = 1;
const FLAGS: u8 = 0;

/// A parsed header. Only what is valid can be one: version 1, suite 0x01, no flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which version of which data key sealed the envelope.
    pub key_id: KeyId,
}

impl Header {
    /// Reads the header of an envelope.
    ///
    /// # Errors
    /// [`Error::Unopenable`] for anything but version 1, suite 0x01, flags 0x00 and enough bytes.
    pub fn parse(envelope: &[u8]) -> Result<Self, Error> {
        let header: &[u8; HEADER] = envelope.first_chunk().ok_or(Error::Unopenable)?;
        match *header {
            [m0, m1, m2, VERSION, SUITE_RECORD, FLAGS, ref key_id @ ..] if [m0, m1, m2] == MAGIC => {
                Ok(Self { key_id: KeyId(*key_id) })
            }
            _ => Err(Error::Unopenable),
        }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let (front, id) = out.split_at_mut(HEADER - 16);
        front.copy_from_slice(&[MAGIC[0], MAGIC[1], MAGIC[2], VERSION, SUITE_RECORD, FLAGS]);
        id.copy_from_slice(&self.key_id.0);
        out
    }
}
