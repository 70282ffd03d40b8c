//! How many people it takes to approve something, and how long a shred waits then.

use serde::Deserialize;
use toml::Spanned;
use vault_core::vault::ApprovalSettings;

use super::read::Reader;
use super::{ConfigError, Environment};

type Value = Option<Spanned<u64>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApprovals {
    required: Value,
    shred_subject: Value,
    shred_tenant: Value,
    request_grant: Value,
    activate_policy: Value,
    resume_tenant: Value,
    change_custody: Value,
    change_charter: Value,
    shred_delay_s: Value,
}

/// A day in seconds.
const DAY: u64 = 86_400;

impl Reader<'_> {
    pub(super) fn approvals(
        &self,
        raw: &RawApprovals,
        environment: Environment,
    ) -> Result<ApprovalSettings, ConfigError> {
        let people = |value: &Value, name: &str| {
            let found = self.within(value, &format!("approvals.{name}"), 1, 1, u64::from(ApprovalSettings::MOST))?;
            Ok(u8::try_from(found).unwrap_or(ApprovalSettings::MOST))
        };
        let special = |value: &Value, name: &str| value.is_some().then(|| people(value, name)).transpose();
        let (delay, most) = match environment {
            Environment::Dev => (0, ApprovalSettings::LONGEST_DELAY / 1000),
            Environment::Production => (DAY, ApprovalSettings::LONGEST_DELAY / 1000),
        };
        Ok(ApprovalSettings {
            required: people(&raw.required, "required")?,
            shred_subject: special(&raw.shred_subject, "shred_subject")?,
            shred_tenant: special(&raw.shred_tenant, "shred_tenant")?,
            request_grant: special(&raw.request_grant, "request_grant")?,
            activate_policy: special(&raw.activate_policy, "activate_policy")?,
            resume_tenant: special(&raw.resume_tenant, "resume_tenant")?,
            change_custody: special(&raw.change_custody, "change_custody")?,
            change_charter: special(&raw.change_charter, "change_charter")?,
            shred_delay_millis: self.within(&raw.shred_delay_s, "approvals.shred_delay_s", delay, 0, most)? * 1000,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str, environment: Environment) -> Result<ApprovalSettings, ConfigError> {
        let raw: RawApprovals = toml::from_str(text).unwrap_or_else(|error| unreachable!("{error}"));
        Reader { text, file: Path::new("vault.toml") }.approvals(&raw, environment)
    }

    #[test]
    fn a_shred_waits_a_day_in_production_and_not_at_all_in_development_unless_something_is_said() {
        let delay = |text, environment| read(text, environment).map(|settings| settings.shred_delay_millis);
        assert_eq!(delay("", Environment::Dev), Ok(0));
        assert_eq!(delay("", Environment::Production), Ok(DAY * 1000));
        assert_eq!(delay("shred_delay_s = 3600", Environment::Production), Ok(3_600_000));
    }

    #[test]
    fn at_least_one_other_person_is_demanded_whatever_is_said() {
        let settings = read("required = 2\nshred_tenant = 3", Environment::Production);
        assert_eq!(settings.map(|s| (s.required, s.shred_tenant, s.request_grant)), Ok((2, Some(3), None)));
        for (text, key) in [
            ("required = 0", "approvals.required"),
            ("resume_tenant = 0", "approvals.resume_tenant"),
            ("change_custody = 8", "approvals.change_custody"),
            ("shred_delay_s = 2592001", "approvals.shred_delay_s"),
        ] {
            let refused = read(text, Environment::Production).map_err(|error| error.to_string());
            assert!(refused.as_ref().is_err_and(|why| why.contains(key) && why.contains("must be")), "{refused:?}");
        }
    }
}
