//! Trust bundles: whom one plane trusts to name its callers.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList, anchor_from_trusted_cert};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::error::IdentityError;
use super::spiffe::TrustDomain;
use super::svid::{check_ca, read_facts};
use super::x509::timestamp;
use crate::error::Error;
use crate::time::Timestamp;

/// What an issuer may add to a lifetime for clocks that differ, by dating a certificate back.
const SLACK: Duration = Duration::from_secs(300);

mod sealed {
    pub trait Sealed {}
}

/// Which kind of caller a bundle vouches for: [`Workloads`] or [`Operators`], and nothing else.
///
/// ```compile_fail,E0277
/// enum Everyone {}
/// impl vault_core::principal::Plane for Everyone {}
/// ```
pub trait Plane: sealed::Sealed + Send + Sync + 'static {}

/// The data plane's callers: services.
#[derive(Debug)]
pub enum Workloads {}

/// The control plane's callers: people who operate the vault.
#[derive(Debug)]
pub enum Operators {}

impl sealed::Sealed for Workloads {}
impl sealed::Sealed for Operators {}
impl Plane for Workloads {}
impl Plane for Operators {}

/// The roots that may name workloads.
pub type WorkloadBundle = TrustBundle<Workloads>;
/// The roots that may name operators.
pub type OperatorBundle = TrustBundle<Operators>;

/// What to do with a certificate whose issuer none of the configured CRLs covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UncoveredIssuers {
    /// Refuse it: its revocation status is unknown. The default.
    #[default]
    Refuse,
    /// Accept it: that issuer revokes by letting short-lived certificates expire.
    Accept,
}

pub(super) struct Root {
    pub(super) anchor: TrustAnchor<'static>,
    pub(super) path_len: Option<u8>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Root {
    pub(super) fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before.secs()..=self.not_after.secs()).contains(&now.secs())
    }
}

struct Crl {
    list: CertRevocationList<'static>,
    next_update: Timestamp,
}

/// A trust domain, the root certificates that may vouch for IDs in it, and their revocation lists.
///
/// The plane is part of the type: a bundle of one plane cannot verify a caller of the other.
///
/// ```compile_fail,E0308
/// use vault_core::principal::{Operator, WorkloadBundle};
/// use vault_core::time::Timestamp;
/// fn cross(bundle: &WorkloadBundle, now: Timestamp) { let _ = Operator::verify(&[], bundle, now); }
/// ```
/// ```compile_fail,E0308
/// use vault_core::principal::{OperatorBundle, Workload};
/// use vault_core::time::Timestamp;
/// fn cross(bundle: &OperatorBundle, now: Timestamp) { let _ = Workload::verify(&[], bundle, now); }
/// ```
pub struct TrustBundle<P: Plane> {
    trust_domain: TrustDomain,
    roots: Vec<Root>,
    crls: Vec<Crl>,
    uncovered: UncoveredIssuers,
    max_lifetime: Option<Duration>,
    plane: PhantomData<fn() -> P>,
}

impl<P: Plane> TrustBundle<P> {
    /// A bundle without revocation lists: revocation then is the expiry of short-lived certificates.
    ///
    /// Each root must be a CA certificate with key usage keyCertSign and a key that is strong enough; if it has a URI
    /// SAN, that must be the trust domain's SPIFFE ID without a path. Whether a root is valid *now* is checked when a
    /// chain is verified, and by [`Self::check`].
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `roots[i]`, or `roots` if there is none.
    pub fn new(trust_domain: TrustDomain, roots: &[CertificateDer<'_>]) -> Result<Self, Error> {
        if roots.is_empty() {
            return Err(Error::invalid("roots", "a trust bundle needs at least one root certificate"));
        }
        let roots = roots
            .iter()
            .enumerate()
            .map(|(i, der)| {
                read_root(der, &trust_domain).map_err(|rule| Error::invalid(format!("roots[{i}]"), rule.message()))
            })
            .collect::<Result<_, _>>()?;
        let (uncovered, crls) = (UncoveredIssuers::default(), Vec::new());
        Ok(Self { trust_domain, roots, crls, uncovered, max_lifetime: None, plane: PhantomData })
    }

    /// The same bundle with these revocation lists (RFC 5280 section 5, complete lists with a next update), in place of
    /// those it had. From now on every certificate of a chain, but for the root, has to be covered by one that is fresh
    /// and signed by its issuer; [`Self::with_uncovered_issuers`] relaxes the first of these.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `crls[i]` if a list does not parse, or if it has the issuer and distribution point of
    /// an earlier one (the older of the two would hide a revocation); or `crls` if there is none.
    pub fn with_crls(mut self, crls: &[CertificateRevocationListDer<'_>]) -> Result<Self, Error> {
        if crls.is_empty() {
            return Err(Error::invalid("crls", "name at least one revocation list, or leave them out"));
        }
        let mut read: Vec<Crl> = Vec::with_capacity(crls.len());
        for (i, der) in crls.iter().enumerate() {
            let field = || format!("crls[{i}]");
            let crl = read_crl(der).ok_or_else(|| {
                Error::invalid(field(), "is not exactly one DER-encoded, complete version 2 CRL with a next update")
            })?;
            let scope =
                |crl: &Crl| (crl.list.issuer().to_vec(), crl.list.issuing_distribution_point().map(<[u8]>::to_vec));
            if read.iter().any(|earlier| scope(earlier) == scope(&crl)) {
                return Err(Error::invalid(field(), "has the same issuer and scope as an earlier CRL; keep the newer"));
            }
            read.push(crl);
        }
        self.crls = read;
        Ok(self)
    }

    /// The same bundle with another answer for issuers that none of the lists covers. Without lists it has no effect.
    #[must_use]
    pub fn with_uncovered_issuers(mut self, uncovered: UncoveredIssuers) -> Self {
        self.uncovered = uncovered;
        self
    }

    /// The same bundle, refusing leaves that were issued for longer than this; `None`, as it is without, asks for nothing.
    #[must_use]
    pub fn with_max_lifetime(mut self, max_lifetime: Option<Duration>) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// Whether the bundle can do its work at `now`: every root is within its validity, every revocation list is fresh.
    /// For start-up, reload and health; verification checks what it uses again.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first `roots[i]` or `crls[i]` that is not.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        if let Some(i) = self.roots.iter().position(|root| !root.is_valid_at(now)) {
            return Err(Error::invalid(format!("roots[{i}]"), "has expired or is not valid yet"));
        }
        if let Some(i) = self.crls.iter().position(|crl| now.secs() >= crl.next_update.secs()) {
            return Err(Error::invalid(format!("crls[{i}]"), "is past its next update; fetch the current list"));
        }
        Ok(())
    }

