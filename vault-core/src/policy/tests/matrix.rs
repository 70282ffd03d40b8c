//! Every action × every kind of principal × whose tenant × its state, as a table that is checked in.
//!
//! `VAULT_TEST_UPDATE=1 cargo test -p vault-core policy::tests::matrix` writes the table anew; review the difference.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use ::cedar_policy::{Entities, Request, Schema};

use super::*;
use crate::policy::action::{CONSENT_ACTIONS, CONTROL_ACTIONS, DATA_ACTIONS, HISTORY_ACTIONS};
use crate::policy::entities::{self, Asked};
use crate::policy::registry::Description;
use crate::principal::{EndUser, Operator, Role};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/policy_matrix.txt");
const HEAD: &str = "\
# Every decision of the baseline policies. Made by the test policy::tests::matrix.
#
# Part 1: the authorizer. Workloads by the roles of their registry entry (`-` no role; `unlisted` in no entry), asking
# for a tenant of their entry or another, which is active, suspended or absent, and a dataset that is there or not. Then
# the same for datasets that demand more, by the end user whom the workload asks for (`mfa`: with a second factor;
# `fresh`: a short time ago; `other`: of another tenant; `expired`), and whether a consent covers the purpose.
# An operator asking for a data action or one on consents, or a workload for a control action, does not compile.
# Operators by the one role that the list of operators gives them (`-` none; `unlisted` in no list).
# Part 2: the policies alone, without any guard in front of them, for every type of principal and every action.
";
const ROLES: [&str; 7] = ["writer", "reader", "rewrapper", "consent", "access-log", "writer+reader+rewrapper", "-"];
/// The workload of part 2 has all of them.
const ALL_ROLES: [&str; 5] = ["writer", "reader", "rewrapper", "consent", "access-log"];

const ALL: &[&str] = &["approver", "auditor", "author", "custodian", "viewer"];
/// Which roles of operators are for which control action: whatever the baseline says, and no more.
const ROLES_OF: &[(&str, &[&str])] = &[
    ("GetTenant", ALL),
    ("ListTenants", ALL),
    ("GetDataset", ALL),
    ("ListDatasets", ALL),
    ("ListApprovals", ALL),
    ("ListGrants", ALL),
    ("GetApproval", ALL),
    ("GetPolicy", ALL),
    ("ListPolicies", ALL),
    ("GetCharter", ALL),
    ("GetScorecard", &["auditor", "viewer"]),
    ("CreateTenant", &["custodian"]),
    ("SuspendTenant", &["custodian"]),
    ("ResumeTenant", &["custodian"]),
    ("RotateTenantKey", &["custodian"]),
    ("RotateDataKeys", &["custodian"]),
    ("CreateDataset", &["custodian"]),
    ("RevokeGrant", &["custodian"]),
    ("ShredSubject", &["custodian"]),
    ("ShredTenant", &["custodian"]),
    ("RequestGrant", &["custodian"]),
    ("Approve", &["approver"]),
    ("Reject", &["approver"]),
    ("CancelApproval", &["approver", "author", "custodian"]),
    ("ValidatePolicy", &["author"]),
    ("ProposePolicy", &["author"]),
    ("ActivatePolicy", &["author"]),
    ("ProposeCharter", &["author"]),
    ("GetCheckpoint", &["auditor"]),
    ("ListEntries", &["auditor"]),
    ("GetInclusionProof", &["auditor"]),
    ("GetConsistencyProof", &["auditor"]),
];

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

/// End users by what their token proves.
fn end_users() -> Vec<(&'static str, Option<Arc<EndUser>>)> {
    let user = |tenant, fresh_until| Arc::new(EndUser::for_test("ann", tenant, fresh_until));
    let expired = EndUser::for_test("ann", "own", Some(NOW.plus_millis(1_000))).ending(NOW);
    vec![
        ("none", None),
        ("user", Some(user("own", None))),
        ("mfa", Some(user("own", Some(NOW)))),
        ("fresh", Some(user("own", Some(NOW.plus_millis(1))))),
        ("other", Some(user("foreign", Some(NOW.plus_millis(1))))),
        ("expired", Some(Arc::new(expired))),
    ]
}

