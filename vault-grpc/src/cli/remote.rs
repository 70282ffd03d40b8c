//! What the commands that speak to a running gateway have in common: who calls, with which files, and how answers and
//! errors are told.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use vault_client::{ClientError, Code, Endpoint, OperatorClient, OperatorTokens};
use vault_core::Error;
use vault_core::id::{ApprovalId, Reason};
use vault_grpc::sinks::fields::rfc3339;
use vault_grpc::telemetry::{Event, log};
use vault_proto::v1;
use zeroize::Zeroizing;

use super::commands::text_of;
use super::print;

/// Longest PEM file, token or name of a person, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Which gateway, and who calls it.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The gateway's control plane, host:port.
    #[arg(long)]
    gateway: String,
    /// The name or address that the gateway's certificate carries; the host of `--gateway` if it is not given.
    #[arg(long)]
    server_name: Option<String>,
    /// The certificates trusted to issue the gateway's (PEM).
    #[arg(long)]
    ca: PathBuf,
    /// The operator's certificate and its intermediates, leaf first (PEM).
    #[arg(long)]
    cert: PathBuf,
    /// Its private key (PEM).
    #[arg(long)]
    key: PathBuf,
    /// A file with the operator's token, which goes along as `authorization: Bearer`.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// JSON instead of lines for people.
    #[arg(long)]
    json: bool,
}

/// Why a command failed.
pub(super) enum Failed {
    /// Before anything was sent.
    Here(Error),
    /// The gateway's, or the way's there.
    There(ClientError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::There(error)
    }
}

impl Remote {
    /// Connects, makes the calls of `work` and tells what it answers.
    pub(super) fn call(
        &self,
        what: &'static str,
        work: impl AsyncFnOnce(&OperatorClient) -> Result<Value, Failed>,
    ) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else {
            log(&Event::Failed { what, error: Error::invalid("runtime", "cannot be started") });
            return ExitCode::FAILURE;
        };
        let done = runtime.block_on(async {
            let client = self.connect().await?;
            work(&client).await
        });
        match done {
            Ok(answer) if self.json => {
                print::line(answer);
                ExitCode::SUCCESS
            }
            Ok(answer) => {
                lines(&answer, "").iter().for_each(print::line);
                ExitCode::SUCCESS
            }
            Err(Failed::Here(error)) => {
                log(&Event::Failed { what, error });
                ExitCode::FAILURE
            }
            Err(Failed::There(error)) => {
                log(&Event::Failed { what, error: told(&error) });
                for violation in error.violations() {
                    let (field, why) = (violation.field.as_str(), violation.why.as_str());
                    print::line(format_args!("{field}: {why}"));
                }
                if error.violations().is_empty() {
                    print::line(error.message());
                }
                ExitCode::FAILURE
            }
        }
    }

    async fn connect(&self) -> Result<OperatorClient, Failed> {
        let read = |field, file: &Path| text_of(field, file, MAX_FILE);
        let key = Zeroizing::new(read("--key", &self.key)?);
        let host = self.gateway.rsplit_once(':').map_or(self.gateway.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host);
        let (ca, cert) = (read("--ca", &self.ca)?, read("--cert", &self.cert)?);
        let endpoint = Endpoint::new(self.gateway.as_str(), name, ca, cert, key.as_bytes());
        let client = OperatorClient::connect(&endpoint).await?;
        Ok(match &self.token_file {
            Some(file) => {
                let token = Zeroizing::new(read("--token-file", file)?);
                client.with_tokens(OperatorTokens::fixed(token.trim()))
            }
            None => client,
        })
    }
}

/// An error of the gateway's as one of ours, so that it is logged like one.
fn told(error: &ClientError) -> Error {
    match error.code() {
        Code::InvalidArgument => Error::invalid("request", "the gateway refused a field"),
        Code::NotFound => Error::NotFound("what was asked for"),
        Code::AlreadyExists => Error::AlreadyExists("what was asked for"),
        Code::PermissionDenied | Code::Unauthenticated => {
            Error::FailedPrecondition("the gateway does not allow it to this operator")
        }
        Code::FailedPrecondition => Error::FailedPrecondition("the gateway says that it cannot be done as things are"),
        Code::Aborted => Error::Conflict("what was asked for"),
        _ => Error::FailedPrecondition("the gateway did not do it"),
    }
}

/// The words of the operator, checked before they are sent.
pub(super) fn reason(text: &str) -> Result<&str, Error> {
    Reason::parse(text).map(|_| text).map_err(|_| Error::invalid("--reason", "must be 1 to 512 bytes of text"))
}