    /// Until when each root is valid, and each revocation list is fresh, in the order they were given in.
    pub fn ends(&self) -> (Vec<Timestamp>, Vec<Timestamp>) {
        (self.roots.iter().map(|root| root.not_after).collect(), self.crls.iter().map(|crl| crl.next_update).collect())
    }

    /// The trust domain that every verified ID lies in.
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) fn roots(&self) -> &[Root] {
        &self.roots
    }

    pub(super) fn crls(&self) -> Vec<&CertRevocationList<'_>> {
        self.crls.iter().map(|crl| &crl.list).collect()
    }

    /// Whether a leaf may have been issued for so long.
    pub(super) fn allows_lifetime(&self, not_before: Timestamp, not_after: Timestamp) -> bool {
        // The last second is part of it.
        let lifetime = Duration::from_secs(not_after.secs().saturating_add(1).saturating_sub(not_before.secs()));
        self.max_lifetime.is_none_or(|most| lifetime <= most + SLACK)
    }

    pub(super) const fn uncovered(&self) -> UncoveredIssuers {
        self.uncovered
    }
}

impl<P: Plane> fmt::Debug for TrustBundle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", &self.trust_domain)
            .field("roots", &self.roots.len())
            .field("crls", &self.crls.len())
            .field("uncovered", &self.uncovered)
            .finish()
    }
}

/// Whether the two planes have nothing in common: different trust domains, and no root key in both.
///
/// Whoever configures both planes calls this before it serves either. With one trust domain or one root for both, a
/// certificate issued for a person could name a service.
///
/// # Errors
/// [`Error::Invalid`] naming `operators.trust_domain` or `operators.roots[i]`.
pub fn check_planes_apart(workloads: &WorkloadBundle, operators: &OperatorBundle) -> Result<(), Error> {
    if workloads.trust_domain == operators.trust_domain {
        return Err(Error::invalid("operators.trust_domain", "must differ from the workloads' trust domain"));
    }
    let key = |root: &Root| root.anchor.subject_public_key_info.to_vec();
    let shared = operators.roots.iter().position(|root| workloads.roots.iter().any(|other| key(root) == key(other)));
    match shared {
        Some(i) => {
            Err(Error::invalid(format!("operators.roots[{i}]"), "has a key that is also a root of the workloads"))
        }
        None => Ok(()),
    }
}

fn read_root(der: &CertificateDer<'_>, domain: &TrustDomain) -> Result<Root, IdentityError> {
    let facts = read_facts(der)?;
    check_ca(&facts, domain)?;
    if !facts.key_is_strong {
        return Err(IdentityError::WeakKey);
    }
    // Path validation does not look at a root's extensions, so one that demands to be understood has to be refused here.
    if facts.has_unknown_critical {
        return Err(IdentityError::UnknownCriticalExtension);
    }
    let anchor = anchor_from_trusted_cert(der).map_err(|_| IdentityError::Malformed)?.to_owned();
    Ok(Root { anchor, path_len: facts.path_len, not_before: facts.not_before, not_after: facts.not_after })
}

fn read_crl(der: &[u8]) -> Option<Crl> {
    let list = OwnedCertRevocationList::from_der(der).ok()?;
    let next_update = CertificateList::<Rfc5280>::from_der(der).ok()?.tbs_cert_list.next_update?;
    Some(Crl { list: list.into(), next_update: timestamp(&next_update) })
}
