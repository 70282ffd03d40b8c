//! Proofs about policy sets with a real solver, and with solvers that fail in every way.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod faults;
mod mutants;
mod oracle;
#[path = "../common/solver.rs"]
mod solver;

use std::fmt::Write as _;

use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;
use vault_core::policy::prove::{Limits, Question, Report, SolverCommand, prove};
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA, Source, properties};
use vault_core::proof::ProofText;
use vault_core::time::Timestamp;

fn ask(command: &SolverCommand, policies: &[Source<'_>], active: Option<&[Source<'_>]>) -> Report {
    prove(&Question { schema: BASELINE_SCHEMA, policies, active }, command, Limits::default()).unwrap()
}

fn source(text: &str) -> Source<'_> {
    Source { name: "test.cedar", text }
}

/// The baseline with more policies behind it.
fn ask_with(command: &SolverCommand, more: &str) -> Report {
    ask(command, &[BASELINE_POLICIES, source(more)], None)
}

/// The properties that a counterexample refutes.
fn refuted(report: &Report) -> Vec<&str> {
    let is_refuted = |p: &&vault_core::policy::prove::Property| p.findings.iter().any(|f| f.counterexample.is_some());
    report.properties.iter().filter(is_refuted).map(|p| p.id.as_str()).collect()
}

#[test]
fn the_baseline_is_proven() {
    let Some(command) = solver::solver("the_baseline_is_proven") else { return };
    let report = ask(&command, &[BASELINE_POLICIES], Some(&[BASELINE_POLICIES]));
    assert!(report.is_proven(), "{report}");
    println!("measured: the baseline, {} kinds of requests, proven in {} ms", report.environments.len(), report.millis);
    assert_eq!(report.properties.iter().map(|p| p.id.clone()).collect::<Vec<_>>(), properties());
    // Every type of principal asks for every action.
    for asked in ["Workload, Decrypt, Dataset", "Operator, Decrypt, Dataset", "EndUser, Decrypt, Dataset"] {
        assert!(report.environments.iter().any(|name| name == asked), "{asked}");
    }
    assert!(report.environments.iter().any(|name| name == "EndUser, SuspendTenant, Tenant"));
    let never = |name: &str| report.never.iter().any(|never| never == name);
    assert!(never("Operator, Decrypt, Dataset") && never("EndUser, ListTenants, Instance"));
    assert!(!never("Workload, Decrypt, Dataset") && !never("Operator, ListTenants, Instance"));
    assert!(report.changes.unwrap().iter().all(vault_core::policy::prove::Change::is_unchanged));
}

#[test]
fn an_empty_set_is_proven_and_says_that_it_allows_nothing() {
    let Some(command) = solver::solver("an_empty_set_is_proven_and_says_that_it_allows_nothing") else { return };
    let report = ask(&command, &[], None);
    assert!(report.is_proven(), "{report}");
    assert_eq!(report.never, report.environments);
}

