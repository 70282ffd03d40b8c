//! [`Operator`]: a person who operates the vault.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;

use super::path::{Proof, prove};
use super::roster::Role;
use super::{IdentityError, OPERATOR, OperatorBundle, SpiffeId, accessors};
use crate::time::Timestamp;

/// A person who operates the vault, proven by a certificate of the operator trust domain.
///
/// The certificate says who it is, and nothing of what they may do: until an [`OperatorList`](super::OperatorList) has
/// said which person it is and which roles that person has, every action is refused.
///
/// As with [`Workload`](super::Workload), nothing but verification makes one.
///
/// ```compile_fail,E0560
/// use vault_core::principal::Operator;
/// fn forge() -> Operator { Operator { spiffe_id: "spiffe://operators.example/operator/alice".into() } }
/// ```
/// ```compile_fail,E0277
/// use vault_core::principal::{Operator, Workload};
/// fn turn(workload: Workload) -> Operator { workload.into() }
/// ```
/// ```compile_fail,E0308
/// use vault_core::principal::{Operator, Workload};
/// fn wants(_: &Operator) {}
/// fn pass(workload: &Workload) { wants(workload) }
/// ```
/// ```compile_fail,E0599
/// use vault_core::principal::Operator;
/// fn twice(operator: Operator) -> (Operator, Operator) { (operator.clone(), operator) }
/// ```
/// ```compile_fail,E0616
/// use vault_core::principal::Operator;
/// fn promote(operator: &mut Operator) { operator.office = None }
/// ```
#[derive(Debug)]
pub struct Operator {
    pub(super) proof: Proof,
    pub(super) office: Option<Office>,
}

/// What a list says of an operator.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) person: String,
    pub(super) roles: BTreeSet<Role>,
    /// The first instant at which the token that they brought no longer holds.
    pub(super) until: Option<Timestamp>,
}

impl Operator {
    /// Verifies a certificate chain, leaf first, against the operators' trust bundle. The path of the ID must be exactly
    /// `/operator/<name>`. The operator has no role yet.
    ///
    /// # Errors
    /// The first rule that the chain breaks.
    pub fn verify(
        chain: &[CertificateDer<'_>],
        bundle: &OperatorBundle,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let proof = prove(chain, bundle, now, |id| {
            let mut segments = id.segments();
            match (segments.next(), segments.next(), segments.next()) {
                (Some(OPERATOR), Some(_name), None) => Ok(()),
                _ => Err(IdentityError::NotOperatorPath),
            }
        })?;
        Ok(Self { proof, office: None })
    }

    /// The SPIFFE ID, for example `spiffe://operators.example/operator/alice`.
    pub fn spiffe_id(&self) -> &str {
        self.proof.id.as_str()
    }

    /// Which person it is, as a list says it; `None` until one has. Two certificates of one person are the same here.
    pub fn person(&self) -> Option<&str> {
        self.office.as_ref().map(|office| office.person.as_str())
    }

    /// The roles that a list gives them; none until one has.
    pub fn roles(&self) -> impl Iterator<Item = Role> {
        self.office.iter().flat_map(|office| office.roles.iter().copied())
    }

    /// The first instant at which the token that was brought with the certificate no longer holds, or the sign-in behind
    /// it is no longer fresh; `None` if no token was brought.
    pub fn token_until(&self) -> Option<Timestamp> {
        self.office.as_ref().and_then(|office| office.until)
    }

    /// Whether certificate and token hold at `now`. A connection outlives the instant at which they were verified, so
    /// this is asked again for every request. Revocation is not asked again: after a bundle is reloaded, verify the
    /// connection's chain against it.
    pub fn valid_at(&self, now: Timestamp) -> bool {
        self.proof.holds_at(now) && self.token_until().is_none_or(|until| now < until)
    }

    accessors!();

    /// One that no certificate proves and that holds at no instant. With it the shape of a schema is checked.
    pub(crate) fn for_probe() -> Option<Self> {
        let id = SpiffeId::parse("spiffe://operators.example/operator/a").ok()?;
        let office = Office { person: "a".to_owned(), roles: Role::ALL.into(), until: Some(Timestamp(0)) };
        let (not_before, not_after) = (Timestamp(0), Timestamp(0));
        Some(Self { proof: Proof { id, not_before, not_after, fingerprint: [0; 32] }, office: Some(office) })
    }

    /// One that no certificate proves, valid until 2100-01-01: a person of their own, with every role.
    #[cfg(test)]
    pub(crate) fn for_test(spiffe_id: &str) -> Self {
        Self::for_test_as(spiffe_id, spiffe_id, &Role::ALL)
    }

    /// The same with a person and roles of the test's choice.
    #[cfg(test)]
    pub(crate) fn for_test_as(spiffe_id: &str, person: &str, roles: &[Role]) -> Self {
        let office = Office { person: person.to_owned(), roles: roles.iter().copied().collect(), until: None };
        let proof = Proof::of_nobody(SpiffeId::parse(spiffe_id).unwrap(), super::FOR_TESTS);
        Self { proof, office: Some(office) }
    }

    /// One that no certificate proves, and no list knows.
    #[cfg(test)]
    pub(crate) fn for_test_unlisted(spiffe_id: &str) -> Self {
        Self { office: None, ..Self::for_test(spiffe_id) }
    }

    /// One that no certificate proves and no list knows, for `policy::rehearse`, with these roles.
    #[cfg(feature = "prove")]
    pub(crate) fn for_rehearsal(id: SpiffeId, roles: BTreeSet<Role>) -> Self {
        let office = Office { person: id.as_str().to_owned(), roles, until: None };
        Self { proof: Proof::of_nobody(id, Timestamp(u64::MAX)), office: Some(office) }
    }
}
