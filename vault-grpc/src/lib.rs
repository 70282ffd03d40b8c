//! The gateway: the vault over mutually authenticated TLS gRPC.
//!
//! ```text
//! cli → gateway ─ build        the vault, from the configuration
//!               ├ listener     one for each plane: TLS, who calls, bounds, draining
//!               │   └ tls      material, verifier, reload
//!               ├ prover       proofs of policy bundles, in a process of their own
//!               └ service      what each plane answers; convert and status at its edges
//!               scorecard     figures of the log and the store
//! charter · config · pinned · store · sinks · plane · telemetry · metrics · hardening · release · refusals
//! ```

pub mod build;
pub mod charter;
pub mod config;
pub mod convert;
#[cfg(feature = "dev")]
pub mod dev_tokens;
pub mod end_users;
pub mod gateway;
pub mod hardening;
#[cfg(feature = "dev")]
pub mod init;
mod issuers;
mod listener;
mod metrics;
pub mod operators;
mod pinned;
#[cfg(feature = "dev")]
pub mod pki;
pub mod plane;
#[cfg(feature = "prove")]
pub mod prover;
mod refusals;
pub mod release;
pub mod scorecard;
pub mod service;
pub mod sinks;
pub mod status;
mod store;
pub mod telemetry;
pub mod tls;
pub mod witness;

pub use gateway::Gateway;
