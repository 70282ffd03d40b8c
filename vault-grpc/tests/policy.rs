//! `vault-grpc policy …`, as a pipeline calls it: what it prints and how it exits, on the examples and on bad input.
#![cfg(feature = "prove")]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_macros, reason = "a test says that it is skipped")]

#[path = "../../vault-core/tests/common/solver.rs"]
mod solver;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn baseline() -> String {
    policies().join("baseline.cedar").display().to_string()
}

fn run(args: &[&str]) -> Said {
    run_with(args, &[])
}

fn run_with(args: &[&str], more: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault-grpc"));
    let said = command.arg("policy").args(args).args(more).env_remove("CVC5").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: said.status.code().unwrap(), out: text(said.stdout), err: text(said.stderr) }
}

fn examples() -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(policies().join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    assert!(found.len() >= 7, "{found:?}");
    found
}

/// Arguments that name the solver of the tests, or `None` after saying that `test` is skipped.
fn solver_args(test: &str) -> Option<Vec<String>> {
    let solver = solver::solver(test)?;
    let mut args = vec!["--solver".to_owned(), solver.program.display().to_string()];
    for argument in solver.arguments {
        args.extend(["--solver-arg".to_owned(), argument.into_string().unwrap()]);
    }
    Some(args)
}

fn write(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn the_examples_are_in_order_and_say_what_their_tests_expect() {
    for example in examples() {
        let own = example.join("policies.cedar");
        let mut args = vec!["check".to_owned(), "--policies".to_owned(), baseline()];
        args.extend(own.exists().then(|| own.display().to_string()));
        let checked = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
        let tests = example.join("tests.toml").display().to_string();
        let tested = run(&["test", &tests]);
        assert_eq!(tested.code, 0, "{tests}\n{}{}", tested.out, tested.err);
        assert!(tested.out.contains("as expected, 0 not"), "{}", tested.out);
    }
}

#[test]
fn the_examples_are_proven() {
    let Some(solver) = solver_args("the_examples_are_proven") else { return };
    let solver: Vec<_> = solver.iter().map(String::as_str).collect();
    for example in examples() {
        let own = example.join("policies.cedar");
        if !own.exists() {
            continue;
        }
        let own = own.display().to_string();
        let proven = run_with(&["prove", "--policies", &baseline(), &own, "--active", &baseline()], &solver);
        assert_eq!(proven.code, 0, "{own}\n{}{}", proven.out, proven.err);
        assert!(proven.out.ends_with("\nproven\n"), "{}", proven.out);
    }
}

#[test]
fn check_names_file_line_column_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        &dir,
        "bad.cedar",
        r#"@id("a")
permit (principal is Vault::Workload, action == Vault::Action::"Decrypt", resource)
when { resource.residency == "eu" };

@id("b")
permit (principal is Vault::Workload, action == Vault::Action::"Decrypt", resource)
when { principal.tenant == resource.tenant };
"#,
    );
    let said = run(&["check", "--policies", &file]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains(&format!("{file}:3:8: policy a: ")), "{}", said.out);
    assert!(said.out.contains(&format!("{file}:7:8: policy b: ")), "{}", said.out);
    assert_eq!(said.out.matches("\n    fix: ").count(), 2, "{}", said.out);
    let said = run(&["check", "--json", "--policies", &file]);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, json["good"].as_bool()), (1, Some(false)));
    let found = &json["diagnostics"][0];
    assert_eq!(
        (found["line"].as_u64(), found["column"].as_u64(), found["policy"].as_str()),
        (Some(3), Some(8), Some("a"))
    );
    assert!(found["fix"].as_str().unwrap().contains("has"), "{found}");

    let torn = write(&dir, "torn.cedar", "@id(\"a\")\npermit (principal, action,");
    let said = run(&["check", "--policies", &torn]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains(&format!("{torn}:2:")), "{}", said.out);

    let registry = write(&dir, "registry.toml", "\n[[workload]]\nid = \"spiffe://prod.example/a\"\n");
    let args = ["check", "--policies", &baseline(), "--registry", &registry, "--workload-domain", "prod.example"];
    let said = run(&args);
    assert_eq!(said.code, 1);
    assert!(said.out.contains(&format!("{registry}:2:1: ")), "{}", said.out);
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for args in [
        &["check"][..],
        &["check", "--policies", "/nowhere.cedar"],
        &["check", "--config", "/nowhere.toml"],
        &["check", "--config", "/nowhere.toml", "--policies", "/nowhere.cedar"],
        &["test"],
        &["test", "/nowhere.toml"],
        &["explain", "/nowhere.toml", "--name", "x"],
        &["prove", "--policies", "/nowhere.cedar"],
        &["prove"],
        &["prove", "--policies", "x", "--sign", "key"],
        &["verify-proof", "--policies", "/nowhere.cedar", "--proof", "/nowhere", "--key", "x"],
    ] {
        let said = run(args);
        assert_eq!(said.code, 2, "{args:?} {}{}", said.out, said.err);
        assert!(said.out.is_empty());
    }
}

