//! The gateway around the services: configuration, TLS, reload, drain, the command line. Real sockets, real clients.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected has to stop")]

mod alerts;
mod audit_entries;
mod audit_receipts;
mod audit_segments;
#[cfg(feature = "aws")]
mod aws;
mod backup;
mod charters;
mod command_line;
mod configuration;
mod drain;
mod end_users;
#[cfg(feature = "aws")]
#[expect(dead_code, clippy::panic, clippy::indexing_slicing, reason = "shared with other test programs")]
#[path = "../../../vault-core/tests/common/fault_proxy.rs"]
mod fault_proxy;
mod handshake;
mod identity_provider;
mod issuer;
mod metrics;
mod operator_commands;
mod operator_lists;
mod operator_tokens;
mod policies;
#[cfg(feature = "prove")]
#[expect(clippy::print_stdout, clippy::disallowed_macros, reason = "a test says what it measured")]
mod proving;
mod release;
mod reload;
mod roots;
mod saml_bridge;
mod scorecard;
mod shredding;
mod sink_foreign;
mod sink_load;
mod sink_receivers;
mod sinks;
#[cfg(feature = "prove")]
#[expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]
#[path = "../../../vault-core/tests/common/solver.rs"]
mod solver;
mod support;
mod witnesses;
