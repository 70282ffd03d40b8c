//! What must be true of the answers, however the table was updated.

use std::collections::BTreeSet;

use vault_proto::rpcs;
use vault_proto::v1::Plane;

use super::actions::{action, name};
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

pub(crate) fn hold(rows: &[Row]) {
    assert_eq!(rows.iter().map(|row| name(row.rpc)).collect::<BTreeSet<_>>().len(), rpcs().len());
    for row in rows {
        let by_workload = WORKLOADS.contains(&row.who) && row.at == Plane::Data;
        let by_operator = row.who == Who::Operator && row.at == Plane::Control;
        // Each plane answers its own calls, to its own callers. People reach no data call whatever they show.
        if row.at != row.rpc.plane || !(by_workload || by_operator) {
            assert!(!is_let_in(row), "{row:?}");
        }
        // Certificates of neither kind come to no call at all.
        if !(by_workload || by_operator) {
            assert!(row.answer.says.starts_with("no connection: "), "{row:?}");
        }
        if row.rpc.plane == Plane::Data && is_let_in(row) && !lacks_a_token(row) {
            data(row);
        }
        if row.answer.has_mark {
            assert!(row.answer.is_ok() && action(row.rpc) == "Decrypt", "{row:?}");
        }
    }
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
}

/// A data call that was let in. It was one by a workload.
fn data(row: &Row) {
    assert!(matches!(row.who, Who::Workload | Who::Pattern), "no role, no entry: {row:?}");
    // Without a tenant in the row it is the caller's own. People may consent, and take it back, whatever became of their
    // tenant: that releases nothing.
    let consents = action(row.rpc).ends_with("Consent") || action(row.rpc) == "ListConsents";
    let own: &[&str] = if consents { &["", "own", "suspended", "unknown"] } else { &["", "own"] };
    assert!(own.contains(&row.tenant), "of another tenant, or a suspended one: {row:?}");
    assert!(!["another tenant's user", "forged token"].contains(&row.end_user), "{row:?}");
    assert!(row.dataset != "no-such-dataset", "{row:?}");
    match action(row.rpc) {
        "Decrypt" => {
            let fresh = row.end_user == "user with fresh MFA";
            let released = ["", "plain", "consent-given"].contains(&row.dataset);
            assert!(released || (row.dataset == "restricted" && fresh), "{row:?}");
        }
        "GrantConsent" => assert_eq!(row.end_user, "user with fresh MFA", "{row:?}"),
        "WithdrawConsent" | "ListConsents" => assert!(!row.end_user.is_empty(), "{row:?}"),
        _ => {}
    }
}
