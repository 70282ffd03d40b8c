//! A gateway in miniature: mutually authenticated TLS with certificates made on the spot, and answers that show what
//! arrived. It seals nothing; "envelopes" are the plaintext backwards.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use vault_client::Endpoint;
use vault_proto::v1::crypto_service_server::{CryptoService, CryptoServiceServer};
use vault_proto::v1::tenant_service_server::{TenantService, TenantServiceServer};
use vault_proto::v1::*;

/// A CA that exists for one test.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A leaf for some DNS names or IP addresses: certificate and key.
    pub(crate) fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self) -> (String, String) {
        self.issue(&["client.test"], ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// A running server, and the CAs on its two sides.
pub(crate) struct Gateway {
    pub(crate) address: String,
    pub(crate) server_ca: Ca,
    pub(crate) client_ca: Ca,
    tls: Arc<ServerConfig>,
    running: Running,
    handshakes: Handshakes,
}

/// The kind of every handshake that succeeded.
type Handshakes = Arc<Mutex<Vec<HandshakeKind>>>;

/// What stops a running server, and the task that ends when all its connections are closed.
struct Running {
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[b"h2"]).await
    }

    pub(crate) async fn start_with(alpn: &[&[u8]]) -> Self {
        let (server_ca, client_ca) = (Ca::new(), Ca::new());
        let (cert, key) = server_ca.issue(&["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(client_ca.pem.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let tls = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let handshakes = Handshakes::default();
        let running = serve(listener, tls.clone(), handshakes.clone());
        Self { address, server_ca, client_ca, tls, running, handshakes }
    }

    /// Closes every connection and the listener, and listens again at the same address.
    pub(crate) async fn restart(&mut self) {
        self.running.stop.send_replace(true);
        (&mut self.running.ended).await.unwrap();
        let listener = TcpListener::bind(&self.address).await.unwrap();
        self.running = serve(listener, self.tls.clone(), self.handshakes.clone());
    }

    pub(crate) fn handshakes(&self) -> Vec<HandshakeKind> {
        self.handshakes.lock().unwrap().clone()
    }

    /// The endpoint as a rightful client sees it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint_with(self.client_ca.client())
    }

    pub(crate) fn endpoint_with(&self, (cert, key): (String, String)) -> Endpoint {
        Endpoint::new(self.address.clone(), "localhost", self.server_ca.pem.clone(), cert, key)
    }
}

fn serve(listener: TcpListener, tls: Arc<ServerConfig>, handshakes: Handshakes) -> Running {
    let (stop, mut stopped) = watch::channel(false);
    let (send, receive) = mpsc::channel(4);
    let acceptor = TlsAcceptor::from(tls);
    let mut until = stopped.clone();
    let accepting = tokio::spawn(async move {
        loop {
            let tcp = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                _ = until.wait_for(|stop| *stop) => return,
            };
            let (acceptor, send, handshakes) = (acceptor.clone(), send.clone(), handshakes.clone());
            tokio::spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    handshakes.lock().unwrap().extend(tls.get_ref().1.handshake_kind());
                    drop(send.send(Ok::<_, std::io::Error>(Conn(tls))).await);
                }
            });
        }
    });
    let crypto = CryptoServiceServer::new(Backwards).max_decoding_message_size(8 << 20);
    let tenants = TenantServiceServer::new(Backwards);
    let route = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let (mut crypto, mut tenants) = (crypto.clone(), tenants.clone());
        async move {
            let path = request.uri().path();
            if path.starts_with("/vault.v1.CryptoService/") {
                crypto.call(request).await
            } else if path.starts_with("/vault.v1.TenantService/") {
                tenants.call(request).await
            } else {
                Ok(Status::unimplemented("no such service").into_http())
            }
        }
    });
    let ended = tokio::spawn(async move {
        let signal = async move { drop(stopped.wait_for(|stop| *stop).await) };
        let incoming = ReceiverStream::new(receive);
        Server::builder().serve_with_incoming_shutdown(route, incoming, signal).await.unwrap();
        accepting.await.unwrap();
    });
    Running { stop, ended }
}