#[test]
fn a_permit_for_an_operator_does_not_hide_behind_a_forbid() {
    let Some(command) = solver::solver("a_permit_for_an_operator_does_not_hide_behind_a_forbid") else { return };
    let planted = r#"@id("planted") permit (principal is Vault::Operator, action in Vault::Action::"Data", resource)
        when { resource has residency && resource.residency == "moon\n\t\u{7f}" };"#;
    let report = ask_with(&command, planted);
    assert!(!report.is_proven());
    assert_eq!(refuted(&report), ["only-workloads-by-permits-alone"]);
    let property = report.properties.iter().find(|p| p.id == "only-workloads-by-permits-alone").unwrap();
    assert_eq!((property.proven, property.findings.len()), (6, 3));
    let example = property.findings[0].counterexample.as_ref().unwrap();
    assert!(example.principal.starts_with("Vault::Operator::"), "{example}");
    assert_eq!(example.policies, ["planted"]);
    // What a report shows can be shown on a terminal.
    let shown = example.entities.values().find_map(|of| of.get("residency")).unwrap();
    assert_eq!(shown, r#""moon\n\t\u{7f}""#);
    assert!(ProofText::of(&report, BASELINE_SCHEMA, &[BASELINE_POLICIES], Timestamp(0)).is_err());
}

#[test]
fn a_policy_that_can_fail_is_found() {
    let Some(command) = solver::solver("a_policy_that_can_fail_is_found") else { return };
    for planted in [
        r#"@id("planted") forbid (principal, action in Vault::Action::"Data", resource)
            when { context.items + 9223372036854775807 < 0 };"#,
        r#"@id("planted") permit (principal is Vault::Workload, action == Vault::Action::"Decrypt", resource)
            when { principal.tenants.contains(resource.tenant) && context.now.offset(duration("1d")) < context.now };"#,
    ] {
        let report = ask_with(&command, planted);
        assert_eq!(refuted(&report), ["no-errors"], "{report}");
        let finding = &report.properties[0].findings[0];
        assert_eq!(finding.counterexample.as_ref().unwrap().policies, ["planted"]);
    }
}

#[test]
fn what_changes_is_shown_with_an_example() {
    let Some(command) = solver::solver("what_changes_is_shown_with_an_example") else { return };
    let more = r#"@id("auditors") permit (principal is Vault::Workload, action == Vault::Action::"Decrypt", resource)
        when { principal.roles.contains("auditor") && principal.tenants.contains(resource.tenant) };"#;
    let wide = [BASELINE_POLICIES, source(more)];
    let narrow = [BASELINE_POLICIES];
    for (proposed, active, is_wider) in [(&wide[..], &narrow[..], true), (&narrow[..], &wide[..], false)] {
        let report = ask(&command, proposed, Some(active));
        assert!(report.is_proven(), "{report}");
        let changes: Vec<_> = report.changes.as_ref().unwrap().iter().filter(|change| !change.is_unchanged()).collect();
        assert_eq!(changes.len(), 1, "{report}");
        assert_eq!(changes[0].environment, "Workload, Decrypt, Dataset");
        assert_eq!((changes[0].widened.is_some(), changes[0].narrowed.is_some()), (is_wider, !is_wider));
        let example = changes[0].widened.iter().chain(&changes[0].narrowed).next().unwrap();
        assert_eq!(example.policies, ["auditors"]);
        let who = example.entities.get(&example.principal).unwrap();
        assert!(who["roles"].contains("\"auditor\""), "{example}");
    }
    // Written otherwise, the same.
    let same = more.replace("principal.roles.contains(\"auditor\") &&", "!(!principal.roles.contains(\"auditor\")) &&");
    let report = ask(&command, &[BASELINE_POLICIES, source(&same)], Some(&wide));
    assert!(report.changes.unwrap().iter().all(vault_core::policy::prove::Change::is_unchanged));
}

#[test]
fn a_report_is_the_same_each_time_and_so_is_its_record() {
    let Some(command) = solver::solver("a_report_is_the_same_each_time_and_so_is_its_record") else { return };
    let planted =
        r#"@id("planted") permit (principal is Vault::Workload, action == Vault::Action::"Encrypt", resource);"#;
    let base = BASELINE_POLICIES.text.replace("never-data-of-other-tenants", "renamed");
    let run = || {
        let mut report = ask(&command, &[source(&base), Source { name: "more", text: planted }], Some(&[]));
        report.millis = 0;
        serde_json::to_string(&report).unwrap()
    };
    assert_eq!(run(), run());
    let record = || {
        let report = ask(&command, &[BASELINE_POLICIES], None);
        ProofText::of(&report, BASELINE_SCHEMA, &[BASELINE_POLICIES], Timestamp(0)).unwrap()
    };
    let record = (record(), record());
    assert_eq!(record.0.text(), record.1.text());
    let dir = tempfile::tempdir().unwrap();
    let signer = LogSigner::create(&OsFs, &dir.path().join("key"), "prover/test").unwrap();
    let note = signer.note(&record.0.text()).unwrap();
    let keys = [signer.verifier().clone()];
    assert_eq!(ProofText::verify(&note, &keys, BASELINE_SCHEMA, &[BASELINE_POLICIES]).unwrap(), record.0);
}

#[test]
fn two_hundred_policies_are_proven() {
    let Some(command) = solver::solver("two_hundred_policies_are_proven") else { return };
    let mut more = String::new();
    for n in 0..180 {
        let action = ["Encrypt", "Decrypt", "Rewrap"][n % 3];
        writeln!(
            more,
            "@id(\"service-{n}\")\npermit (principal is Vault::Workload, action == Vault::Action::\"{action}\", resource)\n\
             when {{ principal.service == \"service-{n}\" && principal.tenants.contains(resource.tenant) && \
             resource == Vault::Dataset::\"acme/data-{n}\" && context.purpose == \"purpose-{}\" }};",
            n % 7
        )
        .unwrap();
    }
    let report = ask_with(&command, &more);
    assert!(report.is_proven(), "{report}");
    println!("measured: {} policies proven in {} ms", 180 + 19, report.millis);
}

#[test]
fn a_set_that_a_gateway_would_not_load_is_refused_before_any_proof() {
    let command = SolverCommand { program: "/nowhere".into(), arguments: Vec::new() };
    let question = Question { schema: BASELINE_SCHEMA, policies: &[source("permit (principal")], active: None };
    assert!(prove(&question, &command, Limits::default()).is_err());
}
