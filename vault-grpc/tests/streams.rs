//! Streams over the wire: what is sent comes back, what is out of order is refused, and what ends a stream ends it soon.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests, which say what they measured")]
#![expect(clippy::disallowed_macros, reason = "a test says what it measured")]

#[path = "gateway/audit_entries.rs"]
mod audit_entries;
#[expect(unreachable_pub, dead_code, reason = "shared by several tests")]
mod common;

use std::fs;
use std::io::Cursor;
use std::time::{Duration, Instant};

use common::{DATASET, Site, TENANT};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;
use vault_client::{OperatorClient, Target, VaultClient};
use vault_core::audit::{Body, Entry, Status as Ended};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_proto::v1::crypto_service_client::CryptoServiceClient;
use vault_proto::v1::encrypt_stream_request::Part;
use vault_proto::v1::{
    DecryptStreamRequest, DecryptStreamStart, EncryptStreamEnd, EncryptStreamRequest, EncryptStreamResponse,
    EncryptStreamStart, decrypt_stream_request, encrypt_stream_response,
};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn target() -> Target {
    Target::new(TENANT, DATASET, "billing").context("file", "scan.pdf")
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 249) as u8).collect()
}

async fn client(site: &Site) -> VaultClient {
    VaultClient::connect(&site.workload(site.gateway.data_addr())).await.unwrap()
}

async fn operator(site: &Site) -> OperatorClient {
    OperatorClient::connect(&site.operator(site.gateway.control_addr())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_comes_back_whole_and_in_part() {
    let site = Site::start().await;
    let client = client(&site).await;
    for len in [0, 1, 16_383, 16_384, 65_536, 1_000_003] {
        let plain = plaintext(len);
        let mut envelope = Vec::new();
        let sealed = client.encrypt_stream(&target(), plain.as_slice(), &mut envelope).await.unwrap();
        assert_eq!((sealed.written, sealed.key_version), (envelope.len() as u64, 1));
        let mut back = Vec::new();
        let opened = client.decrypt_stream(&target(), envelope.as_slice(), &mut back).await.unwrap();
        assert_eq!((opened.written, opened.key_version), (len as u64, 1));
        assert_eq!(back, plain);
        for (offset, length) in [(0, 10), (len / 2, 40_000), (len, 5)] {
            let mut part = Vec::new();
            let range = (offset as u64, length as u64);
            client.decrypt_range(&target(), Cursor::new(&envelope), range, &mut part).await.unwrap();
            assert_eq!(part, plain[offset..(offset + length).min(len)]);
        }
        let range = (len as u64 + 1, 1);
        let behind = client.decrypt_range(&target(), Cursor::new(&envelope), range, Vec::new()).await.unwrap_err();
        assert_eq!(behind.violations()[0].field, "range.offset");
        // Cut, altered, with another context: one answer.
        let mut altered = envelope.clone();
        *altered.last_mut().unwrap() ^= 1;
        for bad in [&envelope[..envelope.len() - 1], &envelope[..50], &[], &altered] {
            let refused = client.decrypt_stream(&target(), bad, Vec::new()).await.unwrap_err();
            assert_eq!((refused.code(), refused.reason()), (Code::InvalidArgument, "UNOPENABLE"));
        }
        let other = target().context("file", "other.pdf");
        let refused = client.decrypt_stream(&other, envelope.as_slice(), Vec::new()).await.unwrap_err();
        assert_eq!(refused.reason(), "UNOPENABLE");
        let rewrap = client.rewrap(&target(), envelope).await.unwrap_err();
        assert_eq!((rewrap.code(), rewrap.violations()[0].field.as_str()), (Code::InvalidArgument, "envelope"));
    }
    // What cannot be read is not half a value.
    let refused = client.encrypt_stream(&target(), broken_reader(), Vec::new()).await.unwrap_err();
    assert_eq!(refused.reason(), "READ");
    site.gateway.shutdown().await.unwrap();
}

/// Reads 100 bytes, then fails.
fn broken_reader() -> impl tokio::io::AsyncRead + Unpin {
    struct Broken(bool);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if std::mem::replace(&mut self.0, true) {
                return std::task::Poll::Ready(Err(std::io::ErrorKind::Other.into()));
            }
            buffer.put_slice(&[7; 100]);
            std::task::Poll::Ready(Ok(()))
        }
    }
    Broken(false)
}

/// A call of `EncryptStream` by hand.
struct Call {
    to: mpsc::Sender<EncryptStreamRequest>,
    answers: Streaming<EncryptStreamResponse>,
}

fn start() -> Part {
    Part::Start(EncryptStreamStart {
        tenant: TENANT.into(),
        dataset: DATASET.into(),
        purpose: "billing".into(),
        ..Default::default()
    })
}

