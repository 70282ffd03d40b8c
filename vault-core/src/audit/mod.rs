//! The audit log: every decision and what became of it, durable before anything is released.
//!
//! ```text
//! Permit ─Log::record→ [queue] ─writer: one frame, one sync→ Recorded ─→ keys, envelope
//!                                  │ entries.log, the durable record
//!                                  ▼
//!                         publisher: checkpoints (signed, all kept), tiles (derived)
//!                         sinks: whoever else gets every entry
//! ```
//!
//! `docs/audit.md` is the specification. Without what somebody keeps elsewhere (a cosigned checkpoint, an audit receipt)
//! nobody can tell that a log was rolled back: [`verify`] says so.

mod anchor;
mod archive;
mod archiver;
mod checkpoint;
mod cosign;
mod decided;
mod entry;
mod frame;
mod group;
mod log;
mod log_keys;
pub mod merkle;
mod multiproof;
mod note;
mod pseudonym;
mod publisher;
mod queue;
mod read;
mod receipt;
mod recorded;
mod recover;
mod replay;
mod sealer;
mod segments;
mod signer;
mod sink;
mod sink_attach;
mod sink_file;
mod sink_follow;
mod sink_hub;
mod sink_position;
mod snapshot;
mod tiles;
mod verify;
mod wire;
mod witness;
mod writer;

pub use anchor::{Anchor, PolicyMark};
pub use archiver::SegmentStatus;
pub use checkpoint::Checkpoint;
pub use cosign::{WitnessSigner, WitnessVerifier};
pub use decided::{Decided, EndUserName, MAX_POLICY_BYTES, Policies};
pub use entry::{Body, Entry, KeyRef, Link, MAX_CODE, MAX_ENTRY, MAX_PRINCIPAL, Status, first_previous};
pub use group::Audited;
pub use log::{Cut, Log, Options, Recovery, SystemEvent};
pub use log_keys::{LogKey, known as known_keys, listed_keys};
pub use pseudonym::{Pseudonym, Pseudonyms};
pub use queue::{Health, Receipt};
pub use read::{EntryReader, has_signed_last, kept_checkpoint, published_checkpoint};
pub use receipt::{AuditReceipt, MAX_RECEIPT_ENTRIES};
pub use recorded::{Intent, Outcome, Recorded};
pub use replay::Finding;
pub use signer::{LogSigner, LogVerifier};
pub use sink::{Delivered, MAX_SINK_NAME, Sink, SinkSettings, SinkState, SinkStatus};
pub use sink_file::{FileSink, Line};
pub use tiles::TileReader;
pub use verify::{Report, VerifyOptions, verify};
pub use witness::{MAX_REQUEST, NotCosigned, Witness, request};

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod segment_tests;
#[cfg(test)]
mod sink_crash_tests;
#[cfg(test)]
mod sink_file_tests;
#[cfg(test)]
mod sink_tests;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod test_support;
