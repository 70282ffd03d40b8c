//! From messages to the library's types and back: each field is parsed once, here, and an error names it as the API does.

pub mod approval;
pub mod consent;
pub mod custody;
pub mod policy;

use std::collections::HashMap;

use bytes::Bytes;
use vault_core::Error;
use vault_core::envelope::Context;
use vault_core::id::{DatasetId, Purpose, Reason, Subject, TenantId};
use vault_core::keys::{self, TenantState};
use vault_core::kms::Custody;
use vault_core::secret::SecretBytes;
use vault_core::time::Timestamp;
use vault_core::vault::{Target, new_request_id};
use vault_proto::v1;

/// Puts the error of an item's field under the item's path: `dataset` becomes `items[3].dataset`.
pub fn in_item(at: usize, error: Error) -> Error {
    match error {
        Error::Invalid { field, why } => Error::invalid(format!("items[{at}].{field}"), why),
        other => other,
    }
}

/// What a data call is about, for no end user yet: a token is verified once the rest of the request is in order.
pub fn target(tenant: &str, dataset: &str, subject: Option<&str>, purpose: &str) -> Result<Target, Error> {
    Ok(Target {
        tenant: TenantId::parse(tenant)?,
        dataset: DatasetId::parse(dataset)?,
        subject: subject.map(Subject::parse).transpose()?,
        purpose: Purpose::parse(purpose)?,
        end_user: None,
        request: new_request_id()?,
    })
}

/// The caller's pairs.
pub fn context(pairs: &HashMap<String, String>) -> Result<Context, Error> {
    Context::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// An operator's reason; empty is absent.
pub fn reason(text: &str) -> Result<Option<Reason>, Error> {
    if text.is_empty() { Ok(None) } else { Reason::parse(text).map(Some) }
}

/// An operator's reason for a call that changes something.
pub fn required_reason(text: &str) -> Result<Reason, Error> {
    Reason::parse(text)
}

/// The revision that a caller saw; empty is any.
pub fn revision(etag: &str) -> Result<Option<u64>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    etag.parse().map(Some).map_err(|_| Error::invalid("etag", "must be empty or as an answer gave it"))
}

/// A declared property of a dataset; empty is absent.
pub fn property(field: &'static str, text: &str) -> Result<Option<String>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    // The same alphabet as identifiers, so that policies compare what people can tell apart.
    match DatasetId::parse(text) {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(_) => Err(Error::invalid(field, "must be empty or match [a-z0-9][a-z0-9._-]{0,62}")),
    }
}

/// How many rows a page has: 100 unless asked for, 1,000 at most.
pub fn page_size(asked: i32) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(100),
        Ok(size) => Ok(size.min(1000)),
        Err(_) => Err(Error::invalid("page_size", "must not be negative")),
    }
}

/// Where a page starts: behind the id that the token is.
pub fn page_token<T>(token: &str, parse: impl FnOnce(&str) -> Result<T, Error>) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    parse(token).map(Some).map_err(|_| Error::invalid("page_token", "must be empty or as an answer gave it"))
}

/// A page that was asked for with one row more than it may have: the rows, and the token of the next page.
pub fn page<T>(mut rows: Vec<T>, size: usize, id: impl FnOnce(&T) -> String) -> (Vec<T>, String) {
    if rows.len() <= size {
        return (rows, String::new());
    }
    rows.truncate(size);
    let next = rows.last().map(id).unwrap_or_default();
    (rows, next)
}

struct Wiped(SecretBytes);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Plaintext for an answer, wiped when the answer has been written.
pub fn plaintext(bytes: SecretBytes) -> Bytes {
    Bytes::from_owner(Wiped(bytes))
}

