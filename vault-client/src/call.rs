//! What every call has in common: a deadline, and limits on the size of messages.

use std::time::Duration;

use prost::Message;
use tonic::{Code, Request};

use crate::error::ClientError;

/// The default limit of a request of one value: 1 MiB of plaintext and 24 KiB for everything else in it.
pub const MAX_UNARY: usize = (1 << 20) + (24 << 10);
/// The default limit of a request of a batch: 4 MiB.
pub const MAX_BATCH: usize = 4 << 20;

/// How much larger than the largest request an answer may be: a batch of 1,000 grows by 94 bytes of envelope each,
/// and by its audit receipts: 46 bytes each, and the hashes between them.
pub(crate) const ANSWER_ROOM: usize = 512 << 10;

/// Sizes and times that a client keeps. The gateway enforces its own as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest request of one value, in bytes; by default [`MAX_UNARY`]. Answers may be 128 KiB larger, because
    /// envelopes are larger than what they seal.
    pub unary: usize,
    /// The largest request of a batch, in bytes; by default [`MAX_BATCH`]. Answers may be 128 KiB larger.
    pub batch: usize,
    /// How long a call may take, connecting again included; by default 10 s. Sent to the gateway as `grpc-timeout`.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { unary: MAX_UNARY, batch: MAX_BATCH, deadline: Duration::from_secs(10) }
    }
}

impl Limits {
    /// A request within its limit, with the deadline set.
    pub(crate) fn request<M: Message>(&self, message: M, limit: usize) -> Result<Request<M>, ClientError> {
        if message.encoded_len() > limit {
            return Err(ClientError::local(
                Code::ResourceExhausted,
                "MESSAGE_TOO_LARGE",
                "the request is larger than this client's limit; split it",
            ));
        }
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        Ok(request)
    }

    /// Waits for the answer until the deadline.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(ClientError::deadline()),
        }
    }
}
