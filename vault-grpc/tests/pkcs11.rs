//! A gateway whose root key is in a hardware security module: SoftHSM.
#![cfg(all(feature = "dev", feature = "pkcs11"))]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

#[path = "../../vault-core/tests/common/softhsm.rs"]
mod softhsm;

use std::fs;

use softhsm::{Hsm, PIN, with_tokens, write_pin};
use vault_client::{Endpoint, OperatorClient, Target, VaultClient};
use vault_core::kms::Pkcs11Root;
use vault_grpc::config::Config;
use vault_grpc::init::{Made, init};
use vault_grpc::{Gateway, build};

/// What `init` makes, but with the root key in a token beside the local one, and this default.
fn made(hsm: &Hsm, token: &str, default: &str) -> Made {
    let dir = hsm.dir.join(format!("site-{token}-{}", fs::read_dir(&hsm.dir).unwrap().count()));
    let made = init(&dir, 0, 0).unwrap();
    let text = fs::read_to_string(&made.config).unwrap();
    write_pin(&dir.join("hsm.pin"), PIN, 0o600);
    let several = format!(
        "[roots.disk]\nkind = \"local\"\npath = \"root.key\"\n\
         [roots.hsm]\nkind = \"pkcs11\"\nmodule = {:?}\ntoken = {token:?}\nkey = \"root\"\npin_file = \"hsm.pin\"\n\
         sessions = 2\ntimeout_ms = 10000\n[custody]\ndefault = {default}\n",
        hsm.module
    );
    fs::write(&made.config, text.replace("[root]\nkind = \"local\"\npath = \"root.key\"\n", &several)).unwrap();
    made
}

fn endpoint(made: &Made, address: std::net::SocketAddr, name: &str) -> Endpoint {
    let certs = made.config.with_file_name("certs");
    let part = |ending: &str| fs::read_to_string(certs.join(format!("{name}.{ending}"))).unwrap();
    Endpoint::new(address.to_string(), "localhost", made.server_ca.pem(), part("pem"), part("key"))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

fn check(made: &Made) -> Result<(), String> {
    build::check(&Config::load(&made.config).unwrap()).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_gateway_works_with_its_root_key_in_a_module() {
    with_tokens("a_gateway_works_with_its_root_key_in_a_module", &["vault"], |hsm| {
        Pkcs11Root::create_key(&hsm.settings("vault", "root")).unwrap();
        let made = made(hsm, "vault", r#"{ split = ["hsm", "disk"] }"#);
        check(&made).unwrap();
        run(async {
            let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
            let control = endpoint(&made, gateway.control_addr(), "operator-alice");
            let operator = OperatorClient::connect(&control).await.unwrap();
            let tenant = operator.create_tenant("acme", None, "test").await.unwrap();
            let custody = format!("{:?}", tenant.custody);
            assert!(custody.contains("inner_root_key_id: \"pkcs11:vault/root\""), "{custody}");
            operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
            let workload = VaultClient::connect(&endpoint(&made, gateway.data_addr(), "billing")).await.unwrap();
            let target = Target::new("acme", "customers", "billing");
            let sealed = workload.encrypt(&target, b"in a module").await.unwrap();
            operator.create_tenant("globex", Some("pkcs11:vault/root"), "test").await.unwrap();
            drop((operator, workload));
            gateway.shutdown().await.unwrap();
            let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
            let workload = VaultClient::connect(&endpoint(&made, gateway.data_addr(), "billing")).await.unwrap();
            let opened = workload.decrypt(&target, sealed.envelope).await.unwrap();
            assert_eq!(opened.plaintext.as_bytes(), b"in a module");
        });
    });
}

#[test]
fn check_names_the_file_and_the_line_of_what_is_wrong() {
    with_tokens("check_names_the_file_and_the_line_of_what_is_wrong", &["vault"], |hsm| {
        let made = made(hsm, "vault", r#""hsm""#);
        let pin = made.config.with_file_name("hsm.pin");
        let text = fs::read_to_string(&made.config).unwrap();
        let says = |place: &str, why: &str| {
            let error = check(&made).unwrap_err();
            assert!(error.contains(" line ") && error.contains(place) && error.contains(why), "{error}");
            assert!(!error.contains(PIN), "{error}");
        };
        says("roots.hsm:", "key: the token has no AES key of this label");
        Pkcs11Root::create_key(&hsm.settings("vault", "root")).unwrap();
        check(&made).unwrap();
        write_pin(&pin, PIN, 0o640);
        says("roots.hsm.pin_file:", "must be 0600");
        write_pin(&pin, PIN, 0o600);
        for (from, to, place, why) in [
            (hsm.module.to_str().unwrap(), "/absent.so", "roots.hsm.module:", "no such file"),
            ("token = \"vault\"", "token = \"vault 2\"", "roots.hsm.token:", "1 to 32"),
            ("pin_file = \"hsm.pin\"\n", "", "roots.hsm.pin_file:", "0600"),
            ("sessions = 2", "sessions = 0", "roots.hsm.sessions:", "1 to 64"),
            ("sessions = 2", "iv = \"me\"", "roots.hsm.iv:", "\"os\" or \"module\""),
            ("sessions = 2", "path = \"p\"", "roots.hsm.path:", "has no such key"),
        ] {
            assert!(text.contains(from), "{from}");
            fs::write(&made.config, text.replacen(from, to, 1)).unwrap();
            let error =
                Config::load(&made.config).map_err(|error| error.to_string()).map(|_| check(&made).unwrap_err());
            let error = error.unwrap_or_else(|error| error);
            assert!(error.contains(" line ") && error.contains(place) && error.contains(why), "{error}");
        }
    });
}

#[test]
fn a_token_that_is_not_there_keeps_only_its_own_tenants_down() {
    with_tokens("a_token_that_is_not_there_keeps_only_its_own_tenants_down", &["vault"], |hsm| {
        let made = made(hsm, "unplugged", r#""disk""#);
        let error = check(&made).unwrap_err();
        assert!(error.contains("roots.hsm") && error.contains("no token of this label"), "{error}");
        run(async {
            let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
            let control = endpoint(&made, gateway.control_addr(), "operator-alice");
            let operator = OperatorClient::connect(&control).await.unwrap();
            operator.create_tenant("acme", None, "test").await.unwrap();
            let down = operator.create_tenant("globex", Some("pkcs11:unplugged/root"), "test").await.unwrap_err();
            assert_eq!(down.code(), vault_client::Code::Unavailable);
            assert!(down.message().contains("no token of this label"), "{down}");
        });
        let text = fs::read_to_string(&made.config).unwrap();
        let alone =
            text.replace("[roots.disk]\nkind = \"local\"\npath = \"root.key\"\n", "").replace("\"disk\"", "\"hsm\"");
        fs::write(&made.config, alone).unwrap();
        let refused = build::vault(&Config::load(&made.config).unwrap()).map(drop).unwrap_err().to_string();
        assert!(refused.contains("no token of this label"), "{refused}");
    });
}
