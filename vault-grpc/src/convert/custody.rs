//! Custody: which root keys hold a tenant key, as messages name them.

use vault_core::Error;
use vault_core::kms::{Custody, RootId};
use vault_proto::v1;
use vault_proto::v1::custody::Kind;

fn root(text: &str, field: impl Into<String>) -> Result<RootId, Error> {
    RootId::parse(text).map_err(|error| match error {
        Error::Invalid { why, .. } => Error::invalid(field, why),
        other => other,
    })
}

/// A custody from a request.
pub fn parse(custody: &v1::Custody) -> Result<Custody, Error> {
    match &custody.kind {
        None => Err(Error::invalid("custody", "must name one root key, or be split or replicated")),
        Some(Kind::RootKeyId(id)) => Ok(Custody::single(root(id, "custody.root_key_id")?)),
        Some(Kind::Split(split)) => Custody::split(
            root(&split.inner_root_key_id, "custody.split.inner_root_key_id")?,
            root(&split.outer_root_key_id, "custody.split.outer_root_key_id")?,
        ),
        Some(Kind::Replicated(replicated)) => {
            let field = |at| format!("custody.replicated.root_key_ids[{at}]");
            let ids = replicated.root_key_ids.iter().enumerate();
            Custody::replicated(ids.map(|(at, id)| root(id, field(at))).collect::<Result<_, _>>()?)
        }
    }
}

/// The custody of a new tenant: as a message, or short as one root key, or neither for the default.
pub fn of_new(root_key_id: &str, custody: Option<&v1::Custody>) -> Result<Option<Custody>, Error> {
    match (root_key_id, custody) {
        ("", None) => Ok(None),
        ("", Some(custody)) => parse(custody).map(Some),
        (id, None) => Ok(Some(Custody::single(root(id, "root_key_id")?))),
        (_, Some(_)) => Err(Error::invalid("root_key_id", "must be empty if a custody is given")),
    }
}

/// Names the one root key by the field it was asked for in.
pub fn named_as_asked(root_key_id: &str, error: Error) -> Error {
    match error {
        Error::Invalid { field, why } if !root_key_id.is_empty() && field == "custody.root_key_id" => {
            Error::invalid("root_key_id", why)
        }
        other => other,
    }
}

/// A custody as an answer.
pub fn show(custody: &Custody) -> v1::Custody {
    let id = |root: &RootId| root.as_str().to_owned();
    let kind = match custody {
        Custody::Single(root) => Kind::RootKeyId(id(root)),
        Custody::Split(roots) => {
            Kind::Split(v1::SplitCustody { inner_root_key_id: id(roots.inner()), outer_root_key_id: id(roots.outer()) })
        }
        Custody::Replicated(_) => {
            let root_key_ids = custody.roots().into_iter().map(id).collect();
            Kind::Replicated(v1::ReplicatedCustody { root_key_ids })
        }
    };
    v1::Custody { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custody_goes_there_and_back() {
        for text in ["a:1", "split(a:1,b:2)", "replicated(a:1,b:2,c:3)"] {
            let custody = Custody::parse(text).unwrap();
            assert_eq!(parse(&show(&custody)).unwrap(), custody);
        }
    }

    #[test]
    fn errors_name_the_field() {
        let field = |result: Result<Option<Custody>, Error>| match result {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let of = |kind| v1::Custody { kind };
        let split = |inner: &str, outer: &str| {
            Some(Kind::Split(v1::SplitCustody { inner_root_key_id: inner.into(), outer_root_key_id: outer.into() }))
        };
        let replicated = |ids: &[&str]| {
            let root_key_ids = ids.iter().map(|id| (*id).to_owned()).collect();
            Some(Kind::Replicated(v1::ReplicatedCustody { root_key_ids }))
        };
        for (kind, named) in [
            (None, "custody"),
            (Some(Kind::RootKeyId(String::new())), "custody.root_key_id"),
            (split("", "b:2"), "custody.split.inner_root_key_id"),
            (split("a:1", "b"), "custody.split.outer_root_key_id"),
            (split("a:1", "a:1"), "custody.split.outer_root_key_id"),
            (replicated(&["a:1"]), "custody.replicated.root_key_ids"),
            (replicated(&["a:1", "b 2"]), "custody.replicated.root_key_ids[1]"),
            (replicated(&["a:1", "b:2", "b:2"]), "custody.replicated.root_key_ids[2]"),
        ] {
            assert_eq!(field(of_new("", Some(&of(kind)))), named);
        }
        assert_eq!(field(of_new("a:1", Some(&of(split("a:1", "b:2"))))), "root_key_id");
        assert_eq!(field(of_new("none", None)), "root_key_id");
        assert_eq!(of_new("", None).unwrap(), None);
    }
}
