//! End users: the issuers of their tokens, and what was refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use vault_core::principal::{EndUser, TokenError, Workload};

use crate::config::{Config, ConfigError};
use crate::issuers::{self, FileKeys, TokenKeys};

/// Verifies the tokens of end users. By default there are no issuers, and every token is refused.
#[derive(Debug, Default)]
pub struct EndUsers {
    keys: Arc<TokenKeys>,
    /// Tokens that were refused since the start, by the name of the rule.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// Reads every key file that a configuration names for end users.
///
/// # Errors
/// The first that is not acceptable.
pub fn file_keys(config: &Config) -> Result<FileKeys, ConfigError> {
    issuers::file_keys(&config.end_users)
}

impl EndUsers {
    /// The issuers of a configuration, with the keys that are in files; others are fetched once [`Self::fetch`] runs.
    ///
    /// # Errors
    /// The first file that is not acceptable.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        let keys = TokenKeys::load(&config.file.display().to_string(), &config.end_users)?;
        Ok(Self { keys: Arc::new(keys), refused: Mutex::default() })
    }

    /// Puts keys from files in force.
    pub fn put(&self, keys: FileKeys) {
        self.keys.put(keys);
    }

    /// Begins to fetch, for as long as the tasks live.
    #[must_use]
    pub fn fetch(&self) -> Vec<JoinHandle<()>> {
        self.keys.fetch()
    }

    /// Verifies a token in the hand of a workload. One whose key is not known has the keys fetched, if that was not done
    /// a short time ago, and waits for it as long as a fetch may take.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub async fn verify(&self, token: &[u8], who: &Workload) -> Result<Arc<EndUser>, TokenError> {
        let verified = self.keys.judge(token, Some, |issuers, now| issuers.end_user(token, who, now)).await;
        if let Err(rule) = &verified {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let count = refused.entry(rule.name()).or_default();
            *count = count.saturating_add(1);
        }
        verified
    }

    /// How many tokens were refused since the start, by the rule.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
