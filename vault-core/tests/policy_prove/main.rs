//! Proofs about policy sets with a real solver.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "../common/solver.rs"]
mod solver;

use vault_core::policy::prove::{Limits, Question, Report, SolverCommand, prove};
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA, Source};

fn ask(command: &SolverCommand, policies: &[Source<'_>], active: Option<&[Source<'_>]>) -> Report {
    prove(&Question { schema: BASELINE_SCHEMA, policies, active }, command, Limits::default()).unwrap()
}

#[test]
fn the_baseline_is_proven() {
    let Some(command) = solver::solver("the_baseline_is_proven") else { return };
    let report = ask(&command, &[BASELINE_POLICIES], Some(&[BASELINE_POLICIES]));
    println!("{report}");
    assert!(report.is_proven(), "{report}");
}
