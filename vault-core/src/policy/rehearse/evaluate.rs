//! What each policy says to a request, whatever the guards in front of the policies say.

use std::collections::BTreeSet;

use cedar_policy::{Context, Effect, Entities, Entity, EntityUid};
use serde::Serialize;

use super::ask::{is_operator, missing};
use super::file::Scene;
use crate::error::Error;
use crate::policy::action::{CONSENT_ACTIONS, CONTROL_ACTIONS, DATA_ACTIONS};
use crate::policy::authorizer::{NOT_EVALUATED, Verdict, decide};
use crate::policy::cedar::Slice;
use crate::policy::entities::{self, Asked, Kind, NotExpressible};
use crate::policy::{PolicySet, Registry};
use crate::principal::Operator;

/// What one policy says to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evaluated {
    /// Its `@id`.
    pub policy: String,
    /// `permit` or `forbid`; absent if it was not looked at.
    pub effect: Option<&'static str>,
    /// What came out.
    pub says: &'static str,
}

/// A request as the engine gets it.
struct Asking {
    action: &'static str,
    kind: Kind,
    principal: EntityUid,
    resource: EntityUid,
    context: Context,
    entities: Vec<Entity>,
}

/// What each policy of a set says to a request, sorted by id.
///
/// # Errors
/// [`Error::Invalid`] if the request lacks what its action needs.
pub fn evaluate(set: &PolicySet, registry: &Registry, scene: &Scene) -> Result<Vec<Evaluated>, Error> {
    let asking = asking(registry, scene)?;
    let evaluate = |id: &String| {
        let not = |says| Evaluated { policy: id.clone(), effect: None, says };
        let Some(asking) = &asking else { return not("not evaluated: there is no principal to evaluate it for") };
        let Some((alone, effect)) = alone(set, asking, id) else {
            return not("not about this principal, action or resource");
        };
        let effect = if effect == Effect::Permit { "permit" } else { "forbid" };
        let (principal, resource) = (asking.principal.clone(), asking.resource.clone());
        let (context, entities) = (asking.context.clone(), asking.entities.clone());
        let says = match decide(&alone, principal, resource, context, Entities::empty(), entities) {
            Ok(Verdict { refused: Some(NOT_EVALUATED), .. }) => "fails to be evaluated, which denies the request",
            Ok(Verdict { policies, .. }) if !policies.is_empty() => "applies",
            Ok(_) => "does not apply: its condition is not fulfilled",
            Err(NotExpressible) => "not evaluated: the request cannot be expressed",
        };
        Evaluated { policy: id.clone(), effect: Some(effect), says }
    };
    Ok(set.ids().iter().map(evaluate).collect())
}

/// One policy by itself, if it is among those that can apply.
fn alone(set: &PolicySet, asking: &Asking, id: &str) -> Option<(Slice, Effect)> {
    let (policies, action) = if let Some(index) = set.data(asking.action) {
        (index.policy(id)?.set.clone(), index.action.clone())
    } else {
        let slice = set.slice(asking.action, asking.kind)?;
        let policy = slice.policies.policies().find(|policy| policy.id().to_string() == id)?;
        (cedar_policy::PolicySet::from_policies([policy.clone()]).ok()?, slice.action.clone())
    };
    let effect = policies.policies().next()?.effect();
    Some((Slice { policies, action }, effect))
}

/// The request in the engine's terms; `None` if the workload is in no registry entry, or the principal cannot ask.
fn asking(registry: &Registry, scene: &Scene) -> Result<Option<Asking>, Error> {
    let named = |names: &'static [&'static str]| names.iter().copied().find(|name| *name == scene.action);
    let (action, control) = match (named(CONTROL_ACTIONS), named(DATA_ACTIONS).or_else(|| named(CONSENT_ACTIONS))) {
        (Some(action), _) => (action, true),
        (None, Some(action)) => (action, false),
        (None, None) => return Err(missing(scene, "action", "there is no such action")),
    };
    if control != is_operator(scene) {
        return Ok(None);
    }
    let made = if control { operator(scene, action) } else { workload(registry, scene, action) };
    made.map_err(|NotExpressible| missing(scene, "action", "the request lacks what its action needs"))
}

fn operator(scene: &Scene, action: &'static str) -> Result<Option<Asking>, NotExpressible> {
    let (kind, mut entities) = match (&scene.tenant, &scene.dataset) {
        (None, None) => (Kind::Instance, vec![entities::instance()?]),
        (Some(tenant), None) => (Kind::Tenant, vec![entities::tenant(tenant, None)?]),
        (Some(tenant), Some(dataset)) => {
            (Kind::Dataset, vec![entities::dataset(tenant, dataset, None)?, entities::tenant(tenant, None)?])
        }
        (None, Some(_)) => return Err(NotExpressible),
    };
    let resource = entities.first().ok_or(NotExpressible)?.uid();
    let operator = entities::operator(&Operator::for_rehearsal(scene.principal.clone(), scene.roles.clone()))?;
    let principal = operator.uid();
    entities.push(operator);
    let context = entities::control_context(scene.at, scene.custody.as_ref())?;
    Ok(Some(Asking { action, kind, principal, resource, context, entities }))
}

fn workload(registry: &Registry, scene: &Scene, action: &'static str) -> Result<Option<Asking>, NotExpressible> {
    let spiffe_id = scene.principal.as_str();
    let Some(entry) = registry.find(spiffe_id) else { return Ok(None) };
    let mut entities: Vec<Entity> = entry.principal(spiffe_id)?.iter().cloned().collect();
    let principal = entities.first().ok_or(NotExpressible)?.uid();
    let tenant = scene.tenant.as_ref().ok_or(NotExpressible)?;
    let (kind, context) = if DATA_ACTIONS.contains(&action) {
        let purpose = scene.purpose.as_ref().ok_or(NotExpressible)?;
        let id = scene.dataset.as_ref().ok_or(NotExpressible)?;
        let dataset = scene.facts.as_ref().and_then(|facts| facts.dataset.as_ref());
        let grants = dataset.iter().flat_map(|dataset| dataset.grants.iter());
        let granted: BTreeSet<&str> = grants
            .filter(|grant| grant.holds(spiffe_id, scene.at))
            .flat_map(|grant| &grant.roles)
            .map(String::as_str)
            .collect();
        entities.push(entities::dataset(tenant, id, dataset)?);
        entities.push(entities::tenant(tenant, scene.facts.as_ref())?);
        let context = entities::data_context(&Asked {
            now: scene.at,
            purpose,
            has_subject: scene.subject.is_some(),
            items: scene.items,
            consent: dataset.is_some_and(|of| of.consents.iter().any(|consent| consent.covers(purpose, scene.at))),
            granted_roles: &granted,
            end_user: scene.end_user.as_deref(),
        })?;
        (Kind::Dataset, context)
    } else {
        let end_user = scene.end_user.as_deref().ok_or(NotExpressible)?;
        entities.push(entities::tenant(tenant, None)?);
        (Kind::Tenant, entities::consent_context(scene.at, end_user)?)
    };
    let resource = entities.get(1).ok_or(NotExpressible)?.uid();
    Ok(Some(Asking { action, kind, principal, resource, context, entities }))
}
