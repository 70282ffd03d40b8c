//! The bill of materials, in CycloneDX 1.6 (JSON): every crate that the production build is made of, from `cargo tree`
//! for exactly its features, with the digests of `Cargo.lock`. The same source gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Origin, VERSION, output};
use crate::run::cargo;

/// One crate in one version.
#[derive(Debug, Default, PartialEq, Eq)]
struct Crate {
    license: String,
    repository: String,
    /// What it needs to be built or to run.
    needs: BTreeSet<Id>,
}

/// Name and version.
type Id = (String, String);
type Crates = BTreeMap<Id, Crate>;

/// The bill of materials of the gateway in a folder with the source.
pub(super) fn of(source: &Path, features: &str, origin: &Origin) -> Result<String, String> {
    let tree = |edges: &str| {
        let mut tree = cargo(&["tree", "--locked", "-p", "vault-grpc", "--no-default-features", "--prefix", "depth"]);
        tree.args(["--features", features, "--target", &origin.host, "-e", edges, "--format", "|{p}|{l}|{r}"]);
        output(tree.current_dir(source))
    };
    let all = crates(&tree("normal,build")?)?;
    let linked = crates(&tree("normal,no-proc-macro")?)?;
    let lock = fs::read_to_string(source.join("Cargo.lock")).map_err(|error| error.to_string())?;
    let bom = bom(&all, &linked, &checksums(&lock), &origin.commit, &origin.time)?;
    serde_json::to_string_pretty(&bom).map(|text| text + "\n").map_err(|error| error.to_string())
}

/// Reads what `cargo tree --prefix depth --format '|{p}|{l}|{r}'` says.
fn crates(tree: &str) -> Result<Crates, String> {
    let mut found = Crates::new();
    let mut path: Vec<Id> = Vec::new();
    for line in tree.lines() {
        let wrong = || format!("not a line of a tree: {line}");
        let mut parts = line.trim_end_matches(" (*)").split('|');
        let mut part = || parts.next().ok_or_else(wrong);
        let (depth, package, license, repository) = (part()?, part()?, part()?, part()?);
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next().and_then(|word| word.strip_prefix('v'))) else {
            return Err(wrong());
        };
        let id = (name.to_owned(), version.to_owned());
        path.truncate(depth.parse().map_err(|_| wrong())?);
        if let Some(parent) = path.last().and_then(|parent| found.get_mut(parent)) {
            parent.needs.insert(id.clone());
        }
        path.push(id.clone());
        let entry = found.entry(id).or_default();
        // As old manifests have it.
        entry.license = license.replace('/', " OR ");
        entry.repository = repository.to_owned();
    }
    Ok(found)
}

/// The checksums of a `Cargo.lock`; what has none is of this workspace.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        line.strip_suffix('"').map(str::to_owned)
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks
        .filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?)))
        .collect()
}

fn reference((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{version}")
}

fn bom(
    all: &Crates,
    linked: &Crates,
    checksums: &BTreeMap<Id, String>,
    commit: &str,
    time: &str,
) -> Result<Value, String> {
    let gateway: Id = ("vault-grpc".into(), VERSION.into());
    if !linked.contains_key(&gateway) {
        return Err("the tree is not the gateway's".into());
    }
    let component = |id: &Id, found: &Crate| {
        let (name, version) = id;
        // What only helps to build is not in the executable.
        let scope = if linked.contains_key(id) { "required" } else { "excluded" };
        let mut entry = Map::new();
        let mut put = |key: &str, value: Value| drop(entry.insert(key.to_owned(), value));
        put("type", json!("library"));
        put("bom-ref", json!(reference(id)));
        put("name", json!(name));
        put("version", json!(version));
        put("scope", json!(scope));
        if let Some(checksum) = checksums.get(id) {
            put("purl", json!(reference(id)));
            put("hashes", json!([{"alg": "SHA-256", "content": checksum}]));
        }
        if !found.license.is_empty() {
            put("licenses", json!([{"expression": found.license}]));
        }
        if !found.repository.is_empty() {
            put("externalReferences", json!([{"type": "vcs", "url": found.repository}]));
        }
        Value::Object(entry)
    };
    let others = all.iter().filter(|(id, _)| **id != gateway);
    let dependencies = all.iter().map(
        |(id, found)| json!({"ref": reference(id), "dependsOn": found.needs.iter().map(reference).collect::<Vec<_>>()}),
    );
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "tools": {"components": [{"type": "application", "name": "blindvault xtask", "version": VERSION}]},
            "component": {
                "type": "application", "bom-ref": reference(&gateway), "name": gateway.0, "version": gateway.1,
                "licenses": [{"expression": "Apache-2.0 OR MIT"}],
                "properties": [{"name": "blindvault:commit", "value": commit}],
            },
        },
        "components": others.map(|(id, found)| component(id, found)).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests;
