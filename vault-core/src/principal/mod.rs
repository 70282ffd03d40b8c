//! Who is calling: [`Workload`] and [`Operator`], two unrelated types that only the verification of a certificate chain
//! makes; and for whom: [`EndUser`], which only the verification of a token makes.
//!
//! ```text
//! chain ─ leaf rules ─ trust domain ─ plane rule ─ path to a root, revocation ─ CA rules ─→ Workload or Operator
//!         svid, x509                  here         path (webpki)                 svid
//! ```
//!
//! The rules are those of SPIFFE X509-SVID, narrowed where it leaves a choice; `docs/identity.md` lists each with its
//! name and its test. An identity is read from the one URI SAN and from nothing else: not from the CN, a DNS name, an
//! email address, or anything that the caller says. A service that embeds the library verifies its callers with the same
//! two functions as the gateway, and has an [`OperatorList`] say what an operator is here for:
//!
//! ```
//! use rustls_pki_types::CertificateDer;
//! use vault_core::Error;
//! use vault_core::principal::{TrustDomain, Workload, WorkloadBundle, certificates_from_pem};
//! use vault_core::time::{Clock, SystemClock};
//!
//! fn bundle(roots_pem: &[u8]) -> Result<WorkloadBundle, Error> {
//!     WorkloadBundle::new(TrustDomain::parse("prod.example")?, &certificates_from_pem(roots_pem)?)
//! }
//!
//! fn caller(chain: &[CertificateDer<'_>], bundle: &WorkloadBundle) -> Result<Workload, Error> {
//!     Ok(Workload::verify(chain, bundle, SystemClock.now())?)
//! }
//! ```

mod bundle;
mod end_user;
mod error;
mod operator;
mod path;
mod pem;
mod roster;
mod spiffe;
mod svid;
mod token;
mod x509;

use rustls_pki_types::CertificateDer;

pub use bundle::{
    OperatorBundle, Operators, Plane, TrustBundle, UncoveredIssuers, WorkloadBundle, Workloads, check_planes_apart,
};
pub use end_user::{EndUser, MAX_ISSUER};
pub use error::IdentityError;
pub use operator::Operator;
pub use path::MAX_CHAIN;
pub use pem::{certificates_from_pem, crls_from_pem};
pub use roster::{ListChange, ListRef, MAX_LIST, MAX_PEOPLE, OperatorList, Person, Role, TokenName};
pub use spiffe::{MAX_SPIFFE_ID, MAX_TRUST_DOMAIN, SpiffeId, SpiffeIdError, TrustDomain};
pub use svid::{MAX_CERTIFICATE, leaf_identity};
pub use token::{
    Algorithm, Binding, IssuerSettings, IssuerTenants, Issuers, KeySet, MAX_ISSUERS, MAX_KEY_SET, MAX_KEYS,
    MAX_LIFETIME_MILLIS, MAX_SKEW_MILLIS, MAX_TOKEN, OperatorToken, OperatorTokenError, TokenError,
};
pub use x509::certificate_end;

use crate::time::Timestamp;
use path::{Proof, prove};

/// First path segment of operators' IDs, which no workload's ID may have.
const OPERATOR: &str = "operator";

macro_rules! accessors {
    () => {
        /// The ID, in its parts.
        pub const fn id(&self) -> &SpiffeId {
            &self.proof.id
        }

        /// The last second at which every certificate of the chain, the root included, is valid.
        pub const fn not_after(&self) -> Timestamp {
            self.proof.not_after
        }

        /// SHA-256 of the leaf's DER: what a token's `cnf` with `x5t#S256` (RFC 8705) names.
        pub const fn fingerprint(&self) -> &[u8; 32] {
            &self.proof.fingerprint
        }
    };
}
use accessors;

impl Proof {
    /// What no certificate proves, for the tests of the floors above, and for `policy::rehearse`, which lets neither the
    /// principals made of it nor their permits out.
    #[cfg(any(test, feature = "prove"))]
    const fn of_nobody(id: SpiffeId, not_after: Timestamp) -> Self {
        Self { id, not_before: Timestamp(0), not_after, fingerprint: [0; 32] }
    }
}

/// 2100-01-01.
#[cfg(test)]
const FOR_TESTS: Timestamp = Timestamp(4_102_444_800_000);

/// A service, proven by an X.509-SVID of the workload trust domain.
///
/// Nothing else makes one: no constructor, no conversion, no copy. It is not `Clone` so that whoever holds one got it
/// from the verification of the connection it serves; parts that share it share it behind an `Arc`.
///
/// ```compile_fail,E0451
/// use vault_core::principal::Workload;
/// fn forge(other: Workload) -> Workload { let Workload { proof } = other; todo!() }
/// ```
/// ```compile_fail,E0560
/// use vault_core::principal::Workload;
/// fn forge() -> Workload { Workload { spiffe_id: "spiffe://prod.example/billing".into() } }
/// ```
/// ```compile_fail,E0277
/// use vault_core::principal::{Operator, Workload};
/// fn turn(operator: Operator) -> Workload { operator.into() }
/// ```
/// ```compile_fail,E0277
/// use vault_core::principal::{SpiffeId, Workload};
/// fn claim(id: SpiffeId) -> Workload { id.into() }
/// ```
/// ```compile_fail,E0308
/// use vault_core::principal::{Operator, Workload};
/// fn wants(_: &Workload) {}
/// fn pass(operator: &Operator) { wants(operator) }
/// ```
/// ```compile_fail,E0599
/// use vault_core::principal::Workload;
/// fn twice(workload: Workload) -> (Workload, Workload) { (workload.clone(), workload) }
/// ```
/// ```compile_fail,E0599
/// let nobody = vault_core::principal::Workload::default();
/// ```
#[derive(Debug)]
pub struct Workload {
    proof: Proof,
}

impl Workload {
    /// Verifies a certificate chain, leaf first, against the workloads' trust bundle.
    ///
    /// # Errors
    /// The first rule that the chain breaks.
    pub fn verify(
        chain: &[CertificateDer<'_>],
        bundle: &WorkloadBundle,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let proof = prove(chain, bundle, now, |id| match id.segments().next() {
            Some(first) if !first.eq_ignore_ascii_case(OPERATOR) => Ok(()),
            Some(_) => Err(IdentityError::OperatorPath),
            None => Err(IdentityError::RootPath),
        })?;
        Ok(Self { proof })
    }

    /// The SPIFFE ID, for example `spiffe://prod.example/ns/shop/sa/billing`.
    pub fn spiffe_id(&self) -> &str {
        self.proof.id.as_str()
    }

    /// Whether the proof holds at `now`. A connection outlives the instant at which its certificate was verified, so
    /// this is asked again for every request. Revocation is not asked again: after a bundle is reloaded, verify the
    /// connection's chain against it.
    pub fn valid_at(&self, now: Timestamp) -> bool {
        self.proof.holds_at(now)
    }

    accessors!();

    /// One that no certificate proves, valid until 2100-01-01.
    #[cfg(test)]
    pub(crate) fn for_test(spiffe_id: &str) -> Self {
        Self { proof: Proof::of_nobody(SpiffeId::parse(spiffe_id).unwrap(), FOR_TESTS) }
    }

    /// One that no certificate proves.
    #[cfg(feature = "prove")]
    pub(crate) const fn for_rehearsal(id: SpiffeId) -> Self {
        Self { proof: Proof::of_nobody(id, Timestamp(u64::MAX)) }
    }
}
