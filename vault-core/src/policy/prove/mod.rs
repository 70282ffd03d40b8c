//! Proofs about policy sets, for all requests at once: what `policy prove` does before a set is activated.
//!
//! The schema is widened so that every type of principal may request every action (`widen`). For each kind of request
//! that it then knows, Cedar's symbolic compiler turns the set and the guards ([`super::GUARDS`]) into formulas, and an
//! SMT solver looks for a request that the set allows and a guard refuses (`session`). If there is none, every
//! well-typed request with all the entities that it refers to is covered. If there is one, it is asked again of the code
//! that decides in a gateway (`example`), so what a report shows is what would happen.
//!
//! Nothing is taken for proven that was not: a solver that is missing, slow, killed or unsure, or whose counterexample
//! the authorizer does not confirm, makes the report say so, and [`Report::is_proven`] false.
//!
//! A proof is about the policies. That a request brings its entities along, that an evaluation error denies, and the
//! guards in Rust are the authorizer's, see [`super::Authorizer`].

mod changes;
mod example;
mod properties;
mod report;
mod session;
mod slice;
mod solver;
mod widen;

use std::collections::HashMap;
use std::time::Instant;

use cedar_policy::PolicySet as Policies;

pub use changes::Change;
pub use example::Counterexample;
pub use report::{Finding, Property, Report};
pub use solver::{Limits, SolverCommand};

use super::cedar::{self, PolicySet, Source};
use super::guards::GUARDS;
use crate::error::Error;
use session::Session;
use solver::Solver;
use widen::widen;

/// What a proof is about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The schema that a gateway loads.
    pub schema: Source<'a>,
    /// The policies to be activated.
    pub policies: &'a [Source<'a>],
    /// The policies that are active, to be compared with; `None` compares with nothing.
    pub active: Option<&'a [Source<'a>]>,
}

/// Proves what can be proved of a policy set, and says what cannot. Blocks for as long as [`Limits::total`] allows.
///
/// # Errors
/// [`Error::Invalid`] as [`PolicySet::load`] has it, for a set that a gateway would not load. Everything else that goes
/// wrong stands in the report.
pub fn prove(question: &Question<'_>, solver: &SolverCommand, limits: Limits) -> Result<Report, Error> {
    let begun = Instant::now();
    PolicySet::load(question.schema, question.policies)?;
    let policies = read(question.policies)?;
    let widened = widen(question.schema)?;
    let guards = GUARDS.iter().map(|guard| Ok((guard, read(&[guard.source])?))).collect::<Result<Vec<_>, Error>>()?;
    let active = match question.active {
        Some(active) => {
            PolicySet::load(question.schema, active)?;
            Some(read(active)?)
        }
        None => None,
    };
    let mut report = Report::new(&widened);
    match Solver::start(solver, limits) {
        Ok(solver) => {
            solver.version().clone_into(&mut report.solver);
            let actions = widened.schema.action_entities().ok();
            match actions.as_ref().and_then(|actions| Session::new(solver, &widened, actions)) {
                Some(mut session) => {
                    properties::prove(&mut session, &policies, &guards, &mut report);
                    report.changes = active.map(|active| changes::compare(&mut session, &active, &policies));
                }
                None => report.all_unknown("the solver cannot be used"),
            }
        }
        Err(fault) => report.all_unknown(fault.0),
    }
    report.millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// The policies of files as one set, each under its `@id`.
fn read(sources: &[Source<'_>]) -> Result<Policies, Error> {
    let (mut set, mut origins) = (Policies::new(), HashMap::new());
    for source in sources {
        cedar::parse(*source, &mut set, &mut origins)?;
    }
    Ok(set)
}