impl Call {
    async fn begin(channel: &Channel, first: Part) -> Result<Self, Status> {
        let (to, messages) = mpsc::channel(8);
        to.send(EncryptStreamRequest { part: Some(first) }).await.unwrap();
        let mut client = CryptoServiceClient::new(channel.clone());
        let answers = client.encrypt_stream(Request::new(ReceiverStream::new(messages))).await?.into_inner();
        Ok(Self { to, answers })
    }

    async fn send(&self, part: Part) {
        self.to.send(EncryptStreamRequest { part: Some(part) }).await.unwrap();
    }

    /// The next answer is this much of the envelope.
    async fn envelope(&mut self) -> usize {
        match self.answers.message().await.unwrap().unwrap().part.unwrap() {
            encrypt_stream_response::Part::Envelope(bytes) => bytes.len(),
            other => panic!("{other:?}"),
        }
    }

    /// The status with which it ends, and after how long.
    async fn refused(mut self) -> (Status, Duration) {
        let begun = Instant::now();
        loop {
            match timeout(PATIENCE, self.answers.message()).await.unwrap() {
                Ok(Some(message)) => {
                    assert!(!matches!(message.part, Some(encrypt_stream_response::Part::Complete(_))), "complete");
                }
                Ok(None) => panic!("it ended well"),
                Err(status) => return (status, begun.elapsed()),
            }
        }
    }
}

fn field(status: &Status) -> (Code, String) {
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    (status.code(), violations.first().map(|v| v.field.clone()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_out_of_order_cut_or_too_large_are_refused_by_name() {
    let site = Site::start().await;
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    let invalid = |name: &str| (Code::InvalidArgument, name.to_owned());
    let bytes = |len: usize| Part::Plaintext(vec![1; len].into());
    let end = |plaintext_size| Part::End(EncryptStreamEnd { plaintext_size });
    for first in [bytes(1), end(0)] {
        assert_eq!(field(&Call::begin(&channel, first).await.err().unwrap()), invalid("start"));
    }
    let Part::Start(named) = start() else { panic!("start") };
    let bad = Part::Start(EncryptStreamStart { subject: Some(String::new()), ..named.clone() });
    assert_eq!(field(&Call::begin(&channel, bad).await.err().unwrap()), invalid("subject"));
    let foreign = Part::Start(EncryptStreamStart { tenant: "initech".into(), ..named });
    assert_eq!(Call::begin(&channel, foreign).await.err().unwrap().code(), Code::PermissionDenied);
    let cases = [
        (vec![start()], "part"),
        (vec![bytes(65_537)], "plaintext"),
        (vec![bytes(10), end(11)], "end.plaintext_size"),
        (vec![bytes(10), end(10), bytes(1)], "part"),
        (vec![bytes(10)], "end"),
        (vec![], "end"),
    ];
    for (parts, name) in cases {
        let call = Call::begin(&channel, start()).await.unwrap();
        for part in parts {
            call.send(part).await;
        }
        let Call { to, answers } = call;
        drop(to);
        let (to, _gone) = mpsc::channel(1);
        assert_eq!(field(&Call { to, answers }.refused().await.0), invalid(name), "{name}");
    }
    // The same of an envelope.
    let mut client = CryptoServiceClient::new(channel);
    let start = DecryptStreamStart {
        tenant: TENANT.into(),
        dataset: DATASET.into(),
        purpose: "billing".into(),
        ..Default::default()
    };
    let start = decrypt_stream_request::Part::Start(start);
    let large = decrypt_stream_request::Part::Envelope(vec![0; 65_537].into());
    for (parts, name) in [(vec![large.clone()], "start"), (vec![start.clone(), large], "envelope")] {
        let messages = parts.into_iter().map(|part| DecryptStreamRequest { part: Some(part) });
        let refused = client.decrypt_stream(tokio_stream::iter(messages.collect::<Vec<_>>())).await.err().unwrap();
        assert_eq!(field(&refused), invalid(name));
    }
    let messages = [Some(start.clone()), Some(start)].map(|part| DecryptStreamRequest { part });
    let refused = client.decrypt_stream(tokio_stream::iter(messages)).await.err().unwrap();
    assert_eq!(field(&refused), invalid("part"));
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_ends_its_streams_within_a_second_idle_or_not() {
    let site = Site::start().await;
    let operator = operator(&site).await;
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    let mut idle = Call::begin(&channel, start()).await.unwrap();
    assert_eq!(idle.envelope().await, 78);
    let busy = Call::begin(&channel, start()).await.unwrap();
    let to = busy.to.clone();
    let sending = tokio::spawn(async move {
        while to.send(EncryptStreamRequest { part: Some(Part::Plaintext(vec![1; 20_000].into())) }).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    sleep(Duration::from_millis(300)).await;
    operator.suspend_tenant(TENANT, "test").await.unwrap();
    let ((idle, after), (busy, after_busy)) = tokio::join!(idle.refused(), busy.refused());
    for status in [idle, busy] {
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "denied by suspended"));
    }
    println!("measured: tenant suspended: an idle stream ended after {after:?}, a busy one after {after_busy:?}");
    assert!(after.max(after_busy) < Duration::from_secs(1));
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    site.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_policies_end_a_stream_within_a_second_of_the_reload() {
    let site = Site::start().await;
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    let call = Call::begin(&channel, start()).await.unwrap();
    let registry = site.dir.path().join("site/policies/registry.toml");
    fs::write(registry, "").unwrap();
    site.gateway.reload().await.unwrap();
    let (status, after) = call.refused().await;
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "denied by registry"));
    println!("measured: registry entry removed: a stream ended after {after:?}");
    assert!(after < Duration::from_secs(1));
    site.gateway.shutdown().await.unwrap();
}

/// A proxy of one connection that can be cut.
async fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut here, _) = listener.accept().await.unwrap();
        let mut there = TcpStream::connect(to).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut here, &mut there).await);
    });
    (at, task)
}

