//! How long keys and approvals live.

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