#[test]
fn a_test_that_expects_otherwise_fails_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let head = format!("workload_domain = \"prod.example\"\npolicies = [{:?}]\n", baseline());
    let suspend = "[[test]]\nname = \"a\"\nprincipal = \"spiffe://o.example/operator/alice\"\nroles = [\"custodian\"]\naction = \"SuspendTenant\"\ntenant = \"acme\"\n";
    for (expect, passes) in [
        ("expect = \"allow\"\nby = [\"operator-manage\"]\n", true),
        ("expect = \"allow\"\nby = [\"operator-read\"]\n", false),
        ("expect = \"deny\"\nby = []\n", false),
        ("expect = \"deny\"\ncheck = \"policy\"\n", false),
        ("", false),
    ] {
        let file = write(&dir, "t.toml", &format!("{head}{suspend}{expect}"));
        let said = run(&["test", &file]);
        assert_eq!(said.code, i32::from(!passes), "{expect} {}", said.out);
        assert_eq!(said.out.contains(&format!("{file}:3: a")), !passes, "{}", said.out);
    }
    // No requests are no proof, and what is not of the form is not asked.
    for (text, code) in [
        (head.clone(), 1),
        (format!("{head}{suspend}expect = \"allow\"\n"), 2),
        (format!("{head}{suspend}expects = \"allow\"\n"), 2),
        (format!("{head}{suspend}{suspend}"), 2),
        (format!("{head}{suspend}at = 2026-11-24\n"), 2),
        (format!("{head}{}", suspend.replace("spiffe://o.example", "o.example")), 2),
        (format!("{head}{}", suspend.replace("acme", "Acme")), 2),
    ] {
        let file = write(&dir, "t.toml", &text);
        assert_eq!(run(&["test", &file]).code, code, "{text}");
    }
    let file = write(&dir, "t.toml", &format!("{head}{suspend}expect = \"deny\"\nby = []\n"));
    let json: Value = serde_json::from_str(&run(&["test", "--json", &file]).out).unwrap();
    assert_eq!((json[0]["good"].as_bool(), json[0]["line"].as_u64()), (Some(false), Some(3)));
}

#[test]
fn explain_says_who_decides_and_what_each_policy_says() {
    let file = policies().join("examples/residency/tests.toml").display().to_string();
    let said = run(&["explain", &file, "--name", "a service elsewhere"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "deny by check policy (a policy forbids) by policies residency",
        "no guard in front of the policies refuses",
        "  permit workload-decrypt: applies",
        "  forbid residency: applies",
        "  forbid never-data-of-suspended-tenants: does not apply: its condition is not fulfilled",
        "  -      operator-read: not about this principal, action or resource",
    ] {
        assert!(said.out.lines().any(|found| found == line), "{line}\n{}", said.out);
    }
    let file = policies().join("examples/baseline/tests.toml").display().to_string();
    let said = run(&["explain", "--json", &file, "--name", "a suspended tenant's data"]);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["outcome"]["check"], "suspended");
    let of =
        |id: &str| json["policies"].as_array().unwrap().iter().find(|p| p["policy"] == id).unwrap()["says"].clone();
    assert_eq!(of("never-data-of-suspended-tenants"), "applies");
    assert_eq!(of("workload-decrypt"), "applies");
    assert_eq!(run(&["explain", &file, "--name", "no such request"]).code, 2);
}

