//! The scorecard's call. What it says is put together by whoever has the log's files, the certificates and the rest; here
//! is who may read it, and that this is recorded.

use super::Vault;
use super::control::{About, Ask, ControlCall};
use crate::audit::{LogVerifier, Recorded};
use crate::error::Error;
use crate::keys::{Between, Census, CensusLimits};
use crate::policy::{GetScorecard, Permit};

impl Vault {
    /// Answers what `work` puts together, to an operator who may read the scorecard; both ends of it are in the audit log.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Unavailable`]; what `work` returns.
    pub async fn scorecard<T>(
        &self,
        call: &ControlCall<'_>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.operate_about(call, Ask::default(), async |_: &Recorded<Permit<GetScorecard>>| {
            Ok((work.await?, About::executed()))
        })
        .await
    }

    /// [`crate::keys::Keyring::census`] with the limits of this vault's lifecycle.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]; what `between` returns.
    pub async fn census(&self, verifier: &LogVerifier, between: &Between) -> Result<Census, Error> {
        self.keys.census(CensusLimits::from(&self.lifecycle), verifier, between).await
    }
}
