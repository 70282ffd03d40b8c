//! An installation on either store.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use vault_client::{Endpoint, Limits, OperatorClient, VaultClient};
use vault_core::fs::OsFs;
#[cfg(feature = "postgres")]
use vault_core::kms::{LocalRoot, Roots};
#[cfg(feature = "postgres")]
use vault_core::principal::certificates_from_pem;
#[cfg(feature = "postgres")]
use vault_core::secret::SecretBytes;
#[cfg(feature = "postgres")]
use vault_core::store::{Address, PostgresSettings, PostgresStore, Tls};
use vault_core::store::{EmbeddedStore, Store, Table};
use vault_grpc::init::{OPERATOR_DOMAIN, init};
use vault_grpc::pki::Leaf;

use crate::acknowledged::WORKLOADS;
use crate::kept::Kept;
#[cfg(feature = "postgres")]
use crate::postgres::{PASSWORD, Server, USER};
use crate::served::{Process, SIGKILL, Served, start};

/// How long a gateway may take to die where a step is to kill it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the rows are.
#[derive(Clone)]
pub(crate) enum Rows {
    Embedded,
    #[cfg(feature = "postgres")]
    Postgres(Arc<Server>, String),
}

#[cfg(feature = "postgres")]
impl Rows {
    /// In a fresh database.
    pub(crate) fn on(server: &Arc<Server>) -> Self {
        Self::Postgres(Arc::clone(server), server.database())
    }
}

/// For a busy machine.
fn patient() -> Limits {
    Limits { deadline: Duration::from_secs(30), ..Limits::default() }
}

pub(crate) struct Site {
    /// Holds `site`: what `init` made.
    dir: tempfile::TempDir,
    rows: Rows,
}

