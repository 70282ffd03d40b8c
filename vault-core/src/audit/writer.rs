//! The writer thread: takes what waits, writes it as one frame, syncs once, answers all.

use std::io;
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::entry::first_previous;
use super::frame::{Builder, MAX_BODY};
use super::group::Growing;
use super::merkle::{Edge, Hash};
use super::publisher::Heads;
use super::queue::{Pending, Receipt, Shared};
use super::replay::Tenants;
use super::sealer::Sealer;
use super::signer::LogSigner;
use super::sink_hub::answer;
use crate::failpoint::{Moment, Step, reach};
use crate::fs::File;
use crate::time::Clock;

/// A frame is closed once its body is this long; one more entry always fits.
const ENOUGH: usize = MAX_BODY / 2;
const SALT: usize = 16;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Arc<Heads>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) file: Box<dyn File>,
    /// Where the next frame goes: also the file's length, unless somebody else writes to it.
    pub(super) end: u64,
    pub(super) chain: Hash,
    pub(super) edge: Edge,
    pub(super) tenants: Tenants,
    pub(super) frame: Builder,
    /// The nodes of the tree that the frame's entries make.
    pub(super) growing: Growing,
    pub(super) signer: Arc<LogSigner>,
    pub(super) sealer: Sealer,
}

/// Fails the log if the thread ends otherwise than by [`Writer::run`] returning.
struct Sentinel<'a>(&'a Shared, bool);

impl Drop for Sentinel<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fail("the log's writer ended unexpectedly");
        }
    }
}

impl Writer {
    /// Until the log is closed or fails.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut sentinel = Sentinel(&shared, false);
        let mut group = Vec::new();
        while shared.take(&mut group) {
            if self.commit(&mut group).is_err() {
                break;
            }
        }
        sentinel.1 = true;
    }

    /// Writes what is in `group` and answers. After an error the log has failed, and nothing was acknowledged but whole
    /// frames before it.
    pub(super) fn commit(&mut self, group: &mut Vec<Pending>) -> Result<(), &'static str> {
        let mut written = Vec::with_capacity(group.len());
        let result = self.write(group, &mut written);
        if let Err(why) = result {
            // Before those who wait are told by dropping `written`: whoever is told finds the log failed.
            self.shared.fail(why);
        }
        result
    }

    fn write(&mut self, group: &mut Vec<Pending>, written: &mut Vec<(Pending, Receipt)>) -> Result<(), &'static str> {
        let mut salts = vec![0; group.len() * SALT];
        getrandom::fill(&mut salts).map_err(|_| "the operating system gave no random bytes")?;
        let mut salts = salts.chunks_exact(SALT);
        self.frame.clear();
        for pending in group.drain(..) {
            let leaf = self.append(&pending, salts.next().unwrap_or_default());
            let index = self.edge.size().saturating_sub(1);
            // Kept also when it failed: see above.
            written.push((pending, Receipt { index, leaf_hash: leaf.unwrap_or_default() }));
            leaf?;
            if self.frame.body_len() >= ENOUGH {
                self.flush(written)?;
            }
        }
        if written.is_empty() { Ok(()) } else { self.flush(written) }
    }

    fn append(&mut self, pending: &Pending, salt: &[u8]) -> Result<Hash, &'static str> {
        let draft = &pending.draft;
        let index = self.edge.size();
        let time = self.clock.now();
        let last = draft.tenant.as_ref().map(|tenant| {
            let last = self.tenants.get(tenant).copied();
            last.unwrap_or_else(|| (0, first_previous(tenant)))
        });
        let link = last.map(|(sequence, previous)| (sequence + 1, previous));
        // The bounds on the fields keep every entry below the limit, so this error is one of ours.
        let leaf = self
            .frame
            .push(|out| draft.encode(out, index, time, salt, link))
            .map_err(|_| "an entry was longer than an entry can be")?;
        if let (Some(tenant), Some((sequence, _))) = (&draft.tenant, link) {
            if let Some(last) = self.tenants.get_mut(tenant) {
                *last = (sequence, leaf);
            } else {
                self.tenants.insert(tenant.clone(), (sequence, leaf));
            }
        }
        self.growing.push(&mut self.edge, leaf);
        Ok(leaf)
    }

    /// One write, one sync; then, and only then, the answers, of which those to callers wait for mandatory sinks.
    fn flush(&mut self, written: &mut Vec<(Pending, Receipt)>) -> Result<(), &'static str> {
        if self.file.len().map_err(why)? != self.end {
            return Err("the log's file was changed by somebody else");
        }
        let first = self.edge.size() - written.len() as u64;
        let (bytes, chain) = self.frame.finish(first, &self.chain);
        self.file.write_all_at(self.end, bytes).map_err(why)?;
        reach(Step::LogSync, Moment::Before);
        self.file.sync_data().map_err(why)?;
        reach(Step::LogSync, Moment::After);
        // After the sync, so that what is acknowledged was in a file with a name when it became durable.
        if self.file.links().map_err(why)? == 0 {
            return Err("the log's file was removed");
        }
        if self.shared.has_failed() {
            return Err("the log failed");
        }
        self.end += bytes.len() as u64;
        self.chain = chain;
        self.frame.clear();
        let head = Checkpoint { size: self.edge.size(), root: self.edge.root() };
        self.heads.grow(head);
        let group = Arc::new(self.growing.finish(&self.edge, head, Arc::clone(&self.signer)));
        match self.shared.sinks.get() {
            Some(sinks) => sinks.committed(&self.shared, head.size, written, &group),
            None => written.drain(..).for_each(|(pending, receipt)| answer(&self.shared, pending, receipt, &group)),
        }
        // Behind the answers: only who comes next waits for it.
        if let Some(opened) = self.sealer.after_group(self.end, head.size, &self.chain, self.clock.now())? {
            (self.file, self.end, self.chain) = opened;
        }
        Ok(())
    }
}

fn why(error: io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::StorageFull {
        "the log's disk is full"
    } else {
        "the log's file cannot be written or synced"
    }
}
