//! The audit log of a gateway, for operators who audit.

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use vault_proto::v1::audit_service_client::AuditServiceClient;
use vault_proto::v1::{
    GetCheckpointRequest, GetCheckpointResponse, GetConsistencyProofRequest, GetConsistencyProofResponse,
    GetInclusionProofRequest, GetInclusionProofResponse, ListEntriesRequest, ListEntriesResponse,
};

use crate::call::Limits;
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::operator_token::{ControlChannel, OperatorTokens};

/// The largest answer: a page of entries.
const MAX_ANSWER: usize = 4 << 20;

/// Calls `vault.v1.AuditService` with an operator's certificate. Clones share one connection. Nothing that it answers was
/// verified.
///
/// # Errors
/// Every call fails with a [`ClientError`]: `Local` if the request is over a limit, `Transport` if the gateway was not
/// reached or did not answer in time, `Gateway` if it refused.
#[derive(Debug, Clone)]
pub struct AuditClient {
    inner: AuditServiceClient<ControlChannel>,
    channel: Channel,
    limits: Limits,
}

impl AuditClient {
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
        let through = InterceptedService::new(channel.clone(), tokens);
        let inner = AuditServiceClient::new(through).max_decoding_message_size(MAX_ANSWER);
        Self { inner, channel, limits: Limits::default() }
    }

    /// Brings a token with each call from here on, as a gateway demands that is told whose tokens prove operators.
    #[must_use]
    pub fn with_tokens(self, tokens: OperatorTokens) -> Self {
        Self::bringing(tokens, self.channel)
    }

    /// Reads the newest published checkpoint, and what witnesses cosigned last.
    ///
    /// # Errors
    /// See the type.
    pub async fn checkpoint(&self) -> Result<GetCheckpointResponse, ClientError> {
        let request = self.limits.request(GetCheckpointRequest::default(), self.limits.unary)?;
        self.limits.answer(self.inner.clone().get_checkpoint(request)).await
    }

    /// Reads entries from an index on, at most `page_size` (0 for the gateway's default).
    ///
    /// # Errors
    /// See the type.
    pub async fn entries(&self, start_index: u64, page_size: i32) -> Result<ListEntriesResponse, ClientError> {
        let message = ListEntriesRequest { start_index, page_size, ..Default::default() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.inner.clone().list_entries(request)).await
    }

    /// Reads the proof that the log holds an entry, in the tree of a size (0 for the newest published one).
    ///
    /// # Errors
    /// See the type.
    pub async fn inclusion_proof(&self, index: u64, tree_size: u64) -> Result<GetInclusionProofResponse, ClientError> {
        let message = GetInclusionProofRequest { index, tree_size, reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.inner.clone().get_inclusion_proof(request)).await
    }

    /// Reads the proof that the tree of one size (0 for the newest published one) extends the one of another.
    ///
    /// # Errors
    /// See the type.
    pub async fn consistency_proof(
        &self,
        old_size: u64,
        tree_size: u64,
    ) -> Result<GetConsistencyProofResponse, ClientError> {
        let message = GetConsistencyProofRequest { old_size, tree_size, reason: String::new() };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.inner.clone().get_consistency_proof(request)).await
    }
}
