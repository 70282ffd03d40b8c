//! `TenantService` and `DatasetService`: the control plane. An operator's call; no answer can carry plaintext or keys.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_core::id::{DatasetId, Reason, Subject, TenantId};
use vault_core::keys::DatasetProperties;
use vault_core::principal::Operator;
use vault_core::vault::{ControlCall, CustodyChange, new_request_id};
use vault_core::{Error, Vault};
use vault_proto::v1;
use vault_proto::v1::dataset_service_server::DatasetService;
use vault_proto::v1::tenant_service_server::TenantService;

use super::operator_of;
use crate::convert::{self, custody};
use crate::status;

/// The services.
#[derive(Debug, Clone)]
pub struct Control {
    pub(super) vault: Arc<Vault>,
}

impl Control {
    /// The control plane of a vault.
    pub const fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

pub(super) fn call<'a>(who: &'a Operator, reason: Option<&'a Reason>) -> Result<ControlCall<'a>, Error> {
    Ok(ControlCall { who, request: new_request_id()?, reason })
}

pub(super) fn answer<T>(done: Result<T, Error>) -> Result<Response<T>, Status> {
    done.map(Response::new).map_err(|error| status::to_operator(&error))
}

#[tonic::async_trait]
impl TenantService for Control {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::required_reason(&request.reason)?;
            let call = call(&who, Some(&reason))?;
            let made = match custody::of_new(&request.root_key_id, request.custody.as_ref())? {
                Some(custody) => self.vault.create_tenant_under(&call, &tenant, &custody).await,
                None => self.vault.create_tenant(&call, &tenant).await,
            };
            let made = made.map_err(|error| custody::named_as_asked(&request.root_key_id, error))?;
            Ok(v1::CreateTenantResponse { tenant: Some(convert::tenant(&made)) })
        };
        answer(done.await)
    }

    async fn get_tenant(
        &self,
        request: Request<v1::GetTenantRequest>,
    ) -> Result<Response<v1::GetTenantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::reason(&request.reason)?;
            let found = self.vault.get_tenant(&call(&who, reason.as_ref())?, &tenant).await?;
            Ok(v1::GetTenantResponse { tenant: Some(convert::tenant(&found)) })
        };
        answer(done.await)
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let size = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token, TenantId::parse)?;
            let found = self.vault.list_tenants(&call(&who, reason.as_ref())?, after.as_ref(), size + 1).await?;
            let (found, next_page_token) = convert::page(found, size, |tenant| tenant.id.to_string());
            Ok(v1::ListTenantsResponse { tenants: found.iter().map(convert::tenant).collect(), next_page_token })
        };
        answer(done.await)
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::SuspendTenantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::required_reason(&request.reason)?;
            let revision = convert::revision(&request.etag)?;
            let done = self.vault.suspend_tenant(&call(&who, Some(&reason))?, &tenant, revision).await?;
            Ok(v1::SuspendTenantResponse { tenant: Some(convert::tenant(&done)) })
        };
        answer(done.await)
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Result<Response<v1::ResumeTenantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::required_reason(&request.reason)?;
            let revision = convert::revision(&request.etag)?;
            let asked = self.vault.resume_tenant(&call(&who, Some(&reason))?, &tenant, revision).await?;
            Ok(v1::ResumeTenantResponse { approval: Some(convert::approval::show(&asked)) })
        };
        answer(done.await)
    }

    async fn rotate_tenant_key(
        &self,
        request: Request<v1::RotateTenantKeyRequest>,
    ) -> Result<Response<v1::RotateTenantKeyResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::required_reason(&request.reason)?;
            let revision = convert::revision(&request.etag)?;
            let call = call(&who, Some(&reason))?;
            let (done, asked) = match request.custody.as_ref().map(custody::parse).transpose()? {
                None => (self.vault.rotate_tenant_key(&call, &tenant, revision).await?, None),
                Some(custody) => match self.vault.rotate_tenant_key_to(&call, &tenant, revision, &custody).await? {
                    CustodyChange::None(rotated) => (rotated, None),
                    CustodyChange::Asked(tenant, asked) => (tenant, Some(asked)),
                },
            };
            let rotation = done.rotation.as_ref().filter(|_| asked.is_none());
            Ok(v1::RotateTenantKeyResponse {
                tenant: Some(convert::tenant(&done)),
                rewrapped_data_keys: rotation.map_or(0, |rotation| rotation.data_keys),
                approval: asked.map(|asked| convert::approval::show(&asked)),
            })
        };
        answer(done.await)
    }

    async fn rotate_data_keys(
        &self,
        request: Request<v1::RotateDataKeysRequest>,
    ) -> Result<Response<v1::RotateDataKeysResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let dataset = request.dataset.as_deref().map(DatasetId::parse).transpose()?;
            let reason = convert::required_reason(&request.reason)?;
            let rotated_data_keys =
                self.vault.rotate_data_keys(&call(&who, Some(&reason))?, &tenant, dataset.as_ref()).await?;
            Ok(v1::RotateDataKeysResponse { rotated_data_keys })
        };
        answer(done.await)
    }

    async fn shred_subject(
        &self,
        request: Request<v1::ShredSubjectRequest>,
    ) -> Result<Response<v1::ShredSubjectResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let subject = Subject::parse(&request.subject)?;
            let reason = convert::required_reason(&request.reason)?;
            let asked = self.vault.shred_subject(&call(&who, Some(&reason))?, &tenant, &subject).await?;
            Ok(v1::ShredSubjectResponse { approval: Some(convert::approval::show(&asked)) })
        };
        answer(done.await)
    }

    async fn shred_tenant(
        &self,
        request: Request<v1::ShredTenantRequest>,
    ) -> Result<Response<v1::ShredTenantResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::required_reason(&request.reason)?;
            let asked = self.vault.shred_tenant(&call(&who, Some(&reason))?, &tenant).await?;
            Ok(v1::ShredTenantResponse { approval: Some(convert::approval::show(&asked)) })
        };
        answer(done.await)
    }
}