fn consents(state: &str) -> Arc<[ConsentFacts]> {
    let consent = |purpose: &str, from: u64, until: Option<Timestamp>| ConsentFacts {
        id: ConsentId([1; 16]),
        purposes: vec![Purpose::parse(purpose).unwrap()],
        from: Timestamp(from),
        until,
    };
    match state {
        "given" => [consent("billing", NOW.0, Some(NOW.plus_millis(1)))].into(),
        "other-purpose" => [consent("marketing", 0, None)].into(),
        "ended" => [consent("billing", 0, Some(NOW))].into(),
        "to-come" => [consent("billing", NOW.0 + 1, None)].into(),
        _ => Arc::new([]),
    }
}

/// Datasets that demand more.
fn demanding_rows<A: DataAction>(authorizer: &Authorizer, out: &mut String) {
    let who = Workload::for_test(&name("writer+reader+rewrapper"));
    for classification in ["public", "confidential", "restricted"] {
        for (user, end_user) in end_users() {
            for consent in ["not-needed", "none", "given", "other-purpose", "ended", "to-come"] {
                let dataset = DatasetFacts {
                    classification: Some(classification.to_owned()),
                    consent_required: consent != "not-needed",
                    consents: consents(consent),
                    ..DatasetFacts::default()
                };
                let facts = Facts { suspended: false, dataset: Some(dataset) };
                let request = DataRequest { end_user: end_user.clone(), ..ask("own") };
                let result = show(authorizer.authorize_data::<A>(&who, request, Some(&facts), NOW));
                let action = A::NAME;
                writeln!(out, "{action:<15} {classification:<24} {user:<8} {consent:<22} {result}").unwrap();
            }
        }
    }
}

fn consent_rows<A: ConsentAction>(authorizer: &Authorizer, out: &mut String) {
    for role in ROLES.into_iter().chain(["unlisted"]) {
        let who = Workload::for_test(&name(role));
        for tenant in ["own", "foreign"] {
            for (user, end_user) in end_users() {
                let Some(end_user) = end_user else { continue };
                let tenant_id = TenantId::parse(tenant).unwrap();
                let request = ConsentRequest { tenant: tenant_id, end_user, request: RequestId([0; 16]) };
                let result = show(authorizer.authorize_consent::<A>(&who, request, NOW));
                writeln!(out, "{:<15} {role:<24} {tenant:<8} {user:<22} {result}", A::NAME).unwrap();
            }
        }
    }
}

fn history_rows<A: HistoryAction>(authorizer: &Authorizer, out: &mut String) {
    for role in ROLES.into_iter().chain(["unlisted"]) {
        let who = Workload::for_test(&name(role));
        for tenant in ["own", "foreign"] {
            for (user, end_user) in end_users() {
                let tenant_id = TenantId::parse(tenant).unwrap();
                let request =
                    HistoryRequest { tenant: tenant_id, end_user, subject: None, request: RequestId([0; 16]) };
                let result = show(authorizer.authorize_history::<A>(&who, request, NOW));
                writeln!(out, "{:<15} {role:<24} {tenant:<8} {user:<22} {result}", A::NAME).unwrap();
            }
        }
    }
}

/// Operators by the one role that they have; one with none, and one in no list.
fn operators() -> Vec<(String, Operator)> {
    let one = |role: Role| (format!("operator:{role}"), Operator::for_test_as(ALICE, "alice", &[role]));
    let none = ("operator:-".to_owned(), Operator::for_test_as(ALICE, "alice", &[]));
    let unlisted = ("operator:unlisted".to_owned(), Operator::for_test_unlisted(ALICE));
    Role::ALL.into_iter().map(one).chain([none, unlisted]).collect()
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
        for (role, who) in operators() {
            let result = show(authorizer.authorize_control::<A>(&who, request.clone(), NOW));
            writeln!(out, "{:<15} {role:<24} {about:<31} {result}", A::NAME).unwrap();
        }
    }
}