#[test]
fn a_proof_is_signed_elsewhere_and_checked_without_a_solver() {
    let Some(solver) = solver_args("a_proof_is_signed_elsewhere_and_checked_without_a_solver") else { return };
    let solver: Vec<_> = solver.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("prover.key");
    let signer = LogSigner::create(&OsFs, &key, "prover/ci").unwrap();
    let (key, vkey) = (key.display().to_string(), signer.verifier().vkey());
    let out = dir.path().join("proof").display().to_string();
    let (base, args) = (baseline(), ["--sign", &key, "--prover", "prover/ci", "--out", &out]);
    let set = ["prove", "--policies", &base];
    let said = run_with(&[&set[..], &args].concat(), &solver);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    // A record is never written over.
    assert_eq!(run_with(&[&set[..], &args].concat(), &solver).code, 2);
    let verify =
        |policies: &str, key: &str| run(&["verify-proof", "--policies", policies, "--proof", &out, "--key", key]);
    let said = verify(&base, &vkey);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("proven only-workloads for ") && said.out.contains("in order: proven by prover/ci"));
    let other = write(&dir, "other.cedar", &fs::read_to_string(&base).unwrap().replace("writer", "scribe"));
    let said = verify(&other, &vkey);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("other policies"), "{}", said.err);
    let stranger = LogSigner::create(&OsFs, &dir.path().join("stranger.key"), "prover/ci").unwrap();
    assert_eq!(verify(&base, &stranger.verifier().vkey()).code, 1);

    // What is not proven is not signed.
    let planted = write(&dir, "planted.cedar", "@id(\"planted\") permit (principal, action, resource);");
    let unsigned = dir.path().join("unsigned");
    let args = ["--sign", &key, "--prover", "prover/ci", "--out", unsigned.to_str().unwrap(), "--json"];
    let said = run_with(&[&["prove", "--policies", &base, &planted][..], &args].concat(), &solver);
    assert_eq!(said.code, 1);
    assert!(!unsigned.exists());
    let json: Value = serde_json::from_str(&said.out).unwrap();
    let of =
        |id: &str| json["properties"].as_array().unwrap().iter().find(|p| p["id"] == id).unwrap()["findings"].clone();
    assert_eq!(of("only-workloads").as_array().unwrap().len(), 0);
    let found = of("only-workloads-by-permits-alone");
    assert_eq!(found[0]["counterexample"]["policies"][0], "planted");

    // Without a solver nothing is proven, and that is a refusal.
    let said = run(&["prove", "--policies", &base, "--solver", "/nowhere/cvc5"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("UNKNOWN") && said.out.contains("NOT PROVEN"), "{}", said.out);
}

/// A bundle's way to a gateway that demands a proof: proven, signed, and refused as long as one of the two is missing.
#[cfg(feature = "dev")]
#[test]
fn a_bundle_is_accepted_with_a_proof_of_itself_only() {
    let Some(solver) = solver_args("a_bundle_is_accepted_with_a_proof_of_itself_only") else { return };
    let solver: Vec<_> = solver.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let made = vault_grpc::init::init(&dir.path().join("vault"), 0, 0).unwrap();
    let config = made.config.display().to_string();
    let done = |args: &[&str]| {
        let said = run(args);
        assert_eq!(said.code, 0, "{args:?} {}{}", said.out, said.err);
    };
    done(&["key", "new", "--name", "policy/ines", "--out", &at("ines")]);
    done(&["key", "new", "--name", "prover/ci", "--out", &at("ci")]);
    let public = |name: &str| fs::read_to_string(at(name)).unwrap().trim().to_owned();
    let lines = format!(
        "[policy]\nsigners = [{:?}]\nproof = \"required\"\nprovers = [{:?}]\n",
        public("ines.pub"),
        public("ci.pub")
    );
    let text = fs::read_to_string(&made.config).unwrap().replacen("[policy]\n", &lines, 1);
    fs::write(&made.config, text).unwrap();
    let bundle = at("bundle.json");
    done(&["bundle", "make", "--config", &config, "--out", &bundle, "--comment", "the first"]);
    done(&["bundle", "sign", &bundle, "--key", &at("ines")]);
    let verify = ["bundle", "verify", &bundle, "--config", &config];
    let said = run(&verify);
    assert!(said.code == 1 && said.err.contains("proof"), "{}{}", said.out, said.err);
    let sign = ["--sign", &at("ci"), "--prover", "prover/ci", "--out", &at("proof")];
    let said = run_with(&[&["prove", "--config", &config][..], &sign].concat(), &solver);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    done(&["bundle", "add-proof", &bundle, "--proof", &at("proof")]);
    done(&verify);
    // A record about other policies does not do.
    let other = write(&dir, "other.cedar", "");
    let sign = ["--sign", &at("ci"), "--prover", "prover/ci", "--out", &at("other.proof")];
    assert_eq!(run_with(&[&["prove", "--policies", &other][..], &sign].concat(), &solver).code, 0);
    done(&["bundle", "add-proof", &bundle, "--proof", &at("other.proof")]);
    let said = run(&verify);
    assert!(said.code == 1 && said.err.contains("other policies"), "{}{}", said.out, said.err);
}
