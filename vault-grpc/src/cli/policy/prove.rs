//! `policy prove`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use vault_core::Error;
use vault_core::audit::LogSigner;
use vault_core::fs::OsFs;
use vault_core::policy::Source;
use vault_core::policy::prove::{Limits, Question, Report, SolverCommand, prove as ask};
use vault_core::proof::ProofText;
use vault_core::time::{Clock as _, SystemClock};
use vault_grpc::config::ConfigError;

use super::files::{Files, Named, Texts, all};
use super::{exit, failed, json, print, wrong_usage};

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    files: Files,
    /// Policy files that are active now: say for each kind of request what changes.
    #[arg(long, num_args = 1..)]
    active: Vec<PathBuf>,
    /// The solver: cvc5, or an interpreter with --solver-arg. Without it the one that CVC5 names, or `cvc5` on the path.
    #[arg(long)]
    solver: Option<PathBuf>,
    /// An argument for the solver before its options, for example policies/prover/cvc5_shim.py.
    #[arg(long, allow_hyphen_values = true)]
    solver_arg: Vec<OsString>,
    /// The solver's memory, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(64..=65536))]
    memory_mib: u64,
    /// The time for one query, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    query_seconds: u64,
    /// The time for all queries, in seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86400))]
    seconds: u64,
    /// One JSON document instead of lines.
    #[arg(long)]
    json: bool,
    /// Sign a record of the proof with the key in this file.
    #[arg(long, requires_all = ["prover", "out"])]
    sign: Option<PathBuf>,
    /// The name of the prover's key.
    #[arg(long, requires = "sign")]
    prover: Option<String>,
    /// The file for the record; it must not exist yet.
    #[arg(long, requires = "sign")]
    out: Option<PathBuf>,
}

pub(super) fn prove(options: &Options) -> ExitCode {
    let read = options.files.read().and_then(|texts| Ok((texts, all(&options.active)?)));
    let (texts, active) = match read {
        Ok(read) => read,
        Err(error) => return wrong_usage(error),
    };
    // Before the proof, so that nobody waits for one that cannot be signed.
    let signing = match signing(options) {
        Ok(signing) => signing,
        Err(code) => return code,
    };
    let policies = texts.policies();
    let active: Vec<Source<'_>> = active.iter().map(Named::source).collect();
    let active = (!active.is_empty()).then_some(active.as_slice());
    let question = Question { schema: texts.schema.source(), policies: &policies, active };
    let report = match ask(&question, &solver(options), limits(options)) {
        Ok(report) => report,
        Err(error) => return failed("load the policies", error),
    };
    if options.json {
        json(&report);
    } else {
        print::line(report.to_string().trim_end());
    }
    if !report.is_proven() {
        return ExitCode::FAILURE;
    }
    match signing.map(|(signer, out)| record(&report, &texts, &signer, out)) {
        Some(Err(error)) => failed("sign the proof", error),
        Some(Ok(())) | None => exit(true),
    }
}

fn solver(options: &Options) -> SolverCommand {
    let program = options.solver.clone().or_else(|| std::env::var_os("CVC5").map(PathBuf::from));
    SolverCommand { program: program.unwrap_or_else(|| "cvc5".into()), arguments: options.solver_arg.clone() }
}

const fn limits(options: &Options) -> Limits {
    Limits {
        memory: options.memory_mib * 1024 * 1024,
        query: Duration::from_secs(options.query_seconds),
        total: Duration::from_secs(options.seconds),
    }
}

fn signing(options: &Options) -> Result<Option<(LogSigner, &Path)>, ExitCode> {
    let (Some(key), Some(prover), Some(out)) = (&options.sign, &options.prover, &options.out) else { return Ok(None) };
    if out.exists() {
        return Err(wrong_usage(ConfigError::new("--out", "the file exists already")));
    }
    let signer = LogSigner::load(&OsFs, key, prover).map_err(|error| failed("load the prover's key", error))?;
    Ok(Some((signer, out)))
}

fn record(report: &Report, texts: &Texts, signer: &LogSigner, out: &Path) -> Result<(), Error> {
    let record = ProofText::of(report, texts.schema.source(), &texts.policies(), SystemClock.now())?;
    let note = signer.note(&record.text())?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(out);
    file.as_mut()
        .map_err(|_| ())
        .and_then(|file| file.write_all(note.as_bytes()).and_then(|()| file.sync_all()).map_err(|_| ()))
        .map_err(|()| Error::invalid("--out", "the record cannot be written"))
}
