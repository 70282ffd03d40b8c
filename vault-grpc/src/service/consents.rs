//! `ConsentService`: on the data plane, as a workload asks for an end user. No operator reaches it.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status};
use vault_core::id::{ConsentId, TenantId};
use vault_core::policy::{ConsentAction, GrantConsent, ListConsents, WithdrawConsent};
use vault_core::principal::Workload;
use vault_core::vault::{ConsentCall, new_request_id};
use vault_core::{Error, Vault};
use vault_proto::v1;
use vault_proto::v1::consent_service_server::ConsentService;

use super::workload_of;
use crate::convert::consent as form;
use crate::end_users::EndUsers;
use crate::{convert, status};

/// The service.
#[derive(Debug, Clone)]
pub struct Consents {
    vault: Arc<Vault>,
    end_users: Arc<EndUsers>,
}

impl Consents {
    /// The consents of a vault, for the end users of these issuers.
    pub const fn new(vault: Arc<Vault>, end_users: Arc<EndUsers>) -> Self {
        Self { vault, end_users }
    }

    /// For whom a call is made: a refusal of their token is in the log before it is told.
    async fn call<'a, A: ConsentAction>(
        &self,
        who: &'a Workload,
        tenant: &'a TenantId,
        token: &Bytes,
    ) -> Result<ConsentCall<'a>, Error> {
        if token.is_empty() {
            return Err(Error::invalid("end_user_token", "is required"));
        }
        let request = new_request_id()?;
        match self.end_users.verify(token, who).await {
            Ok(end_user) => Ok(ConsentCall { who, end_user, tenant, request }),
            Err(rule) => Err(self.vault.refuse_consent_token::<A>(who, (tenant, request), rule).await),
        }
    }
}

fn answer<T>(done: Result<T, Error>) -> Result<Response<T>, Status> {
    done.map(Response::new).map_err(|error| status::status(&form::api_field(error)))
}

#[tonic::async_trait]
impl ConsentService for Consents {
    async fn grant_consent(
        &self,
        request: Request<v1::GrantConsentRequest>,
    ) -> Result<Response<v1::GrantConsentResponse>, Status> {
        let who = workload_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let new = form::new_consent(request)?;
            let call = self.call::<GrantConsent>(&who, &tenant, &request.end_user_token).await?;
            let given = self.vault.grant_consent(&call, &new).await?;
            let consent = Some(form::consent(&given.consent));
            Ok(v1::GrantConsentResponse { consent, audit_entry: given.audit_entry })
        };
        answer(done.await)
    }

    async fn withdraw_consent(
        &self,
        request: Request<v1::WithdrawConsentRequest>,
    ) -> Result<Response<v1::WithdrawConsentResponse>, Status> {
        let who = workload_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let id = ConsentId::parse(&request.consent)?;
            let call = self.call::<WithdrawConsent>(&who, &tenant, &request.end_user_token).await?;
            let withdrawn = self.vault.withdraw_consent(&call, id).await?;
            let consent = Some(form::consent(&withdrawn.consent));
            Ok(v1::WithdrawConsentResponse { consent, audit_entry: withdrawn.audit_entry })
        };
        answer(done.await)
    }

    async fn list_consents(
        &self,
        request: Request<v1::ListConsentsRequest>,
    ) -> Result<Response<v1::ListConsentsResponse>, Status> {
        let who = workload_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let size = convert::page_size(request.page_size)?;
            let after = convert::page_token(&request.page_token, ConsentId::parse)?;
            let call = self.call::<ListConsents>(&who, &tenant, &request.end_user_token).await?;
            let found = self.vault.list_consents(&call, after, size + 1).await?;
            let (found, next_page_token) = convert::page(found, size, |consent| consent.id.to_string());
            Ok(v1::ListConsentsResponse { consents: found.iter().map(form::consent).collect(), next_page_token })
        };
        answer(done.await)
    }
}
