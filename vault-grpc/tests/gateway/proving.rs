//! A gateway that proves policy bundles itself: what it proves comes into force, and nothing else does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vault_client::{ClientError, Code, Endpoint, Limits, OperatorClient, Target, VaultClient};
use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;
use vault_core::policy::{BASELINE_POLICIES, BASELINE_SCHEMA, properties};
use vault_core::proof::{PROVER, ProofText, digest_of_guards, digest_of_policies, digest_of_schema};
use vault_grpc::Gateway;
use vault_grpc::config::Config;
use vault_grpc::init::Made;
use vault_proto::v1::PolicyBundle;

use super::policies::{Files, name_signers};
use super::shredding::bob;
use super::solver::solver;
use super::support::{Fixture, made};

/// For a proof on a busy machine.
fn patient() -> Limits {
    Limits { deadline: Duration::from_secs(100), ..Limits::default() }
}

/// A solver that says its version, and then what `body` does with each line.
fn fake(body: &str) -> String {
    let version = r#""(get-info :version)") echo "(:version \"1\")";;"#;
    format!("while read -r line; do case \"$line\" in {version} {body} esac; done\n")
}

/// A configuration in which the gateway proves, with the shell script `solver.sh` beside it for a solver. `sh` is a link
/// that a test can take away.
fn proving(made: &Made, text: &str, timeout_ms: u64) -> String {
    vault_grpc::prover::set_program(env!("CARGO_BIN_EXE_vault-grpc").into());
    let beside = |name: &str| made.config.with_file_name(name);
    symlink("/bin/sh", beside("sh")).unwrap();
    let prove = format!(
        "proof = \"required\"\nprove = {{ solver = \"sh\", arguments = [{:?}], timeout_ms = {timeout_ms} }}",
        beside("solver.sh"),
    );
    let text = name_signers(&made.config, text).replacen("[policy]\n", &format!("[policy]\n{prove}\n"), 1);
    text + "\n[limits]\ncall_timeout_ms = 120000\n"
}

/// The solver of the tests, called by a script.
fn real(test: &str) -> Option<String> {
    let command = solver(test)?;
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let arguments: Vec<_> = command.arguments.iter().map(|argument| quoted(argument)).collect();
    let program = command.program.to_str().unwrap().to_owned();
    // A solver's search path is not ours.
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    let program = String::from_utf8(found.stdout).unwrap();
    Some(format!("exec {} {} \"$@\"\n", quoted(program.trim().as_ref()), arguments.join(" ")))
}

/// Makes bundles one after the other, each with a policy behind the baseline.
struct Bundles {
    files: Files,
    made: usize,
    last: Option<String>,
}

impl Bundles {
    fn next(&mut self, more: &str) -> String {
        self.of(&format!("{}\n{more}\n", BASELINE_POLICIES.text))
    }

    fn of(&mut self, policies: &str) -> String {
        self.made += 1;
        let name = format!("bundle-{}.json", self.made);
        fs::write(self.files.path("policies/baseline.cedar"), policies).unwrap();
        let (version, after) = (self.made.to_string(), self.last.clone().map(|last| self.files.path(&last)));
        let mut arguments = vec!["--version", &version];
        if let Some(after) = &after {
            arguments.extend(["--after", after]);
        }
        self.files.make(&name, &arguments);
        for key in ["ines", "jan"] {
            self.files.sign(&name, key);
        }
        self.files.document(&name)
    }

    /// The bundle that was made last is in force.
    fn passed(&mut self) {
        self.last = Some(format!("bundle-{}.json", self.made));
    }
}

fn permit(id: &str, principal: &str, action: &str, when: &str) -> String {
    format!("@id(\"{id}\") permit (principal is Vault::{principal}, {action}, resource) when {{ {when} }};")
}

/// Refused by the proof, with these words.
fn not_proven(error: &ClientError, words: &[&str]) {
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, "NOT_PROVEN"), "{error}");
    for word in words {
        assert!(error.message().contains(word), "{word}: {}", error.message());
    }
}

