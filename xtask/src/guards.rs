//! `guards`: takes the guards of "an operator reaches no plaintext", and every sync of store and audit log, out one at a
//! time, in a copy of the sources, and sees the test fail that stands for each.
//!
//! A test that passes without its guard protects nothing; this shows which do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{cargo, program, root, run, target};
use crate::say;

/// One guard.
struct Guard {
    name: &'static str,
    file: &'static str,
    /// Text that stands in `file` exactly once, and what takes its place.
    from: &'static str,
    to: &'static str,
    /// The arguments of `cargo test`, and a part of the name of the test that must fail; empty: any of them.
    test: &'static [&'static str],
    fails: &'static str,
}

const DOC: &[&str] = &["-p", "vault-core", "--features", "dev", "--doc"];
const REACHES: &[&str] = &["-p", "vault-grpc", "--test", "operator_reaches_nothing"];
const STORE: &[&str] = &["-p", "vault-core", "--features", "dev", "--test", "store_crash"];
const LOG: &[&str] = &["-p", "vault-core", "--features", "dev", "--test", "audit_crash"];
const DESCRIPTOR: &[&str] = &["-p", "vault-proto", "--test", "descriptor"];

const GUARDS: &[Guard] = &[
    Guard {
        name: "types: a control action is no data action",
        file: "vault-core/src/policy/action.rs",
        from: "impl Seals for Encrypt {}",
        to: "impl Seals for Encrypt {}\nimpl DataAction for SuspendTenant {}",
        test: DOC,
        fails: "policy/action.rs",
    },
    Guard {
        name: "types: actions are sealed",
        file: "vault-core/src/policy/action.rs",
        from: "pub trait Action: sealed::Sealed + Send + Sync + 'static {",
        to: "pub trait Action: Send + Sync + 'static {",
        test: DOC,
        fails: "policy/action.rs",
    },
    Guard {
        name: "types: an operator cannot be turned into a workload",
        file: "vault-core/src/principal/mod.rs",
        from: "impl Workload {\n",
        to: "impl From<Operator> for Workload {\n    fn from(who: Operator) -> Self {\n        Self { proof: who.proof }\n    }\n}\n\nimpl Workload {\n",
        test: DOC,
        fails: "principal/mod.rs",
    },
    Guard {
        name: "types: a permit cannot be copied",
        file: "vault-core/src/policy/permit.rs",
        from: "impl<A: Action> Permit<A> {\n",
        to: "impl<A: Action> Clone for Permit<A> {\n    fn clone(&self) -> Self {\n        Self::mint(self.decision.clone(), self.valid_until)\n    }\n}\n\nimpl<A: Action> Permit<A> {\n",
        test: DOC,
        fails: "policy/permit.rs",
    },
    Guard {
        name: "types: a permit cannot be made elsewhere",
        file: "vault-core/src/policy/permit.rs",
        from: "    decision: Decision,\n    valid_until: Timestamp,\n    action: PhantomData<fn() -> A>,\n",
        to: "    #[doc(hidden)]\n    pub decision: Decision,\n    #[doc(hidden)]\n    pub valid_until: Timestamp,\n    #[doc(hidden)]\n    pub action: PhantomData<fn() -> A>,\n",
        test: DOC,
        fails: "policy/permit.rs",
    },
    Guard {
        name: "transport: the data plane's handshake refuses whom the rules refuse",
        file: "vault-grpc/src/tls/verifier.rs",
        from: "Err(rule) => Err(Error::InvalidCertificate(alert_for(rule))),",
        to: "Err(rule) => {\n                let _ = alert_for(rule);\n                Ok(ClientCertVerified::assertion())\n            }",
        test: REACHES,
        fails: "an_operator_is_refused_by_the_data_plane_handshake",
    },
    Guard {
        name: "transport: a client certificate is required",
        file: "vault-grpc/src/tls/verifier.rs",
        from: "    fn client_auth_mandatory(&self) -> bool {\n        true",
        to: "    fn client_auth_mandatory(&self) -> bool {\n        false",
        test: REACHES,
        fails: "without_a_certificate_there_is_no_connection",
    },
    Guard {
        name: "transport: the control plane answers no data call",
        file: "vault-grpc/src/service/mod.rs",
        from: "    let control = tenants::Control::new(Arc::clone(vault));\n",
        to: "    let control = tenants::Control::new(Arc::clone(vault));\n    let crypto = CryptoServiceServer::new(crypto::Crypto::new(Arc::clone(vault), Arc::default()));\n    if true {\n        return Routes::new(crypto).add_service(TenantServiceServer::new(control.clone())).add_service(DatasetServiceServer::new(control));\n    }\n",
        test: REACHES,
        fails: "the_control_plane_knows_no_data_rpc",
    },
    Guard {
        name: "identity: an email address makes it a person's certificate",
        file: "vault-core/src/principal/svid.rs",
        from: "    if facts.has_email {\n",
        to: "    if facts.has_email && facts.is_ca {\n",
        test: REACHES,
        fails: "a_person_is_refused_even_with_a_certificate_of_the_workload_authority",
    },
    Guard {
        name: "descriptor: no control message has a plaintext field",
        file: "proto/vault/v1/tenant.proto",
        from: "message Tenant {\n",
        to: "message Tenant {\n  // Planted.\n  bytes planted = 100 [(data) = DATA_CLASS_PLAINTEXT];\n",
        test: DESCRIPTOR,
        fails: "the_protocol_keeps_every_rule",
    },
    Guard {
        name: "sync: the parent of a directory that is made",
        file: "vault-core/src/fs.rs",
        from: "        self.create_dir_all(dir)?;\n        self.sync_dir(parent)\n",
        to: "        self.create_dir_all(dir)\n",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: the bytes of a file that is replaced",
        file: "vault-core/src/fs.rs",
        from: "        file.write_all_at(0, data)?;\n        file.sync_data()?;\n",
        to: "        file.write_all_at(0, data)?;\n",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: the name of a file that is replaced",
        file: "vault-core/src/fs.rs",
        from: "        self.rename(&aside, path)?;\n        self.sync_dir(dir)\n",
        to: "        let _ = dir;\n        self.rename(&aside, path)\n",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: frames of the log",
        file: "vault-core/src/audit/writer.rs",
        from: "        self.file.sync_data().map_err(why)?;\n",
        to: "",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: checkpoints of the log",
        file: "vault-core/src/audit/publisher.rs",
        from: "        self.file.sync_data().map_err(|_| UNREADABLE)?;\n",
        to: "",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: the log's frames after a cut",
        file: "vault-core/src/audit/log.rs",
        from: "        entries.sync_data().map_err(|_| UNWRITABLE)?;\n",
        to: "",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: the log's checkpoints after a cut",
        file: "vault-core/src/audit/log.rs",
        from: "        checkpoints.sync_data().map_err(|_| UNWRITABLE)?;\n",
        to: "",
        test: LOG,
        fails: "",
    },
    Guard {
        name: "sync: the store's name that a killed process left",
        file: "vault-core/src/store/open.rs",
        from: "    fs.sync_dir(dir).map_err(|_| unavailable(\"its directory could not be synced\"))?;\n",
        to: "    let _ = dir;\n",
        test: STORE,
        fails: "",
    },
    Guard {
        name: "sync: commits of the store",
        file: "vault-core/src/store/backend.rs",
        from: "        self.file.sync_data()\n",
        to: "        Ok(())\n",
        test: STORE,
        fails: "",
    },
];

