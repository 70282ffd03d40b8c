//! Receivers of the tests' own: a syslog server over TLS and an OTLP collector, which do as they are told.
#![expect(clippy::indexing_slicing, reason = "what is not there fails the test")]

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vault_grpc::pki::{Ca, Leaf};

/// A server's TLS, with a CA of its own whose certificate is in a file; and a certificate for a client of it.
pub(crate) struct Pki {
    pub(crate) dir: tempfile::TempDir,
    ca: Ca,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new("sinks").unwrap());
        fs::write(dir.path().join("roots.pem"), ca.pem()).unwrap();
        let pki = Self { dir, ca };
        pki.issue("server", &Leaf::server("spiffe://sinks.example/server"));
        pki.issue("client", &Leaf::client("client", "spiffe://sinks.example/client"));
        pki
    }

    fn issue(&self, name: &str, leaf: &Leaf) {
        use std::os::unix::fs::PermissionsExt as _;
        let issued = self.ca.issue(leaf).unwrap();
        fs::write(self.path(&format!("{name}.pem")), &issued.certificate).unwrap();
        fs::write(self.path(&format!("{name}.key")), issued.key.as_bytes()).unwrap();
        fs::set_permissions(self.path(&format!("{name}.key")), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let pem = |name: &str| fs::read(self.path(name)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem("roots.pem")).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(&pem("server.pem")).unwrap()],
                PrivateKeyDer::from_pem_slice(&pem("server.key")).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Where roots, certificate and key are, for the configuration.
    pub(crate) fn config(&self) -> String {
        let [roots, certificate, key] = ["roots.pem", "client.pem", "client.key"].map(|name| self.path(name));
        format!("roots = \"{roots}\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
    }
}

/// How a server behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// Takes connections, and reads nothing from them.
    deaf: bool,
    /// Closes every new connection.
    refuses: bool,
    /// Connections of an earlier number are cut.
    cut: u64,
}

/// RFC 5424 over RFC 5425. Asks for a certificate.
pub(crate) struct SyslogServer {
    address: SocketAddr,
    pki: Pki,
    manners: watch::Sender<Manners>,
    messages: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for SyslogServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SyslogServer {
    pub(crate) async fn start() -> Self {
        let pki = Pki::new();
        // So little that a server that does not read is noticed soon.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let (manners, watching) = watch::channel(Manners::default());
        let messages = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, pki.acceptor(), watching, Arc::clone(&messages)));
        Self { address, pki, manners, messages, task }
    }

    /// The sink of a configuration, called `siem`.
    pub(crate) fn config(&self, more: &str) -> String {
        let port = self.address.port();
        let tls = self.pki.config();
        format!(
            "\n[[audit.sink]]\nname = \"siem\"\nkind = \"syslog\"\naddress = \"localhost:{port}\"\nhistory = true\n{tls}{more}"
        )
    }

    /// The file with the roots that vouch for it.
    pub(crate) fn roots(&self) -> String {
        self.pki.path("roots.pem")
    }

    pub(crate) fn read(&self, read: bool) {
        self.manners.send_modify(|manners| manners.deaf = !read);
    }

    pub(crate) fn refuse(&self, refuse: bool) {
        self.manners.send_modify(|manners| manners.refuses = refuse);
    }

    /// Ends the connections there are.
    pub(crate) fn cut(&self) {
        self.manners.send_modify(|manners| manners.cut += 1);
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }

    /// The leaf hashes it got, by index: as the structured data says, and the text says the same.
    pub(crate) fn got(&self) -> HashMap<u64, String> {
        let of = |message: &String| {
            let part = |name: &str| {
                let rest = message.split_once(&format!(" {name}=\"")).unwrap().1;
                rest.split_once('"').unwrap().0.to_owned()
            };
            let (_, text) = message.split_once("\"] ").unwrap();
            let text: serde_json::Value = serde_json::from_str(text).unwrap();
            let (index, leaf) = (part("index").parse().unwrap(), part("leaf"));
            assert_eq!(text["metadata"]["sequence"], index);
            assert_eq!(text["unmapped"]["leaf_hash"], leaf.as_str());
            (index, leaf)
        };
        self.messages().iter().map(of).collect()
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    manners: watch::Receiver<Manners>,
    messages: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        if manners.borrow().refuses {
            continue;
        }
        let (acceptor, manners, messages) = (acceptor.clone(), manners.clone(), Arc::clone(&messages));
        tokio::spawn(async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                take(tls, manners, &messages).await;
            }
        });
    }
}

