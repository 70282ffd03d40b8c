//! `policy`: check, test, explain and prove policy sets, from files, without a gateway.

mod check;
#[cfg(feature = "prove")]
mod explain;
mod files;
#[cfg(feature = "prove")]
mod inside;
mod proof;
#[cfg(feature = "prove")]
mod prove;
#[cfg(feature = "prove")]
mod test;

#[cfg(feature = "prove")]
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use vault_grpc::config::ConfigError;
use vault_grpc::telemetry::{Event, log};

use super::{bundle, print};
use files::Files;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say whether schema, policies and registry are in order, and where they are not, what to do.
    Check {
        #[command(flatten)]
        files: Files,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Ask the authorizer the requests of test files, and compare with what they expect.
    #[cfg(feature = "prove")]
    Test {
        /// The test files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Say what is decided about one request of a test file, by whom, and what each policy says to it.
    #[cfg(feature = "prove")]
    Explain {
        /// The test file.
        file: PathBuf,
        /// The request's name.
        #[arg(long)]
        name: String,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Prove for all requests at once that the set keeps the guards, with an SMT solver.
    #[cfg(feature = "prove")]
    Prove(Box<prove::Options>),
    /// What a gateway starts to prove a bundle: a question on standard input, the answer on standard output.
    #[cfg(feature = "prove")]
    #[command(hide = true)]
    ProveInside {
        /// The process to die with.
        #[arg(long)]
        parent: i32,
    },
    /// What that starts: the solver, which dies with it.
    #[cfg(feature = "prove")]
    #[command(hide = true)]
    RunSolver {
        /// The process to die with.
        #[arg(long)]
        parent: i32,
        /// The solver's program.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Signed bundles of schema, policies and registry.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// The keys of policy signers, and of provers.
    #[command(subcommand)]
    Key(bundle::KeyCommand),
    /// Check a proof record as a gateway does: that a prover signed it, and that it is about these files.
    VerifyProof {
        #[command(flatten)]
        files: Files,
        /// The record.
        #[arg(long)]
        proof: PathBuf,
        /// The prover's verifier key, or a file with it.
        #[arg(long)]
        key: String,
    },
}

pub(super) fn run(command: PolicyCommand) -> ExitCode {
    match command {
        PolicyCommand::Check { files, json } => check::check(&files, json),
        #[cfg(feature = "prove")]
        PolicyCommand::Test { files, json } => test::test(&files, json),
        #[cfg(feature = "prove")]
        PolicyCommand::Explain { file, name, json } => explain::explain(&file, &name, json),
        #[cfg(feature = "prove")]
        PolicyCommand::Prove(options) => prove::prove(&options),
        #[cfg(feature = "prove")]
        PolicyCommand::ProveInside { parent } => inside::prove_inside(parent),
        #[cfg(feature = "prove")]
        PolicyCommand::RunSolver { parent, program, arguments } => inside::run_solver(parent, &program, &arguments),
        PolicyCommand::Bundle(command) => bundle::bundle(command),
        PolicyCommand::Key(command) => bundle::key(command),
        PolicyCommand::VerifyProof { files, proof, key } => proof::verify(&files, &proof, &key),
    }
}

/// A file that cannot be read, or a combination of options that means nothing.
fn wrong_usage(error: ConfigError) -> ExitCode {
    log(&Event::Misconfigured(error));
    ExitCode::from(2)
}

fn failed(what: &'static str, error: vault_core::Error) -> ExitCode {
    log(&Event::Failed { what, error });
    ExitCode::FAILURE
}

fn json(document: &impl Serialize) {
    // Only a map with keys that are no strings could fail, and none of ours has one.
    print::line(serde_json::to_string_pretty(document).unwrap_or_default());
}

const fn exit(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
