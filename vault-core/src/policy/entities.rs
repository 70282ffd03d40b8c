//! Principals, resources and contexts in the engine's terms. The shapes here are those of `policies/schema.cedarschema`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{Context, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};

use super::reads::Reads;
use super::registry::Description;
use super::request::{DatasetFacts, Facts};
use crate::custody::Custody;
use crate::id::{DatasetId, Purpose, TenantId};
use crate::principal::{EndUser, Operator};
use crate::time::Timestamp;

/// Something could not be expressed for the engine: the decision is a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotExpressible;

/// The types of the schema.
pub(super) struct Names {
    pub(super) workload: EntityTypeName,
    pub(super) operator: EntityTypeName,
    instance: EntityTypeName,
    tenant: EntityTypeName,
    dataset: EntityTypeName,
    action: EntityTypeName,
}

pub(super) static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    workload: type_name("Vault::Workload"),
    operator: type_name("Vault::Operator"),
    instance: type_name("Vault::Instance"),
    tenant: type_name("Vault::Tenant"),
    dataset: type_name("Vault::Dataset"),
    action: type_name("Vault::Action"),
});

#[expect(clippy::expect_used, reason = "called with literals only, and any test would show a wrong one")]
fn type_name(literal: &'static str) -> EntityTypeName {
    EntityTypeName::from_str(literal).expect("a type name")
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [Option<(&str, RestrictedExpression)>; N],
) -> Result<Entity, NotExpressible> {
    let attributes: HashMap<_, _> = attributes.into_iter().flatten().map(|(k, v)| (k.to_owned(), v)).collect();
    Entity::new(uid, attributes, HashSet::new()).map_err(|_| NotExpressible)
}

fn string(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// What a request is about: it decides the resource's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Instance,
    Tenant,
    Dataset,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Instance, Self::Tenant, Self::Dataset];

    pub(super) fn type_name(self) -> &'static EntityTypeName {
        match self {
            Self::Instance => &NAMES.instance,
            Self::Tenant => &NAMES.tenant,
            Self::Dataset => &NAMES.dataset,
        }
    }
}

/// The id of an action.
pub(super) fn action(name: &str) -> EntityUid {
    uid(&NAMES.action, name)
}

/// A workload as its registry entry describes it; `tenants` is the entry's list, or the one its SPIFFE ID binds.
pub(super) fn workload<'a>(
    spiffe_id: &str,
    description: &Description,
    tenants: impl IntoIterator<Item = &'a TenantId>,
) -> Result<Entity, NotExpressible> {
    let tenants = tenants.into_iter().map(|t| RestrictedExpression::new_entity_uid(uid(&NAMES.tenant, t.as_str())));
    entity(
        uid(&NAMES.workload, spiffe_id),
        [
            Some(("service", string(&description.service))),
            Some(("environment", string(&description.environment))),
            Some(("tenants", RestrictedExpression::new_set(tenants))),
            Some(("roles", RestrictedExpression::new_set(description.roles.iter().map(|r| string(r))))),
        ],
    )
}

/// An operator; the name is the part of the SPIFFE ID after `/operator/`.
pub(super) fn operator(who: &Operator) -> Result<Entity, NotExpressible> {
    let (_, name) = who.spiffe_id().split_once("/operator/").ok_or(NotExpressible)?;
    let person = who.person().ok_or(NotExpressible)?;
    entity(
        uid(&NAMES.operator, who.spiffe_id()),
        [
            Some(("name", string(name))),
            Some(("person", string(person))),
            Some(("roles", RestrictedExpression::new_set(who.roles().map(|role| string(role.name()))))),
        ],
    )
}

/// The vault as a whole.
pub(super) fn instance() -> Result<Entity, NotExpressible> {
    entity(uid(&NAMES.instance, "vault"), [])
}

/// A tenant, with what is known of its state.
pub(super) fn tenant(id: &TenantId, facts: Option<&Facts>) -> Result<Entity, NotExpressible> {
    let suspended = facts.map(|f| ("suspended", RestrictedExpression::new_bool(f.suspended)));
    entity(uid(&NAMES.tenant, id.as_str()), [suspended])
}

/// A dataset of a tenant. Its id is `<tenant>/<dataset>`, which is injective because neither can hold a slash.
pub(super) fn dataset(
    tenant: &TenantId,
    id: &DatasetId,
    facts: Option<&DatasetFacts>,
) -> Result<Entity, NotExpressible> {
    let label = |name, value: Option<&String>| value.map(|v| (name, string(v)));
    entity(
        uid(&NAMES.dataset, &format!("{tenant}/{id}")),
        [
            Some(("tenant", RestrictedExpression::new_entity_uid(uid(&NAMES.tenant, tenant.as_str())))),
            label("classification", facts.and_then(|f| f.classification.as_ref())),
            label("residency", facts.and_then(|f| f.residency.as_ref())),
            facts.map(|f| ("consentRequired", RestrictedExpression::new_bool(f.consent_required))),
        ],
    )
}

/// What a data action's context says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) now: Timestamp,
    pub(super) purpose: &'a Purpose,
    pub(super) has_subject: bool,
    pub(super) items: u32,
    pub(super) consent: bool,
    pub(super) granted_roles: &'a BTreeSet<&'a str>,
    pub(super) end_user: Option<&'a EndUser>,
}

/// The context of a data action.
pub(super) fn data_context(asked: &Asked<'_>) -> Result<Context, NotExpressible> {
    data_context_for(asked, Reads::ALL)
}

