//! Per-tenant envelope encryption that its own operators cannot open.
//!
//! Modules stand in floors and import downwards only:
//!
//! ```text
//! vault                      the façade: encrypt, decrypt, rewrap, tenants, datasets
//!   backup                   a store's rows in one sealed file
//!   keys                     root → tenant → data → record keys, cache, rotation
//!     bundle                 signed policy bundles, as files and as rows
//!     kms · store            seams: root keys and rows, with the embedded implementations
//!       proof                signed records of proofs about policy sets
//!       audit                Recorded<P>: nothing is released before its entry is durable
//!         policy             Permit<A>: the only way to reach a key
//!           principal · envelope
//!             crypto
//!               secret · id · custody · time · error · failpoint · fs
//! ```

// Unit tests share the fixtures of the other tests, which name the crate.
#[cfg(test)]
extern crate self as vault_core;

mod base64_bytes;
pub mod custody;
pub mod error;
pub mod failpoint;
pub mod fs;
pub mod id;
pub mod secret;
pub mod time;

pub mod crypto;

pub mod envelope;
pub mod principal;

pub mod policy;

pub mod audit;

pub mod proof;

pub mod kms;
pub mod store;

pub mod charter;

pub mod bundle;

pub mod keys;

pub mod backup;

pub mod vault;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use error::Error;
pub use vault::Vault;
