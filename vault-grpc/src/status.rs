//! Errors as gRPC statuses with `google.rpc` details: a stable reason, the field at fault, the dependency; never data.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::principal::OperatorTokenError;
use vault_core::store::OUTCOME_UNKNOWN;
use vault_proto::v1::ItemError;

use crate::telemetry::{Event, log};

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "blindvault";

/// Code and reason of an error, the same for a call and for an item of a batch.
fn code_and_reason(error: &Error) -> (Code, &'static str) {
    match error {
        Error::Invalid { .. } => (Code::InvalidArgument, "INVALID_FIELD"),
        Error::Denied(_) => (Code::PermissionDenied, "DENIED"),
        Error::Unopenable => (Code::InvalidArgument, "UNOPENABLE"),
        Error::NotFound(_) => (Code::NotFound, "NOT_FOUND"),
        Error::AlreadyExists(_) => (Code::AlreadyExists, "ALREADY_EXISTS"),
        Error::FailedPrecondition(_) => (Code::FailedPrecondition, "FAILED_PRECONDITION"),
        Error::NotProven(_) => (Code::FailedPrecondition, "NOT_PROVEN"),
        Error::Conflict(_) => (Code::Aborted, "CONFLICT"),
        Error::Unavailable { .. } => (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"),
        Error::RootKey { retry: true, .. } => (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"),
        Error::RootKey { .. } => (Code::FailedPrecondition, "FAILED_PRECONDITION"),
        Error::Alarm(_) => (Code::FailedPrecondition, "ALARM"),
        Error::Corrupt { .. } => (Code::DataLoss, "DAMAGED"),
        // `Error` may grow; what is not known here is told as little as possible.
        _ => (Code::Internal, "INTERNAL"),
    }
}

/// A stream that waited for its caller too long.
pub(crate) fn stood_still() -> Status {
    late("IDLE_TIMEOUT", "the stream stood still for too long")
}

/// A stream that was not done when the caller's deadline passed.
pub(crate) fn deadline_passed() -> Status {
    late("DEADLINE", "the deadline passed before the stream was done")
}

fn late(reason: &'static str, message: &'static str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(Code::DeadlineExceeded, message, details)
}

/// An operator's call that is not taken for one: the reason names the rule of the token that was broken.
pub(crate) fn no_operator(rule: OperatorTokenError) -> Status {
    let mut details = ErrorDetails::new();
    let metadata = HashMap::from([("check".to_owned(), "token".to_owned())]);
    details.set_error_info(rule.name().to_ascii_uppercase(), DOMAIN, metadata);
    Status::with_error_details(Code::Unauthenticated, rule.message(), details)
}

/// An error as the status of a call.
pub fn status(error: &Error) -> Status {
    status_with(error, HashMap::new())
}

/// An error as the status of an operator's call: it names the root key that failed.
pub fn to_operator(error: &Error) -> Status {
    let root = match error {
        Error::RootKey { root, .. } => Some(("root_key_id".to_owned(), root.clone())),
        _ => None,
    };
    status_with(error, root.into_iter().collect())
}

fn status_with(error: &Error, mut metadata: HashMap<String, String>) -> Status {
    let (code, reason) = code_and_reason(error);
    let mut details = ErrorDetails::new();
    let message = match error {
        Error::Invalid { field, why } => {
            details.add_bad_request_violation(field.clone(), *why);
            error.to_string()
        }
        Error::Denied(check) => {
            metadata.insert("check".to_owned(), check.name().to_owned());
            error.to_string()
        }
        Error::NotProven(what) => {
            metadata.insert("check".to_owned(), "proof".to_owned());
            metadata.insert("property".to_owned(), what.property().to_owned());
            metadata.insert("requests".to_owned(), what.requests().to_owned());
            error.to_string()
        }
        Error::Unavailable { dependency, why } => {
            metadata.insert("dependency".to_owned(), dependency.name().to_owned());
            if *why == OUTCOME_UNKNOWN {
                metadata.insert("outcome".to_owned(), "unknown".to_owned());
            }
            error.to_string()
        }
        // Which root key it is, a workload need not know; it is in the log, and in the answer to an operator.
        Error::RootKey { retry, why, .. } => {
            metadata.insert("dependency".to_owned(), Dependency::RootKey.name().to_owned());
            if *retry {
                Error::unavailable(Dependency::RootKey, why).to_string()
            } else {
                Error::FailedPrecondition(why).to_string()
            }
        }
        Error::Alarm(_) => {
            alarm(error);
            error.to_string()
        }
        // Which file is damaged, and where, is for the operator's log.
        Error::Corrupt { .. } => {
            log(&Event::Failed { what: "answer a call", error: error.clone() });
            "a file of the vault is damaged".to_owned()
        }
        _ => error.to_string(),
    };
    details.set_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

/// An alarm is logged wherever it is answered, whole calls and items of a batch alike.
fn alarm(error: &Error) {
    log(&Event::Failed { what: "trust an answer", error: error.clone() });
}

/// An error as the answer to one item of a batch.
pub fn item_error(error: &Error) -> ItemError {
    if matches!(error, Error::Alarm(_)) {
        alarm(error);
    }
    let (code, reason) = code_and_reason(error);
    let field = match error {
        Error::Invalid { field, .. } => field.clone(),
        _ => String::new(),
    };
    ItemError { code: code.into(), reason: reason.to_owned(), field }
}

#[cfg(test)]
mod tests {
    use vault_core::error::Check;

    use super::*;

    #[test]
    fn statuses_name_field_check_and_dependency_and_no_file() {
        let invalid = status(&Error::invalid("items[3].dataset", "must match [a-z0-9]"));
        assert_eq!(invalid.code(), Code::InvalidArgument);
        let violations = invalid.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "items[3].dataset");
        let denied = status(&Error::Denied(Check::Registry));
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert_eq!(denied.get_details_error_info().unwrap().metadata["check"], "registry");
        let down = status(&Error::unavailable(Dependency::Audit, "the disk is full"));
        assert_eq!(down.code(), Code::Unavailable);
        assert_eq!(down.get_details_error_info().unwrap().metadata["dependency"], "audit");
        assert!(!down.get_details_error_info().unwrap().metadata.contains_key("outcome"));
        let unknown = status(&Error::unavailable(Dependency::Store, OUTCOME_UNKNOWN));
        assert_eq!(unknown.get_details_error_info().unwrap().metadata["outcome"], "unknown");
        let damaged = status(&Error::corrupt("/var/lib/vault/store.redb", "page 7"));
        assert!(!format!("{damaged:?}").contains("store.redb"));
        let root = |retry| Error::RootKey { root: "hsm:root-7".into(), retry, why: "asleep" };
        for (retry, code) in [(true, Code::Unavailable), (false, Code::FailedPrecondition)] {
            let to_workload = status(&root(retry));
            assert_eq!(to_workload.code(), code);
            assert_eq!(to_workload.get_details_error_info().unwrap().metadata["dependency"], "root_key");
            assert!(!format!("{to_workload:?}").contains("root-7") && to_workload.message().contains("asleep"));
            let metadata = to_operator(&root(retry)).get_details_error_info().unwrap().metadata;
            assert_eq!(metadata["root_key_id"], "hsm:root-7");
        }
        let alarm = status(&Error::Alarm("another key answered"));
        assert_eq!(alarm.code(), Code::FailedPrecondition);
        assert_eq!(alarm.get_details_error_info().unwrap().reason, "ALARM");
        assert_eq!(item_error(&Error::Alarm("another key answered")).reason, "ALARM");
        assert_eq!(status(&Error::Unopenable).get_details_error_info().unwrap().reason, "UNOPENABLE");
    }
}
