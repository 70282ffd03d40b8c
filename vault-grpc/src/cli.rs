//! The command line. Exit codes: 0 good, 1 not good, 2 wrong usage.

mod approval;
mod audit;
mod backup;
mod bundle;
mod charter;
mod commands;
mod connect;
#[cfg(feature = "dev")]
mod demo;
#[cfg(feature = "dev")]
mod failpoint;
mod operators;
mod policy;
mod print;
mod remote;
mod scorecard;
mod serve;
mod tenant;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vault_grpc::hardening;
use vault_grpc::telemetry::{Event, log};

/// The Blindvault gateway.
#[derive(Debug, Parser)]
#[command(name = "vault-grpc", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job from end to end on this machine: two tenants, real clients, what is refused, a verified log.
    #[cfg(feature = "dev")]
    Demo {
        /// One JSON document instead of a table.
        #[arg(long)]
        json: bool,
        /// Keep serving afterwards, and print commands to try from another terminal.
        #[arg(long)]
        keep: bool,
        /// Work in this directory, which must be empty or not exist yet, and leave it; else in a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Serve both planes until SIGTERM or SIGINT; SIGHUP reloads certificates, and policies and registry if
    /// they are files.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// For tests: a file that names the step at which the process kills itself.
        #[cfg(feature = "dev")]
        #[arg(long, hide = true)]
        failpoint: Option<PathBuf>,
    },
    /// Write a working configuration and a development PKI into a fresh directory.
    #[cfg(feature = "dev")]
    Init {
        /// The directory, which must be empty or not exist yet.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Say whether a configuration and all it names is in order, and whether this executable is one that was released;
    /// changes nothing.
    Check {
        /// The configuration file.
        #[arg(long, required_unless_present = "release")]
        config: Option<PathBuf>,
        /// The signature of a release's digests, SHA256SUMS.minisig, with the digests beside it.
        #[arg(long, requires = "key")]
        release: Option<PathBuf>,
        /// The public key that releases are signed with, or a file with it, kept outside the release.
        #[arg(long, requires = "release")]
        key: Option<String>,
    },
    /// Write the store's rows into one sealed file. With the embedded store the gateway must be stopped.
    Backup {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The file to write; it must not exist yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Restore a backup into an empty store, or go on with a restore that was interrupted. The gateway must be stopped.
    Restore {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// Later backups: what they know as shredded stays shredded.
        #[arg(long)]
        newer: Vec<PathBuf>,
        /// Only verify the backup; changes nothing.
        #[arg(long)]
        check: bool,
    },
    /// Tenants and their keys, at a running gateway.
    #[command(subcommand)]
    Tenant(Box<tenant::TenantCommand>),
    /// What takes more than one operator, at a running gateway.
    #[command(subcommand)]
    Approval(Box<approval::ApprovalCommand>),
    /// What of the configuration nobody changes alone.
    #[command(subcommand)]
    Charter(Box<charter::CharterCommand>),
    /// The audit log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The policies.
    #[command(subcommand)]
    Policy(Box<policy::PolicyCommand>),
    /// The list of operators.
    #[command(subcommand)]
    Operators(operators::OperatorsCommand),
    /// A witness of audit logs, for somebody else than who runs the log.
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
    /// What a security team reports each quarter: computed by a running gateway, or from the files of one that is stopped.
    Scorecard(Box<scorecard::ScorecardArgs>),
    /// Erasure receipts.
    #[command(subcommand)]
    Receipt(ReceiptCommand),
}

#[derive(Debug, Subcommand)]
enum ReceiptCommand {
    /// Check an erasure receipt without network or vault: its form, its signature, every line.
    Verify {
        /// The file with the receipt.
        file: PathBuf,
        /// The audit log's verifier key, or a file with it, kept outside the log.
        #[arg(long)]
        key: String,
    },
}

/// Runs the command that the arguments name.
pub(crate) fn run() -> ExitCode {
    vault_grpc::telemetry::quiet_panics();
    // The running program, whatever became of its file.
    #[cfg(feature = "prove")]
    vault_grpc::prover::set_program("/proc/self/exe".into());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nowhere to say it if even this cannot be written.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    // Before any key is in memory.
    if let Err(error) = hardening::apply() {
        log(&Event::Failed { what: "harden the process", error });
        return ExitCode::FAILURE;
    }
    match cli.command {
        #[cfg(feature = "dev")]
        Command::Demo { json, keep, dir } => demo::demo(json, keep, dir),
        #[cfg(feature = "dev")]
        Command::Serve { config, failpoint } => {
            let read: Vec<PathBuf> = failpoint.iter().filter_map(|file| Some(file.parent()?.to_owned())).collect();
            if let Some(file) = failpoint {
                failpoint::arm(file);
            }
            serve::serve(&config, &read)
        }
        #[cfg(not(feature = "dev"))]
        Command::Serve { config } => serve::serve(&config, &[]),
        #[cfg(feature = "dev")]
        Command::Init { dir } => commands::init(&dir),
        Command::Check { config, release, key } => commands::check(config.as_deref(), release.zip(key)),
        Command::Backup { config, out } => backup::backup(&config, &out),
        Command::Restore { config, from, newer, check } => backup::restore(&config, &from, &newer, check),
        Command::Tenant(command) => tenant::run(*command),
        Command::Approval(command) => approval::run(*command),
        Command::Charter(command) => charter::run(*command),
        Command::Audit(command) => audit::run(command),
        Command::Operators(command) => operators::run(command),
        Command::Witness(command) => witness::run(command),
        Command::Scorecard(args) => scorecard::scorecard(&args),
        Command::Policy(command) => policy::run(*command),
        Command::Receipt(ReceiptCommand::Verify { file, key }) => commands::receipt_verify(&file, &key),
    }
}
