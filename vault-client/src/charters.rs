//! The charter, for operators.

use vault_proto::v1::{Approval, GetCharterRequest, GetCharterResponse, ProposeCharterRequest};

use crate::approvals::an_approval;
use crate::control::OperatorClient;
use crate::error::ClientError;

impl OperatorClient {
    /// Reads the charter in force: what of the gateways' configuration nobody changes alone.
    ///
    /// # Errors
    /// See the type.
    pub async fn get_charter(&self, reason: &str) -> Result<GetCharterResponse, ClientError> {
        let request = self.limits.request(GetCharterRequest { reason: reason.into() }, self.limits.unary)?;
        self.limits.answer(self.charters.clone().get_charter(request)).await
    }

    /// Asks for another charter to come into force. Others have to approve it.
    ///
    /// # Errors
    /// See the type.
    pub async fn propose_charter(&self, text: &str, reason: &str) -> Result<Approval, ClientError> {
        let message = ProposeCharterRequest { text: text.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.charters.clone().propose_charter(request)).await?.approval)
    }
}
