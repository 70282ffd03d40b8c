//! Policy bundles, for operators.

use vault_proto::v1::policy_service_client::PolicyServiceClient;
use vault_proto::v1::{
    ActivatePolicyRequest, Approval, GetPolicyRequest, GetPolicyResponse, ListPoliciesRequest, ListPoliciesResponse,
    PolicyBundle, ProposePolicyRequest, ValidatePolicyRequest, ValidatePolicyResponse,
};

use crate::approvals::an_approval;
use crate::call::ANSWER_ROOM;
use crate::control::OperatorClient;
use crate::error::ClientError;
use crate::operator_token::ControlChannel;

impl OperatorClient {
    /// Says whether a policy bundle, given as its file, could come into force now.
    ///
    /// # Errors
    /// See the type.
    pub async fn validate_policy(&self, document: &str) -> Result<ValidatePolicyResponse, ClientError> {
        let message = ValidatePolicyRequest { document: document.into(), reason: String::new() };
        let request = self.limits.request(message, self.limits.batch)?;
        self.limits.answer(self.policies().validate_policy(request)).await
    }

    /// Puts a policy bundle, given as its file, into the store, where it waits.
    ///
    /// # Errors
    /// See the type.
    pub async fn propose_policy(&self, document: &str, reason: &str) -> Result<PolicyBundle, ClientError> {
        let message = ProposePolicyRequest { document: document.into(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.batch)?;
        a_bundle(self.limits.answer(self.policies().propose_policy(request)).await?.bundle)
    }

    /// Asks for a policy bundle to come into force, exactly the one that `seen` says. Another operator has to approve it.
    ///
    /// # Errors
    /// See the type.
    pub async fn activate_policy(&self, seen: &PolicyBundle, reason: &str) -> Result<Approval, ClientError> {
        let message =
            ActivatePolicyRequest { version: seen.version, sha256: seen.sha256.clone(), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.policies().activate_policy(request)).await?.approval)
    }

    /// Reads a policy bundle with its file; version 0 is the one in force.
    ///
    /// # Errors
    /// See the type.
    pub async fn get_policy(&self, version: u64) -> Result<GetPolicyResponse, ClientError> {
        let request = self.limits.request(GetPolicyRequest { version, reason: String::new() }, self.limits.unary)?;
        self.limits.answer(self.policies().get_policy(request)).await
    }

    /// Reads one page of policy bundles, oldest version first; see [`OperatorClient::list_tenants`].
    ///
    /// # Errors
    /// See the type.
    pub async fn list_policies(&self, page_size: i32, page_token: &str) -> Result<ListPoliciesResponse, ClientError> {
        let message = ListPoliciesRequest { page_size, page_token: page_token.into(), reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.policies().list_policies(request)).await
    }

    fn policies(&self) -> PolicyServiceClient<ControlChannel> {
        self.policies.clone().max_decoding_message_size(self.limits.batch.saturating_add(ANSWER_ROOM))
    }
}

fn a_bundle(bundle: Option<PolicyBundle>) -> Result<PolicyBundle, ClientError> {
    bundle.ok_or_else(|| ClientError::malformed("the answer lacks its bundle"))
}
