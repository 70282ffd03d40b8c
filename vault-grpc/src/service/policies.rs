//! `PolicyService`: signed bundles of policies and the workload registry.

use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::policy_service_server::PolicyService;

use super::operator_of;
use super::tenants::{Control, answer, call};
use crate::convert;
use crate::convert::policy::{as_asked, document, reference, show, version};

#[tonic::async_trait]
impl PolicyService for Control {
    async fn validate_policy(
        &self,
        request: Request<v1::ValidatePolicyRequest>,
    ) -> Result<Response<v1::ValidatePolicyResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let signed = document(&request.document)?;
            let reason = convert::reason(&request.reason)?;
            let valid = self.vault.validate_policy(&call(&who, reason.as_ref())?, &signed).await?;
            Ok(v1::ValidatePolicyResponse {
                version: valid.reference.version,
                sha256: valid.reference.digest.to_string(),
                signers: valid.signers,
                policies: valid.policies,
                workloads: valid.workloads as u64,
            })
        };
        answer(done.await)
    }

    async fn propose_policy(
        &self,
        request: Request<v1::ProposePolicyRequest>,
    ) -> Result<Response<v1::ProposePolicyResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let signed = document(&request.document)?;
            let reason = convert::required_reason(&request.reason)?;
            let stored = self.vault.propose_policy(&call(&who, Some(&reason))?, &signed).await?;
            Ok(v1::ProposePolicyResponse { bundle: Some(show(&stored)) })
        };
        answer(done.await)
    }

    async fn activate_policy(
        &self,
        request: Request<v1::ActivatePolicyRequest>,
    ) -> Result<Response<v1::ActivatePolicyResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let bundle = reference(request.version, &request.sha256)?;
            let reason = convert::required_reason(&request.reason)?;
            let asked = self.vault.activate_policy(&call(&who, Some(&reason))?, bundle).await.map_err(as_asked)?;
            Ok(v1::ActivatePolicyResponse { approval: Some(convert::approval::show(&asked)) })
        };
        answer(done.await)
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let wanted = (request.version > 0).then_some(request.version);
            let reason = convert::reason(&request.reason)?;
            let (stored, signed) = self.vault.get_policy(&call(&who, reason.as_ref())?, wanted).await?;
            Ok(v1::GetPolicyResponse { bundle: Some(show(&stored)), document: signed.to_document()? })
        };
        answer(done.await)
    }

    async fn list_policies(
        &self,
        request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let size = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token, version)?;
            let found = self.vault.list_policies(&call(&who, reason.as_ref())?, after, size + 1).await?;
            let (found, next_page_token) = convert::page(found, size, |bundle| bundle.reference.version.to_string());
            Ok(v1::ListPoliciesResponse { bundles: found.iter().map(show).collect(), next_page_token })
        };
        answer(done.await)
    }
}
