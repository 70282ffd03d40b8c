//! Between those who append and the writer thread: a bounded queue, and what became of the log.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use super::entry::{Body, Draft, Status};
use super::group::Group;
use super::merkle::Hash;
use super::sink_hub::Hub;
use crate::error::{Dependency, Error};
use crate::id::{RequestId, TenantId};

/// Most bytes that may wait to be written.
const MAX_BYTES: usize = 16 << 20;

/// Names a durable entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its number in the log.
    pub index: u64,
    /// Its leaf hash (RFC 6962): kept outside the log, it shows later that the entry is still there, unchanged.
    pub leaf_hash: Hash,
}

/// How the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It takes entries.
    Good,
    /// It takes entries; the tiles could not be written and are behind until the log is opened again.
    TilesBehind(&'static str),
    /// The disk has not answered for longer than [`super::Options::stall`]: entries are refused until it does.
    Stalled,
    /// It takes no entry until what holds it lets go ([`super::Log::hold`]).
    Held(&'static str),
    /// It takes no new calls: a mandatory sink does not confirm, and is tried again ([`super::Log::attach`]).
    SinkDown(&'static str),
    /// It takes no entry until it is opened again.
    Failed(&'static str),
}

/// Who waits, and for what. `Err` says why an entry that is in the log was not confirmed by the sinks.
pub(super) enum Reply {
    /// The log's own events: they wait for the log alone, and no sink refuses them.
    Durable(oneshot::Sender<Result<Receipt, &'static str>>),
    /// A refused call.
    Refusal(oneshot::Sender<Result<Receipt, &'static str>>),
    /// The end of what was begun: no sink refuses it.
    End(oneshot::Sender<Result<Receipt, &'static str>>),
    /// A call begins.
    Intent(oneshot::Sender<Result<Armed, &'static str>>),
    Nobody,
}

impl Reply {
    /// Whether this is a call's entry, whose answer waits for every mandatory sink.
    pub(super) const fn waits_for_sinks(&self) -> bool {
        matches!(self, Self::Refusal(_) | Self::End(_) | Self::Intent(_))
    }

    const fn begins(&self) -> bool {
        matches!(self, Self::Refusal(_) | Self::Intent(_))
    }
}

pub(super) struct Pending {
    pub(super) draft: Draft,
    pub(super) reply: Reply,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Open,
    Closing,
    Failed(&'static str),
}

struct Queue {
    waiting: Vec<Pending>,
    bytes: usize,
    run: Run,
    /// Since when the writer has been busy with the group before.
    group_since: Option<Instant>,
    tiles: Option<&'static str>,
    held: Option<&'static str>,
    /// Why the sinks let no call begin.
    blocked: Option<&'static str>,
}

/// What the threads share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    capacity: usize,
    stall: Duration,
    /// Set once, if there are any.
    pub(super) sinks: OnceLock<Arc<Hub>>,
}

const STALLED: Error = Error::unavailable(Dependency::Audit, "the log's disk does not answer");

impl Shared {
    pub(super) const fn new(capacity: usize, stall: Duration) -> Self {
        let queue = Queue {
            waiting: Vec::new(),
            bytes: 0,
            run: Run::Open,
            group_since: None,
            tiles: None,
            held: None,
            blocked: None,
        };
        Self { queue: Mutex::new(queue), wake: Condvar::new(), capacity, stall, sinks: OnceLock::new() }
    }

    // Every change under the lock is complete in itself, so a panic elsewhere leaves the queue usable.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues all of them or none.
    pub(super) fn submit(&self, pending: Vec<Pending>) -> Result<(), Error> {
        let bytes: usize = pending.iter().map(|p| p.draft.size()).sum();
        let mut queue = self.lock();
        match queue.run {
            Run::Open => {}
            Run::Closing => return Err(Error::unavailable(Dependency::Audit, "the log is closed")),
            Run::Failed(why) => return Err(Error::unavailable(Dependency::Audit, why)),
        }
        if queue.group_since.is_some_and(|since| since.elapsed() > self.stall) {
            return Err(STALLED);
        }
        // The end of the log, which nobody waits for, is written all the same.
        if let Some(why) = queue.held.filter(|_| !pending.iter().all(|p| matches!(p.reply, Reply::Nobody))) {
            return Err(Error::unavailable(Dependency::Audit, why));
        }
        if let Some(why) = queue.blocked.filter(|_| pending.iter().any(|p| p.reply.begins())) {
            return Err(Error::unavailable(Dependency::Audit, why));
        }
        if queue.waiting.len() + pending.len() > self.capacity || queue.bytes + bytes > MAX_BYTES {
            return Err(Error::unavailable(Dependency::Audit, "too many entries wait for the disk; retry later"));
        }
        queue.bytes += bytes;
        queue.waiting.extend(pending);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues an entry that nobody waits for, beyond the bound: each follows from one that was within it.
    pub(super) fn submit_unawaited(&self, draft: Draft) {
        let mut queue = self.lock();
        if matches!(queue.run, Run::Failed(_)) {
            return;
        }
        queue.waiting.push(Pending { draft, reply: Reply::Nobody });
        drop(queue);
        self.wake.notify_one();
    }

    /// Waits for entries and takes all there are into `group`. False when the log is closed and empty, or failed.
    pub(super) fn take(&self, group: &mut Vec<Pending>) -> bool {
        let mut queue = self.lock();
        queue.group_since = None;
        while queue.waiting.is_empty() && queue.run == Run::Open {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.waiting.is_empty() || matches!(queue.run, Run::Failed(_)) {
            return false;
        }
        queue.group_since = Some(Instant::now());
        queue.bytes = 0;
        std::mem::swap(&mut queue.waiting, group);
        true
    }

    /// Lets the writer end once the queue is empty.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        if queue.run == Run::Open {
            queue.run = Run::Closing;
        }
        drop(queue);
        self.wake.notify_all();
    }

    /// From here on nothing is acknowledged any more; whoever waits is told.
    pub(super) fn fail(&self, why: &'static str) {
        let mut queue = self.lock();
        if !matches!(queue.run, Run::Failed(_)) {
            queue.run = Run::Failed(why);
        }
        // Dropping their senders tells those who wait; not under the lock, where a waker could come back to us.
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(waiting);
        self.wake.notify_all();
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.lock().run, Run::Failed(_))
    }

    pub(super) fn hold(&self, why: Option<&'static str>) {
        self.lock().held = why;
    }

    pub(super) fn block(&self, why: Option<&'static str>) {
        self.lock().blocked = why;
    }

    pub(super) fn tiles_behind(&self, why: &'static str) {
        self.lock().tiles.get_or_insert(why);
    }

    pub(super) fn health(&self) -> Health {
        let queue = self.lock();
        match queue.run {
            Run::Failed(why) => Health::Failed(why),
            Run::Closing => Health::Failed("the log is closed"),
            Run::Open if queue.group_since.is_some_and(|since| since.elapsed() > self.stall) => Health::Stalled,
            Run::Open if queue.held.is_some() => Health::Held(queue.held.unwrap_or_default()),
            Run::Open if queue.blocked.is_some() => Health::SinkDown(queue.blocked.unwrap_or_default()),
            Run::Open => queue.tiles.map_or(Health::Good, Health::TilesBehind),
        }
    }

    /// Waits for an answer; for what to tell one whose entry was not acknowledged.
    pub(super) async fn answer<T>(&self, receiver: oneshot::Receiver<Result<T, &'static str>>) -> Result<T, Error> {
        match receiver.await {
            Ok(answer) => answer.map_err(|why| Error::unavailable(Dependency::Audit, why)),
            Err(_) => Err(self.unavailable()),
        }
    }

    /// What to tell one whose entry was not acknowledged.
    pub(super) fn unavailable(&self) -> Error {
        let why = match self.lock().run {
            Run::Failed(why) => why,
            Run::Open | Run::Closing => "the entry was not written",
        };
        Error::unavailable(Dependency::Audit, why)
    }
}

/// A durable intent whose end is not settled: dropped so, it submits the outcome "cancelled".
pub(super) struct Armed {
    pub(super) shared: Arc<Shared>,
    pub(super) receipt: Receipt,
    pub(super) group: Arc<Group>,
    pub(super) request: Option<RequestId>,
    pub(super) tenant: Option<TenantId>,
    pub(super) settled: std::sync::atomic::AtomicBool,
}

impl Armed {
    /// No outcome is submitted on drop any more.
    pub(super) fn settle(&self) {
        self.settled.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if *self.settled.get_mut() {
            return;
        }
        let body = Body::Outcome {
            intent: self.receipt.index,
            status: Status::Cancelled,
            reason: "cancelled".to_owned(),
            key: None,
            items: 0,
        };
        self.shared.submit_unawaited(Draft::new(self.request, self.tenant.clone(), &body));
    }
}
