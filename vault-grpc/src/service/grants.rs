//! `GrantService`: roles for a while, on the control plane.

use tonic::{Request, Response, Status};
use vault_core::Error;
use vault_core::id::{GrantId, TenantId};
use vault_proto::v1;
use vault_proto::v1::grant_service_server::GrantService;

use super::operator_of;
use super::tenants::{Control, answer, call};
use crate::convert;
use crate::convert::{approval, consent};

#[tonic::async_trait]
impl GrantService for Control {
    async fn request_grant(
        &self,
        request: Request<v1::RequestGrantRequest>,
    ) -> Result<Response<v1::RequestGrantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let order = consent::order(&tenant, request.order.as_ref())?;
            let reason = convert::required_reason(&request.reason)?;
            let asked = self.vault.request_grant(&call(&who, Some(&reason))?, order).await;
            let asked = asked.map_err(consent::order_field)?;
            Ok::<_, Error>(v1::RequestGrantResponse { approval: Some(approval::show(&asked)) })
        };
        answer(done.await)
    }

    async fn revoke_grant(
        &self,
        request: Request<v1::RevokeGrantRequest>,
    ) -> Result<Response<v1::RevokeGrantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let id = GrantId::parse(&request.grant)?;
            let reason = convert::required_reason(&request.reason)?;
            let revoked = self.vault.revoke_grant(&call(&who, Some(&reason))?, &tenant, id).await?;
            Ok(v1::RevokeGrantResponse { grant: Some(consent::grant(&revoked)) })
        };
        answer(done.await)
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::reason(&request.reason)?;
            let size = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token, GrantId::parse)?;
            let call = call(&who, reason.as_ref())?;
            let found = self.vault.list_grants(&call, &tenant, after, size + 1).await?;
            let (found, next_page_token) = convert::page(found, size, |grant| grant.id.to_string());
            Ok(v1::ListGrantsResponse { grants: found.iter().map(consent::grant).collect(), next_page_token })
        };
        answer(done.await)
    }
}
