//! Both ends of a stream's task: what the caller sends, and what it is answered.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::{Stream, stream};
use http::HeaderMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Response, Status, Streaming};
use vault_core::Error;
use vault_core::vault::{DecryptStream, EncryptStream};

use crate::config::Limits;
use crate::service::undecodable;
use crate::status;

/// How often a stream that waits is decided again.
const TICK: Duration = Duration::from_millis(200);

/// What a call answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How long a stream may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Standing still.
    idle: Duration,
    /// In all, if the caller set a deadline.
    deadline: Option<Instant>,
}

impl Bounds {
    pub(crate) fn new(limits: &Limits, headers: &HeaderMap) -> Self {
        Self { idle: limits.stream_idle, deadline: timeout_of(headers).map(|timeout| Instant::now() + timeout) }
    }
}

/// The caller's `grpc-timeout`; what is none is not one.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// A stream of the vault's, which can be decided again while it waits.
pub(super) trait Ticks: Send {
    fn tick(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Ticks for EncryptStream<'_> {
    fn tick(&mut self) -> impl Future<Output = Result<(), Error>> + Send {
        EncryptStream::tick(self)
    }
}

impl Ticks for DecryptStream<'_> {
    fn tick(&mut self) -> impl Future<Output = Result<(), Error>> + Send {
        DecryptStream::tick(self)
    }
}

/// Before there is a stream.
pub(super) struct NoStreamYet;

impl Ticks for NoStreamYet {
    async fn tick(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The task's end of a call.
pub(super) struct Pipe<In, Out> {
    messages: Streaming<In>,
    answers: mpsc::Sender<Result<Out, Status>>,
    begun: Option<oneshot::Sender<()>>,
    idle: Duration,
}

impl<In, Out> Pipe<In, Out> {
    /// The caller's next message; `None` if it ends the call.
    pub(super) async fn next(&mut self, stream: &mut impl Ticks) -> Result<Option<In>, Status> {
        match waiting(stream, self.idle, self.messages.message()).await? {
            Ok(message) => Ok(message),
            Err(status) => Err(undecodable::mend_status(status)),
        }
    }

    /// The stream is authorized: the answer begins.
    pub(super) fn begin(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Nobody waits for it only if the call is over.
            let _ = begun.send(());
        }
    }

    /// Answers a message, once the caller has taken the one before.
    pub(super) async fn answer(&self, stream: &mut impl Ticks, message: Out) -> Result<(), Status> {
        let room = waiting(stream, self.idle, self.answers.reserve()).await?;
        room.map_err(|_| Status::cancelled("the caller is gone"))?.send(Ok(message));
        Ok(())
    }
}

/// Waits, while the stream is decided again now and then; for as long as it may stand still.
async fn waiting<T>(stream: &mut impl Ticks, idle: Duration, wait: impl Future<Output = T>) -> Result<T, Status> {
    let mut wait = pin!(wait);
    let end = Instant::now() + idle;
    loop {
        tokio::select! {
            biased;
            done = &mut wait => return Ok(done),
            () = sleep_until(end) => return Err(status::stood_still()),
            () = sleep(TICK) => stream.tick().await.map_err(|error| status::status(&error))?,
        }
    }
}

/// Runs `work` as the task of a call, and answers when it has begun, or failed to.
pub(super) async fn run<In, Out, W>(
    messages: Streaming<In>,
    bounds: Bounds,
    work: impl FnOnce(Pipe<In, Out>) -> W,
) -> Result<Response<Answers<Out>>, Status>
where
    In: Send + 'static,
    Out: Send + 'static,
    W: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (answers, mut answered) = mpsc::channel(1);
    let (begun, mut beginning) = oneshot::channel();
    let done = work(Pipe { messages, answers: answers.clone(), begun: Some(begun), idle: bounds.idle });
    tokio::spawn(async move {
        let deadline = async {
            match bounds.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            biased;
            () = answers.closed() => return,
            done = done => done.err(),
            () = deadline => Some(status::deadline_passed()),
        };
        if let Some(failed) = failed {
            // One that does not read its answers does not learn why they end.
            drop(tokio::time::timeout(bounds.idle, answers.send(Err(failed))).await);
        }
    });
    tokio::select! {
        biased;
        Ok(()) = &mut beginning => {}
        first = answered.recv() => match first {
            Some(Err(status)) => return Err(status),
            _ => return Err(Status::internal("the stream did not begin")),
        },
    }
    Ok(Response::new(Box::pin(stream::unfold(answered, async |mut answered| {
        let message = answered.recv().await?;
        Some((message, answered))
    }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_deadline_is_read() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(text));
            timeout_of(&headers)
        };
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("8n"), Some(Duration::from_nanos(8)));
        for bad in ["", "S", "1", "1x", "-1S", "123456789S", "1 S"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }
}
