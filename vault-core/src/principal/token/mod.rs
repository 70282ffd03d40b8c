//! From an end user's token to an [`EndUser`]: OAuth 2.0 access tokens as JWTs (RFC 9068), under the best practice of
//! RFC 8725.
//!
//! ```text
//! token ─ size, form ─ issuer, type, algorithm ─ key by kid ─ signature ─ times, audience, names ─ certificate ─→ EndUser
//!         jws, json     issuers                   jwk          jws         claims                  claims
//! ```
//!
//! `docs/end-users.md` lists each rule with its name and its test. Nothing is taken from the token until the signature
//! of a pinned key is proven, but for `iss` and `kid`, which choose the key among those that are pinned.
//!
//! ```
//! use vault_core::Error;
//! use vault_core::id::TenantId;
//! use vault_core::principal::{EndUser, IssuerSettings, IssuerTenants, Issuers, KeySet, Workload};
//! use vault_core::time::{Clock, SystemClock};
//!
//! fn issuers(jwks: &[u8], acme: TenantId) -> Result<Issuers, Error> {
//!     let tenants = IssuerTenants::Only([acme].into());
//!     let issuers = Issuers::new(vec![IssuerSettings::new("https://id.example", "https://vault.example", tenants)])?;
//!     issuers.put_keys(0, KeySet::parse(jwks)?, None)?;
//!     Ok(issuers)
//! }
//!
//! fn end_user(token: &[u8], issuers: &Issuers, caller: &Workload) -> Result<EndUser, Error> {
//!     Ok(EndUser::verify(token, issuers, caller, SystemClock.now())?)
//! }
//! ```

mod claims;
mod error;
mod issuers;
mod json;
mod jwk;
mod jws;
mod memory;
mod operator;

pub use error::TokenError;
pub use issuers::{Binding, IssuerSettings, IssuerTenants, Issuers, MAX_ISSUERS, MAX_LIFETIME_MILLIS, MAX_SKEW_MILLIS};
pub use jwk::{KeySet, MAX_KEY_SET, MAX_KEYS};
pub use jws::Algorithm;
pub use operator::{OperatorToken, OperatorTokenError};

use super::{EndUser, Workload};
use crate::time::Timestamp;

/// Longest token in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

impl EndUser {
    /// Verifies the token that a workload brings for an end user. The workload is part of it: a token that is bound to a
    /// certificate proves its end user to the holder of that certificate alone.
    ///
    /// The text is the caller's to wipe; nothing of it is kept.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub fn verify(token: &[u8], issuers: &Issuers, who: &Workload, now: Timestamp) -> Result<Self, TokenError> {
        let (token, issuer) = issuers.prove(token, now)?;
        claims::judge(&issuer.settings, &token.claims, who, now)
    }
}
