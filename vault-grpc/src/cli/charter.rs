//! `charter`: what of the configuration nobody changes alone, shown of a file, read from a gateway, proposed to it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use vault_core::charter::{Charter, MAX_CHARTER};
use vault_grpc::charter;
use vault_grpc::config::Config;
use vault_grpc::telemetry::{Event, log};

use super::commands::text_of;
use super::print;
use super::remote::{self, Remote};

#[derive(Debug, Subcommand)]
pub(super) enum CharterCommand {
    /// Print the charter of a configuration, as `propose` takes it.
    Show {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Read the charter in force from a running gateway.
    Get {
        #[command(flatten)]
        remote: Remote,
    },
    /// Ask a running gateway for another charter to come into force. Others have to approve it.
    Propose {
        #[command(flatten)]
        remote: Remote,
        /// The file with its text, as `show` printed it.
        #[arg(long)]
        file: PathBuf,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

pub(super) fn run(command: CharterCommand) -> ExitCode {
    match command {
        CharterCommand::Show { config } => match Config::load(&config).and_then(|config| charter::of(&config)) {
            Ok(charter) => {
                print::line(charter.text().trim_end());
                ExitCode::SUCCESS
            }
            Err(error) => {
                log(&Event::Misconfigured(error));
                ExitCode::FAILURE
            }
        },
        CharterCommand::Get { remote } => remote.call("read the charter", async |client| {
            let found = client.get_charter("").await?;
            let lines: Vec<&str> = found.text.lines().collect();
            Ok(json!({
                "number": found.number,
                "sha256": found.sha256,
                "approval": found.approval,
                "charter": lines,
            }))
        }),
        CharterCommand::Propose { remote, file, reason } => remote.call("propose a charter", async |client| {
            let text = text_of("--file", &file, MAX_CHARTER as u64)?;
            let charter = Charter::parse(&text)?;
            Ok(remote::approval(&client.propose_charter(&charter.text(), &reason).await?))
        }),
    }
}
