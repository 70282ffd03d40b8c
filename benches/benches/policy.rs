//! Decisions on sets of 10 to 10,000 policies of which ten are about the request: kept, made with the plan at hand, made
//! from nothing, and by Cedar alone on the whole set.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot work must stop")]

use std::collections::{HashMap, HashSet};
use std::hint::black_box;

use cedar_policy::{
    Authorizer as Engine, Context, Decision, Entities, Entity, EntityUid, PolicySet as Whole, Request,
    RestrictedExpression as Value,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vault_benches::policies::{REGISTRY, WORKLOAD, files, sources};
use vault_core::id::{DatasetId, Purpose, RequestId, TenantId};
use vault_core::policy::{Authorizer, BASELINE_SCHEMA, DataRequest, DatasetFacts, Decrypt, Facts, PolicySet, Registry};
use vault_core::principal::{TrustDomain, Workload, WorkloadBundle};
use vault_core::time::{Clock as _, SystemClock};

#[path = "../../vault-core/tests/common/pki.rs"]
mod pki;

const COUNTS: [usize; 4] = [10, 100, 1_000, 10_000];

fn workload() -> Workload {
    let authority = pki::Ca::root("prod.example");
    let domain = TrustDomain::parse("prod.example").unwrap();
    let bundle = WorkloadBundle::new(domain, std::slice::from_ref(&authority.certificate)).unwrap();
    Workload::verify(&authority.leaf(WORKLOAD).chain, &bundle, SystemClock.now()).unwrap()
}

fn request(purpose: &Purpose, items: u32) -> DataRequest {
    DataRequest {
        tenant: TenantId::parse("acme").unwrap(),
        dataset: DatasetId::parse("orders").unwrap(),
        subject: None,
        purpose: purpose.clone(),
        end_user: None,
        request: RequestId([1; 16]),
        items,
    }
}

/// What one writes without this crate: the whole set, entities and context made for the request.
fn naive(set: &Whole, engine: &Engine, now: &str) -> Decision {
    let uid = |text: &str| text.parse::<EntityUid>().unwrap();
    let text = |text: &str| Value::new_string(text.to_owned());
    let tenant = uid("Vault::Tenant::\"acme\"");
    let who = uid(&format!("Vault::Workload::\"{WORKLOAD}\""));
    let dataset = uid("Vault::Dataset::\"acme/orders\"");
    let entity = |uid: &EntityUid, attributes: Vec<(&str, Value)>| {
        let attributes: HashMap<_, _> = attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Entity::new(uid.clone(), attributes, HashSet::new()).unwrap()
    };
    let tenants = [tenant.clone(), uid("Vault::Tenant::\"globex\"")].map(Value::new_entity_uid);
    let data = uid("Vault::Action::\"Data\"");
    let release = uid("Vault::Action::\"Release\"");
    let decrypt = uid("Vault::Action::\"Decrypt\"");
    let within = |uid: &EntityUid, parents: &[&EntityUid]| {
        Entity::new_no_attrs(uid.clone(), parents.iter().map(|parent| (*parent).clone()).collect())
    };
    let entities = [
        entity(&tenant, vec![("suspended", Value::new_bool(false))]),
        entity(
            &who,
            vec![
                ("service", text("billing")),
                ("environment", text("production")),
                ("tenants", Value::new_set(tenants)),
                ("roles", Value::new_set(["reader", "writer"].map(text))),
            ],
        ),
        entity(
            &dataset,
            vec![("tenant", Value::new_entity_uid(tenant.clone())), ("consentRequired", Value::new_bool(false))],
        ),
        within(&decrypt, &[&release]),
        within(&release, &[&data]),
    ];
    let entities = Entities::from_entities(entities, None).unwrap();
    let context = Context::from_pairs([
        ("now".to_owned(), Value::new_datetime(now)),
        ("purpose".to_owned(), text("billing")),
        ("hasSubject".to_owned(), Value::new_bool(false)),
        ("items".to_owned(), Value::new_long(1)),
        ("consent".to_owned(), Value::new_bool(false)),
        ("grantedRoles".to_owned(), Value::new_set([])),
    ])
    .unwrap();
    let request = Request::new(who, decrypt, dataset, context, None).unwrap();
    engine.is_authorized(&request, set, &entities).decision()
}

fn decide(c: &mut Criterion) {
    let (who, now) = (workload(), SystemClock.now());
    let facts = Facts { suspended: false, dataset: Some(DatasetFacts::default()) };
    let billing = Purpose::parse("billing").unwrap();
    let mut group = c.benchmark_group("decide");
    // Only run once, large sets show nothing that small ones do not, and take seconds to load.
    let smoke = std::env::args().any(|argument| argument == "--test");
    for count in COUNTS.into_iter().filter(|count| !smoke || *count <= 100) {
        let files = files(count);
        let load = || PolicySet::load(BASELINE_SCHEMA, &sources(&files)).unwrap();
        let registry = || Registry::parse(REGISTRY, "prod.example").unwrap();
        let ask = |authorizer: &Authorizer, request: DataRequest| {
            authorizer.authorize_data::<Decrypt>(&who, request, Some(&facts), now).is_ok()
        };
        let kept = Authorizer::new(load(), registry());
        assert!(ask(&kept, request(&billing, 1)));
        let asked = request(&billing, 1);
        group.bench_function(BenchmarkId::new("ours_cached", count), |b| {
            b.iter(|| ask(&kept, black_box(asked.clone())));
        });
        // Each call another number of items, which a policy reads: the plan is there, the verdict never.
        let mut items = 0;
        group.bench_function(BenchmarkId::new("ours_new_verdict", count), |b| {
            b.iter(|| {
                items = items % 1_000_000_000 + 1;
                ask(&kept, black_box(request(&billing, items)))
            });
        });
        let nothing = Authorizer::caching(load(), registry(), 0);
        group.bench_function(BenchmarkId::new("ours_uncached", count), |b| {
            b.iter(|| ask(&nothing, black_box(asked.clone())));
        });
        let mut whole = Whole::new();
        let texts: String = files.iter().map(|(_, text)| text.as_str()).collect();
        whole.merge(&texts.parse().unwrap(), true).unwrap();
        let engine = Engine::new();
        assert_eq!(naive(&whole, &engine, "2026-11-24T06:40:00.000Z"), Decision::Allow);
        group.bench_function(BenchmarkId::new("cedar_whole_set", count), |b| {
            b.iter(|| naive(black_box(&whole), &engine, "2026-11-24T06:40:00.000Z"));
        });
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
