//! `policy prove-inside` and `policy run-solver`: what a gateway starts to prove a policy bundle. Neither is for people.
//!
//! Both die with whoever started them: the prover with the gateway, the solver with the prover.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, nice, set_parent_process_death_signal, setrlimit};
use vault_core::Error;
use vault_core::policy::Source;
use vault_core::policy::prove::{Limits, Question as Proof, Report, SolverCommand, prove};
use vault_core::proof::ProofText;
use vault_core::time::{Clock as _, SystemClock};
use vault_grpc::prover::wire::{Answer, Question, Text};
use vault_grpc::telemetry::set_quiet;

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";
/// Longest question, in bytes: a bundle's texts, escaped.
const MAX_QUESTION: u64 = 32 * 1024 * 1024;
/// The time for one query at most.
const QUERY: Duration = Duration::from_secs(10);
/// Data calls go first.
const NICE: i32 = 10;

/// What went wrong is said by the exit code alone: nobody reads more.
struct Over;

/// Reads a question from standard input and writes the answer to standard output.
pub(super) fn prove_inside(parent: i32) -> ExitCode {
    set_quiet(true);
    match die_with(parent).and_then(|()| answer()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Over) => ExitCode::FAILURE,
    }
}

/// Becomes the solver.
pub(super) fn run_solver(parent: i32, program: &Path, arguments: &[OsString]) -> ExitCode {
    set_quiet(true);
    if die_with(parent).is_ok() {
        // Returns only if it fails.
        drop(Command::new(program).args(arguments).exec());
    }
    ExitCode::FAILURE
}

/// Asks to be killed when the parent ends, and ends if it has ended already.
fn die_with(parent: i32) -> Result<(), Over> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|_| Over)?;
    if getppid().map(Pid::as_raw_nonzero).is_some_and(|now| now.get() == parent) { Ok(()) } else { Err(Over) }
}

fn limit(resource: Resource, most: u64) -> Result<(), Over> {
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(|_| Over)
}

fn answer() -> Result<(), Over> {
    // It writes nothing but its answer, into a pipe.
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    // A wish: where it is not granted the proof is as good.
    let _ = nice(NICE);
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_QUESTION).read_to_end(&mut bytes).map_err(|_| Over)?;
    let question: Question = serde_json::from_slice(&bytes).map_err(|_| Over)?;
    drop(bytes);
    let memory = question.memory_mib.saturating_mul(1024 * 1024);
    limit(Resource::As, memory)?;
    // Each of the two; the solver inherits it.
    limit(Resource::Cpu, question.timeout_ms / 1000 + 2)?;
    let answer = serde_json::to_vec(&ask(&question, memory)).map_err(|_| Over)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&answer).and_then(|()| out.flush()).map_err(|_| Over)
}

fn ask(question: &Question, memory: u64) -> Answer {
    let of = |text: &Text| Answer::Unusable { field: text.name.clone(), why: "cannot be proved".to_owned() };
    let sources: Vec<_> = question.policies.iter().map(source).collect();
    let schema = source(&question.schema);
    let total = Duration::from_millis(question.timeout_ms);
    let limits = Limits { memory, query: QUERY.min(total), total };
    let proof = Proof { schema, policies: &sources, active: None };
    match prove(&proof, &solver(question), limits) {
        Ok(report) => match ProofText::of(&report, schema, &sources, SystemClock.now()) {
            Ok(record) => Answer::Proven { record: record.text() },
            Err(_) => finding(&report).unwrap_or_else(|| of(&question.schema)),
        },
        Err(Error::Invalid { field, why }) => Answer::Unusable { field, why: why.to_owned() },
        Err(_) => of(&question.schema),
    }
}

fn source(text: &Text) -> Source<'_> {
    Source { name: &text.name, text: &text.text }
}

/// The solver behind this program, so that it is killed when this process is.
fn solver(question: &Question) -> SolverCommand {
    let mut arguments: Vec<OsString> = ["policy", "run-solver", "--parent"].map(OsString::from).to_vec();
    arguments.push(std::process::id().to_string().into());
    arguments.push("--".into());
    arguments.push(question.solver.clone().into());
    arguments.extend(question.arguments.iter().map(OsString::from));
    SolverCommand { program: SELF.into(), arguments }
}

/// The first counterexample, or the first that is unknown.
fn finding(report: &Report) -> Option<Answer> {
    let all = || report.properties.iter().flat_map(|p| p.findings.iter().map(move |finding| (&p.id, finding)));
    let refuted = all().find_map(|(property, finding)| {
        let example = finding.counterexample.as_ref()?.to_string();
        Some(Answer::Refuted { property: property.clone(), requests: finding.environment.clone(), example })
    });
    refuted.or_else(|| {
        let (property, finding) = all().next()?;
        let why = finding.unknown.unwrap_or("not shown").to_owned();
        Some(Answer::Unknown { property: property.clone(), requests: finding.environment.clone(), why })
    })
}
