//! A policy set is refused with the line's name, or decides as a second evaluator does; and whatever it says, a workload
//! gets nothing of a tenant outside its registry entry, of a suspended one, or of a dataset that is not there. That an
//! operator gets no data at all is a matter of types: no set is asked.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use blindvault_fuzz::policies::{Request, Rule, allows};
use blindvault_fuzz::tokens::{operator, workload};
use libfuzzer_sys::fuzz_target;
use vault_core::Error;
use vault_core::id::{DatasetId, Purpose, RequestId, Subject, TenantId};
use vault_core::policy::{
    Authorizer, BASELINE_SCHEMA, ControlRequest, DataRequest, DatasetFacts, Decrypt, Encrypt, Facts, GetTenant, PolicySet,
    Registry, Source, SuspendTenant, diagnose,
};
use vault_core::principal::{Operator, Workload};
use vault_core::time::Timestamp;

const REGISTRY: &str = "[[workload]]\nid = \"spiffe://prod.example/shop\"\nservice = \"shop\"\nenvironment = \"test\"\n\
                        tenants = [\"acme\"]\nroles = [\"writer\"]\n";
static WHO: LazyLock<(Workload, Operator)> = LazyLock::new(|| (workload("/shop"), operator("alice")));

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    Rules { rules: Vec<Rule>, has_subject: bool, items: u8, support: bool },
}

fn load(text: &str) -> Option<PolicySet> {
    let source = Source { name: "p.cedar", text };
    match PolicySet::load(BASELINE_SCHEMA, &[source]) {
        Ok(set) => Some(set),
        Err(Error::Invalid { field, .. }) => {
            assert!(field.starts_with("p.cedar line ") || field == "policies", "{field}");
            assert!(!diagnose(BASELINE_SCHEMA, &[source]).is_empty(), "refused, and nothing is wrong with it");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn data(tenant: &str, request: &Request) -> DataRequest {
    DataRequest {
        tenant: TenantId::parse(tenant).unwrap(),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: request.has_subject.then(|| Subject::parse("mia").unwrap()),
        purpose: Purpose::parse(request.purpose).unwrap(),
        end_user: None,
        request: RequestId([0; 16]),
        items: request.items,
    }
}

fuzz_target!(|input: Input<'_>| {
    let (rules, has_subject, items, support) = match input {
        Input::Text(text) => return drop(load(text)),
        Input::Rules { rules, has_subject, items, support } => (rules, has_subject, items, support),
    };
    let rules = &rules[..rules.len().min(6)];
    let text: String = rules.iter().enumerate().map(|(id, rule)| rule.text(id)).collect();
    let Some(set) = load(&text) else { return };
    let authorizer = Authorizer::new(set, Registry::parse(REGISTRY, "prod.example").unwrap());
    let (shop, alice) = &*WHO;
    let now = Timestamp(1_907_755_200_000);
    let purpose = if support { "support" } else { "billing" };
    let request = |action, is_data| Request { action, is_data, has_subject, items: items.into(), purpose };
    let (encrypt, decrypt) = (request("Encrypt", true), request("Decrypt", true));
    let there = Facts { suspended: false, dataset: Some(DatasetFacts::default()) };
    let suspended = Facts { suspended: true, ..there.clone() };
    let empty = Facts::default();
    for (tenant, facts, may) in [
        ("acme", Some(&there), true),
        ("globex", Some(&there), false),
        ("acme", Some(&suspended), false),
        ("acme", Some(&empty), false),
        ("acme", None, false),
    ] {
        let found = authorizer.authorize_data::<Encrypt>(shop, data(tenant, &encrypt), facts, now);
        assert_eq!(found.is_ok(), may && allows(rules, &encrypt), "{text}");
        let found = authorizer.authorize_data::<Decrypt>(shop, data(tenant, &decrypt), facts, now);
        assert_eq!(found.is_ok(), may && allows(rules, &decrypt), "{text}");
    }
    let control = || ControlRequest {
        tenant: Some(TenantId::parse("acme").unwrap()),
        dataset: None,
        subject: None,
        reason: None,
        custody: None,
        request: RequestId([0; 16]),
    };
    let found = authorizer.authorize_control::<GetTenant>(alice, control(), now);
    assert_eq!(found.is_ok(), allows(rules, &request("GetTenant", false)), "{text}");
    let found = authorizer.authorize_control::<SuspendTenant>(alice, control(), now);
    assert_eq!(found.is_ok(), allows(rules, &request("SuspendTenant", false)), "{text}");
});
