//! What the database said, as an [`Error`] that holds nothing of it.

use tokio_postgres::error::{Severity, SqlState};

use crate::error::{Dependency, Error};
use crate::store::OUTCOME_UNKNOWN;

/// Why a statement did not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is gone, or nothing came in time: nobody at the other end.
    Lost(&'static str),
    /// Another transaction was in the way; the same again may succeed.
    Again,
    /// The server answered with an error.
    Refused(&'static str),
    /// What came back is not what was written.
    Damaged(&'static str),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost(why) | Fault::Refused(why) => Self::unavailable(Dependency::Store, why),
            Fault::Again => Self::unavailable(Dependency::Store, "other transactions were in the way; try again"),
            Fault::Damaged(at) => Self::corrupt("database", at),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::Lost("the connection to the database failed or was cut");
        };
        let code = said.code();
        // By class, then what deserves a word of its own.
        match (code.code().get(..2), code) {
            (Some("40"), _) => Self::Again,
            (_, &SqlState::LOCK_NOT_AVAILABLE) => {
                Self::Refused("another transaction held a row for longer than a statement may take")
            }
            (_, &SqlState::QUERY_CANCELED) => Self::Refused("a statement took longer than its limit"),
            (Some("57"), _) => Self::Lost("the database is starting or stopping"),
            (_, &SqlState::TOO_MANY_CONNECTIONS) => Self::Lost("the database takes no more connections"),
            (Some("53"), _) => Self::Refused("the database is out of disk, memory or another resource"),
            (Some("28"), _) => Self::Refused("the database does not let this role in"),
            (_, &SqlState::INVALID_CATALOG_NAME) => Self::Refused("there is no such database"),
            (_, &SqlState::INSUFFICIENT_PRIVILEGE) => Self::Refused("the database role lacks a right that it needs"),
            (_, &SqlState::UNDEFINED_TABLE) => Self::Refused("a table is missing in the database"),
            // A node that became a standby: another host may have become the leader.
            (_, &SqlState::READ_ONLY_SQL_TRANSACTION) => Self::Lost("the database takes no writes"),
            (_, &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => Self::Damaged("the database reports damage"),
            (Some("XX"), _) => Self::Refused("the database reports an internal error"),
            _ if fatal(said) => Self::Lost("the database ended the connection"),
            _ => Self::Refused("the database refused a statement"),
        }
    }
}

fn fatal(said: &tokio_postgres::error::DbError) -> bool {
    matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// What became of a transaction whose COMMIT was sent, and answered with this or not at all.
pub(super) fn of_commit(error: Option<&tokio_postgres::Error>) -> Error {
    match error.and_then(tokio_postgres::Error::as_db_error) {
        // The server says that this transaction failed and that the connection goes on: nothing was written.
        Some(said) if !fatal(said) => {
            Error::unavailable(Dependency::Store, "the database did not commit; nothing was changed")
        }
        _ => Error::unavailable(Dependency::Store, OUTCOME_UNKNOWN),
    }
}
