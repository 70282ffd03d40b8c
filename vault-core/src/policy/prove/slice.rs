//! The policies that can apply to one kind of request, by their scopes alone: the others say nothing there, so a proof
//! need not carry them. What a proof finds is replayed on the whole set.

use cedar_policy::{
    ActionConstraint, Entities, EntityTypeName, Policy, PolicySet, PrincipalConstraint, RequestEnv, ResourceConstraint,
};

/// The slice of a set; `None` if it cannot be made, which a proof must not pass over.
pub(super) fn slice(set: &PolicySet, request: &RequestEnv, actions: &Entities) -> Option<PolicySet> {
    let apply = set.policies().filter(|policy| is_about(policy, request, actions));
    PolicySet::from_policies(apply.cloned()).ok()
}

/// Whether two slices hold the same policies under the same ids.
pub(super) fn same(a: &PolicySet, b: &PolicySet) -> bool {
    let ids = |set: &PolicySet| set.policies().count();
    ids(a) == ids(b) && a.policies().all(|policy| b.policy(policy.id()).is_some_and(|other| other == policy))
}

/// Whether a policy's scope leaves room for a kind of request.
fn is_about(policy: &Policy, request: &RequestEnv, actions: &Entities) -> bool {
    let is = |of: &EntityTypeName, asked: &EntityTypeName| of == asked;
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
        PrincipalConstraint::Eq(of) => is(of.type_name(), request.principal()),
        PrincipalConstraint::Is(of) | PrincipalConstraint::IsIn(of, _) => is(&of, request.principal()),
    };
    let resource = match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::In(_) => true,
        ResourceConstraint::Eq(of) => is(of.type_name(), request.resource()),
        ResourceConstraint::Is(of) | ResourceConstraint::IsIn(of, _) => is(&of, request.resource()),
    };
    principal && resource && covers(policy, request, actions)
}

/// Whether a policy's scope names the action of a request, or a group that the action is in.
pub(super) fn covers(policy: &Policy, request: &RequestEnv, actions: &Entities) -> bool {
    let action = request.action();
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(of) => of == *action,
        ActionConstraint::In(of) => of.iter().any(|of| of == action || actions.is_ancestor_of(of, action)),
    }
}
