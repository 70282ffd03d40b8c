//! The properties of a set: that nothing fails, that the guards can refuse, that the set keeps each guard.

use std::collections::HashSet;

use cedar_policy::{ActionConstraint, Effect, Entities, Policy, PolicySet};

use super::report::Report;
use super::session::{NotShown, Session};
use super::widen::Environment;
use crate::policy::guards::{GUARDS_REFUSE, Guard, NO_ERRORS, of_permits};

/// A set that allows everything: what each guard has to refuse something of.
const EVERYTHING: &str = "permit (principal, action, resource);";

/// Asks everything and puts the answers into the report.
pub(super) fn prove(session: &mut Session<'_>, set: &PolicySet, guards: &[(&Guard, PolicySet)], report: &mut Report) {
    let Ok(actions) = session.widened.schema.action_entities() else {
        return report.all_unknown("the schema's actions cannot be listed");
    };
    let permits = set.policies().filter(|policy| policy.effect() == Effect::Permit).cloned();
    let (Ok(permits), Ok(everything)) = (PolicySet::from_policies(permits), EVERYTHING.parse::<PolicySet>()) else {
        return report.all_unknown("the policies cannot be separated");
    };
    let mut refuses = HashSet::new();
    let widened = session.widened;
    for environment in &widened.environments {
        never_errors(session, set.policies(), environment, report);
        let about = |guard: &PolicySet| guard.policies().all(|policy| covers(policy, environment, &actions));
        let compiled = session.compile(set, environment);
        let permits = session.compile(&permits, environment);
        let everything = session.compile(&everything, environment);
        match compiled.as_ref().map_err(Clone::clone).and_then(|set| session.denies_all(set, environment)) {
            Ok(()) => report.never.push(environment.name.clone()),
            Err(NotShown::Refuted(_)) => {}
            Err(unknown) => report.not_shown(NO_ERRORS, environment, unknown),
        }
        for (guard, text) in guards.iter().filter(|(_, text)| about(text)) {
            never_errors(session, text.policies(), environment, report);
            let text = session.compile(text, environment);
            let mut keeps = |property: &str, set| match (set, &text) {
                (Ok(set), Ok(text)) => report.shown(property, environment, session.implies(set, text, environment)),
                (Err(why), _) | (_, Err(why)) => report.not_shown(property, environment, NotShown::clone(why)),
            };
            keeps(guard.id, compiled.as_ref());
            if guard.of_permits {
                keeps(&of_permits(guard.id), permits.as_ref());
            }
            if !refuses.contains(guard.id)
                && let (Ok(everything), Ok(text)) = (&everything, &text)
            {
                match session.implies(everything, text, environment) {
                    Ok(()) => {}
                    Err(NotShown::Refuted(_)) => {
                        refuses.insert(guard.id);
                        report.shown(GUARDS_REFUSE, environment, Ok(()));
                    }
                    Err(unknown) => report.not_shown(GUARDS_REFUSE, environment, unknown),
                }
            }
        }
    }
    for (guard, _) in guards.iter().filter(|(guard, _)| !refuses.contains(guard.id)) {
        report.unknown(GUARDS_REFUSE, guard.id, "the guard refuses nothing: either it or the solver says nothing");
    }
}

fn never_errors<'p>(
    session: &mut Session<'_>,
    policies: impl Iterator<Item = &'p Policy>,
    environment: &Environment,
    report: &mut Report,
) {
    // One answer for the environment: the first policy that can fail is enough, and there are many.
    let answer = policies.into_iter().try_for_each(|policy| session.never_errors(policy, environment));
    report.shown(NO_ERRORS, environment, answer);
}

/// Whether a guard is about the kind of request: its scope names the action, or a group that the action is in.
fn covers(guard: &Policy, environment: &Environment, actions: &Entities) -> bool {
    let action = environment.request.action();
    match guard.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(of) => of == *action,
        ActionConstraint::In(of) => of.iter().any(|of| of == action || actions.is_ancestor_of(of, action)),
    }
}
