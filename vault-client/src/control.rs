//! The control plane, for operators.

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use vault_proto::v1::approval_service_client::ApprovalServiceClient;
use vault_proto::v1::charter_service_client::CharterServiceClient;
use vault_proto::v1::dataset_service_client::DatasetServiceClient;
use vault_proto::v1::grant_service_client::GrantServiceClient;
use vault_proto::v1::policy_service_client::PolicyServiceClient;
use vault_proto::v1::scorecard_service_client::ScorecardServiceClient;
use vault_proto::v1::tenant_service_client::TenantServiceClient;
use vault_proto::v1::{
    Approval, CreateDatasetRequest, CreateTenantRequest, Custody, Dataset, GetDatasetRequest, GetTenantRequest,
    ListDatasetsRequest, ListDatasetsResponse, ListTenantsRequest, ListTenantsResponse, ResumeTenantRequest,
    RotateDataKeysRequest, RotateTenantKeyRequest, RotateTenantKeyResponse, SuspendTenantRequest, Tenant,
};

use crate::approvals::an_approval;
use crate::call::{ANSWER_ROOM, Limits};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::operator_token::{ControlChannel, OperatorTokens};

/// Calls the services of the control plane (`TenantService`, `DatasetService`, `ApprovalService`, `GrantService`,
/// `PolicyService`, `CharterService`, `ScorecardService` of `vault.v1`) with an operator's certificate. Clones share one connection. Every change takes a
/// `reason`, which is kept in the audit log.
///
/// # Errors
/// Every call fails with a [`ClientError`]: `Local` if the request is over a limit, `Transport` if the gateway was not
/// reached or did not answer in time, `Gateway` if it refused.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    tenants: TenantServiceClient<ControlChannel>,
    datasets: DatasetServiceClient<ControlChannel>,
    pub(crate) approvals: ApprovalServiceClient<ControlChannel>,
    pub(crate) grants: GrantServiceClient<ControlChannel>,
    pub(crate) policies: PolicyServiceClient<ControlChannel>,
    pub(crate) charters: CharterServiceClient<ControlChannel>,
    pub(crate) scorecards: ScorecardServiceClient<ControlChannel>,
    pub(crate) limits: Limits,
    channel: Channel,
}

