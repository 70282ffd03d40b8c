//! Whose tokens are accepted, and by which of their keys.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::jwk::KeySet;
use super::jws::{Algorithm, Compact};
use super::memory::{self, Memory};
use super::{MAX_TOKEN, TokenError};
use crate::error::Error;
use crate::id::TenantId;
use crate::principal::{EndUser, MAX_ISSUER, Workload};
use crate::time::Timestamp;

/// Most issuers.
pub const MAX_ISSUERS: usize = 16;
/// Longest audience, type, claim name, role, `amr` and `acr`, in bytes.
pub(super) const MAX_NAME: usize = 256;
/// How far the issuer's clock may be ahead or behind at most, in milliseconds.
pub const MAX_SKEW_MILLIS: u64 = 120_000;
/// Longest lifetime of a token that can be configured, in milliseconds: a day.
pub const MAX_LIFETIME_MILLIS: u64 = 86_400_000;

/// Whether an issuer's tokens have to name the certificate of the workload that brings them (`cnf` with `x5t#S256`,
/// RFC 8705 section 3.1). A token that is bound is always held against the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// They have to: a stolen token is worth nothing to another workload. The default.
    #[default]
    Required,
    /// A token without `cnf` is a bearer token.
    IfPresent,
}

/// For whose people an issuer may speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerTenants {
    /// Those of these tenants: what a tenant's own identity provider is for.
    Only(BTreeSet<TenantId>),
    /// Those of any tenant: an identity provider that all tenants trust with everything.
    Any,
}

impl IssuerTenants {
    pub(super) fn has(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Only(tenants) => tenants.contains(tenant),
            Self::Any => true,
        }
    }
}

/// What is expected of the tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// The claim `iss`, compared by exact bytes; 1 to 512.
    pub issuer: String,
    /// The claim `aud` has to name one of these, compared by exact bytes.
    pub audiences: Vec<String>,
    /// The tenants for whose people it may speak.
    pub tenants: IssuerTenants,
    /// The algorithms that are accepted. Default: ES256, ES384, EdDSA.
    pub algorithms: Vec<Algorithm>,
    /// The header's `typ`, by exact bytes, with or without `application/` in front. Default: `at+jwt` (RFC 9068).
    pub typ: String,
    /// The claim that holds the tenant's id. Default: `tenant`.
    pub tenant_claim: String,
    /// The claim that holds the list of roles. Default: `roles`.
    pub roles_claim: String,
    /// Any of these in `amr` is a second factor. Default: `mfa` (RFC 8176).
    pub mfa_amr: Vec<String>,
    /// Any of these as `acr` is a second factor. Default: none.
    pub mfa_acr: Vec<String>,
    /// How long after `auth_time` a second factor is fresh, in milliseconds. Default: 15 minutes.
    pub mfa_fresh_millis: u64,
    /// How far the issuer's clock may be ahead or behind, in milliseconds, at most [`MAX_SKEW_MILLIS`]. Default: 30 s.
    pub skew_millis: u64,
    /// Longest time from `iat` to `exp`, in milliseconds, at most [`MAX_LIFETIME_MILLIS`]. Default: 1 hour.
    pub max_lifetime_millis: u64,
    /// Whether tokens have to be bound to the workload's certificate. Default: they have to.
    pub binding: Binding,
}

impl IssuerSettings {
    /// An issuer, the one audience that stands for this vault, and for whose people it may speak; the rest by default.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, tenants: IssuerTenants) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            tenants,
            algorithms: vec![Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa],
            typ: "at+jwt".to_owned(),
            tenant_claim: "tenant".to_owned(),
            roles_claim: "roles".to_owned(),
            mfa_amr: vec!["mfa".to_owned()],
            mfa_acr: Vec::new(),
            mfa_fresh_millis: 900_000,
            skew_millis: 30_000,
            max_lifetime_millis: 3_600_000,
            binding: Binding::default(),
        }
    }

    /// Whether every setting is within its bounds.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting.
    pub fn check(&self) -> Result<(), Error> {
        let visible = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
        };
        let rule = |good: bool, field: &'static str, why| if good { Ok(()) } else { Err(Error::invalid(field, why)) };
        let name = "must be 1 to 256 visible ASCII characters";
        rule(visible(&self.issuer, MAX_ISSUER), "issuer", "must be 1 to 512 visible ASCII characters")?;
        rule((1..=16).contains(&self.audiences.len()), "audiences", "must be 1 to 16 of them")?;
        rule(self.audiences.iter().all(|text| visible(text, MAX_NAME)), "audiences", name)?;
        rule(!self.algorithms.is_empty(), "algorithms", "must be at least one")?;
        rule(visible(&self.typ, MAX_NAME), "typ", name)?;
        rule(!self.typ.starts_with("application/"), "typ", "is given without application/")?;
        rule(visible(&self.tenant_claim, MAX_NAME), "tenant_claim", name)?;
        rule(visible(&self.roles_claim, MAX_NAME), "roles_claim", name)?;
        rule(self.mfa_amr.iter().all(|text| visible(text, MAX_NAME)), "mfa_amr", name)?;
        rule(self.mfa_acr.iter().all(|text| visible(text, MAX_NAME)), "mfa_acr", name)?;
        rule(self.mfa_fresh_millis <= MAX_LIFETIME_MILLIS, "mfa_fresh", "must be at most a day")?;
        rule(self.skew_millis <= MAX_SKEW_MILLIS, "skew", "must be at most 120 seconds")?;
        let lifetimes = 1_000..=MAX_LIFETIME_MILLIS;
        rule(lifetimes.contains(&self.max_lifetime_millis), "max_lifetime", "must be a second to a day")
    }
}

