//! What a log comes to at the start of a segment: with it, opening reads nothing that is before (docs/audit.md, "States").
//!
//! A snapshot is written when a segment is archived, from that segment and the snapshot before, and signed with the log's
//! key: one that the log did not write is not believed. `verify` recomputes it.

use std::path::PathBuf;

use super::anchor::{Anchor, PolicyMark};
use super::checkpoint::Checkpoint;
use super::entry::MAX_ENTRY;
use super::frame::{Start, UNREADABLE};
use super::log_keys::{Chain, LogKey};
use super::merkle::{Edge, Hash, sha256};
use super::note;
use super::replay::Tenants;
use super::segments::Segments;
use super::signer::{LogSigner, LogVerifier};
use super::tiles;
use super::wire::{In, Out};
use crate::error::{Dependency, Error};
use crate::id::{Fingerprint, TenantId};
use crate::principal::ListRef;

const TITLE: &str = "blindvault/audit-state/v1";
const LINE: &[u8] = b"\n\n";
/// Longest file in bytes: room for ten million tenants.
const MAX_FILE: u64 = 1 << 30;

/// Everything that reading on from the start of a segment needs.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// The segment.
    pub(super) number: u32,
    /// The hash of the last frame before it.
    pub(super) previous: Hash,
    pub(super) edge: Edge,
    pub(super) tenants: Tenants,
    pub(super) anchor: Option<Anchor>,
    pub(super) policy: Option<PolicyMark>,
    pub(super) operators: Option<ListRef>,
    pub(super) keys: Chain,
    /// The last checkpoint that covers nothing of the segment, and where in `checkpoints` those behind it start.
    pub(super) last: Option<Checkpoint>,
    pub(super) checkpoints_at: u64,
    pub(super) checkpoints: u64,
    /// The tiles that are not full yet.
    pub(super) tiles: tiles::Builder,
}

fn refuse(why: &'static str) -> Error {
    Error::corrupt("state of the audit log", why)
}

impl Snapshot {
    /// Of a log with nothing in it.
    pub(super) fn empty(first: LogVerifier) -> Self {
        Self {
            number: 0,
            previous: Start::FIRST.previous,
            edge: Edge::new(),
            tenants: Tenants::new(),
            anchor: None,
            policy: None,
            operators: None,
            keys: Chain::new(first),
            last: None,
            checkpoints_at: 0,
            checkpoints: 0,
            tiles: tiles::Builder::default(),
        }
    }

    /// Where its segment begins.
    pub(super) fn start(&self) -> Start {
        Start { number: self.number, first: self.edge.size(), previous: self.previous }
    }

