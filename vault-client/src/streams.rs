//! Values of any size, encrypted and decrypted while they are read and written: memory does not grow with them.

use std::io::SeekFrom;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeek, AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};
use vault_proto::v1::{
    DecryptStreamRequest, DecryptStreamResponse, DecryptStreamStart, EncryptStreamEnd, EncryptStreamRequest,
    EncryptStreamResponse, EncryptStreamStart, StreamRange, decrypt_stream_request, decrypt_stream_response,
    encrypt_stream_request, encrypt_stream_response,
};
use zeroize::Zeroize as _;

use crate::data::VaultClient;
use crate::error::ClientError;
use crate::value::{Target, wiped};

/// Bytes in a message.
const PIECE: usize = 65_536;
/// Messages under way each way.
const UNDER_WAY: usize = 2;

/// The front of an envelope, a sealed chunk, and a chunk of plaintext; the format's, not a setting.
const FRONT: u64 = 78;
const SEALED_CHUNK: u64 = 16_400;
const CHUNK: u64 = 16_384;

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streamed {
    /// Bytes written: of the envelope that was sealed, or of the plaintext that was opened.
    pub written: u64,
    /// The version of the data key.
    pub key_version: u32,
}

fn read_failed(_: std::io::Error) -> ClientError {
    ClientError::local(Code::Aborted, "READ", "what was to be sent could not be read")
}

fn write_failed(_: std::io::Error) -> ClientError {
    ClientError::local(Code::Aborted, "WRITE", "what was received could not be written")
}

const NOT_WHOLE: &str = "the stream ended without saying that it is whole";

type Sent<T> = mpsc::Sender<T>;

async fn send<T>(to: &Sent<T>, message: T) -> bool {
    // A gateway that takes no more has answered why.
    to.send(message).await.is_ok()
}

/// Fills `buffer` as far as there is anything to read.
async fn fill(from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<usize, ClientError> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room).await.map_err(read_failed)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Feeds and drains at the same time. Whichever fails first ends both; the call is cancelled then.
async fn both<T>(
    feed: impl Future<Output = Result<(), ClientError>>,
    drain: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::pin!(feed, drain);
    tokio::select! {
        fed = &mut feed => {
            fed?;
            drain.await
        }
        drained = &mut drain => drained,
    }
}

impl VaultClient {
    /// Seals everything that `plaintext` reads, and writes the envelope. Only if this answers is the envelope whole: what
    /// was written before an error opens nowhere to its end. There is no deadline; the gateway ends a stream that stands
    /// still.
    ///
    /// # Errors
    /// See the type; `Local` if reading or writing failed.
    pub async fn encrypt_stream(
        &self,
        target: &Target,
        mut plaintext: impl AsyncRead + Unpin,
        mut envelope: impl AsyncWrite + Unpin,
    ) -> Result<Streamed, ClientError> {
        use encrypt_stream_request::Part;
        let Target { tenant, dataset, purpose, subject, context, end_user } = target.clone();
        let end_user_token = end_user.map(|token| token.bytes());
        let start = EncryptStreamStart { tenant, dataset, subject, purpose, context, end_user_token };
        let message = |part| EncryptStreamRequest { part: Some(part) };
        let (to, messages) = mpsc::channel(UNDER_WAY);
        send(&to, message(Part::Start(start))).await;
        let answers = self.streaming().encrypt_stream(Request::new(ReceiverStream::new(messages))).await?;
        let feed = async {
            let mut buffer = vec![0; PIECE];
            let mut plaintext_size = 0;
            let fed = loop {
                let read = match fill(&mut plaintext, &mut buffer).await {
                    Ok(0) => break Ok(()),
                    Ok(read) => read,
                    Err(error) => break Err(error),
                };
                plaintext_size += read as u64;
                let piece = wiped(buffer.get(..read).unwrap_or_default());
                if !send(&to, message(Part::Plaintext(piece))).await {
                    break Ok(());
                }
            };
            buffer.zeroize();
            fed?;
            send(&to, message(Part::End(EncryptStreamEnd { plaintext_size }))).await;
            Ok(to)
        };
        // The end of the call, once the end of the value was sent.
        let feed = async { feed.await.map(drop) };
        both(feed, seal_to(answers.into_inner(), &mut envelope)).await
    }

    /// Opens everything that `envelope` reads, and writes the plaintext. What is written is authentic as it comes; only if
    /// this answers is it all there is.
    ///
    /// # Errors
    /// See the type; `Local` if reading or writing failed.
    pub async fn decrypt_stream(
        &self,
        target: &Target,
        mut envelope: impl AsyncRead + Unpin,
        mut plaintext: impl AsyncWrite + Unpin,
    ) -> Result<Streamed, ClientError> {
        let feed = async |to: &Sent<DecryptStreamRequest>| {
            let mut left = u64::MAX;
            forward(&mut envelope, &mut left, to).await
        };
        self.open(target, None, feed, &mut plaintext).await
    }

    /// Opens `length` bytes of the plaintext from `offset` on, or as many as there are, and writes them. Of the envelope
    /// it sends only what is needed for that: the front, the last chunk, which proves the length, and the chunks that hold
    /// the range.
    ///
    /// # Errors
    /// As [`Self::decrypt_stream`]; `InvalidArgument` naming `range.offset` for one behind the end.
    pub async fn decrypt_range(
        &self,
        target: &Target,
        mut envelope: impl AsyncRead + AsyncSeek + Unpin,
        (offset, length): (u64, u64),
        mut plaintext: impl AsyncWrite + Unpin,
    ) -> Result<Streamed, ClientError> {
        let envelope_size = envelope.seek(SeekFrom::End(0)).await.map_err(read_failed)?;
        let range = StreamRange { envelope_size, offset, length };
        let feed = async |to: &Sent<DecryptStreamRequest>| {
            for (at, mut left) in pieces(envelope_size, offset, length) {
                envelope.seek(SeekFrom::Start(at)).await.map_err(read_failed)?;
                forward(&mut envelope, &mut left, to).await?;
            }
            Ok(())
        };
        self.open(target, Some(range), feed, &mut plaintext).await
    }

