//! `[[end_users.issuer]]`: whose tokens prove end users, and where the keys are that sign them.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::Error;
use vault_core::id::TenantId;
use vault_core::principal::{Algorithm, Binding, IssuerSettings, IssuerTenants, Issuers};

use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile, PinnedUrl};

/// An issuer of tokens, of end users or of operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIssuer {
    /// What is expected of its tokens.
    pub settings: IssuerSettings,
    /// Where its keys are.
    pub keys: IssuerKeys,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKeys {
    /// In a file, read at the start and at each reload.
    File(NamedFile),
    /// At a URL.
    Url(KeysUrl),
}

/// How an issuer's keys are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysUrl {
    /// Where, and how long a fetch may take, and a call may wait for one.
    pub at: PinnedUrl,
    /// From one fetch to the next.
    pub refresh: Duration,
    /// After a fetch, how long a token with an unknown key causes none.
    pub cooldown: Duration,
    /// How long keys are used without a fetch that succeeded.
    pub stale: Duration,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEndUsers {
    #[serde(default)]
    issuer: Vec<Spanned<RawIssuer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    pub(super) issuer: Text,
    pub(super) audiences: Spanned<Vec<String>>,
    pub(super) tenants: Spanned<Vec<String>>,
    pub(super) jwks_file: Option<Text>,
    pub(super) jwks_url: Option<Text>,
    pub(super) jwks_roots: Option<Text>,
    pub(super) algorithms: Option<Vec<Text>>,
    pub(super) typ: Option<Text>,
    pub(super) tenant_claim: Option<Text>,
    pub(super) roles_claim: Option<Text>,
    pub(super) mfa_amr: Option<Spanned<Vec<String>>>,
    pub(super) mfa_acr: Option<Spanned<Vec<String>>>,
    pub(super) mfa_fresh_s: Option<Spanned<u64>>,
    pub(super) skew_s: Option<Spanned<u64>>,
    pub(super) max_lifetime_s: Option<Spanned<u64>>,
    pub(super) binding: Option<Text>,
    pub(super) refresh_s: Option<Spanned<u64>>,
    pub(super) cooldown_s: Option<Spanned<u64>>,
    pub(super) stale_s: Option<Spanned<u64>>,
    pub(super) timeout_ms: Option<Spanned<u64>>,
}

pub(super) fn issuers(
    reader: &Reader<'_>,
    raw: RawEndUsers,
    environment: Environment,
) -> Result<Vec<TokenIssuer>, ConfigError> {
    let mut found: Vec<TokenIssuer> = Vec::with_capacity(raw.issuer.len());
    for spanned in raw.issuer {
        let section = Section { name: "end_users.issuer", otherwise: spanned.span().start, fresh: "mfa_fresh_s" };
        let issuer = issuer(reader, spanned.into_inner(), section, environment)?;
        beside(reader, &found, &issuer, section)?;
        found.push(issuer);
    }
    Ok(found)
}

/// Which table of the configuration an issuer is from.
#[derive(Clone, Copy)]
pub(super) struct Section {
    pub(super) name: &'static str,
    /// Where it begins.
    pub(super) otherwise: usize,
    /// What its key for the age of a second factor is called.
    pub(super) fresh: &'static str,
}

impl Section {
    fn key(self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }
}

/// Refuses an issuer that cannot stand beside those before it.
pub(super) fn beside(
    reader: &Reader<'_>,
    found: &[TokenIssuer],
    issuer: &TokenIssuer,
    section: Section,
) -> Result<(), ConfigError> {
    let all: Vec<_> = found.iter().chain([issuer]).map(|issuer| issuer.settings.clone()).collect();
    // Those before were in order, so it is this one.
    Issuers::new(all).map(drop).map_err(|error| match error {
        Error::Invalid { why, .. } => reader.refuse(section.otherwise, section.name, why),
        other => reader.refuse(section.otherwise, section.name, other.to_string()),
    })
}