/// Keys, and until when they may be used without being read again.
struct Held {
    keys: KeySet,
    until: Option<Timestamp>,
}

pub(super) struct Issuer {
    pub(super) settings: IssuerSettings,
    held: ArcSwapOption<Held>,
}

impl Issuer {
    /// The keys, if they are there and not too old.
    fn keys(&self, now: Timestamp) -> Option<Arc<Held>> {
        self.held.load_full().filter(|held| held.until.is_none_or(|until| now < until))
    }
}

/// The pinned issuers. Shared by all threads.
pub struct Issuers {
    all: Vec<Issuer>,
    memory: Memory,
}

impl Issuers {
    /// These issuers, 16 at most, none of whom has keys yet: until [`Self::put_keys`], all tokens are refused. With none
    /// every token is.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `issuers` or `issuers[i].setting`.
    pub fn new(settings: Vec<IssuerSettings>) -> Result<Self, Error> {
        if settings.len() > MAX_ISSUERS {
            return Err(Error::invalid("issuers", "must be at most 16"));
        }
        let mut all: Vec<Issuer> = Vec::with_capacity(settings.len());
        for (i, settings) in settings.into_iter().enumerate() {
            settings.check().map_err(|error| match error {
                Error::Invalid { field, why } => Error::invalid(format!("issuers[{i}].{field}"), why),
                other => other,
            })?;
            if all.iter().any(|other| other.settings.issuer == settings.issuer) {
                return Err(Error::invalid(format!("issuers[{i}].issuer"), "is configured twice"));
            }
            all.push(Issuer { settings, held: ArcSwapOption::empty() });
        }
        Ok(Self { all, memory: Memory::default() })
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Replaces the keys of the issuer at a place of the list that [`Self::new`] was given. Keys that were there before,
    /// and are not any more, verify nothing from here on. `until` is the first instant at which they are too old to be
    /// used unless they are put again; `None` for keys that a person looks after. Answers whether they are other keys.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no issuer at that place.
    pub fn put_keys(&self, at: usize, keys: KeySet, until: Option<Timestamp>) -> Result<bool, Error> {
        let issuer = self.all.get(at).ok_or(Error::NotFound("issuer"))?;
        let before = issuer.held.swap(Some(Arc::new(Held { keys, until })));
        let now = issuer.held.load();
        let same = matches!((before, now.as_ref()), (Some(before), Some(now)) if before.keys == now.keys);
        if !same {
            self.memory.forget_all();
        }
        Ok(!same)
    }

    /// As [`EndUser::verify`], but a token that this workload brought before is taken from memory: until it ends, the keys
    /// of any issuer change, or those of its own are too old.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub fn end_user(&self, token: &[u8], who: &Workload, now: Timestamp) -> Result<Arc<EndUser>, TokenError> {
        // What is too long to be a token is not hashed either.
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let print = memory::print(token, who);
        let (remembered, generation) = self.memory.recall(&print, now);
        if let Some(user) = remembered {
            let issuer = self.all.iter().find(|issuer| issuer.settings.issuer == user.issuer());
            let held = issuer.and_then(|issuer| issuer.keys(now));
            return held.map(|_| user).ok_or(TokenError::NoKeys);
        }
        let user = Arc::new(EndUser::verify(token, self, who, now)?);
        self.memory.remember(print, &user, generation, now);
        Ok(user)
    }

