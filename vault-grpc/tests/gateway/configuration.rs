//! Each error of a configuration names the line, the key and what is expected; `init` makes one that is in order.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;
use vault_core::vault::LifecycleSettings;
use vault_grpc::build;
use vault_grpc::config::{Config, ConfigError, Limits};
use vault_grpc::init::init;

use super::support::made;

const GOOD: &str = r#"environment = "dev"
instance = "one"
[data]
address = "127.0.0.1:8443"
certificate = "a.pem"
key = "a.key"
client_ca = "b.pem"
trust_domain = "workloads.example"
[control]
address = "127.0.0.1:8444"
certificate = "a.pem"
key = "a.key"
client_ca = "c.pem"
trust_domain = "operators.example"
[store]
path = "store"
[audit]
dir = "audit"
key = "audit.key"
[root]
kind = "local"
path = "root.key"
[policy]
schema = "s"
policies = []
registry = "r"
[limits]
max_streams = 10
[cache]
ttl_ms = 1000
[lifecycle]
destroy_after_s = 3600
tenant_key_age_s = 0
data_key_uses = 1000000
[metrics]
address = "127.0.0.1:9464"
[release]
signature = "SHA256SUMS.minisig"
key = "RWT+Qwtn4lWO7XW8IFJ2GAtvf99R6MmFTlPfcHClKJmXyWftQaxvVVMV"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/blindvault/vault.toml"))
}

#[test]
fn a_good_configuration_is_read_with_defaults_and_paths_from_its_directory() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.limits, Limits { max_streams: 10, ..Limits::default() });
    assert_eq!(config.data.key.path, Path::new("/etc/blindvault/a.key"));
    assert_eq!(config.cache.ttl.as_secs(), 1);
    let lifecycle = LifecycleSettings {
        destroy_after_millis: 3_600_000,
        tenant_key_age_millis: None,
        data_key_uses: 1_000_000,
        ..LifecycleSettings::default()
    };
    assert_eq!(config.lifecycle, lifecycle);
    assert_eq!(config.log_origin(), "blindvault/one");
}

