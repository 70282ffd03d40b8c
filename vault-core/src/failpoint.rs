//! Named steps at which a test has the process die, to see that whatever comes next finds all that was acknowledged.
//!
//! With the feature `dev` each step tells what [`on_reach`] was given that it is about to be done, and that it is done.
//! Without the feature nothing of this is in the program: [`around`] is what it wraps, [`reach`] is empty.

macro_rules! steps {
    ($($(#[$doc:meta])+ $step:ident = $name:literal,)+) => {
        /// A step of something that must survive a death before it and after it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])+ $step,)+
        }

        #[cfg(feature = "dev")]
        impl Step {
            /// Every step there is.
            pub const ALL: &[Self] = &[$(Self::$step,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    /// Any frame of the audit log: written, then synced, then answered.
    LogSync = "log-sync",
    /// Any batch of rows: in its transaction, then committed, then answered.
    StoreCommit = "store-commit",
    /// The intent of an operator's call.
    ControlIntent = "control-intent",
    /// The entry that an operator's call was executed.
    ControlExecuted = "control-executed",
    /// The commit of a new tenant key version, with which its rotation begins.
    RotateBegin = "rotate-begin",
    /// The commit of data keys under a new version.
    RotateRewrap = "rotate-rewrap",
    /// The commit with which another pass begins.
    RotatePass = "rotate-pass",
    /// The commit of the side key under a new version.
    RotateSideKey = "rotate-side-key",
    /// The entry that a rotation is finished.
    RotateEntry = "rotate-entry",
    /// The commit that says so.
    RotateEnd = "rotate-end",
    /// The commit of a data key, made while a rotation began, under the new version.
    RotateFollow = "rotate-follow",
    /// The commit of a data key's next version.
    RotateDataKey = "rotate-data-key",
    /// The intent to rewrap an envelope.
    RewrapIntent = "rewrap-intent",
    /// Sealing it again.
    RewrapSeal = "rewrap-seal",
    /// The commit of what is to be approved.
    ShredAsk = "shred-ask",
    /// The commit of a vote after which others have to approve it, too.
    ApprovalVote = "approval-vote",
    /// The commit of the last vote for what waits to be carried out.
    ApprovalSchedule = "approval-schedule",
    /// The commit that rejects or cancels.
    ApprovalClose = "approval-close",
    /// The commit that lifts a suspension.
    TenantResume = "tenant-resume",
    /// The entry that it is approved.
    ShredApproving = "shred-approving",
    /// The commit that decides.
    ShredBegin = "shred-begin",
    /// The commit of tombstones of data keys.
    ShredKeys = "shred-keys",
    /// The entry that a shred is finished.
    ShredEntry = "shred-entry",
    /// The commit of its receipt.
    ShredEnd = "shred-end",
    /// The commit of a new tenant key version, away from those that are to be destroyed.
    DestroyRotate = "destroy-rotate",
    /// The commit with which the last search for data keys under them begins.
    DestroySearch = "destroy-search",
    /// The entry that they are destroyed.
    DestroyEntry = "destroy-entry",
    /// The commit that destroys them.
    DestroyEnd = "destroy-end",
}

/// Before a step or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It is about to be done.
    Before,
    /// It is done, and nobody has been told.
    After,
}

#[cfg(feature = "dev")]
mod armed {
    use std::sync::OnceLock;

    use super::{Moment, Step};

    /// What is called at every step; it may block, and need not return.
    pub type OnReach = fn(Step, Moment);

    static ON_REACH: OnceLock<OnReach> = OnceLock::new();

    /// Has something called at every step from here on, for the life of the process; the first call counts.
    pub fn on_reach(call: OnReach) {
        let _ = ON_REACH.set(call);
    }

    /// A moment of a step is here.
    pub fn reach(step: Step, moment: Moment) {
        if let Some(call) = ON_REACH.get() {
            call(step, moment);
        }
    }

    /// Does a step, with both its moments. One that fails is not done.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn around<T, E>(step: Step, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        reach(step, Moment::Before);
        let done = work.await?;
        reach(step, Moment::After);
        Ok(done)
    }
}

#[cfg(feature = "dev")]
pub use armed::{OnReach, around, on_reach, reach};

/// Nothing.
#[cfg(not(feature = "dev"))]
#[inline(always)]
pub const fn reach(_: Step, _: Moment) {}

/// The work itself.
#[cfg(not(feature = "dev"))]
#[inline(always)]
pub fn around<T, E, F: Future<Output = Result<T, E>>>(_: Step, work: F) -> F {
    work
}
