//! What a policy set must be to be loaded.

use super::*;

const PERMIT: &str = "@id(\"p\") permit (principal, action, resource);";

fn refusal(policies: &str) -> (String, &'static str) {
    match load(policies).unwrap_err() {
        Error::Invalid { field, why } => (field, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_baseline_loads_and_knows_its_ids() {
    let set = PolicySet::baseline().unwrap();
    assert_eq!(
        set.ids(),
        [
            "end-user-consents",
            "end-user-withdraws-and-lists",
            "never-consent-for-people-of-others",
            "never-consent-without-mfa",
            "never-control-for-workloads",
            "never-data-for-people",
            "never-data-of-other-tenants",
            "never-data-of-suspended-tenants",
            "never-release-confidential-without-end-user",
            "never-release-restricted-without-fresh-mfa",
            "never-release-without-consent",
            "operator-approve",
            "operator-audit",
            "operator-by-two",
            "operator-manage",
            "operator-policy",
            "operator-read",
            "workload-decrypt",
            "workload-encrypt",
            "workload-rewrap"
        ]
    );
}

#[test]
fn errors_name_the_file_and_the_line() {
    let half = &BASELINE_POLICIES.text[..BASELINE_POLICIES.text.len() / 2];
    let (field, why) = refusal(half);
    assert!(field.starts_with("test.cedar line "), "{field}");
    assert!(why.contains("complete"), "{why}");

    let line = |policies: &str| refusal(policies).0;
    assert_eq!(line(&format!("{PERMIT}\n// two\npermit (principal action, resource);")), "test.cedar line 3");
    assert_eq!(line(&format!("{PERMIT}\n\npermit (principal, action, resource);")), "test.cedar line 3");
    assert_eq!(line(&format!("{PERMIT}\n{PERMIT}")), "test.cedar line 2");
    assert_eq!(line("@id(\"A\") permit (principal, action, resource);"), "test.cedar line 1");
    assert_eq!(line("@id(\"\") permit (principal, action, resource);"), "test.cedar line 1");
    assert_eq!(
        line(&format!("{PERMIT}\n@id(\"q\")\nforbid (principal, action, resource) when {{ principal.rolls == 1 }};")),
        "test.cedar line 2 policy q"
    );
    let broken = Source { name: "schema", text: "namespace Vault {\n  entity Tenant = { a: };\n}" };
    let Err(Error::Invalid { field, .. }) = PolicySet::load(broken, &[]) else { panic!("must be refused") };
    assert_eq!(field, "schema line 2");
}

#[test]
fn many_policies_keep_their_own_lines() {
    let mut text = String::new();
    for n in 0..12 {
        let condition = if n == 10 { "principal.nothing" } else { "true" };
        text += &format!("@id(\"p{n}\")\npermit (principal, action, resource) when {{ {condition} }};\n\n");
    }
    assert_eq!(refusal(&text).0, "test.cedar line 31 policy p10");
}

#[test]
fn what_would_be_silently_skipped_is_refused() {
    let forbid = |condition: &str| {
        refusal(&format!("@id(\"f\") forbid (principal, action in Vault::Action::\"Data\", resource) {condition};")).1
    };
    assert!(forbid("when { resource.classification == \"pii\" }").contains("`has` first"));
    assert!(forbid("when { resource.owner == \"x\" }").contains("does not have"));
    assert!(forbid("when { principal == Vault::Human::\"x\" }").contains("entity type"));
    assert!(forbid("when { context.items == \"1\" }").contains("types do not fit"));
    // The tenant `other` is no part of the request: `has` on it would be false whatever its state.
    let other = "Vault::Tenant::\"other\"";
    assert!(forbid(&format!("when {{ {other} has suspended && {other}.suspended }}")).contains("bring along"));
    // Never true, and a tenant with a Cyrillic letter.
    assert!(forbid("when { principal is Vault::Tenant }").contains("never apply"));
    assert!(forbid("when { resource.tenant == Vault::Tenant::\"аcme\" }").contains("look like others"));
    assert!(refusal("@id(\"t\") permit (principal == ?principal, action, resource);").1.contains("templates"));
    let unknown = "@id(\"u\") permit (principal, action == Vault::Action::\"Peek\", resource);";
    assert!(refusal(unknown).1.contains("action"));
}

#[test]
fn deep_long_and_many_are_refused_without_a_crash() {
    let permit = |condition: String| format!("@id(\"p\") permit (principal, action, resource) when {{ {condition} }};");
    let deep = permit(format!("{}true{}", "(".repeat(5000), ")".repeat(5000)));
    assert!(refusal(&deep).1.contains("deeply"));
    assert!(refusal(&permit("if true then true else ".repeat(100) + "true")).1.contains("deeply"));
    assert!(refusal(&permit("true && ".repeat(2000) + "true")).1.contains("complex"));
    assert!(load(&permit("!".repeat(3000) + "true")).is_err());
    let half = "permit (principal, action, resource);\n".repeat(5_000);
    let more = format!("{half}\npermit (principal, action, resource);");
    let files = [&half, &more].map(|text| Source { name: "many.cedar", text });
    let Err(Error::Invalid { field, why }) = PolicySet::load(BASELINE_SCHEMA, &files) else {
        panic!("must be refused")
    };
    assert_eq!((&*field, why), ("many.cedar line 5002", "more than 10,000 policies"));
    // The largest that pass the bounds must do so on a thread's ordinary stack.
    let is = "principal is Vault::Workload";
    let wide = format!("{is} && ").repeat(22) + is;
    let nested = format!("{}{is}{}", "(".repeat(15), ")".repeat(15));
    let ifs = format!("if {is} then true else ").repeat(15) + "principal is Vault::Operator";
    let both = format!("({is} && ").repeat(15) + is + &")".repeat(15);
    for condition in [wide, nested, ifs, both] {
        let set = set(&permit(condition));
        let authorizer = Authorizer::new(set, registry(REGISTRY));
        assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_ok());
    }
}

#[test]
fn a_schema_of_other_shapes_is_refused() {
    let with = |from: &str, to: &str| {
        let text = BASELINE_SCHEMA.text.replace(from, to);
        assert!(text != BASELINE_SCHEMA.text, "{from}");
        PolicySet::load(Source { name: "schema", text: &text }, &[])
    };
    for (from, to) in [
        ("suspended?: Bool", "suspended: Bool"),
        ("suspended?: Bool", "suspended?: String"),
        ("tenants: Set<Tenant>", "tenants: Set<String>"),
        ("roles: Set<String>,", "roles: Set<String>, team: String,"),
        ("        purpose: String,\n", ""),
        ("items: Long", "items: String"),
        ("custody?: { kind: String, roots: Set<String> }", "custody: { kind: String, roots: Set<String> }"),
        ("custody?: { kind: String, roots: Set<String> }", "custody?: { kind: String, roots: Set<Long> }"),
        ("        custody?: { kind: String, roots: Set<String> },\n", ""),
        ("Encrypt, Rewrap in [Data]", "Encrypt in [Data]"),
        ("Encrypt, Rewrap in [Data]", "Encrypt, Rewrap in [Control]"),
        ("Encrypt, Rewrap in [Data]", "Encrypt, Rewrap in [Data, Control]"),
        ("Encrypt, Rewrap in [Data]", "Encrypt, Rewrap in [Release]"),
        ("Decrypt in [Release]", "Decrypt in [Data]"),
        ("action Release in [Data];", "action Release;"),
        ("WithdrawConsent, ListConsents in [Consent]", "WithdrawConsent, ListConsents in [Data]"),
        ("consentRequired?: Bool", "consentRequired: Bool"),
        ("endUser?: EndUserClaims", "endUser: EndUserClaims"),
        ("acr?: String", "acr: String"),
        ("authAge?: Long", "authAge?: datetime"),
        ("        grantedRoles: Set<String>,\n", ""),
        ("action CreateDataset, GetDataset", "action CreateDataset"),
        ("action CreateDataset, GetDataset in [Control]", "action CreateDataset, GetDataset"),
        ("resource: Instance", "resource: [Workload]"),
        ("entity Instance;", ""),
    ] {
        assert!(with(from, to).is_err(), "{from} → {to} must be refused");
    }
    assert!(with("// Groups:", "// groups:").is_ok());
}