    async fn open(
        &self,
        target: &Target,
        range: Option<StreamRange>,
        feed: impl AsyncFnOnce(&Sent<DecryptStreamRequest>) -> Result<(), ClientError>,
        plaintext: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Streamed, ClientError> {
        use decrypt_stream_request::Part;
        let Target { tenant, dataset, purpose, subject, context, end_user } = target.clone();
        let end_user_token = end_user.map(|token| token.bytes());
        let start = DecryptStreamStart { tenant, dataset, subject, purpose, context, end_user_token, range };
        let (to, messages) = mpsc::channel(UNDER_WAY);
        send(&to, DecryptStreamRequest { part: Some(Part::Start(start)) }).await;
        // The gateway begins to answer once it has seen the front, so it is sent meanwhile.
        let mut client = self.streaming();
        let drain = async {
            let answers = client.decrypt_stream(Request::new(ReceiverStream::new(messages))).await?;
            open_to(answers.into_inner(), plaintext).await
        };
        let feed = async {
            feed(&to).await?;
            // The end of the call is the end of the envelope; one that was cut does not open to its end.
            drop(to);
            Ok(())
        };
        both(feed, drain).await
    }
}

/// Sends up to `left` bytes of what there is to read.
async fn forward(
    from: &mut (impl AsyncRead + Unpin),
    left: &mut u64,
    to: &Sent<DecryptStreamRequest>,
) -> Result<(), ClientError> {
    let mut buffer = vec![0; PIECE];
    while *left > 0 {
        let most = usize::try_from(*left).unwrap_or(PIECE).min(PIECE);
        let read = fill(from, buffer.get_mut(..most).unwrap_or_default()).await?;
        if read == 0 {
            return Ok(());
        }
        *left -= read as u64;
        let piece = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        if !send(to, DecryptStreamRequest { part: Some(decrypt_stream_request::Part::Envelope(piece)) }).await {
            return Ok(());
        }
    }
    Ok(())
}

/// The pieces of an envelope that the gateway wants for a range, as offset and length, in its order.
fn pieces(envelope_size: u64, offset: u64, length: u64) -> impl Iterator<Item = (u64, u64)> {
    let chunks = envelope_size.saturating_sub(FRONT);
    let (last, last_len) = (chunks / SEALED_CHUNK, chunks % SEALED_CHUNK);
    let plain = (last * CHUNK).saturating_add(last_len.saturating_sub(SEALED_CHUNK - CHUNK));
    let end = offset.saturating_add(length).min(plain);
    let first = offset / CHUNK;
    let behind = if offset < end { end.div_ceil(CHUNK).min(last) } else { 0 };
    let middle = (first < behind).then(|| (FRONT + first * SEALED_CHUNK, (behind - first) * SEALED_CHUNK));
    [(0, FRONT), (FRONT + last * SEALED_CHUNK, last_len)].into_iter().chain(middle)
}

async fn seal_to(
    mut answers: Streaming<EncryptStreamResponse>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Streamed, ClientError> {
    use encrypt_stream_response::Part;
    let mut written = 0;
    while let Some(message) = answers.message().await? {
        match message.part {
            Some(Part::Envelope(bytes)) => {
                to.write_all(&bytes).await.map_err(write_failed)?;
                written += bytes.len() as u64;
            }
            Some(Part::Complete(complete)) if complete.envelope_size == written => {
                to.flush().await.map_err(write_failed)?;
                return Ok(Streamed { written, key_version: complete.key_version });
            }
            _ => break,
        }
    }
    Err(ClientError::malformed(NOT_WHOLE))
}

async fn open_to(
    mut answers: Streaming<DecryptStreamResponse>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Streamed, ClientError> {
    use decrypt_stream_response::Part;
    let mut written = 0;
    while let Some(message) = answers.message().await? {
        match message.part {
            Some(Part::Plaintext(bytes)) => {
                to.write_all(&bytes).await.map_err(write_failed)?;
                written += bytes.len() as u64;
                if let Ok(mut bytes) = bytes.try_into_mut() {
                    bytes.as_mut().zeroize();
                }
            }
            Some(Part::VerifiedComplete(complete)) if complete.plaintext_size == written => {
                to.flush().await.map_err(write_failed)?;
                return Ok(Streamed { written, key_version: complete.key_version });
            }
            _ => break,
        }
    }
    Err(ClientError::malformed(NOT_WHOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_needs_front_last_chunk_and_what_holds_it() {
        let of = |size, offset, length| pieces(size, offset, length).collect::<Vec<_>>();
        let size = FRONT + 4 * SEALED_CHUNK + 116;
        let ends = [(0, 78), (78 + 4 * 16_400, 116)];
        assert_eq!(of(size, 20_000, 10), [&ends[..], &[(78 + 16_400, 16_400)]].concat());
        assert_eq!(of(size, 0, u64::MAX), [&ends[..], &[(78, 4 * 16_400)]].concat());
        assert_eq!(of(size, 4 * CHUNK, 10), ends);
        assert_eq!(of(size, 0, 0), ends);
        assert_eq!(of(size, u64::MAX, u64::MAX), ends);
        assert_eq!(of(0, 5, 5), [(0, 78), (78, 0)]);
    }
}