/// How each recorded call on data ended; what has no outcome was carried out.
fn outcomes(entries: &[Entry]) -> Vec<String> {
    let told = |entry: &Entry| match &entry.body {
        Body::Outcome { status, reason, items, .. } => Some(match status {
            Ended::Done => format!("done {items}"),
            Ended::Partial => format!("partial {items} {reason}"),
            Ended::Failed => format!("failed {reason}"),
            Ended::Cancelled => "cancelled".to_owned(),
        }),
        _ => None,
    };
    entries.iter().filter_map(told).collect()
}

/// Waits until no call runs, by what the gateway itself would tell.
async fn settled() {
    sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_cancelled_cut_off_late_or_left_standing_is_told_in_the_log() {
    let mut site = Site::start().await;
    site.gateway.shutdown().await.unwrap();
    let text = fs::read_to_string(&site.made.config).unwrap();
    let limits = "\n[limits]\nstream_idle_timeout_ms = 1000\n";
    assert!(!text.contains("\n[limits]\n"));
    fs::write(&site.made.config, text + limits).unwrap();
    site.gateway = Gateway::start(Config::load(&site.made.config).unwrap()).await.unwrap();
    let channel = site.workload(site.gateway.data_addr()).channel().await.unwrap();
    // Cancelled.
    let mut call = Call::begin(&channel, start()).await.unwrap();
    call.envelope().await;
    call.send(Part::Plaintext(vec![1; 20_000].into())).await;
    assert_eq!(call.envelope().await, 16_400);
    drop(call);
    settled().await;
    // Its connection cut.
    let (at, task) = proxy(site.gateway.data_addr()).await;
    let through = site.workload(at).channel().await.unwrap();
    let mut call = Call::begin(&through, start()).await.unwrap();
    call.envelope().await;
    task.abort();
    let cut = call.refused().await.0;
    assert!(matches!(cut.code(), Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal), "{cut:?}");
    settled().await;
    // Left standing.
    let (status, after) = Call::begin(&channel, start()).await.unwrap().refused().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.get_details_error_info().unwrap().reason, "IDLE_TIMEOUT");
    assert!(after > Duration::from_millis(900) && after < Duration::from_secs(5), "{after:?}");
    // Not done at its deadline, though it never stood still.
    let (to, messages) = mpsc::channel(8);
    to.send(EncryptStreamRequest { part: Some(start()) }).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(messages));
    request.set_timeout(Duration::from_millis(700));
    let answers = CryptoServiceClient::new(channel.clone()).encrypt_stream(request).await.unwrap().into_inner();
    let sending = to.clone();
    let sending = tokio::spawn(async move {
        while sending.send(EncryptStreamRequest { part: Some(Part::Plaintext(vec![1; 10].into())) }).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let late = Call { to, answers }.refused().await.0;
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    timeout(PATIENCE, sending).await.unwrap().unwrap();
    // Whole.
    client(&site).await.encrypt_stream(&target(), &[5; 40_000][..], Vec::new()).await.unwrap();
    let audit = site.dir.path().join("site/data/audit");
    site.gateway.shutdown().await.unwrap();
    assert!(!audit_entries::holds(&audit, b"scan.pdf"), "a context value is in the log");
    let told = outcomes(&audit_entries::entries(&audit));
    assert_eq!(told, ["cancelled", "cancelled", "cancelled", "cancelled", "done 3"]);
}
