//! Roles of a workload for a while: asking for them, ending them. [`OperatorClient::approve`] makes them.

use vault_proto::v1::grant_service_client::GrantServiceClient;
use vault_proto::v1::{
    Approval, Grant, GrantOrder, ListGrantsRequest, ListGrantsResponse, RequestGrantRequest, RevokeGrantRequest,
};

use crate::call::ANSWER_ROOM;
use crate::control::OperatorClient;
use crate::error::ClientError;
use crate::operator_token::ControlChannel;

impl OperatorClient {
    /// Asks for a grant. Nothing happens until another operator approves it.
    ///
    /// # Errors
    /// See the type.
    pub async fn request_grant(&self, tenant: &str, order: GrantOrder, reason: &str) -> Result<Approval, ClientError> {
        let message = RequestGrantRequest { tenant: tenant.into(), order: Some(order), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        let approval = self.limits.answer(self.grants().request_grant(request)).await?.approval;
        approval.ok_or_else(|| ClientError::malformed("the answer lacks its approval"))
    }

    /// Ends a grant early, for ever.
    ///
    /// # Errors
    /// See the type.
    pub async fn revoke_grant(&self, tenant: &str, grant: &str, reason: &str) -> Result<Grant, ClientError> {
        let message = RevokeGrantRequest { tenant: tenant.into(), grant: grant.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        let grant = self.limits.answer(self.grants().revoke_grant(request)).await?.grant;
        grant.ok_or_else(|| ClientError::malformed("the answer lacks its grant"))
    }

    /// Reads one page of a tenant's grants, oldest first; see [`OperatorClient::list_tenants`].
    ///
    /// # Errors
    /// See the type.
    pub async fn list_grants(
        &self,
        tenant: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListGrantsResponse, ClientError> {
        let page_token = page_token.into();
        let message = ListGrantsRequest { tenant: tenant.into(), page_size, page_token, reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.grants().list_grants(request)).await
    }

    fn grants(&self) -> GrantServiceClient<ControlChannel> {
        self.grants.clone().max_decoding_message_size(self.limits.unary.saturating_add(ANSWER_ROOM))
    }
}