    /// The body: every value has one encoding, so that two snapshots of the same log are the same bytes.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = Out(&mut bytes);
        out.u32(self.number);
        out.bytes(&self.previous);
        out.u64(self.edge.size());
        self.edge.roots().iter().for_each(|root| out.bytes(root));
        out.option(self.last, |out, last| {
            out.u64(last.size);
            out.bytes(&last.root);
        });
        out.u64(self.checkpoints_at);
        out.u64(self.checkpoints);
        out.option(self.anchor, |out, anchor| {
            out.u64(anchor.epoch);
            out.bytes(&anchor.chain);
        });
        out.option(self.policy, |out, mark| {
            out.u64(mark.version);
            out.bytes(&mark.digest);
        });
        out.option(self.operators, |out, list| {
            out.u64(list.version);
            out.bytes(&list.digest.0);
        });
        out.u32(u32::try_from(self.keys.keys().len()).unwrap_or(u32::MAX));
        for key in self.keys.keys() {
            out.bytes(key.verifier.public());
            out.u64(key.from);
        }
        let mut tenants: Vec<_> = self.tenants.iter().collect();
        tenants.sort_by_key(|(tenant, _)| tenant.as_str());
        out.u64(tenants.len() as u64);
        for (tenant, (sequence, leaf)) in tenants {
            out.text(tenant.as_str(), 63);
            out.u64(*sequence);
            out.bytes(leaf);
        }
        self.tiles.encode(&mut out);
        bytes
    }

    fn decode(body: &[u8], origin: &str) -> Result<Self, Error> {
        let mut input = In::new(body);
        let number = input.u32()?;
        let previous = input.array()?;
        let size = input.u64()?;
        let roots = (0..size.count_ones()).map(|_| input.array()).collect::<Result<Vec<Hash>, _>>()?;
        let last = input.option(|input| Ok(Checkpoint { size: input.u64()?, root: input.array()? }))?;
        let (checkpoints_at, checkpoints) = (input.u64()?, input.u64()?);
        let anchor = input.option(|input| Ok(Anchor { epoch: input.u64()?, chain: input.array()? }))?;
        let policy = input.option(|input| Ok(PolicyMark { version: input.u64()?, digest: input.array()? }))?;
        let list = |input: &mut In<'_>| Ok(ListRef { version: input.u64()?, digest: Fingerprint(input.array()?) });
        let operators = input.option(list)?;
        let mut keys = Vec::new();
        for _ in 0..input.u32()? {
            let verifier = LogVerifier::new(origin, &input.array::<32>()?)?;
            keys.push(LogKey { verifier, from: input.u64()? });
        }
        let keys = Chain::of(keys).ok_or_else(|| refuse("it names no key"))?;
        let mut tenants = Tenants::new();
        for _ in 0..input.u64()? {
            let tenant = TenantId::parse(input.text(63)?).map_err(|_| refuse("a tenant is none"))?;
            let last = (input.u64()?, input.array()?);
            tenants.insert(tenant, last);
        }
        let tiles = tiles::Builder::decode(size, &mut input)?;
        input.end()?;
        let edge = Edge::of(size, roots);
        let snapshot = Self {
            number,
            previous,
            edge,
            tenants,
            anchor,
            policy,
            operators,
            keys,
            last,
            checkpoints_at,
            checkpoints,
            tiles,
        };
        if snapshot.body() == body { Ok(snapshot) } else { Err(refuse("not as a state is written")) }
    }

    fn path(segments: &Segments, number: u32) -> PathBuf {
        segments.dir.join(format!("state.{number:06}"))
    }

    /// Writes it, signed, durably; then removes the ones before it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be signed or written.
    pub(super) fn write(&self, segments: &Segments, signer: &LogSigner) -> Result<(), Error> {
        let body = self.body();
        let text = format!("{TITLE}\n{}\n{}\n{}\n", segments.origin, self.number, hex(&sha256(&[&body])));
        let mut bytes = note::sign(&text, signer)?.into_bytes();
        bytes.extend_from_slice(LINE);
        bytes.extend_from_slice(&body);
        let unwritable = |_| Error::unavailable(Dependency::Audit, "the state of the log cannot be written");
        segments.fs.replace(&Self::path(segments, self.number), &bytes).map_err(unwritable)?;
        for number in Self::numbers(segments).into_iter().filter(|number| *number < self.number) {
            segments.fs.remove(&Self::path(segments, number)).map_err(unwritable)?;
        }
        Ok(())
    }

    /// The segments that there are snapshots of, largest first.
    pub(super) fn numbers(segments: &Segments) -> Vec<u32> {
        let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("state.")?.parse().ok();
        let mut all: Vec<u32> = segments.fs.list(&segments.dir).unwrap_or_default().iter().filter_map(number).collect();
        all.sort_by_key(|number| std::cmp::Reverse(*number));
        all
    }

    /// True if there is one of that segment.
    pub(super) fn is_there(segments: &Segments, number: u32) -> bool {
        segments.fs.exists(&Self::path(segments, number))
    }

    /// Reads one that the log's key at that time signed. That this key is one of the log's, reading on shows.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not as it was written; [`Error::Unavailable`].
    pub(super) fn read(segments: &Segments, number: u32) -> Result<Self, Error> {
        let bytes = segments.fs.read(&Self::path(segments, number), MAX_FILE).map_err(|_| UNREADABLE)?;
        // The note ends with the first empty line but one: that before its signatures.
        let mut empty = bytes.windows(2).enumerate().filter(|(_, pair)| *pair == LINE).map(|(at, _)| at);
        let split = empty.nth(1).ok_or_else(|| refuse("there is no note"))?;
        let note = bytes.get(..=split).and_then(|note| std::str::from_utf8(note).ok());
        let note = note.ok_or_else(|| refuse("the note is not UTF-8"))?;
        let body = bytes.get(split + 3..).unwrap_or_default();
        let snapshot = Self::decode(body, &segments.origin)?;
        let signer = snapshot.keys.active().ok_or_else(|| refuse("it names no key"))?;
        let text = note::verify(note, signer).map_err(refuse)?;
        let expected = format!("{TITLE}\n{}\n{number}\n{}\n", segments.origin, hex(&sha256(&[body])));
        if text == expected && snapshot.number == number { Ok(snapshot) } else { Err(refuse("not of this segment")) }
    }
}

fn hex(bytes: &Hash) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl tiles::Builder {
    /// What is not full yet: the bundle, and the hashes of each level.
    fn encode(&self, out: &mut Out<'_>) {
        let (bundle, levels) = self.parts();
        out.u32(u32::try_from(bundle.len()).unwrap_or(u32::MAX));
        out.bytes(bundle);
        out.u8(u8::try_from(levels.len()).unwrap_or(u8::MAX));
        for level in levels {
            out.u32(u32::try_from(level.len()).unwrap_or(u32::MAX));
            out.bytes(level);
        }
    }

    fn decode(size: u64, input: &mut In<'_>) -> Result<Self, Error> {
        let take = |input: &mut In<'_>, most: usize| -> Result<Vec<u8>, Error> {
            let len = usize::try_from(input.u32()?).unwrap_or(usize::MAX);
            if len > most { Err(refuse("a tile is too long")) } else { Ok(input.take(len)?.to_vec()) }
        };
        let bundle = take(input, tiles::WIDTH * (MAX_ENTRY + 2))?;
        let levels = (0..input.u8()?).map(|_| take(input, tiles::WIDTH * 32)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::from_parts(size, bundle, levels))
    }
}
