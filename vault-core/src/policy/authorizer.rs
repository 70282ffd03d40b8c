//! The decision: guards in Rust first, then the policies.

use std::sync::Arc;

use arc_swap::ArcSwap;
use cedar_policy::{AuthorizationError, Context, Entities, Entity, Request, Response};

use super::action::CUSTODY_ACTIONS;
use super::cedar::{PolicySet, Slice};
use super::entities::{self, Kind, NotExpressible};
use super::registry::Registry;
use super::{ControlAction, DataAction, Decision, Permit, Refusal, Resource};
use crate::custody::Custody;
use crate::error::Check;
use crate::id::{DatasetId, Purpose, Reason, RequestId, Subject, TenantId};
use crate::principal::{Operator, Workload};
use crate::time::Timestamp;

/// How long a permit holds at most, in milliseconds: long enough for any single call, short enough that a forgotten
/// permit is worth nothing.
pub const PERMIT_LIFETIME_MILLIS: u64 = 30_000;

/// What a workload asks for; [`Authorizer::authorize_data`] says with which action.
#[derive(Debug, Clone)]
pub struct DataRequest {
    /// Whose data.
    pub tenant: TenantId,
    /// Which body of data.
    pub dataset: DatasetId,
    /// The person the data is about, if the data key is theirs.
    pub subject: Option<Subject>,
    /// Why.
    pub purpose: Purpose,
    /// The call this belongs to.
    pub request: RequestId,
    /// How many records the call is about: 1, or the size of the batch.
    pub items: u32,
}

/// What an operator asks for; [`Authorizer::authorize_control`] says with which action.
#[derive(Debug, Clone)]
pub struct ControlRequest {
    /// The tenant, existing or not; `None` for listing tenants.
    pub tenant: Option<TenantId>,
    /// The dataset, if the action is about one; only together with its tenant.
    pub dataset: Option<DatasetId>,
    /// The person that it is about, if it is: for the audit entry as a pseudonym, no policy reads it.
    pub subject: Option<Subject>,
    /// Why, in the operator's own words: for the audit entry, no policy reads it.
    pub reason: Option<Reason>,
    /// The root keys that a tenant key is to be put under; only for the actions that make one.
    pub custody: Option<Custody>,
    /// The call this belongs to.
    pub request: RequestId,
}

/// What the store says about a tenant that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether its data actions are stopped.
    pub suspended: bool,
    /// The dataset asked for, if the tenant has it.
    pub dataset: Option<DatasetFacts>,
}

/// What the store says about a dataset that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetFacts {
    /// How sensitive it is, in the deployment's own words.
    pub classification: Option<String>,
    /// Where it has to stay, in the deployment's own words.
    pub residency: Option<String>,
}

/// Decides. Shared by all threads; a decision takes no lock.
#[derive(Debug)]
pub struct Authorizer {
    state: ArcSwap<State>,
}

/// All that a decision depends on besides the request: replaced as a whole, so no decision sees half of it.
#[derive(Debug)]
struct State {
    epoch: u64,
    set: Arc<PolicySet>,
    registry: Arc<Registry>,
}

impl Authorizer {
    /// An authorizer in its first epoch, 1.
    pub fn new(set: PolicySet, registry: Registry) -> Self {
        let state = State { epoch: 1, set: Arc::new(set), registry: Arc::new(registry) };
        Self { state: ArcSwap::from_pointee(state) }
    }

    /// Replaces policies and registry together and answers the new epoch. Decisions that run meanwhile finish under
    /// the epoch they began with; each says which.
    pub fn swap(&self, set: PolicySet, registry: Registry) -> u64 {
        let (set, registry) = (Arc::new(set), Arc::new(registry));
        self.replace(|_| (set.clone(), registry.clone()))
    }

    /// Replaces the policies alone and answers the new epoch.
    pub fn swap_policies(&self, set: PolicySet) -> u64 {
        let set = Arc::new(set);
        self.replace(|now| (set.clone(), now.registry.clone()))
    }

    /// Replaces the registry alone and answers the new epoch.
    pub fn swap_registry(&self, registry: Registry) -> u64 {
        let registry = Arc::new(registry);
        self.replace(|now| (now.set.clone(), registry.clone()))
    }

