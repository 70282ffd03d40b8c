//! `vault-grpc`: serve, init, check, audit, policy.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
