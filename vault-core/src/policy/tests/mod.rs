//! Tests that need whole decisions.

mod decisions;
mod diagnose;
mod differential;
mod end_users;
mod load;
mod matrix;
mod naive;
mod refusals;
mod registry;
mod swap;

use super::*;
use crate::Error;
use crate::id::{ConsentId, DatasetId, GrantId, Purpose, RequestId, TenantId};
use crate::principal::Workload;
use crate::time::Timestamp;

/// 2026-11-24T06:40:00Z.
const NOW: Timestamp = Timestamp(1_795_502_400_000);
const BILLING: &str = "spiffe://prod.example/ns/shop/sa/billing";
const ALICE: &str = "spiffe://operators.example/operator/alice";
const REGISTRY: &str = include_str!("../../../../policies/registry.toml");

fn registry(text: &str) -> Registry {
    Registry::parse(text, "prod.example").unwrap()
}

fn set(policies: &str) -> PolicySet {
    load(policies).unwrap()
}

fn load(policies: &str) -> Result<PolicySet, Error> {
    PolicySet::load(BASELINE_SCHEMA, &[Source { name: "test.cedar", text: policies }])
}

fn baseline() -> Authorizer {
    Authorizer::new(PolicySet::baseline().unwrap(), registry(REGISTRY))
}

fn ask(tenant: &str) -> DataRequest {
    DataRequest {
        tenant: TenantId::parse(tenant).unwrap(),
        dataset: DatasetId::parse("orders").unwrap(),
        subject: None,
        purpose: Purpose::parse("billing").unwrap(),
        end_user: None,
        request: RequestId([7; 16]),
        items: 1,
    }
}

fn facts() -> Facts {
    Facts { suspended: false, dataset: Some(DatasetFacts::default()) }
}

fn data<A: DataAction>(authorizer: &Authorizer, spiffe_id: &str, request: DataRequest) -> Result<Permit<A>, Refusal> {
    authorizer.authorize_data(&Workload::for_test(spiffe_id), request, Some(&facts()), NOW)
}