pub(crate) fn timestamp(at: Timestamp) -> vault_proto::Timestamp {
    vault_proto::Timestamp {
        seconds: i64::try_from(at.secs()).unwrap_or(i64::MAX),
        // Below a second, hence in range.
        nanos: i32::try_from(at.0 % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// An instant of a request, to the millisecond; absent is absent.
pub fn instant(field: &'static str, at: Option<&vault_proto::Timestamp>) -> Result<Option<Timestamp>, Error> {
    let Some(at) = at else { return Ok(None) };
    let seconds = u64::try_from(at.seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
    let millis = u64::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).map(|nanos| nanos / 1_000_000);
    match (seconds, millis) {
        (Some(seconds), Some(millis)) => Ok(Some(Timestamp(seconds.saturating_add(millis)))),
        _ => Err(Error::invalid(field, "must not be before 1970, and have nanos of 0 to 999,999,999")),
    }
}

/// A tenant as an answer.
pub fn tenant(tenant: &keys::Tenant) -> v1::Tenant {
    let state = match tenant.state {
        TenantState::Active => v1::TenantState::Active,
        TenantState::Suspended => v1::TenantState::Suspended,
        TenantState::Destroyed => v1::TenantState::Destroyed,
    };
    v1::Tenant {
        tenant: tenant.id.to_string(),
        state: state.into(),
        active_key_version: tenant.key_version.0,
        root_key_id: match &tenant.custody {
            Custody::Single(root) => root.as_str().to_owned(),
            _ => String::new(),
        },
        create_time: Some(timestamp(tenant.created)),
        update_time: Some(timestamp(tenant.updated)),
        etag: tenant.revision.to_string(),
        custody: Some(custody::show(&tenant.custody)),
        rotation: tenant.rotation.as_ref().map(|rotation| v1::TenantKeyRotation {
            from_key_version: rotation.from.0,
            to_key_version: rotation.to.0,
            pass: rotation.pass,
            seen_data_keys: rotation.seen,
            rewrapped_data_keys: rotation.data_keys,
            start_time: Some(timestamp(rotation.started)),
            update_time: Some(timestamp(rotation.updated)),
            end_time: rotation.finished.map(timestamp),
        }),
    }
}

/// A dataset as an answer.
pub fn dataset(dataset: &keys::Dataset) -> v1::Dataset {
    v1::Dataset {
        tenant: dataset.tenant.to_string(),
        dataset: dataset.id.to_string(),
        classification: dataset.classification.clone().unwrap_or_default(),
        residency: dataset.residency.clone().unwrap_or_default(),
        create_time: Some(timestamp(dataset.created)),
        update_time: Some(timestamp(dataset.created)),
        etag: dataset.revision.to_string(),
        consent_required: dataset.consent_required,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field_of_the_item() {
        let error = in_item(3, target("acme", "Bad", None, "billing").unwrap_err());
        assert!(matches!(error, Error::Invalid { field, .. } if field == "items[3].dataset"));
        assert!(matches!(target("acme", "d", Some(""), "p"), Err(Error::Invalid { field, .. }) if field == "subject"));
        assert!(matches!(target("acme", "d", None, ""), Err(Error::Invalid { field, .. }) if field == "purpose"));
        assert!(matches!(property("residency", "EU"), Err(Error::Invalid { field, .. }) if field == "residency"));
        assert!(matches!(page_size(-1), Err(Error::Invalid { field, .. }) if field == "page_size"));
        assert!(matches!(page_token("Ä", TenantId::parse), Err(Error::Invalid { field, .. }) if field == "page_token"));
        assert!(matches!(revision("x"), Err(Error::Invalid { field, .. }) if field == "etag"));
    }

    #[test]
    fn pages_end() {
        assert_eq!(page(vec![1, 2, 3], 2, |n| n.to_string()), (vec![1, 2], "2".to_owned()));
        assert_eq!(page(vec![1, 2], 2, |n| n.to_string()), (vec![1, 2], String::new()));
        assert_eq!(page_size(0).unwrap(), 100);
        assert_eq!(page_size(5000).unwrap(), 1000);
    }

    #[test]
    fn timestamps_keep_their_milliseconds() {
        let at = timestamp(Timestamp(1_700_000_000_123));
        assert_eq!((at.seconds, at.nanos), (1_700_000_000, 123_000_000));
    }
}
