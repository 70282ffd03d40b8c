//! The row of a subject: whether it may have data keys, and which it has.

use serde::{Deserialize, Serialize};

use super::rows::{Base64, KeyState, TenantRow};
use crate::error::Error;
use crate::id::KeyId;

/// Data keys that a subject's row lists at most: 22 bytes of the row's 64 KiB each.
const MOST_LISTED: usize = 1000;

/// A subject with data keys of its own. Whoever makes one writes this row again, whoever shreds the subject too: so of
/// the two the later one meets a newer row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubjectRow {
    /// `Active` or `Destroyed`.
    pub state: KeyState,
    pub since: u64,
    /// The ids of all versions of the subject's data keys, one behind the other. `None` if that is not known: then a
    /// shred looks through all data keys of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Base64>,
}

impl SubjectRow {
    /// Of a subject without keys so far.
    pub(super) fn new(tenant: &TenantRow, state: KeyState, now: u64) -> Self {
        Self { state, since: now, keys: tenant.lists_subject_keys.then(|| Base64(Vec::new())) }
    }

    /// With one key more. The list is given up when it grows beyond [`MOST_LISTED`].
    pub(super) fn with(mut self, id: KeyId) -> Self {
        self.keys = self.keys.filter(|keys| keys.0.len() / id.0.len() < MOST_LISTED);
        if let Some(keys) = &mut self.keys {
            keys.0.extend_from_slice(&id.0);
        }
        self
    }

    /// The list, in ascending order.
    pub(super) fn listed(&self) -> Result<Option<Vec<KeyId>>, Error> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let (ids, rest) = keys.0.as_chunks();
        if !rest.is_empty() {
            return Err(Error::corrupt("store", "table subjects: the list of keys is not as it was written"));
        }
        let mut ids: Vec<KeyId> = ids.iter().copied().map(KeyId).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(Some(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::rows::TenantState;

    #[test]
    fn a_subject_lists_its_keys_or_says_that_it_does_not() {
        let tenant = |lists| TenantRow {
            state: TenantState::Active,
            key_version: 1,
            created: 1,
            updated: 1,
            lists_subject_keys: lists,
            access: false,
            suspended: None,
        };
        let id = |n: usize| KeyId((n as u128).to_be_bytes());
        let mut row = SubjectRow::new(&tenant(true), KeyState::Active, 1);
        for n in (0..MOST_LISTED).rev() {
            row = row.with(id(n));
        }
        assert_eq!(row.listed().unwrap().unwrap(), (0..MOST_LISTED).map(id).collect::<Vec<_>>());
        let text = serde_json::to_vec(&row).unwrap();
        assert!(text.len() < crate::store::MAX_VALUE && serde_json::from_slice::<SubjectRow>(&text).unwrap() == row);
        let full = row.with(id(MOST_LISTED));
        assert_eq!((full.listed(), full.clone().with(id(1)).listed()), (Ok(None), Ok(None)), "given up, for good");
        let unlisted = SubjectRow::new(&tenant(false), KeyState::Active, 1).with(id(1));
        assert_eq!(serde_json::to_string(&unlisted).unwrap(), r#"{"state":"active","since":1}"#);
        let cut = SubjectRow { keys: Some(Base64(vec![1; 17])), ..unlisted };
        assert!(matches!(cut.listed(), Err(Error::Corrupt { .. })));
    }
}
