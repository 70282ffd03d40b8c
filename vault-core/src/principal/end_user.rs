//! An end user: a person of one tenant, for whom a workload asks.

use std::collections::BTreeSet;

use crate::id::{Subject, TenantId};
use crate::time::Timestamp;

/// Longest issuer (`iss`) in bytes.
pub const MAX_ISSUER: usize = 512;

/// A person of one tenant, proven by a token that their identity provider signed.
///
/// It stands beside the [`Workload`](super::Workload) that asks for them, never in its place: no call takes an end user
/// alone. As with the other principals, nothing but verification makes one.
///
/// ```compile_fail,E0451
/// use vault_core::principal::EndUser;
/// fn forge(other: EndUser) -> EndUser { EndUser { mfa: true, ..other } }
/// ```
/// ```compile_fail,E0277
/// use vault_core::principal::{EndUser, Workload};
/// fn turn(user: EndUser) -> Workload { user.into() }
/// ```
/// ```compile_fail,E0277
/// use vault_core::principal::{EndUser, Operator};
/// fn turn(operator: Operator) -> EndUser { operator.into() }
/// ```
#[derive(Debug)]
pub struct EndUser {
    pub(super) issuer: String,
    pub(super) subject: Subject,
    pub(super) tenant: TenantId,
    pub(super) roles: BTreeSet<String>,
    pub(super) amr: BTreeSet<String>,
    pub(super) acr: Option<String>,
    pub(super) mfa: bool,
    pub(super) auth_time: Option<Timestamp>,
    pub(super) fresh_until: Option<Timestamp>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl EndUser {
    /// Who says so: the token's `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token's `sub`, unique for its issuer. Never written to a log as it is.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The tenant whose person this is.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The roles that the identity provider gives them.
    pub const fn roles(&self) -> &BTreeSet<String> {
        &self.roles
    }

    /// How they signed in, as the token says it (RFC 8176).
    pub const fn amr(&self) -> &BTreeSet<String> {
        &self.amr
    }

    /// How strongly they signed in, in the issuer's words.
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }

    /// Whether they signed in with a second factor, by what is configured for the issuer.
    pub const fn mfa(&self) -> bool {
        self.mfa
    }

    /// When they signed in, if the token says so.
    pub const fn auth_time(&self) -> Option<Timestamp> {
        self.auth_time
    }

    /// The first instant at which signing in with a second factor is no longer fresh; `None` if it never was.
    pub const fn fresh_until(&self) -> Option<Timestamp> {
        self.fresh_until
    }

    /// Whether they signed in with a second factor a short time before `now`, by what is configured for the issuer.
    pub fn mfa_fresh_at(&self, now: Timestamp) -> bool {
        self.mfa && self.fresh_until.is_some_and(|until| now < until)
    }

    /// The first instant at which the token no longer holds.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether the token holds at `now`: it may have been verified a while ago.
    pub fn valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Two whom no token proves and who hold at no instant: one with all that may be absent, one without. With them the
    /// shape of a schema is checked.
    pub(crate) fn for_probe(tenant: &TenantId) -> Option<[Self; 2]> {
        let one = |full: bool| {
            let some = |text: &str| full.then(|| text.to_owned());
            Some(Self {
                issuer: "https://id.example".to_owned(),
                subject: Subject::parse("a").ok()?,
                tenant: tenant.clone(),
                roles: some("member").into_iter().collect(),
                amr: some("mfa").into_iter().collect(),
                acr: some("high"),
                mfa: full,
                auth_time: full.then_some(Timestamp(0)),
                fresh_until: full.then_some(Timestamp(0)),
                not_before: Timestamp(0),
                not_after: Timestamp(0),
            })
        };
        Some([one(false)?, one(true)?])
    }

    /// The same, ending at another instant, for the same tests.
    #[cfg(test)]
    pub(crate) fn ending(self, not_after: Timestamp) -> Self {
        Self { not_after, ..self }
    }

    /// An end user that no token proves, valid until 2100-01-01, for the tests of the floors above.
    #[cfg(test)]
    pub(crate) fn for_test(subject: &str, tenant: &str, fresh_until: Option<Timestamp>) -> Self {
        Self {
            issuer: "https://id.example".to_owned(),
            subject: Subject::parse(subject).unwrap(),
            tenant: TenantId::parse(tenant).unwrap(),
            roles: BTreeSet::new(),
            amr: BTreeSet::new(),
            acr: None,
            mfa: fresh_until.is_some(),
            auth_time: None,
            fresh_until,
            not_before: Timestamp(0),
            not_after: Timestamp(4_102_444_800_000),
        }
    }
}
