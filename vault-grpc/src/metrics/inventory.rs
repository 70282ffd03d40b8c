//! Gauges for what the scorecard reports: keys' ages, what waits for approval, what operators tried, when certificates end.
//!
//! What the store holds is counted by a walk over its rows in the background, slowly, and told until the next walk has
//! ended. A store of millions of rows is never read in one go for it.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::time::sleep;
use vault_core::audit::LogVerifier;
use vault_core::keys::{Census, KeyAges};
use vault_core::store::BoxFuture;
use vault_core::{Error, Vault};
use vault_proto::rpcs;
use vault_proto::v1::Plane;

use super::render::head;
use crate::plane::OPERATOR_CERTIFICATE;
use crate::refusals::Refusals;
use crate::scorecard::Ending;

/// Between two pages of 256 rows: some 10,000 rows a second at most.
const BETWEEN: Duration = Duration::from_millis(20);
/// Between two walks at least; and so many times as long as the last one took.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_FACTOR: u32 = 10;

/// What the last walk found.
#[derive(Debug, Default)]
pub(crate) struct Inventory(ArcSwapOption<Census>);

/// Walks until the vault is gone.
pub(crate) async fn follow(inventory: Arc<Inventory>, vault: Weak<Vault>, verifier: LogVerifier) {
    loop {
        let begun = Instant::now();
        {
            let Some(vault) = vault.upgrade() else { return };
            let between = || -> BoxFuture<'static, Result<(), Error>> {
                Box::pin(async {
                    sleep(BETWEEN).await;
                    Ok(())
                })
            };
            // A store that is away is told by others; what was found before stays until it is back.
            if let Ok(census) = vault.census(&verifier, &between).await {
                inventory.0.store(Some(Arc::new(census)));
            }
        }
        sleep(PAUSE.max(begun.elapsed() * PAUSE_FACTOR)).await;
    }
}

/// All of it as text.
pub(crate) fn render(inventory: &Inventory, vault: &Vault, refusals: &Refusals, ends: &[Ending]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = denials(&mut out, vault, refusals);
    let _ = certificates(&mut out, ends);
    let _ = rows(&mut out, inventory.0.load_full().as_deref());
    out
}

fn denials(out: &mut String, vault: &Vault, refusals: &Refusals) -> fmt::Result {
    let name = "blindvault_calls_denied_total";
    head(out, name, "counter", "Calls that were denied, by check and rule.")?;
    for (denied, count) in vault.denied() {
        let labels = format!("plane=\"{}\",check=\"{}\",reason=\"{}\"", denied.plane, denied.check, denied.reason);
        writeln!(out, "{name}{{{labels}}} {count}")?;
    }
    // These are there from the beginning: from nothing to one is no increase.
    let name = "blindvault_operator_data_calls_total";
    head(out, name, "counter", "Data calls that operators made, all refused, by call.")?;
    let strayed = vault.strayed_operators();
    for rpc in rpcs().iter().filter(|rpc| rpc.plane == Plane::Data) {
        let count = strayed.get(rpc.method).copied().unwrap_or_default();
        writeln!(out, "{name}{{service=\"{}\",method=\"{}\"}} {count}", rpc.service, rpc.method)?;
    }
    let name = "blindvault_operator_data_connections_total";
    head(out, name, "counter", "Connections to the data plane with an operator's certificate, all refused.")?;
    let shown = refusals.totals().get(&("data", OPERATOR_CERTIFICATE)).copied().unwrap_or_default();
    writeln!(out, "{name} {shown}")
}

fn certificates(out: &mut String, ends: &[Ending]) -> fmt::Result {
    let name = "blindvault_certificate_end_timestamp_seconds";
    let help = "The first end of a listener's own certificate, a root that callers are proven by, a revocation list.";
    head(out, name, "gauge", help)?;
    for plane in ["data", "control"] {
        for kind in ["certificate", "root", "list"] {
            let of_both = |end: &&Ending| end.kind == kind && end.name.split(' ').next() == Some(plane);
            if let Some(first) = ends.iter().filter(of_both).map(|end| end.at).min() {
                writeln!(out, "{name}{{plane=\"{plane}\",kind=\"{kind}\"}} {}", first.secs())?;
            }
        }
    }
    Ok(())
}

/// One gauge of the rows, told once they have been counted.
type Gauge = (&'static str, &'static str, fn(&Census) -> u64);
/// The same for each kind of key.
type KeyGauge = (&'static str, &'static str, fn(&KeyAges) -> u64);

const KEYS: [KeyGauge; 3] = [
    ("blindvault_keys_active", "Active key versions, by kind.", |ages| ages.count),
    ("blindvault_keys_oldest_seconds", "The age of the oldest active key version, by kind.", |ages| {
        ages.oldest_millis / 1000
    }),
    ("blindvault_keys_rotation_due", "Active key versions whose rotation is due, by kind.", |ages| ages.due),
];

const ROWS: [Gauge; 4] = [
    ("blindvault_store_counted_timestamp_seconds", "When what is told of the store was counted.", |census| {
        census.at.secs()
    }),
    ("blindvault_approvals_pending", "What waits for another operator.", |census| census.pending),
    (
        "blindvault_approvals_oldest_seconds",
        "For how long the oldest of it had waited when it was counted.",
        |census| census.oldest_pending.map_or(0, |asked| census.at.millis_since(asked) / 1000),
    ),
    ("blindvault_receipts_bad", "Erasure receipts of the store that the log's key did not sign.", |census| {
        census.bad_receipts
    }),
];

fn rows(out: &mut String, census: Option<&Census>) -> fmt::Result {
    for (name, help, value) in KEYS {
        head(out, name, "gauge", help)?;
        if let Some(census) = census {
            for (kind, ages) in [("tenant", &census.tenant_keys), ("data", &census.data_keys)] {
                writeln!(out, "{name}{{key=\"{kind}\"}} {}", value(ages))?;
            }
        }
    }
    for (name, help, value) in ROWS {
        head(out, name, "gauge", help)?;
        if let Some(census) = census {
            writeln!(out, "{name} {}", value(census))?;
        }
    }
    Ok(())
}
