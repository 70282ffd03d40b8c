//! From a chain to a proven identity: the leaf's rules, the path to a root (RFC 5280 section 6, by `webpki`), and the
//! rules for the CAs on that path.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, Error as PathError, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath, ring as algorithms,
};

use super::bundle::{Plane, Root, TrustBundle, UncoveredIssuers};
use super::error::IdentityError;
use super::spiffe::SpiffeId;
use super::svid::{MAX_CERTIFICATE, check_ca, read_facts, read_leaf};
use crate::time::Timestamp;

/// Most certificates in a chain that are looked at: the leaf, the six intermediates that `webpki` follows, and a root
/// that some peers send along.
pub const MAX_CHAIN: usize = 8;

/// No SHA-1, no RSA below 2048 bits, no RSA with its parameters left out, no curve but P-256 and P-384.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ED25519,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// What a verified chain proves. Its fields are those of a workload and of an operator; it is neither.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) id: SpiffeId,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) fingerprint: [u8; 32],
}

impl Proof {
    /// X.509 validity has whole seconds and includes both ends (RFC 5280 section 4.1.2.5).
    pub(super) fn holds_at(&self, now: Timestamp) -> bool {
        (self.not_before.secs()..=self.not_after.secs()).contains(&now.secs())
    }

    fn narrow(&mut self, not_before: Timestamp, not_after: Timestamp) {
        self.not_before = self.not_before.max(not_before);
        self.not_after = self.not_after.min(not_after);
    }
}

/// Verifies a chain (leaf first, intermediates in any order) against a bundle. `accepts` is the plane's own rule for
/// the ID.
///
/// The leaf's own rules come first: they cost no signature, and name what is wrong rather than what is missing.
pub(super) fn prove<P: Plane>(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle<P>,
    now: Timestamp,
    accepts: fn(&SpiffeId) -> Result<(), IdentityError>,
) -> Result<Proof, IdentityError> {
    let (first, rest) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
    if chain.len() > MAX_CHAIN {
        return Err(IdentityError::ChainTooLong);
    }
    if chain.iter().any(|certificate| certificate.len() > MAX_CERTIFICATE) {
        return Err(IdentityError::CertificateTooLarge);
    }
    let leaf = read_leaf(first)?;
    if !leaf.id.is_in(bundle.trust_domain()) {
        return Err(IdentityError::WrongTrustDomain);
    }
    accepts(&leaf.id)?;
    if !bundle.allows_lifetime(leaf.facts.not_before, leaf.facts.not_after) {
        return Err(IdentityError::IssuedForTooLong);
    }

    let (roots, anchors): (Vec<&Root>, Vec<TrustAnchor<'_>>) =
        bundle.roots().iter().filter(|root| root.is_valid_at(now)).map(|root| (root, root.anchor.clone())).unzip();
    if anchors.is_empty() {
        return Err(IdentityError::NoValidRoot);
    }
    let end_entity = EndEntityCert::try_from(first).map_err(rule_of)?;
    let path = find_path(&end_entity, &anchors, rest, bundle, now)?;

    let mut proof = Proof {
        id: leaf.id,
        not_before: leaf.facts.not_before,
        not_after: leaf.facts.not_after,
        fingerprint: sha256(first),
    };
    let mut intermediates = 0;
    for certificate in path.intermediate_certificates() {
        let facts = read_facts(&certificate.der())?;
        check_ca(&facts, bundle.trust_domain())?;
        proof.narrow(facts.not_before, facts.not_after);
        intermediates += 1;
    }
    let root = anchors
        .iter()
        .position(|anchor| std::ptr::eq(anchor, path.anchor()))
        .and_then(|at| roots.get(at))
        .ok_or(IdentityError::UnknownIssuer)?;
    // `webpki` knows a root as a name and a key only, so its path length is ours to enforce.
    if root.path_len.is_some_and(|most| intermediates > usize::from(most)) {
        return Err(IdentityError::PathLength);
    }
    proof.narrow(root.not_before, root.not_after);
    Ok(proof)
}

fn find_path<'p, P: Plane>(
    end_entity: &'p EndEntityCert<'p>,
    anchors: &'p [TrustAnchor<'p>],
    intermediates: &'p [CertificateDer<'p>],
    bundle: &TrustBundle<P>,
    now: Timestamp,
) -> Result<VerifiedPath<'p>, IdentityError> {
    let crls = bundle.crls();
    let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .with_status_policy(match bundle.uncovered() {
                UncoveredIssuers::Refuse => UnknownStatusPolicy::Deny,
                UncoveredIssuers::Accept => UnknownStatusPolicy::Allow,
            })
            .build()
    });
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.secs()));
    end_entity
        .verify_for_usage(ALGORITHMS, anchors, intermediates, time, KeyUsage::client_auth(), revocation, None)
        .map_err(rule_of)
}

fn sha256(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, der).as_ref());
    out
}

/// The rule behind an error of path validation. What a later version adds is a refusal too, by the broadest name.
fn rule_of(error: PathError) -> IdentityError {
    match error {
        PathError::CertExpired { .. } => IdentityError::Expired,
        PathError::CertNotValidYet { .. } => IdentityError::NotYetValid,
        PathError::UnknownIssuer => IdentityError::UnknownIssuer,
        PathError::CaUsedAsEndEntity => IdentityError::LeafIsCa,
        PathError::EndEntityUsedAsCa => IdentityError::NotACa,
        PathError::EmptyEkuExtension | PathError::RequiredEkuNotFoundContext(_) => IdentityError::WrongEku,
        PathError::PathLenConstraintViolated | PathError::MaximumPathDepthExceeded => IdentityError::PathLength,
        PathError::NameConstraintViolation => IdentityError::NameConstraint,
        PathError::InvalidSignatureForPublicKey => IdentityError::BadSignature,
        PathError::UnsupportedSignatureAlgorithmContext(_)
        | PathError::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => IdentityError::WeakSignature,
        PathError::CertRevoked => IdentityError::Revoked,
        PathError::UnknownRevocationStatus => IdentityError::UnknownRevocation,
        PathError::CrlExpired { .. } => IdentityError::StaleCrl,
        PathError::InvalidCrlSignatureForPublicKey
        | PathError::IssuerNotCrlSigner
        | PathError::UnsupportedCrlSignatureAlgorithmContext(_)
        | PathError::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => IdentityError::BadCrl,
        PathError::UnsupportedCriticalExtension => IdentityError::UnknownCriticalExtension,
        PathError::MaximumSignatureChecksExceeded
        | PathError::MaximumPathBuildCallsExceeded
        | PathError::MaximumNameConstraintComparisonsExceeded => IdentityError::TooComplex,
        _ => IdentityError::Malformed,
    }
}
