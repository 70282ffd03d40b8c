//! No secret is taken from the environment, and none reaches a trace.

use std::fmt::{self, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex};

use aws_sdk_kms::primitives::Blob;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pollster::block_on;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use vault_core::kms::aws::{AwsKmsProvider, CredentialSettings, KeyArn};
use vault_core::kms::{RootError, RootKey as _};
use vault_core::time::SystemClock;

use crate::fault_proxy::{Fault, FaultProxy, HttpFault};
use crate::localstack::{Owner, localstack};
use crate::support::{context, profile, root, settings};

/// What a child process shall do: `MODE KMS-ADDRESS ARN`.
const CHILD: &str = "BLINDVAULT_AWS_CHILD";
const ENVIRONMENT: &str = "secrets::credentials_in_the_environment_are_not_used";

/// In a process that has credentials in its environment, and others in the files that its environment names.
fn child(task: &str) {
    let [mode, address, arn] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let key = KeyArn::parse(arn).unwrap();
    let mut settings = settings(address.parse().unwrap(), "/nowhere".into());
    settings.credentials = CredentialSettings::default();
    if mode.starts_with("through-") {
        settings.credentials.profile = Some(mode.into());
    }
    let answer = block_on(root(settings, &key).generate(&context("acme"))).map(drop);
    match mode {
        "file" | "container" => assert_eq!(answer, Ok(())),
        _ => assert_eq!(answer, Err(RootError::Unavailable("there are no AWS credentials")), "{mode}"),
    }
}

#[test]
fn credentials_in_the_environment_are_not_used() {
    if let Ok(task) = std::env::var(CHILD) {
        return child(&task);
    }
    let Some(aws) = localstack("credentials_in_the_environment_are_not_used") else { return };
    let (kms, container) = (FaultProxy::http(aws.address), FaultProxy::http(aws.address));
    let handed_out =
        r#"{"AccessKeyId":"test","SecretAccessKey":"test","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
    container.set(Fault::Http(HttpFault::Answer(200, handed_out.into())));
    let (dir, file) = profile();
    let assume = dir.path().join("assume");
    let role = "role_arn = arn:aws:iam::000000000000:role/x";
    let chained = format!(
        "[profile through-environment]\n{role}\ncredential_source = Environment\n\
         [profile through-file]\n{role}\nsource_profile = base\n\
         [profile base]\naws_access_key_id = test\naws_secret_access_key = test\n"
    );
    std::fs::write(&assume, chained).unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "from-a-file").unwrap();
    let (key, nowhere) = (aws.new_key(), dir.path().join("nowhere"));
    let run = |mode: &str, more: &[(&str, &str)]| {
        let done = Command::new(std::env::current_exe().unwrap())
            .args([ENVIRONMENT, "--exact", "--nocapture"])
            .env(CHILD, format!("{mode} {} {key}", kms.address))
            .env("HOME", &nowhere)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", &nowhere)
            .env("AWS_SHARED_CREDENTIALS_FILE", &nowhere)
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains("1 passed"), "{mode}: {said}");
        (kms.take_requests().len(), container.take_requests().len())
    };
    let uri = format!("http://{}/credentials", container.address);
    let (file, assume, token) = (file.to_str().unwrap(), assume.to_str().unwrap(), token.to_str().unwrap());
    assert_eq!(run("environment", &[]), (0, 0));
    // A profile that sends the SDK back into the environment for what it shows STS: STS is not so much as asked. With
    // credentials from the file it is (and its answer here is none).
    let endpoint = format!("http://{}", container.address);
    let more = [("AWS_CONFIG_FILE", assume), ("AWS_ENDPOINT_URL_STS", &endpoint)];
    assert_eq!(run("through-environment", &more), (0, 0));
    let (asked, sts) = run("through-file", &more);
    assert!(asked == 0 && sts > 0, "{asked} {sts}");
    // The container's endpoint with its token in the environment, and with its token in a file.
    let endpoint = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str());
    let secret = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "from-the-environment");
    assert_eq!(run("token", &[endpoint, secret]), (0, 0));
    assert_eq!(run("container", &[endpoint, secret, ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)]), (1, 1));
    // That none of it works for another reason: a file with credentials is used.
    assert_eq!(run("file", &[("AWS_SHARED_CREDENTIALS_FILE", file)]), (1, 0));
}

/// Everything that is traced on this thread.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<String>>);

impl Visit for Collector {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Encrypts once as anybody would, then uses a root key, and looks for keys in all that was traced meanwhile.
fn traced(task: &str) {
    let [address, arn, file] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (address, key) = (address.parse().unwrap(), KeyArn::parse(arn).unwrap());
    let collector = Collector::default();
    // One thread, so that the collector hears every task.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let canary = [0x5a; 32];
    let keys = tracing::subscriber::with_default(collector.clone(), || {
        runtime.block_on(async {
            let owner = Owner::at(address, "us-east-1");
            owner.client.encrypt().key_id(key.as_str()).plaintext(Blob::new(canary)).send().await.unwrap();
            let handle = tokio::runtime::Handle::current();
            let settings = settings(address, file.into());
            let provider = AwsKmsProvider::new(settings, handle, Arc::new(SystemClock)).unwrap();
            let (root, acme) = (provider.key(&key).unwrap(), context("acme"));
            let generated = root.generate(&acme).await.unwrap();
            let wrapped = root.wrap(&generated.key, &acme).await.unwrap();
            let unwrapped = root.unwrap(&wrapped, &acme).await.unwrap();
            [generated.key, unwrapped]
        })
    });
    let heard = collector.0.lock().unwrap();
    let holds = |key: &[u8; 32]| {
        let base64 = BASE64_STANDARD.encode(key);
        // Bytes may be written as a list of numbers; so may those of a JSON text.
        let numbers = [format!("{key:?}"), format!("{:?}", base64.as_bytes())];
        let [key_numbers, base64_numbers] = numbers.map(|list| list.trim_matches(['[', ']']).to_owned());
        let forms = [base64, hex::encode(key), key.escape_ascii().to_string(), key_numbers, base64_numbers];
        forms.iter().any(|form| heard.contains(form.as_str()))
    };
    assert!(holds(&canary), "the control was not found in {} bytes", heard.len());
    for key in &keys {
        assert!(!holds(key.expose().unwrap()));
    }
}

#[test]
fn a_trace_of_everything_holds_no_key() {
    if let Ok(task) = std::env::var(CHILD) {
        return traced(&task);
    }
    let Some(aws) = localstack("a_trace_of_everything_holds_no_key") else { return };
    let ((_profile, file), key) = (profile(), aws.new_key());
    // With these the SDK traces bodies; that is what is to be kept from happening, so the control needs it.
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["secrets::a_trace_of_everything_holds_no_key", "--exact", "--nocapture"])
        .env(CHILD, format!("{} {key} {}", aws.address, file.display()))
        .envs(["LOG_SIGNABLE_BODY", "LOG_SENSITIVE_BODIES"].map(|name| (name, "true")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}
