//! Root keys and custody in the configuration, and what a gateway makes of them.

use std::fs;
use std::path::Path;

use vault_client::{Code, Target};
use vault_core::fs::OsFs;
use vault_core::kms::{LocalRoot, RootKey as _};
use vault_grpc::build;
use vault_grpc::config::{Config, ConfigError, CustodyNames};
use vault_proto::v1::custody::Kind;
use vault_proto::v1::{ApprovalState, Custody, ReplicatedCustody, SplitCustody};

use super::shredding::bob;
use super::support::{Fixture, made};

const REST: &str = r#"environment = "dev"
instance = "one"
data = { address = "127.0.0.1:1", certificate = "a", key = "b", client_ca = "c", trust_domain = "workloads.example" }
control = { address = "127.0.0.1:2", certificate = "a", key = "b", client_ca = "c", trust_domain = "operators.example" }
store = { path = "store" }
audit = { dir = "audit", key = "audit.key" }
policy = { schema = "s", policies = [], registry = "r" }
"#;

const TWO: &str = r#"[roots.a]
kind = "local"
path = "a.key"
[roots.b]
kind = "local"
path = "b.key"
[custody]
default = { split = ["a", "b"] }
prefer = ["b"]
"#;

fn parse(roots: &str) -> Result<Config, ConfigError> {
    Config::parse(&format!("{REST}{roots}"), Path::new("/etc/blindvault/vault.toml"))
}

