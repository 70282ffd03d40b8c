//! Everything that can go wrong between the vault and KMS: each ends within the deadline, says that it was the root
//! key, and never uses a wrong key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pollster::block_on;
use serde_json::{Value, json};
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::kms::aws::{AwsKmsProvider, AwsKmsRoot, KeyArn};
use vault_core::kms::{EncryptionContext, Layer, RootError, RootKey as _};
use vault_core::secret::Key32;
use vault_core::time::{ManualClock, SystemClock, Timestamp};

use crate::fault_proxy::{Fault, FaultProxy, HttpFault};
use crate::fixture::{People, because, call, tenant};
use crate::localstack::{LocalStack, localstack, runtime};
use crate::support::{context, profile, quick, root, settings, vault};

/// No call with [`quick`] settings takes longer than this, on a busy machine either.
const AT_MOST: Duration = Duration::from_secs(6);

/// A root behind a relay, a key wrapped by it before anything went wrong, and another key of the same account.
struct Scene {
    proxy: FaultProxy,
    root: Arc<AwsKmsRoot>,
    other: KeyArn,
    wrapped: Vec<u8>,
    sealed: Vec<u8>,
    _profile: tempfile::TempDir,
}

fn outer() -> EncryptionContext {
    EncryptionContext { layer: Layer::Outer, ..context("acme") }
}

impl Scene {
    fn new(aws: &LocalStack) -> Self {
        let (profile, file) = profile();
        let (key, other) = (aws.new_key(), aws.new_key());
        let patient = root(settings(aws.address, file.clone()), &key);
        let wrapped = block_on(patient.generate(&context("acme"))).unwrap().wrapped;
        let sealed = block_on(patient.seal(b"inner", &outer())).unwrap();
        let proxy = FaultProxy::http(aws.address);
        let root = root(quick(proxy.address, file), &key);
        Self { proxy, root, other, wrapped, sealed, _profile: profile }
    }

    /// The error of each kind of call under a fault, and how many requests it took.
    fn errors(&self, fault: &Fault) -> Vec<(&'static str, Option<RootError>, usize)> {
        self.proxy.set(fault.clone());
        let key = Key32::generate().unwrap();
        let mut out = Vec::new();
        for name in ["generate", "unwrap", "wrap", "seal", "open"] {
            self.proxy.take_requests();
            let begun = Instant::now();
            let error = match name {
                "generate" => block_on(self.root.generate(&context("acme"))).err(),
                "unwrap" => block_on(self.root.unwrap(&self.wrapped, &context("acme"))).err(),
                "wrap" => block_on(self.root.wrap(&key, &context("acme"))).err(),
                "seal" => block_on(self.root.seal(b"inner", &outer())).err(),
                _ => block_on(self.root.open(&self.sealed, &outer())).err(),
            };
            assert!(begun.elapsed() < AT_MOST, "{name} took {:?}", begun.elapsed());
            out.push((name, error, self.proxy.take_requests().len()));
        }
        self.proxy.set(Fault::None);
        out
    }
}

fn answer(status: u16, code: &str) -> Fault {
    let body = json!({ "__type": code, "message": "canary-of-aws" }).to_string();
    Fault::Http(HttpFault::Answer(status, body))
}