/// The same without what no policy that it is for reads: an instant alone takes longer to make than most policies to
/// evaluate.
pub(super) fn data_context_for(asked: &Asked<'_>, reads: Reads) -> Result<Context, NotExpressible> {
    let roles = || RestrictedExpression::new_set(asked.granted_roles.iter().map(|role| string(role)));
    let user = asked.end_user.filter(|_| reads.has(Reads::USER));
    let pairs = [
        reads.has(Reads::TIME).then(|| Ok(("now", datetime(asked.now)?))),
        reads.has(Reads::PURPOSE).then(|| Ok(("purpose", string(asked.purpose.as_str())))),
        reads.has(Reads::HAS_SUBJECT).then(|| Ok(("hasSubject", RestrictedExpression::new_bool(asked.has_subject)))),
        reads.has(Reads::ITEMS).then(|| Ok(("items", RestrictedExpression::new_long(i64::from(asked.items))))),
        reads.has(Reads::CONSENT).then(|| Ok(("consent", RestrictedExpression::new_bool(asked.consent)))),
        reads.has(Reads::GRANTED_ROLES).then(|| Ok(("grantedRoles", roles()))),
        user.map(|user| Ok(("endUser", claims(user, asked.now)?))),
    ];
    context(pairs.into_iter().flatten().collect::<Result<Vec<_>, NotExpressible>>()?)
}

/// The context of an action on consents.
pub(super) fn consent_context(now: Timestamp, end_user: &EndUser) -> Result<Context, NotExpressible> {
    context([("now", datetime(now)?), ("endUser", claims(end_user, now)?)])
}

/// An end user as a context says it.
fn claims(user: &EndUser, now: Timestamp) -> Result<RestrictedExpression, NotExpressible> {
    let strings = |of: &BTreeSet<String>| RestrictedExpression::new_set(of.iter().map(|one| string(one)));
    let age = user.auth_time().map(|at| i64::try_from(now.secs().saturating_sub(at.secs())).unwrap_or(i64::MAX));
    let pairs = [
        Some(("issuer", string(user.issuer()))),
        Some(("subject", string(user.subject().as_str()))),
        Some(("tenant", RestrictedExpression::new_entity_uid(uid(&NAMES.tenant, user.tenant().as_str())))),
        Some(("roles", strings(user.roles()))),
        Some(("amr", strings(user.amr()))),
        user.acr().map(|acr| ("acr", string(acr))),
        Some(("mfa", RestrictedExpression::new_bool(user.mfa()))),
        Some(("mfaFresh", RestrictedExpression::new_bool(user.mfa_fresh_at(now)))),
        age.map(|age| ("authAge", RestrictedExpression::new_long(age))),
    ];
    RestrictedExpression::new_record(pairs.into_iter().flatten().map(|(k, v)| (k.to_owned(), v)))
        .map_err(|_| NotExpressible)
}

/// The context of a control action; with the custody that it names for a tenant key.
pub(super) fn control_context(now: Timestamp, custody: Option<&Custody>) -> Result<Context, NotExpressible> {
    let custody = custody.map(|custody| {
        let roots = custody.roots().into_iter().map(|root| string(root.as_str()));
        let fields = [("kind", string(custody.kind())), ("roots", RestrictedExpression::new_set(roots))];
        RestrictedExpression::new_record(fields.map(|(k, v)| (k.to_owned(), v))).map_err(|_| NotExpressible)
    });
    let custody = custody.transpose()?.map(|custody| ("custody", custody));
    context([("now", datetime(now)?)].into_iter().chain(custody))
}

fn context<'a>(pairs: impl IntoIterator<Item = (&'a str, RestrictedExpression)>) -> Result<Context, NotExpressible> {
    Context::from_pairs(pairs.into_iter().map(|(k, v)| (k.to_owned(), v))).map_err(|_| NotExpressible)
}

fn datetime(at: Timestamp) -> Result<RestrictedExpression, NotExpressible> {
    rfc3339(at).map(RestrictedExpression::new_datetime).ok_or(NotExpressible)
}

/// `YYYY-MM-DDThh:mm:ss.mmmZ`, the only form that Cedar's `datetime` reads with milliseconds; `None` after 9999.
pub(crate) fn rfc3339(at: Timestamp) -> Option<String> {
    let (days, second) = (at.secs() / 86_400, at.secs() % 86_400);
    if days > 2_932_896 {
        return None;
    }
    // The proleptic Gregorian calendar in eras of 400 years that begin in March, so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second, milli) = (second / 3_600, second / 60 % 60, second % 60, at.0 % 1_000);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

#[cfg(test)]
mod tests {
    use cedar_policy::EvalResult;

    use super::*;

    #[test]
    fn instants_are_written_as_cedar_reads_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(millis)).as_deref(), Some(text));
            assert!(datetime(Timestamp(millis)).is_ok());
            let context = control_context(Timestamp(millis), None).unwrap();
            assert!(matches!(context.get("now"), Some(EvalResult::ExtensionValue(_))));
        }
        assert_eq!(rfc3339(Timestamp(253_402_300_800_000)), None);
        assert_eq!(rfc3339(Timestamp(u64::MAX)), None);
    }

    #[test]
    fn an_operator_without_a_name_or_a_person_is_not_expressible() {
        assert!(operator(&Operator::for_test("spiffe://operators.example/operator/alice")).is_ok());
        assert!(operator(&Operator::for_test("spiffe://operators.example/alice")).is_err());
        assert!(operator(&Operator::for_test_unlisted("spiffe://operators.example/operator/alice")).is_err());
    }
}
