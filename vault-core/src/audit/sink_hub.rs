//! What the writer, the sinks' threads and those who wait for them have in common.
//!
//! Answers to callers wait here, after their entries are durable, until every mandatory sink has confirmed them; each
//! group for its sinks' deadlines at most. While a mandatory sink fails, is full or has not caught up, new calls are
//! refused before anything is written for them; what ends a call that was begun is written and waits like the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::entry::{Body, Draft, Status};
use super::group::Group;
use super::queue::{Pending, Receipt, Reply, Shared};
use super::sink::{SinkSettings, SinkState, SinkStatus};

/// How much longer than its deadline a sink's thread may take to end.
const TO_END: Duration = Duration::from_millis(500);

const LATE: &str = "it did not confirm within its deadline";
const FAILING: &str = "a mandatory audit sink does not take entries";
const TIMED_OUT: &str = "a mandatory audit sink did not confirm the entry within its deadline";
const FULL: &str = "too many entries wait for a mandatory audit sink";
const CATCHING_UP: &str = "a mandatory audit sink has not caught up with the log yet";
/// The reason of the outcome of an intent that no sink confirmed: nothing was released on it.
const UNCONFIRMED: &str = "an audit sink did not confirm";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    CatchingUp,
    Good,
    Failing,
}

/// One sink, seen from outside of its thread.
struct Place {
    settings: SinkSettings,
    kind: &'static str,
    confirmed: u64,
    condition: Condition,
    failures: u64,
    last_error: Option<&'static str>,
    behind_since: Option<Instant>,
    ended: bool,
}

impl Place {
    fn failed(&mut self, why: &'static str) {
        self.condition = Condition::Failing;
        self.failures += 1;
        self.last_error = Some(why);
    }
}

/// Answers of one commit group that wait.
struct Waiting {
    /// The index behind the group's last entry.
    end: u64,
    since: Instant,
    written: Vec<(Pending, Receipt)>,
    group: Arc<Group>,
}

#[derive(Clone, Copy)]
enum End {
    Running,
    /// Deliver what there is until then.
    By(Instant),
    AtOnce,
}

struct State {
    head: u64,
    places: Vec<Place>,
    waiting: VecDeque<Waiting>,
    end: End,
}

impl State {
    fn mandatory(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.settings.mandatory)
    }

    /// Up to where every mandatory sink has confirmed.
    fn released(&self) -> u64 {
        self.mandatory().map(|place| place.confirmed).min().unwrap_or(u64::MAX)
    }

    /// Tells those who submit whether they may.
    fn tell(&self, shared: &Shared) {
        let why = self.mandatory().find_map(|place| match place.condition {
            Condition::Failing => Some(FAILING),
            Condition::CatchingUp => Some(CATCHING_UP),
            Condition::Good if self.head.saturating_sub(place.confirmed) > place.settings.queue => Some(FULL),
            Condition::Good => None,
        });
        shared.block(why);
    }

    /// When the first answer has waited for too long; with the sink that it waited for.
    fn due(&self) -> Option<Instant> {
        let of = |place: &Place| {
            let first = self.waiting.iter().find(|waiting| waiting.end > place.confirmed)?;
            first.since.checked_add(place.settings.deadline)
        };
        self.mandatory().filter_map(of).min()
    }
}

/// What a sink's thread does next.
pub(super) enum Work {
    /// There are entries, up to this index.
    Entries(u64),
    /// Nothing; time to look whether the sink is still there.
    Idle,
    /// The end.
    Stop,
}

