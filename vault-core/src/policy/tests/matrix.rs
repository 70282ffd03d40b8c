//! Every action × every kind of principal × whose tenant × its state, as a table that is checked in.
//!
//! `VAULT_TEST_UPDATE=1 cargo test -p vault-core policy::tests::matrix` writes the table anew; review the difference.

use std::fmt::Write as _;

use ::cedar_policy::{Entities, Request, Schema};

use super::*;
use crate::policy::action::{CONTROL_ACTIONS, DATA_ACTIONS};
use crate::policy::entities;
use crate::policy::registry::Description;
use crate::principal::Operator;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/policy_matrix.txt");
const HEAD: &str = "\
# Every decision of the baseline policies. Made by the test policy::tests::matrix.
#
# Part 1: the authorizer. Workloads by the roles of their registry entry (`-` no role; `unlisted` in no entry), asking
# for a tenant of their entry or another, which is active, suspended or absent, and a dataset that is there or not.
# An operator asking for a data action, or a workload for a control action, does not compile.
# Part 2: the policies alone, without any guard in front of them, for every type of principal and every action.
";
const ROLES: [&str; 5] = ["writer", "reader", "rewrapper", "writer+reader+rewrapper", "-"];

fn name(role: &str) -> String {
    format!("spiffe://prod.example/{}", role.replace('+', "-and-").replace('-', "_"))
}

fn roles(role: &str) -> Vec<&str> {
    role.split('+').filter(|r| *r != "-").collect()
}

fn table_registry() -> Registry {
    let text: String = ROLES
        .iter()
        .map(|role| {
            format!(
                "[[workload]]\nid = {:?}\nservice = \"s\"\nenvironment = \"e\"\ntenants = [\"own\"]\nroles = {:?}\n",
                name(role),
                roles(role)
            )
        })
        .collect();
    registry(&text)
}

fn show<A: Action>(result: Result<Permit<A>, Refusal>) -> String {
    match result {
        Ok(permit) => format!("allow  {}", permit.decision().policies.join(" ")),
        Err(refusal) => {
            let (check, policies) = (refusal.check.name(), refusal.decision.policies.join(" "));
            format!("deny   {check}: {} {policies}", refusal.reason).trim_end().to_owned()
        }
    }
}

fn data_rows<A: DataAction>(authorizer: &Authorizer, out: &mut String) {
    for role in ROLES.into_iter().chain(["unlisted"]) {
        let who = Workload::for_test(&name(role));
        for tenant in ["own", "foreign"] {
            for (state, suspended) in [("active", Some(false)), ("suspended", Some(true)), ("absent", None)] {
                for (dataset, present) in [("dataset", true), ("no-dataset", false)] {
                    let dataset_facts = present.then(DatasetFacts::default);
                    let facts = suspended.map(|suspended| Facts { suspended, dataset: dataset_facts });
                    let result = show(authorizer.authorize_data::<A>(&who, ask(tenant), facts.as_ref(), NOW));
                    let action = A::NAME;
                    writeln!(out, "{action:<15} {role:<24} {tenant:<8} {state:<10} {dataset:<11} {result}").unwrap();
                }
            }
        }
    }
}

fn control_rows<A: ControlAction>(authorizer: &Authorizer, out: &mut String) {
    let tenant = TenantId::parse("own").unwrap();
    let dataset = DatasetId::parse("orders").unwrap();
    for (about, tenant, dataset) in
        [("vault", None, None), ("tenant", Some(&tenant), None), ("dataset", Some(&tenant), Some(&dataset))]
    {
        let request = ControlRequest {
            tenant: tenant.cloned(),
            dataset: dataset.cloned(),
            subject: None,
            reason: None,
            custody: None,
            request: RequestId([0; 16]),
        };
        let result = show(authorizer.authorize_control::<A>(&Operator::for_test(ALICE), request, NOW));
        writeln!(out, "{:<15} {:<24} {about:<31} {result}", A::NAME, "operator").unwrap();
    }
}

