//! The audit log: every decision and what became of it, durable before anything is released.
//!
//! ```text
//! Permit ─Log::record→ [queue] ─writer: one frame, one sync→ Recorded ─→ keys, envelope
//!                                  │ entries.log, the durable record
//!                                  ▼
//!                         publisher: checkpoints (signed, all kept), tiles (derived)
//! ```
//!
//! `docs/audit.md` is the specification. Without what somebody keeps elsewhere (a cosigned checkpoint, an audit receipt)
//! nobody can tell that a log was rolled back: [`verify`] says so.

mod anchor;
mod checkpoint;
mod cosign;
mod decided;
mod entry;
mod frame;
mod group;
mod history;
mod log;
pub mod merkle;
mod multiproof;
mod note;
mod pseudonym;
mod publisher;
mod queue;
mod read;
mod receipt;
mod recorded;
mod replay;
mod signer;
mod tiles;
mod verify;
mod wire;
mod witness;
mod writer;

pub use anchor::{Anchor, PolicyMark};
pub use checkpoint::Checkpoint;
pub use cosign::{WitnessSigner, WitnessVerifier};
pub use decided::{Decided, EndUserName, MAX_POLICY_BYTES, Policies};
pub use entry::{Body, Entry, KeyRef, Link, MAX_CODE, MAX_ENTRY, MAX_PRINCIPAL, Status, first_previous};
pub use group::Audited;
pub use history::{History, Page, PageBounds, Proven};
pub use log::{Cut, Log, Options, Recovery, SystemEvent};
pub use pseudonym::{Pseudonym, Pseudonyms};
pub use queue::{Health, Receipt};
pub use read::{EntryReader, kept_checkpoint, published_checkpoint};
pub use receipt::{AuditReceipt, MAX_RECEIPT_ENTRIES};
pub use recorded::{Intent, Outcome, Recorded};
pub use replay::Finding;
pub use signer::{LogSigner, LogVerifier};
pub use tiles::TileReader;
pub use verify::{Report, VerifyOptions, verify};
pub use witness::{MAX_REQUEST, NotCosigned, Witness, request};

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod test_support;
