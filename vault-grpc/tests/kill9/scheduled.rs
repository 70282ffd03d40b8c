//! A shred that waits for its time: the death before and after each step from the last vote to the receipt.

use std::time::{Duration, Instant, SystemTime};

use vault_client::{Code, Origin, Target};
use vault_core::failpoint::Step;
use vault_proto::v1::{Approval, ApprovalState};

use crate::acknowledged::DATASETS;
use crate::served::Served;
use crate::site::{Rows, Site};

const TENANT: &str = "scheduled";
/// How long it waits, in seconds.
const DELAY: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

/// In the order in which they come.
const STEPS: [Step; 5] =
    [Step::ApprovalSchedule, Step::ShredApproving, Step::ShredBegin, Step::ShredEntry, Step::ShredEnd];

pub(crate) async fn kill_at_each(store: &str, rows: impl Fn() -> Rows) {
    let begun = Instant::now();
    for step in STEPS {
        for moment in ["before", "after"] {
            dies_at(&format!("{} {moment}", step.name()), step == Step::ApprovalSchedule, rows()).await;
        }
    }
    println!(
        "measured: {store}: {} deaths by SIGKILL of a scheduled shred: carried out once, none before its time; {} s",
        2 * STEPS.len(),
        begun.elapsed().as_secs()
    );
}

async fn dies_at(point: &str, in_the_call: bool, rows: Rows) {
    let site = Site::new(rows, &[TENANT.to_owned()]);
    site.edit("vault.toml", "\nresume_tenant = 2\n", &format!("\nshred_delay_s = {DELAY}\n"));
    let mut served = site.serve().await;
    served.alice.create_tenant(TENANT, None, "test").await.unwrap();
    served.alice.create_dataset(TENANT, DATASETS[0], "pii", "eu", "test").await.unwrap();
    let target = Target::new(TENANT, DATASETS[0], "test");
    let envelope = served.workloads[0].encrypt(&target, b"scheduled").await.unwrap().envelope;
    let asked = served.alice.shred_tenant(TENANT, "test").await.unwrap();
    site.arm(point, 1);
    match served.bob.approve(&asked, None, "test").await {
        Ok(approval) => {
            assert!(!in_the_call, "{point}: it was never reached");
            assert_eq!(approval.state(), ApprovalState::Scheduled);
        }
        Err(error) => assert!(in_the_call && error.origin() == Origin::Transport, "{point}: {error}"),
    }
    assert!(served.process.dies(PATIENCE).await, "{point}: it was never reached");
    site.disarm();
    let served = site.serve().await;
    let done = until_executed(&served, &asked, point).await;
    assert!(done.receipt.contains(TENANT), "{point}: {}", done.receipt);
    assert_eq!(done.votes.len(), 1, "{point}");
    let due = SystemTime::try_from(done.schedule_time.unwrap()).unwrap();
    assert!(SystemTime::now() >= due, "{point}: before its time");
    let opened = served.workloads[0].decrypt(&target, envelope).await.unwrap_err();
    assert_eq!(opened.code(), Code::InvalidArgument, "{point}");
    drop(served);
    site.audit_verifies();
}

/// Approves once more if the vote was lost, which was never answered; then waits.
async fn until_executed(served: &Served, asked: &Approval, point: &str) -> Approval {
    let begun = Instant::now();
    loop {
        let found = served.alice.get_approval(&asked.tenant, &asked.approval).await.unwrap();
        match found.state() {
            ApprovalState::Executed => return found,
            ApprovalState::Pending => drop(served.bob.approve(asked, None, "test").await.unwrap()),
            ApprovalState::Scheduled | ApprovalState::Approved => tokio::time::sleep(Duration::from_millis(50)).await,
            other => unreachable!("{point}: {other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "{point}: {found:?}");
    }
}
