//! What a registry must be, and whom it lets through.

use super::*;

const ENTRY: &str = "[[workload]]\nid = \"spiffe://prod.example/a\"\nservice = \"s\"\nenvironment = \"e\"\n\
                     tenants = [\"acme\"]\nroles = [\"reader\"]\n";

fn refusal(text: &str) -> (String, &'static str) {
    match Registry::parse(text, "prod.example").unwrap_err() {
        Error::Invalid { field, why } => (field, why),
        other => panic!("{other:?}"),
    }
}

fn changed(from: &str, to: &str) -> String {
    let text = ENTRY.replace(from, to);
    assert_ne!(text, ENTRY, "{from}");
    text
}

#[test]
fn errors_name_the_line_and_the_key() {
    for (from, to, field, part) in [
        ("service =", "servise =", "registry line 3", "unknown key"),
        ("service = \"s\"\n", "", "registry line 1", "missing"),
        ("\"e\"", "7", "registry line 4", "wrong type"),
        ("[\"acme\"]", "\"acme\"", "registry line 5", "wrong type"),
        ("\"acme\"]", "\"acme\"", "registry line 6", "not valid TOML"),
        ("\"s\"", "\"S\"", "registry line 3, service", "must match"),
        ("\"e\"", "\"\"", "registry line 4, environment", "must match"),
        ("\"reader\"", "\"reader\", \"reader\"", "registry line 6, roles", "twice"),
        ("\"acme\"", "\n\"acme\",\n\"acme\"", "registry line 7, tenants", "twice"),
        ("\"acme\"", "\"*\"", "registry line 5, tenants", "keys to the kingdom"),
        ("\"acme\"", "\"Acme\"", "registry line 5, tenants", "must match"),
        ("\"acme\"", "", "registry line 5, tenants", "at least one"),
        ("tenants = [\"acme\"]\n", "", "registry line 2, tenants", "missing"),
        ("example/a", "example/{tenant}", "registry line 5, tenants", "absent"),
        ("prod.example", "operators.example", "registry line 2, id", "trust domain"),
        ("example/a", "example/operator/a", "registry line 2, id", "operator"),
        ("[[workload]]", "[[workloads]]", "registry line 1", "unknown key"),
    ] {
        let (got, why) = refusal(&changed(from, to));
        assert_eq!(got, field, "{from} → {to}: {why}");
        assert!(why.contains(part), "{from} → {to}: {why}");
    }
}

#[test]
fn overlapping_entries_name_both_lines() {
    let (field, why) = refusal(&format!("{ENTRY}\n{}", changed("example/a", "example/*")));
    assert_eq!(field, "registry lines 2 and 9, id");
    assert!(why.contains("same SPIFFE ID"));
}

#[test]
fn bounds_hold() {
    let tenants: Vec<_> = (0..1001).map(|n| format!("\"t{n}\"")).collect();
    assert!(refusal(&changed("\"acme\"", &tenants.join(","))).1.contains("too many"));
    assert!(Registry::parse(&changed("\"acme\"", &tenants[..1000].join(",")), "prod.example").is_ok());
    assert!(refusal(&" ".repeat(MAX_REGISTRY + 1)).1.contains("4 MiB"));
    assert!(Registry::parse(ENTRY, "").is_err());
    assert!(Registry::parse(ENTRY, "prod.example/").is_err());
    let deep = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Registry::parse(&deep, "prod.example").is_err());
}

#[test]
fn an_empty_registry_is_valid_and_the_shipped_one_loads() {
    assert!(registry("").is_empty());
    assert_eq!(registry(REGISTRY).len(), 4);
    assert!(registry("").find(BILLING).is_none());
}

#[test]
fn a_bound_tenant_is_the_segment_and_no_other() {
    let authorizer = baseline();
    let desk = |tenant: &str| format!("spiffe://prod.example/tenant/{tenant}/region/eu-1/sa/support-desk");
    assert_eq!(
        data::<Decrypt>(&authorizer, &desk("acme"), ask("acme")).unwrap().decision().policies,
        ["workload-decrypt"]
    );
    assert!(data::<Decrypt>(&authorizer, &desk("acme"), ask("globex")).is_err());
    assert!(data::<Encrypt>(&authorizer, &desk("acme"), ask("acme")).is_err());
    // What is no tenant binds nothing, and is not repaired.
    for odd in ["Acme", "ACME", ".acme", "acme/region"] {
        assert!(data::<Decrypt>(&authorizer, &desk(odd), ask("acme")).is_err(), "{odd:?}");
    }
    // These no certificate's identity can be; the registry does not rely on it.
    for odd in ["", "ac me", "acme%20", "\u{430}cme"] {
        assert!(registry(REGISTRY).find(&desk(odd)).is_none(), "{odd:?}");
    }
}

#[test]
fn an_entry_with_a_star_lists_its_tenants_for_each_match() {
    let text = changed("example/a", "example/jobs/*");
    let authorizer = Authorizer::new(PolicySet::baseline().unwrap(), registry(&text));
    for job in ["x", "y"] {
        let id = format!("spiffe://prod.example/jobs/{job}");
        assert!(data::<Decrypt>(&authorizer, &id, ask("acme")).is_ok());
        assert!(data::<Decrypt>(&authorizer, &id, ask("globex")).is_err());
    }
    assert!(data::<Decrypt>(&authorizer, "spiffe://prod.example/jobs/x/y", ask("acme")).is_err());
}
