//! `[charter]`: whether what nobody changes alone is kept to in development, too.

use serde::Deserialize;
use toml::Spanned;

use super::read::Reader;
use super::{ConfigError, Environment};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCharter {
    enforce: Option<Spanned<bool>>,
}

impl Reader<'_> {
    pub(super) fn charter(&self, raw: &RawCharter, environment: Environment) -> Result<bool, ConfigError> {
        match (&raw.enforce, environment) {
            (None, Environment::Dev) => Ok(false),
            (None, Environment::Production) => Ok(true),
            (Some(enforce), Environment::Production) if !*enforce.get_ref() => {
                Err(self.refuse(enforce.span().start, "charter.enforce", "must be true in production"))
            }
            (Some(enforce), _) => Ok(*enforce.get_ref()),
        }
    }
}