#[test]
fn every_error_names_line_key_and_expectation() {
    let table = [
        // (what to replace, by what, the line, the key or nothing, a part of the message)
        (r#"environment = "dev""#, r#"environment = "staging""#, 1, "environment", r#"must be "dev" or "production""#),
        (r#"environment = "dev""#, r#"environment = "production""#, 1, "environment", "development build"),
        (r#"environment = "dev""#, "environment = 3", 1, "", "expected a string"),
        (r#"instance = "one""#, r#"instance = "One""#, 2, "instance", "a-z 0-9"),
        (r#"instance = "one""#, r#"instance = """#, 2, "instance", "1 to 63"),
        (r#"instance = "one""#, r#"instnace = "one""#, 2, "", "unknown field `instnace`"),
        (r#"instance = "one""#, r#"instance = "one"#, 2, "", "expected"),
        ("127.0.0.1:8443", "localhost", 4, "data.address", "an IP address and a port"),
        ("127.0.0.1:9464", "0.0.0.0:9464", 36, "metrics.address", "loopback"),
        ("127.0.0.1:9464", "9464", 36, "metrics.address", "loopback"),
        (r#""RWT+Qwtn"#, r#""RWT-Qwtn"#, 39, "release.key", "as minisign prints it"),
        ("SHA256SUMS.minisig", "", 38, "release.signature", "must name a file"),
        ("signature =", "signatures =", 38, "", "unknown field `signatures`"),
        ("127.0.0.1:8443", "0.0.0.0:8443", 4, "data.address", "loopback only"),
        ("127.0.0.1:8444", "127.0.0.1:8443", 10, "control.address", "must differ"),
        (r#"client_ca = "c.pem""#, r#"client_ca = """#, 13, "control.client_ca", "must name a file"),
        ("workloads.example", "Workloads.example", 8, "data.trust_domain", "a trust domain"),
        ("operators.example", "workloads.example", 14, "control.trust_domain", "must differ"),
        (r#"kind = "local""#, r#"kind = "hsm""#, 21, "root.kind", "must be a kind"),
        (r#"path = "root.key""#, "", 21, "root.path", "needs the path"),
        ("policies = []", r#"policies = "all""#, 25, "", "expected a sequence"),
        ("max_streams = 10", "max_streams = 0", 28, "limits.max_streams", "must be 1 to 10000"),
        ("max_streams = 10", "max_streams = -1", 28, "", "expected u64"),
        ("max_streams = 10", "max_steams = 10", 28, "", "unknown field `max_steams`"),
        ("max_streams = 10", "handshake_timeout_ms = 99", 28, "limits.handshake_timeout_ms", "must be 100 to"),
        ("ttl_ms = 1000", "ttl_ms = 999", 30, "cache.ttl_ms", "must be 1000 to"),
        ("destroy_after_s = 3600", "destroy_after_s = 59", 32, "lifecycle.destroy_after_s", "must be 60 to"),
        ("tenant_key_age_s = 0", "tenant_key_age_s = 1", 33, "lifecycle.tenant_key_age_s", "must be 0 for never, or"),
        ("data_key_uses = 1000000", "data_key_uses = 999", 34, "lifecycle.data_key_uses", "must be 1000 to"),
        (r#"dir = "audit""#, "", 17, "", "missing field `dir`"),
    ];
    for (from, to, line, key, why) in table {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        let place = if key.is_empty() { format!("line {line}:") } else { format!("line {line}, {key}:") };
        assert!(error.starts_with("/etc/blindvault/vault.toml"), "{error}");
        assert!(error.contains(&place), "{to}: {error} lacks {place}");
        assert!(error.contains(why), "{to}: {error} lacks {why}");
    }
}

/// `GOOD` with a root key in AWS KMS: `[root]` stays at line 20, `key` is line 22, `[aws]` line 23.
#[cfg(feature = "aws")]
fn aws(lines: &str) -> String {
    let root = "[root]\nkind = \"aws-kms\"\nkey = \"arn:aws:kms:eu-west-1:111122223333:key/12\"\n[aws]\n";
    GOOD.replace("[root]\nkind = \"local\"\npath = \"root.key\"\n", &format!("{root}{lines}\n"))
}

#[cfg(feature = "aws")]
#[test]
fn a_kms_key_is_read_with_its_settings() {
    use std::time::Duration;
    use vault_core::kms::aws::{AwsKmsSettings, CredentialSource, KeyArn};
    use vault_grpc::config::Root;
    let key = KeyArn::parse("arn:aws:kms:eu-west-1:111122223333:key/12").unwrap();
    let config = parse(&aws("")).unwrap();
    assert_eq!(config.roots.roots.first().map(|named| named.root.clone()), Some(Root::AwsKms(key.clone())));
    assert_eq!(config.aws, Some(AwsKmsSettings { keys: vec![key.clone()], ..AwsKmsSettings::default() }));
    assert_eq!(parse(&aws("").replace("[aws]", "")).unwrap().aws, config.aws, "the defaults, without a table");
    assert_eq!(parse(GOOD).unwrap().aws, None);
    let all = "accounts = [\"111122223333\"]\nregions = [\"eu-west-1\"]\nhome_region = \"eu-west-1\"\n\
               endpoints = { eu-west-1 = \"https://kms.example\" }\ncredentials = [\"web-identity\", \"profile\"]\n\
               profile_file = \"credentials\"\nprofile = \"vault\"\ndeadline_ms = 1000\ncalls_per_key = 3\n\
               calls_per_region = 4\nbreaker_failures = 5\nbreaker_pause_ms = 6000";
    let read = parse(&aws(all)).unwrap().aws.unwrap();
    assert_eq!(
        (read.keys, read.accounts, read.regions),
        (vec![key], vec!["111122223333".into()], vec!["eu-west-1".into()])
    );
    assert_eq!(read.endpoints["eu-west-1"], "https://kms.example");
    assert_eq!(read.credentials.sources, [CredentialSource::WebIdentity, CredentialSource::Profile]);
    assert_eq!(read.credentials.profile_file.as_deref(), Some(Path::new("/etc/blindvault/credentials")));
    assert_eq!((read.home_region.as_deref(), read.credentials.profile.as_deref()), (Some("eu-west-1"), Some("vault")));
    // An attempt is never longer than the whole.
    assert_eq!((read.deadline, read.attempt), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!((read.calls_per_key, read.calls_per_region), (3, 4));
    assert_eq!((read.breaker.failures, read.breaker.pause), (5, Duration::from_secs(6)));
}

#[cfg(feature = "aws")]
#[test]
fn every_error_about_aws_names_line_key_and_expectation() {
    let table = [
        ("keys = [\"alias/vault\"]", 24, "aws.keys", "the ARN of a key"),
        ("accounts = [\"1\"]\nregions = [\"eu-west-1\"]", 24, "aws.accounts[0]", "12 digits"),
        ("accounts = [\"111122223333\"]", 23, "aws.regions", "go together"),
        ("\nendpoints = { eu-west-1 = \"http://kms.example\" }", 25, "aws.endpoints.eu-west-1", "https://"),
        ("home_region = \"Europe\"", 24, "aws.home_region", "a region such as"),
        ("credentials = [\"environment\"]", 24, "aws.credentials", "must be \"profile\""),
        ("credentials = []", 24, "aws.credentials", "at least one"),
        ("profile_file = \"\"", 24, "aws.profile_file", "must name a file"),
        ("deadline_ms = 99", 24, "aws.deadline_ms", "100 ms to 60 s"),
        ("attempt_ms = 6000", 24, "aws.attempt_ms", "to the deadline"),
        ("calls_per_key = 0", 24, "aws.calls_per_key", "1 to 1024"),
        ("calls_per_region = 0", 24, "aws.calls_per_region", "1 to 4096"),
        ("breaker_failures = 0", 24, "aws.breaker_failures", "1 to 1000"),
        ("breaker_pause_ms = 0", 24, "aws.breaker_pause_ms", "100 ms to 5 min"),
        ("secret_access_key = \"x\"", 24, "", "unknown field `secret_access_key`"),
    ];
    for (lines, line, key, why) in table {
        let error = parse(&aws(lines)).unwrap_err().to_string();
        let place = if key.is_empty() { format!("line {line}:") } else { format!("line {line}, {key}:") };
        assert!(error.contains(&place) && error.contains(why), "{lines}: {error}");
    }
    let alias = aws("").replace("key/12", "alias/12");
    assert!(parse(&alias).unwrap_err().to_string().contains("line 22, root.key: must be the ARN"));
    let none = aws("").replace("key = \"arn:aws:kms:eu-west-1:111122223333:key/12\"\n", "");
    assert!(parse(&none).unwrap_err().to_string().contains("line 21, root.key: an AWS KMS root key needs"));
}

#[test]
fn no_error_repeats_a_value_of_the_wrong_type() {
    let error = parse(&GOOD.replace("max_streams = 10", "max_streams = \"hunter2, expected\"")).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn init_makes_what_check_finds_in_order_and_changes_nothing_twice() {
    let (_dir, made) = made();
    let checked = build::check(&Config::load(&made.config).unwrap()).unwrap();
    assert!(checked.policies > 0);
    assert_eq!(checked.workloads, 2);
    let root = made.config.parent().unwrap();
    assert!(!root.join("data").exists(), "check opens neither store nor log");
    for entry in ["root.key", "audit.key", "certs/gateway.key", "certs/billing.key", "certs/workload-ca.key"] {
        let mode = fs::metadata(root.join(entry)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry}");
    }
    let before = fs::read(&made.config).unwrap();
    let again = init(root, 0, 0).unwrap_err().to_string();
    assert!(again.contains("must be empty") && again.contains("audit.key"), "{again}");
    assert_eq!(fs::read(&made.config).unwrap(), before);
}

#[test]
fn check_names_the_file_that_is_wrong_and_where_it_is_named() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str, &str); 9] = [
        ("certs/gateway.pem", |f| fs::write(f, "").unwrap(), "data.certificate", "holds no certificate"),
        ("certs/gateway.key", |f| mode(f, 0o640), "data.key", "must be 0600"),
        (
            "certs/gateway.key",
            |f| fs::copy(f.with_file_name("billing.key"), f).map(drop).unwrap(),
            "data.key",
            "not the key",
        ),
        ("certs/workload-ca.pem", |f| fs::remove_file(f).unwrap(), "data.client_ca", "cannot be read"),
        (
            "certs/operator-ca.pem",
            |f| fs::copy(f.with_file_name("workload-ca.pem"), f).map(drop).unwrap(),
            "control.client_ca",
            "also a root of the workloads",
        ),
        ("root.key", |f| fs::write(f, "short").unwrap(), "root.path", "length"),
        ("audit.key", |f| mode(f, 0o604), "audit.key", "must be 0600"),
        (
            "policies/registry.toml",
            |f| fs::write(f, "[[workload]]\nid = 3\n").unwrap(),
            "policy.registry",
            "registry line 2",
        ),
        ("policies/baseline.cedar", |f| fs::write(f, "\npermit(").unwrap(), "baseline.cedar line", "not valid Cedar"),
    ];
    for (file, damage, place, why) in damages {
        let (_dir, made) = made();
        damage(&made.config.with_file_name("").join(file));
        let error = build::check(&Config::load(&made.config).unwrap()).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(why), "{file}: {error}");
    }
}

fn mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn policy_signers_are_read_and_every_error_names_line_key_and_expectation() {
    let key = |name: &str| {
        let dir = tempfile::tempdir().unwrap();
        LogSigner::create(&OsFs, &dir.path().join("key"), name).unwrap().verifier().vkey()
    };
    let (ines, jan) = (key("policy/ines"), key("policy/jan"));
    // `[policy]` stays at line 23.
    let with = |lines: &str| parse(&GOOD.replacen("[policy]\n", &format!("[policy]\n{lines}\n"), 1));
    assert_eq!((parse(GOOD).unwrap().policy.signers.len(), parse(GOOD).unwrap().policy.quorum), (0, 0));
    let read = with(&format!("signers = [{ines:?}, {jan:?}]\nproof = \"off\"")).unwrap().policy;
    assert_eq!((read.signers.len(), read.quorum), (2, 1), "one, in development");
    assert_eq!(with(&format!("signers = [{ines:?}, {jan:?}]\nquorum = 2")).unwrap().policy.quorum, 2);
    let proven = with(&format!("signers = [{ines:?}]\nproof = \"required\"\nprovers = [{jan:?}]")).unwrap().policy;
    assert_eq!((proven.signers.len(), proven.provers.len()), (1, 1));
    let table = [
        ("signers = [\"policy/ines\"]".to_owned(), 24, "policy.signers", "verifier keys"),
        (format!("signers = [{ines:?}, {ines:?}]"), 24, "policy.signers", "twice"),
        (format!("signers = [{ines:?}]\nquorum = 2"), 25, "policy.quorum", "to the number of"),
        (format!("signers = [{ines:?}]\nquorum = 0"), 25, "policy.quorum", "must be"),
        ("quorum = 2".to_owned(), 24, "policy.quorum", "without policy.signers"),
        ("proof = \"required\"".to_owned(), 24, "policy.proof", "needs policy.signers"),
        (format!("signers = [{ines:?}]\nproof = \"required\""), 25, "policy.proof", "needs policy.provers"),
        (
            format!("signers = [{ines:?}]\nproof = \"required\"\nprovers = [{jan:?}, {jan:?}]"),
            26,
            "policy.provers",
            "twice",
        ),
        (
            format!("signers = [{ines:?}]\nproof = \"required\"\nprovers = [\"jan\"]"),
            26,
            "policy.provers",
            "verifier keys",
        ),
        ("proof = \"maybe\"".to_owned(), 24, "policy.proof", "must be \"off\""),
        (format!("provers = [{jan:?}]"), 24, "policy.provers", "unless policy.proof"),
        ("prove = {}".to_owned(), 24, "", "missing field `solver`"),
        ("prove = { solver = \"/bin/sh\" }".to_owned(), 24, "policy.prove", PROVE_ALONE),
        (
            format!("signers = [{ines:?}]\nproof = \"off\"\nprove = {{ solver = \"/bin/sh\" }}"),
            26,
            "policy.prove",
            PROVE_ALONE,
        ),
        ("signer = []".to_owned(), 24, "", "unknown field `signer`"),
    ];
    for (lines, line, key, why) in table {
        let error = with(&lines).unwrap_err().to_string();
        let place = if key.is_empty() { format!("line {line}:") } else { format!("line {line}, {key}") };
        assert!(error.contains(&place) && error.contains(why), "{lines}: {error}");
    }
}

/// What is wrong with a solver where no proof is required, or in a build that has no use for it.
const PROVE_ALONE: &str =
    if cfg!(feature = "prove") { "unless policy.proof is \"required\"" } else { "this build proves nothing" };

#[test]
#[cfg(feature = "prove")]
fn a_solver_is_named_with_its_bounds_and_must_be_a_program_that_others_cannot_write() {
    let (_dir, made) = made();
    let text = fs::read_to_string(&made.config).unwrap();
    let ines = LogSigner::create(&OsFs, &made.config.with_file_name("ines"), "policy/ines").unwrap();
    let with = |prove: &str| {
        let signers = format!("signers = [{:?}]\nproof = \"required\"\nprove = {prove}", ines.verifier().vkey());
        let text = text.replacen("[policy]\n", &format!("[policy]\n{signers}\n"), 1);
        Config::parse(&text, &made.config)
    };
    let read = with("{ solver = \"/bin/sh\", arguments = [\"-c\"], timeout_ms = 5000, memory_mib = 64 }").unwrap();
    let prove = read.policy.prove.unwrap();
    assert_eq!((prove.timeout.as_millis(), prove.memory_mib, prove.arguments), (5000, 64, vec!["-c".to_owned()]));
    let prove = with("{ solver = \"/bin/sh\" }").unwrap().policy.prove.unwrap();
    assert_eq!((prove.timeout.as_millis(), prove.memory_mib), (20_000, 512));
    for (prove, key, why) in [
        ("{ solver = \"/bin/sh\", timeout_ms = 999 }", "policy.prove.timeout_ms", "must be 1000"),
        ("{ solver = \"/bin/sh\", memory_mib = 63 }", "policy.prove.memory_mib", "must be 64"),
        ("{ solver = \"/bin/sh\", arguments = [\"a\\u0000\"] }", "policy.prove.arguments", "NUL"),
        ("{ solver = \"/bin/sh\", shell = 1 }", "", "unknown field `shell`"),
    ] {
        let error = with(prove).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(why), "{prove}: {error}");
    }
    let solver = made.config.with_file_name("solver");
    fs::write(&solver, "#!/bin/sh\n").unwrap();
    for (bits, why) in [(0o600, "no program"), (0o722, "others may write it")] {
        mode(&solver, bits);
        let error = build::check(&with("{ solver = \"solver\" }").unwrap()).unwrap_err().to_string();
        assert!(error.contains("policy.prove.solver") && error.contains(why), "{error}");
    }
    mode(&solver, 0o700);
    build::check(&with("{ solver = \"solver\" }").unwrap()).unwrap();
    fs::remove_file(&solver).unwrap();
    let error = build::check(&with("{ solver = \"solver\" }").unwrap()).unwrap_err().to_string();
    assert!(error.contains("policy.prove.solver") && error.contains("cannot be read"), "{error}");
}

#[test]
fn the_audit_logs_own_key_is_no_policy_signer() {
    let (_dir, made) = made();
    let root = made.config.parent().unwrap();
    let own = fs::read_to_string(root.join("audit.vkey")).unwrap();
    let text = fs::read_to_string(&made.config).unwrap();
    let signers = format!("[policy]\nsigners = [{:?}]\n", own.trim());
    fs::write(&made.config, text.replacen("[policy]\n", &signers, 1)).unwrap();
    let error = build::check(&Config::load(&made.config).unwrap()).unwrap_err().to_string();
    assert!(error.contains("policy.signers") && error.contains("audit log's own key"), "{error}");
}

/// An issuer whose table is changed in one place; its first line is the configuration's last but as many as it has.
#[test]
fn every_error_of_an_issuer_names_the_key_and_what_is_expected() {
    const ISSUER: &str = r#"[[end_users.issuer]]
issuer = "https://id.example"
audiences = ["https://vault.example"]
tenants = ["acme"]
jwks_url = "https://id.example/jwks"
jwks_roots = "id.pem"
"#;
    let good = parse(&format!("{GOOD}{ISSUER}")).unwrap();
    let [issuer] = good.end_users.as_slice() else { panic!() };
    assert_eq!(issuer.settings.audiences, ["https://vault.example"]);
    let vault_grpc::config::IssuerKeys::Url(url) = &issuer.keys else { panic!() };
    assert_eq!((url.at.host.as_str(), url.at.port, url.at.path.as_str()), ("id.example", 443, "/jwks"));
    assert!(parse(&format!("{GOOD}{ISSUER}binding = \"if-present\"\nalgorithms = [\"RS256\"]\n")).is_ok());
    let file =
        ISSUER.replace("jwks_url = \"https://id.example/jwks\"\njwks_roots = \"id.pem\"", "jwks_file = \"a.json\"");
    assert!(parse(&format!("{GOOD}{file}")).is_ok());
    for (from, to, key, expected) in [
        ("https://id.example\"", "\"", "issuer", "1 to 512 visible"),
        ("https://id.example\"", "https://id.example \"", "issuer", "1 to 512 visible"),
        ("[\"https://vault.example\"]", "[]", "audiences", "1 to 16"),
        ("[\"acme\"]", "[]", "tenants", "must name the tenants"),
        ("[\"acme\"]", "[\"Acme\"]", "tenants", "must be ids"),
        ("[\"acme\"]", "[\"*\", \"acme\"]", "tenants", "must be ids"),
        ("https://id.example/jwks", "http://id.example/jwks", "jwks_url", "must begin with https://"),
        ("https://id.example/jwks", "https://a@id.example/jwks", "jwks_url", "no user"),
        ("https://id.example/jwks", "https://id.example/jwks#a", "jwks_url", "no fragment"),
        ("https://id.example/jwks", "/jwks", "jwks_url", "must name a host"),
        ("https://id.example/jwks", "file:///etc/passwd", "jwks_url", "must"),
        ("jwks_roots = \"id.pem\"", "", "jwks_url", "needs jwks_roots"),
        ("jwks_roots = \"id.pem\"", "jwks_roots = \"\"", "jwks_roots", "must name a file"),
        ("jwks_roots = \"id.pem\"", "jwks_file = \"a.json\"", "issuer", "either jwks_file or jwks_url"),
        ("jwks_url = \"https://id.example/jwks\"", "jwks_file = \"a.json\"", "jwks_file", "nothing to fetch"),
        ("jwks_url = \"https://id.example/jwks\"", "", "issuer", "either jwks_file or jwks_url"),
        ("tenants", "algorithms = [\"none\"]\ntenants", "algorithms", "must be of"),
        ("tenants", "algorithms = [\"HS256\"]\ntenants", "algorithms", "must be of"),
        ("tenants", "algorithms = []\ntenants", "algorithms", "at least one"),
        ("tenants", "typ = \"application/at+jwt\"\ntenants", "typ", "without application/"),
        ("tenants", "skew_s = 121\ntenants", "skew_s", "0 to 120"),
        ("tenants", "mfa_fresh_s = 86401\ntenants", "mfa_fresh_s", "0 to 86400"),
        ("tenants", "max_lifetime_s = 0\ntenants", "max_lifetime_s", "1 to 86400"),
        ("tenants", "binding = \"none\"\ntenants", "binding", "must be"),
        ("tenants", "refresh_s = 9\ntenants", "refresh_s", "10 to 86400"),
        ("tenants", "stale_s = 299\ntenants", "stale_s", "300 to 604800"),
        ("tenants", "cooldown_s = 0\ntenants", "cooldown_s", "1 to 3600"),
        ("tenants", "timeout_ms = 99\ntenants", "timeout_ms", "100 to 10000"),
        ("tenants", "trust = true\ntenants", "line", "unknown field"),
    ] {
        assert!(ISSUER.contains(from), "{from}");
        let error = parse(&format!("{GOOD}{}", ISSUER.replacen(from, to, 1))).unwrap_err();
        assert!(error.place().contains("line ") && error.place().contains(key), "{to}: {error}");
        assert!(error.why().contains(expected), "{to}: {error}");
    }
    let twice = parse(&format!("{GOOD}{ISSUER}{ISSUER}")).unwrap_err();
    assert!(twice.why().contains("configured twice"), "{twice}");
}

#[test]
fn witnesses_are_read_and_refused_with_their_line() {
    // A key of type 04, made up of the name and 32 bytes; its hash is computed as C2SP tlog-cosignature says.
    let vkey = {
        let dir = tempfile::tempdir().unwrap();
        vault_core::secret::set_lock_policy(vault_core::secret::LockPolicy::Allow);
        let file = dir.path().join("witness.key");
        let signer = vault_core::audit::WitnessSigner::create(&OsFs, &file, "witness.example/w1").unwrap();
        signer.verifier().vkey()
    };
    let with = |more: &str| parse(&format!("{GOOD}[[audit.witness]]\nkey = \"{vkey}\"\n{more}"));
    let config = with("url = \"https://witness.example/prefix/\"\nroots = \"w.pem\"\nmandatory = true\n").unwrap();
    let witness = &config.witnesses[0];
    assert_eq!((witness.url.host.as_str(), witness.url.port), ("witness.example", 443));
    assert_eq!(witness.url.path, "/prefix/add-checkpoint");
    assert_eq!(witness.mandatory, Some(std::time::Duration::from_secs(60)));
    assert_eq!(with("url = \"http://127.0.0.1:80\"").unwrap().witnesses[0].mandatory, None);
    for (bad, field) in [
        ("url = \"https://witness.example\"", "audit.witness.url"),
        ("url = \"http://witness.example\"", "audit.witness.url"),
        ("url = \"http://127.0.0.1\"\nroots = \"w.pem\"", "audit.witness.url"),
        ("url = \"http://a@127.0.0.1\"", "audit.witness.url"),
        ("url = \"ftp://127.0.0.1\"", "audit.witness.url"),
        ("url = \"http://127.0.0.1\"\ndeadline_s = 5", "audit.witness.deadline_s"),
        ("url = \"http://127.0.0.1\"\nmandatory = true\ndeadline_s = 0", "audit.witness.deadline_s"),
        ("url = \"http://127.0.0.1\"\ntimeout_ms = 1", "audit.witness.timeout_ms"),
    ] {
        let error = with(bad).unwrap_err();
        assert!(error.place().contains(field), "{bad}: {error}");
    }
    let twice = format!("url = \"http://127.0.0.1\"\n[[audit.witness]]\nkey = \"{vkey}\"\nurl = \"http://127.0.0.1\"");
    assert!(with(&twice).unwrap_err().why().contains("same name"));
    // The key of a log is none of a witness.
    let log = vkey.replace("witness.example/w1", "other");
    let error = parse(&format!("{GOOD}[[audit.witness]]\nkey = \"{log}\"\nurl = \"http://127.0.0.1\"")).unwrap_err();
    assert!(error.place().contains("audit.witness.key"), "{error}");
}

#[test]
fn sinks_are_read_and_refused_with_their_line() {
    use std::time::Duration;
    use vault_grpc::config::{Fields, SinkTarget};

    let with = |more: &str| parse(&format!("{GOOD}[[audit.sink]]\nname = \"siem\"\n{more}"));
    let config = with("kind = \"file\"\npath = \"siem/audit.jsonl\"\n").unwrap();
    let sink = &config.sinks[0];
    assert_eq!((sink.settings.name.as_str(), sink.settings.mandatory, sink.settings.history), ("siem", false, false));
    assert_eq!((sink.settings.deadline, sink.settings.queue), (Duration::from_secs(2), 8192));
    assert_eq!(sink.fields, Fields::Ocsf);
    assert!(matches!(&sink.to, SinkTarget::File(file) if file.path.ends_with("siem/audit.jsonl")));
    let all = "mandatory = true\ndeadline_ms = 50\nqueue = 1\nhistory = true\nformat = \"ecs\"\n";
    let syslog = "kind = \"syslog\"\naddress = \"siem.example\"\nroots = \"r.pem\"\n";
    let config = with(&format!("{syslog}{all}message_bytes = 65536\n")).unwrap();
    let sink = &config.sinks[0];
    assert!(sink.settings.mandatory && sink.settings.history && sink.fields == Fields::Ecs);
    let SinkTarget::Syslog(server) = &sink.to else { unreachable!() };
    assert_eq!((server.host.as_str(), server.port, server.message_bytes), ("siem.example", 6514, 65536));
    let config = with("kind = \"otlp\"\nurl = \"https://otel.example:4318\"\nroots = \"r.pem\"\n").unwrap();
    let SinkTarget::Otlp { url, client: None } = &config.sinks[0].to else { unreachable!() };
    assert_eq!((url.port, url.path.as_str()), (4318, "/v1/logs"));
    with("kind = \"otlp\"\nurl = \"http://127.0.0.1:4318/x\"\n").unwrap();
    for (bad, field) in [
        ("kind = \"kafka\"", "audit.sink.kind"),
        ("kind = \"file\"", "audit.sink.path"),
        ("kind = \"file\"\npath = \"a\"\nurl = \"b\"", "audit.sink.url"),
        ("kind = \"file\"\npath = \"a\"\nmessage_bytes = 4096", "audit.sink.message_bytes"),
        ("kind = \"file\"\npath = \"a\"\nformat = \"cef\"", "audit.sink.format"),
        ("kind = \"file\"\npath = \"a\"\ndeadline_ms = 49", "audit.sink.deadline_ms"),
        ("kind = \"file\"\npath = \"a\"\nqueue = 0", "audit.sink.queue"),
        ("kind = \"syslog\"\naddress = \"siem.example\"", "audit.sink.roots"),
        ("kind = \"syslog\"\nroots = \"r.pem\"", "audit.sink.address"),
        ("kind = \"syslog\"\naddress = \"tcp://x\"\nroots = \"r.pem\"", "audit.sink.address"),
        ("kind = \"syslog\"\naddress = \"x\"\nroots = \"r.pem\"\nkey = \"k\"", "audit.sink"),
        ("kind = \"otlp\"\nurl = \"http://otel.example\"", "audit.sink.url"),
        ("kind = \"otlp\"\nurl = \"https://otel.example\"", "audit.sink.url"),
        ("kind = \"otlp\"\nurl = \"https://otel.example\"\nroots = \"r\"\npath = \"p\"", "audit.sink.path"),
    ] {
        let error = with(bad).unwrap_err();
        assert!(error.place().contains(field), "{bad}: {error}");
    }
    let second = |more: &str| {
        with(&format!("kind = \"file\"\npath = \"a\"\n[[audit.sink]]\n{more}")).unwrap_err().why().to_owned()
    };
    assert!(second("name = \"siem\"\nkind = \"file\"\npath = \"b\"").contains("same name"));
    assert!(second("name = \"other\"\nkind = \"file\"\npath = \"a\"").contains("same file"));
    assert!(second("name = \"No\"\nkind = \"file\"\npath = \"b\"").contains("a-z"));
}

#[test]
fn segments_of_the_log_have_bounds_and_defaults() {
    use std::time::Duration;
    let segments = parse(GOOD).unwrap().segments;
    assert_eq!((segments.size, segments.age, segments.archive), (256 << 20, None, None));
    let with = |more: &str| parse(&format!("{GOOD}[audit.segments]\n{more}\n"));
    let segments = with("size_kib = 64\nage_s = 60\narchive = \"cold\"").unwrap().segments;
    assert_eq!((segments.size, segments.age), (64 << 10, Some(Duration::from_secs(60))));
    assert_eq!(segments.archive.unwrap().path, Path::new("/etc/blindvault/cold"));
    for (bad, why) in [
        ("size_kib = 63", "audit.segments.size_kib"),
        ("size_kib = 16777217", "audit.segments.size_kib"),
        ("age_s = -1", "expected u64"),
        ("age_s = 316224001", "audit.segments.age_s"),
        ("archive = \"\"", "audit.segments.archive"),
        ("size = 1", "unknown field `size`"),
    ] {
        let error = with(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}
