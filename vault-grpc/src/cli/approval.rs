//! `approval`: what waits for others, told, approved, rejected and cancelled at a running gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use vault_client::OperatorClient;
use vault_core::Error;
use vault_core::id::Fingerprint;
use vault_proto::v1;

use super::remote::{self, Failed, Remote};

/// Approvals of one page.
const PAGE: i32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum ApprovalCommand {
    /// List approvals, oldest first.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Only those that wait for you: pending, asked for by somebody else, and not yet approved by you.
        #[arg(long)]
        waiting: bool,
    },
    /// Show one approval: what it changes, who asked and why, who has approved it.
    Show {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        which: Which,
        /// Write the erasure receipt into this file, which must not exist yet.
        #[arg(long)]
        receipt: Option<PathBuf>,
    },
    /// Approve what another person asked for. If that was the last approval that it needs, it is carried out.
    Approve {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        which: Which,
        /// `request_sha256` of the approval as you read it with `show`: nothing else is approved.
        #[arg(long)]
        sha256: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// A file with the person whose keys shall be destroyed, if it is about one: you have to know who it is.
        #[arg(long)]
        subject_file: Option<PathBuf>,
    },
    /// Reject what is pending, for ever.
    Reject {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        which: Which,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Take back, for ever, what is pending, or what is approved and waits for its time.
    Cancel {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        which: Which,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Which approval.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Its name, 32 hexadecimal digits.
    approval: String,
    /// The tenant that it is about; not given if it is about none.
    #[arg(long, default_value = "")]
    tenant: String,
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum State {
    Pending,
    Scheduled,
    Approved,
    Executed,
    Rejected,
    Cancelled,
    Expired,
}

impl State {
    const fn named(self) -> v1::ApprovalState {
        match self {
            Self::Pending => v1::ApprovalState::Pending,
            Self::Scheduled => v1::ApprovalState::Scheduled,
            Self::Approved => v1::ApprovalState::Approved,
            Self::Executed => v1::ApprovalState::Executed,
            Self::Rejected => v1::ApprovalState::Rejected,
            Self::Cancelled => v1::ApprovalState::Cancelled,
            Self::Expired => v1::ApprovalState::Expired,
        }
    }
}

pub(super) fn run(command: ApprovalCommand) -> ExitCode {
    match command {
        ApprovalCommand::List { remote, state, waiting } => {
            let state = state.map_or(v1::ApprovalState::Unspecified, State::named);
            remote.call("list approvals", async |client| list(client, state, waiting).await)
        }
        ApprovalCommand::Show { remote, which, receipt } => remote.call("show the approval", async |client| {
            let found = client.get_approval(&which.tenant, remote::approval_id(&which.approval)?).await?;
            if let Some(file) = &receipt {
                if found.receipt.is_empty() {
                    return Err(Error::FailedPrecondition("the approval has no erasure receipt yet").into());
                }
                remote::keep_receipt(file, &found.receipt)?;
            }
            Ok(remote::approval(&found))
        }),
        ApprovalCommand::Approve { remote, which, sha256, reason, subject_file } => {
            remote.call("approve", async |client| {
                Fingerprint::parse(&sha256)?;
                let subject = subject_file.as_deref().map(remote::subject).transpose()?;
                let seen = v1::Approval {
                    tenant: which.tenant.clone(),
                    approval: remote::approval_id(&which.approval)?.to_owned(),
                    request_sha256: sha256.clone(),
                    ..v1::Approval::default()
                };
                let done = client.approve(&seen, subject.as_deref(), remote::reason(&reason)?).await?;
                Ok(remote::approval(&done))
            })
        }
        ApprovalCommand::Reject { remote, which, reason } => remote.call("reject", async |client| {
            let (id, reason) = (remote::approval_id(&which.approval)?, remote::reason(&reason)?);
            Ok(remote::approval(&client.reject(&which.tenant, id, reason).await?))
        }),
        ApprovalCommand::Cancel { remote, which, reason } => remote.call("cancel", async |client| {
            let (id, reason) = (remote::approval_id(&which.approval)?, remote::reason(&reason)?);
            Ok(remote::approval(&client.cancel_approval(&which.tenant, id, reason).await?))
        }),
    }
}

async fn list(client: &OperatorClient, state: v1::ApprovalState, waiting: bool) -> Result<Value, Failed> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = client.find_approvals((state, waiting), PAGE, &token).await?;
        found.extend(page.approvals.iter().map(remote::approval));
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(Value::Array(found));
        }
    }
}
