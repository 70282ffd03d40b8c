//! The suite keys of one data key, and the streams that run under it.

use std::sync::{Arc, Weak};

use super::Suite;
use super::stream::StreamKeys;
use crate::crypto::{COMMITMENT, ChunkKeys, SALT, expand_sha256};
use crate::error::Error;
use crate::secret::{Key32, Locked};

/// Info of the HKDF-Expand that makes a suite's key from a data key: this ‖ 00 ‖ suite.
const INFO: &[u8] = b"blindvault/suite/v1\0";

/// Both suites' keys in one slot of locked memory, which is no larger than one of them would need.
pub(super) struct Suites {
    keys: Locked<SuiteKeys>,
    /// Most keys have none: a pointer is all that they pay for it.
    streams: Option<Box<Streams>>,
}

/// Streams that run, and some that have ended: those are taken out when the list would grow.
#[derive(Default)]
struct Streams(Vec<Weak<StreamKeys>>);

struct SuiteKeys {
    record: [u8; 32],
    stream: [u8; 32],
}

impl Suites {
    pub(super) fn derive(data_key: &Key32) -> Result<Self, Error> {
        let derive = |suite: Suite| expand_sha256(data_key, &[INFO, &[suite.byte()]]);
        let mut keys = Locked::new(SuiteKeys { record: [0; 32], stream: [0; 32] })?;
        let own = keys.get_mut()?;
        own.record.copy_from_slice(derive(Suite::Record)?.expose()?);
        own.stream.copy_from_slice(derive(Suite::Stream)?.expose()?);
        Ok(Self { keys, streams: None })
    }

    /// A suite's key.
    pub(super) fn key(&self, suite: Suite) -> Result<Key32, Error> {
        let keys = self.keys.get()?;
        Key32::copy_of(match suite {
            Suite::Record => &keys.record,
            Suite::Stream => &keys.stream,
        })
    }

    /// The keys of a stream, known from now on, and its commitment.
    pub(super) fn stream(&mut self, salt: &[u8; SALT], a: &[u8]) -> Result<(Arc<StreamKeys>, [u8; COMMITMENT]), Error> {
        let (keys, commitment) = ChunkKeys::derive(&self.key(Suite::Stream)?, salt, a)?;
        let keys = Arc::new(StreamKeys::new(keys));
        let Streams(streams) = &mut **self.streams.get_or_insert_default();
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Arc::downgrade(&keys));
        Ok((keys, commitment))
    }

    /// Wipes the keys of all streams; waits for the chunks in progress.
    pub(super) fn wipe_streams(&self) {
        let streams = self.streams.iter().flat_map(|streams| &streams.0);
        streams.filter_map(Weak::upgrade).for_each(|stream| stream.wipe());
    }
}
