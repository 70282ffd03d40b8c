//! The gateway around the services: configuration, TLS, reload, drain, the command line. Real sockets, real clients.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected has to stop")]

mod command_line;
mod configuration;
mod drain;
mod handshake;
mod reload;
mod roots;
mod shredding;
mod support;
