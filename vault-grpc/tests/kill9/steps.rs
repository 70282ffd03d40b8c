//! Which calls reach which step, and the death at each, before it and after it.

use std::time::{Duration, Instant};

use vault_core::failpoint::Step;

use crate::case::Case;
use crate::destruction;
use crate::site::{Rows, Site};

/// Calls that a step is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Encrypt for one new subject after another.
    Encrypt,
    /// RotateTenantKey.
    Rotate,
    /// The same, for a tenant with more data keys than one step rewraps.
    RotateMany,
    /// RotateTenantKey again and again, while new subjects make new data keys.
    RotateUnderLoad,
    /// RotateDataKeys.
    RotateDataKeys,
    /// Rewrap of an envelope under an older data key.
    Rewrap,
    /// ShredSubject, and another operator's Approve.
    ShredSubject,
    /// ShredTenant, and another operator's Approve.
    ShredTenant,
    /// SuspendTenant, ResumeTenant, and the two Approves that it demands.
    Resume,
    /// ShredTenant, and another operator's CancelApproval.
    Cancel,
    /// None: it is due a minute after a shred.
    Destruction,
}

/// How each step is reached: by these calls, for the nth time. The first way is the plainest.
const fn ways(step: Step) -> &'static [(Calls, u64)] {
    use Calls::{
        Cancel, Destruction, Encrypt, Resume, Rewrap, Rotate, RotateDataKeys, RotateMany, RotateUnderLoad,
        ShredSubject, ShredTenant,
    };
    match step {
        Step::LogSync => &[(Encrypt, 5)],
        Step::StoreCommit => &[(Encrypt, 3), (Rotate, 2), (ShredSubject, 2)],
        Step::ControlIntent => &[(Rotate, 1), (ShredSubject, 2)],
        Step::ControlExecuted => &[(RotateDataKeys, 1), (ShredSubject, 1), (ShredTenant, 2)],
        Step::RotateBegin | Step::RotatePass | Step::RotateSideKey | Step::RotateEntry | Step::RotateEnd => {
            &[(Rotate, 1)]
        }
        Step::RotateRewrap => &[(Rotate, 1), (RotateMany, 2)],
        Step::RotateFollow => &[(RotateUnderLoad, 1)],
        Step::RotateDataKey => &[(RotateDataKeys, 1), (RotateDataKeys, 2)],
        Step::RewrapIntent | Step::RewrapSeal => &[(Rewrap, 1)],
        Step::ShredAsk
        | Step::ShredApproving
        | Step::ShredBegin
        | Step::ShredKeys
        | Step::ShredEntry
        | Step::ShredEnd => &[(ShredSubject, 1), (ShredTenant, 1)],
        Step::ApprovalVote | Step::TenantResume => &[(Resume, 1)],
        Step::ApprovalClose => &[(Cancel, 1)],
        // In an installation of its own: `scheduled`.
        Step::ApprovalSchedule => &[],
        // By itself, soon after the shred.
        Step::DestroyRotate => &[(ShredSubject, 1)],
        Step::DestroySearch | Step::DestroyEntry | Step::DestroyEnd => &[(Destruction, 1)],
    }
}

/// Dies at every step once before it and once after it, for each way to it or the first of each; fails if one is not
/// reached.
pub(crate) async fn kill_at_each(store: &str, each_way: bool, rows: impl Fn() -> Rows) {
    let begun = Instant::now();
    let most = if each_way { usize::MAX } else { 1 };
    let all = Step::ALL.iter().flat_map(|step| ways(*step).iter().take(most).map(|way| (*step, *way)));
    let all: Vec<_> = all.flat_map(|(step, way)| ["before", "after"].map(|moment| (step, moment, way))).collect();
    let (late, now): (Vec<_>, Vec<_>) = all.into_iter().partition(|(.., (calls, _))| *calls == Calls::Destruction);
    // It takes its minute while the others die.
    let waiting = destruction::begin(&rows, late.len()).await;
    let names: Vec<String> = (0..now.len()).map(|number| format!("k-{number}")).collect();
    let site = Site::new(rows(), &names);
    let mut served = site.serve().await;
    let mut cases = Vec::new();
    for (name, (step, moment, (calls, nth))) in names.iter().zip(&now) {
        cases.push(Case::new(&served, name, *calls, (format!("{} {moment}", step.name()), *nth)).await);
    }
    for case in &mut cases {
        site.arm(&case.point, case.nth);
        let told = case.call(&served).await;
        assert!(served.process.dies(Duration::from_secs(20)).await, "{case}: it was never reached");
        site.disarm();
        served = site.serve().await;
        assert!(served.process.entries >= told.answers, "{case}: answered, but not in the log");
        case.is_whole(&site, &served, told).await;
        site.audit_verifies();
    }
    // Nobody's death did anything to the others, and all of it is on disk.
    served.process.kill();
    served = site.serve().await;
    for case in &cases {
        case.is_there(&served).await;
    }
    drop(served);
    site.audit_verifies();
    let (steps, deaths) = (Step::ALL.len(), now.len() + late.len());
    for (copy, (step, moment, (_, nth))) in waiting.into_iter().zip(late) {
        copy.dies_at(&format!("{} {moment}", step.name()), nth).await;
    }
    println!(
        "measured: {store}: {deaths} deaths by SIGKILL at {steps} named steps, before and after each: nothing acknowledged lost, \
         nothing shredded came back, every tenant opens; {} s",
        begun.elapsed().as_secs()
    );
}
