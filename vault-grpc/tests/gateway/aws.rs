//! A gateway whose root key lies in AWS KMS: what callers are told when KMS refuses, or is not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use vault_client::Code;

use super::fault_proxy::{Fault, FaultProxy, HttpFault};
use super::support::Fixture;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/12";

async fn start(proxy: &FaultProxy) -> Fixture {
    let endpoint = format!("http://{}", proxy.address);
    Fixture::start_with(|made, text| {
        let profile = made.config.with_file_name("credentials");
        fs::write(&profile, "[default]\naws_access_key_id = test\naws_secret_access_key = test\n").unwrap();
        fs::set_permissions(&profile, fs::Permissions::from_mode(0o600)).unwrap();
        let local = "[root]\nkind = \"local\"\npath = \"root.key\"\n";
        assert!(text.contains(local), "{text}");
        let aws = format!(
            "[root]\nkind = \"aws-kms\"\nkey = \"{KEY}\"\n[aws]\nendpoints = {{ eu-west-1 = \"{endpoint}\" }}\n\
             credentials = [\"profile\"]\nprofile_file = \"credentials\"\ndeadline_ms = 2000\nattempt_ms = 1000\n"
        );
        text.replace(local, &aws)
    })
    .await
}

#[tokio::test]
async fn what_kms_answers_reaches_the_caller_as_code_and_reason() {
    // No KMS is behind it: every answer is the relay's own.
    let proxy = FaultProxy::http(([127, 0, 0, 1], 9).into());
    let fixture = start(&proxy).await;
    let operator = fixture.operator().await;
    let answer = |status, body: &str| Fault::Http(HttpFault::Answer(status, body.into()));
    let another = format!(r#"{{"KeyId":"{KEY}3","Plaintext":"{}=","CiphertextBlob":"AAAA"}}"#, "A".repeat(43));
    let table = [
        (Fault::Down, Code::Unavailable, "DEPENDENCY_UNAVAILABLE", "root_key"),
        (Fault::Hang, Code::Unavailable, "DEPENDENCY_UNAVAILABLE", "root_key"),
        (answer(400, r#"{"__type":"DisabledException"}"#), Code::FailedPrecondition, "FAILED_PRECONDITION", "disabled"),
        (
            answer(400, r#"{"__type":"AccessDeniedException","Message":"canary"}"#),
            Code::FailedPrecondition,
            "FAILED_PRECONDITION",
            "does not let this installation use it",
        ),
        (answer(200, &another), Code::FailedPrecondition, "ALARM", "another key"),
    ];
    for (fault, code, reason, says) in table {
        proxy.set(fault);
        let error = operator.create_tenant("acme", None, "test").await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (code, reason), "{error}");
        assert!(error.message().contains(says) && !error.message().contains("canary"), "{error}");
    }
    // The right key's answer makes the tenant after all.
    let right = another.replace(&format!("{KEY}3"), KEY);
    proxy.set(answer(200, &right));
    operator.create_tenant("acme", None, "test").await.unwrap();
}
