//! `CryptoService`: the data plane. A workload's call, straight down to the vault.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};
use vault_core::envelope::{Context, MAX_PLAINTEXT, OVERHEAD};
use vault_core::id::{Purpose, TenantId};
use vault_core::policy::{DataAction, Decrypt, Encrypt, Rewrap};
use vault_core::principal::{EndUser, Workload};
use vault_core::vault::{AskedFor, DecryptRequest, EncryptRequest, Opened, Sealed, Target, new_request_id};
use vault_core::{Error, Vault};
use vault_proto::v1::crypto_service_server::CryptoService;
use vault_proto::v1::{self, batch_decrypt_result, batch_encrypt_result};

use super::streams::{self, Answers, Bounds};
use super::{receipt, workload_of};
use crate::config::Limits;
use crate::end_users::EndUsers;
use crate::{convert, status};

/// Items of a batch, at most.
const MAX_ITEMS: usize = 1000;

/// The service.
#[derive(Debug, Clone)]
pub struct Crypto {
    vault: Arc<Vault>,
    end_users: Arc<EndUsers>,
    limits: Limits,
}

impl Crypto {
    /// The data plane of a vault, for the end users of these issuers.
    pub const fn new(vault: Arc<Vault>, end_users: Arc<EndUsers>, limits: Limits) -> Self {
        Self { vault, end_users, limits }
    }

    /// The vault.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The end user whom a token proves. A refusal is in the log before it is told.
    async fn end_user<A: DataAction>(
        &self,
        who: &Workload,
        token: Option<&Bytes>,
        asked: AskedFor<'_>,
    ) -> Result<Option<Arc<EndUser>>, Error> {
        let Some(token) = token else { return Ok(None) };
        match self.end_users.verify(token, who).await {
            Ok(user) => Ok(Some(user)),
            Err(rule) => Err(self.vault.refuse_token::<A>(who, asked, rule).await),
        }
    }

    /// What a call of one value is about, and for whom.
    pub(crate) async fn target<A: DataAction>(
        &self,
        who: &Workload,
        token: Option<&Bytes>,
        target: Target,
    ) -> Result<Target, Error> {
        let end_user = self.end_user::<A>(who, token, asked_for(&target)).await?;
        Ok(Target { end_user, ..target })
    }

    /// Puts the end user of a batch into all of its items that can be read.
    async fn for_all<A: DataAction>(
        &self,
        who: &Workload,
        token: Option<&Bytes>,
        (tenant, purpose): (&str, &str),
        parsed: &mut Parsed,
    ) -> Result<(), Error> {
        if token.is_none() {
            return Ok(());
        }
        let (tenant, purpose) = (TenantId::parse(tenant)?, Purpose::parse(purpose)?);
        let request = new_request_id()?;
        let asked = AskedFor { tenant: &tenant, dataset: None, subject: None, purpose: &purpose, request };
        let end_user = self.end_user::<A>(who, token, asked).await?;
        for (target, _) in parsed.iter_mut().flatten() {
            target.end_user.clone_from(&end_user);
        }
        Ok(())
    }

    async fn encrypt_one(&self, who: &Workload, request: &v1::EncryptRequest) -> Result<Sealed, Error> {
        let target = convert::target(&request.tenant, &request.dataset, request.subject.as_deref(), &request.purpose)?;
        let context = convert::context(&request.context)?;
        let target = self.target::<Encrypt>(who, request.end_user_token.as_ref(), target).await?;
        let request = EncryptRequest { target: &target, context: &context, plaintext: &request.plaintext };
        self.vault.encrypt(who, request).await
    }

    async fn decrypt_one(&self, who: &Workload, request: &v1::DecryptRequest) -> Result<Opened, Error> {
        let target = convert::target(&request.tenant, &request.dataset, request.subject.as_deref(), &request.purpose)?;
        let context = convert::context(&request.context)?;
        envelope_len(&request.envelope)?;
        let target = self.target::<Decrypt>(who, request.end_user_token.as_ref(), target).await?;
        let request = DecryptRequest { target: &target, context: &context, envelope: &request.envelope };
        self.vault.decrypt(who, request).await
    }

