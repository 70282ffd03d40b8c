//! The vault's protocol, package `vault.v1`: messages, services, and what each field may carry.
//!
//! Two planes, two sets of services ([`rpcs`] lists every call with its plane). Every string, bytes and map field
//! carries a [`v1::DataClass`]; from the classes follow
//!
//! - the proof that no control-plane call can reach plaintext or key material ([`classes::check`]),
//! - the `Debug` of every message, which prints only identifiers, metadata and numbers ([`redact`]).
//!
//! ```
//! use vault_proto::v1::EncryptRequest;
//!
//! let request = EncryptRequest {
//!     tenant: "acme".into(),
//!     plaintext: "4111 1111 1111 1111".into(),
//!     ..Default::default()
//! };
//! let shown = format!("{request:?}");
//! assert!(shown.contains("acme") && !shown.contains("4111"));
//! ```

pub mod classes;
pub mod redact;
mod rpc;

pub use prost_types::Timestamp;
pub use rpc::{Rpc, rpcs};

/// Messages, clients and servers of package `vault.v1`, generated from `vault/v1/*.proto`.
#[expect(clippy::allow_attributes_without_reason, reason = "the generator of clients and servers writes them")]
pub mod v1 {
    tonic::include_proto!("vault.v1");
    include!(concat!(env!("OUT_DIR"), "/vault.v1.debug.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of the protocol: all files with their imports and custom options,
/// without comments. Releases ship it for tools; gateways do not serve reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));
