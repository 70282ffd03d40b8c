//! The format of test files: requests with what is expected of them, in TOML. `docs/policy.md` explains every key.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::value::{Date, Datetime, Offset, Time};

use crate::custody::Custody;
use crate::error::Error;
use crate::id::{ConsentId, DatasetId, GrantId, Purpose, Subject, TenantId};
use crate::policy::request::{ConsentFacts, DatasetFacts, Facts, GrantFacts};
use crate::policy::scan;
use crate::principal::{EndUser, Role, SpiffeId};
use crate::time::Timestamp;

/// Longest test file, in bytes.
const MAX_FILE: usize = 1024 * 1024;
/// The instant of requests that name none: Tuesday, 2026-11-24T12:00:00Z.
const AT: Timestamp = Timestamp(1_795_521_600_000);

/// A file of requests.
#[derive(Debug, Clone)]
pub struct Scenes {
    /// The policy files, as the file names them: relative to it.
    pub policies: Vec<String>,
    /// The registry, likewise; `None` if it has none, and every workload is refused.
    pub registry: Option<String>,
    /// The schema, likewise; `None` for the one that comes with this version.
    pub schema: Option<String>,
    /// The trust domain of workloads.
    pub workload_domain: String,
    /// The requests, in order.
    pub scenes: Vec<Scene>,
}

/// One request, and what is expected.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What it shows, in words; unique in its file.
    pub name: String,
    /// Where it stands, counted from 1.
    pub line: usize,
    /// What is expected, if the file says it.
    pub expected: Option<Expected>,
    pub(super) principal: SpiffeId,
    /// Of an operator.
    pub(super) roles: BTreeSet<Role>,
    pub(super) action: String,
    pub(super) tenant: Option<TenantId>,
    pub(super) dataset: Option<DatasetId>,
    pub(super) subject: Option<Subject>,
    pub(super) purpose: Option<Purpose>,
    pub(super) items: u32,
    pub(super) at: Timestamp,
    pub(super) custody: Option<Custody>,
    pub(super) facts: Option<Facts>,
    pub(super) end_user: Option<Arc<EndUser>>,
}

/// What a test expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Whether it is to be allowed.
    pub allowed: bool,
    /// The policies that are to decide, sorted; `None` if they do not matter.
    pub by: Option<Vec<String>>,
    /// The check that is to refuse; `None` if it does not matter.
    pub check: Option<String>,
}

