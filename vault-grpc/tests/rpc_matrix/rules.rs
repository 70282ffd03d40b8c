//! What must be true of the answers, however the table was updated.

use std::collections::BTreeSet;

use vault_proto::rpcs;
use vault_proto::v1::Plane;

use super::actions::{action, name};
use super::asking::Answer;
use super::site::{DATASETS, END_USERS, Row, TENANTS, Who};

const WORKLOADS: [Who; 4] = [Who::Workload, Who::NoRole, Who::Pattern, Who::Unregistered];

/// Whether the gateway did something for the caller, or would have, had it asked for something that is there: all but
/// a refusal.
fn is_let_in(row: &Row) -> bool {
    let says = &row.answer.says;
    !["PERMISSION_DENIED", "UNIMPLEMENTED", "no connection"].iter().any(|refusal| says.starts_with(refusal))
}

/// A refusal that comes before the question who asks: a call for an end user without one.
fn lacks_a_token(row: &Row) -> bool {
    row.end_user.is_empty() && row.answer.says == "INVALID_ARGUMENT end_user_token"
}

/// The rule that a row breaks.
fn broken(row: &Row) -> Option<&'static str> {
    let by_workload = WORKLOADS.contains(&row.who) && row.at == Plane::Data;
    let by_operator = row.who == Who::Operator && row.at == Plane::Control;
    if row.at != row.rpc.plane && is_let_in(row) {
        return Some("a plane answers no call of the other");
    }
    if !(by_workload || by_operator || row.answer.says.starts_with("no connection: ")) {
        return Some("whoever is no caller of the plane comes to no call at all");
    }
    if row.answer.has_mark && !(row.answer.is_ok() && action(row.rpc) == "Decrypt" && by_workload) {
        return Some("plaintext is in no other answer than that to a workload that may decrypt");
    }
    if row.rpc.plane == Plane::Data && is_let_in(row) && !lacks_a_token(row) { broken_data(row) } else { None }
}

/// The same of a data call that was let in. It was one by a workload.
fn broken_data(row: &Row) -> Option<&'static str> {
    let consents = action(row.rpc).ends_with("Consent") || action(row.rpc) == "ListConsents";
    if !matches!(row.who, Who::Workload | Who::Pattern) {
        return Some("no role or no entry, no data");
    }
    // Without a tenant in the row it is the caller's own; one of a pattern has no other.
    if row.tenant == "foreign" || (row.who == Who::Pattern && !["", "own"].contains(&row.tenant)) {
        return Some("nothing of another tenant");
    }
    // What was done stays to be read. There the dataset only selects.
    let history = action(row.rpc) == "ListAccesses";
    // People may consent, and take it back, while their tenant is suspended: that releases nothing.
    if row.tenant == "suspended" && !consents && !history {
        return Some("nothing of a suspended tenant");
    }
    if row.tenant == "unknown" || (row.dataset == "no-such-dataset" && !history) {
        return Some("nothing of what is not there");
    }
    if ["another tenant's user", "forged token"].contains(&row.end_user) {
        return Some("no end user who is not proven to be the tenant's");
    }
    let fresh = row.end_user == "user with fresh MFA";
    match action(row.rpc) {
        "Decrypt" if row.dataset == "restricted" && !fresh => Some("nothing restricted without fresh MFA"),
        "Decrypt" if row.dataset.starts_with("consent-") && row.dataset != "consent-given" => {
            Some("no plaintext without the consent that it takes")
        }
        "ListAccesses" if !fresh && !row.end_user.is_empty() => Some("no history for people without fresh MFA"),
        "GrantConsent" if !fresh => Some("no consent without fresh MFA"),
        "WithdrawConsent" | "ListConsents" if row.end_user.is_empty() => Some("consents are an end user's"),
        _ => None,
    }
}

pub(crate) fn hold(rows: &[Row]) {
    for row in rows {
        assert_eq!(broken(row), None, "{row:?}");
    }
    assert_eq!(rows.iter().map(|row| name(row.rpc)).collect::<BTreeSet<_>>().len(), rpcs().len());
    for rpc in rpcs() {
        let let_in = rows.iter().filter(|row| row.rpc == rpc && is_let_in(row) && !lacks_a_token(row));
        let (count, done) = (let_in.clone().count(), let_in.filter(|row| row.answer.is_ok()).count());
        assert!(count > 0, "{} lets nobody in: its refusals say nothing", name(rpc));
        if matches!(action(rpc), "Encrypt" | "Decrypt" | "Rewrap") {
            assert!(done > 0, "{} never succeeds: its refusals say nothing", name(rpc));
        }
        if action(rpc) == "Decrypt" {
            assert!(rows.iter().any(|row| row.rpc == rpc && row.answer.has_mark), "{} opens nothing", name(rpc));
        }
    }
    // Nothing was left out.
    for (tenant, _) in TENANTS {
        for dataset in DATASETS {
            for end_user in END_USERS {
                let asked = |row: &&Row| (row.tenant, row.dataset, row.end_user) == (tenant, dataset, end_user);
                assert!(rows.iter().filter(asked).count() >= 5, "{tenant} {dataset} {end_user}");
            }
        }
    }
    planted(rows);
}

/// The rules find what they are for: each refusal of a data call turned into an answer breaks one.
fn planted(rows: &[Row]) {
    let mut found = BTreeSet::new();
    for row in rows.iter().filter(|row| row.rpc.plane == Plane::Data && row.at == Plane::Data && !is_let_in(row)) {
        let planted = Row { answer: Answer::of("OK"), ..row.clone() };
        let rule = broken(&planted);
        assert!(rule.is_some(), "no rule would find {planted:?}");
        found.extend(rule);
    }
    for row in rows.iter().filter(|row| row.rpc.plane == Plane::Control && !is_let_in(row)) {
        let planted = Row { answer: Answer::of("OK"), ..row.clone() };
        found.extend(broken(&planted));
        assert!(broken(&planted).is_some(), "no rule would find {planted:?}");
    }
    for row in rows.iter().filter(|row| row.rpc.plane == Plane::Control && row.who == Who::Operator) {
        let planted = Row { answer: Answer { has_mark: true, ..row.answer.clone() }, ..row.clone() };
        found.extend(broken(&planted));
    }
    assert!(found.len() >= 9, "{found:?}");
}
