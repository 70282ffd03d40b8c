//! Which audit logs there are of the gateways on these rows (`docs/postgres.md`, "Audit logs").
//!
//! One row holds all of them, so that it is replaced by the second who enters, and is from then on among the rows of which
//! an old one is refused: nobody but a gateway can leave a log out. A log stays for ever, also when its gateway is gone.

use serde::{Deserialize, Serialize};

use super::Shared;
use super::fault::Fault;
use crate::error::{Dependency, Error};
use crate::id::Fingerprint;
use crate::store::{Expect, LogName, Table, Write};

/// The key of the row: no tenant has such a name.
const LOGS: &[u8] = b"#logs";
/// How often the row is written anew when others write it, too.
const ATTEMPTS: usize = 16;
const DAMAGED: &str = "the list of audit logs is not as it was written";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    origin: String,
    /// Its verifier keys, the oldest first.
    keys: Vec<String>,
    /// The leaf hash of its first entry, which holds random bytes: tells it from every other log, in hexadecimal.
    first: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logs {
    logs: Vec<Entry>,
}

impl Logs {
    /// Whether anything was to be changed for the log to be in it.
    fn enter(&mut self, own: &LogName) -> Result<bool, Error> {
        let first = Fingerprint(own.first).to_string();
        let Some(there) = self.logs.iter_mut().find(|log| log.origin == own.origin) else {
            self.logs.push(Entry { origin: own.origin.clone(), keys: own.keys.clone(), first });
            return Ok(true);
        };
        if there.first != first {
            return Err(Error::FailedPrecondition(
                "another audit log of this name is on this database: give each gateway an audit.shard of its own",
            ));
        }
        let before = there.keys.len();
        for key in &own.keys {
            if !there.keys.contains(key) {
                there.keys.push(key.clone());
            }
        }
        Ok(there.keys.len() > before)
    }

    fn names(self, own: &LogName) -> Result<Vec<LogName>, Error> {
        let name = |log: Entry| {
            let first = Fingerprint::parse(&log.first).map_err(|_| Fault::Damaged(DAMAGED))?;
            Ok(LogName { origin: log.origin, keys: log.keys, first: first.0 })
        };
        let mut names = self.logs.into_iter().map(name).collect::<Result<Vec<_>, Error>>()?;
        if names.iter().all(|name| name.origin != own.origin) {
            names.push(own.clone());
        }
        names.sort_by_key(|name| name.origin != own.origin);
        Ok(names)
    }
}

impl Shared {
    /// All logs, the own one first; after entering it, if `enter`.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] if another log has its name; [`Error::Unavailable`]; [`Error::Corrupt`].
    pub(super) async fn logs(&self, own: &LogName, enter: bool) -> Result<Vec<LogName>, Error> {
        for _ in 0..ATTEMPTS {
            let (mut logs, expect) = match self.get(Table::Gateways, LOGS).await? {
                None => (Logs::default(), Expect::Absent),
                Some(row) => {
                    let read = serde_json::from_slice(&row.value);
                    (read.map_err(|_| Error::from(Fault::Damaged(DAMAGED)))?, Expect::Version(row.version))
                }
            };
            if !enter || !logs.enter(own)? {
                return logs.names(own);
            }
            let value = serde_json::to_vec(&logs).map_err(|_| Error::from(Fault::Damaged(DAMAGED)))?;
            let write = Write { table: Table::Gateways, key: LOGS.to_vec(), expect, value, revokes: false };
            crate::store::check_batch(std::slice::from_ref(&write))
                .map_err(|_| Error::unavailable(Dependency::Store, "there are too many audit logs on this database"))?;
            match self.commit(vec![write]).await {
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
                Ok(()) => return logs.names(own),
            }
        }
        Err(Fault::Again.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(origin: &str, key: &str, first: u8) -> LogName {
        LogName { origin: origin.into(), keys: vec![key.into()], first: [first; 32] }
    }

    #[test]
    fn a_log_enters_once_and_keeps_its_name_and_all_its_keys() {
        let mut logs = Logs::default();
        assert!(logs.enter(&log("a", "key", 1)).unwrap());
        assert!(!logs.enter(&log("a", "key", 1)).unwrap());
        assert!(logs.enter(&log("b", "key", 2)).unwrap());
        assert!(matches!(logs.enter(&log("b", "key", 3)), Err(Error::FailedPrecondition(_))), "another log");
        assert!(logs.enter(&log("b", "next", 2)).unwrap(), "another key of the same log");
        let names = logs.names(&log("b", "next", 2)).unwrap();
        assert_eq!(names[0], LogName { origin: "b".into(), keys: vec!["key".into(), "next".into()], first: [2; 32] });
        assert_eq!(names[1], log("a", "key", 1));
    }
}
