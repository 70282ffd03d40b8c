//! `[[end_users.issuer]]`: whose tokens prove end users, and where the keys are that sign them.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use vault_core::Error;
use vault_core::id::TenantId;
use vault_core::principal::{Algorithm, Binding, IssuerSettings, IssuerTenants, Issuers};

use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile, PinnedUrl};

/// An issuer of end users' tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUserIssuer {
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
struct RawIssuer {
    issuer: Text,
    audiences: Spanned<Vec<String>>,
    tenants: Spanned<Vec<String>>,
    jwks_file: Option<Text>,
    jwks_url: Option<Text>,
    jwks_roots: Option<Text>,
    algorithms: Option<Vec<Text>>,
    typ: Option<Text>,
    tenant_claim: Option<Text>,
    roles_claim: Option<Text>,
    mfa_amr: Option<Spanned<Vec<String>>>,
    mfa_acr: Option<Spanned<Vec<String>>>,
    mfa_fresh_s: Option<Spanned<u64>>,
    skew_s: Option<Spanned<u64>>,
    max_lifetime_s: Option<Spanned<u64>>,
    binding: Option<Text>,
    refresh_s: Option<Spanned<u64>>,
    cooldown_s: Option<Spanned<u64>>,
    stale_s: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
}

pub(super) fn issuers(
    reader: &Reader<'_>,
    raw: RawEndUsers,
    environment: Environment,
) -> Result<Vec<EndUserIssuer>, ConfigError> {
    let mut found: Vec<EndUserIssuer> = Vec::with_capacity(raw.issuer.len());
    for spanned in raw.issuer {
        let otherwise = spanned.span().start;
        let issuer = issuer(reader, spanned.into_inner(), otherwise, environment)?;
        let all: Vec<_> = found.iter().chain([&issuer]).map(|issuer| issuer.settings.clone()).collect();
        // Those before were in order, so it is this one.
        Issuers::new(all).map_err(|error| match error {
            Error::Invalid { why, .. } => reader.refuse(otherwise, "end_users.issuer", why),
            other => reader.refuse(otherwise, "end_users.issuer", other.to_string()),
        })?;
        found.push(issuer);
    }
    Ok(found)
}

fn issuer(
    reader: &Reader<'_>,
    raw: RawIssuer,
    otherwise: usize,
    environment: Environment,
) -> Result<EndUserIssuer, ConfigError> {
    let key = |name: &str| format!("end_users.issuer.{name}");
    let keys = keys(reader, &raw, otherwise, environment)?;
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
        settings.algorithms = names.iter().map(|name| algorithm(reader, name)).collect::<Result<_, _>>()?;
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
    settings.mfa_fresh_millis = reader.within(&raw.mfa_fresh_s, &key("mfa_fresh_s"), 900, 0, 86_400)? * 1000;
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
        Ok(()) => Ok(EndUserIssuer { settings, keys }),
        Err(Error::Invalid { field, why }) => {
            let at = places.iter().find(|(name, at)| *name == field && *at > 0).map_or(otherwise, |(_, at)| *at);
            Err(reader.refuse(at, &key(&field), why))
        }
        Err(other) => Err(reader.refuse(otherwise, "end_users.issuer", other.to_string())),
    }
}

/// Where something stands, or 0: there is always a line with its table before it.
fn start<T>(value: &Option<Spanned<T>>) -> usize {
    value.as_ref().map_or(0, |value| value.span().start)
}

fn algorithm(reader: &Reader<'_>, name: &Text) -> Result<Algorithm, ConfigError> {
    Algorithm::named(name.get_ref()).ok_or_else(|| {
        let why = "must be of \"ES256\", \"ES384\", \"EdDSA\", \"RS256\", \"PS256\"";
        reader.refuse(name.span().start, "end_users.issuer.algorithms", why)
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
    otherwise: usize,
    environment: Environment,
) -> Result<IssuerKeys, ConfigError> {
    let url = match (&raw.jwks_file, &raw.jwks_url) {
        (Some(file), None) => {
            let beside = start(&raw.jwks_roots).max(start(&raw.refresh_s)).max(start(&raw.cooldown_s));
            let beside = beside.max(start(&raw.stale_s)).max(start(&raw.timeout_ms));
            if beside > 0 {
                let why = "with jwks_file, there is nothing to fetch: leave out jwks_roots, refresh_s, cooldown_s, \
                           stale_s and timeout_ms";
                return Err(reader.refuse(beside, "end_users.issuer.jwks_file", why));
            }
            return Ok(IssuerKeys::File(reader.file(file, "end_users.issuer.jwks_file")?));
        }
        (None, Some(url)) => url,
        _ => {
            let why = "names its keys by either jwks_file or jwks_url";
            return Err(reader.refuse(otherwise, "end_users.issuer", why));
        }
    };
    let key = |name: &str| format!("end_users.issuer.{name}");
    let refresh = reader.within(&raw.refresh_s, &key("refresh_s"), 300, 10, 86_400)?;
    let stale = reader.within(&raw.stale_s, &key("stale_s"), 3600.max(refresh), refresh, 604_800)?;
    let timeout = Duration::from_millis(reader.within(&raw.timeout_ms, &key("timeout_ms"), 2000, 100, 10_000)?);
    let roots = (raw.jwks_roots.as_ref(), "end_users.issuer.jwks_roots");
    Ok(IssuerKeys::Url(KeysUrl {
        at: reader.pinned((url, "end_users.issuer.jwks_url"), roots, timeout, environment)?,
        refresh: Duration::from_secs(refresh),
        cooldown: Duration::from_secs(reader.within(&raw.cooldown_s, &key("cooldown_s"), 30, 1, 3600)?),
        stale: Duration::from_secs(stale),
    }))
}
