//! The decision: guards in Rust first, then the policies.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cedar_policy::{AuthorizationError, Context, Entities, Entity, Request, Response};

use super::action::CUSTODY_ACTIONS;
use super::cedar::{PolicySet, Slice};
use super::decisions::Decisions;
use super::entities::{self, Asked, Kind, NotExpressible};
use super::plan::Question;
use super::registry::{Grant, Registry};
use super::request::{ConsentRequest, ControlRequest, DataRequest, Facts};
use super::{Action, ConsentAction, ControlAction, DataAction, Decision, Permit, Refusal, Resource};
use crate::error::Check;
use crate::id::{RequestId, TenantId};
use crate::principal::{EndUser, Operator, TokenError, Workload};
use crate::time::Timestamp;

/// How long a permit holds at most, in milliseconds: long enough for any single call, short enough that a forgotten
/// permit is worth nothing.
pub const PERMIT_LIFETIME_MILLIS: u64 = 30_000;

/// The decisions kept unless told otherwise: so many combinations of action, principal, dataset and purpose.
pub const CACHED_DECISIONS: usize = 16_384;

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
    /// Of this epoch: the next begins with an empty one.
    decisions: Decisions,
}

impl Authorizer {
    /// An authorizer in its first epoch, 1. It keeps [`CACHED_DECISIONS`].
    pub fn new(set: PolicySet, registry: Registry) -> Self {
        Self::caching(set, registry, CACHED_DECISIONS)
    }

