use std::process::Command;

use super::*;
use crate::run::root;

const TREE: &str = "\
0|vault-grpc v0.1.0 (/somewhere/vault-grpc)|Apache-2.0 OR MIT|https://git.example/vault
1|b v1.0.0 (proc-macro)|MIT/Apache-2.0|
2|c v2.0.0+x||https://git.example/c
1|c v2.0.0+x||https://git.example/c (*)
1|d v1.0.0|MIT|";

fn id(name: &str, version: &str) -> Id {
    (name.into(), version.into())
}

#[test]
fn a_tree_is_read_with_its_edges() {
    let found = crates(TREE).unwrap();
    assert_eq!(found.len(), 4);
    let needs = |name: &str, version: &str| found[&id(name, version)].needs.iter().cloned().collect::<Vec<_>>();
    assert_eq!(needs("vault-grpc", "0.1.0"), [id("b", "1.0.0"), id("c", "2.0.0+x"), id("d", "1.0.0")]);
    assert_eq!(needs("b", "1.0.0"), [id("c", "2.0.0+x")]);
    assert_eq!(needs("d", "1.0.0"), []);
    assert_eq!(found[&id("b", "1.0.0")].license, "MIT OR Apache-2.0");
    assert_eq!(found[&id("c", "2.0.0+x")].repository, "https://git.example/c");
    for text in ["x|b v1|MIT|", "0|b|MIT|", "0 b v1", "0|b v1|MIT"] {
        assert!(crates(text).is_err(), "{text}");
    }
}

/// The bill of materials of this workspace, as it is.
fn of_this() -> Value {
    let rustc = output(Command::new("rustc").arg("-vV")).unwrap();
    let origin = Origin {
        commit: "0".repeat(40),
        epoch: "1".into(),
        time: "1970-01-01T00:00:01Z".into(),
        host: super::super::field(&rustc, "host").unwrap(),
        rustc,
    };
    let text = of(&root(), super::super::FEATURES, &origin).unwrap();
    assert_eq!(text, of(&root(), super::super::FEATURES, &origin).unwrap(), "the same source, the same bytes");
    let home = root();
    assert!(!text.contains(home.to_str().unwrap()), "it names a folder of this machine");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_gateways_bill_of_materials_is_whole() {
    let bom = of_this();
    let components = bom["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|c| c["name"] == name);
    // What verifies and seals is there, with the registry's digest; what only development builds have is not.
    for name in ["ring", "aws-lc-rs", "rustls", "cedar-policy", "tokio-postgres", "aws-sdk-kms"] {
        let found = named(name).unwrap();
        assert_eq!(found["scope"], "required", "{name}");
        assert_eq!(found["hashes"][0]["content"].as_str().unwrap().len(), 64, "{name}");
    }
    for name in ["rcgen", "csv", "cryptoki", "cedar-policy-symcc", "criterion"] {
        assert!(named(name).is_none(), "{name}");
    }
    assert_eq!(named("protox").unwrap()["scope"], "excluded");
    assert!(named("vault-core").unwrap().get("purl").is_none(), "a crate of the workspace is in no registry");
    // Every component is in the graph, and the graph names nothing else.
    let references = |value: &Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    let mut known: BTreeSet<String> = components.iter().map(|c| c["bom-ref"].as_str().unwrap().to_owned()).collect();
    assert_eq!(known.len(), components.len(), "each once");
    known.insert(bom["metadata"]["component"]["bom-ref"].as_str().unwrap().to_owned());
    let nodes: BTreeSet<String> =
        bom["dependencies"].as_array().unwrap().iter().map(|d| d["ref"].as_str().unwrap().to_owned()).collect();
    assert_eq!(nodes, known);
    for node in bom["dependencies"].as_array().unwrap() {
        assert!(references(&node["dependsOn"]).is_subset(&known));
    }
}

/// The schema of CycloneDX itself, as its authors ship it for Python.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(f'not valid: {error}' if error else 0)
";

#[test]
fn the_schema_of_cyclonedx_takes_it() {
    use std::io::Write as _;
    use std::process::Stdio;
    let name = "the_schema_of_cyclonedx_takes_it";
    let Some(python) = std::env::var_os("BLINDVAULT_PYTHON") else {
        let reason = "BLINDVAULT_PYTHON names no interpreter with cyclonedx-python-lib";
        assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{name}: {reason}");
        crate::say::line(format_args!("SKIPPED {name}: {reason}"));
        return;
    };
    let valid = |bom: &Value| {
        let mut child =
            Command::new(&python).args(["-c", VALIDATE]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bom.to_string().as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let good = of_this();
    let (taken, said) = valid(&good);
    assert!(taken, "{said}");
    let mut bad = good;
    bad["components"][0]["hashes"] = json!([{"alg": "SHA-256", "content": "zz"}]);
    let (taken, said) = valid(&bad);
    assert!(!taken && said.contains("not valid"), "{said}");
}