pub(super) fn issuer(
    reader: &Reader<'_>,
    raw: RawIssuer,
    section: Section,
    environment: Environment,
) -> Result<TokenIssuer, ConfigError> {
    let otherwise = section.otherwise;
    let key = |name: &str| section.key(name);
    let keys = keys(reader, &raw, section, environment)?;
    let tenants = tenants(reader, &raw.tenants)?;
    // Audiences come one by one below; there may be none.
    let mut settings = IssuerSettings::new(raw.issuer.get_ref(), "", tenants);
    let places = [
        ("issuer", raw.issuer.span().start),
        ("audiences", raw.audiences.span().start),
        ("typ", start(&raw.typ)),
        ("tenant_claim", start(&raw.tenant_claim)),
        ("roles_claim", start(&raw.roles_claim)),
        ("mfa_amr", start(&raw.mfa_amr)),
        ("mfa_acr", start(&raw.mfa_acr)),
    ];
    settings.audiences = raw.audiences.into_inner();
    if let Some(names) = raw.algorithms {
        settings.algorithms = names.iter().map(|name| algorithm(reader, name, section)).collect::<Result<_, _>>()?;
    }
    let set = |to: &mut String, text: Option<Text>| text.into_iter().for_each(|text| *to = text.into_inner());
    set(&mut settings.typ, raw.typ);
    set(&mut settings.tenant_claim, raw.tenant_claim);
    set(&mut settings.roles_claim, raw.roles_claim);
    let set = |to: &mut Vec<String>, list: Option<Spanned<Vec<String>>>| {
        list.into_iter().for_each(|list| *to = list.into_inner());
    };
    set(&mut settings.mfa_amr, raw.mfa_amr);
    set(&mut settings.mfa_acr, raw.mfa_acr);
    settings.mfa_fresh_millis = reader.within(&raw.mfa_fresh_s, &key(section.fresh), 900, 0, 86_400)? * 1000;
    settings.skew_millis = reader.within(&raw.skew_s, &key("skew_s"), 30, 0, 120)? * 1000;
    settings.max_lifetime_millis = reader.within(&raw.max_lifetime_s, &key("max_lifetime_s"), 3600, 1, 86_400)? * 1000;
    settings.binding = match &raw.binding {
        None => Binding::default(),
        Some(text) => match text.get_ref().as_str() {
            "required" => Binding::Required,
            "if-present" => Binding::IfPresent,
            _ => {
                let why = "must be \"required\" or \"if-present\"";
                return Err(reader.refuse(text.span().start, &key("binding"), why));
            }
        },
    };
    match settings.check() {
        Ok(()) => Ok(TokenIssuer { settings, keys }),
        Err(Error::Invalid { field, why }) => {
            let at = places.iter().find(|(name, at)| *name == field && *at > 0).map_or(otherwise, |(_, at)| *at);
            Err(reader.refuse(at, &key(&field), why))
        }
        Err(other) => Err(reader.refuse(otherwise, section.name, other.to_string())),
    }
}

/// Where something stands, or 0: there is always a line with its table before it.
fn start<T>(value: &Option<Spanned<T>>) -> usize {
    value.as_ref().map_or(0, |value| value.span().start)
}

fn algorithm(reader: &Reader<'_>, name: &Text, section: Section) -> Result<Algorithm, ConfigError> {
    Algorithm::named(name.get_ref()).ok_or_else(|| {
        let why = "must be of \"ES256\", \"ES384\", \"EdDSA\", \"RS256\", \"PS256\"";
        reader.refuse(name.span().start, &section.key("algorithms"), why)
    })
}

fn tenants(reader: &Reader<'_>, listed: &Spanned<Vec<String>>) -> Result<IssuerTenants, ConfigError> {
    let refuse = |why: &str| reader.refuse(listed.span().start, "end_users.issuer.tenants", why);
    match listed.get_ref().as_slice() {
        [] => Err(refuse("must name the tenants for whose people the issuer may speak, or be [\"*\"]")),
        [any] if any == "*" => Ok(IssuerTenants::Any),
        some => {
            let parsed: Result<_, _> = some.iter().map(|tenant| TenantId::parse(tenant)).collect();
            parsed.map(IssuerTenants::Only).map_err(|_| refuse("must be ids of tenants, or [\"*\"] alone"))
        }
    }
}

fn keys(
    reader: &Reader<'_>,
    raw: &RawIssuer,
    section: Section,
    environment: Environment,
) -> Result<IssuerKeys, ConfigError> {
    let key = |name: &str| section.key(name);
    let url = match (&raw.jwks_file, &raw.jwks_url) {
        (Some(file), None) => {
            let beside = start(&raw.jwks_roots).max(start(&raw.refresh_s)).max(start(&raw.cooldown_s));
            let beside = beside.max(start(&raw.stale_s)).max(start(&raw.timeout_ms));
            if beside > 0 {
                let why = "with jwks_file, there is nothing to fetch: leave out jwks_roots, refresh_s, cooldown_s, \
                           stale_s and timeout_ms";
                return Err(reader.refuse(beside, &key("jwks_file"), why));
            }
            return Ok(IssuerKeys::File(reader.file(file, &key("jwks_file"))?));
        }
        (None, Some(url)) => url,
        _ => {
            let why = "names its keys by either jwks_file or jwks_url";
            return Err(reader.refuse(section.otherwise, section.name, why));
        }
    };
    let refresh = reader.within(&raw.refresh_s, &key("refresh_s"), 300, 10, 86_400)?;
    let stale = reader.within(&raw.stale_s, &key("stale_s"), 3600.max(refresh), refresh, 604_800)?;
    let timeout = Duration::from_millis(reader.within(&raw.timeout_ms, &key("timeout_ms"), 2000, 100, 10_000)?);
    let (url_key, roots_key) = (key("jwks_url"), key("jwks_roots"));
    let roots = (raw.jwks_roots.as_ref(), roots_key.as_str());
    Ok(IssuerKeys::Url(KeysUrl {
        at: reader.pinned((url, &url_key), roots, timeout, environment)?,
        refresh: Duration::from_secs(refresh),
        cooldown: Duration::from_secs(reader.within(&raw.cooldown_s, &key("cooldown_s"), 30, 1, 3600)?),
        stale: Duration::from_secs(stale),
    }))
}