/// The policy texts and the engine, put together without the code under test.
fn engine_rows(out: &mut String) {
    let schema = Schema::from_cedarschema_str(BASELINE_SCHEMA.text).unwrap().0;
    let all: ::cedar_policy::PolicySet = BASELINE_POLICIES.text.parse().unwrap();
    let (own, foreign) = (TenantId::parse("own").unwrap(), TenantId::parse("foreign").unwrap());
    let orders = DatasetId::parse("orders").unwrap();
    let description = Description {
        service: "s".into(),
        environment: "e".into(),
        roles: ["writer", "reader", "rewrapper"].map(str::to_owned).into(),
    };
    let workload = entities::workload(&name("w"), &description, [&own]).unwrap();
    let operator = entities::operator(ALICE).unwrap();
    for action in DATA_ACTIONS.iter().chain(CONTROL_ACTIONS) {
        let data = DATA_ACTIONS.contains(action);
        for (who, principal) in [("workload", &workload), ("operator", &operator)] {
            for tenant in [&own, &foreign] {
                for (state, suspended) in [("active", Some(false)), ("suspended", Some(true)), ("unknown", None)] {
                    let facts = suspended.map(|suspended| Facts { suspended, dataset: None });
                    let mut rows = vec![
                        ("vault", entities::instance().unwrap()),
                        ("dataset", entities::dataset(tenant, &orders, None).unwrap()),
                    ];
                    let tenant_entity = entities::tenant(tenant, facts.as_ref()).unwrap();
                    rows.push(("tenant", tenant_entity.clone()));
                    for (kind, resource) in rows {
                        let context = if data {
                            entities::data_context(NOW, &Purpose::parse("billing").unwrap(), false, 1)
                        } else {
                            entities::control_context(NOW, None)
                        };
                        let asked = Request::new(
                            principal.uid(),
                            entities::action(action),
                            resource.uid(),
                            context.unwrap(),
                            Some(&schema),
                        );
                        let Ok(request) = asked else { continue };
                        let known = [principal.clone(), tenant_entity.clone()];
                        let known = known.into_iter().chain((kind != "tenant").then_some(resource));
                        let known = Entities::from_entities(known, Some(&schema)).unwrap();
                        let response = ::cedar_policy::Authorizer::new().is_authorized(&request, &all, &known);
                        assert_eq!(response.diagnostics().errors().count(), 0);
                        let mut ids: Vec<_> =
                            response.diagnostics().reason().map(|id| all.annotation(id, "id").unwrap()).collect();
                        ids.sort_unstable();
                        let decision = match response.decision() {
                            ::cedar_policy::Decision::Allow => "allow",
                            ::cedar_policy::Decision::Deny => "deny",
                        };
                        let row = format!("{action:<15} {who:<9} {tenant:<8} {state:<10} {kind:<8} {decision:<6} ");
                        writeln!(out, "{}", (row + &ids.join(" ")).trim_end()).unwrap();
                    }
                }
            }
        }
    }
}

fn table() -> String {
    let authorizer = Authorizer::new(PolicySet::baseline().unwrap(), table_registry());
    let mut out = HEAD.to_owned() + "\n## Part 1\n";
    data_rows::<Encrypt>(&authorizer, &mut out);
    data_rows::<Decrypt>(&authorizer, &mut out);
    data_rows::<Rewrap>(&authorizer, &mut out);
    control_rows::<CreateTenant>(&authorizer, &mut out);
    control_rows::<GetTenant>(&authorizer, &mut out);
    control_rows::<ListTenants>(&authorizer, &mut out);
    control_rows::<SuspendTenant>(&authorizer, &mut out);
    control_rows::<ResumeTenant>(&authorizer, &mut out);
    control_rows::<RotateTenantKey>(&authorizer, &mut out);
    control_rows::<RotateDataKeys>(&authorizer, &mut out);
    control_rows::<CreateDataset>(&authorizer, &mut out);
    control_rows::<GetDataset>(&authorizer, &mut out);
    control_rows::<ListDatasets>(&authorizer, &mut out);
    control_rows::<ShredSubject>(&authorizer, &mut out);
    control_rows::<ShredTenant>(&authorizer, &mut out);
    control_rows::<ListApprovals>(&authorizer, &mut out);
    control_rows::<Approve>(&authorizer, &mut out);
    control_rows::<Reject>(&authorizer, &mut out);
    control_rows::<GetApproval>(&authorizer, &mut out);
    control_rows::<ValidatePolicy>(&authorizer, &mut out);
    control_rows::<ProposePolicy>(&authorizer, &mut out);
    control_rows::<ActivatePolicy>(&authorizer, &mut out);
    control_rows::<GetPolicy>(&authorizer, &mut out);
    control_rows::<ListPolicies>(&authorizer, &mut out);
    for action in DATA_ACTIONS.iter().chain(CONTROL_ACTIONS) {
        assert!(out.contains(&format!("\n{action:<15} ")), "{action} is not in the table");
    }
    out += "\n## Part 2\n";
    engine_rows(&mut out);
    out
}

#[test]
fn the_table_is_as_checked_in() {
    let now = table();
    if std::env::var_os("VAULT_TEST_UPDATE").is_some() {
        std::fs::write(TABLE, &now).unwrap();
    }
    let checked_in = std::fs::read_to_string(TABLE).unwrap();
    for (n, (was, is)) in checked_in.lines().zip(now.lines()).enumerate() {
        assert_eq!(was, is, "line {}", n + 1);
    }
    assert_eq!(checked_in.len(), now.len());
}

/// What must be true of any table, however it was updated.
#[test]
fn no_row_lets_the_wrong_one_through() {
    let table = table();
    let (first, second) = table.split_once("## Part 2").unwrap();
    let allowed = |part: &str| part.lines().filter(|l| l.contains(" allow ")).map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (allowed(first), allowed(second));
    assert_eq!(first.len(), 6 + 25, "two workloads for each data action; each control action; four on two kinds");
    for row in first.iter().filter(|row| DATA_ACTIONS.iter().any(|a| row.starts_with(a))) {
        for part in ["own ", "active ", " dataset "] {
            assert!(row.contains(part), "{row}");
        }
        assert!(!row.contains("operator"), "{row}");
    }
    for row in second {
        let data = DATA_ACTIONS.iter().any(|a| row.starts_with(a));
        assert_eq!(data, row.contains(" workload "), "{row}");
        assert!(!data || (row.contains(" own ") && row.contains(" active ")), "{row}");
    }
}
