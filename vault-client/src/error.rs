//! The one error type of the client. It carries codes, reasons and field names, never a value that was sent.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use vault_proto::v1::ItemError;

/// Who says that a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// This client, before anything was sent: a certificate that does not load, a message over a limit.
    Local,
    /// The way to the gateway: no connection, a refused handshake, a deadline that passed here. Whether the call took
    /// effect is not known.
    Transport,
    /// The gateway, in its answer.
    Gateway,
}

/// A field of the request that the gateway refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field as the API names it, for example `items[3].subject`.
    pub field: String,
    /// Why, without the value.
    pub why: String,
}

/// Why a call, or one item of a batch, failed.
#[derive(Debug, Clone)]
pub struct ClientError {
    origin: Origin,
    code: Code,
    reason: String,
    message: String,
    violations: Vec<FieldViolation>,
    tls: Option<Box<rustls::Error>>,
}

impl ClientError {
    pub(crate) fn local(code: Code, reason: &'static str, message: &'static str) -> Self {
        Self::new(Origin::Local, code, reason, message)
    }

    /// An answer that lacks what its description promises.
    pub(crate) fn malformed(message: &'static str) -> Self {
        Self::new(Origin::Gateway, Code::Internal, "MALFORMED_ANSWER", message)
    }

    fn new(origin: Origin, code: Code, reason: &str, message: &str) -> Self {
        Self { origin, code, reason: reason.into(), message: message.into(), violations: Vec::new(), tls: None }
    }

    /// From an error of the connection, whose own text may name what the peer sent and so is not kept.
    pub(crate) fn transport(error: &(dyn Error + 'static)) -> Self {
        if let Some(tls) = find::<rustls::Error>(error) {
            let message = "the TLS handshake failed; check certificates and trust on both sides";
            let mut out = Self::new(Origin::Transport, Code::Unavailable, "TLS", message);
            out.tls = Some(Box::new(tls));
            return out;
        }
        if find_ref::<tonic::TimeoutExpired>(error).is_some() {
            return Self::deadline();
        }
        let message = "the gateway cannot be reached, or it closed the connection";
        Self::new(Origin::Transport, Code::Unavailable, "CONNECTION", message)
    }

    pub(crate) fn deadline() -> Self {
        let message = "the deadline passed before the gateway answered";
        Self::new(Origin::Transport, Code::DeadlineExceeded, "DEADLINE", message)
    }

    /// Who says so.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The gRPC status code; for [`Origin::Transport`], `Unavailable` or `DeadlineExceeded`.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The reason in upper snake case, of `google.rpc.ErrorInfo` or, if the gateway did not answer, one of `TLS`,
    /// `CONNECTION`, `DEADLINE`, and those of this client. Empty if the gateway gave none.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What failed, for people. Contains no data.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The fields that the gateway refused, of `google.rpc.BadRequest`.
    pub fn violations(&self) -> &[FieldViolation] {
        &self.violations
    }

    /// What TLS reported, if the failure was there: an alert of the gateway, or why its certificate is not trusted.
    pub fn tls(&self) -> Option<&rustls::Error> {
        self.tls.as_deref()
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        // A status that the gateway sent has no source; one that the channel made up has the failure as its source.
        if let Some(source) = status.source() {
            return Self::transport(source);
        }
        let details = status.get_error_details();
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            let one =
                |v: &tonic_types::FieldViolation| FieldViolation { field: v.field.clone(), why: v.description.clone() };
            bad.field_violations.iter().map(one).collect()
        });
        Self {
            origin: Origin::Gateway,
            code: status.code(),
            reason: details.error_info().map_or_else(String::new, |info| info.reason.clone()),
            message: status.message().to_owned(),
            violations,
            tls: None,
        }
    }
}

impl From<ItemError> for ClientError {
    fn from(item: ItemError) -> Self {
        let mut out = Self::new(Origin::Gateway, Code::from(item.code), &item.reason, "this item of the batch failed");
        if !item.field.is_empty() {
            out.violations.push(FieldViolation { field: item.field, why: item.reason });
        }
        out
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ": {}", self.message)?;
        for violation in &self.violations {
            write!(f, "; {}: {}", violation.field, violation.why)?;
        }
        match &self.tls {
            Some(tls) => write!(f, "; {tls}"),
            None => Ok(()),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.tls.as_deref().map(|e| e as _)
    }
}

fn find<T: Error + Clone + 'static>(error: &(dyn Error + 'static)) -> Option<T> {
    find_ref::<T>(error).cloned()
}

/// The first error of a type in the chain of causes, looking into the `io::Error`s that carry one.
fn find_ref<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // `io::Error::source` skips the error it wraps.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