async fn activate(alice: &OperatorClient, bob: &OperatorClient, bundle: &PolicyBundle) -> Result<(), ClientError> {
    let asked = alice.activate_policy(bundle, "test").await?;
    bob.approve(&asked, None, "test").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_proves_comes_into_force_and_nothing_else() {
    let Some(real) = real("what_the_gateway_proves_comes_into_force_and_nothing_else") else { return };
    let fixture = Fixture::start_with(|made, text| proving(made, &text, 90_000)).await;
    fixture.tenants().await;
    let solver = fixture.root().join("solver.sh");
    fs::write(&solver, &real).unwrap();
    let (alice, bob) = (fixture.operator().await.with_limits(patient()), bob(&fixture).await.with_limits(patient()));
    let billing = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing");
    let sealed = billing.encrypt(&target, b"DE89 3704").await.unwrap();
    let mut bundles = Bundles { files: Files(fixture.root().to_owned()), made: 0, last: None };

    // Data calls go on while it is proved.
    let one = bundles.next("");
    let over = AtomicBool::new(false);
    let calls = async {
        let (mut count, mut longest) = (0, Duration::ZERO);
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
            longest = longest.max(begun.elapsed());
            count += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (count, longest)
    };
    let begun = Instant::now();
    let proposing = async {
        let proposed = alice.propose_policy(&one, "test").await;
        over.store(true, Ordering::Relaxed);
        proposed.unwrap()
    };
    let (bundle, (count, longest)) = tokio::join!(proposing, calls);
    println!(
        "measured: proposed and proved in {:?}; {count} calls meanwhile, the longest {longest:?}",
        begun.elapsed()
    );
    assert!(count > 3 && longest < begun.elapsed() / 2, "{count} calls, {longest:?}");
    // What is proved is not proved again: without a solver it is still known.
    fs::write(&solver, "exit 1\n").unwrap();
    activate(&alice, &bob, &bundle).await.unwrap();
    bundles.passed();
    let in_force = fixture.gateway.vault().policy_bundle().unwrap();
    assert_eq!(in_force.version, 1);

    // Refuted, with an example.
    fs::write(&solver, &real).unwrap();
    let data = "action in Vault::Action::\"Data\"";
    let operators = bundles.next(&permit("planted-people", "Operator", data, "resource has residency"));
    // The baseline's own forbid would keep it out, so it goes.
    let narrow = "unless { principal is Vault::Workload && principal.tenants.contains(resource.tenant) };";
    assert_eq!(BASELINE_POLICIES.text.matches(narrow).count(), 1);
    let lax = BASELINE_POLICIES.text.replacen(narrow, "unless { principal is Vault::Workload };", 1);
    let foreign = lax + &permit("planted-tenants", "Workload", data, "context.purpose == \"audit\"");
    let foreign = bundles.of(&foreign);
    for (document, words) in [
        (&operators, ["only-workloads", "Operator, ", "principal  Vault::Operator::", "decided by planted-people"]),
        (&foreign, ["own-tenants", "Workload, ", "principal  Vault::Workload::", "decided by planted-tenants"]),
    ] {
        not_proven(&alice.validate_policy(document).await.unwrap_err(), &words);
        not_proven(&alice.propose_policy(document, "test").await.unwrap_err(), &words);
    }

    // Nothing can be shown of these, each of its own kind; and whatever the solver, the gateway goes on.
    let spare = |n: u32| {
        format!("@id(\"spare-{n}\") forbid (principal, {data}, resource) when {{ context.purpose == \"spare-{n}\" }};")
    };
    let cases: [(&str, &[&str]); 7] = [
        ("exit 1\n", &["ended before it answered"]),
        ("kill -9 $PPID\n", &["ended without an answer"]),
        (&fake("'(check-sat)') kill -9 $$;;"), &["ended before it answered"]),
        (&fake("'(check-sat)') echo unknown;;"), &["does not know"]),
        (&fake("'(check-sat)') echo unsat;;"), &["guards-refuse", "refuses nothing"]),
        (&fake("'(check-sat)') echo sat;; '(get-model)') printf '(\\n)\\n';;"), &["could not show"]),
        (&fake("'(check-sat)') yes;;"), &["no answer"]),
    ];
    for (at, (script, words)) in (0..).zip(cases) {
        fs::write(&solver, script).unwrap();
        let document = bundles.next(&spare(at));
        not_proven(&alice.propose_policy(&document, "test").await.unwrap_err(), words);
    }
    let spared = bundles.next(&spare(9));
    fs::remove_file(fixture.root().join("sh")).unwrap();
    not_proven(&alice.propose_policy(&spared, "test").await.unwrap_err(), &["ended before it answered"]);
    assert_eq!(fixture.gateway.vault().policy_bundle(), Some(in_force));
    billing.decrypt(&target, sealed.envelope.clone()).await.unwrap();
    let listed = alice.list_policies(0, "").await.unwrap().bundles;
    assert_eq!(listed.len(), 1, "{listed:?}");

    // A start proves what is in force, or does not come to serve.
    let Fixture { dir: _dir, made, gateway } = fixture;
    gateway.shutdown().await.unwrap();
    let refused = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("policy.prove.solver"), "{refused}");
    symlink("/bin/sh", made.config.with_file_name("sh")).unwrap();
    let refused = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("not proven"), "{refused}");
    fs::write(&solver, &real).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    assert_eq!(gateway.vault().policy_bundle(), Some(in_force));
    gateway.shutdown().await.unwrap();
    let log = audit_text(&made);
    for why in ["found a request that breaks a property", "could not show a property", "ended without an answer"] {
        assert!(log.contains(why), "the audit log lacks {why}");
    }
}

