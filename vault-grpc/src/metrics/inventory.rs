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
use vault_core::keys::Census;
use vault_core::store::BoxFuture;
use vault_core::time::Timestamp;
use vault_core::{Error, Vault};

use super::render::head;
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
pub(crate) fn render(inventory: &Inventory, vault: &Vault, ends: &[Ending]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = denials(&mut out, vault);
    let _ = certificates(&mut out, ends);
    if let Some(census) = inventory.0.load_full() {
        let _ = rows(&mut out, &census);
    }
    out
}

fn denials(out: &mut String, vault: &Vault) -> fmt::Result {
    let name = "blindvault_calls_denied_total";
    head(out, name, "counter", "Calls that were denied, by check and rule.")?;
    for (denied, count) in vault.denied() {
        let labels = format!("plane=\"{}\",check=\"{}\",reason=\"{}\"", denied.plane, denied.check, denied.reason);
        writeln!(out, "{name}{{{labels}}} {count}")?;
    }
    let name = "blindvault_operator_data_calls_total";
    head(out, name, "counter", "Data calls that operators made, all refused, by call.")?;
    let strayed = vault.strayed_operators();
    if strayed.is_empty() {
        // A series that is there from the beginning: an increase from nothing is none.
        writeln!(out, "{name}{{method=\"\"}} 0")?;
    }
    strayed.iter().try_for_each(|(method, count)| writeln!(out, "{name}{{method=\"{method}\"}} {count}"))
}

fn certificates(out: &mut String, ends: &[Ending]) -> fmt::Result {
    let name = "blindvault_certificate_end_timestamp_seconds";
    let help = "The first end of a listener's own certificate, of a root that its callers are proven by, of a revocation list.";
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

fn rows(out: &mut String, census: &Census) -> fmt::Result {
    head(out, "blindvault_store_counted_timestamp_seconds", "gauge", "When what is told of the store was counted.")?;
    writeln!(out, "blindvault_store_counted_timestamp_seconds {}", census.at.secs())?;
    let kinds = [("tenant", &census.tenant_keys), ("data", &census.data_keys)];
    head(out, "blindvault_keys_active", "gauge", "Active key versions, by kind.")?;
    for (kind, ages) in kinds {
        writeln!(out, "blindvault_keys_active{{key=\"{kind}\"}} {}", ages.count)?;
    }
    head(out, "blindvault_keys_oldest_seconds", "gauge", "The age of the oldest active key version, by kind.")?;
    for (kind, ages) in kinds {
        writeln!(out, "blindvault_keys_oldest_seconds{{key=\"{kind}\"}} {}", ages.oldest_millis / 1000)?;
    }
    head(out, "blindvault_keys_rotation_due", "gauge", "Active key versions whose rotation is due, by kind.")?;
    for (kind, ages) in kinds {
        writeln!(out, "blindvault_keys_rotation_due{{key=\"{kind}\"}} {}", ages.due)?;
    }
    head(out, "blindvault_approvals_pending", "gauge", "What waits for another operator.")?;
    writeln!(out, "blindvault_approvals_pending {}", census.pending)?;
    head(out, "blindvault_approvals_oldest_seconds", "gauge", "For how long the oldest of it had waited when counted.")?;
    let waited = census.oldest_pending.map_or(0, |asked: Timestamp| census.at.millis_since(asked) / 1000);
    writeln!(out, "blindvault_approvals_oldest_seconds {waited}")?;
    head(out, "blindvault_receipts_bad", "gauge", "Erasure receipts of the store that the log's key did not sign.")?;
    writeln!(out, "blindvault_receipts_bad {}", census.bad_receipts)
}
