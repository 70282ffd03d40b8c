//! `ApprovalService`: what takes more than one operator.

use tonic::{Request, Response, Status};
use vault_core::Error;
use vault_core::id::{ApprovalId, Fingerprint, Subject, TenantId};
use vault_core::keys::Seen;
use vault_proto::v1;
use vault_proto::v1::approval_service_server::ApprovalService;

use super::operator_of;
use super::tenants::{Control, answer, call};
use crate::convert;
use crate::convert::approval::{show, wanted};

/// Whose keys an approval is about; none if it is about the whole vault.
fn tenant(text: &str) -> Result<Option<TenantId>, Error> {
    if text.is_empty() { Ok(None) } else { TenantId::parse(text).map(Some) }
}

#[tonic::async_trait]
impl ApprovalService for Control {
    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let size = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token, ApprovalId::parse)?;
            let wanted = wanted(request)?;
            let call = call(&who, reason.as_ref())?;
            let (found, next) = self.vault.find_approvals(&call, wanted, after, size).await?;
            let next_page_token = next.map(|id| id.to_string()).unwrap_or_default();
            Ok(v1::ListApprovalsResponse { approvals: found.iter().map(show).collect(), next_page_token })
        };
        answer(done.await)
    }

    async fn get_approval(
        &self,
        request: Request<v1::GetApprovalRequest>,
    ) -> Result<Response<v1::GetApprovalResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = tenant(&request.tenant)?;
            let id = ApprovalId::parse(&request.approval)?;
            let reason = convert::reason(&request.reason)?;
            let call = call(&who, reason.as_ref())?;
            let found = match tenant {
                Some(tenant) => self.vault.get_approval(&call, &tenant, id).await?,
                None => self.vault.get_activation(&call, id).await?,
            };
            Ok(v1::GetApprovalResponse { approval: Some(show(&found)) })
        };
        answer(done.await)
    }

    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Result<Response<v1::ApproveResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = tenant(&request.tenant)?;
            let id = ApprovalId::parse(&request.approval)?;
            let request_sha256 = Fingerprint::parse(&request.request_sha256)?;
            let subject = request.subject.as_deref().map(Subject::parse).transpose()?;
            let seen = Seen { request_sha256, subject: subject.as_ref() };
            let reason = convert::required_reason(&request.reason)?;
            let call = call(&who, Some(&reason))?;
            let done = match tenant {
                Some(tenant) => self.vault.approve(&call, (&tenant, id), seen).await?,
                None => self.vault.approve_activation(&call, id, seen).await?,
            };
            Ok(v1::ApproveResponse { approval: Some(show(&done)) })
        };
        answer(done.await)
    }

    async fn reject(&self, request: Request<v1::RejectRequest>) -> Result<Response<v1::RejectResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = tenant(&request.tenant)?;
            let id = ApprovalId::parse(&request.approval)?;
            let reason = convert::required_reason(&request.reason)?;
            let call = call(&who, Some(&reason))?;
            let done = match tenant {
                Some(tenant) => self.vault.reject(&call, &tenant, id).await?,
                None => self.vault.reject_activation(&call, id).await?,
            };
            Ok(v1::RejectResponse { approval: Some(show(&done)) })
        };
        answer(done.await)
    }

    async fn cancel_approval(
        &self,
        request: Request<v1::CancelApprovalRequest>,
    ) -> Result<Response<v1::CancelApprovalResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = tenant(&request.tenant)?;
            let id = ApprovalId::parse(&request.approval)?;
            let reason = convert::required_reason(&request.reason)?;
            let done = self.vault.cancel_approval(&call(&who, Some(&reason))?, tenant.as_ref(), id).await?;
            Ok(v1::CancelApprovalResponse { approval: Some(show(&done)) })
        };
        answer(done.await)
    }
}