/// All of the audit log's entries, as they lie there.
fn audit_text(made: &Made) -> String {
    let mut text = String::new();
    let mut dirs = vec![made.config.with_file_name("data/audit")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                text.push_str(&String::from_utf8_lossy(&fs::read(path).unwrap()));
            }
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_solver_that_hangs_is_given_up_and_a_record_does_without_it() {
    let (dir, made) = made();
    let prover = LogSigner::create(&OsFs, &made.config.with_file_name("prover"), "prover/ci").unwrap();
    let text = proving(&made, &fs::read_to_string(&made.config).unwrap(), 1500);
    let provers = format!("[policy]\nprovers = [{:?}]\n", prover.verifier().vkey());
    fs::write(&made.config, text.replacen("[policy]\n", &provers, 1)).unwrap();
    let gateway = Gateway::start(Config::load(&made.config).unwrap()).await.unwrap();
    let fixture = Fixture { dir, made, gateway };
    let (alice, bob) = (fixture.operator().await.with_limits(patient()), bob(&fixture).await);
    fs::write(fixture.root().join("solver.sh"), "sleep 600\n").unwrap();
    let mut bundles = Bundles { files: Files(fixture.root().to_owned()), made: 0, last: None };
    let one = bundles.next("");
    let begun = Instant::now();
    not_proven(&alice.propose_policy(&one, "test").await.unwrap_err(), &["in time"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // A stand-in for a proof elsewhere.
    let policies = fs::read_to_string(bundles.files.path("policies/baseline.cedar")).unwrap();
    let policies = [vault_core::policy::Source { name: "baseline.cedar", text: &policies }];
    let record = ProofText {
        policies: digest_of_policies(&policies),
        schema: digest_of_schema(BASELINE_SCHEMA),
        guards: digest_of_guards(),
        prover: PROVER.to_owned(),
        solver: "cvc5 1.3.1".to_owned(),
        environments: 78,
        never: 40,
        properties: properties().into_iter().map(|id| (id, 1)).collect(),
        time: "2026-11-24T12:00:00.000Z".to_owned(),
    };
    let signed = vault_core::bundle::SignedBundle::from_document(&one).unwrap();
    let with = |record: &ProofText| {
        let signed = signed.clone().with_proof(Some(prover.note(&record.text()).unwrap())).unwrap();
        signed.to_document().unwrap()
    };
    let other = ProofText { policies: digest_of_guards(), ..record.clone() };
    not_proven(&alice.propose_policy(&with(&other), "test").await.unwrap_err(), &["in time"]);
    let bundle = alice.propose_policy(&with(&record), "test").await.unwrap();
    activate(&alice, &bob, &bundle).await.unwrap();
    assert_eq!(fixture.gateway.vault().policy_bundle().unwrap().version, 1);
    fixture.gateway.shutdown().await.unwrap();
}

/// `vault-grpc serve`. Killed when dropped.
struct Serving {
    child: Child,
    data: String,
    control: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn serve(config: &Path) -> Serving {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vault-grpc"));
    command.args(["serve", "--config"]).arg(config).env("SECRET_OF_THE_GATEWAY", "1");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut data, mut control) = (None, None);
    while data.is_none() || control.is_none() {
        let line = lines.next().unwrap().unwrap();
        let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let address = field("address").map(|address| address.trim_matches('"').to_owned());
        match field("plane") {
            Some("\"data\"") => data = address,
            Some("\"control\"") => control = address,
            _ => {}
        }
    }
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Serving { child, data: data.unwrap(), control: control.unwrap() }
}

/// What the restricted gateway has to let its children do beyond reading the solver's script: run these, read there,
/// write there.
fn allow(made: &Made, programs: &[&str], read: &[&str], write: &str) {
    let found = |name: &&str| std::env::split_paths("/usr/bin:/bin").map(|dir| dir.join(name)).find(|at| at.exists());
    let programs: Vec<_> = programs.iter().map(|name| found(name).unwrap_or_else(|| name.into())).collect();
    let text = fs::read_to_string(&made.config).unwrap();
    let more = format!("\n[hardening]\nexecutables = {programs:?}\nread = {read:?}\nwrite = [{write}]\n");
    fs::write(&made.config, text + &more).unwrap();
}

/// Waits for what a script writes into a fifo.
async fn told(fifo: PathBuf) -> String {
    let reading = fifo.clone();
    let reading = tokio::task::spawn_blocking(move || fs::read_to_string(reading).unwrap());
    let told = tokio::time::timeout(Duration::from_secs(60), reading).await;
    if told.is_err() {
        // Or the thread that opens it would wait for ever, and the test with it.
        drop(fs::OpenOptions::new().write(true).open(fifo));
    }
    told.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn prover_and_solver_get_nothing_of_the_gateway_and_die_with_it() {
    let (_dir, made) = made();
    let text = proving(&made, &fs::read_to_string(&made.config).unwrap(), 60_000);
    fs::write(&made.config, text).unwrap();
    let (fifo, solver) = (made.config.with_file_name("fifo"), made.config.with_file_name("solver.sh"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Into a pipe, for it may write no file. Its output is held open as long as it lives, so this must not be.
    let tell = format!(
        "{{ echo pids $$ $PPID; env | cut -d= -f1 | sed 's/^/env /'; tr '\\0' '\\n' < /proc/$PPID/environ | sed 's/^/prover-env /';
        for n in /proc/$PPID/fd/*; do echo fd ${{n##*/}}; done; ulimit -v; grep -i 'max open\\|max core\\|max cpu' /proc/$PPID/limits;
        }} > '{}'\nwhile read -r line; do :; done\n",
        fifo.display(),
    );
    fs::write(&solver, tell).unwrap();
    // To see what it sees, it needs more than a solver does.
    let programs = ["env", "cut", "sed", "tr", "grep"];
    allow(&made, &programs, &["/proc"], &format!("{:?}", made.config.parent().unwrap()));
    let mut serving = serve(&made.config);
    let alice = OperatorClient::connect(&endpoint(&made, &serving.control, "operator-alice")).await.unwrap();
    let billing = VaultClient::connect(&endpoint(&made, &serving.data, "billing")).await.unwrap();
    let mut bundles = Bundles { files: Files(made.config.parent().unwrap().to_owned()), made: 0, last: None };
    let one = bundles.next("");
    let proposing = tokio::spawn(async move { alice.with_limits(patient()).propose_policy(&one, "test").await });
    let told = told(fifo).await;
    let pids: Vec<u32> = told
        .lines()
        .find_map(|line| line.strip_prefix("pids "))
        .unwrap()
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    // Its own pipes, the solver's, and what lists them.
    let open = told.lines().filter(|line| line.starts_with("fd ")).count();
    assert!((2..=8).contains(&open), "{told}");
    assert!(!told.contains("SECRET") && !told.contains("prover-env"), "{told}");
    assert!(told.contains(&(512 * 1024).to_string()) && told.contains("Max cpu time              62"), "{told}");
    // Nothing is held up meanwhile.
    let refused = billing.encrypt(&Target::new("acme", "none", "billing"), b"x").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let alive = || pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count();
    assert_eq!(alive(), 2);
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
    let begun = Instant::now();
    while alive() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "they live on: {pids:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proposing.await.unwrap().unwrap_err();
}

fn endpoint(made: &Made, at: &str, who: &str) -> Endpoint {
    let part = |name: &str| fs::read_to_string(made.config.with_file_name(format!("certs/{name}"))).unwrap();
    Endpoint::new(at, "localhost", made.server_ca.pem(), part(&format!("{who}.pem")), part(&format!("{who}.key")))
}

/// With its files, programs and system calls restricted, as it serves.
#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_gateway_proves() {
    let Some(command) = solver("a_restricted_gateway_proves") else { return };
    // An interpreter reads its library, wherever that is.
    let ask = "import sys; print(sys.executable); print(sys.prefix); print(sys.base_prefix)";
    let said = Command::new(&command.program).args(["-c", ask]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let [python, prefix, base] = said.lines().collect::<Vec<_>>()[..] else {
        return println!("SKIPPED a_restricted_gateway_proves: the solver is no interpreter");
    };
    let (_dir, made) = made();
    let text = proving(&made, &fs::read_to_string(&made.config).unwrap(), 60_000);
    fs::write(&made.config, text).unwrap();
    let arguments: Vec<_> = command.arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
    let script = format!("exec '{python}' '{}' \"$@\"\n", arguments.join("' '"));
    fs::write(made.config.with_file_name("solver.sh"), script).unwrap();
    let shim = Path::new(arguments[0]).parent().unwrap().to_str().unwrap();
    allow(&made, &[python], &[prefix, base, shim], "");
    let serving = serve(&made.config);
    let alice = OperatorClient::connect(&endpoint(&made, &serving.control, "operator-alice")).await.unwrap();
    let alice = alice.with_limits(patient());
    let mut bundles = Bundles { files: Files(made.config.parent().unwrap().to_owned()), made: 0, last: None };
    assert_eq!(alice.propose_policy(&bundles.next(""), "test").await.unwrap().version, 1);
    bundles.made = 0;
    fs::remove_file(made.config.with_file_name("bundle-1.json")).unwrap();
    let people = permit("people", "Operator", "action in Vault::Action::\"Data\"", "resource has residency");
    not_proven(&alice.validate_policy(&bundles.next(&people)).await.unwrap_err(), &["only-workloads", "Operator, "]);
}

#[test]
fn the_provers_process_is_for_gateways_alone() {
    let run = |command: &str, more: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_vault-grpc"));
        run.args(["policy", command, "--parent", "1"]).args(more).stdin(Stdio::null()).output().unwrap()
    };
    for (command, more) in [("prove-inside", &[][..]), ("run-solver", &["/bin/echo", "hello"])] {
        let done = run(command, more);
        assert!(!done.status.success() && done.stdout.is_empty(), "{command}: {done:?}");
    }
}
