//! Sinks: who else gets every entry, after it is durable in the log (`docs/sinks.md`).
//!
//! ```text
//! writer ─ durable ─→ hub ─→ answers, once every mandatory sink has confirmed
//!                      ↑
//!          one thread a sink: reads the log's own file, delivers, confirms
//! ```
//!
//! The log's file is the queue: a sink that is behind costs no memory, loses nothing, and catches up from there.

use std::fmt;
use std::time::Duration;

use super::entry::Entry;
use super::merkle::Hash;
use crate::error::Error;

/// Longest name of a sink.
pub const MAX_SINK_NAME: usize = 32;

/// An entry on its way to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// What it says.
    pub entry: Entry,
    /// Its leaf hash.
    pub leaf_hash: Hash,
}

/// Somewhere else that gets every entry, in order and at least once: after a crash, and after a delivery that failed,
/// entries come again. Each carries its index, by which the receiver drops what it has.
///
/// Called from a thread of its own, which may block; whoever waits for it does not wait longer than its deadline.
/// Reasons are decided at compile time, so that they carry no data.
pub trait Sink: Send + fmt::Debug + 'static {
    /// What kind it is: a word for status and metrics.
    fn kind(&self) -> &'static str;

    /// Most entries of one delivery.
    fn most(&self) -> usize {
        4096
    }

    /// Whether it would take entries now. Asked before the first delivery, after a failure, and every second without
    /// entries.
    ///
    /// # Errors
    /// Why not.
    fn check(&mut self) -> Result<(), &'static str>;

    /// Takes entries and returns when it has them as surely as its kind allows. What is not confirmed comes again, the
    /// same entries first.
    ///
    /// # Errors
    /// Why they are not confirmed; some may have arrived.
    fn deliver(&mut self, entries: &[Delivered]) -> Result<(), &'static str>;
}

/// How a sink is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSettings {
    /// Its name: its position is kept under it, so another name is another sink. 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// Whether answers wait for it.
    pub mandatory: bool,
    /// How long an answer waits for it; a mandatory sink that has not confirmed by then has failed.
    pub deadline: Duration,
    /// How many entries it may be behind: a mandatory sink is full then, any other counts as behind.
    pub queue: u64,
    /// Where a new sink begins: with the whole log, or (false) with what is written from then on.
    pub history: bool,
}

impl SinkSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || self.name.len() > MAX_SINK_NAME || !self.name.bytes().all(good) {
            return Err(Error::invalid("name", "must be 1 to 32 of the characters a-z 0-9 -"));
        }
        Ok(())
    }
}

/// How a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkState {
    /// It has confirmed all there was, or is about to.
    Good,
    /// It works, and has not come to the log's end yet: after the start, or after a failure.
    CatchingUp,
    /// More entries wait for it than its queue holds.
    Behind,
    /// It does not take entries. It is tried again.
    Failing,
}

impl SinkState {
    /// A word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::CatchingUp => "catching_up",
            Self::Behind => "behind",
            Self::Failing => "failing",
        }
    }
}

/// What is known of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Whether answers wait for it.
    pub mandatory: bool,
    /// How it is.
    pub state: SinkState,
    /// How many entries, from the log's start, it has confirmed or need not have: the index that it waits for.
    pub confirmed: u64,
    /// How many durable entries it has not confirmed.
    pub lag: u64,
    /// For how long there has been an entry that it has not confirmed.
    pub behind_for: Duration,
    /// How often it has failed since the start.
    pub failures: u64,
    /// Why it failed last; `None` if it never did. Decided at compile time.
    pub last_error: Option<&'static str>,
}
