//! AWS KMS as LocalStack plays it, on a free loopback port, for one test program. It ends with the test program.
//!
//! The interpreter is `BLINDVAULT_LOCALSTACK_PYTHON`, that of the virtual environment that `cargo xtask test` makes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kms::primitives::Blob;
use tokio::runtime::Runtime;
use vault_core::kms::EncryptionContext;
use vault_core::kms::aws::KeyArn;

/// The account that LocalStack's keys lie in.
pub(crate) const ACCOUNT: &str = "000000000000";
/// How long it may take to start and to answer its first call, for which it loads much.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running LocalStack. Its end of the pipe is its leash: when this process ends, however it ends, so does LocalStack.
pub(crate) struct LocalStack {
    pub(crate) address: SocketAddr,
    _leash: ChildStdin,
    child: Mutex<Child>,
    _dir: tempfile::TempDir,
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        drop(child.kill());
        drop(child.wait());
    }
}

/// The runtime of this program's tests.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// The LocalStack of this program, or `None` after saying that `test` is skipped.
pub(crate) fn localstack(test: &str) -> Option<&'static LocalStack> {
    static SHARED: OnceLock<Result<LocalStack, String>> = OnceLock::new();
    match SHARED.get_or_init(LocalStack::start) {
        Ok(localstack) => Some(localstack),
        Err(reason) => {
            assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
            println!("SKIPPED {test}: {reason}");
            None
        }
    }
}

impl LocalStack {
    fn start() -> Result<Self, String> {
        let python = std::env::var("BLINDVAULT_LOCALSTACK_PYTHON")
            .map_err(|_| "BLINDVAULT_LOCALSTACK_PYTHON does not name a Python with LocalStack".to_owned())?;
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let program = format!("{}/tests/python/localstack_until_eof.py", env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(&python)
            .arg(program)
            .env("GATEWAY_SERVER", "hypercorn")
            .env("GATEWAY_LISTEN", address.to_string())
            .env("FILESYSTEM_ROOT", dir.path())
            .env("SERVICES", "kms")
            .envs(["EAGER_SERVICE_LOADING", "SKIP_SSL_CERT_DOWNLOAD", "DISABLE_EVENTS"].map(|name| (name, "1")))
            .env("DNS_ADDRESS", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{python}: {error}"))?;
        let leash = child.stdin.take().ok_or("no pipe")?;
        let this = Self { address, _leash: leash, child: Mutex::new(child), _dir: dir };
        let begun = Instant::now();
        while !this.answers() {
            let ended = this.child.lock().unwrap().try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                return Err(format!("LocalStack does not start: {ended:?} after {} s", begun.elapsed().as_secs()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(this)
    }

    /// One cheap call of KMS, after which the next ones are quick.
    fn answers(&self) -> bool {
        let call = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let head = "POST / HTTP/1.1\r\nHost: kms\r\nX-Amz-Target: TrentService.ListKeys\r\nConnection: close\r\n\
                        Content-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\nAuthorization: \
                        AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, \
                        Signature=00\r\n\r\n{}";
            stream.write_all(head.as_bytes())?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer.starts_with(b"HTTP/1.1 200"))
        };
        call().unwrap_or(false)
    }

    /// What the owner of the keys uses.
    pub(crate) fn owner(&self, region: &str) -> Owner {
        Owner::at(self.address, region)
    }

    /// A new key in `us-east-1`.
    pub(crate) fn new_key(&self) -> KeyArn {
        self.owner("us-east-1").create(false)
    }
}

/// The owner of KMS keys.
pub(crate) struct Owner {
    pub(crate) client: Client,
}

impl Owner {
    pub(crate) fn at(address: SocketAddr, region: &str) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.to_owned()))
            .endpoint_url(format!("http://{address}"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Self { client: Client::from_conf(config.build()) }
    }

    pub(crate) fn create(&self, multi_region: bool) -> KeyArn {
        let made = runtime().block_on(self.client.create_key().multi_region(multi_region).send()).unwrap();
        KeyArn::parse(made.key_metadata.unwrap().arn.as_deref().unwrap()).unwrap()
    }

    /// Encrypts as anybody may who has the right to, whatever the vault would do.
    pub(crate) fn encrypt(&self, key: &KeyArn, plaintext: &[u8], context: &EncryptionContext) -> Vec<u8> {
        let pairs = context.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let call = self.client.encrypt().key_id(key.as_str()).plaintext(Blob::new(plaintext));
        let made = runtime().block_on(call.set_encryption_context(Some(pairs)).send()).unwrap();
        made.ciphertext_blob.unwrap().into_inner()
    }

    pub(crate) fn disable(&self, key: &KeyArn) {
        runtime().block_on(self.client.disable_key().key_id(key.as_str()).send()).unwrap();
    }

    pub(crate) fn enable(&self, key: &KeyArn) {
        runtime().block_on(self.client.enable_key().key_id(key.as_str()).send()).unwrap();
    }

    pub(crate) fn schedule_deletion(&self, key: &KeyArn) {
        let call = self.client.schedule_key_deletion().key_id(key.as_str()).pending_window_in_days(7);
        runtime().block_on(call.send()).unwrap();
    }

    pub(crate) fn cancel_deletion(&self, key: &KeyArn) {
        runtime().block_on(self.client.cancel_key_deletion().key_id(key.as_str()).send()).unwrap();
    }

    pub(crate) fn replicate(&self, key: &KeyArn, region: &str) -> KeyArn {
        let call = self.client.replicate_key().key_id(key.as_str()).replica_region(region);
        let made = runtime().block_on(call.send()).unwrap();
        KeyArn::parse(made.replica_key_metadata.unwrap().arn.as_deref().unwrap()).unwrap()
    }
}
