//! A workload registry is refused with the line's name, or its entries are disjoint and each workload reaches exactly the
//! tenants that a plain reader of the patterns finds; no entry can be an operator's.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use blindvault_fuzz::change::pick;
use blindvault_fuzz::tokens::workload;
use libfuzzer_sys::fuzz_target;
use vault_core::Error;
use vault_core::id::TenantId;
use vault_core::policy::{Authorizer, BASELINE_SCHEMA, PolicySet, Registry};
use vault_core::principal::Workload;

const SEGMENTS: [&str; 8] = ["a", "b", "acme", "globex", "*", "{tenant}", "operator", "A"];
const TENANTS: [&str; 3] = ["acme", "globex", "a"];
const PATHS: [&str; 8] = ["/a", "/acme", "/a/b", "/b/acme", "/a/globex/b", "/a/a", "/A/acme", "/globex/b/a"];
static WHO: LazyLock<Vec<(&str, Workload)>> = LazyLock::new(|| PATHS.map(|path| (path, workload(path))).into());

/// No policy: what a registry lists does not depend on any.
static AUTHORIZER: LazyLock<Authorizer> =
    LazyLock::new(|| Authorizer::new(PolicySet::load(BASELINE_SCHEMA, &[]).unwrap(), Registry::empty()));

#[derive(Debug, Arbitrary)]
struct Entry {
    path: Vec<u8>,
    tenants: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    Entries(Vec<Entry>),
}

type Read = (Vec<&'static str>, Vec<&'static str>);

impl Entry {
    fn read(&self) -> Read {
        let tenants: Vec<_> = self.tenants.iter().take(3).map(|tenant| pick(&TENANTS, *tenant)).collect();
        (self.path.iter().take(4).map(|segment| pick(&SEGMENTS, *segment)).collect(), tenants)
    }
}

fn text((path, tenants): &Read) -> String {
    let id = format!("spiffe://prod.example/{}", path.join("/"));
    let listed = if tenants.is_empty() { String::new() } else { format!("tenants = {tenants:?}\n") };
    format!("[[workload]]\nid = \"{id}\"\nservice = \"s\"\nenvironment = \"e\"\n{listed}roles = []\n")
}

fn is_wild(segment: &str) -> bool {
    segment == "*" || segment == "{tenant}"
}

fn is_good((path, tenants): &Read) -> bool {
    let binds = path.iter().filter(|segment| **segment == "{tenant}").count();
    let mut unique = tenants.clone();
    unique.sort_unstable();
    unique.dedup();
    path.first().is_some_and(|first| *first != "operator") && binds + usize::from(!tenants.is_empty()) == 1
        && unique.len() == tenants.len()
}

fn overlap((one, _): &Read, (two, _): &Read) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(a, b)| a == b || is_wild(a) || is_wild(b))
}

fn lists((pattern, tenants): &Read, path: &str, tenant: &str) -> bool {
    let path: Vec<_> = path.split('/').skip(1).collect();
    let matches = pattern.len() == path.len() && pattern.iter().zip(&path).all(|(a, b)| a == b || is_wild(a));
    let bound = pattern.iter().position(|segment| *segment == "{tenant}").map(|at| path.get(at) == Some(&tenant));
    matches && bound.unwrap_or_else(|| tenants.contains(&tenant))
}

fn parse(text: &str) -> Option<Registry> {
    match Registry::parse(text, "prod.example") {
        Ok(registry) => Some(registry),
        Err(Error::Invalid { field, .. }) => {
            assert!(field.starts_with("registry line"), "{field}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fuzz_target!(|input: Input<'_>| {
    let entries = match input {
        Input::Text(text) => return drop(parse(text)),
        Input::Entries(entries) => entries,
    };
    let entries: Vec<_> = entries.iter().take(5).map(Entry::read).collect();
    let disjoint = entries.iter().enumerate().all(|(at, one)| !entries[..at].iter().any(|other| overlap(one, other)));
    let registry = parse(&entries.iter().map(text).collect::<String>());
    assert_eq!(registry.is_some(), disjoint && entries.iter().all(is_good));
    let Some(registry) = registry else { return };
    assert_eq!(registry.len(), entries.len());
    AUTHORIZER.swap_registry(registry);
    for (path, who) in WHO.iter() {
        for tenant in TENANTS {
            let expected = entries.iter().any(|entry| lists(entry, path, tenant));
            assert_eq!(AUTHORIZER.lists(who, &TenantId::parse(tenant).unwrap()), expected, "{path} {tenant}");
        }
    }
});