fn edit(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Fault {
    Fault::Http(HttpFault::Edit(Arc::new(move |answer| {
        let mut body: Value = serde_json::from_slice(answer).unwrap();
        change(&mut body);
        body.to_string().into_bytes()
    })))
}

#[test]
fn a_kms_that_does_not_answer_well_is_unavailable_within_the_deadline() {
    let Some(aws) = localstack("a_kms_that_does_not_answer_well_is_unavailable_within_the_deadline") else { return };
    let scene = Scene::new(aws);
    let halved = Fault::Http(HttpFault::Edit(Arc::new(|answer| answer[..answer.len() / 2].to_vec())));
    // (what is wrong, a part of what is said, whether it is worth another attempt)
    let table = [
        ("down", Fault::Down, "cannot be reached", false),
        ("hang", Fault::Hang, "in time", true),
        ("slow", Fault::Slow(Duration::from_secs(3)), "in time", true),
        ("throttled", answer(429, "ThrottlingException"), "too often", true),
        ("throttled", answer(400, "ThrottlingException"), "too often", true),
        ("throttled without a reason", Fault::Http(HttpFault::Answer(429, String::new())), "too often", true),
        ("internal", answer(500, "KMSInternalException"), "has failed", true),
        ("unavailable", Fault::Http(HttpFault::Answer(503, "<html>".into())), "has failed", true),
        ("truncated", halved, "no sense", true),
        ("no JSON", Fault::Http(HttpFault::Answer(200, "<html>".into())), "no sense", true),
        ("nothing in it", Fault::Http(HttpFault::Answer(200, "{}".into())), "no sense", true),
        ("no answer", Fault::CutAfter(0), "AWS KMS", true),
        ("cut in the head", Fault::CutAfter(40), "AWS KMS", true),
        ("cut in the body", Fault::Http(HttpFault::CutInBody), "AWS KMS", true),
        ("garbage", Fault::Garbage, "AWS KMS", true),
        ("unknown credentials", answer(400, "UnrecognizedClientException"), "credentials", false),
        ("not understood", answer(400, "ValidationException"), "does not accept", false),
    ];
    for (what, fault, says, again) in table {
        for (call, error, requests) in scene.errors(&fault) {
            let Some(RootError::Unavailable(why)) = error else { panic!("{what}: {call}: {error:?}") };
            assert!(why.contains(says), "{what}: {call}: {why}");
            assert_eq!(requests > 1, again, "{what}: {call}: {requests} requests");
            let said = Error::from(RootError::Unavailable(why));
            assert!(matches!(&said, Error::Unavailable { dependency: Dependency::RootKey, .. }));
            assert!(!said.to_string().contains("canary-of-aws"));
        }
    }
    // A little slow is no fault, and nothing of the above is left behind.
    for (call, error, requests) in scene.errors(&Fault::Slow(Duration::from_millis(50))) {
        assert_eq!((error, requests), (None, 1), "{call}");
    }
}

#[test]
fn what_kms_says_of_a_key_is_final_and_told_apart() {
    let Some(aws) = localstack("what_kms_says_of_a_key_is_final_and_told_apart") else { return };
    let scene = Scene::new(aws);
    let table = [
        ("DisabledException", RootError::Disabled),
        ("KMSInvalidStateException", RootError::InvalidState),
        ("AccessDeniedException", RootError::Forbidden),
        ("NotFoundException", RootError::Missing),
        ("InvalidCiphertextException", RootError::NotMine),
        ("IncorrectKeyException", RootError::NotMine),
    ];
    for (code, expected) in table {
        for (call, error, requests) in scene.errors(&answer(400, code)) {
            assert_eq!((error, requests), (Some(expected), 1), "{code}: {call}");
        }
        assert!(matches!(Error::from(expected), Error::FailedPrecondition(_)));
    }
}

#[test]
fn an_answer_with_another_key_is_an_alarm_and_never_used() {
    let Some(aws) = localstack("an_answer_with_another_key_is_an_alarm_and_never_used") else { return };
    let scene = Scene::new(aws);
    let all_alarm = |what: &str, fault: &Fault| {
        for (call, error, requests) in scene.errors(fault) {
            assert_eq!((error, requests), (Some(RootError::WrongKey), 1), "{what}: {call}");
        }
    };
    // The answer is right, but names another key.
    let other = scene.other.to_string();
    let named = other.clone();
    all_alarm("wrong KeyId", &edit(move |body| body["KeyId"] = json!(named)));
    all_alarm("a KeyId without ARN", &edit(|body| body["KeyId"] = json!("1234abcd")));
    // Another key's answer altogether.
    let named = other.clone();
    let swapped = edit(move |body| {
        body["KeyId"] = json!(named);
        if body.get("Plaintext").is_some() {
            body["Plaintext"] = json!(BASE64_STANDARD.encode([7; 32]));
        }
    });
    all_alarm("wrong key", &swapped);
    // The request reaches KMS for another key: its honest answer names that key, or that it is not that key's.
    let redirect = Fault::Http(HttpFault::Redirect(Arc::new(move |request| {
        let mut body: Value = serde_json::from_slice(request).unwrap();
        body["KeyId"] = json!(other);
        body.to_string().into_bytes()
    })));
    for (call, error, _) in scene.errors(&redirect) {
        let opening = matches!(call, "unwrap" | "open");
        let expected = if opening { RootError::NotMine } else { RootError::WrongKey };
        assert_eq!(error, Some(expected), "{call}");
    }
    assert!(matches!(Error::from(RootError::WrongKey), Error::Alarm(_)));
    for len in [0, 31, 33] {
        let fault = edit(move |body| {
            if body.get("Plaintext").is_some() {
                body["Plaintext"] = json!(BASE64_STANDARD.encode(vec![7; len]));
            }
        });
        for (call, error, _) in scene.errors(&fault).into_iter().take(2) {
            assert!(matches!(error, Some(RootError::Unavailable(_))), "{len} bytes: {call}: {error:?}");
        }
    }
}

#[test]
fn a_wrong_key_makes_no_tenant_and_a_hang_stops_nothing_for_good() {
    let Some(aws) = localstack("a_wrong_key_makes_no_tenant_and_a_hang_stops_nothing_for_good") else { return };
    let scene = Scene::new(aws);
    let (dir, people) = (tempfile::tempdir().unwrap(), People::new());
    let vault = vault(&dir, Arc::clone(&scene.root), Arc::new(SystemClock));
    let (alice, reason) = (people.operator("alice"), because());
    let create = || block_on(vault.create_tenant(&call(&alice, &reason), &tenant("acme")));
    let other = scene.other.to_string();
    scene.proxy.set(edit(move |body| body["KeyId"] = json!(other)));
    assert!(matches!(create(), Err(Error::Alarm(_))));
    scene.proxy.set(Fault::Hang);
    assert!(matches!(create(), Err(Error::RootKey { retry: true, .. })));
    scene.proxy.set(Fault::None);
    create().unwrap();
    assert!(matches!(create(), Err(Error::AlreadyExists(_))));
}

#[test]
fn a_key_that_does_not_answer_is_left_alone_for_a_while() {
    let Some(aws) = localstack("a_key_that_does_not_answer_is_left_alone_for_a_while") else { return };
    let (_profile, file) = profile();
    let proxy = FaultProxy::http(aws.address);
    let (key, other) = (aws.new_key(), aws.new_key());
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let mut settings = settings(proxy.address, file);
    settings.breaker.failures = 3;
    settings.breaker.pause = Duration::from_secs(60);
    let provider = AwsKmsProvider::new(settings, runtime().handle().clone(), Arc::clone(&clock) as _).unwrap();
    let (root, other) = (provider.key(&key).unwrap(), provider.key(&other).unwrap());
    let generate = |root: &AwsKmsRoot| block_on(root.generate(&context("acme"))).map(drop);
    generate(&root).unwrap();
    proxy.set(answer(500, "KMSInternalException"));
    proxy.take_requests();
    // How many attempts one call makes depends on how busy the machine is; the breaker counts attempts.
    for _ in 0..3 {
        if !root.is_resting() {
            assert!(matches!(generate(&root), Err(RootError::Unavailable(_))));
        }
    }
    // An attempt on a connection that was closed meanwhile fails too, and is no request.
    let asked = proxy.take_requests().len();
    assert!((1..=3).contains(&asked), "{asked}");
    assert!(root.is_resting());
    proxy.set(Fault::None);
    clock.advance_millis(59_999);
    let at_once = generate(&root);
    assert!(matches!(at_once, Err(RootError::Unavailable(why)) if why.contains("lately")), "{at_once:?}");
    assert_eq!(proxy.take_requests().len(), 0, "nothing was asked");
    // Another key of the same account is not concerned.
    assert!(!other.is_resting());
    generate(&other).unwrap();
    clock.advance_millis(1);
    generate(&root).unwrap();
    assert!(!root.is_resting());
}

#[test]
fn a_call_that_nobody_waits_for_ends() {
    let Some(aws) = localstack("a_call_that_nobody_waits_for_ends") else { return };
    let (_profile, file) = profile();
    let proxy = FaultProxy::http(aws.address);
    // Its own deadline would be a minute.
    let root = root(settings(proxy.address, file), &aws.new_key());
    proxy.set(Fault::Hang);
    let context = context("acme");
    let call = async { tokio::time::timeout(Duration::from_millis(500), root.generate(&context)).await };
    assert!(runtime().block_on(call).is_err());
    let begun = Instant::now();
    while proxy.open_connections() > 0 && begun.elapsed() < AT_MOST {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((proxy.open_connections(), proxy.connections()), (0, 1));
}
