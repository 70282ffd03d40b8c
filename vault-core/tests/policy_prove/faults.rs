//! Solvers that fail: none of them proves anything, and none outlives the proof.
//!
//! These are fakes, for faults that a real solver does not have on demand.

use std::path::Path;
use std::time::{Duration, Instant};

use vault_core::policy::prove::{Finding, Limits, Question, Report, SolverCommand, prove};
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA};

const SHORT: Limits =
    Limits { memory: 512 * 1024 * 1024, query: Duration::from_millis(200), total: Duration::from_secs(10) };

/// A solver as a shell script that gets each line of its input as `$line`; `$$` is its process.
fn script(body: &str) -> SolverCommand {
    let text = format!("while read -r line; do case \"$line\" in {body} esac; done");
    SolverCommand { program: "/bin/sh".into(), arguments: vec!["-c".into(), text.into(), "solver".into()] }
}

fn run(command: &SolverCommand) -> Report {
    let begun = Instant::now();
    let question = Question { schema: BASELINE_SCHEMA, policies: &[BASELINE_POLICIES], active: None };
    let report = prove(&question, command, SHORT).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(!report.is_proven(), "{report}");
    report
}

fn findings(report: &Report) -> impl Iterator<Item = &Finding> {
    report.properties.iter().flat_map(|property| &property.findings)
}

/// The one reason of all that is unknown.
fn why(report: &Report) -> &'static str {
    let mut reasons: Vec<_> = findings(report).filter_map(|finding| finding.unknown).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "{report}");
    assert!(findings(report).all(|finding| finding.counterexample.is_none()), "{report}");
    reasons[0]
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

const VERSION: &str = r#""(get-info :version)") echo "(:version \"$$\")";;"#;

#[test]
fn one_that_is_missing_proves_nothing() {
    let report = run(&SolverCommand { program: "/nowhere/cvc5".into(), arguments: Vec::new() });
    assert!(why(&report).contains("cannot be started"));
    assert!(report.solver.is_empty());
    assert!(report.properties.iter().all(|property| !property.holds()));
}

#[test]
fn one_that_ends_at_once_proves_nothing() {
    let report = run(&SolverCommand { program: "/bin/true".into(), arguments: Vec::new() });
    assert!(why(&report).contains("ended"));
}

#[test]
fn one_that_is_killed_in_between_proves_nothing() {
    let report = run(&script(&format!("{VERSION} '(check-sat)') kill -9 $$;;")));
    assert!(why(&report).contains("ended"));
}

#[test]
fn one_that_never_answers_is_killed() {
    // It starts another process that does not answer either; both are gone afterwards.
    let report = run(&script(&format!("{VERSION} '(check-sat)') sleep 600;;")));
    assert!(why(&report).contains("in time"));
    let pid = report.solver.strip_prefix("cvc5 ").unwrap();
    assert!(!is_alive(pid), "{pid}");
}

#[test]
fn one_that_says_no_version_proves_nothing() {
    assert!(why(&run(&script("x) echo;;"))).contains("in time"));
    assert!(why(&run(&script(r#"*) echo "(:version \"a b\")";;"#))).contains("no answer"));
}

#[test]
fn a_proof_ends_in_time_whatever_the_solver_does() {
    // Each answer comes in time for a query, all together do not.
    let command = script(&format!("{VERSION} '(check-sat)') sleep 0.5; echo unknown;;"));
    let limits = Limits { total: Duration::from_secs(3), ..SHORT };
    let question = Question { schema: BASELINE_SCHEMA, policies: &[BASELINE_POLICIES], active: None };
    let report = prove(&question, &command, limits).unwrap();
    assert!(!report.is_proven());
    assert!(findings(&report).all(|finding| finding.unknown.is_some_and(|why| why.contains("time"))));
}

#[test]
fn one_that_is_unsure_proves_nothing() {
    let report = run(&script(&format!("{VERSION} '(check-sat)') echo unknown;;")));
    assert!(findings(&report).any(|finding| finding.unknown == Some("the solver does not know within its time")));
    assert!(findings(&report).all(|finding| finding.counterexample.is_none()));
}

#[test]
fn one_that_always_agrees_is_found_out() {
    let report = run(&script(&format!("{VERSION} '(check-sat)') echo unsat;;")));
    println!("measured: a proof with a solver that takes no time: {} ms", report.millis);
    let property = report.properties.iter().find(|property| property.id == "guards-refuse").unwrap();
    let of: Vec<_> = property.findings.iter().map(|finding| finding.environment.as_str()).collect();
    assert!(of.contains(&"active-tenants") && of.contains(&"own-tenants"), "{report}");
}

#[test]
fn one_with_invented_counterexamples_refutes_nothing_and_proves_nothing() {
    for model in ["printf '(\\n)\\n'", "printf '(\\n(define-fun x () Int 4)\\n)\\n'", "echo '(error \"no model\")'"] {
        let report = run(&script(&format!("{VERSION} '(check-sat)') echo sat;; '(get-model)') {model};;")));
        assert!(findings(&report).any(|finding| finding.unknown.is_some()), "{report}");
    }
}

#[test]
fn one_that_talks_too_much_proves_nothing() {
    assert!(why(&run(&script(&format!("{VERSION} '(check-sat)') cat /dev/zero;;")))).contains("ended"));
    assert!(why(&run(&script(&format!("{VERSION} '(check-sat)') yes;;")))).contains("no answer"));
    let endless = format!("{VERSION} '(check-sat)') echo sat;; '(get-model)') echo '('; yes;;");
    assert!(!why(&run(&script(&endless))).is_empty());
}

#[test]
fn one_is_held_to_its_memory_and_sees_no_environment() {
    // The limit is told by the solver itself, in the place of its version: `ulimit -v` counts in KiB.
    let report =
        run(&script(r#""(get-info :version)") echo "(:version \"$(ulimit -v)-$(ulimit -f)-$(env | wc -l)\")";;"#));
    let told: Vec<_> = report.solver.strip_prefix("cvc5 ").unwrap().split('-').collect();
    assert_eq!(told[..2], ["524288", "0"]);
    // PATH, LC_ALL, one of Python's, and what the shell adds.
    assert!(told[2].parse::<usize>().unwrap() <= 6, "{told:?}");
}
