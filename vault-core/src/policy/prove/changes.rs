//! What a set changes against the active one, for each kind of request.

use cedar_policy::PolicySet;
use serde::Serialize;

use super::example::Counterexample;
use super::session::{NotShown, Session};
use super::widen::Environment;

/// What changes for one kind of request. Neither example means that nothing does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// For example `Workload, Decrypt, Dataset`.
    pub environment: String,
    /// A request that the proposed set allows and the active one does not.
    pub widened: Option<Counterexample>,
    /// A request that the active set allows and the proposed one does not.
    pub narrowed: Option<Counterexample>,
    /// Why it is not known what changes.
    pub unknown: Option<&'static str>,
}

impl Change {
    /// Whether the two sets allow the same.
    pub const fn is_unchanged(&self) -> bool {
        self.widened.is_none() && self.narrowed.is_none() && self.unknown.is_none()
    }
}

/// Compares two sets for each kind of request.
pub(super) fn compare(session: &mut Session<'_>, active: &PolicySet, proposed: &PolicySet) -> Vec<Change> {
    let widened = session.widened;
    widened.environments.iter().map(|environment| change(session, active, proposed, environment)).collect()
}

fn change(session: &mut Session<'_>, active: &PolicySet, proposed: &PolicySet, environment: &Environment) -> Change {
    let mut change = Change { environment: environment.name.clone(), widened: None, narrowed: None, unknown: None };
    if let Some(why) = session.is_over() {
        return unknown(change, &NotShown::Unknown(why));
    }
    let both = session.compile(active, environment).and_then(|a| Ok((a, session.compile(proposed, environment)?)));
    let (active, proposed) = match both {
        Ok(both) => both,
        Err(why) => return unknown(change, &why),
    };
    match session.equivalent(&active, &proposed) {
        Ok(true) => return change,
        Ok(false) => {}
        Err(why) => return unknown(change, &why),
    }
    for (of, by, example) in [(&proposed, &active, &mut change.widened), (&active, &proposed, &mut change.narrowed)] {
        match session.implies(of, by, environment) {
            Ok(()) => {}
            Err(NotShown::Refuted(found)) => *example = Some(*found),
            Err(NotShown::Unknown(why)) => change.unknown = Some(why),
        }
    }
    if change.is_unchanged() {
        change.unknown = Some("the solver says that the sets differ, and that neither allows more than the other");
    }
    change
}

fn unknown(mut change: Change, why: &NotShown) -> Change {
    change.unknown = Some(match why {
        NotShown::Unknown(why) => why,
        NotShown::Refuted(_) => "the sets cannot be compared",
    });
    change
}