#[tonic::async_trait]
impl DatasetService for Control {
    async fn create_dataset(
        &self,
        request: Request<v1::CreateDatasetRequest>,
    ) -> Result<Response<v1::CreateDatasetResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let dataset = DatasetId::parse(&request.dataset)?;
            let classification = convert::property("classification", &request.classification)?;
            let residency = convert::property("residency", &request.residency)?;
            let reason = convert::required_reason(&request.reason)?;
            let call = call(&who, Some(&reason))?;
            let consent_required = request.consent_required;
            let properties = DatasetProperties { classification, residency, consent_required };
            let made = self.vault.create_dataset_as(&call, (&tenant, &dataset), properties).await?;
            Ok(v1::CreateDatasetResponse { dataset: Some(convert::dataset(&made)) })
        };
        answer(done.await)
    }

    async fn get_dataset(
        &self,
        request: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::GetDatasetResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let dataset = DatasetId::parse(&request.dataset)?;
            let reason = convert::reason(&request.reason)?;
            let found = self.vault.get_dataset(&call(&who, reason.as_ref())?, (&tenant, &dataset)).await?;
            Ok(v1::GetDatasetResponse { dataset: Some(convert::dataset(&found)) })
        };
        answer(done.await)
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let reason = convert::reason(&request.reason)?;
            let size = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token, DatasetId::parse)?;
            let call = call(&who, reason.as_ref())?;
            let found = self.vault.list_datasets(&call, &tenant, after.as_ref(), size + 1).await?;
            let (found, next_page_token) = convert::page(found, size, |dataset| dataset.id.to_string());
            Ok(v1::ListDatasetsResponse { datasets: found.iter().map(convert::dataset).collect(), next_page_token })
        };
        answer(done.await)
    }
}
