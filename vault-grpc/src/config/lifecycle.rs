//! How long keys and approvals live.

use serde::Deserialize;
use toml::Spanned;
use vault_core::vault::LifecycleSettings;

use super::ConfigError;
use super::read::Reader;

type Value = Option<Spanned<u64>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLifecycle {
    approval_s: Value,
    destroy_after_s: Value,
    tenant_key_age_s: Value,
    data_key_age_s: Value,
    data_key_uses: Value,
}

/// The longest time that can be set: ten years, in seconds.
const LONGEST: u64 = 315_360_000;
/// The shortest age at which keys are rotated: an hour, in seconds.
const HOUR: u64 = 3600;

impl Reader<'_> {
    pub(super) fn lifecycle(&self, raw: &RawLifecycle) -> Result<LifecycleSettings, ConfigError> {
        let within = |value: &Value, key: &str, default: u64, least: u64, most: u64| match value {
            None => Ok(default),
            Some(value) if (least..=most).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => Err(self.refuse(value.span().start, key, format!("must be {least} to {most}"))),
        };
        // Zero is never.
        let age = |value: &Value, key: &str, default: Option<u64>| match value {
            None => Ok(default),
            Some(zero) if *zero.get_ref() == 0 => Ok(None),
            Some(value) if (HOUR..=LONGEST).contains(value.get_ref()) => Ok(Some(value.get_ref() * 1000)),
            Some(value) => {
                Err(self.refuse(value.span().start, key, format!("must be 0 for never, or {HOUR} to {LONGEST}")))
            }
        };
        let default = LifecycleSettings::default();
        let shortest = LifecycleSettings::SHORTEST_DESTRUCTION / 1000;
        let (approval, destroy_after) = (default.approval_millis / 1000, default.destroy_after_millis / 1000);
        let (tenant_age, data_age) = (default.tenant_key_age_millis, default.data_key_age_millis);
        Ok(LifecycleSettings {
            approval_millis: within(&raw.approval_s, "lifecycle.approval_s", approval, 60, 2_592_000)? * 1000,
            destroy_after_millis: within(
                &raw.destroy_after_s,
                "lifecycle.destroy_after_s",
                destroy_after,
                shortest,
                LONGEST,
            )? * 1000,
            tenant_key_age_millis: age(&raw.tenant_key_age_s, "lifecycle.tenant_key_age_s", tenant_age)?,
            data_key_age_millis: age(&raw.data_key_age_s, "lifecycle.data_key_age_s", data_age)?,
            data_key_uses: within(
                &raw.data_key_uses,
                "lifecycle.data_key_uses",
                default.data_key_uses,
                1000,
                LifecycleSettings::MOST_USES,
            )?,
        })
    }
}
