//! What a proven token says: the claims of RFC 7519 and RFC 9068, and the certificate that it is bound to.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::issuers::{Binding, IssuerSettings, MAX_NAME};
use super::json::{Json, Map};
use super::{OperatorToken, OperatorTokenError, TokenError};
use crate::id::{Subject, TenantId};
use crate::principal::{EndUser, Operator, Workload};
use crate::time::Timestamp;

/// The last second of the year 9999: later ones are a mistake, and would not fit in milliseconds for ever.
const LAST_SECOND: u64 = 253_402_300_799;
/// Longest `jti` in bytes.
const MAX_TOKEN_ID: usize = 256;

/// What tokens of end users and of operators say alike.
struct Said {
    subject: Subject,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// How somebody signed in.
struct SignedIn {
    amr: BTreeSet<String>,
    acr: Option<String>,
    mfa: bool,
    auth_time: Option<Timestamp>,
    /// `None` without a second factor, or if it is not known when it was shown.
    fresh_until: Option<Timestamp>,
}

/// Judges the claims of an end user's token whose signature is proven.
pub(super) fn judge(
    settings: &IssuerSettings,
    claims: &Map,
    who: &Workload,
    now: Timestamp,
) -> Result<EndUser, TokenError> {
    let Said { subject, not_before, not_after } = said(settings, claims, now)?;
    let tenant = claims.text(&settings.tenant_claim).and_then(|tenant| TenantId::parse(tenant).ok());
    let tenant = tenant.ok_or(TokenError::Tenant)?;
    if !settings.tenants.has(&tenant) {
        return Err(TokenError::ForeignTenant);
    }
    let roles = names(claims, &settings.roles_claim).ok_or(TokenError::Roles)?;
    let SignedIn { amr, acr, mfa, auth_time, fresh_until } = signed_in(settings, claims, now)?;
    confirm(settings.binding, claims, who.fingerprint())?;
    let issuer = settings.issuer.clone();
    Ok(EndUser { issuer, subject, tenant, roles, amr, acr, mfa, auth_time, fresh_until, not_before, not_after })
}

/// Judges the claims of an operator's token whose signature is proven. Of its roles nothing is read: those are the
/// list's to give.
pub(super) fn judge_operator(
    settings: &IssuerSettings,
    claims: &Map,
    who: &Operator,
    now: Timestamp,
) -> Result<OperatorToken, OperatorTokenError> {
    let Said { subject, not_after, .. } = said(settings, claims, now)?;
    let SignedIn { mfa, auth_time, fresh_until, .. } = signed_in(settings, claims, now)?;
    confirm(settings.binding, claims, who.fingerprint())?;
    if !mfa {
        return Err(OperatorTokenError::SecondFactor);
    }
    let fresh_until = match (auth_time, fresh_until) {
        (Some(_), Some(until)) => until,
        _ => return Err(OperatorTokenError::SignInTime),
    };
    if now >= fresh_until {
        return Err(OperatorTokenError::Stale);
    }
    Ok(OperatorToken { issuer: settings.issuer.clone(), subject, until: not_after.min(fresh_until) })
}

fn seconds(claims: &Map, name: &str) -> Option<Timestamp> {
    match claims.get(name) {
        Some(Json::Whole(seconds)) if *seconds <= LAST_SECOND => Some(Timestamp(seconds * 1_000)),
        _ => None,
    }
}

/// When the token holds, for which audience it is, and whom it names.
fn said(settings: &IssuerSettings, claims: &Map, now: Timestamp) -> Result<Said, TokenError> {
    let expiry = seconds(claims, "exp").ok_or(TokenError::Expiry)?;
    let issued = seconds(claims, "iat").ok_or(TokenError::IssuedAt)?;
    let begins = if claims.has("nbf") { seconds(claims, "nbf").ok_or(TokenError::IssuedAt)? } else { issued };
    // The issuer's clock may be ahead or behind by the skew: the token holds from so much earlier to so much later.
    let skew = settings.skew_millis;
    let not_before = Timestamp(issued.max(begins).0.saturating_sub(skew));
    let not_after = expiry.plus_millis(skew);
    if now >= not_after {
        return Err(TokenError::Expired);
    }
    if now < not_before {
        return Err(TokenError::NotYetValid);
    }
    if expiry.0.saturating_sub(issued.0) > settings.max_lifetime_millis {
        return Err(TokenError::LivesTooLong);
    }
    audience(settings, claims)?;
    let subject = claims.text("sub").and_then(|sub| Subject::parse(sub).ok()).ok_or(TokenError::Subject)?;
    let id = claims.text("jti").filter(|id| (1..=MAX_TOKEN_ID).contains(&id.len()));
    id.ok_or(TokenError::TokenId)?;
    Ok(Said { subject, not_before, not_after })
}

fn signed_in(settings: &IssuerSettings, claims: &Map, now: Timestamp) -> Result<SignedIn, TokenError> {
    let amr = names(claims, "amr").ok_or(TokenError::Authentication)?;
    let acr = match claims.get("acr") {
        None => None,
        Some(Json::Text(acr)) if is_name(acr) => Some(acr.clone()),
        Some(_) => return Err(TokenError::Authentication),
    };
    let auth_time = if claims.has("auth_time") {
        let at = seconds(claims, "auth_time").filter(|at| at.0 <= now.plus_millis(settings.skew_millis).0);
        Some(at.ok_or(TokenError::AuthTime)?)
    } else {
        None
    };
    let mfa = settings.mfa_amr.iter().any(|strong| amr.contains(strong))
        || acr.as_ref().is_some_and(|acr| settings.mfa_acr.contains(acr));
    let fresh_until = auth_time.filter(|_| mfa).map(|at| at.plus_millis(settings.mfa_fresh_millis));
    Ok(SignedIn { amr, acr, mfa, auth_time, fresh_until })
}

/// RFC 7519 section 4.1.3: one text or a list of them.
fn audience(settings: &IssuerSettings, claims: &Map) -> Result<(), TokenError> {
    let known = |text: &str| settings.audiences.iter().any(|audience| audience == text);
    let good = match claims.get("aud") {
        Some(Json::Text(audience)) => known(audience),
        Some(Json::List(audiences)) => {
            audiences.iter().all(|item| matches!(item, Json::Text(_)))
                && audiences.iter().any(|item| matches!(item, Json::Text(audience) if known(audience)))
        }
        _ => false,
    };
    if good { Ok(()) } else { Err(TokenError::Audience) }
}

/// What policies compare: bytes that people can tell apart. Spaces inside are allowed, as in "Senior Clerk".
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
}

/// A list of names; absent is empty.
fn names(claims: &Map, claim: &str) -> Option<BTreeSet<String>> {
    match claims.get(claim) {
        None => Some(BTreeSet::new()),
        Some(Json::List(list)) => list
            .iter()
            .map(|item| match item {
                Json::Text(name) if is_name(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
        Some(_) => None,
    }
}

/// RFC 8705 section 3.1. A proof that is demanded beside the certificate, such as a key for DPoP, cannot be given here.
fn confirm(binding: Binding, claims: &Map, certificate: &[u8; 32]) -> Result<(), TokenError> {
    let Some(confirmation) = claims.get("cnf") else {
        return match binding {
            Binding::Required => Err(TokenError::Unbound),
            Binding::IfPresent => Ok(()),
        };
    };
    let Json::Map(confirmation) = confirmation else { return Err(TokenError::Confirmation) };
    let print = confirmation.text("x5t#S256").filter(|_| confirmation.len() == 1).ok_or(TokenError::Confirmation)?;
    let print = URL_SAFE_NO_PAD.decode(print).map_err(|_| TokenError::Confirmation)?;
    if print == certificate { Ok(()) } else { Err(TokenError::OtherCertificate) }
}
