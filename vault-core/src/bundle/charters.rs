//! Charters in the store: which is in force, and the texts of those that were proposed.

use super::rows::{CharterRow, PolicyRow, damaged, decode, key, piece, text_of, write, write_row};
use crate::charter::Charter;
use crate::error::Error;
use crate::id::{ApprovalId, Fingerprint};
use crate::store::{Expect, Store, Table, Write};
use crate::time::Timestamp;

/// The charter in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharterInForce {
    /// 1 for the first, then one more for each.
    pub number: u64,
    /// Its text.
    pub charter: Charter,
    /// When it came into force.
    pub since: Timestamp,
    /// The approval by which it did; `None` for the first, and for what a development build took over.
    pub approval: Option<ApprovalId>,
    pub(crate) row_version: u64,
}

/// The rows of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charters<'a>(pub(crate) &'a dyn Store);

impl Charters<'_> {
    async fn row(&self) -> Result<Option<(CharterRow, u64)>, Error> {
        match self.0.get(Table::Policies, &key("charter", &[])).await? {
            None => Ok(None),
            Some(row) => match decode(&row.value)? {
                PolicyRow::Charter(found) => Ok(Some((found, row.version))),
                _ => Err(damaged("the row of the charter in force is another")),
            },
        }
    }

    /// The digest of what is in force.
    pub(crate) async fn digest(&self) -> Result<Option<Fingerprint>, Error> {
        Ok(self.row().await?.map(|(row, _)| row.digest))
    }

    /// What is in force; `None` where no gateway ever served.
    pub(crate) async fn in_force(&self) -> Result<Option<CharterInForce>, Error> {
        let Some((CharterRow { number, digest, since, approval }, row_version)) = self.row().await? else {
            return Ok(None);
        };
        let charter = self.text(digest).await?.ok_or_else(|| damaged("the text of the charter in force is gone"))?;
        Ok(Some(CharterInForce { number, charter, since: Timestamp(since), approval, row_version }))
    }

    /// A text that was proposed or is in force.
    pub(crate) async fn text(&self, digest: Fingerprint) -> Result<Option<Charter>, Error> {
        let Some(row) = self.0.get(Table::Policies, &text_key(digest)).await? else { return Ok(None) };
        let altered = || damaged("a charter is not as it was proposed");
        let text = std::str::from_utf8(text_of(&row)?).map_err(|_| altered())?;
        let charter = Charter::parse(text).map_err(|_| altered())?;
        if charter.digest() == digest { Ok(Some(charter)) } else { Err(altered()) }
    }

    /// Keeps a text, where it waits.
    pub(crate) async fn keep(&self, charter: &Charter) -> Result<(), Error> {
        if self.text(charter.digest()).await?.is_some() {
            return Ok(());
        }
        match self.0.commit(vec![text_write(charter)]).await {
            // The same digest is the same text.
            Ok(()) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The writes that put the first charter in force, its text included.
    pub(crate) fn first(charter: &Charter, now: Timestamp) -> Result<Vec<Write>, Error> {
        let row = CharterRow { number: 1, digest: charter.digest(), since: now.0, approval: None };
        let row = write_row(key("charter", &[]), Expect::Absent, &PolicyRow::Charter(row))?;
        Ok(vec![row, text_write(charter)])
    }

    /// The write that puts a kept text in force in the place of `before`.
    pub(crate) fn next(
        before: &CharterInForce,
        digest: Fingerprint,
        approval: Option<ApprovalId>,
        now: Timestamp,
    ) -> Result<Write, Error> {
        let row = CharterRow { number: before.number.saturating_add(1), digest, since: now.0, approval };
        write_row(key("charter", &[]), Expect::Version(before.row_version), &PolicyRow::Charter(row))
    }
}

fn text_key(digest: Fingerprint) -> Vec<u8> {
    key("charter-text", &[&digest.0])
}

fn text_write(charter: &Charter) -> Write {
    write(text_key(charter.digest()), Expect::Absent, piece(charter.text().as_bytes()))
}
