//! What takes more than one operator: asking for it, and approving it.

use vault_proto::v1::approval_service_client::ApprovalServiceClient;
use vault_proto::v1::{
    Approval, ApprovalState, ApproveRequest, CancelApprovalRequest, GetApprovalRequest, ListApprovalsRequest,
    ListApprovalsResponse, RejectRequest, ShredSubjectRequest, ShredTenantRequest,
};

use crate::call::ANSWER_ROOM;
use crate::control::OperatorClient;
use crate::error::ClientError;
use crate::operator_token::ControlChannel;

impl OperatorClient {
    /// Asks for the destruction of all data keys of a subject. Nothing happens until another operator approves it.
    ///
    /// # Errors
    /// See the type.
    pub async fn shred_subject(&self, tenant: &str, subject: &str, reason: &str) -> Result<Approval, ClientError> {
        let message = ShredSubjectRequest { tenant: tenant.into(), subject: subject.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.tenants().shred_subject(request)).await?.approval)
    }

    /// Asks for the destruction of all keys of a tenant. Nothing happens until another operator approves it.
    ///
    /// # Errors
    /// See the type.
    pub async fn shred_tenant(&self, tenant: &str, reason: &str) -> Result<Approval, ClientError> {
        let message = ShredTenantRequest { tenant: tenant.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.tenants().shred_tenant(request)).await?.approval)
    }

    /// Reads one page of approvals, oldest first: at most `page_size` (0 for the gateway's default), from where
    /// `page_token` left off (empty for the first page).
    ///
    /// # Errors
    /// See the type.
    pub async fn list_approvals(&self, page_size: i32, page_token: &str) -> Result<ListApprovalsResponse, ClientError> {
        self.find_approvals((ApprovalState::Unspecified, false), page_size, page_token).await
    }

    /// The same, only those in a state, or `Unspecified` for all; and if the other is true, only those that wait for the
    /// caller. A page may hold less than was asked for and not be the last.
    ///
    /// # Errors
    /// See the type.
    pub async fn find_approvals(
        &self,
        (state, waiting_for_me): (ApprovalState, bool),
        page_size: i32,
        page_token: &str,
    ) -> Result<ListApprovalsResponse, ClientError> {
        let message = ListApprovalsRequest {
            page_size,
            page_token: page_token.into(),
            reason: String::new(),
            state: state.into(),
            waiting_for_me,
        };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.approvals().list_approvals(request)).await
    }

    /// Reads one approval, with the erasure receipt once it is executed.
    ///
    /// # Errors
    /// See the type.
    pub async fn get_approval(&self, tenant: &str, approval: &str) -> Result<Approval, ClientError> {
        let message = GetApprovalRequest { tenant: tenant.into(), approval: approval.into(), reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.approvals().get_approval(request)).await?.approval)
    }

    /// Approves what another operator asked for: exactly what `seen` says, as it was read. `subject` is the person that it
    /// is about, if it is: the caller has to know, since `seen` does not say.
    ///
    /// # Errors
    /// See the type.
    pub async fn approve(&self, seen: &Approval, subject: Option<&str>, reason: &str) -> Result<Approval, ClientError> {
        let message = ApproveRequest {
            tenant: seen.tenant.clone(),
            approval: seen.approval.clone(),
            request_sha256: seen.request_sha256.clone(),
            reason: reason.into(),
            subject: subject.map(str::to_owned),
        };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.approvals().approve(request)).await?.approval)
    }

    /// Takes back what is pending, or what is approved and waits for its time.
    ///
    /// # Errors
    /// See the type.
    pub async fn cancel_approval(&self, tenant: &str, approval: &str, reason: &str) -> Result<Approval, ClientError> {
        let message = CancelApprovalRequest { tenant: tenant.into(), approval: approval.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.approvals().cancel_approval(request)).await?.approval)
    }

    /// Rejects what is pending.
    ///
    /// # Errors
    /// See the type.
    pub async fn reject(&self, tenant: &str, approval: &str, reason: &str) -> Result<Approval, ClientError> {
        let message = RejectRequest { tenant: tenant.into(), approval: approval.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.approvals().reject(request)).await?.approval)
    }

    fn approvals(&self) -> ApprovalServiceClient<ControlChannel> {
        self.approvals.clone().max_decoding_message_size(self.limits.unary.saturating_add(ANSWER_ROOM))
    }
}

pub(crate) fn an_approval(approval: Option<Approval>) -> Result<Approval, ClientError> {
    approval.ok_or_else(|| ClientError::malformed("the answer lacks its approval"))
}