    fn replace(&self, with: impl Fn(&State) -> (Arc<PolicySet>, Arc<Registry>)) -> u64 {
        let before = self.state.rcu(|now| {
            let (set, registry) = with(now);
            State { epoch: now.epoch.saturating_add(1), set, registry }
        });
        before.epoch.saturating_add(1)
    }

    /// The epoch in force: grows by one with each swap.
    pub fn epoch(&self) -> u64 {
        self.state.load().epoch
    }

    /// Decides whether a workload may do `A`. `facts` is what the store says, `None` if there is no such tenant.
    ///
    /// In order: the certificate is valid at `now`; the registry has an entry for the workload and it lists the
    /// tenant; the tenant exists; it is not suspended; the dataset exists; a policy permits, none forbids, none fails.
    ///
    /// ```
    /// use vault_core::policy::{Authorizer, DataRequest, Decrypt, Facts, Permit, Refusal};
    /// use vault_core::{principal::Workload, time::Timestamp};
    /// fn decrypt(a: &Authorizer, who: &Workload, r: DataRequest, f: &Facts) -> Result<Permit<Decrypt>, Refusal> {
    ///     a.authorize_data::<Decrypt>(who, r, Some(f), Timestamp::default())
    /// }
    /// ```
    /// An operator is not a workload:
    /// ```compile_fail,E0308
    /// use vault_core::policy::{Authorizer, DataRequest, Decrypt, Facts, Permit, Refusal};
    /// use vault_core::{principal::Operator, time::Timestamp};
    /// fn decrypt(a: &Authorizer, who: &Operator, r: DataRequest, f: &Facts) -> Result<Permit<Decrypt>, Refusal> {
    ///     a.authorize_data::<Decrypt>(who, r, Some(f), Timestamp::default())
    /// }
    /// ```
    /// A control action is not a data action:
    /// ```compile_fail,E0277
    /// use vault_core::policy::{Authorizer, DataRequest, Facts, Permit, Refusal, SuspendTenant};
    /// use vault_core::{principal::Workload, time::Timestamp};
    /// fn suspend(a: &Authorizer, who: &Workload, r: DataRequest, f: &Facts) -> Result<Permit<SuspendTenant>, Refusal> {
    ///     a.authorize_data::<SuspendTenant>(who, r, Some(f), Timestamp::default())
    /// }
    /// ```
    ///
    /// # Errors
    /// The [`Refusal`], for the audit entry. Outside only its [`Check`] shows, and that depends on whether the tenant
    /// or dataset exists in one case only: a workload learns that a tenant of its own entry is suspended.
    pub fn authorize_data<A: DataAction>(
        &self,
        who: &Workload,
        request: DataRequest,
        facts: Option<&Facts>,
        now: Timestamp,
    ) -> Result<Permit<A>, Refusal> {
        let state = self.state.load();
        let resource = Resource {
            tenant: Some(request.tenant.clone()),
            dataset: Some(request.dataset.clone()),
            subject: request.subject.clone(),
            purpose: Some(request.purpose.clone()),
        };
        let pending = Pending {
            decision: Decision {
                principal: who.spiffe_id().to_owned(),
                action: A::NAME,
                resource,
                reason: None,
                custody: None,
                request: request.request,
                at: now,
                epoch: state.epoch,
                policies: Vec::new(),
            },
        };
        if !who.valid_at(now) {
            return pending.refuse(Check::Identity, "the certificate is not valid now");
        }
        let Some(grant) = state.registry.find(who.spiffe_id()) else {
            return pending.refuse(Check::Registry, "the workload is in no registry entry");
        };
        if !grant.lists(&request.tenant) {
            return pending.refuse(Check::Registry, "the tenant is not in the workload's registry entry");
        }
        let Some(facts) = facts else {
            return pending.refuse(Check::Policy, "no such tenant");
        };
        // Before anything about the dataset, so that a suspended tenant's datasets do not show by the answer.
        if facts.suspended {
            return pending.refuse(Check::Suspended, "the tenant is suspended");
        }
        let Some(dataset) = &facts.dataset else {
            return pending.refuse(Check::Policy, "no such dataset");
        };
        let Some(slice) = state.set.slice(A::NAME, Kind::Dataset) else {
            return pending.refuse(Check::Policy, "the schema does not have this action");
        };
        let verdict = (|| {
            let tenant = entities::tenant(&request.tenant, Some(facts))?;
            let dataset = entities::dataset(&request.tenant, &request.dataset, Some(dataset))?;
            let context = entities::data_context(now, &request.purpose, request.subject.is_some(), request.items)?;
            let principals = grant.principal(who.spiffe_id())?;
            let (principal, resource) = (sole(&principals)?, dataset.uid());
            decide(slice, principal, resource, context, principals, [tenant, dataset])
        })();
        pending.conclude(verdict, who.not_after())
    }

