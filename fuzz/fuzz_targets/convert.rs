//! A message becomes the library's types exactly as it says, or an error that names a field of the API; what was converted
//! is shown as it was asked for; nothing panics.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use vault_core::Error;
use vault_core::id::TenantId;
use vault_grpc::convert::{self, consent, custody, policy};
use vault_proto::{Timestamp, v1};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    wire: &'a [u8],
    names: [String; 4],
    subject: Option<String>,
    pairs: std::collections::HashMap<String, String>,
    roots: Vec<String>,
    seconds: i64,
    nanos: i32,
    number: i32,
    version: u64,
}

/// The value, if it was converted; else its field must be one that the API has.
fn named<T>(result: Result<T, Error>, fields: &[&str]) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Invalid { field, why }) => {
            // Of a list's item the name is that of the list, with its number in brackets.
            let plain: String = field.chars().filter(|c| !c.is_ascii_digit()).collect();
            let known = fields.contains(&field.as_str()) || fields.contains(&plain.as_str());
            assert!(known && !why.is_empty(), "{field}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

const CUSTODY: &[&str] = &[
    "custody", "custody.root_key_id", "custody.split.inner_root_key_id", "custody.split.outer_root_key_id",
    "custody.split", "custody.replicated", "custody.replicated.root_key_ids", "custody.replicated.root_key_ids[]", "root_key_id",
];

fn custodies(message: &v1::Custody) {
    if let Some(found) = named(custody::parse(message), CUSTODY) {
        assert_eq!(custody::show(&found), *message);
    }
}

fn consents(request: &v1::GrantConsentRequest) {
    let fields = ["datasets[]", "purposes[]", "all_datasets", "start_time", "end_time"];
    if let Some(new) = named(consent::new_consent(request), &fields) {
        assert!(new.purposes.iter().map(|purpose| purpose.as_str()).eq(&request.purposes));
    }
}

fn orders(order: &v1::GrantOrder) {
    let fields = ["order", "order.dataset", "order.end_time"];
    if let Some(found) = named(consent::order(&TenantId::parse("acme").unwrap(), Some(order)), &fields) {
        let shown = consent::grant_order(&found);
        let order = v1::GrantOrder { end_time: None, ..order.clone() };
        assert_eq!(v1::GrantOrder { end_time: None, ..shown }, order);
    }
}

fuzz_target!(|input: Input<'_>| {
    let [tenant, dataset, purpose, other] = &input.names;
    let target = convert::target(tenant, dataset, input.subject.as_deref(), purpose);
    if let Some(found) = named(target, &["tenant", "dataset", "subject", "purpose"]) {
        assert_eq!((found.tenant.as_str(), found.dataset.as_str(), found.purpose.as_str()), (&**tenant, &**dataset, &**purpose));
        assert_eq!(found.subject.as_ref().map(|subject| subject.as_str()), input.subject.as_deref());
        assert!(!tenant.is_empty() && tenant.len() <= 63 && input.subject.as_ref().is_none_or(|s| (1..=256).contains(&s.len())));
    }
    drop(named(convert::context(&input.pairs), &["context"]));
    let at = Timestamp { seconds: input.seconds, nanos: input.nanos };
    if let Some(Some(found)) = named(convert::instant("at", Some(&at)), &["at"]) {
        assert_eq!(i128::from(found.0), i128::from(at.seconds) * 1000 + i128::from(at.nanos / 1_000_000));
    }
    if let Some(reason) = named(convert::reason(other), &["reason"]) {
        assert_eq!(reason.map_or(String::new(), |reason| reason.as_str().to_owned()), *other);
    }
    if let Some(Some(revision)) = named(convert::revision(other), &["etag"]) {
        assert_eq!(other.parse(), Ok(revision));
    }
    let property = named(convert::property("residency", other), &["residency"]);
    assert!(property.is_none_or(|found| found.unwrap_or_default() == *other));
    assert!(named(convert::page_size(input.number), &["page_size"]).is_none_or(|size| (1..=1000).contains(&size)));
    drop(named(convert::page_token(other, TenantId::parse), &["page_token"]));
    drop(named(policy::reference(input.version, other), &["version", "sha256"]));
    drop(named(policy::version(other), &["page_token"]));
    // Messages as they come from the wire, and put together.
    v1::Custody::decode(input.wire).iter().for_each(custodies);
    v1::GrantConsentRequest::decode(input.wire).iter().for_each(consents);
    v1::GrantOrder::decode(input.wire).iter().for_each(orders);
    use v1::custody::Kind;
    let replicated = v1::ReplicatedCustody { root_key_ids: input.roots };
    let split = v1::SplitCustody { inner_root_key_id: tenant.clone(), outer_root_key_id: dataset.clone() };
    for kind in [Kind::RootKeyId(other.clone()), Kind::Split(split), Kind::Replicated(replicated)] {
        let message = v1::Custody { kind: Some(kind) };
        custodies(&message);
        drop(named(custody::of_new(other, Some(&message)), CUSTODY));
    }
    orders(&v1::GrantOrder {
        dataset: dataset.clone(),
        workload: other.clone(),
        roles: vec![purpose.clone()],
        end_time: Some(at),
    });
});
