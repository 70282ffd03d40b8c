//! A gateway with everything that a row of the table needs, and the asking of all rows.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::transport::Channel;
use vault_client::{ConsentClient, EndUserToken, Endpoint, OperatorClient, Target, VaultClient};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::init::{Made, OPERATOR_DOMAIN, WORKLOAD_DOMAIN, init};
use vault_grpc::pki::{Ca, Issued, Leaf};
use vault_proto::v1::{Consent, CreateDatasetRequest, Plane};
use vault_proto::{Rpc, Timestamp, rpcs};

use super::actions::name;
use super::asking::{Answer, Ask, Asker, MARK};

/// Whose tenant: the workloads' own; of another; their own, but suspended; in their registry entry, and never made.
pub(crate) const TENANTS: [(&str, &str); 4] =
    [("own", "acme"), ("foreign", "globex"), ("suspended", "frozen"), ("unknown", "ghost")];
/// What the dataset demands, and which consents there are.
pub(crate) const DATASETS: [&str; 9] = [
    "plain",
    "restricted",
    "consent-given",
    "consent-none",
    "consent-withdrawn",
    "consent-ended",
    "consent-for-other-purpose",
    "consent-for-other-dataset",
    "no-such-dataset",
];
/// Who stands behind the workload.
pub(crate) const END_USERS: [&str; 6] =
    ["", "user", "user with fresh MFA", "user with old MFA", "another tenant's user", "forged token"];
const ISSUER: &str = "https://id.example";

/// A kind of caller by the certificate that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// A workload with all roles.
    Workload,
    /// One without a role.
    NoRole,
    /// One whose tenant is in its SPIFFE ID.
    Pattern,
    /// One that is in no registry entry.
    Unregistered,
    Operator,
    /// The workload's name from the operators' authority, and the other way round.
    WorkloadByOperators,
    OperatorByWorkloads,
    /// Certificates as people have them.
    MailByWorkloads,
    MailByOperators,
    NameOnly,
    OperatorPath,
    NoCertificate,
}

impl Who {
    pub(crate) const ALL: [(Self, &str); 12] = [
        (Self::Workload, "workload"),
        (Self::NoRole, "workload without a role"),
        (Self::Pattern, "workload of a pattern"),
        (Self::Unregistered, "unregistered workload"),
        (Self::Operator, "operator"),
        (Self::WorkloadByOperators, "workload's ID from the operators' CA"),
        (Self::OperatorByWorkloads, "operator's ID from the workloads' CA"),
        (Self::MailByWorkloads, "workload's ID and an email address"),
        (Self::MailByOperators, "operator's ID and an email address"),
        (Self::NameOnly, "a common name alone"),
        (Self::OperatorPath, "/operator/ in the workloads' domain"),
        (Self::NoCertificate, "no certificate"),
    ];

    pub(crate) fn shown(self) -> &'static str {
        Self::ALL.iter().find(|(who, _)| *who == self).unwrap().1
    }
}

/// One question and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) rpc: &'static Rpc,
    /// The plane that was called.
    pub(crate) at: Plane,
    pub(crate) who: Who,
    pub(crate) end_user: &'static str,
    pub(crate) tenant: &'static str,
    /// Empty if the request names none.
    pub(crate) dataset: &'static str,
    pub(crate) answer: Answer,
}

pub(crate) struct Site {
    _dir: TempDir,
    made: Made,
    pub(crate) gateway: Gateway,
    provider: KeyPair,
    stranger: KeyPair,
    /// By tenant and dataset.
    /// Tenant, dataset, a record and a stream.
    envelopes: Vec<(String, String, [Vec<u8>; 2])>,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn workload_id(path: &str) -> String {
    format!("spiffe://{WORKLOAD_DOMAIN}{path}")
}

fn token(key: &KeyPair, tenant: &str, amr: &str, signed_in: i64) -> String {
    let now = now();
    let header = b64(r#"{"alg":"EdDSA","typ":"at+jwt","kid":"one"}"#);
    let claims = b64(format!(
        r#"{{"iss":"{ISSUER}","aud":"https://vault.example","sub":"ann","tenant":"{tenant}","client_id":"portal",
        "jti":"1","iat":{now},"exp":{},"auth_time":{},"amr":["pwd","{amr}"]}}"#,
        now + 300,
        now - signed_in,
    ));
    let signature = b64(key.sign(format!("{header}.{claims}").as_bytes()).unwrap());
    format!("{header}.{claims}.{signature}")
}

