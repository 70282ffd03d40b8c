//! Every call of the protocol with the plane that serves it.

use crate::v1::Plane;

/// One call of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc {
    /// The full name of the service, for example `vault.v1.CryptoService`.
    pub service: &'static str,
    /// The name of the method, for example `Encrypt`.
    pub method: &'static str,
    /// The plane that serves it; never [`Plane::Unspecified`].
    pub plane: Plane,
    /// The HTTP/2 `:path`, for example `/vault.v1.CryptoService/Encrypt`.
    pub path: &'static str,
    /// The full name of the request message.
    pub request: &'static str,
    /// The full name of the response message.
    pub response: &'static str,
}

const RPCS: &[Rpc] = include!(concat!(env!("OUT_DIR"), "/vault.v1.rpcs.rs"));

/// Every RPC of package `vault.v1`, in the order of the files and of the services in them. Made from the same
/// descriptors as the messages, so that a test over "every RPC" cannot miss a new one.
pub const fn rpcs() -> &'static [Rpc] {
    RPCS
}