/// An approval's name, checked before it is sent.
pub(super) fn approval_id(text: &str) -> Result<&str, Error> {
    ApprovalId::parse(text).map(|_| text)
}

/// The person that a file names: names of people stand in no command line, where others can read them.
pub(super) fn subject(file: &Path) -> Result<String, Error> {
    Ok(text_of("--subject-file", file, MAX_FILE)?.trim_end_matches(['\r', '\n']).to_owned())
}

/// Writes a new file with an erasure receipt.
pub(super) fn keep_receipt(file: &Path, receipt: &str) -> Result<(), Error> {
    let made = File::options().write(true).create_new(true).open(file);
    made.and_then(|mut made| made.write_all(receipt.as_bytes()).and_then(|()| made.sync_all()))
        .map_err(|_| Error::invalid("--receipt", "the file cannot be written, or exists"))
}

/// An approval as JSON: what is not said is absent.
pub(super) fn approval(approval: &v1::Approval) -> Value {
    let votes: Vec<Value> = approval.votes.iter().map(vote).collect();
    let state = approval.state().as_str_name().trim_start_matches("APPROVAL_STATE_").to_lowercase();
    said(&[
        ("approval", json!(approval.approval)),
        ("state", json!(state)),
        ("action", json!(approval.action)),
        ("tenant", json!(approval.tenant)),
        ("subject_pseudonym", json!(approval.subject_pseudonym)),
        ("summary", json!(approval.summary)),
        ("reason", json!(approval.reason)),
        ("requester", json!(approval.requester)),
        ("requester_person", json!(approval.requester_person)),
        ("created", time(approval.create_time.as_ref())),
        ("expires", time(approval.expire_time.as_ref())),
        ("approvals", json!(format!("{} of {}", votes.len(), approval.required_approvals))),
        ("votes", json!(votes)),
        ("scheduled", time(approval.schedule_time.as_ref())),
        ("decider", json!(approval.decider)),
        ("decided", time(approval.decide_time.as_ref())),
        ("request_sha256", json!(approval.request_sha256)),
    ])
}

fn vote(vote: &v1::ApprovalVote) -> Value {
    said(&[("approver", json!(vote.approver)), ("person", json!(vote.person)), ("time", time(vote.vote_time.as_ref()))])
}

/// An instant as the log's exports write it.
pub(super) fn time(at: Option<&vault_proto::Timestamp>) -> Value {
    let millis = |at: &vault_proto::Timestamp| {
        let seconds = u64::try_from(at.seconds).ok()?.checked_mul(1000)?;
        seconds.checked_add(u64::try_from(at.nanos).ok()? / 1_000_000)
    };
    at.and_then(millis).map_or(Value::Null, |millis| json!(rfc3339(millis)))
}

/// An object of what is said: neither empty nor absent.
pub(super) fn said(fields: &[(&str, Value)]) -> Value {
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    Value::Object(
        fields
            .iter()
            .filter(|(_, value)| is_said(value))
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    )
}

/// An answer for people: a line for each field; what a list holds is set in.
fn lines(answer: &Value, before: &str) -> Vec<String> {
    let inner = format!("{before}  ");
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match answer {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::Array(_) | Value::Object(_) => {
                    let mut out = vec![format!("{before}{name}:")];
                    out.extend(lines(value, &inner));
                    out
                }
                value => vec![format!("{before}{name}: {}", plain(value))],
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .flat_map(|(at, value)| {
                let gap = (at > 0 && value.is_object() && before.is_empty()).then(String::new);
                gap.into_iter().chain(lines(value, before))
            })
            .collect(),
        value => vec![format!("{before}{}", plain(value))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_is_told_for_people_line_by_line() {
        let told = v1::Approval {
            approval: "0a".into(),
            state: v1::ApprovalState::Scheduled.into(),
            summary: vec!["one".into(), "two".into()],
            required_approvals: 2,
            votes: vec![v1::ApprovalVote { approver: "bob".into(), ..v1::ApprovalVote::default() }],
            schedule_time: Some(vault_proto::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            ..v1::Approval::default()
        };
        let told = lines(&approval(&told), "");
        for line in [
            "approval: 0a",
            "state: scheduled",
            "summary:",
            "  one",
            "approvals: 1 of 2",
            "votes:",
            "  approver: bob",
            "scheduled: 2023-11-14T22:13:20.005Z",
        ] {
            assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
        }
        assert!(!told.iter().any(|line| line.starts_with("tenant")), "{told:?}");
    }
}