    /// The same with another bound on the decisions it keeps; with 0 it keeps none, and decides the same.
    pub fn caching(set: PolicySet, registry: Registry, capacity: usize) -> Self {
        let (set, registry) = (Arc::new(set), Arc::new(registry));
        let state = State { epoch: 1, set, registry, decisions: Decisions::new(capacity) };
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
            let decisions = Decisions::new(now.decisions.capacity());
            State { epoch: now.epoch.saturating_add(1), set, registry, decisions }
        });
        before.epoch.saturating_add(1)
    }

    /// Plans and verdicts that this epoch holds, and verdicts it found.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, u64) {
        self.state.load().decisions.counts()
    }

    /// The ids of the policies in force, sorted, and how many entries the registry has.
    pub fn in_force(&self) -> (Vec<String>, usize) {
        let state = self.state.load();
        (state.set.ids().to_vec(), state.registry.len())
    }

    /// The epoch in force: grows by one with each swap.
    pub fn epoch(&self) -> u64 {
        self.state.load().epoch
    }

    /// Whether the registry lists a tenant for a workload: [`Self::authorize_data`] refuses all others, whatever the facts.
    pub fn lists(&self, who: &Workload, tenant: &TenantId) -> bool {
        self.state.load().registry.find(who.spiffe_id()).is_some_and(|grant| grant.lists(tenant))
    }

    /// Decides whether a workload may do `A`. `facts` is what the store says, `None` if there is no such tenant.
    ///
    /// In order: the certificate is valid at `now`; the registry has an entry for the workload and it lists the
    /// tenant; the end user, if the request has one, is of that tenant and the token still holds; the tenant exists; it is
    /// not suspended; the dataset exists; where it demands consent, one covers the purpose, if plaintext is to be
    /// released; a policy permits, none forbids, none fails.
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
        let mut pending = Pending::new::<A>(who.spiffe_id(), resource, (request.request, now, state.epoch));
        pending.decision.end_user = request.end_user;
        let grant = match admit(&state.registry, who, &request.tenant, now) {
            Ok(grant) => grant,
            Err((check, why)) => return pending.refuse(check, why),
        };
        let end_user = pending.decision.end_user.clone();
        if let Some(why) = end_user.as_deref().and_then(|user| refuses(user, &request.tenant, now)) {
            return pending.refuse(Check::EndUser, why);
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
        let Some(policies) = state.set.data(A::NAME) else {
            return pending.refuse(Check::Policy, "the schema does not have this action");
        };
        let consent = dataset.consents.iter().find(|consent| consent.covers(&request.purpose, now));
        let grants = || dataset.grants.iter().filter(|grant| grant.holds(who.spiffe_id(), now));
        pending.decision.consent = consent.map(|consent| consent.id);
        pending.decision.grants = grants().map(|grant| grant.id).collect();
        let verdict = state.decisions.decide(&Question {
            policies,
            principal: who.spiffe_id(),
            grant: &grant,
            tenant: &request.tenant,
            dataset: &request.dataset,
            facts: dataset,
            asked: &Asked {
                now,
                purpose: &request.purpose,
                has_subject: request.subject.is_some(),
                items: request.items,
                consent: consent.is_some(),
                granted_roles: &grants().flat_map(|grant| &grant.roles).map(String::as_str).collect::<BTreeSet<_>>(),
                end_user: end_user.as_deref(),
            },
        });
        // After the policies, so that the answer does not tell somebody who may not read what is demanded for it.
        if A::RELEASES && dataset.consent_required && consent.is_none() && verdict.as_ref().is_ok_and(|v| v.allows()) {
            return pending.refuse(Check::Consent, "no consent of the tenant covers the purpose");
        }
        let ends = consent.and_then(|consent| consent.until).into_iter().chain(grants().map(|grant| grant.until));
        let ends = ends.chain(end_user.as_deref().map(EndUser::not_after)).min();
        pending.conclude(verdict, end_of(who.not_after()).min(ends.unwrap_or(Timestamp(u64::MAX))))
    }

    /// Decides whether an end user may do `A`, through a workload.
    ///
    /// In order: the certificate is valid at `now`; the registry has an entry for the workload and it lists the tenant;
    /// the end user is of that tenant and the token holds; they signed in with a second factor, if `A` widens what may be
    /// done; a policy permits, none forbids, none fails. The state of the tenant is not read: the answer is the same
    /// whether or not it exists.
    ///
    /// An operator is no end user, and asks for none:
    /// ```compile_fail,E0308
    /// use vault_core::policy::{Authorizer, ConsentRequest, GrantConsent, Permit, Refusal};
    /// use vault_core::{principal::Operator, time::Timestamp};
    /// fn consent(a: &Authorizer, who: &Operator, r: ConsentRequest) -> Result<Permit<GrantConsent>, Refusal> {
    ///     a.authorize_consent::<GrantConsent>(who, r, Timestamp::default())
    /// }
    /// ```
    /// An action on consents is no data action:
    /// ```compile_fail,E0277
    /// use vault_core::policy::{Authorizer, ConsentRequest, Decrypt, Permit, Refusal};
    /// use vault_core::{principal::Workload, time::Timestamp};
    /// fn decrypt(a: &Authorizer, who: &Workload, r: ConsentRequest) -> Result<Permit<Decrypt>, Refusal> {
    ///     a.authorize_consent::<Decrypt>(who, r, Timestamp::default())
    /// }
    /// ```
    ///
    /// # Errors
    /// The [`Refusal`], for the audit entry; outside only its [`Check`] shows.
    pub fn authorize_consent<A: ConsentAction>(
        &self,
        who: &Workload,
        request: ConsentRequest,
        now: Timestamp,
    ) -> Result<Permit<A>, Refusal> {
        let state = self.state.load();
        let resource = Resource { tenant: Some(request.tenant.clone()), ..Resource::default() };
        let mut pending = Pending::new::<A>(who.spiffe_id(), resource, (request.request, now, state.epoch));
        pending.decision.end_user = Some(Arc::clone(&request.end_user));
        let grant = match admit(&state.registry, who, &request.tenant, now) {
            Ok(grant) => grant,
            Err((check, why)) => return pending.refuse(check, why),
        };
        if let Some(why) = refuses(&request.end_user, &request.tenant, now) {
            return pending.refuse(Check::EndUser, why);
        }
        if A::WIDENS && !request.end_user.mfa() {
            return pending.refuse(Check::EndUser, "the end user did not sign in with a second factor");
        }
        let Some(slice) = state.set.slice(A::NAME, Kind::Tenant) else {
            return pending.refuse(Check::Policy, "the schema does not have this action");
        };
        let verdict = (|| {
            let tenant = entities::tenant(&request.tenant, None)?;
            let context = entities::consent_context(now, &request.end_user)?;
            let principals = grant.principal(who.spiffe_id())?;
            let (principal, about) = (sole(&principals)?, tenant.uid());
            decide(slice, principal, about, context, principals, [tenant])
        })();
        pending.conclude(verdict, end_of(who.not_after()).min(request.end_user.not_after()))
    }

    /// The refusal of a call for an end user whose token proves nobody, for the audit entry. What comes before the end
    /// user in [`Self::authorize_data`] comes before the token here: a workload that may not ask about the tenant learns
    /// nothing else.
    pub fn refuse_token<A: Action>(
        &self,
        who: &Workload,
        tenant: &TenantId,
        (resource, request): (Resource, RequestId),
        rule: TokenError,
        now: Timestamp,
    ) -> Refusal {
        let state = self.state.load();
        let resource = Resource { tenant: Some(tenant.clone()), ..resource };
        let pending = Pending::new::<A>(who.spiffe_id(), resource, (request, now, state.epoch));
        let refused = admit(&state.registry, who, tenant, now).err();
        let (check, reason) = refused.unwrap_or((Check::EndUser, rule.message()));
        Refusal { decision: Box::new(pending.decision), check, reason }
    }

    /// Decides whether an operator may do `A`. The state of what it is about is not read: the answer is the same
    /// whether or not it exists.
    ///
    /// In order: certificate and token are valid at `now`; a list of operators knows the person; a policy permits, by the
    /// roles that the list gives them, none forbids, none fails.
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
        let mut pending = Pending::new::<A>(who.spiffe_id(), resource, (request.request, now, state.epoch));
        pending.decision.reason = request.reason;
        pending.decision.custody = request.custody;
        pending.decision.person = who.person().map(str::to_owned);
        if !who.valid_at(now) {
            return pending.refuse(Check::Identity, "the certificate or the token is not valid now");
        }
        if who.person().is_none() {
            return pending.refuse(Check::Operator, "the operator is not in the list of operators");
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
            let operator = entities::operator(who)?;
            let principal = operator.uid();
            let context = entities::control_context(now, pending.decision.custody.as_ref())?;
            decide(slice, principal, resource, context, Entities::empty(), resources.into_iter().chain([operator]))
        })();
        let until = who.token_until().unwrap_or(Timestamp(u64::MAX));
        pending.conclude(verdict, end_of(who.not_after()).min(until))
    }
}