impl Site {
    /// Made by `init`, with two more operators; the workload `billing` may use `tenants` besides its own.
    pub(crate) fn new(rows: Rows, tenants: &[String]) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap(), rows };
        let made = init(&site.path(""), 0, 0).unwrap();
        for name in ["bob", "carol"] {
            let leaf = Leaf::client(name, &format!("spiffe://{OPERATOR_DOMAIN}/operator/{name}"));
            let issued = made.operator_ca.issue(&leaf).unwrap();
            fs::write(site.path(&format!("certs/operator-{name}.pem")), &issued.certificate).unwrap();
            fs::write(site.path(&format!("certs/operator-{name}.key")), issued.key.as_bytes()).unwrap();
        }
        let also: String = tenants.iter().map(|tenant| format!(", \"{tenant}\"")).collect();
        site.edit("policies/registry.toml", "\"acme\"]", &format!("\"acme\"{also}]"));
        // As soon as it may be, so that a test can see the end of it.
        site.edit("vault.toml", "\n[store]\n", "\n[lifecycle]\ndestroy_after_s = 60\n\n[store]\n");
        site.edit("vault.toml", "\n[store]\n", "\n[approvals]\nresume_tenant = 2\n\n[store]\n");
        site.use_rows();
        // Every answer waits for a file as well.
        fs::create_dir(site.path("siem")).unwrap();
        let config = fs::read_to_string(site.path("vault.toml")).unwrap();
        let sink = "\n[[audit.sink]]\nname = \"siem\"\nkind = \"file\"\npath = \"siem/audit.jsonl\"\n\
                    mandatory = true\ndeadline_ms = 30000\n";
        fs::write(site.path("vault.toml"), config + sink).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("site").join(name)
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{name}: {from}");
        fs::write(self.path(name), text.replacen(from, to, 1)).unwrap();
    }

    #[cfg(not(feature = "postgres"))]
    fn use_rows(&self) {}

    #[cfg(feature = "postgres")]
    fn use_rows(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let Rows::Postgres(server, database) = &self.rows else { return };
        fs::write(self.path("db.password"), PASSWORD).unwrap();
        fs::set_permissions(self.path("db.password"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.path("db-ca.pem"), &server.ca_pem).unwrap();
        let store = format!(
            "kind = \"postgres\"\nhosts = [\"localhost:{}\"]\nca = \"db-ca.pem\"\ndatabase = \"{database}\"\n\
             user = \"{USER}\"\npassword_file = \"db.password\"\nconnect_timeout_ms = 30000\nwait_timeout_ms = 30000\n\
             statement_timeout_ms = 30000\nrevocation_lease_ms = 2000\n",
            server.port,
        );
        self.edit("vault.toml", "path = \"data/vault.redb\"\n", &store);
    }

    /// The same installation once more, as it stands: files and rows. Nothing may be serving it.
    pub(crate) fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(self.path("")).arg(dir.path().join("site")).status().unwrap();
        assert!(copied.success());
        match &self.rows {
            Rows::Embedded => Self { dir, rows: Rows::Embedded },
            #[cfg(feature = "postgres")]
            Rows::Postgres(server, database) => {
                let copy = Self { dir, rows: Rows::Postgres(Arc::clone(server), server.copy(database)) };
                let Rows::Postgres(_, name) = &copy.rows else { return copy };
                copy.edit("vault.toml", &format!("\"{database}\""), &format!("\"{name}\""));
                copy
            }
        }
    }

    /// Starts a gateway, and connects to it.
    #[expect(clippy::panic, reason = "tests")]
    pub(crate) async fn serve(&self) -> Served {
        match start(&self.path("vault.toml"), &self.path("failpoint")) {
            Ok(process) => self.connect(process).await,
            Err((status, said)) => panic!("the gateway did not start: {status}\n{}", said.join("\n")),
        }
    }

    async fn connect(&self, process: Process) -> Served {
        let workload = async |who: &str| {
            let endpoint = self.endpoint(&process.data, who);
            VaultClient::connect(&endpoint).await.unwrap().with_limits(patient())
        };
        let operator = async |who: &str| {
            let endpoint = self.endpoint(&process.control, who);
            OperatorClient::connect(&endpoint).await.unwrap().with_limits(patient())
        };
        let [billing, storefront] = WORKLOADS;
        let (billing, storefront, alice, bob, carol) = tokio::join!(
            workload(billing.0),
            workload(storefront.0),
            operator("operator-alice"),
            operator("operator-bob"),
            operator("operator-carol"),
        );
        Served { process, workloads: [billing, storefront], alice, bob, carol }
    }

    /// Starts a gateway that is to kill itself at once.
    pub(crate) async fn serve_until_it_dies(&self) {
        match start(&self.path("vault.toml"), &self.path("failpoint")) {
            Ok(mut process) => assert!(process.dies(PATIENCE).await, "it lives"),
            Err((status, said)) => assert_eq!(status.signal(), Some(SIGKILL), "{status}\n{}", said.join("\n")),
        }
    }

    /// Has the gateway kill itself when it reaches a step for the `nth` time from now.
    pub(crate) fn arm(&self, point: &str, nth: u64) {
        fs::write(self.path("failpoint.new"), format!("{point} {nth}")).unwrap();
        fs::rename(self.path("failpoint.new"), self.path("failpoint")).unwrap();
    }

    pub(crate) fn disarm(&self) {
        fs::remove_file(self.path("failpoint")).unwrap();
    }

    fn endpoint(&self, address: &str, who: &str) -> Endpoint {
        let read = |name: &str| fs::read(self.path("certs").join(name)).unwrap();
        let (certificate, key) = (read(&format!("{who}.pem")), read(&format!("{who}.key")));
        Endpoint::new(address, "localhost", read("server-ca.pem"), certificate, key)
    }

    /// The key that the audit log's checkpoints and receipts are verified with.
    pub(crate) fn verifier(&self) -> String {
        fs::read_to_string(self.path("audit.vkey")).unwrap()
    }

    pub(crate) fn audit_verifies(&self) {
        let output = Command::new(env!("CARGO_BIN_EXE_vault-grpc"))
            .args(["audit", "verify", "--dir"])
            .arg(self.path("data/audit"))
            .arg("--key")
            .arg(self.path("audit.vkey"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "audit verify: {}{}", text(&output.stdout), text(&output.stderr));
    }

    /// What receipts are held against.
    pub(crate) fn dirs(&self) -> Kept {
        Kept { log: self.path("data/audit"), sink: self.path("siem/audit.jsonl"), verifier: self.verifier() }
    }

    /// The states in the rows of a table, in their order, as the store's own reader has them. Nothing may be serving it.
    pub(crate) async fn states_of(&self, table: Table) -> Vec<String> {
        let store: Arc<dyn Store> = match &self.rows {
            Rows::Embedded => Arc::new(EmbeddedStore::open(Arc::new(OsFs), &self.path("data/vault.redb")).unwrap()),
            #[cfg(feature = "postgres")]
            Rows::Postgres(server, database) => Arc::new(self.open_database(server, database).await),
        };
        let found = store.scan(table, b"", None, 1000).await.unwrap();
        let value = |row: &[u8]| serde_json::from_slice::<serde_json::Value>(row).unwrap();
        found.iter().map(|scanned| value(&scanned.row.value)["state"].as_str().unwrap().to_owned()).collect()
    }

    #[cfg(feature = "postgres")]
    async fn open_database(&self, server: &Server, database: &str) -> PostgresStore {
        let config = fs::read_to_string(self.path("vault.toml")).unwrap();
        let instance = config.split("\ninstance = \"").nth(1).unwrap().split('"').next().unwrap();
        let roots = Roots::single(Arc::new(LocalRoot::open(&OsFs, &self.path("root.key")).unwrap())).unwrap();
        let ca = certificates_from_pem(server.ca_pem.as_bytes()).unwrap();
        let hosts = vec![("localhost".to_owned(), server.port)];
        let address = Address::Tcp { hosts, tls: Tls { ca, client: None } };
        let password = Some(SecretBytes::copy_of(PASSWORD.as_bytes()));
        let settings = PostgresSettings { password, ..PostgresSettings::new(address, database, USER) };
        PostgresStore::open(settings, roots, instance).await.unwrap()
    }

    pub(crate) fn has_database(&self) -> bool {
        !matches!(self.rows, Rows::Embedded)
    }

    /// Stops the database, if there is one, as a crash would.
    pub(crate) fn crash_database(&self) {
        match &self.rows {
            Rows::Embedded => {}
            #[cfg(feature = "postgres")]
            Rows::Postgres(server, _) => server.crash(),
        }
    }

    pub(crate) fn start_database(&self) {
        match &self.rows {
            Rows::Embedded => {}
            #[cfg(feature = "postgres")]
            Rows::Postgres(server, _) => server.start(),
        }
    }
}