impl OperatorClient {
    /// Connects to the control-plane listener of a gateway.
    ///
    /// # Errors
    /// Those of [`Endpoint::channel`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self::from_channel(endpoint.channel().await?))
    }

    /// Uses a channel that exists.
    pub fn from_channel(channel: Channel) -> Self {
        Self::bringing(OperatorTokens::default(), channel)
    }

    fn bringing(tokens: OperatorTokens, channel: Channel) -> Self {
        let through = || InterceptedService::new(channel.clone(), tokens.clone());
        Self {
            tenants: TenantServiceClient::new(through()),
            datasets: DatasetServiceClient::new(through()),
            approvals: ApprovalServiceClient::new(through()),
            grants: GrantServiceClient::new(through()),
            policies: PolicyServiceClient::new(through()),
            charters: CharterServiceClient::new(through()),
            scorecards: ScorecardServiceClient::new(through()),
            limits: Limits::default(),
            channel,
        }
    }

    /// Brings a token with each call from here on, as a gateway demands that is told whose tokens prove operators.
    #[must_use]
    pub fn with_tokens(self, tokens: OperatorTokens) -> Self {
        Self { limits: self.limits, ..Self::bringing(tokens, self.channel) }
    }

    /// Sets sizes and the deadline of calls from here on.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes a tenant, under the gateway's default root key unless one is named.
    ///
    /// # Errors
    /// See the type.
    pub async fn create_tenant(
        &self,
        tenant: &str,
        root_key_id: Option<&str>,
        reason: &str,
    ) -> Result<Tenant, ClientError> {
        let message = CreateTenantRequest {
            tenant: tenant.into(),
            root_key_id: root_key_id.unwrap_or_default().into(),
            reason: reason.into(),
            custody: None,
        };
        let request = self.limits.request(message, self.limits.unary)?;
        a_tenant(self.limits.answer(self.tenants().create_tenant(request)).await?.tenant)
    }

    /// Makes a tenant under a custody of the caller's choice: split or replicated root keys.
    ///
    /// # Errors
    /// See the type.
    pub async fn create_tenant_under(
        &self,
        tenant: &str,
        custody: Custody,
        reason: &str,
    ) -> Result<Tenant, ClientError> {
        let message = CreateTenantRequest {
            tenant: tenant.into(),
            root_key_id: String::new(),
            reason: reason.into(),
            custody: Some(custody),
        };
        let request = self.limits.request(message, self.limits.unary)?;
        a_tenant(self.limits.answer(self.tenants().create_tenant(request)).await?.tenant)
    }

    /// Reads one tenant.
    ///
    /// # Errors
    /// See the type.
    pub async fn get_tenant(&self, tenant: &str) -> Result<Tenant, ClientError> {
        let message = GetTenantRequest { tenant: tenant.into(), reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        a_tenant(self.limits.answer(self.tenants().get_tenant(request)).await?.tenant)
    }

    /// Reads one page of tenants: at most `page_size` (0 for the gateway's default), from where `page_token` left off
    /// (empty for the first page).
    ///
    /// # Errors
    /// See the type.
    pub async fn list_tenants(&self, page_size: i32, page_token: &str) -> Result<ListTenantsResponse, ClientError> {
        let message = ListTenantsRequest { page_size, page_token: page_token.into(), reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.tenants().list_tenants(request)).await
    }

    /// Stops every data call for a tenant.
    ///
    /// # Errors
    /// See the type.
    pub async fn suspend_tenant(&self, tenant: &str, reason: &str) -> Result<Tenant, ClientError> {
        let message = SuspendTenantRequest { tenant: tenant.into(), reason: reason.into(), etag: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        a_tenant(self.limits.answer(self.tenants().suspend_tenant(request)).await?.tenant)
    }

    /// Asks for a suspension to be lifted. Nothing happens until others approve it.
    ///
    /// # Errors
    /// See the type.
    pub async fn resume_tenant(&self, tenant: &str, reason: &str) -> Result<Approval, ClientError> {
        let message = ResumeTenantRequest { tenant: tenant.into(), reason: reason.into(), etag: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        an_approval(self.limits.answer(self.tenants().resume_tenant(request)).await?.approval)
    }

    /// Makes a new version of the tenant key, under the custody of the one before.
    ///
    /// # Errors
    /// See the type.
    pub async fn rotate_tenant_key(&self, tenant: &str, reason: &str) -> Result<RotateTenantKeyResponse, ClientError> {
        self.rotate(tenant, None, reason).await
    }

    /// Asks for a new version of the tenant key under another custody: nothing happens until others approve `approval` of
    /// the answer. Under the custody that the tenant has, it is made at once.
    ///
    /// # Errors
    /// See the type.
    pub async fn rotate_tenant_key_to(
        &self,
        tenant: &str,
        custody: Custody,
        reason: &str,
    ) -> Result<RotateTenantKeyResponse, ClientError> {
        self.rotate(tenant, Some(custody), reason).await
    }

    async fn rotate(
        &self,
        tenant: &str,
        custody: Option<Custody>,
        reason: &str,
    ) -> Result<RotateTenantKeyResponse, ClientError> {
        let message =
            RotateTenantKeyRequest { tenant: tenant.into(), reason: reason.into(), etag: String::new(), custody };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.tenants().rotate_tenant_key(request)).await
    }

    /// Makes a new version of the data keys of one dataset, or of all; returns how many.
    ///
    /// # Errors
    /// See the type.
    pub async fn rotate_data_keys(
        &self,
        tenant: &str,
        dataset: Option<&str>,
        reason: &str,
    ) -> Result<u64, ClientError> {
        let message =
            RotateDataKeysRequest { tenant: tenant.into(), dataset: dataset.map(Into::into), reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        Ok(self.limits.answer(self.tenants().rotate_data_keys(request)).await?.rotated_data_keys)
    }

    /// Makes a dataset.
    ///
    /// # Errors
    /// See the type.
    pub async fn create_dataset(
        &self,
        tenant: &str,
        dataset: &str,
        classification: &str,
        residency: &str,
        reason: &str,
    ) -> Result<Dataset, ClientError> {
        self.create_dataset_as(CreateDatasetRequest {
            tenant: tenant.into(),
            dataset: dataset.into(),
            classification: classification.into(),
            residency: residency.into(),
            reason: reason.into(),
            consent_required: false,
        })
        .await
    }

    /// The same with all that can be declared of a dataset, among others that it demands the tenant's consent.
    ///
    /// # Errors
    /// See the type.
    pub async fn create_dataset_as(&self, message: CreateDatasetRequest) -> Result<Dataset, ClientError> {
        let request = self.limits.request(message, self.limits.unary)?;
        a_dataset(self.limits.answer(self.datasets().create_dataset(request)).await?.dataset)
    }

    /// Reads one dataset.
    ///
    /// # Errors
    /// See the type.
    pub async fn get_dataset(&self, tenant: &str, dataset: &str) -> Result<Dataset, ClientError> {
        let message = GetDatasetRequest { tenant: tenant.into(), dataset: dataset.into(), reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        a_dataset(self.limits.answer(self.datasets().get_dataset(request)).await?.dataset)
    }

    /// Reads one page of a tenant's datasets; see [`OperatorClient::list_tenants`].
    ///
    /// # Errors
    /// See the type.
    pub async fn list_datasets(
        &self,
        tenant: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListDatasetsResponse, ClientError> {
        let message = ListDatasetsRequest {
            tenant: tenant.into(),
            page_size,
            page_token: page_token.into(),
            reason: String::new(),
        };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.datasets().list_datasets(request)).await
    }

    pub(crate) fn tenants(&self) -> TenantServiceClient<ControlChannel> {
        self.tenants.clone().max_decoding_message_size(self.limits.unary.saturating_add(ANSWER_ROOM))
    }

    fn datasets(&self) -> DatasetServiceClient<ControlChannel> {
        self.datasets.clone().max_decoding_message_size(self.limits.unary.saturating_add(ANSWER_ROOM))
    }
}

fn a_tenant(tenant: Option<Tenant>) -> Result<Tenant, ClientError> {
    tenant.ok_or_else(|| ClientError::malformed("the answer lacks its tenant"))
}

fn a_dataset(dataset: Option<Dataset>) -> Result<Dataset, ClientError> {
    dataset.ok_or_else(|| ClientError::malformed("the answer lacks its dataset"))
}
