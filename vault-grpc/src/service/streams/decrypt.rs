//! `DecryptStream`.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Response, Status, Streaming};
use vault_core::Error;
use vault_core::envelope::{PlainRange, STREAM_FRONT};
use vault_core::policy::Decrypt;
use vault_core::principal::Workload;
use vault_core::secret::SecretBytes;
use vault_core::vault::{DecryptStreamRequest, StreamPart};
use vault_proto::v1;
use vault_proto::v1::decrypt_stream_request::Part;
use vault_proto::v1::decrypt_stream_response::Part as Answer;

use super::pipe::{NoStreamYet, Pipe, Ticks, run};
use super::{Answers, Bounds, piece};
use crate::service::crypto::Crypto;
use crate::{convert, status};

type Ends = Pipe<v1::DecryptStreamRequest, v1::DecryptStreamResponse>;

pub(crate) async fn decrypt(
    crypto: Crypto,
    who: Arc<Workload>,
    messages: Streaming<v1::DecryptStreamRequest>,
    bounds: Bounds,
) -> Result<Response<Answers<v1::DecryptStreamResponse>>, Status> {
    run(messages, bounds, |ends| work(crypto, who, ends)).await
}

fn refuse(error: Error) -> Status {
    status::status(&error)
}

/// The next piece of the envelope; `None` at its end.
async fn next(ends: &mut Ends, stream: &mut impl Ticks) -> Result<Option<Bytes>, Status> {
    match ends.next(stream).await?.map(|message| message.part) {
        Some(Some(Part::Envelope(bytes))) => {
            piece("envelope", &bytes).map_err(refuse)?;
            Ok(Some(bytes))
        }
        Some(_) => Err(refuse(Error::invalid("part", "after `start` comes `envelope`"))),
        None => Ok(None),
    }
}

async fn release(ends: &Ends, stream: &mut impl Ticks, plaintext: SecretBytes) -> Result<u64, Status> {
    let released = plaintext.len() as u64;
    if released > 0 {
        let part = Some(Answer::Plaintext(convert::plaintext(plaintext)));
        ends.answer(stream, v1::DecryptStreamResponse { part }).await?;
    }
    Ok(released)
}

async fn work(crypto: Crypto, who: Arc<Workload>, mut ends: Ends) -> Result<(), Status> {
    let first = ends.next(&mut NoStreamYet).await?.and_then(|message| message.part);
    let Some(Part::Start(start)) = first else {
        return Err(refuse(Error::invalid("start", "must be the first message")));
    };
    let (subject, token) = (start.subject.as_deref(), start.end_user_token.as_ref());
    let target = convert::target(&start.tenant, &start.dataset, subject, &start.purpose).map_err(refuse)?;
    let context = convert::context(&start.context).map_err(refuse)?;
    let part = start.range.map(|range| StreamPart {
        envelope_len: range.envelope_size,
        range: PlainRange { offset: range.offset, length: range.length },
    });
    // Which key it is stands in the front.
    let mut front = Vec::with_capacity(STREAM_FRONT);
    let mut rest = Bytes::new();
    while front.len() < STREAM_FRONT {
        let Some(mut bytes) = next(&mut ends, &mut NoStreamYet).await? else { break };
        let missing = (STREAM_FRONT - front.len()).min(bytes.len());
        front.extend_from_slice(&bytes.split_to(missing));
        rest = bytes;
    }
    let target = crypto.target::<Decrypt>(&who, token, target).await.map_err(refuse)?;
    let request = DecryptStreamRequest { target: &target, context: &context, front: &front, part };
    let mut stream = crypto.vault().decrypt_stream(&who, request).await.map_err(range_field)?;
    let key_version = stream.key_version().0;
    ends.begin();

    let mut plaintext_size = 0;
    loop {
        let opened = stream.open(&rest).await.map_err(range_field)?;
        plaintext_size += release(&ends, &mut stream, opened).await?;
        match next(&mut ends, &mut stream).await? {
            Some(bytes) => rest = bytes,
            None => break,
        }
    }
    let last = stream.finish().await.map_err(refuse)?;
    plaintext_size += release(&ends, &mut NoStreamYet, last).await?;
    let complete = v1::DecryptStreamComplete { key_version, plaintext_size };
    let complete = v1::DecryptStreamResponse { part: Some(Answer::VerifiedComplete(complete)) };
    ends.answer(&mut NoStreamYet, complete).await
}

/// As the API names it.
fn range_field(error: Error) -> Status {
    match error {
        Error::Invalid { field, why } if field == "offset" => refuse(Error::invalid("range.offset", why)),
        other => refuse(other),
    }
}