pub(super) struct Hub {
    state: Mutex<State>,
    /// There are more entries, or it ends.
    grown: Condvar,
    /// Somebody begins to wait, or it ends.
    waits: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

impl Hub {
    /// For sinks that have confirmed so many entries of a log of `head` entries.
    pub(super) fn new(head: u64, sinks: Vec<(SinkSettings, &'static str, u64)>) -> Self {
        let now = Instant::now();
        let place = |(settings, kind, confirmed)| Place {
            settings,
            kind,
            confirmed,
            condition: Condition::CatchingUp,
            failures: 0,
            last_error: None,
            behind_since: (confirmed < head).then_some(now),
            ended: false,
        };
        let places = sinks.into_iter().map(place).collect();
        let state = State { head, places, waiting: VecDeque::new(), end: End::Running };
        Self { state: Mutex::new(state), grown: Condvar::new(), waits: Condvar::new(), ended: Condvar::new() }
    }

    // As in `queue`: every change under the lock is complete in itself.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who submit how it stands.
    pub(super) fn tell(&self, shared: &Shared) {
        self.lock().tell(shared);
    }

    /// The log has `size` durable entries.
    pub(super) fn grow(&self, size: u64) {
        let mut state = self.lock();
        if size > state.head {
            state.head = size;
            let now = Instant::now();
            state.places.iter_mut().for_each(|place| _ = place.behind_since.get_or_insert(now));
        }
        drop(state);
        self.grown.notify_all();
    }

    /// A group is durable, up to `size`: answers it when the sinks have confirmed it.
    pub(super) fn committed(
        &self,
        shared: &Arc<Shared>,
        size: u64,
        written: &mut Vec<(Pending, Receipt)>,
        group: &Arc<Group>,
    ) {
        self.grow(size);
        let mut state = self.lock();
        if state.released() >= size {
            drop(state);
            return written.drain(..).for_each(|(pending, receipt)| answer(shared, pending, receipt, group));
        }
        let (waits, now): (Vec<_>, Vec<_>) =
            written.drain(..).partition(|(pending, _)| pending.reply.waits_for_sinks());
        if !waits.is_empty() {
            let waiting = Waiting { end: size, since: Instant::now(), written: waits, group: Arc::clone(group) };
            state.waiting.push_back(waiting);
        }
        state.tell(shared);
        drop(state);
        self.waits.notify_all();
        now.into_iter().for_each(|(pending, receipt)| answer(shared, pending, receipt, group));
    }

    /// A sink has confirmed everything below `next`. It began with what it confirmed at `begun`, when there were `seen`
    /// entries.
    pub(super) fn confirmed(&self, shared: &Arc<Shared>, at: usize, next: u64, (begun, seen): (Instant, u64)) {
        let mut state = self.lock();
        let head = state.head;
        if let Some(place) = state.places.get_mut(at) {
            place.confirmed = next;
            if next >= head {
                place.condition = Condition::Good;
                place.behind_since = None;
            } else {
                if place.condition == Condition::Failing {
                    place.condition = Condition::CatchingUp;
                }
                if next >= seen {
                    place.behind_since = Some(begun);
                }
            }
        }
        let released = state.released();
        let count = state.waiting.iter().take_while(|waiting| waiting.end <= released).count();
        let done: Vec<Waiting> = state.waiting.drain(..count).collect();
        state.tell(shared);
        drop(state);
        for Waiting { written, group, .. } in done {
            written.into_iter().for_each(|(pending, receipt)| answer(shared, pending, receipt, &group));
        }
    }

    /// A sink works, and there was nothing for it.
    pub(super) fn is_there(&self, shared: &Arc<Shared>, at: usize) {
        let mut state = self.lock();
        let head = state.head;
        if let Some(place) = state.places.get_mut(at) {
            place.condition = match place.condition {
                // What came while it was looked at does not make it worse.
                Condition::Good => Condition::Good,
                _ if place.confirmed >= head => Condition::Good,
                _ => Condition::CatchingUp,
            };
        }
        state.tell(shared);
    }

    /// A sink does not take entries.
    pub(super) fn failed(&self, shared: &Arc<Shared>, at: usize, why: &'static str) {
        let mut state = self.lock();
        if let Some(place) = state.places.get_mut(at) {
            place.failed(why);
        }
        state.tell(shared);
    }

    /// Something about a sink that stops nothing.
    pub(super) fn note(&self, at: usize, why: &'static str) {
        if let Some(place) = self.lock().places.get_mut(at) {
            place.failures += 1;
            place.last_error = Some(why);
        }
    }

    /// A sink's thread has ended.
    pub(super) fn has_ended(&self, at: usize) {
        if let Some(place) = self.lock().places.get_mut(at) {
            place.ended = true;
        }
        self.ended.notify_all();
    }

    /// Waits until there is something to do for a sink that stands at `next`, and not before `not_before`; for so long at
    /// most after that.
    pub(super) fn work(&self, next: u64, not_before: Option<Instant>, idle: Duration) -> Work {
        let mut state = self.lock();
        let begin = Instant::now();
        let idle = not_before.map_or(begin, |at| at.max(begin)) + idle;
        loop {
            let now = Instant::now();
            match state.end {
                End::AtOnce => return Work::Stop,
                End::By(_) if next >= state.head => return Work::Stop,
                End::By(end) if now >= end => return Work::Stop,
                End::By(_) | End::Running => {}
            }
            let paused = not_before.filter(|at| *at > now);
            if paused.is_none() && state.head > next {
                return Work::Entries(state.head);
            }
            if paused.is_none() && now >= idle {
                return Work::Idle;
            }
            let until = paused.unwrap_or(idle).saturating_duration_since(now);
            state = self.grown.wait_timeout(state, until).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers those who have waited for too long, until the end.
    pub(super) fn watch(&self, shared: &Arc<Shared>) {
        let mut state = self.lock();
        loop {
            if matches!(state.end, End::AtOnce) {
                return;
            }
            let now = Instant::now();
            match state.due() {
                None => state = self.waits.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now => {
                    state = self.waits.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let late = expire(&mut state, now);
                    state.tell(shared);
                    drop(state);
                    late.into_iter().for_each(|waiting| give_up(shared, waiting, TIMED_OUT));
                    state = self.lock();
                }
            }
        }
    }

    /// Ends the threads: `cleanly` once each has confirmed everything, or its deadline is over. Whoever waits then gets no
    /// answer.
    pub(super) fn stop(&self, shared: &Arc<Shared>, cleanly: bool) {
        let mut state = self.lock();
        let longest = state.places.iter().map(|place| place.settings.deadline).max().unwrap_or_default();
        let end = Instant::now() + longest;
        state.end = if cleanly { End::By(end) } else { End::AtOnce };
        self.grown.notify_all();
        let patience = if cleanly { end + TO_END } else { Instant::now() + TO_END };
        while state.places.iter().any(|place| !place.ended) && Instant::now() < patience {
            let left = patience.saturating_duration_since(Instant::now());
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.end = End::AtOnce;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        self.grown.notify_all();
        self.waits.notify_all();
        left.into_iter().for_each(|waiting| give_up(shared, waiting, TIMED_OUT));
    }

    pub(super) fn status(&self) -> Vec<SinkStatus> {
        let state = self.lock();
        let one = |place: &Place| {
            let lag = state.head.saturating_sub(place.confirmed);
            SinkStatus {
                name: place.settings.name.clone(),
                kind: place.kind,
                mandatory: place.settings.mandatory,
                state: match place.condition {
                    Condition::Failing => SinkState::Failing,
                    _ if lag > place.settings.queue => SinkState::Behind,
                    Condition::CatchingUp => SinkState::CatchingUp,
                    Condition::Good => SinkState::Good,
                },
                confirmed: place.confirmed,
                lag,
                behind_for: place.behind_since.map_or(Duration::ZERO, |since| since.elapsed()),
                failures: place.failures,
                last_error: place.last_error,
            }
        };
        state.places.iter().map(one).collect()
    }
}

/// Takes out who has waited for longer than a sink's deadline; that sink has failed.
fn expire(state: &mut State, now: Instant) -> Vec<Waiting> {
    let State { places, waiting, .. } = state;
    let mut late = Vec::new();
    for place in places.iter_mut().filter(|place| place.settings.mandatory) {
        let (confirmed, deadline) = (place.confirmed, place.settings.deadline);
        let is_late = |waiting: &Waiting| {
            waiting.end > confirmed && waiting.since.checked_add(deadline).is_some_and(|due| due <= now)
        };
        let (gone, kept): (Vec<_>, Vec<_>) = waiting.drain(..).partition(is_late);
        waiting.extend(kept);
        if !gone.is_empty() && place.condition != Condition::Failing {
            place.failed(LATE);
        }
        late.extend(gone);
    }
    late
}

/// Answers that an entry is durable and confirmed.
pub(super) fn answer(shared: &Arc<Shared>, pending: Pending, receipt: Receipt, group: &Arc<Group>) {
    // Whoever does not wait any more gets no answer; an intent that comes back is dropped, and says so itself.
    match pending.reply {
        Reply::Nobody => {}
        Reply::Durable(sender) | Reply::Refusal(sender) | Reply::End(sender) => drop(sender.send(Ok(receipt))),
        Reply::Intent(sender) => {
            let (request, tenant) = pending.draft.names();
            let (shared, group) = (Arc::clone(shared), Arc::clone(group));
            let settled = std::sync::atomic::AtomicBool::new(false);
            drop(sender.send(Ok(super::queue::Armed { shared, receipt, group, request, tenant, settled })));
        }
    }
}

/// Answers that it is not: the entry is in the log, and an intent gets its outcome there.
fn give_up(shared: &Shared, waiting: Waiting, why: &'static str) {
    for (pending, receipt) in waiting.written {
        match pending.reply {
            Reply::Nobody => {}
            Reply::Durable(sender) | Reply::Refusal(sender) | Reply::End(sender) => drop(sender.send(Err(why))),
            Reply::Intent(sender) => {
                let body = Body::Outcome {
                    intent: receipt.index,
                    status: Status::Failed,
                    reason: UNCONFIRMED.to_owned(),
                    key: None,
                    items: 0,
                };
                let (request, tenant) = pending.draft.names();
                shared.submit_unawaited(Draft::new(request, tenant, &body));
                drop(sender.send(Err(why)));
            }
        }
    }
}
