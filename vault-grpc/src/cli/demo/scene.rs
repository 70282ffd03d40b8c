//! The stage: a fresh directory, a development PKI, a running gateway, and the clients' certificates.

use std::fs;
use std::path::{Path, PathBuf};

use vault_client::{ClientError, Endpoint, OperatorClient, OperatorTokens, VaultClient};
use vault_grpc::config::Config;
use vault_grpc::dev_tokens::DevIssuer;
use vault_grpc::init::{self, Made, OPERATOR, OPERATOR_ISSUER, WORKLOAD_DOMAIN};
use vault_grpc::pki::{Issued, Leaf};
use vault_grpc::{Gateway, pki};

use super::Failed;

pub(super) struct Scene {
    pub(super) dir: PathBuf,
    temporary: bool,
    pub(super) gateway: Gateway,
    made: Made,
}

/// Which of the gateway's listeners.
#[derive(Clone, Copy)]
pub(super) enum At {
    Data,
    Control,
}

impl Scene {
    pub(super) async fn set(dir: Option<PathBuf>) -> Result<Self, Failed> {
        let temporary = dir.is_none();
        let dir = dir.unwrap_or_else(|| {
            let id = vault_core::vault::new_request_id().map_or_else(|_| String::new(), |id| id.to_string());
            std::env::temp_dir().join(format!("blindvault-demo-{id}"))
        });
        let made = init::init(&dir, 0, 0)?;
        let gateway = Gateway::start(Config::load(&made.config)?).await.map_err(|error| error.to_string())?;
        Ok(Self { dir, temporary, gateway, made })
    }

    pub(super) fn summary(&self) -> String {
        format!("data plane {}, control plane {}", self.gateway.data_addr(), self.gateway.control_addr())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Failed> {
        Ok(fs::read(self.dir.join("certs").join(name))?)
    }

    fn endpoint(&self, at: At, cert: Vec<u8>, key: Vec<u8>) -> Result<Endpoint, Failed> {
        let address = match at {
            At::Data => self.gateway.data_addr(),
            At::Control => self.gateway.control_addr(),
        };
        Ok(Endpoint::new(address.to_string(), "localhost", self.read("server-ca.pem")?, cert, key))
    }

    /// A listener as seen with one of the certificates that `init` made.
    pub(super) fn with(&self, at: At, name: &str) -> Result<Endpoint, Failed> {
        self.endpoint(at, self.read(&format!("{name}.pem"))?, self.read(&format!("{name}.key"))?)
    }

    /// The data plane as seen with a certificate that the workload CA issues now.
    pub(super) fn issued(&self, leaf: &Leaf) -> Result<Endpoint, Failed> {
        let Issued { certificate, key, .. } = self.made.workload_ca.issue(leaf)?;
        self.endpoint(At::Data, certificate.into_bytes(), key.as_bytes().to_vec())
    }

    pub(super) async fn workload(&self, name: &str) -> Result<VaultClient, Failed> {
        Ok(VaultClient::connect(&self.with(At::Data, name)?).await?)
    }

    pub(super) fn operator_name(&self) -> String {
        format!("operator-{OPERATOR}")
    }

    pub(super) async fn operator(&self) -> Result<OperatorClient, Failed> {
        Ok(OperatorClient::connect(&self.with(At::Control, &self.operator_name())?).await?)
    }

    /// Another operator of those that `init` names: one who approves.
    pub(super) async fn second_operator(&self) -> Result<OperatorClient, Failed> {
        Ok(OperatorClient::connect(&self.with(At::Control, "operator-bob")?).await?)
    }

    /// A gateway of its own that demands tokens of operators, where alice asks: with the certificate alone, with a token of
    /// bob's, and with hers. The gateway is gone afterwards.
    pub(super) async fn by_token(&self) -> Result<[Result<(), ClientError>; 3], Failed> {
        let dir = self.dir.join("with-tokens");
        let made = init::init(&dir, 0, 0)?;
        let issuer = DevIssuer::new(OPERATOR_ISSUER, "https://vault.dev.example")?;
        fs::write(dir.join("operators.jwks"), issuer.jwks())?;
        let table = issuer.table("operators.issuer", "operators.jwks");
        fs::write(&made.config, fs::read_to_string(&made.config)? + &table)?;
        let gateway = Gateway::start(Config::load(&made.config)?).await.map_err(|error| error.to_string())?;
        let read = |name: &str| fs::read(dir.join("certs").join(name));
        let (certificate, key) = (read("operator-alice.pem")?, read("operator-alice.key")?);
        let address = gateway.control_addr().to_string();
        let endpoint = Endpoint::new(address, "localhost", read("server-ca.pem")?, certificate, key);
        let client = OperatorClient::connect(&endpoint).await?;
        let with = |client: OperatorClient, token: String| client.with_tokens(OperatorTokens::fixed(token));
        let (bobs, alices) = (issuer.token("bob")?, issuer.token("alice")?);
        let alone = client.list_tenants(0, "").await.map(drop);
        let with_bobs = with(client.clone(), bobs).list_tenants(0, "").await.map(drop);
        let with_own = with(client, alices).list_tenants(0, "").await.map(drop);
        gateway.shutdown().await?;
        Ok([alone, with_bobs, with_own])
    }

    /// Certificates such as a person might get from a careless workload CA.
    pub(super) fn humans(&self) -> [(&'static str, Leaf); 2] {
        let mut by_id = pki::Leaf::client("Mallory", &format!("spiffe://{WORKLOAD_DOMAIN}/operator/mallory"));
        by_id.email = None;
        let mut by_email = pki::Leaf::client("Mallory", "");
        by_email.uri = None;
        by_email.email = Some("mallory@example.com".into());
        [("/operator/mallory", by_id), ("mallory@example.com", by_email)]
    }

    /// What to type in another terminal while the demo keeps serving.
    pub(super) fn commands(&self) -> Result<Vec<String>, Failed> {
        let script = self.dir.join("try.py");
        fs::write(&script, include_str!("../../../demo/try.py"))?;
        let certs = self.dir.join("certs");
        let (data, at) = (self.gateway.data_addr(), |name: &str| certs.join(name).display().to_string());
        let body = r#"{"tenant":"acme","dataset":"customers","purpose":"billing","plaintext":"aGVsbG8="}"#;
        Ok(vec![
            "\nStill serving. From another terminal, with Python (pip install grpcio protobuf):".into(),
            format!("  python3 {} {data} {}", script.display(), certs.display()),
            "with any gRPC tool that reads descriptor sets, for example buf (npm install @bufbuild/buf):".into(),
            format!(
                "  buf curl --protocol grpc --schema {} --cacert {} --cert {} --key {} -d '{body}' \
                 https://localhost:{}/vault.v1.CryptoService/Encrypt",
                at("vault.binpb"),
                at("server-ca.pem"),
                at("billing.pem"),
                at("billing.key"),
                data.port()
            ),
            format!("  (the operator's certificate, {}, gets nowhere here)", at("operator-alice.pem")),
            "Ctrl-C ends it.".into(),
        ])
    }

    pub(super) fn audit_dir(&self) -> PathBuf {
        self.dir.join("data/audit")
    }

    /// Stops the gateway and removes what the demo made, unless the caller named the directory.
    pub(super) async fn strike(self) -> Result<(), Failed> {
        self.gateway.shutdown().await?;
        if self.temporary {
            fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }
}

/// Copies a directory, for looking at (and tampering with) a log that is in use.
pub(super) fn copy_dir(from: &Path, to: &Path) -> Result<(), Failed> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