    /// Decides whether an operator may do `A`. The state of what it is about is not read: the answer is the same
    /// whether or not it exists.
    ///
    /// ```
    /// use vault_core::policy::{Authorizer, ControlRequest, Permit, Refusal, SuspendTenant};
    /// use vault_core::{principal::Operator, time::Timestamp};
    /// fn suspend(a: &Authorizer, who: &Operator, r: ControlRequest) -> Result<Permit<SuspendTenant>, Refusal> {
    ///     a.authorize_control::<SuspendTenant>(who, r, Timestamp::default())
    /// }
    /// ```
    /// A workload is not an operator:
    /// ```compile_fail,E0308
    /// use vault_core::policy::{Authorizer, ControlRequest, Permit, Refusal, SuspendTenant};
    /// use vault_core::{principal::Workload, time::Timestamp};
    /// fn suspend(a: &Authorizer, who: &Workload, r: ControlRequest) -> Result<Permit<SuspendTenant>, Refusal> {
    ///     a.authorize_control::<SuspendTenant>(who, r, Timestamp::default())
    /// }
    /// ```
    /// A data action is not a control action:
    /// ```compile_fail,E0277
    /// use vault_core::policy::{Authorizer, ControlRequest, Decrypt, Permit, Refusal};
    /// use vault_core::{principal::Operator, time::Timestamp};
    /// fn decrypt(a: &Authorizer, who: &Operator, r: ControlRequest) -> Result<Permit<Decrypt>, Refusal> {
    ///     a.authorize_control::<Decrypt>(who, r, Timestamp::default())
    /// }
    /// ```
    ///
    /// # Errors
    /// The [`Refusal`], for the audit entry; outside only its [`Check`] shows.
    pub fn authorize_control<A: ControlAction>(
        &self,
        who: &Operator,
        request: ControlRequest,
        now: Timestamp,
    ) -> Result<Permit<A>, Refusal> {
        let state = self.state.load();
        let resource = Resource {
            tenant: request.tenant.clone(),
            dataset: request.dataset.clone(),
            subject: request.subject,
            purpose: None,
        };
        let pending = Pending {
            decision: Decision {
                principal: who.spiffe_id().to_owned(),
                action: A::NAME,
                resource,
                reason: request.reason,
                custody: request.custody,
                request: request.request,
                at: now,
                epoch: state.epoch,
                policies: Vec::new(),
            },
        };
        if !who.valid_at(now) {
            return pending.refuse(Check::Identity, "the certificate is not valid now");
        }
        if pending.decision.custody.is_some() && !CUSTODY_ACTIONS.contains(&A::NAME) {
            return pending.refuse(Check::Policy, "the action takes no custody");
        }
        let (kind, resources) = match (&request.tenant, &request.dataset) {
            (None, None) => (Kind::Instance, entities::instance().map(|i| vec![i])),
            (Some(tenant), None) => (Kind::Tenant, entities::tenant(tenant, None).map(|t| vec![t])),
            (Some(tenant), Some(dataset)) => (
                Kind::Dataset,
                entities::dataset(tenant, dataset, None)
                    .and_then(|dataset| Ok(vec![dataset, entities::tenant(tenant, None)?])),
            ),
            (None, Some(_)) => return pending.refuse(Check::Policy, "a dataset without its tenant"),
        };
        let Some(slice) = state.set.slice(A::NAME, kind) else {
            return pending.refuse(Check::Policy, "the action does not apply to this kind of resource");
        };
        let verdict = (|| {
            let resources = resources?;
            let resource = resources.first().ok_or(NotExpressible)?.uid();
            let operator = entities::operator(who.spiffe_id())?;
            let principal = operator.uid();
            let context = entities::control_context(now, pending.decision.custody.as_ref())?;
            decide(slice, principal, resource, context, Entities::empty(), resources.into_iter().chain([operator]))
        })();
        pending.conclude(verdict, who.not_after())
    }
}