impl Expected {
    /// Whether an outcome is the expected one.
    pub fn is(&self, outcome: &super::Outcome) -> bool {
        self.allowed == outcome.allowed
            && self.by.as_ref().is_none_or(|by| *by == outcome.policies)
            && self.check.as_deref().is_none_or(|check| outcome.check == Some(check))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    workload_domain: String,
    policies: Vec<String>,
    registry: Option<String>,
    schema: Option<String>,
    #[serde(default)]
    test: Vec<Spanned<Raw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    principal: String,
    #[serde(default)]
    roles: Vec<String>,
    action: String,
    tenant: Option<String>,
    dataset: Option<String>,
    subject: Option<String>,
    purpose: Option<String>,
    items: Option<u32>,
    at: Option<Datetime>,
    custody: Option<String>,
    #[serde(default)]
    resource: RawResource,
    #[serde(default)]
    consents: Vec<RawConsent>,
    #[serde(default)]
    grants: Vec<RawGrant>,
    end_user: Option<RawEndUser>,
    expect: Option<String>,
    by: Option<Vec<String>>,
    check: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawResource {
    missing: Option<String>,
    #[serde(default)]
    suspended: bool,
    classification: Option<String>,
    residency: Option<String>,
    #[serde(default)]
    consent_required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConsent {
    purposes: Vec<String>,
    from: Option<Datetime>,
    until: Option<Datetime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    roles: Vec<String>,
    until: Datetime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndUser {
    subject: String,
    tenant: String,
    issuer: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    amr: Vec<String>,
    acr: Option<String>,
    #[serde(default)]
    mfa: bool,
    #[serde(default)]
    mfa_fresh: bool,
    auth_time: Option<Datetime>,
    until: Option<Datetime>,
}

impl Scenes {
    /// Reads a test file; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the file, the line and the key: not TOML, an unknown key, a value of the wrong form, two
    /// requests of one name, or an expectation that does not say by what.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let at = |line: usize, key: &str| format!("{name} line {line}{key}");
        if text.len() > MAX_FILE {
            return Err(Error::invalid(at(1, ""), "the file is longer than 1 MiB"));
        }
        let file: RawFile = toml::from_str(text).map_err(|error| {
            let line = scan::line(text, error.span().map_or(0, |span| span.start));
            Error::invalid(
                at(line, ""),
                "not the form of a test file: see docs/policy.md for its keys and their values",
            )
        })?;
        let mut scenes: Vec<Scene> = Vec::new();
        for raw in file.test {
            let line = scan::line(text, raw.span().start);
            let scene = scene(raw.into_inner(), line)
                .map_err(|(key, why)| Error::invalid(at(line, &format!(", {key}")), why))?;
            if scenes.iter().any(|other| other.name == scene.name) {
                return Err(Error::invalid(at(line, ", name"), "another request has the same name"));
            }
            scenes.push(scene);
        }
        Ok(Self {
            policies: file.policies,
            registry: file.registry,
            schema: file.schema,
            workload_domain: file.workload_domain,
            scenes,
        })
    }
}

type Refused = (&'static str, &'static str);

fn scene(raw: Raw, line: usize) -> Result<Scene, Refused> {
    const NAME: &str = "must match [a-z0-9][a-z0-9._-]{0,62}";
    let at = raw.at.as_ref().map_or(Ok(AT), |at| instant(at, "at"))?;
    let tenant = raw.tenant.as_deref().map(TenantId::parse).transpose().map_err(|_| ("tenant", NAME))?;
    let expected = expected(&raw)?;
    let end_user = raw.end_user.map(|user| end_user(user, at)).transpose()?.map(Arc::new);
    let consents = raw.consents.iter().map(consent).collect::<Result<Vec<_>, _>>()?;
    let mut grants = Vec::new();
    for grant in raw.grants {
        let until = instant(&grant.until, "grants")?;
        let id = GrantId([0; 16]);
        grants.push(GrantFacts { id, workload: raw.principal.clone(), roles: grant.roles, until });
    }
    let dataset = DatasetFacts {
        classification: raw.resource.classification,
        residency: raw.resource.residency,
        consent_required: raw.resource.consent_required,
        consents: consents.into(),
        grants: grants.into(),
    };
    let suspended = raw.resource.suspended;
    let facts = match raw.resource.missing.as_deref() {
        None => Some(Facts { suspended, dataset: Some(dataset) }),
        Some("dataset") => Some(Facts { suspended, dataset: None }),
        Some("tenant") => None,
        Some(_) => return Err(("resource.missing", "must be \"tenant\" or \"dataset\"")),
    };
    Ok(Scene {
        name: raw.name,
        line,
        expected,
        principal: SpiffeId::parse(&raw.principal).map_err(|_| ("principal", "must be a SPIFFE ID"))?,
        roles: roles(&raw.roles)?,
        action: raw.action,
        tenant,
        dataset: raw.dataset.as_deref().map(DatasetId::parse).transpose().map_err(|_| ("dataset", NAME))?,
        subject: raw
            .subject
            .as_deref()
            .map(Subject::parse)
            .transpose()
            .map_err(|_| ("subject", "must be 1 to 256 characters from ! to ~"))?,
        purpose: raw.purpose.as_deref().map(Purpose::parse).transpose().map_err(|_| ("purpose", NAME))?,
        items: raw.items.unwrap_or(1),
        at,
        custody: raw
            .custody
            .as_deref()
            .map(Custody::parse)
            .transpose()
            .map_err(|_| ("custody", "must be a custody, for example split(aws:a,aws:b)"))?,
        facts,
        end_user,
    })
}

fn roles(names: &[String]) -> Result<BTreeSet<Role>, Refused> {
    let roles = names.iter().map(|name| Role::named(name)).collect::<Option<_>>();
    roles.ok_or(("roles", "an operator's roles are of approver, auditor, author, custodian, viewer"))
}

fn expected(raw: &Raw) -> Result<Option<Expected>, Refused> {
    let allowed = match raw.expect.as_deref() {
        Some("allow") => true,
        Some("deny") => false,
        Some(_) => return Err(("expect", "must be \"allow\" or \"deny\"")),
        None if raw.by.is_some() || raw.check.is_some() => return Err(("expect", "is missing")),
        None => return Ok(None),
    };
    // A test that does not say by what passes for a wrong reason one day.
    if raw.by.is_none() && (allowed || raw.check.is_none()) {
        return Err(("expect", "say by what: the policies (`by`), or the check that refuses (`check`)"));
    }
    let by = raw.by.clone().map(|mut by| {
        by.sort_unstable();
        by
    });
    Ok(Some(Expected { allowed, by, check: raw.check.clone() }))
}

fn consent(raw: &RawConsent) -> Result<ConsentFacts, Refused> {
    let purposes = raw.purposes.iter().map(|purpose| Purpose::parse(purpose)).collect::<Result<_, _>>();
    Ok(ConsentFacts {
        id: ConsentId([0; 16]),
        purposes: purposes.map_err(|_| ("consents", "a purpose must match [a-z0-9][a-z0-9._-]{0,62}"))?,
        from: raw.from.as_ref().map_or(Ok(Timestamp(0)), |from| instant(from, "consents"))?,
        until: raw.until.as_ref().map(|until| instant(until, "consents")).transpose()?,
    })
}

fn end_user(raw: RawEndUser, at: Timestamp) -> Result<EndUser, Refused> {
    let wrong = |_| ("end_user", "subject or tenant has not the form that it must have");
    if raw.mfa_fresh && !raw.mfa {
        return Err(("end_user", "mfa_fresh without mfa: no token proves that"));
    }
    let mut user = EndUser::for_rehearsal(
        raw.issuer.unwrap_or_else(|| "https://id.example".to_owned()),
        Subject::parse(&raw.subject).map_err(wrong)?,
        TenantId::parse(&raw.tenant).map_err(wrong)?,
    );
    user.claims(raw.roles, raw.amr, raw.acr);
    let auth_time = raw.auth_time.as_ref().map(|time| instant(time, "end_user")).transpose()?;
    let fresh_until = raw.mfa_fresh.then(|| at.plus_millis(1));
    user.signed_in(raw.mfa, auth_time, fresh_until);
    if let Some(until) = &raw.until {
        user.ends(instant(until, "end_user")?);
    }
    Ok(user)
}

/// An instant that names its offset from UTC, in the years from 1970 on.
fn instant(of: &Datetime, key: &'static str) -> Result<Timestamp, Refused> {
    let refuse = (key, "an instant must look like 2026-11-24T12:00:00Z, from 1970 on");
    let (Some(Date { year, month, day }), Some(Time { hour, minute, second, nanosecond }), Some(offset)) =
        (of.date, of.time, of.offset)
    else {
        return Err(refuse);
    };
    // Days from 1970-01-01 in the proleptic Gregorian calendar, years beginning in March so that the leap day comes last.
    let (year, month) = (i64::from(year), i64::from(month));
    let (from_march, year) = if month > 2 { (month - 3, year) } else { (month + 9, year - 1) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * from_march + 2) / 5
        + i64::from(day)
        - 1
        - 719_468;
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let of_day = i64::from(hour) * 3_600 + (i64::from(minute) - minutes) * 60 + i64::from(second.unwrap_or(0));
    let millis = (days * 86_400 + of_day) * 1_000 + i64::from(nanosecond.unwrap_or(0) / 1_000_000);
    u64::try_from(millis).map(Timestamp).map_err(|_| refuse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rfc3339;

    #[test]
    fn instants_are_read_as_they_are_written() {
        for text in ["1970-01-01T00:00:00.000Z", "2000-02-29T23:59:59.999Z", "2100-03-01T00:00:00.000Z"] {
            let read = instant(&text.parse().unwrap(), "at").unwrap();
            assert_eq!(rfc3339(read).unwrap(), text);
        }
        let east = instant(&"2026-11-24T13:00:00+01:00".parse().unwrap(), "at").unwrap();
        assert_eq!(east, AT);
        for bad in ["1969-12-31T23:59:59Z", "2026-11-24T13:00:00", "2026-11-24"] {
            assert!(instant(&bad.parse().unwrap(), "at").is_err(), "{bad}");
        }
    }
}
