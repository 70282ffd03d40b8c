//! `EncryptStream`.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Response, Status, Streaming};
use vault_core::Error;
use vault_core::policy::Encrypt;
use vault_core::principal::Workload;
use vault_core::vault::EncryptStreamRequest;
use vault_proto::v1;
use vault_proto::v1::encrypt_stream_request::Part;
use vault_proto::v1::encrypt_stream_response::Part as Answer;

use super::pipe::{NoStreamYet, Pipe, run};
use super::{Answers, Bounds, piece};
use crate::service::crypto::Crypto;
use crate::{convert, status};

type Ends = Pipe<v1::EncryptStreamRequest, v1::EncryptStreamResponse>;

fn out_of_order() -> Status {
    status::status(&Error::invalid("part", "after `start` come `plaintext`, and `end` once"))
}

pub(crate) async fn encrypt(
    crypto: Crypto,
    who: Arc<Workload>,
    messages: Streaming<v1::EncryptStreamRequest>,
    bounds: Bounds,
) -> Result<Response<Answers<v1::EncryptStreamResponse>>, Status> {
    run(messages, bounds, |ends| work(crypto, who, ends)).await
}

fn envelope(bytes: impl Into<Bytes>) -> v1::EncryptStreamResponse {
    v1::EncryptStreamResponse { part: Some(Answer::Envelope(bytes.into())) }
}

async fn work(crypto: Crypto, who: Arc<Workload>, mut ends: Ends) -> Result<(), Status> {
    let refuse = |error: Error| status::status(&error);
    let first = ends.next(&mut NoStreamYet).await?.and_then(|message| message.part);
    let Some(Part::Start(start)) = first else {
        return Err(refuse(Error::invalid("start", "must be the first message")));
    };
    let (subject, token) = (start.subject.as_deref(), start.end_user_token.as_ref());
    let target = convert::target(&start.tenant, &start.dataset, subject, &start.purpose).map_err(refuse)?;
    let context = convert::context(&start.context).map_err(refuse)?;
    let target = crypto.target::<Encrypt>(&who, token, target).await.map_err(refuse)?;
    let request = EncryptStreamRequest { target: &target, context: &context };
    let mut stream = crypto.vault().encrypt_stream(&who, request).await.map_err(refuse)?;
    let key_version = stream.key_version().0;
    ends.begin();

    let (mut plaintext_size, mut envelope_size) = (0, 0);
    let front = Bytes::copy_from_slice(stream.front());
    envelope_size += front.len() as u64;
    ends.answer(&mut stream, envelope(front)).await?;
    loop {
        match ends.next(&mut stream).await?.map(|message| message.part) {
            Some(Some(Part::Plaintext(bytes))) => {
                piece("plaintext", &bytes).map_err(refuse)?;
                let sealed = stream.seal(&bytes).await.map_err(refuse)?;
                plaintext_size += bytes.len() as u64;
                if !sealed.is_empty() {
                    envelope_size += sealed.len() as u64;
                    ends.answer(&mut stream, envelope(sealed)).await?;
                }
            }
            Some(Some(Part::End(end))) => {
                if end.plaintext_size != plaintext_size {
                    let why = "is not the number of bytes that arrived";
                    return Err(refuse(Error::invalid("end.plaintext_size", why)));
                }
                // What comes behind the end would not be part of the envelope.
                if ends.next(&mut stream).await?.is_some() {
                    return Err(out_of_order());
                }
                break;
            }
            Some(_) => return Err(out_of_order()),
            None => return Err(refuse(Error::invalid("end", "is missing: the value was cut"))),
        }
    }
    let last = stream.finish().await.map_err(refuse)?;
    envelope_size += last.len() as u64;
    ends.answer(&mut NoStreamYet, envelope(last)).await?;
    let complete = v1::EncryptStreamComplete { key_version, envelope_size };
    let complete = v1::EncryptStreamResponse { part: Some(Answer::Complete(complete)) };
    ends.answer(&mut NoStreamYet, complete).await
}
