//! `init`: a working configuration and a development PKI in a fresh directory.
//!
//! Three certificate authorities: one names workloads, one operators, one the gateway. The gateway's is its own, so that
//! no client has to trust, as the issuer of servers, an authority that issues to services: a service could then pose as
//! the gateway.

use std::fs;
use std::path::{Path, PathBuf};

use vault_core::Error;
use vault_core::audit::LogSigner;
use vault_core::fs::{Fs, OsFs};
use vault_core::kms::LocalRoot;
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA};
use vault_core::principal::{IdentityError, OperatorList, Person, Role, SpiffeId, TokenName};
use vault_core::vault::new_request_id;

use crate::config::{ConfigError, log_origin};
use crate::operators::sign;
use crate::pki::{Ca, Leaf};

/// The workloads' trust domain of a development PKI.
pub const WORKLOAD_DOMAIN: &str = "workloads.dev.example";
/// The operators' trust domain of a development PKI.
pub const OPERATOR_DOMAIN: &str = "operators.dev.example";
/// Workloads for which `init` issues certificates: file name, path of the SPIFFE ID, their tenant, their roles.
pub const WORKLOADS: [(&str, &str, &str, &str); 2] = [
    ("billing", "/ns/shop/sa/billing", "acme", r#"["writer", "reader", "rewrapper"]"#),
    ("storefront", "/ns/shop/sa/storefront", "globex", r#"["writer", "reader"]"#),
];
/// The operator who does in the demo what takes one.
pub const OPERATOR: &str = "alice";
/// The people of the list of operators that `init` signs: id, certificates by the name in their SPIFFE ID, roles. There is
/// nobody else: who is to operate a vault stands in its list. Two can ask for what takes two, and three can approve it.
pub const OPERATORS: [(&str, &[&str], &[Role]); 4] = [
    ("alice", &["alice", "alice-2"], &[Role::Approver, Role::Auditor, Role::Author, Role::Custodian]),
    ("bob", &["bob"], &[Role::Approver, Role::Author, Role::Custodian]),
    ("carol", &["carol"], &[Role::Approver, Role::Auditor]),
    ("dave", &["dave"], &[Role::Viewer]),
];
/// Whose tokens name those people, by their id, where a configuration of development demands tokens.
pub const OPERATOR_ISSUER: &str = "https://operators.dev.example";

/// What `init` made.
#[derive(Debug)]
pub struct Made {
    /// The configuration.
    pub config: PathBuf,
    /// The certificate authority of the workloads.
    pub workload_ca: Ca,
    /// The certificate authority of the operators.
    pub operator_ca: Ca,
    /// The certificate authority of the gateway.
    pub server_ca: Ca,
}

/// Fills `dir`, which must be empty or not exist yet. The configuration is written last: a directory without
/// `vault.toml` is one where this did not end. `data_port` and `control_port` may be 0 for free ones at each start.
///
/// # Errors
/// [`ConfigError`] naming what is in the way or what could not be written.
pub fn init(dir: &Path, data_port: u16, control_port: u16) -> Result<Made, ConfigError> {
    let place = dir.display().to_string();
    let failed = |error: &dyn std::fmt::Display| ConfigError::new(&place, error.to_string());
    check_empty(dir)?;
    let fs: &dyn Fs = &OsFs;
    for dir in [dir.to_owned(), dir.join("certs"), dir.join("policies")] {
        fs.create_dir_durable(&dir).map_err(|e| failed(&e.kind()))?;
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs.replace(&path, bytes).map_err(|e| ConfigError::new(path.display().to_string(), e.kind().to_string()))
    };
    let ca = |name: &str| Ca::new(name).map_err(|e| failed(&e));
    let workload_ca = ca("blindvault development: workloads")?;
    let operator_ca = ca("blindvault development: operators")?;
    let server_ca = ca("blindvault development: gateway")?;
    for (name, ca) in [("workload-ca", &workload_ca), ("operator-ca", &operator_ca), ("server-ca", &server_ca)] {
        write(&format!("certs/{name}.pem"), ca.pem().as_bytes())?;
        write(&format!("certs/{name}.key"), ca.key_pem().as_bytes())?;
    }
    let issue = |name: &str, ca: &Ca, leaf: &Leaf| {
        let issued = ca.issue(leaf).map_err(|e| failed(&e))?;
        write(&format!("certs/{name}.pem"), issued.certificate.as_bytes())?;
        write(&format!("certs/{name}.key"), issued.key.as_bytes())
    };
    issue("gateway", &server_ca, &Leaf::server(&format!("spiffe://{WORKLOAD_DOMAIN}/gateway")))?;
    for (name, path, ..) in WORKLOADS {
        issue(name, &workload_ca, &Leaf::client(name, &format!("spiffe://{WORKLOAD_DOMAIN}{path}")))?;
    }
    for name in OPERATORS.iter().flat_map(|(_, names, _)| *names) {
        issue(&format!("operator-{name}"), &operator_ca, &Leaf::client(name, &operator_id(name)))?;
    }
    write("certs/vault.binpb", vault_proto::FILE_DESCRIPTOR_SET)?;
    write("policies/schema.cedarschema", BASELINE_SCHEMA.text.as_bytes())?;
    write("policies/baseline.cedar", BASELINE_POLICIES.text.as_bytes())?;
    write("policies/registry.toml", registry().as_bytes())?;
    LocalRoot::create(fs, &dir.join("root.key")).map_err(|e| failed(&e))?;
    let id = new_request_id().map_err(|e| failed(&e))?;
    let instance: String = "dev-".chars().chain(id.to_string().chars().filter(|c| *c != '-').take(8)).collect();
    let signer = LogSigner::create(fs, &dir.join("audit.key"), &log_origin(&instance)).map_err(|e| failed(&e))?;
    write("audit.vkey", format!("{}\n", signer.verifier().vkey()).as_bytes())?;
    let owner = LogSigner::create(fs, &dir.join("owner.key"), &format!("{instance}/owner")).map_err(|e| failed(&e))?;
    let vkey = owner.verifier().vkey();
    write("owner.key.pub", format!("{vkey}\n").as_bytes())?;
    write(
        "operators.note",
        sign(&operators(&instance).map_err(|e| failed(&e))?, &owner).map_err(|e| failed(&e))?.as_bytes(),
    )?;
    write("vault.toml", configuration(&instance, &vkey, data_port, control_port).as_bytes())?;
    Ok(Made { config: dir.join("vault.toml"), workload_ca, operator_ca, server_ca })
}

/// The SPIFFE ID of an operator of a development PKI.
pub fn operator_id(name: &str) -> String {
    format!("spiffe://{OPERATOR_DOMAIN}/operator/{name}")
}

/// The list of [`OPERATORS`], in its first version.
///
/// # Errors
/// [`Error::Invalid`] if the instance is none.
pub fn operators(instance: &str) -> Result<OperatorList, Error> {
    let people = OPERATORS.iter().map(|(id, names, roles)| {
        let token = TokenName { issuer: OPERATOR_ISSUER.to_owned(), subject: (*id).to_owned() };
        let certificates = names.iter().map(|name| SpiffeId::parse(operator_id(name)).map_err(IdentityError::from));
        let (certificates, roles) = (certificates.collect::<Result<_, _>>()?, roles.iter().copied().collect());
        Ok(Person { id: (*id).to_owned(), certificates, tokens: vec![token], roles })
    });
    OperatorList::new(instance, 1, people.collect::<Result<_, Error>>()?)
}

fn check_empty(dir: &Path) -> Result<(), ConfigError> {
    let place = dir.display().to_string();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ConfigError::new(place, error.kind().to_string())),
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    names.truncate(5);
    Err(ConfigError::new(place, format!("must be empty or not exist yet, but holds {}", names.join(", "))))
}

fn registry() -> String {
    let mut text = String::from(
        "# Which service a SPIFFE ID is, and whose data it may touch. docs/policy.md explains every key.\n",
    );
    for (name, path, tenant, roles) in WORKLOADS {
        text.push_str(&format!(
            "\n[[workload]]\nid = \"spiffe://{WORKLOAD_DOMAIN}{path}\"\nservice = \"{name}\"\n\
             environment = \"dev\"\ntenants = [\"{tenant}\"]\nroles = {roles}\n"
        ));
    }
    text
}

fn configuration(instance: &str, owner: &str, data_port: u16, control_port: u16) -> String {
    format!(
        r#"# Made by `vault-grpc init` for development. Relative paths start from this file's directory.
environment = "dev"
# Bound into every wrapped tenant key: keep it apart from backups of the store.
instance = "{instance}"

# Workloads: encrypt, decrypt, rewrap.
[data]
address = "127.0.0.1:{data_port}"
certificate = "certs/gateway.pem"
key = "certs/gateway.key"
client_ca = "certs/workload-ca.pem"
crls = []
trust_domain = "{WORKLOAD_DOMAIN}"

# Operators: tenants, datasets, rotation. No call here can return plaintext or keys.
[control]
address = "127.0.0.1:{control_port}"
certificate = "certs/gateway.pem"
key = "certs/gateway.key"
client_ca = "certs/operator-ca.pem"
crls = []
trust_domain = "{OPERATOR_DOMAIN}"

# Who operates this vault, signed with owner.key. `vault-grpc operators sign` signs another list; docs/operators.md says how
# operators bring tokens, too.
[operators]
list = "operators.note"
owner = "{owner}"

[store]
path = "data/vault.redb"

[audit]
dir = "data/audit"
key = "audit.key"

# A file: development builds only.
[root]
kind = "local"
path = "root.key"

[policy]
schema = "policies/schema.cedarschema"
policies = ["policies/baseline.cedar"]
registry = "policies/registry.toml"

# [limits], [cache] and [logs] have defaults; docs/configuration.md lists them.
"#
    )
}