    /// The place of the issuer that a token claims to be from. It proves nothing: it says whose keys to read again after
    /// [`TokenError::UnknownKey`].
    pub fn claimed(&self, token: &[u8]) -> Option<usize> {
        let claims = parse(token).ok()?.claims;
        let issuer = claims.text("iss")?;
        self.all.iter().position(|known| known.settings.issuer == issuer)
    }

    /// Takes a token apart, and proves that a key of the issuer that it names has signed it.
    pub(super) fn prove<'a>(&self, token: &'a [u8], now: Timestamp) -> Result<(Compact<'a>, &Issuer), TokenError> {
        let token = parse(token)?;
        let header = &token.header;
        if header.has("crit") {
            return Err(TokenError::Critical);
        }
        if ["jwk", "jku", "x5c", "x5u"].iter().any(|member| header.has(member)) {
            return Err(TokenError::EmbeddedKey);
        }
        let claimed = token.claims.text("iss").ok_or(TokenError::Issuer)?;
        let issuer = self.all.iter().find(|known| known.settings.issuer == claimed).ok_or(TokenError::Issuer)?;
        let typ = header.text("typ").map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        if typ != Some(issuer.settings.typ.as_str()) {
            return Err(TokenError::Type);
        }
        let algorithm = header.text("alg").and_then(Algorithm::named).ok_or(TokenError::Algorithm)?;
        if !issuer.settings.algorithms.contains(&algorithm) {
            return Err(TokenError::Algorithm);
        }
        let kid = header.text("kid").filter(|kid| (1..=super::jwk::MAX_KEY_ID).contains(&kid.len()));
        let kid = kid.ok_or(TokenError::NoKeyId)?;
        let held = issuer.keys(now).ok_or(TokenError::NoKeys)?;
        let key = held.keys.find(kid).ok_or(TokenError::UnknownKey)?;
        if !key.is_for(algorithm) {
            return Err(TokenError::KeyMismatch);
        }
        token.verify(algorithm, &key.material)?;
        Ok((token, issuer))
    }
}

fn parse(token: &[u8]) -> Result<Compact<'_>, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLarge);
    }
    Compact::parse(std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?)
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|issuer| &issuer.settings)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_are_named() {
        let good = || IssuerSettings::new("https://id.example", "vault", IssuerTenants::Any);
        good().check().unwrap();
        let long = "a".repeat(513);
        let cases: [(&str, fn(&mut IssuerSettings, &str)); 14] = [
            ("issuer", |s, long| s.issuer = long.to_owned()),
            ("issuer", |s, _| s.issuer = String::new()),
            ("issuer", |s, _| s.issuer = "https://id.example/ \u{200b}".to_owned()),
            ("audiences", |s, _| s.audiences.clear()),
            ("audiences", |s, _| s.audiences = vec![" vault".to_owned()]),
            ("algorithms", |s, _| s.algorithms.clear()),
            ("typ", |s, _| s.typ = "application/at+jwt".to_owned()),
            ("tenant_claim", |s, _| s.tenant_claim = String::new()),
            ("roles_claim", |s, long| s.roles_claim = long.to_owned()),
            ("mfa_amr", |s, _| s.mfa_amr.push(String::new())),
            ("mfa_acr", |s, _| s.mfa_acr.push("a b".to_owned())),
            ("mfa_fresh", |s, _| s.mfa_fresh_millis = MAX_LIFETIME_MILLIS + 1),
            ("skew", |s, _| s.skew_millis = MAX_SKEW_MILLIS + 1),
            ("max_lifetime", |s, _| s.max_lifetime_millis = MAX_LIFETIME_MILLIS + 1),
        ];
        for (field, edit) in cases {
            let mut settings = good();
            edit(&mut settings, &long);
            let error = Issuers::new(vec![IssuerSettings::new("https://a.example", "v", IssuerTenants::Any), settings])
                .unwrap_err();
            let named = format!("issuers[1].{field}");
            assert!(matches!(&error, Error::Invalid { field, .. } if *field == named), "{error}, not {named}");
        }
        let twice = Issuers::new(vec![good(), good()]).unwrap_err();
        assert!(matches!(twice, Error::Invalid { field, .. } if field == "issuers[1].issuer"));
        let many =
            (0..17).map(|n| IssuerSettings::new(format!("https://{n}.example"), "v", IssuerTenants::Any)).collect();
        assert!(matches!(Issuers::new(many), Err(Error::Invalid { field, .. }) if field == "issuers"));
    }
}
