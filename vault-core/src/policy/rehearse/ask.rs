//! Asks the authorizer for the action that a name means.

use super::file::Scene;
use super::{Outcome, TYPES};
use crate::error::Error;
use crate::id::RequestId;
use crate::policy::action::*;
use crate::policy::request::{ConsentRequest, ControlRequest, DataRequest};
use crate::policy::{Authorizer, Permit, Refusal};
use crate::principal::{Operator, Workload};

const OPERATOR_ASKS: &str = "an operator cannot ask for it: only a workload can";
const WORKLOAD_ASKS: &str = "a workload cannot ask for it: only an operator can";
const REQUEST: RequestId = RequestId([0; 16]);

/// What the authorizer says to a request.
///
/// # Errors
/// [`Error::Invalid`] naming the key that the action needs and the request has not, or an action that there is none of.
pub fn ask(authorizer: &Authorizer, scene: &Scene) -> Result<Outcome, Error> {
    macro_rules! by_name {
        ($($world:ident: $($name:ident)+;)+) => {
            match scene.action.as_str() {
                $($(<$name as Action>::NAME => $world::<$name>(authorizer, scene),)+)+
                _ => Err(missing(scene, "action", "there is no such action")),
            }
        };
    }
    by_name! {
        data: Encrypt Decrypt Rewrap;
        consent: GrantConsent WithdrawConsent ListConsents;
        control: CreateTenant GetTenant ListTenants SuspendTenant ResumeTenant RotateTenantKey RotateDataKeys
            CreateDataset GetDataset ListDatasets ShredSubject ShredTenant ListApprovals Approve Reject CancelApproval
            GetApproval RequestGrant RevokeGrant ListGrants ValidatePolicy ProposePolicy ActivatePolicy GetPolicy
            ListPolicies GetCharter ProposeCharter GetScorecard;
    }
}

/// Whether the principal is an operator: as in a gateway, the first segment of its path says so.
pub(super) fn is_operator(scene: &Scene) -> bool {
    scene.principal.segments().next().is_some_and(|first| first.eq_ignore_ascii_case("operator"))
}

pub(super) fn missing(scene: &Scene, key: &str, why: &'static str) -> Error {
    Error::invalid(format!("line {}, {key}", scene.line), why)
}

fn data<A: DataAction>(authorizer: &Authorizer, scene: &Scene) -> Result<Outcome, Error> {
    if is_operator(scene) {
        return Ok(refused_by_types(OPERATOR_ASKS));
    }
    let need = |key| missing(scene, key, "a data action needs tenant, dataset and purpose");
    let request = DataRequest {
        tenant: scene.tenant.clone().ok_or_else(|| need("tenant"))?,
        dataset: scene.dataset.clone().ok_or_else(|| need("dataset"))?,
        subject: scene.subject.clone(),
        purpose: scene.purpose.clone().ok_or_else(|| need("purpose"))?,
        end_user: scene.end_user.clone(),
        request: REQUEST,
        items: scene.items,
    };
    let who = Workload::for_rehearsal(scene.principal.clone());
    Ok(outcome(authorizer.authorize_data::<A>(&who, request, scene.facts.as_ref(), scene.at)))
}

fn consent<A: ConsentAction>(authorizer: &Authorizer, scene: &Scene) -> Result<Outcome, Error> {
    if is_operator(scene) {
        return Ok(refused_by_types(OPERATOR_ASKS));
    }
    let need = |key| missing(scene, key, "an action on consents needs tenant and end_user");
    let request = ConsentRequest {
        tenant: scene.tenant.clone().ok_or_else(|| need("tenant"))?,
        end_user: scene.end_user.clone().ok_or_else(|| need("end_user"))?,
        request: REQUEST,
    };
    let who = Workload::for_rehearsal(scene.principal.clone());
    Ok(outcome(authorizer.authorize_consent::<A>(&who, request, scene.at)))
}

fn control<A: ControlAction>(authorizer: &Authorizer, scene: &Scene) -> Result<Outcome, Error> {
    if !is_operator(scene) {
        return Ok(refused_by_types(WORKLOAD_ASKS));
    }
    let request = ControlRequest {
        tenant: scene.tenant.clone(),
        dataset: scene.dataset.clone(),
        subject: scene.subject.clone(),
        reason: None,
        custody: scene.custody.clone(),
        request: REQUEST,
    };
    let who = Operator::for_rehearsal(scene.principal.clone(), scene.roles.clone());
    Ok(outcome(authorizer.authorize_control::<A>(&who, request, scene.at)))
}

const fn refused_by_types(reason: &'static str) -> Outcome {
    Outcome { allowed: false, check: Some(TYPES), reason: Some(reason), policies: Vec::new() }
}

/// The permit ends here.
fn outcome<A: Action>(decided: Result<Permit<A>, Refusal>) -> Outcome {
    match decided {
        Ok(permit) => {
            Outcome { allowed: true, check: None, reason: None, policies: permit.decision().policies.clone() }
        }
        Err(refusal) => Outcome {
            allowed: false,
            check: Some(refusal.check.name()),
            reason: Some(refusal.reason),
            policies: refusal.decision.policies,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rehearse::Scenes;
    use crate::policy::{PolicySet, Registry};

    #[test]
    fn every_action_can_be_asked_for() {
        let authorizer = Authorizer::new(PolicySet::baseline().unwrap(), Registry::empty());
        for (actions, checks) in [
            (DATA_ACTIONS, ["registry", "types"]),
            (CONSENT_ACTIONS, ["registry", "types"]),
            (CONTROL_ACTIONS, ["types", "policy"]),
        ] {
            for action in actions {
                for (who, check) in ["prod.example/a", "operators.example/operator/alice"].into_iter().zip(checks) {
                    let text = format!(
                        "workload_domain = \"prod.example\"\npolicies = []\n[[test]]\nname = \"a\"\naction = \"{action}\"\n\
                         principal = \"spiffe://{who}\"\ntenant = \"acme\"\ndataset = \"orders\"\npurpose = \"billing\"\n\
                         end_user = {{ subject = \"ann\", tenant = \"acme\" }}\n"
                    );
                    let scenes = Scenes::parse("t", &text).unwrap();
                    let outcome = ask(&authorizer, &scenes.scenes[0]).unwrap();
                    // An operator may be allowed: which is no less an answer.
                    assert!(outcome.allowed || outcome.check == Some(check), "{action} {who}: {outcome}");
                }
            }
        }
    }
}
