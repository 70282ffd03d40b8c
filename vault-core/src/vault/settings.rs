//! How long keys and approvals live, and how many people it takes to approve something.

use crate::keys::{Demand, MAX_REQUIRED, Ordered};

use crate::keys::CensusLimits;

/// A day in milliseconds.
const DAY: u64 = 86_400_000;

/// How long keys and approvals live. [`super::Vault::tend`] keeps to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleSettings {
    /// How long something may wait for its approval, in milliseconds.
    pub approval_millis: u64,
    /// How long after a shred the tenant key versions above the shredded keys are destroyed, in milliseconds; if it is
    /// less than [`Self::SHORTEST_DESTRUCTION`], that.
    pub destroy_after_millis: u64,
    /// The age, in milliseconds, at which a tenant key is rotated; `None` for never.
    pub tenant_key_age_millis: Option<u64>,
    /// The age, in milliseconds, at which a data key is rotated; `None` for never.
    pub data_key_age_millis: Option<u64>,
    /// How often a data key seals before it is rotated. [`Self::MOST_USES`] at most.
    pub data_key_uses: u64,
}

impl LifecycleSettings {
    /// Longer than any permit holds: when tenant key versions are destroyed, no call is left that began under them.
    pub const SHORTEST_DESTRUCTION: u64 = 60_000;
    /// 2^47: half of what a data key can ever seal, so that there is time to rotate it.
    pub const MOST_USES: u64 = 1 << 47;
}

impl From<&LifecycleSettings> for CensusLimits {
    fn from(settings: &LifecycleSettings) -> Self {
        Self {
            tenant_key_age_millis: settings.tenant_key_age_millis,
            data_key_age_millis: settings.data_key_age_millis,
            data_key_uses: settings.data_key_uses.min(LifecycleSettings::MOST_USES),
        }
    }
}

impl Default for LifecycleSettings {
    /// Approvals wait a day, tenant key versions are destroyed after a week, keys are rotated when they are a year old or
    /// have sealed 2^32 times.
    fn default() -> Self {
        Self {
            approval_millis: DAY,
            destroy_after_millis: 7 * DAY,
            tenant_key_age_millis: Some(365 * DAY),
            data_key_age_millis: Some(365 * DAY),
            data_key_uses: 1 << 32,
        }
    }
}

/// How many people it takes to approve something besides the one who asks, and how long a shred waits then
/// (docs/approvals.md). What is asked for keeps what was demanded at that time; later settings can only raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalSettings {
    /// Where nothing else is said: 1 to [`ApprovalSettings::MOST`].
    pub required: u8,
    /// For the shred of a subject.
    pub shred_subject: Option<u8>,
    /// For the shred of a tenant.
    pub shred_tenant: Option<u8>,
    /// For a time-bound grant of roles.
    pub request_grant: Option<u8>,
    /// For a policy bundle, registry included.
    pub activate_policy: Option<u8>,
    /// For the end of a tenant's suspension.
    pub resume_tenant: Option<u8>,
    /// For other root keys of a tenant.
    pub change_custody: Option<u8>,
    /// For another charter.
    pub change_charter: Option<u8>,
    /// How long a shred that is approved waits until it is carried out, and can be cancelled, in milliseconds.
    pub shred_delay_millis: u64,
}

impl ApprovalSettings {
    /// Most people that can be demanded.
    pub const MOST: u8 = MAX_REQUIRED;
    /// The longest delay of a shred, in milliseconds: 30 days.
    pub const LONGEST_DELAY: u64 = 30 * DAY;

    /// What they demand of a request. Never less than one other person, whatever they say.
    pub(super) fn demand(&self, ordered: &Ordered) -> Demand {
        let special = match ordered {
            Ordered::ShredSubject(..) => self.shred_subject,
            Ordered::ShredTenant(_) => self.shred_tenant,
            Ordered::Grant(_) => self.request_grant,
            Ordered::ActivatePolicy(_) => self.activate_policy,
            Ordered::ResumeTenant(..) => self.resume_tenant,
            Ordered::ChangeCustody(..) => self.change_custody,
            Ordered::ChangeCharter { .. } => self.change_charter,
        };
        let delay_millis = if ordered.destroys() { self.shred_delay_millis.min(Self::LONGEST_DELAY) } else { 0 };
        Demand { required: special.unwrap_or(self.required).clamp(1, Self::MOST), delay_millis }
    }
}

impl Default for ApprovalSettings {
    /// One other person for everything, and no delay.
    fn default() -> Self {
        Self {
            required: 1,
            shred_subject: None,
            shred_tenant: None,
            request_grant: None,
            activate_policy: None,
            resume_tenant: None,
            change_custody: None,
            change_charter: None,
            shred_delay_millis: 0,
        }
    }
}