/// The tenants that a control call is tried on: one for each call, for it may change them.
fn control_tenant(state: &str, rpc: &Rpc) -> String {
    format!("{state}-{}", name(rpc).to_lowercase().replace("service", ""))
}

fn control_rpcs() -> impl Iterator<Item = &'static Rpc> {
    rpcs().iter().filter(|rpc| rpc.plane == Plane::Control)
}

impl Site {
    /// Starts a gateway and makes all that is asked about.
    pub(crate) async fn start(asker: &Asker) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = init(&dir.path().join("site"), 0, 0).unwrap();
        let (provider, stranger) =
            (KeyPair::generate_for(&PKCS_ED25519).unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let beside = |name: &str| made.config.with_file_name(name);
        let all = r#"["writer", "reader", "rewrapper", "consent", "access-log"]"#;
        let own = r#"tenants = ["acme", "frozen", "ghost"]"#;
        let registry: String = [
            ("/m/full", own, all),
            ("/m/bare", own, "[]"),
            ("/m/other", r#"tenants = ["globex"]"#, all),
            ("/m/of/{tenant}/app", "", all),
        ]
        .iter()
        .map(|(path, tenants, roles)| {
            let id = workload_id(path);
            format!("[[workload]]\nid = {id:?}\nservice = \"m\"\nenvironment = \"dev\"\n{tenants}\nroles = {roles}\n")
        })
        .collect();
        fs::write(beside("policies/registry.toml"), registry).unwrap();
        let x = b64(provider.public_key_raw());
        let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"one","x":"{x}"}}]}}"#);
        fs::write(beside("jwks.json"), jwks).unwrap();
        let issuer = format!(
            "\n[[end_users.issuer]]\nissuer = \"{ISSUER}\"\naudiences = [\"https://vault.example\"]\ntenants = [\"*\"]\n\
             jwks_file = \"jwks.json\"\nbinding = \"if-present\"\n"
        );
        let config = fs::read_to_string(&made.config).unwrap();
        fs::write(&made.config, config + &issuer).unwrap();
        let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
        let mut site = Self { _dir: dir, made, gateway, provider, stranger, envelopes: Vec::new() };
        site.make().await;
        for rpc in control_rpcs().filter(|rpc| asker.has(rpc.request, "tenant")) {
            site.make_for(rpc).await;
        }
        site
    }

    fn issued(&self, who: Who) -> Option<Issued> {
        let (workloads, operators) = (&self.made.workload_ca, &self.made.operator_ca);
        let (full, alice) = (workload_id("/m/full"), format!("spiffe://{OPERATOR_DOMAIN}/operator/alice"));
        let issue = |ca: &Ca, id: &str, change: fn(&mut Leaf)| {
            let mut leaf = Leaf::client("somebody", id);
            change(&mut leaf);
            Some(ca.issue(&leaf).unwrap())
        };
        let mail: fn(&mut Leaf) = |leaf| leaf.email = Some("alice@example.com".to_owned());
        match who {
            Who::Workload => issue(workloads, &full, |_| {}),
            Who::NoRole => issue(workloads, &workload_id("/m/bare"), |_| {}),
            Who::Pattern => issue(workloads, &workload_id("/m/of/acme/app"), |_| {}),
            Who::Unregistered => issue(workloads, &workload_id("/m/nobody"), |_| {}),
            Who::Operator => issue(operators, &alice, |_| {}),
            Who::WorkloadByOperators => issue(operators, &full, |_| {}),
            Who::OperatorByWorkloads => issue(workloads, &alice, |_| {}),
            Who::MailByWorkloads => issue(workloads, &full, mail),
            Who::MailByOperators => issue(operators, &alice, mail),
            Who::NameOnly => issue(workloads, &full, |leaf| leaf.uri = None),
            Who::OperatorPath => issue(workloads, &workload_id("/operator/alice"), |_| {}),
            Who::NoCertificate => None,
        }
    }

    fn address(&self, plane: Plane) -> SocketAddr {
        if plane == Plane::Data { self.gateway.data_addr() } else { self.gateway.control_addr() }
    }

    fn endpoint(&self, plane: Plane, issued: &Issued) -> Endpoint {
        let (at, server_ca) = (self.address(plane).to_string(), self.made.server_ca.pem());
        Endpoint::new(at, "localhost", server_ca, issued.certificate.as_str(), issued.key.as_str())
    }

    /// A connection, or how it was refused.
    async fn connect(&self, plane: Plane, who: Who) -> Result<Channel, String> {
        let Some(issued) = self.issued(who) else { return Err(self.without_certificate(plane).await) };
        self.endpoint(plane, &issued).channel().await.map_err(|error| match error.tls() {
            Some(rustls::Error::AlertReceived(alert)) => format!("no connection: {alert:?}"),
            _ => panic!("{who:?}: {error}"),
        })
    }

    async fn without_certificate(&self, plane: Plane) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.made.server_ca.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(self.address(plane)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let error = tls.read_u8().await.unwrap_err();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => format!("no connection: {alert:?}"),
            other => panic!("{other:?}"),
        }
    }

    async fn operator(&self) -> OperatorClient {
        let issued = self.issued(Who::Operator).unwrap();
        OperatorClient::connect(&self.endpoint(Plane::Control, &issued)).await.unwrap()
    }

    /// Tenants, datasets, envelopes and consents of the data calls.
    async fn make(&mut self) {
        let operator = self.operator().await;
        let mut ended = 0;
        for (relation, tenant) in TENANTS.into_iter().filter(|(relation, _)| *relation != "unknown") {
            operator.create_tenant(tenant, None, "matrix").await.unwrap();
            for dataset in DATASETS.into_iter().filter(|dataset| !dataset.starts_with("no-such")) {
                let wanted = CreateDatasetRequest {
                    tenant: tenant.into(),
                    dataset: dataset.into(),
                    classification: if dataset == "restricted" { "restricted".into() } else { String::new() },
                    consent_required: dataset.starts_with("consent-"),
                    reason: "matrix".into(),
                    ..Default::default()
                };
                operator.create_dataset_as(wanted).await.unwrap();
            }
            let path = if relation == "foreign" { "/m/other" } else { "/m/full" };
            let issued = self.made.workload_ca.issue(&Leaf::client("maker", &workload_id(path))).unwrap();
            let endpoint = self.endpoint(Plane::Data, &issued);
            let vault = VaultClient::connect(&endpoint).await.unwrap();
            for dataset in DATASETS.into_iter().filter(|dataset| !dataset.starts_with("no-such")) {
                let target = Target::new(tenant, dataset, "billing");
                let sealed = vault.encrypt(&target, MARK).await.unwrap();
                let mut stream = Vec::new();
                vault.encrypt_stream(&target, MARK, &mut stream).await.unwrap();
                self.envelopes.push((tenant.to_owned(), dataset.to_owned(), [sealed.envelope.to_vec(), stream]));
            }
            let consents = ConsentClient::connect(&endpoint).await.unwrap();
            let user = EndUserToken::new(&token(&self.provider, tenant, "mfa", 0));
            for (dataset, purpose) in [
                ("consent-given", "billing"),
                ("consent-withdrawn", "billing"),
                ("consent-ended", "billing"),
                ("consent-for-other-purpose", "marketing"),
                // And none for `consent-for-other-dataset`, but for its neighbour.
                ("plain", "billing"),
            ] {
                let mut consent = Consent {
                    tenant: tenant.into(),
                    datasets: vec![dataset.into()],
                    purposes: vec![purpose.into()],
                    ..Default::default()
                };
                if dataset == "consent-ended" {
                    ended = now() + 3;
                    consent.end_time = Some(Timestamp { seconds: ended, nanos: 0 });
                }
                let given = consents.grant(&user, consent).await.unwrap().consent.unwrap();
                if dataset == "consent-withdrawn" {
                    consents.withdraw(&user, tenant, &given.consent).await.unwrap();
                }
            }
            if relation == "suspended" {
                operator.suspend_tenant(tenant, "matrix").await.unwrap();
            }
        }
        while now() <= ended {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The tenants that a control call is tried on.
    async fn make_for(&self, rpc: &Rpc) {
        let operator = self.operator().await;
        for state in ["any", "active", "suspended"] {
            let tenant = control_tenant(state, rpc);
            operator.create_tenant(&tenant, None, "matrix").await.unwrap();
            operator.create_dataset(&tenant, "plain", "", "", "matrix").await.unwrap();
            if state == "suspended" {
                operator.suspend_tenant(&tenant, "matrix").await.unwrap();
            }
        }
    }

    fn ask(&self, tenant: &str, dataset: &str, end_user: &str) -> Ask {
        let known = |d: &str| self.envelopes.iter().find(|(t, of, _)| t == tenant && of == d);
        let found = known(dataset).or_else(|| known("plain")).or_else(|| self.envelopes.first()).unwrap().2.clone();
        let [envelope, stream] = found;
        let other = if tenant == "globex" { "acme" } else { "globex" };
        let token = match end_user {
            "user" => Some(token(&self.provider, tenant, "otp", 0)),
            "user with fresh MFA" => Some(token(&self.provider, tenant, "mfa", 0)),
            "user with old MFA" => Some(token(&self.provider, tenant, "mfa", 2000)),
            "another tenant's user" => Some(token(&self.provider, other, "mfa", 0)),
            "forged token" => Some(token(&self.stranger, tenant, "mfa", 0)),
            _ => None,
        };
        let (tenant, dataset) = (tenant.to_owned(), dataset.to_owned());
        Ask { tenant, dataset, envelope, stream, token, workload: workload_id("/m/bare"), end: now() + 3600 }
    }

    /// All rows.
    pub(crate) async fn ask_all(&self, asker: &Asker) -> Vec<Row> {
        let mut rows = Vec::new();
        for rpc in rpcs() {
            self.by_certificate(asker, rpc, &mut rows).await;
        }
        for rpc in rpcs().iter().filter(|rpc| rpc.plane == Plane::Data) {
            self.by_tenant(asker, rpc, &mut rows).await;
        }
        for rpc in control_rpcs().filter(|rpc| asker.has(rpc.request, "tenant")) {
            let channel = self.connect(Plane::Control, Who::Operator).await.unwrap();
            for tenant in ["active", "suspended", "unknown"] {
                let ask = self.ask(&control_tenant(tenant, rpc), "plain", "");
                let answer = asker.ask(&channel, rpc, &ask).await;
                rows.push(Row {
                    rpc,
                    at: Plane::Control,
                    who: Who::Operator,
                    end_user: "",
                    tenant,
                    dataset: "",
                    answer,
                });
            }
        }
        rows
    }

    /// Both planes, every certificate, and where nothing but that is wrong.
    async fn by_certificate(&self, asker: &Asker, rpc: &'static Rpc, rows: &mut Vec<Row>) {
        let tenant = if rpc.plane == Plane::Data { "acme".to_owned() } else { control_tenant("any", rpc) };
        let needs_user = asker.has(rpc.request, "end_user_token") && !asker.has(rpc.request, "dataset");
        let end_user = if needs_user { "user with fresh MFA" } else { "" };
        for at in [Plane::Data, Plane::Control] {
            for (who, _) in Who::ALL {
                let answer = match self.connect(at, who).await {
                    Ok(channel) => asker.ask(&channel, rpc, &self.ask(&tenant, "plain", end_user)).await,
                    Err(refused) => Answer::of(refused),
                };
                rows.push(Row { rpc, at, who, end_user, tenant: "", dataset: "", answer });
            }
        }
    }

    /// Workloads, whoever stands behind them, on every kind of tenant and dataset.
    async fn by_tenant(&self, asker: &Asker, rpc: &'static Rpc, rows: &mut Vec<Row>) {
        let datasets = if asker.has(rpc.request, "dataset") { &DATASETS[..] } else { &[""] };
        for who in [Who::Workload, Who::NoRole, Who::Pattern, Who::Unregistered] {
            let channel = self.connect(Plane::Data, who).await.unwrap();
            // Who asks without right does so for nobody, and for somebody whom all trust.
            let all = who == Who::Workload;
            for end_user in END_USERS.into_iter().filter(|user| all || ["", "user with fresh MFA"].contains(user)) {
                for (tenant, id) in TENANTS {
                    for dataset in datasets {
                        let answer = asker.ask(&channel, rpc, &self.ask(id, dataset, end_user)).await;
                        rows.push(Row { rpc, at: Plane::Data, who, end_user, tenant, dataset, answer });
                    }
                }
            }
        }
    }
}
