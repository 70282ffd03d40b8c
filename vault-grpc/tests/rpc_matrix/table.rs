//! The table as text: rows with the same answer in one line.

use std::fmt::Write as _;

use vault_proto::rpcs;
use vault_proto::v1::Plane;

use super::actions::{action, name, unused};
use super::site::{DATASETS, Row, TENANTS};

const HEAD: &str = "\
# What every RPC answers to every caller, over the network. Made by the test rpc_matrix, which says how to update it.
#
# Part 1: every RPC (and its action) at both planes, by the certificate that the caller shows; nothing else is wrong with
# the call. RPCs that are answered the same stand together.
# Part 2: every RPC of the data plane, by workloads with those who stand behind them (`+`), on the workload's own tenant,
# another's, a suspended one of its own, one that is in its registry entry but was never made; and on datasets that
# demand nothing, fresh MFA (restricted), or consent, by what consent there is for the purpose. `*` is all of them.
# Part 3: the RPCs of the control plane that name a tenant, by an operator. What comes after the decision shows, too.
# Part 4: actions of the schema that no RPC is decided as.
";

const fn plane(of: Plane) -> &'static str {
    if matches!(of, Plane::Data) { "data" } else { "control" }
}

/// Keys in the order in which they come first, each with its values.
fn grouped<K: PartialEq, V>(pairs: impl Iterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in pairs {
        match groups.iter_mut().find(|(of, _)| *of == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// Tenants and datasets, as short as they can be said.
fn places(rows: &[&Row]) -> String {
    let by_tenant = grouped(rows.iter().map(|row| (row.tenant, row.dataset)));
    let is_all = |datasets: &[&str]| datasets == [""] || datasets.len() == DATASETS.len();
    if by_tenant.len() == TENANTS.len() && by_tenant.iter().all(|(_, datasets)| is_all(datasets)) {
        return "*".to_owned();
    }
    let by_datasets = grouped(by_tenant.into_iter().map(|(tenant, datasets)| (datasets, tenant)));
    let parts = by_datasets.iter().map(|(datasets, tenants)| {
        let tenants = tenants.join(", ");
        if is_all(datasets) { tenants } else { format!("{tenants}: {}", datasets.join(" ")) }
    });
    parts.collect::<Vec<_>>().join("; ")
}

pub(crate) fn render(rows: &[Row]) -> String {
    let mut out = HEAD.to_owned();
    let of = |rpc, part: fn(&Row) -> bool| rows.iter().filter(move |row| row.rpc == rpc && part(row));
    out += "\n## Part 1\n";
    let blocks = rpcs().iter().map(|rpc| {
        let first = of(rpc, |row| row.tenant.is_empty());
        let mut block = String::new();
        for ((at, says), who) in grouped(first.map(|row| ((row.at, &row.answer.says), row.who.shown()))) {
            writeln!(block, "  {:<8} {says:<38} {}", plane(at), who.join(", ")).unwrap();
        }
        ((plane(rpc.plane), block), format!("{} ({})", name(rpc), action(rpc)))
    });
    for ((plane, block), rpcs) in grouped(blocks) {
        write!(out, "\nof the {plane} plane:\n{}\n{block}", rpcs.join("\n")).unwrap();
    }
    out += "\n## Part 2\n";
    for rpc in rpcs().iter().filter(|rpc| rpc.plane == Plane::Data) {
        writeln!(out, "\n{} (action {})", name(rpc), action(rpc)).unwrap();
        let second = of(rpc, |row| !row.tenant.is_empty());
        for ((who, end_user), rows) in grouped(second.map(|row| ((row.who, row.end_user), row))) {
            let plus = if end_user.is_empty() { "" } else { " + " };
            writeln!(out, "  {}{plus}{end_user}", who.shown()).unwrap();
            for (says, rows) in grouped(rows.iter().map(|row| (&row.answer.says, *row))) {
                writeln!(out, "    {says:<36} {}", places(&rows)).unwrap();
            }
        }
    }
    out += "\n## Part 3\n\n";
    for rpc in rpcs().iter().filter(|rpc| rpc.plane == Plane::Control) {
        let third = of(rpc, |row| !row.tenant.is_empty());
        for (says, tenants) in grouped(third.map(|row| (&row.answer.says, row.tenant))) {
            writeln!(out, "{:<34} {says:<38} {}", name(rpc), tenants.join(", ")).unwrap();
        }
    }
    out += "\n## Part 4\n\n";
    let unused = unused();
    writeln!(out, "{}", if unused.is_empty() { "none".to_owned() } else { unused.join("\n") }).unwrap();
    out
}
