//! The client over mutually authenticated TLS, against a gateway in miniature.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod calls;
mod support;
mod tls;