async fn take(mut tls: TlsStream<TcpStream>, mut manners: watch::Receiver<Manners>, messages: &Mutex<Vec<String>>) {
    let begun = manners.borrow().cut;
    let mut bytes = Vec::new();
    loop {
        let now = *manners.borrow_and_update();
        if now.cut != begun {
            return;
        }
        if now.deaf {
            if manners.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = manners.changed() => if changed.is_err() { return },
            read = tls.read_buf(&mut bytes) => if read.unwrap_or(0) == 0 { return },
        }
        // Octet counting: a number, a space, so many bytes.
        while let Some(space) = bytes.iter().position(|byte| *byte == b' ') {
            let (count, rest) = bytes.split_at(space);
            let count: usize = std::str::from_utf8(count).unwrap().parse().unwrap();
            let Some(message) = rest.get(1..=count) else { break };
            messages.lock().unwrap().push(String::from_utf8(message.to_vec()).unwrap());
            bytes.drain(..=space + count);
        }
    }
}

/// What is read of a request for logs: numbers as in opentelemetry-proto.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceLogs {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(message, optional, tag = "5")]
    body: Option<Text>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// OTLP over HTTP in the clear, on this machine.
pub(crate) struct Collector {
    address: SocketAddr,
    answer: watch::Sender<Option<&'static str>>,
    got: Arc<Mutex<HashMap<u64, String>>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, watching) = watch::channel(None);
        let got = Arc::new(Mutex::new(HashMap::new()));
        let taking = Arc::clone(&got);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (watching, taking) = (watching.clone(), Arc::clone(&taking));
                tokio::spawn(async move { while_open(tcp, watching, &taking).await });
            }
        });
        Self { address, answer, got, task }
    }

    /// The sink of a configuration, called `siem`.
    pub(crate) fn config(&self, more: &str) -> String {
        let url = format!("http://{}", self.address);
        format!("\n[[audit.sink]]\nname = \"siem\"\nkind = \"otlp\"\nurl = \"{url}\"\nhistory = true\n{more}")
    }

    /// `hang`, `reject`, `503`; or what a collector does.
    pub(crate) fn answer(&self, answer: Option<&'static str>) {
        self.answer.send_replace(answer);
    }

    /// The leaf hashes that it confirmed, by index.
    pub(crate) fn got(&self) -> HashMap<u64, String> {
        self.got.lock().unwrap().clone()
    }
}

async fn while_open(
    mut tcp: TcpStream,
    answer: watch::Receiver<Option<&'static str>>,
    got: &Mutex<HashMap<u64, String>>,
) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if tcp.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8(bytes.get(..head)?.to_vec()).unwrap().to_ascii_lowercase();
        assert!(text.starts_with("post /v1/logs http/1.1\r\n") && text.contains("application/x-protobuf"), "{text}");
        let length: usize = text.split_once("content-length: ")?.1.split("\r\n").next()?.parse().unwrap();
        while bytes.len() < head + length {
            if tcp.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let request = Export::decode(bytes.get(head..head + length)?).unwrap();
        bytes.drain(..head + length);
        let how = *answer.borrow();
        let (status, body) = match how {
            Some("hang") => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return None;
            }
            Some("503") => ("503 Service Unavailable", Vec::new()),
            // ExportLogsPartialSuccess: one record rejected.
            Some(_) => ("200 OK", vec![10, 2, 8, 1]),
            None => {
                let records = request.resources.iter().flat_map(|r| &r.scopes).flat_map(|s| &s.records);
                for record in records {
                    let said: serde_json::Value = serde_json::from_str(&record.body.as_ref()?.text).unwrap();
                    let leaf = said["unmapped"]["leaf_hash"].as_str()?.to_owned();
                    got.lock().unwrap().insert(said["metadata"]["sequence"].as_u64()?, leaf);
                }
                ("200 OK", Vec::new())
            }
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        tcp.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    }
}
