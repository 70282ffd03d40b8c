//! Consents of a tenant's end users, for workloads.

use tonic::transport::Channel;
use vault_proto::v1::consent_service_client::ConsentServiceClient;
use vault_proto::v1::{
    Consent, GrantConsentRequest, GrantConsentResponse, ListConsentsRequest, ListConsentsResponse,
    WithdrawConsentRequest, WithdrawConsentResponse,
};

use crate::call::{ANSWER_ROOM, Limits};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::value::EndUserToken;

/// Calls `vault.v1.ConsentService` with a workload's certificate, for the end user whose token each call brings. Clones
/// share one connection.
///
/// # Errors
/// Every call fails with a [`ClientError`]: `Local` if the request is over a limit, `Transport` if the gateway was not
/// reached or did not answer in time, `Gateway` if it refused.
#[derive(Debug, Clone)]
pub struct ConsentClient {
    inner: ConsentServiceClient<Channel>,
    limits: Limits,
}

impl ConsentClient {
    /// Connects to the data-plane listener of a gateway.
    ///
    /// # Errors
    /// Those of [`Endpoint::channel`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self::from_channel(endpoint.channel().await?))
    }

    /// Uses a channel that exists.
    pub fn from_channel(channel: Channel) -> Self {
        Self { inner: ConsentServiceClient::new(channel), limits: Limits::default() }
    }

    /// Gives the consent that `wanted` describes: its tenant, datasets, purposes and times; the rest of it is not read.
    ///
    /// # Errors
    /// See the type.
    pub async fn grant(&self, end_user: &EndUserToken, wanted: Consent) -> Result<GrantConsentResponse, ClientError> {
        let Consent { tenant, datasets, all_datasets, purposes, start_time, end_time, .. } = wanted;
        let end_user_token = end_user.bytes();
        let message =
            GrantConsentRequest { tenant, end_user_token, datasets, all_datasets, purposes, start_time, end_time };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.client().grant_consent(request)).await
    }

    /// Takes a consent back, for ever.
    ///
    /// # Errors
    /// See the type.
    pub async fn withdraw(
        &self,
        end_user: &EndUserToken,
        tenant: &str,
        consent: &str,
    ) -> Result<WithdrawConsentResponse, ClientError> {
        let end_user_token = end_user.bytes();
        let message = WithdrawConsentRequest { tenant: tenant.into(), end_user_token, consent: consent.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.client().withdraw_consent(request)).await
    }

    /// Reads one page of a tenant's consents, oldest first: at most `page_size` (0 for the gateway's default), from where
    /// `page_token` left off (empty for the first page).
    ///
    /// # Errors
    /// See the type.
    pub async fn list(
        &self,
        end_user: &EndUserToken,
        tenant: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<ListConsentsResponse, ClientError> {
        let (end_user_token, page_token) = (end_user.bytes(), page_token.into());
        let message = ListConsentsRequest { tenant: tenant.into(), end_user_token, page_size, page_token };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.client().list_consents(request)).await
    }

    fn client(&self) -> ConsentServiceClient<Channel> {
        self.inner.clone().max_decoding_message_size(self.limits.unary.saturating_add(ANSWER_ROOM))
    }
}
