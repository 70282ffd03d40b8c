//! The end of tenant key versions that a shred leaves behind, which is due a minute later: prepared once, then copied for
//! each death.

use std::time::{Duration, Instant};

use vault_core::store::Table;

use crate::case::Case;
use crate::site::{Rows, Site};
use crate::steps::Calls;

/// As the site's configuration has it, and a little more.
const DUE: Duration = Duration::from_secs(61);
const TENANT: &str = "doomed";

/// An installation in which a tenant key version is to be destroyed.
pub(crate) struct Waiting {
    site: Site,
    case: Case,
    due: Instant,
}

/// Shreds a subject, and makes so many copies of that.
pub(crate) async fn begin(rows: &impl Fn() -> Rows, copies: usize) -> Vec<Waiting> {
    let site = Site::new(rows(), &[TENANT.to_owned()]);
    let mut served = site.serve().await;
    let mut case = Case::new(&served, TENANT, Calls::ShredSubject, (String::new(), 1)).await;
    let told = case.call(&served).await;
    case.is_whole(&site, &served, told).await;
    let due = Instant::now() + DUE;
    case.rotated_away(&served).await;
    served.process.kill();
    (0..copies).map(|_| Waiting { site: site.copy(), case: case.clone(), due }).collect()
}

impl Waiting {
    /// Dies at a step of it, and the next process carries it out.
    pub(crate) async fn dies_at(self, point: &str, nth: u64) {
        let Self { site, case, due } = self;
        tokio::time::sleep_until(due.into()).await;
        site.arm(point, nth);
        site.serve_until_it_dies().await;
        site.disarm();
        let begun = Instant::now();
        loop {
            let served = site.serve().await;
            case.is_there(&served).await;
            site.audit_verifies();
            drop(served);
            let states = site.states_of(Table::TenantKeys).await;
            if states == ["destroyed", "active"] {
                break;
            }
            assert_eq!(states, ["decrypt_only", "active"], "{point}");
            assert!(begun.elapsed() < Duration::from_secs(60), "{point}: {states:?}");
        }
        // What was to survive does so without the old version, too.
        case.is_there(&site.serve().await).await;
    }
}