#[test]
fn one_root_or_several_with_a_custody_are_read() {
    let config = parse(TWO).unwrap();
    assert_eq!(config.roots.roots.iter().map(|root| root.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.roots.default, CustodyNames::Split("a".into(), "b".into()));
    assert_eq!(config.roots.prefer, ["b"]);
    let with = |default: &str| parse(&TWO.replace(r#"{ split = ["a", "b"] }"#, default)).unwrap().roots.default;
    assert_eq!(with(r#""b""#), CustodyNames::Single("b".into()));
    assert_eq!(with(r#"{ replicated = ["b", "a"] }"#), CustodyNames::Replicated(vec!["b".into(), "a".into()]));
    let one = "kind = \"local\"\npath = \"a.key\"\n";
    assert_eq!(parse(&format!("[root]\n{one}")).unwrap().roots.default, CustodyNames::Single("root".into()));
    assert_eq!(parse(&format!("[roots.only]\n{one}")).unwrap().roots.default, CustodyNames::Single("only".into()));
}

#[test]
fn every_error_names_line_key_and_expectation() {
    let lines = REST.lines().count();
    let default = r#"{ split = ["a", "b"] }"#;
    let table = [
        // (what to replace, by what, the line after the rest, the key or nothing, a part of the message)
        (TWO, "", -6, "root", "is needed, or at least one"),
        ("[roots.a]", "[root]", 4, "roots", "there is a [root] already"),
        ("[roots.a]", "[roots.A]", 1, "roots", "a-z 0-9 _ -"),
        (r#"kind = "local""#, r#"kind = "paper""#, 2, "roots.a.kind", "must be a kind"),
        (r#"path = "a.key""#, "", 2, "roots.a.path", "needs the path"),
        (r#"path = "a.key""#, r#"pathh = "a.key""#, 3, "", "unknown field `pathh`"),
        (r#"path = "a.key""#, "path = \"a.key\"\ntoken = \"t\"", 4, "roots.a.token", "has no such key"),
        ("[custody]", "[custodian]", 7, "", "unknown field `custodian`"),
        (r#"default = { split = ["a", "b"] }"#, "", 7, "custody.default", "is needed where there are several"),
        (default, r#""c""#, 8, "custody.default", "must name root keys of this file"),
        (default, "3", 8, "custody.default", "must be a root key's name"),
        (default, "{}", 8, "custody.default", "must be either"),
        (default, r#"{ split = ["a", "c"] }"#, 8, "custody.default", "must name root keys of this file"),
        (default, r#"{ split = ["a", "a"] }"#, 8, "custody.default", "two different"),
        (default, r#"{ split = ["a"] }"#, 8, "custody.default", "two different"),
        (default, r#"{ split = "a" }"#, 8, "custody.default", "must list"),
        (default, r#"{ replicated = ["a"] }"#, 8, "custody.default", "2 to 5 different"),
        (default, r#"{ replicated = ["a", "b", "a"] }"#, 8, "custody.default", "2 to 5 different"),
        (default, r#"{ split = ["a", "b"], replicated = ["a", "b"] }"#, 8, "custody.default", "must be either"),
        (default, r#"{ either = ["a", "b"] }"#, 8, "custody.default", "split and replicated only"),
        (r#"prefer = ["b"]"#, r#"prefer = ["c"]"#, 9, "custody.prefer", "must name root keys of this file"),
        (r#"prefer = ["b"]"#, r#"prefers = ["b"]"#, 9, "", "unknown field `prefers`"),
    ];
    for (from, to, line, key, why) in table {
        assert!(TWO.contains(from), "{from}");
        let error = parse(&TWO.replacen(from, to, 1)).unwrap_err().to_string();
        let line = i32::try_from(lines).unwrap() + line;
        let place = if key.is_empty() { format!("line {line}:") } else { format!("line {line}, {key}:") };
        assert!(error.contains(&place), "{to}: {error} lacks {place}");
        assert!(error.contains(why), "{to}: {error} lacks {why}");
    }
    let alone = "[root]\nkind = \"local\"\npath = \"a.key\"\n[custody]\nprefer = []\n";
    assert!(parse(alone).unwrap_err().to_string().contains("needs root keys with names"));
}

#[cfg(not(feature = "pkcs11"))]
#[test]
fn a_kind_that_this_build_lacks_says_so() {
    let error = parse(&TWO.replacen("\"local\"\npath", "\"pkcs11\"\nmodule", 1)).unwrap_err().to_string();
    assert!(error.contains("roots.a.kind") && error.contains("feature `pkcs11`"), "{error}");
}

#[test]
fn check_names_the_root_that_is_wrong() {
    let (_dir, made) = made();
    let (root, text) = (made.config.with_file_name("root.key"), fs::read_to_string(&made.config).unwrap());
    fs::copy(&root, made.config.with_file_name("copy.key")).unwrap();
    let check = |other: &str| {
        let both = format!(
            "[roots.a]\nkind = \"local\"\npath = \"root.key\"\n[roots.b]\nkind = \"local\"\npath = \"{other}\"\n"
        );
        let text = text
            .replace("[root]\nkind = \"local\"\npath = \"root.key\"\n", &format!("{both}[custody]\ndefault = \"a\"\n"));
        fs::write(&made.config, text).unwrap();
        build::check(&Config::load(&made.config).unwrap()).unwrap_err().to_string()
    };
    let absent = check("absent.key");
    assert!(absent.contains("roots.b.path") && absent.contains("absent.key"), "{absent}");
    let twice = check("copy.key");
    assert!(twice.contains("roots.b:") && twice.contains("same id"), "{twice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn custody_is_chosen_shown_and_changed_over_the_wire() {
    let mut ids = Vec::new();
    let fixture = Fixture::start_with(|made, text| {
        let dir = made.config.parent().unwrap();
        ids.push(LocalRoot::open(&OsFs, &dir.join("root.key")).unwrap().id().to_owned());
        ids.push(LocalRoot::create(&OsFs, &dir.join("second.key")).unwrap().id().to_owned());
        let several = "[roots.first]\nkind = \"local\"\npath = \"root.key\"\n\
                       [roots.second]\nkind = \"local\"\npath = \"second.key\"\n\
                       [custody]\ndefault = { split = [\"first\", \"second\"] }\n";
        text.replace("[root]\nkind = \"local\"\npath = \"root.key\"\n", several)
    })
    .await;
    let [first, second] = [ids[0].clone(), ids[1].clone()];
    let split = |inner: &str, outer: &str| Custody {
        kind: Some(Kind::Split(SplitCustody { inner_root_key_id: inner.into(), outer_root_key_id: outer.into() })),
    };
    let operator = fixture.operator().await;
    fixture.tenants().await;
    let made = operator.get_tenant("acme").await.unwrap();
    assert_eq!((made.root_key_id.as_str(), made.custody), ("", Some(split(&first, &second))));

    let workload = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing");
    let sealed = workload.encrypt(&target, b"split").await.unwrap();
    let replicated = Custody {
        kind: Some(Kind::Replicated(ReplicatedCustody { root_key_ids: vec![second.clone(), first.clone()] })),
    };
    let single = Custody { kind: Some(Kind::RootKeyId(second.clone())) };
    let (bob, mut version) = (bob(&fixture).await, 1);
    for custody in [replicated, split(&second, &first), single] {
        let asked = operator.rotate_tenant_key_to("acme", custody.clone(), "test").await.unwrap();
        // It waits, and nothing has happened.
        assert_ne!(asked.tenant.unwrap().custody.as_ref(), Some(&custody));
        assert_ne!(operator.get_tenant("acme").await.unwrap().custody.as_ref(), Some(&custody));
        let asked = asked.approval.unwrap();
        assert_eq!((asked.action.as_str(), asked.state()), ("RotateTenantKey", ApprovalState::Pending));
        assert!(asked.summary.iter().any(|line| line == &format!("then, version {}: {}", version + 1, asked.custody)));
        assert_eq!(bob.approve(&asked, None, "test").await.unwrap().state(), ApprovalState::Executed);
        let rotated = operator.get_tenant("acme").await.unwrap();
        version += 1;
        assert_eq!((rotated.active_key_version, rotated.custody.as_ref()), (version, Some(&custody)));
        // Under the custody that it has, nobody has to be asked.
        let again = operator.rotate_tenant_key_to("acme", custody, "test").await.unwrap();
        version += 1;
        assert_eq!((again.tenant.unwrap().active_key_version, again.approval), (version, None));
        assert_eq!(workload.decrypt(&target, sealed.envelope.clone()).await.unwrap().plaintext.as_bytes(), b"split");
    }
    let listed = operator.list_tenants(10, "").await.unwrap().tenants;
    assert_eq!(listed[0].root_key_id, second);
    assert_eq!(operator.create_tenant("one", Some(&first), "test").await.unwrap().root_key_id, first);
    let both = operator.create_tenant_under("two", split(&first, &first), "test").await.unwrap_err();
    assert_eq!(
        (both.code(), both.violations()[0].field.as_str()),
        (Code::InvalidArgument, "custody.split.outer_root_key_id")
    );
}
