//! The properties of a set: that nothing fails, that the guards can refuse, that the set keeps each guard.

use std::collections::HashSet;

use cedar_policy::{Effect, PolicySet};

use super::report::Report;
use super::session::{Compiled, NotShown, Session};
use super::slice::covers;
use super::widen::Environment;
use crate::policy::guards::{GUARDS_REFUSE, Guard, NO_ERRORS, of_permits};

/// A set that allows everything: what each guard has to refuse something of.
const EVERYTHING: &str = "permit (principal, action, resource);";

/// Asks everything and puts the answers into the report.
pub(super) fn prove(session: &mut Session<'_>, set: &PolicySet, guards: &[(&Guard, PolicySet)], report: &mut Report) {
    let permits = set.policies().filter(|policy| policy.effect() == Effect::Permit).cloned();
    let (Ok(permits), Ok(everything)) = (PolicySet::from_policies(permits), EVERYTHING.parse::<PolicySet>()) else {
        return report.all_unknown("the policies cannot be separated");
    };
    let mut refuses = HashSet::new();
    let (widened, actions) = (session.widened, session.actions);
    for environment in &widened.environments {
        if let Some(fault) = session.is_over() {
            return report.abandon(fault);
        }
        let compiled = session.compile(set, environment);
        never_errors(session, &compiled, environment, report);
        match with(&compiled, |set| session.denies_all(set, environment)) {
            Ok(()) => report.never.push(environment.name.clone()),
            Err(NotShown::Refuted(_)) => {}
            Err(unknown) => report.not_shown(NO_ERRORS, environment, unknown),
        }
        let about = |text: &PolicySet| text.policies().all(|policy| covers(policy, &environment.request, actions));
        let permits = session.compile(&permits, environment);
        for (guard, text) in guards.iter().filter(|(_, text)| about(text)) {
            let text = session.compile(text, environment);
            never_errors(session, &text, environment, report);
            let mut keeps =
                |set: &Formulas<'_>| with(set, |set| with(&text, |text| session.implies(set, text, environment)));
            report.shown(guard.id, environment, keeps(&compiled));
            if guard.of_permits {
                report.shown(&of_permits(guard.id), environment, keeps(&permits));
            }
            if !refuses.contains(guard.id) {
                let everything = session.compile(&everything, environment);
                match with(&everything, |set| with(&text, |text| session.implies(set, text, environment))) {
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
    if let Some(fault) = session.is_over() {
        return report.abandon(fault);
    }
    for (guard, _) in guards.iter().filter(|(guard, _)| !refuses.contains(guard.id)) {
        report.unknown(GUARDS_REFUSE, guard.id, "the guard refuses nothing: either it or the solver says nothing");
    }
}

type Formulas<'a> = Result<Compiled<'a>, NotShown>;

fn with<'a>(set: &Formulas<'a>, ask: impl FnOnce(&Compiled<'a>) -> Result<(), NotShown>) -> Result<(), NotShown> {
    set.as_ref().map_err(Clone::clone).and_then(ask)
}

fn never_errors(session: &mut Session<'_>, set: &Formulas<'_>, environment: &Environment, report: &mut Report) {
    // One answer for the kind of request: the first policy that can fail is enough, and there are many.
    let answer = with(set, |set| set.policies().try_for_each(|policy| session.never_errors(policy, environment)));
    report.shown(NO_ERRORS, environment, answer);
}