/// The registry's entry of a workload that may ask about a tenant at all, or why it may not.
fn admit<'a>(
    registry: &'a Registry,
    who: &Workload,
    tenant: &TenantId,
    now: Timestamp,
) -> Result<Grant<'a>, (Check, &'static str)> {
    if !who.valid_at(now) {
        return Err((Check::Identity, "the certificate is not valid now"));
    }
    let grant = registry.find(who.spiffe_id()).ok_or((Check::Registry, "the workload is in no registry entry"))?;
    if grant.lists(tenant) {
        Ok(grant)
    } else {
        Err((Check::Registry, "the tenant is not in the workload's registry entry"))
    }
}

/// Why an end user may not be spoken for at all.
fn refuses(user: &EndUser, tenant: &TenantId, now: Timestamp) -> Option<&'static str> {
    if !user.valid_at(now) {
        Some("the end user's token is not valid now")
    } else if user.tenant() != tenant {
        Some("the end user is of another tenant")
    } else {
        None
    }
}

/// A certificate holds to the end of its last second.
const fn end_of(not_after: Timestamp) -> Timestamp {
    Timestamp(not_after.secs().saturating_add(1).saturating_mul(1_000))
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

impl Verdict {
    const fn allows(&self) -> bool {
        self.refused.is_none()
    }
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
    fn new<A: Action>(principal: &str, resource: Resource, (request, at, epoch): (RequestId, Timestamp, u64)) -> Self {
        let decision = Decision {
            principal: principal.to_owned(),
            person: None,
            action: A::NAME,
            resource,
            reason: None,
            custody: None,
            end_user: None,
            consent: None,
            grants: Vec::new(),
            request,
            at,
            epoch,
            policies: Vec::new(),
        };
        Self { decision }
    }

    fn refuse<A: Action>(self, check: Check, reason: &'static str) -> Result<Permit<A>, Refusal> {
        Err(Refusal { decision: Box::new(self.decision), check, reason })
    }

    fn conclude<A: Action>(
        mut self,
        verdict: Result<impl Borrow<Verdict>, NotExpressible>,
        end: Timestamp,
    ) -> Result<Permit<A>, Refusal> {
        let Ok(verdict) = verdict else {
            return self.refuse(Check::Policy, "the request cannot be expressed in the policy language");
        };
        let verdict: &Verdict = verdict.borrow();
        self.decision.policies.clone_from(&verdict.policies);
        if let Some(reason) = verdict.refused {
            return self.refuse(Check::Policy, reason);
        }
        let until = self.decision.at.plus_millis(PERMIT_LIFETIME_MILLIS).min(end);
        Ok(Permit::mint(self.decision, until))
    }
}
