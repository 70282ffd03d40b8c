//! The data plane, for workloads.

use bytes::Bytes;
use tonic::transport::Channel;
use vault_proto::v1::crypto_service_client::CryptoServiceClient;
use vault_proto::v1::{
    BatchDecryptItem, BatchDecryptRequest, BatchEncryptItem, BatchEncryptRequest, DecryptRequest, DecryptResponse,
    EncryptRequest, EncryptResponse, RewrapRequest, batch_decrypt_result, batch_encrypt_result,
};

use crate::call::{ANSWER_ROOM, Limits};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::receipt::{self, AuditReceipt};
use crate::value::{BatchItem, EndUserToken, Opened, Plaintext, Sealed, Target, wiped};

/// Calls `vault.v1.CryptoService` with a workload's certificate. Clones share one connection.
///
/// # Errors
/// Every call fails with a [`ClientError`]: `Local` if the request is over a limit, `Transport` if the gateway was not
/// reached or did not answer in time, `Gateway` if it refused.
#[derive(Debug, Clone)]
pub struct VaultClient {
    inner: CryptoServiceClient<Channel>,
    limits: Limits,
}

impl VaultClient {
    /// Connects to the data-plane listener of a gateway.
    ///
    /// # Errors
    /// Those of [`Endpoint::channel`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self::from_channel(endpoint.channel().await?))
    }

    /// Uses a channel that exists.
    pub fn from_channel(channel: Channel) -> Self {
        Self { inner: CryptoServiceClient::new(channel), limits: Limits::default() }
    }

    /// Sets sizes and the deadline of calls from here on.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Seals one value.
    ///
    /// # Errors
    /// See the type.
    pub async fn encrypt(&self, target: &Target, plaintext: &[u8]) -> Result<Sealed, ClientError> {
        let Target { tenant, dataset, purpose, subject, context, end_user } = target.clone();
        let end_user_token = end_user.map(|token| token.bytes());
        let message =
            EncryptRequest { tenant, dataset, subject, purpose, context, plaintext: wiped(plaintext), end_user_token };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.client(self.limits.unary).encrypt(request)).await.map(sealed)
    }

    /// Opens one envelope.
    ///
    /// # Errors
    /// See the type.
    pub async fn decrypt(&self, target: &Target, envelope: impl Into<Bytes>) -> Result<Opened, ClientError> {
        let Target { tenant, dataset, purpose, subject, context, end_user } = target.clone();
        let end_user_token = end_user.map(|token| token.bytes());
        let message =
            DecryptRequest { tenant, dataset, subject, purpose, context, envelope: envelope.into(), end_user_token };
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.client(self.limits.unary).decrypt(request)).await.map(opened)
    }

    /// Moves one envelope to the active data key.
    ///
    /// # Errors
    /// See the type.
    pub async fn rewrap(&self, target: &Target, envelope: impl Into<Bytes>) -> Result<Sealed, ClientError> {
        let Target { tenant, dataset, purpose, subject, context, end_user } = target.clone();
        let end_user_token = end_user.map(|token| token.bytes());
        let message =
            RewrapRequest { tenant, dataset, subject, purpose, context, envelope: envelope.into(), end_user_token };
        let request = self.limits.request(message, self.limits.unary)?;
        let answer = self.limits.answer(self.client(self.limits.unary).rewrap(request)).await?;
        let audit_receipt = answer.audit_receipt.map(AuditReceipt::new);
        Ok(Sealed { envelope: answer.envelope, key_version: answer.key_version, audit_receipt })
    }

    /// Seals up to 1,000 values of one tenant; the results are in the order of the items.
    ///
    /// # Errors
    /// See the type; what befalls a single item is in its result.
    pub async fn batch_encrypt(
        &self,
        tenant: impl Into<String>,
        purpose: impl Into<String>,
        items: Vec<BatchItem>,
    ) -> Result<Vec<Result<Sealed, ClientError>>, ClientError> {
        self.batch_encrypt_for(tenant, purpose, None, items).await
    }

    /// The same for an end user.
    ///
    /// # Errors
    /// As [`Self::batch_encrypt`].
    pub async fn batch_encrypt_for(
        &self,
        tenant: impl Into<String>,
        purpose: impl Into<String>,
        end_user: Option<&EndUserToken>,
        items: Vec<BatchItem>,
    ) -> Result<Vec<Result<Sealed, ClientError>>, ClientError> {
        let sent = items.len();
        let one = |BatchItem { dataset, subject, context, bytes }| BatchEncryptItem {
            dataset,
            subject,
            context,
            plaintext: bytes,
        };
        let items = items.into_iter().map(one).collect();
        let end_user_token = end_user.map(EndUserToken::bytes);
        let message = BatchEncryptRequest { tenant: tenant.into(), purpose: purpose.into(), items, end_user_token };
        let request = self.limits.request(message, self.limits.batch)?;
        let answer = self.limits.answer(self.client(self.limits.batch).batch_encrypt(request)).await?;
        same_length(sent, answer.results.len())?;
        let result = |outcome| match outcome {
            Some(batch_encrypt_result::Outcome::Sealed(value)) => Ok(sealed(value)),
            Some(batch_encrypt_result::Outcome::Error(error)) => Err(error.into()),
            None => Err(ClientError::malformed("a result of the batch is empty")),
        };
        let mut receipts = receipt::of_items(answer.audit_receipts);
        let with_receipt = |(item, result): (u32, Result<Sealed, ClientError>)| {
            result.map(|done| Sealed { audit_receipt: receipts.remove(&item), ..done })
        };
        let results = answer.results.into_iter().map(|r| result(r.outcome));
        Ok((0..).zip(results).map(with_receipt).collect())
    }

    /// Opens up to 1,000 envelopes of one tenant; the results are in the order of the items.
    ///
    /// # Errors
    /// See the type; what befalls a single item is in its result.
    pub async fn batch_decrypt(
        &self,
        tenant: impl Into<String>,
        purpose: impl Into<String>,
        items: Vec<BatchItem>,
    ) -> Result<Vec<Result<Opened, ClientError>>, ClientError> {
        self.batch_decrypt_for(tenant, purpose, None, items).await
    }

    /// The same for an end user.
    ///
    /// # Errors
    /// As [`Self::batch_decrypt`].
    pub async fn batch_decrypt_for(
        &self,
        tenant: impl Into<String>,
        purpose: impl Into<String>,
        end_user: Option<&EndUserToken>,
        items: Vec<BatchItem>,
    ) -> Result<Vec<Result<Opened, ClientError>>, ClientError> {
        let sent = items.len();
        let one = |BatchItem { dataset, subject, context, bytes }| BatchDecryptItem {
            dataset,
            subject,
            context,
            envelope: bytes,
        };
        let items = items.into_iter().map(one).collect();
        let end_user_token = end_user.map(EndUserToken::bytes);
        let message = BatchDecryptRequest { tenant: tenant.into(), purpose: purpose.into(), items, end_user_token };
        let request = self.limits.request(message, self.limits.batch)?;
        let answer = self.limits.answer(self.client(self.limits.batch).batch_decrypt(request)).await?;
        same_length(sent, answer.results.len())?;
        let result = |outcome| match outcome {
            Some(batch_decrypt_result::Outcome::Opened(value)) => Ok(opened(value)),
            Some(batch_decrypt_result::Outcome::Error(error)) => Err(error.into()),
            None => Err(ClientError::malformed("a result of the batch is empty")),
        };
        let mut receipts = receipt::of_items(answer.audit_receipts);
        let with_receipt = |(item, result): (u32, Result<Opened, ClientError>)| {
            result.map(|done| Opened { audit_receipt: receipts.remove(&item), ..done })
        };
        let results = answer.results.into_iter().map(|r| result(r.outcome));
        Ok((0..).zip(results).map(with_receipt).collect())
    }

    /// For streams, whose messages are small.
    pub(crate) fn streaming(&self) -> CryptoServiceClient<Channel> {
        self.client(self.limits.unary)
    }

    fn client(&self, limit: usize) -> CryptoServiceClient<Channel> {
        self.inner.clone().max_decoding_message_size(limit.saturating_add(ANSWER_ROOM))
    }
}

fn same_length(sent: usize, got: usize) -> Result<(), ClientError> {
    if sent == got {
        Ok(())
    } else {
        Err(ClientError::malformed("the batch has another number of results than of items"))
    }
}

fn sealed(answer: EncryptResponse) -> Sealed {
    let audit_receipt = answer.audit_receipt.map(AuditReceipt::new);
    Sealed { envelope: answer.envelope, key_version: answer.key_version, audit_receipt }
}

fn opened(answer: DecryptResponse) -> Opened {
    let audit_receipt = answer.audit_receipt.map(AuditReceipt::new);
    Opened { plaintext: Plaintext::take(answer.plaintext), key_version: answer.key_version, audit_receipt }
}
