//! A thin client of the gateway: mutually authenticated TLS 1.3, typed calls, errors without data.
//!
//! [`VaultClient`] calls the data plane with a workload's certificate, [`OperatorClient`] the control plane with an
//! operator's. Both reconnect by themselves, set a deadline on every call, and are cheap to clone.
//!
//! ```no_run
//! use vault_client::{Endpoint, Target, VaultClient};
//!
//! # async fn example(ca: Vec<u8>, cert: Vec<u8>, key: Vec<u8>) -> Result<(), vault_client::ClientError> {
//! let endpoint = Endpoint::new("127.0.0.1:8443", "localhost", ca, cert, key);
//! let vault = VaultClient::connect(&endpoint).await?;
//! let email = Target::new("acme", "customers", "billing").subject("customer-42").context("field", "email");
//! let sealed = vault.encrypt(&email, b"ada@example.com").await?;
//! let opened = vault.decrypt(&email, sealed.envelope).await?;
//! assert_eq!(opened.plaintext.as_bytes(), b"ada@example.com");
//! # Ok(())
//! # }
//! ```
//!
//! What is wiped: the private key's bytes once they are loaded, plaintext handed out by [`Plaintext`] when it is
//! dropped, and the copy of a plaintext that a request holds. The buffers of HTTP/2 and TLS are not ours to wipe.

mod approvals;
mod call;
mod charters;
mod consents;
mod control;
mod data;
mod endpoint;
mod error;
mod grants;
mod operator_token;
mod policies;
mod receipt;
mod scorecard;
mod streams;
mod value;

pub use call::{Limits, MAX_BATCH, MAX_UNARY};
pub use consents::ConsentClient;
pub use control::OperatorClient;
pub use data::VaultClient;
pub use endpoint::Endpoint;
pub use error::{ClientError, FieldViolation, Origin};
pub use operator_token::OperatorTokens;
pub use receipt::AuditReceipt;
pub use streams::Streamed;
pub use tonic::Code;
pub use value::{BatchItem, EndUserToken, Opened, Plaintext, Sealed, Target};