    async fn rewrap_one(&self, who: &Workload, request: &v1::RewrapRequest) -> Result<Sealed, Error> {
        let target = convert::target(&request.tenant, &request.dataset, request.subject.as_deref(), &request.purpose)?;
        let context = convert::context(&request.context)?;
        envelope_len(&request.envelope)?;
        let target = self.target::<Rewrap>(who, request.end_user_token.as_ref(), target).await?;
        let request = DecryptRequest { target: &target, context: &context, envelope: &request.envelope };
        self.vault.rewrap(who, request).await
    }
}

const fn asked_for(target: &Target) -> AskedFor<'_> {
    AskedFor {
        tenant: &target.tenant,
        dataset: Some(&target.dataset),
        subject: target.subject.as_ref(),
        purpose: &target.purpose,
        request: target.request,
    }
}

/// Without its receipt, as the results of a batch are.
fn sealed(sealed: Sealed) -> v1::EncryptResponse {
    let (envelope, key_version) = (sealed.envelope.into(), sealed.key_version.0);
    v1::EncryptResponse { envelope, key_version, audit_receipt: None }
}

/// Without its receipt, as the results of a batch are.
fn opened(opened: Opened) -> v1::DecryptResponse {
    let (plaintext, key_version) = (convert::plaintext(opened.plaintext), opened.key_version.0);
    v1::DecryptResponse { plaintext, key_version, audit_receipt: None }
}

/// Refuses what no envelope can be long before it costs anything; to the caller it does not open like any other.
fn envelope_len(envelope: &[u8]) -> Result<(), Error> {
    if envelope.len() > MAX_PLAINTEXT + OVERHEAD { Err(Error::Unopenable) } else { Ok(()) }
}

fn check_items(count: usize) -> Result<(), Status> {
    if (1..=MAX_ITEMS).contains(&count) {
        Ok(())
    } else {
        Err(status::status(&Error::invalid("items", "a batch has 1 to 1,000 items")))
    }
}

/// The items of a batch as the vault takes them, those that cannot be read as errors in their place.
type Parsed = Vec<Result<(Target, Context), Error>>;

/// Hands the readable items to `work` and puts its answers where their items were.
async fn in_place<T>(parsed: &Parsed, work: impl AsyncFnOnce() -> Vec<Result<T, Error>>) -> Vec<Result<T, Error>> {
    let mut answers = work().await.into_iter();
    let mut results = Vec::with_capacity(parsed.len());
    for (at, item) in parsed.iter().enumerate() {
        let result = match item {
            Ok(_) => answers.next().unwrap_or(Err(Error::Unopenable)),
            Err(error) => Err(error.clone()),
        };
        results.push(result.map_err(|error| convert::in_item(at, error)));
    }
    results
}

#[tonic::async_trait]
impl CryptoService for Crypto {
    async fn encrypt(&self, request: Request<v1::EncryptRequest>) -> Result<Response<v1::EncryptResponse>, Status> {
        let who = workload_of(&request)?;
        let done = self.encrypt_one(&who, request.get_ref()).await;
        let answer = done.and_then(|done| {
            let audit_receipt = receipt::of(&done.audited)?;
            Ok(v1::EncryptResponse { audit_receipt, ..sealed(done) })
        });
        answer.map(Response::new).map_err(|error| status::status(&error))
    }

    async fn decrypt(&self, request: Request<v1::DecryptRequest>) -> Result<Response<v1::DecryptResponse>, Status> {
        let who = workload_of(&request)?;
        let done = self.decrypt_one(&who, request.get_ref()).await;
        let answer = done.and_then(|done| {
            let audit_receipt = receipt::of(&done.audited)?;
            Ok(v1::DecryptResponse { audit_receipt, ..opened(done) })
        });
        answer.map(Response::new).map_err(|error| status::status(&error))
    }

    async fn rewrap(&self, request: Request<v1::RewrapRequest>) -> Result<Response<v1::RewrapResponse>, Status> {
        let who = workload_of(&request)?;
        let answer = self.rewrap_one(&who, request.get_ref()).await.and_then(|done| {
            let audit_receipt = receipt::of(&done.audited)?;
            let (envelope, key_version) = (done.envelope.into(), done.key_version.0);
            Ok(v1::RewrapResponse { envelope, key_version, audit_receipt })
        });
        answer.map(Response::new).map_err(|error| status::status(&error))
    }