struct Conn(TlsStream<TcpStream>);

impl Connected for Conn {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Backwards;

fn backwards(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// Refuses the dataset `refused` with every detail a gateway gives, and never answers for the dataset `slow`.
async fn gate(dataset: &str, timeout: bool) -> Result<(), Status> {
    if !timeout {
        return Err(Status::invalid_argument("no grpc-timeout"));
    }
    match dataset {
        "slow" => std::future::pending().await,
        "refused" => {
            let mut details = ErrorDetails::new();
            details.set_error_info("INVALID_FIELD", "vault", [("request_id".to_owned(), "00".to_owned())]);
            details.add_bad_request_violation("dataset", "must match the rule");
            Err(Status::with_error_details(Code::InvalidArgument, "invalid dataset", details))
        }
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl CryptoService for Backwards {
    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let timeout = request.metadata().contains_key("grpc-timeout");
        let message = request.into_inner();
        gate(&message.dataset, timeout).await?;
        Ok(Response::new(EncryptResponse {
            envelope: backwards(&message.plaintext).into(),
            key_version: 1,
            audit_receipt: None,
        }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let message = request.into_inner();
        // Shows that subject and context arrive: the caller expects them before the value.
        let mut plaintext = message.subject.unwrap_or_default().into_bytes();
        message.context.iter().for_each(|(k, v)| plaintext.extend(format!("{k}={v};").bytes()));
        plaintext.extend(backwards(&message.envelope));
        Ok(Response::new(DecryptResponse { plaintext: plaintext.into(), key_version: 1, audit_receipt: None }))
    }

    async fn rewrap(&self, request: Request<RewrapRequest>) -> Result<Response<RewrapResponse>, Status> {
        Ok(Response::new(RewrapResponse {
            envelope: request.into_inner().envelope,
            key_version: 2,
            audit_receipt: None,
        }))
    }

    async fn batch_encrypt(
        &self,
        request: Request<BatchEncryptRequest>,
    ) -> Result<Response<BatchEncryptResponse>, Status> {
        let one = |item: BatchEncryptItem| {
            let outcome = if item.dataset == "refused" {
                let error = ItemError { code: 3, reason: "INVALID_FIELD".into(), field: "dataset".into() };
                batch_encrypt_result::Outcome::Error(error)
            } else {
                let mut envelope = backwards(&item.plaintext);
                // As much as a real envelope adds.
                envelope.resize(envelope.len() + if item.dataset == "grow" { 94 } else { 0 }, 0);
                let envelope = envelope.into();
                batch_encrypt_result::Outcome::Sealed(EncryptResponse { envelope, key_version: 1, audit_receipt: None })
            };
            BatchEncryptResult { outcome: Some(outcome) }
        };
        let results = request.into_inner().items.into_iter().map(one).collect();
        Ok(Response::new(BatchEncryptResponse { results, audit_receipts: Vec::new() }))
    }

    async fn batch_decrypt(
        &self,
        request: Request<BatchDecryptRequest>,
    ) -> Result<Response<BatchDecryptResponse>, Status> {
        let one = |item: BatchDecryptItem| {
            let opened =
                DecryptResponse { plaintext: backwards(&item.envelope).into(), key_version: 1, audit_receipt: None };
            BatchDecryptResult { outcome: Some(batch_decrypt_result::Outcome::Opened(opened)) }
        };
        // Loses the last result when there is an empty envelope, which the client must notice.
        let items = request.into_inner().items;
        let lossy = usize::from(items.iter().any(|i| i.envelope.is_empty()));
        let results = items.into_iter().skip(lossy).map(one).collect();
        Ok(Response::new(BatchDecryptResponse { results, audit_receipts: Vec::new() }))
    }

    type EncryptStreamStream = tokio_stream::Iter<std::vec::IntoIter<Result<EncryptStreamResponse, Status>>>;

    /// Answers with an envelope that is whole, as it says, only if the dataset is `whole`; and says more than there was for
    /// the dataset `boast`.
    async fn encrypt_stream(
        &self,
        request: Request<tonic::Streaming<EncryptStreamRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        use encrypt_stream_response::Part;
        let mut messages = request.into_inner();
        let Some(encrypt_stream_request::Part::Start(start)) = messages.message().await?.unwrap().part else {
            return Err(Status::invalid_argument("no start"));
        };
        let mut parts = vec![Part::Envelope(vec![1; 78].into())];
        match start.dataset.as_str() {
            "whole" => parts.push(Part::Complete(EncryptStreamComplete { key_version: 1, envelope_size: 78 })),
            "boast" => parts.push(Part::Complete(EncryptStreamComplete { key_version: 1, envelope_size: 79 })),
            _ => {}
        }
        let parts: Vec<_> = parts.into_iter().map(|part| Ok(EncryptStreamResponse { part: Some(part) })).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    type DecryptStreamStream = tokio_stream::Iter<std::vec::IntoIter<Result<DecryptStreamResponse, Status>>>;

    /// Likewise.
    async fn decrypt_stream(
        &self,
        request: Request<tonic::Streaming<DecryptStreamRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        use decrypt_stream_response::Part;
        let mut messages = request.into_inner();
        let Some(decrypt_stream_request::Part::Start(start)) = messages.message().await?.unwrap().part else {
            return Err(Status::invalid_argument("no start"));
        };
        let mut parts = vec![Part::Plaintext(vec![1; 10].into())];
        match start.dataset.as_str() {
            "whole" => parts.push(Part::VerifiedComplete(DecryptStreamComplete { key_version: 1, plaintext_size: 10 })),
            "boast" => parts.push(Part::VerifiedComplete(DecryptStreamComplete { key_version: 1, plaintext_size: 9 })),
            _ => {}
        }
        let parts: Vec<_> = parts.into_iter().map(|part| Ok(DecryptStreamResponse { part: Some(part) })).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }
}

fn unexpected<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl TenantService for Backwards {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let message = request.into_inner();
        let tenant = Tenant { tenant: message.tenant, root_key_id: message.root_key_id, ..Default::default() };
        Ok(Response::new(CreateTenantResponse { tenant: Some(tenant) }))
    }
    async fn get_tenant(&self, _: Request<GetTenantRequest>) -> Result<Response<GetTenantResponse>, Status> {
        Ok(Response::new(GetTenantResponse { tenant: None }))
    }
    async fn list_tenants(&self, _: Request<ListTenantsRequest>) -> Result<Response<ListTenantsResponse>, Status> {
        unexpected()
    }
    async fn suspend_tenant(
        &self,
        _: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        unexpected()
    }
    async fn resume_tenant(&self, _: Request<ResumeTenantRequest>) -> Result<Response<ResumeTenantResponse>, Status> {
        unexpected()
    }
    async fn rotate_tenant_key(
        &self,
        _: Request<RotateTenantKeyRequest>,
    ) -> Result<Response<RotateTenantKeyResponse>, Status> {
        unexpected()
    }
    async fn rotate_data_keys(
        &self,
        request: Request<RotateDataKeysRequest>,
    ) -> Result<Response<RotateDataKeysResponse>, Status> {
        let rotated_data_keys = if request.into_inner().dataset.is_some() { 1 } else { 7 };
        Ok(Response::new(RotateDataKeysResponse { rotated_data_keys }))
    }
    async fn shred_subject(&self, _: Request<ShredSubjectRequest>) -> Result<Response<ShredSubjectResponse>, Status> {
        unexpected()
    }
    async fn shred_tenant(&self, _: Request<ShredTenantRequest>) -> Result<Response<ShredTenantResponse>, Status> {
        unexpected()
    }
}
