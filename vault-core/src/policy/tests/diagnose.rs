//! What `policy check` says is wrong: where the loader refuses, and only there.

use super::*;
use crate::policy::{Diagnostic, diagnose};

fn of(policies: &str) -> Vec<Diagnostic> {
    diagnose(BASELINE_SCHEMA, &[Source { name: "test.cedar", text: policies }])
}

fn places(found: &[Diagnostic]) -> Vec<(usize, usize)> {
    found.iter().map(|fault| (fault.line, fault.column)).collect()
}

#[test]
fn nothing_is_wrong_exactly_where_the_loader_takes_it() {
    let permit = "permit (principal is Vault::Workload, action == Vault::Action::\"Decrypt\", resource)";
    let deep = format!("@id(\"a\") {permit} when {{ {}true{} }};", "(".repeat(40), ")".repeat(40));
    for (text, place) in [
        (BASELINE_POLICIES.text, None),
        ("", None),
        ("@id(\"a\") permit (principal", Some((1, 27))),
        (&format!("\n{permit};"), Some((2, 1))),
        (&format!("@id(\"A\") {permit};"), Some((1, 1))),
        (&format!("@id(\"a\") {permit};\n@id(\"a\") {permit};"), Some((2, 1))),
        (&deep, Some((1, 116))),
        ("@id(\"a\") permit (principal == ?principal, action, resource);", Some((1, 1))),
        ("@id(\"a\")\npermit (principal is Vault::Person, action, resource);", Some((2, 22))),
        ("@id(\"a\")\npermit (principal, action == Vault::Action::\"Peek\", resource);", Some((2, 30))),
        (&format!("@id(\"a\")\n{permit}\nwhen {{ principal.tenant == resource }};"), Some((3, 8))),
        (&format!("@id(\"a\")\n{permit}\nwhen {{ resource.residency == \"eu\" }};"), Some((3, 8))),
        (&format!("@id(\"a\")\n{permit}\nwhen {{ context.items == \"1\" }};"), Some((3, 8))),
        (&format!("@id(\"a\")\n{permit}\nwhen {{ Vault::Tenant::\"acme\".suspended }};"), Some((3, 8))),
        (&format!("@id(\"a\")\n{permit}\nwhen {{ false }};"), Some((1, 1))),
    ] {
        let found = of(text);
        assert_eq!(found.is_empty(), load(text).is_ok(), "{text}\n{found:?}");
        assert_eq!(places(&found).first().copied(), place, "{text}\n{found:?}");
        assert!(
            found.iter().all(|fault| fault.file == "test.cedar" && !fault.what.is_empty() && !fault.fix.is_empty())
        );
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "@id(\"a\") permit (principal is Vault::Workload, action == Vault::Action::\"Decrypt\", resource)\n\
        when { resource.residency == \"eu\" };\n\
        @id(\"b\") permit (principal is Vault::Workload, action == Vault::Action::\"Decrypt\", resource)\n\
        when { principal.ä };";
    let two = [Source { name: "one.cedar", text }, Source { name: "two.cedar", text: "permit (" }];
    let found = diagnose(Source { name: "s", text: "namespace {" }, &two);
    // Without a schema nothing can be said of types.
    assert_eq!(found.iter().map(|fault| fault.file.as_str()).collect::<Vec<_>>(), ["one.cedar", "s", "two.cedar"]);
    let text = text.replace('ä', "tenant");
    let found = of(&text);
    assert_eq!(found.iter().map(|fault| fault.policy.as_deref()).collect::<Vec<_>>(), [Some("a"), Some("b")]);
    assert_eq!(places(&found), [(2, 8), (4, 8)]);
}

#[test]
fn a_column_counts_characters() {
    let text = "@id(\"a\") permit (principal is Vault::Workload, action in Vault::Action::\"Data\", resource) \
        when { context.purpose != \"äöü\" && resource.residency == \"eu\" };";
    let bytes = text.find("resource.residency").unwrap();
    assert_eq!(places(&of(text)), [(1, bytes - 3 + 1)]);
}