    async fn batch_encrypt(
        &self,
        request: Request<v1::BatchEncryptRequest>,
    ) -> Result<Response<v1::BatchEncryptResponse>, Status> {
        let who = workload_of(&request)?;
        let request = request.get_ref();
        check_items(request.items.len())?;
        let parse = |item: &v1::BatchEncryptItem| {
            let target = convert::target(&request.tenant, &item.dataset, item.subject.as_deref(), &request.purpose)?;
            Ok((target, convert::context(&item.context)?))
        };
        let mut parsed: Parsed = request.items.iter().map(parse).collect();
        let (token, about) = (request.end_user_token.as_ref(), (request.tenant.as_str(), request.purpose.as_str()));
        let ready = self.for_all::<Encrypt>(&who, token, about, &mut parsed).await;
        ready.map_err(|error| status::status(&error))?;
        let calls = parsed.iter().zip(&request.items).filter_map(|(parsed, item)| {
            let (target, context) = parsed.as_ref().ok()?;
            Some(EncryptRequest { target, context, plaintext: &item.plaintext })
        });
        let results = in_place(&parsed, async || self.vault.encrypt_all(&who, calls).await).await;
        let answer = |result: Result<Sealed, Error>| v1::BatchEncryptResult {
            outcome: Some(match result {
                Ok(done) => batch_encrypt_result::Outcome::Sealed(sealed(done)),
                Err(error) => batch_encrypt_result::Outcome::Error(status::item_error(&error)),
            }),
        };
        let audit_receipts =
            receipt::of_batch(results.iter().map(|result| result.as_ref().ok().map(|done| &done.audited)));
        let audit_receipts = audit_receipts.map_err(|error| status::status(&error))?;
        let results = results.into_iter().map(answer).collect();
        Ok(Response::new(v1::BatchEncryptResponse { results, audit_receipts }))
    }

    async fn batch_decrypt(
        &self,
        request: Request<v1::BatchDecryptRequest>,
    ) -> Result<Response<v1::BatchDecryptResponse>, Status> {
        let who = workload_of(&request)?;
        let request = request.get_ref();
        check_items(request.items.len())?;
        let parse = |item: &v1::BatchDecryptItem| {
            let target = convert::target(&request.tenant, &item.dataset, item.subject.as_deref(), &request.purpose)?;
            envelope_len(&item.envelope)?;
            Ok((target, convert::context(&item.context)?))
        };
        let mut parsed: Parsed = request.items.iter().map(parse).collect();
        let (token, about) = (request.end_user_token.as_ref(), (request.tenant.as_str(), request.purpose.as_str()));
        let ready = self.for_all::<Decrypt>(&who, token, about, &mut parsed).await;
        ready.map_err(|error| status::status(&error))?;
        let calls = parsed.iter().zip(&request.items).filter_map(|(parsed, item)| {
            let (target, context) = parsed.as_ref().ok()?;
            Some(DecryptRequest { target, context, envelope: &item.envelope })
        });
        let results = in_place(&parsed, async || self.vault.decrypt_all(&who, calls).await).await;
        let answer = |result: Result<Opened, Error>| v1::BatchDecryptResult {
            outcome: Some(match result {
                Ok(done) => batch_decrypt_result::Outcome::Opened(opened(done)),
                Err(error) => batch_decrypt_result::Outcome::Error(status::item_error(&error)),
            }),
        };
        let audit_receipts =
            receipt::of_batch(results.iter().map(|result| result.as_ref().ok().map(|done| &done.audited)));
        let audit_receipts = audit_receipts.map_err(|error| status::status(&error))?;
        let results = results.into_iter().map(answer).collect();
        Ok(Response::new(v1::BatchDecryptResponse { results, audit_receipts }))
    }

    type EncryptStreamStream = Answers<v1::EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<Streaming<v1::EncryptStreamRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let who = workload_of(&request)?;
        let bounds = Bounds::new(&self.limits, request.metadata().as_ref());
        streams::encrypt(self.clone(), who, request.into_inner(), bounds).await
    }

    type DecryptStreamStream = Answers<v1::DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        request: Request<Streaming<v1::DecryptStreamRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        let who = workload_of(&request)?;
        let bounds = Bounds::new(&self.limits, request.metadata().as_ref());
        streams::decrypt(self.clone(), who, request.into_inner(), bounds).await
    }
}