fn sole(entities: &Entities) -> Result<cedar_policy::EntityUid, NotExpressible> {
    entities.iter().next().map(Entity::uid).ok_or(NotExpressible)
}

/// The refusal of a request for which some policy could not be evaluated.
pub(super) const NOT_EVALUATED: &str = "a policy could not be evaluated";

/// What the engine said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Why it is a refusal, `None` if it is none.
    pub(super) refused: Option<&'static str>,
    /// The policies that decided, or that failed; sorted.
    pub(super) policies: Vec<String>,
}

/// Asks the engine. The request is not held against the schema again: its shape was, when the set was loaded.
pub(super) fn decide(
    slice: &Slice,
    principal: cedar_policy::EntityUid,
    resource: cedar_policy::EntityUid,
    context: Context,
    known: Entities,
    more: impl IntoIterator<Item = Entity>,
) -> Result<Verdict, NotExpressible> {
    let all = more.into_iter().chain([slice.action.clone()]);
    let entities = known.add_entities(all, None).map_err(|_| NotExpressible)?;
    // An entity that is not there makes Cedar skip the rules that read it, the forbids too.
    if entities.get(&principal).is_none() || entities.get(&resource).is_none() {
        return Err(NotExpressible);
    }
    let request = Request::new(principal, slice.action.uid(), resource, context, None).map_err(|_| NotExpressible)?;
    Ok(judge(&cedar_policy::Authorizer::new().is_authorized(&request, &slice.policies, &entities)))
}

/// Cedar skips a policy that cannot be evaluated, even a `forbid`; here any such error is a refusal.
fn judge(response: &Response) -> Verdict {
    let diagnostics = response.diagnostics();
    let failed: Vec<_> = diagnostics
        .errors()
        .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().to_string())
        .collect();
    let reasons = diagnostics.reason().map(ToString::to_string);
    let (refused, mut policies) = if !failed.is_empty() {
        (Some(NOT_EVALUATED), failed)
    } else {
        let policies: Vec<_> = reasons.collect();
        let refused = match response.decision() {
            // Cedar allows only by a permit; an empty list of reasons would be a contradiction.
            cedar_policy::Decision::Allow if !policies.is_empty() => None,
            _ if policies.is_empty() => Some("no policy permits"),
            _ => Some("a policy forbids"),
        };
        (refused, policies)
    };
    policies.sort_unstable();
    Verdict { refused, policies }
}

/// A decision on its way.
struct Pending {
    decision: Decision,
}

impl Pending {
    fn refuse<A: super::Action>(self, check: Check, reason: &'static str) -> Result<Permit<A>, Refusal> {
        Err(Refusal { decision: Box::new(self.decision), check, reason })
    }

    fn conclude<A: super::Action>(
        mut self,
        verdict: Result<Verdict, NotExpressible>,
        not_after: Timestamp,
    ) -> Result<Permit<A>, Refusal> {
        let Ok(verdict) = verdict else {
            return self.refuse(Check::Policy, "the request cannot be expressed in the policy language");
        };
        self.decision.policies = verdict.policies;
        if let Some(reason) = verdict.refused {
            return self.refuse(Check::Policy, reason);
        }
        // A certificate holds to the end of its last second.
        let end = Timestamp(not_after.secs().saturating_add(1).saturating_mul(1_000));
        let until = self.decision.at.plus_millis(PERMIT_LIFETIME_MILLIS).min(end);
        Ok(Permit::mint(self.decision, until))
    }
}
