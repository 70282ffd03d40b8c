//! Load for a gateway, and a stock tonic echo server over the same mutually authenticated TLS as the yardstick.
//!
//! ```text
//! load compare            both servers on this machine, in turn, in one run: throughput, processor time, latency
//! load run --address …    load on a gateway that runs already
//! load echo …             the echo server alone
//! ```
//!
//! Two ways to load. *Closed*: so many callers, each asks again when it has its answer; this finds the peak. *Open*: calls
//! begin at a constant rate whatever becomes of those before, and each one's latency counts from when it should have
//! begun, so that a server that stalls does not hide it by keeping its callers waiting (no coordinated omission).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool for the terminal, which must stop when it cannot work"
)]

mod call;
mod compare;
mod drive;
mod echo;
mod record;
mod servers;
mod site;

/// The generated messages and services of `echo.proto`.
#[expect(clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated")]
mod echo_proto {
    tonic::include_proto!("echo");
}

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Load for a gateway, with an echo server as the yardstick.
#[derive(Debug, Parser)]
#[command(name = "load", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gateway and echo server on this machine, in turn, in one run.
    Compare {
        /// The gateway's program; `vault-grpc` beside this one if not given. It has to be a development build.
        #[arg(long)]
        gateway: Option<PathBuf>,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// How often each measurement is taken, in turn with the others; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Connections.
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Bytes of plaintext in single and batch calls.
        #[arg(long, default_value_t = 256)]
        size: usize,
        /// A file for the results as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Each measurement as short as can be, to see that all of it runs.
        #[arg(long)]
        smoke: bool,
    },
    /// Load on a gateway that runs already.
    Run(#[command(flatten)] Box<drive::RunArgs>),
    /// The echo server alone.
    Echo {
        /// Where to listen.
        #[arg(long)]
        address: SocketAddr,
        /// The directory with `gateway.pem`, `gateway.key` and `workload-ca.pem`.
        #[arg(long)]
        certs: PathBuf,
    },
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match Cli::parse().command {
        Command::Compare { gateway, seconds, rounds, connections, size, json, smoke } => {
            let (seconds, rounds) = if smoke { (0.3, 1) } else { (seconds, rounds.max(1)) };
            let plan = compare::Plan {
                gateway: gateway.unwrap_or_else(servers::beside),
                each: Duration::from_secs_f64(seconds),
                rounds,
                connections: connections.max(1),
                size,
                smoke,
            };
            let report = runtime.block_on(compare::compare(&plan));
            println!("{}", report.table());
            if let Some(file) = json {
                std::fs::write(file, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
            }
        }
        Command::Run(args) => {
            let outcome = runtime.block_on(drive::run(&args));
            println!("{}", serde_json::to_string_pretty(&outcome).unwrap());
            if outcome.failed > 0 {
                return ExitCode::FAILURE;
            }
        }
        Command::Echo { address, certs } => runtime.block_on(echo::serve(address, &certs)),
    }
    ExitCode::SUCCESS
}