/// Takes each whose name contains `part` out in turn; whether every one was missed by its test.
pub(crate) fn guards(part: &str) -> bool {
    say::heading("guards");
    // A target directory of its own: cargo tells checkouts apart by the times of files alone, so in a shared one the next
    // ordinary build could take over what was built without a guard.
    let (copy, target) = (target().join("guards/source"), target().join("guards/target"));
    if let Err(why) = copy_sources(&copy) {
        say::line(format_args!("FAILED: {why}"));
        return false;
    }
    let mut good = true;
    let mut tried = 0;
    for guard in GUARDS.iter().filter(|guard| guard.name.contains(part)) {
        tried += 1;
        match without(guard, &copy, &target) {
            Ok(test) => say::line(format_args!("missed  {}: {test} fails", guard.name)),
            Err(why) => {
                say::line(format_args!("FAILED  {}: {why}", guard.name));
                good = false;
            }
        }
    }
    say::line(format_args!("{tried} guards taken out, one at a time"));
    good && tried > 0
}

/// The files that git knows, copied anew; what is not committed yet is copied as it stands.
fn copy_sources(to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    if to.exists() {
        fs::remove_dir_all(to).map_err(failed)?;
    }
    let listed = program("git").args(["ls-files", "-z"]).output().map_err(failed)?;
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let place = to.join(&name);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::copy(root().join(&name), place).map_err(|error| format!("{}: {error}", name.display()))?;
    }
    Ok(())
}

fn without(guard: &Guard, copy: &Path, target: &Path) -> Result<String, String> {
    let file = copy.join(guard.file);
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", guard.file))?;
    if text.matches(guard.from).count() != 1 {
        return Err(format!("{} does not hold the guard's text exactly once", guard.file));
    }
    let put = |text: &str| fs::write(&file, text).map_err(|error| format!("{}: {error}", guard.file));
    put(&text.replacen(guard.from, guard.to, 1))?;
    let outcome = look(guard, copy, target);
    put(&text)?;
    outcome
}

/// The test that failed.
fn look(guard: &Guard, copy: &Path, target: &Path) -> Result<String, String> {
    let of = |mut command: Command| {
        command.current_dir(copy).env("CARGO_TARGET_DIR", target);
        command
    };
    // Without its guard the code must still build: else the test would fail for another reason.
    let build = match guard.test.split_last() {
        // Tests in documentation are built when they run; the library is built before.
        Some((&"--doc", library)) => [&["build"], library].concat(),
        _ => [&["test", "--no-run"], guard.test].concat(),
    };
    if !run(&mut of(cargo(&build))) {
        return Err("it does not build without the guard".into());
    }
    let done = of(cargo(&[&["test"], guard.test].concat())).output().map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut failed =
        printed.lines().filter_map(|line| line.trim_end().strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    match failed.find(|name| name.contains(guard.fails)) {
        Some(name) if !done.status.success() => Ok(name.to_owned()),
        _ => Err("its test passes without it".to_owned()),
    }
}
