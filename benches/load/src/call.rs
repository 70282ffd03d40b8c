//! What is called: prepared requests, so that the caller's own work is small and the same for both servers.

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_stream::iter;
use tonic::transport::Channel;
use tonic::{Code, Status};
use vault_proto::v1::crypto_service_client::CryptoServiceClient;
use vault_proto::v1::{
    BatchDecryptItem, BatchDecryptRequest, BatchEncryptItem, BatchEncryptRequest, DecryptRequest, EncryptRequest,
    EncryptStreamEnd, EncryptStreamRequest, EncryptStreamStart, batch_decrypt_result, batch_encrypt_result,
    encrypt_stream_request, encrypt_stream_response,
};

use crate::echo_proto::Blob;
use crate::echo_proto::echo_client::EchoClient;

/// Most bytes of an answer.
const ANSWER: usize = 16 * 1024 * 1024;
/// Bytes of one message of a stream.
pub(crate) const PIECE: usize = 64 * 1024;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The echo server's.
    Echo,
    /// The echo server's, of many messages of 64 KiB.
    EchoStream,
    /// One value sealed.
    Encrypt,
    /// One envelope opened.
    Decrypt,
    /// Many values sealed in one call.
    BatchEncrypt,
    /// Many envelopes opened in one call.
    BatchDecrypt,
    /// One value of many messages of 64 KiB.
    EncryptStream,
}

/// What the calls are about.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) tenant: String,
    pub(crate) dataset: String,
    pub(crate) purpose: String,
    /// Bytes of each value.
    pub(crate) size: usize,
    /// Values of a batch.
    pub(crate) items: usize,
    /// Messages of a stream.
    pub(crate) pieces: usize,
}

/// A call, ready to be made over and over on one connection.
#[derive(Clone)]
pub(crate) struct Prepared {
    kind: Kind,
    vault: CryptoServiceClient<Channel>,
    echo: EchoClient<Channel>,
    encrypt: EncryptRequest,
    decrypt: DecryptRequest,
    batch_encrypt: BatchEncryptRequest,
    batch_decrypt: BatchDecryptRequest,
    blob: Blob,
    stream: Vec<EncryptStreamRequest>,
    pieces: Vec<Blob>,
}

impl Prepared {
    /// Prepares calls of one kind; what is to be opened is sealed first.
    pub(crate) async fn new(channel: Channel, kind: Kind, about: &About) -> Result<Self, Status> {
        let mut vault = CryptoServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER);
        let plaintext = Bytes::from(vec![0x55; about.size]);
        let About { tenant, dataset, purpose, .. } = about.clone();
        let encrypt = EncryptRequest {
            tenant: tenant.clone(),
            dataset: dataset.clone(),
            purpose: purpose.clone(),
            plaintext: plaintext.clone(),
            ..EncryptRequest::default()
        };
        let envelope = match kind {
            Kind::Decrypt | Kind::BatchDecrypt => vault.encrypt(encrypt.clone()).await?.into_inner().envelope,
            _ => Bytes::new(),
        };
        let decrypt = DecryptRequest {
            tenant: tenant.clone(),
            dataset: dataset.clone(),
            purpose: purpose.clone(),
            envelope: envelope.clone(),
            ..DecryptRequest::default()
        };
        let sealing =
            BatchEncryptItem { dataset: dataset.clone(), plaintext: plaintext.clone(), ..BatchEncryptItem::default() };
        let opening = BatchDecryptItem { dataset: dataset.clone(), envelope, ..BatchDecryptItem::default() };
        let message = |part| EncryptStreamRequest { part: Some(part) };
        let piece = Bytes::from(vec![0x55; PIECE]);
        let start = EncryptStreamStart {
            tenant: tenant.clone(),
            dataset,
            purpose: purpose.clone(),
            ..EncryptStreamStart::default()
        };
        let plaintext_size = (about.pieces * PIECE) as u64;
        let stream = [encrypt_stream_request::Part::Start(start)]
            .into_iter()
            .chain((0..about.pieces).map(|_| encrypt_stream_request::Part::Plaintext(piece.clone())))
            .chain([encrypt_stream_request::Part::End(EncryptStreamEnd { plaintext_size })])
            .map(message)
            .collect();
        Ok(Self {
            kind,
            vault,
            echo: EchoClient::new(channel).max_decoding_message_size(ANSWER),
            encrypt,
            decrypt,
            batch_encrypt: BatchEncryptRequest {
                tenant: tenant.clone(),
                purpose: purpose.clone(),
                items: vec![sealing; about.items],
                end_user_token: None,
            },
            batch_decrypt: BatchDecryptRequest {
                tenant,
                purpose,
                items: vec![opening; about.items],
                end_user_token: None,
            },
            blob: Blob { data: plaintext },
            stream,
            pieces: vec![Blob { data: piece }; about.pieces],
        })
    }

    /// Makes the call, and sees that the answer is whole.
    pub(crate) async fn call(&mut self) -> Result<(), Status> {
        let short = |what: &str| Status::new(Code::DataLoss, format!("{what} is not whole"));
        match self.kind {
            Kind::Echo => {
                let answer = self.echo.say(self.blob.clone()).await?.into_inner();
                if answer.data.len() == self.blob.data.len() { Ok(()) } else { Err(short("the echo")) }
            }
            Kind::EchoStream => {
                let mut answers = self.echo.stream(iter(self.pieces.clone())).await?.into_inner();
                let mut bytes = 0;
                while let Some(answer) = answers.next().await {
                    bytes += answer?.data.len();
                }
                if bytes == self.pieces.len() * PIECE { Ok(()) } else { Err(short("the echo")) }
            }
            Kind::Encrypt => {
                let answer = self.vault.encrypt(self.encrypt.clone()).await?.into_inner();
                if answer.envelope.len() > self.encrypt.plaintext.len() { Ok(()) } else { Err(short("the envelope")) }
            }
            Kind::Decrypt => {
                let answer = self.vault.decrypt(self.decrypt.clone()).await?.into_inner();
                if answer.plaintext == self.encrypt.plaintext { Ok(()) } else { Err(short("the plaintext")) }
            }
            Kind::BatchEncrypt => {
                let answer = self.vault.batch_encrypt(self.batch_encrypt.clone()).await?.into_inner();
                let good = |outcome: &Option<_>| matches!(outcome, Some(batch_encrypt_result::Outcome::Sealed(_)));
                let good = answer.results.iter().filter(|result| good(&result.outcome)).count();
                if good == self.batch_encrypt.items.len() { Ok(()) } else { Err(short("the batch")) }
            }
            Kind::BatchDecrypt => {
                let answer = self.vault.batch_decrypt(self.batch_decrypt.clone()).await?.into_inner();
                let good = |outcome: &Option<_>| matches!(outcome, Some(batch_decrypt_result::Outcome::Opened(_)));
                let good = answer.results.iter().filter(|result| good(&result.outcome)).count();
                if good == self.batch_decrypt.items.len() { Ok(()) } else { Err(short("the batch")) }
            }
            Kind::EncryptStream => {
                let mut answers = self.vault.encrypt_stream(iter(self.stream.clone())).await?.into_inner();
                let mut complete = false;
                while let Some(answer) = answers.next().await {
                    complete |= matches!(answer?.part, Some(encrypt_stream_response::Part::Complete(_)));
                }
                if complete { Ok(()) } else { Err(short("the stream")) }
            }
        }
    }
}