/// The policy texts and the engine, put together without the code under test.
fn engine_rows(out: &mut String) {
    let schema = Schema::from_cedarschema_str(BASELINE_SCHEMA.text).unwrap().0;
    let all: ::cedar_policy::PolicySet = BASELINE_POLICIES.text.parse().unwrap();
    let (own, foreign) = (TenantId::parse("own").unwrap(), TenantId::parse("foreign").unwrap());
    let orders = DatasetId::parse("orders").unwrap();
    let description =
        Description { service: "s".into(), environment: "e".into(), roles: ALL_ROLES.map(str::to_owned).into() };
    let workload = entities::workload(&name("w"), &description, [&own]).unwrap();
    let operator = entities::operator(&Operator::for_test(ALICE)).unwrap();
    let user = EndUser::for_test("ann", "own", Some(NOW.plus_millis(1)));
    for action in DATA_ACTIONS.iter().chain(CONSENT_ACTIONS).chain(HISTORY_ACTIONS).chain(CONTROL_ACTIONS) {
        let (data, consent) = (DATA_ACTIONS.contains(action), CONSENT_ACTIONS.contains(action));
        for (who, principal) in [("workload", &workload), ("operator", &operator)] {
            for tenant in [&own, &foreign] {
                for (state, suspended) in [("active", Some(false)), ("suspended", Some(true)), ("unknown", None)] {
                    let facts = suspended.map(|suspended| Facts { suspended, dataset: None });
                    let mut rows = vec![
                        ("vault", entities::instance().unwrap()),
                        ("dataset", entities::dataset(tenant, &orders, Some(&DatasetFacts::default())).unwrap()),
                    ];
                    let tenant_entity = entities::tenant(tenant, facts.as_ref()).unwrap();
                    rows.push(("tenant", tenant_entity.clone()));
                    for (kind, resource) in rows {
                        let context = if data {
                            entities::data_context(&Asked {
                                now: NOW,
                                purpose: &Purpose::parse("billing").unwrap(),
                                has_subject: false,
                                items: 1,
                                consent: false,
                                granted_roles: &BTreeSet::new(),
                                end_user: None,
                            })
                        } else if consent {
                            entities::consent_context(NOW, &user)
                        } else if HISTORY_ACTIONS.contains(action) {
                            entities::history_context(NOW, None)
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
    demanding_rows::<Encrypt>(&authorizer, &mut out);
    demanding_rows::<Decrypt>(&authorizer, &mut out);
    demanding_rows::<Rewrap>(&authorizer, &mut out);
    consent_rows::<GrantConsent>(&authorizer, &mut out);
    consent_rows::<WithdrawConsent>(&authorizer, &mut out);
    consent_rows::<ListConsents>(&authorizer, &mut out);
    history_rows::<ListAccesses>(&authorizer, &mut out);
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
    control_rows::<CancelApproval>(&authorizer, &mut out);
    control_rows::<GetApproval>(&authorizer, &mut out);
    control_rows::<RequestGrant>(&authorizer, &mut out);
    control_rows::<RevokeGrant>(&authorizer, &mut out);
    control_rows::<ListGrants>(&authorizer, &mut out);
    control_rows::<ValidatePolicy>(&authorizer, &mut out);
    control_rows::<ProposePolicy>(&authorizer, &mut out);
    control_rows::<ActivatePolicy>(&authorizer, &mut out);
    control_rows::<GetCharter>(&authorizer, &mut out);
    control_rows::<ProposeCharter>(&authorizer, &mut out);
    control_rows::<GetPolicy>(&authorizer, &mut out);
    control_rows::<ListPolicies>(&authorizer, &mut out);
    control_rows::<GetCheckpoint>(&authorizer, &mut out);
    control_rows::<ListEntries>(&authorizer, &mut out);
    control_rows::<GetInclusionProof>(&authorizer, &mut out);
    control_rows::<GetConsistencyProof>(&authorizer, &mut out);
    control_rows::<GetScorecard>(&authorizer, &mut out);
    for action in DATA_ACTIONS.iter().chain(CONSENT_ACTIONS).chain(HISTORY_ACTIONS).chain(CONTROL_ACTIONS) {
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
    let of = |actions: &[&str], row: &str| actions.iter().any(|a| row.starts_with(&format!("{a} ")));
    let (mut plain, mut demanding, mut consents, mut histories, mut control) = (0, 0, 0, 0, 0);
    for row in &first {
        let fields: Vec<_> = row.split_whitespace().collect();
        if of(DATA_ACTIONS, row) && ["public", "confidential", "restricted"].contains(&fields[1]) {
            demanding += 1;
            let (class, user, consent) = (fields[1], fields[2], fields[3]);
            assert!(!["other", "expired"].contains(&user), "{row}");
            if of(&["Decrypt"], row) {
                assert!(["not-needed", "given"].contains(&consent), "{row}");
                assert!(class != "confidential" || user != "none", "{row}");
                assert!(class != "restricted" || user == "fresh", "{row}");
            }
        } else if of(DATA_ACTIONS, row) {
            plain += 1;
            assert!(["own ", "active ", " dataset "].iter().all(|part| row.contains(part)), "{row}");
            assert!(!row.contains("operator"), "{row}");
        } else if of(CONSENT_ACTIONS, row) {
            consents += 1;
            assert_eq!((fields[1], fields[2]), ("consent", "own"), "{row}");
            assert!(["user", "mfa", "fresh"].contains(&fields[3]), "{row}");
            assert!(!row.starts_with("Grant") || fields[3] == "fresh", "{row}");
        } else if of(HISTORY_ACTIONS, row) {
            histories += 1;
            assert_eq!((fields[1], fields[2]), ("access-log", "own"), "{row}");
            assert!(["none", "fresh"].contains(&fields[3]), "{row}");
        } else {
            control += 1;
            let role = fields[1].strip_prefix("operator:").unwrap();
            assert!(ROLES_OF.iter().any(|(action, roles)| *action == fields[0] && roles.contains(&role)), "{row}");
        }
    }
    assert_eq!(plain, 6, "two workloads for each data action");
    assert_eq!(
        demanding,
        2 * 3 * 4 * 6 + 2 * (4 + 3 + 1),
        "two that release nothing ask for nothing more, and Decrypt"
    );
    assert_eq!(consents, 1 + 3 + 3);
    assert_eq!(histories, 2, "for nobody, and for somebody with fresh MFA");
    let by_role: usize = ROLES_OF.iter().map(|(_, roles)| roles.len()).sum();
    let on_two = ["Approve", "Reject", "CancelApproval", "GetApproval", "RotateDataKeys"];
    let again: usize =
        ROLES_OF.iter().filter(|(action, _)| on_two.contains(action)).map(|(_, roles)| roles.len()).sum();
    assert_eq!(ROLES_OF.len(), CONTROL_ACTIONS.len());
    assert_eq!(control, by_role + again, "each control action by the roles that are for it; five on two kinds");
    for row in second {
        let (data, consent) = (of(DATA_ACTIONS, &row), of(CONSENT_ACTIONS, &row) || of(HISTORY_ACTIONS, &row));
        assert_eq!(data || consent, row.contains(" workload "), "{row}");
        assert!(!data || (row.contains(" own ") && row.contains(" active ")), "{row}");
        assert!(!consent || row.contains(" own "), "{row}");
    }
}
