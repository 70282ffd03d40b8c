//! Custody: which root keys hold a tenant key, and how many of them it takes to open it.
//!
//! | Text form | Opens with | For |
//! |---|---|---|
//! | `A` | A | the usual case |
//! | `split(A,B)` | A *and* B | no single root, credential or administrator opens anything |
//! | `replicated(A,B,…)` | any of them | regions: one root that is down stops nothing |

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Longest root key id, in bytes.
pub const MAX_ROOT_ID: usize = 256;
/// Most roots of a replicated custody.
pub const MAX_REPLICAS: usize = 5;
/// Longest text form of a custody, in bytes.
pub const MAX_CUSTODY: usize = "replicated()".len() + MAX_REPLICAS * (MAX_ROOT_ID + 1);

const ROOT_RULE: &str = "must be a root key id: a scheme of a-z 0-9 -, a colon, and a name of 0x21-0x7e without ( ) ,";
const FORM_RULE: &str = "must be a root key id, split(A,B), or replicated(A,B,…) with 2 to 5 root key ids";

/// Names a root key for good: `scheme:name`, at most 256 bytes, for example `aws-kms:arn:aws:kms:…`. The scheme is 1 to
/// 32 of `a-z 0-9 -` and says which kind of root it is. A name, not a key: it may be shown and logged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootId(Arc<str>);

impl RootId {
    /// Accepts a scheme, a colon and a name of printable ASCII without parentheses and commas.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `root_key_id`.
    pub fn parse(s: &str) -> Result<Self, Error> {
        let scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let name = |b: u8| (0x21..=0x7e).contains(&b) && !matches!(b, b'(' | b')' | b',');
        match s.split_once(':') {
            Some((before, after))
                if s.len() <= MAX_ROOT_ID
                    && (1..=32).contains(&before.len())
                    && before.bytes().all(scheme)
                    && !after.is_empty()
                    && after.bytes().all(name) =>
            {
                Ok(Self(s.into()))
            }
            _ => Err(Error::invalid("root_key_id", ROOT_RULE)),
        }
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first colon: which kind of root it is.
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RootId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<RootId> for String {
    fn from(id: RootId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// The two roots of a split custody. They differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SplitRoots {
    inner: RootId,
    outer: RootId,
}

impl SplitRoots {
    /// Two roots that differ.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the outer root if it is the inner one.
    pub fn new(inner: RootId, outer: RootId) -> Result<Self, Error> {
        if inner == outer {
            return Err(Error::invalid("custody.split.outer_root_key_id", "must differ from the inner root key"));
        }
        Ok(Self { inner, outer })
    }

    /// The root that makes the key and wraps it first.
    pub const fn inner(&self) -> &RootId {
        &self.inner
    }

    /// The root that wraps what the inner one made.
    pub const fn outer(&self) -> &RootId {
        &self.outer
    }
}

/// The roots of a replicated custody: 2 to 5, all different, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replicas {
    first: RootId,
    others: Vec<RootId>,
}

impl Replicas {
    /// 2 to 5 roots, all different.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the list if it is too short or too long, or the root that is there twice.
    pub fn new(roots: Vec<RootId>) -> Result<Self, Error> {
        for (at, root) in roots.iter().enumerate() {
            if roots.iter().take(at).any(|other| other == root) {
                let field = format!("custody.replicated.root_key_ids[{at}]");
                return Err(Error::invalid(field, "must differ from the root keys before it"));
            }
        }
        let count = roots.len();
        let mut roots = roots.into_iter();
        match roots.next() {
            Some(first) if (2..=MAX_REPLICAS).contains(&count) => Ok(Self { first, others: roots.collect() }),
            _ => Err(Error::invalid("custody.replicated.root_key_ids", "must be 2 to 5 root keys")),
        }
    }

    /// Of roots that were checked before.
    pub(crate) const fn of_checked(first: RootId, others: Vec<RootId>) -> Self {
        Self { first, others }
    }

    /// The root that makes the key.
    pub const fn first(&self) -> &RootId {
        &self.first
    }

    /// The roots that wrap it too; at least one.
    pub fn others(&self) -> &[RootId] {
        &self.others
    }
}

/// Which root keys hold a tenant key. Its text form is the module's table; two texts never mean the same.
///
/// ```
/// use vault_core::kms::Custody;
/// let custody = Custody::parse("split(aws-kms:arn:aws:kms:eu-central-1:1:key/2,pkcs11:hsm-1/root)")?;
/// assert_eq!(custody.kind(), "split");
/// assert!(Custody::parse("split(local:a,local:a)").is_err());
/// # Ok::<(), vault_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Custody {
    /// One root.
    Single(RootId),
    /// Two roots, both needed.
    Split(SplitRoots),
    /// Several roots, any of which is enough.
    Replicated(Replicas),
}

impl Custody {
    /// One root.
    pub const fn single(root: RootId) -> Self {
        Self::Single(root)
    }

    /// Two roots, both needed: `inner` makes and wraps the key, `outer` wraps the result.
    ///
    /// # Errors
    /// As [`SplitRoots::new`].
    pub fn split(inner: RootId, outer: RootId) -> Result<Self, Error> {
        SplitRoots::new(inner, outer).map(Self::Split)
    }

    /// Several roots, any of which is enough.
    ///
    /// # Errors
    /// As [`Replicas::new`].
    pub fn replicated(roots: Vec<RootId>) -> Result<Self, Error> {
        Replicas::new(roots).map(Self::Replicated)
    }

    /// Reads the text form, exactly as [`fmt::Display`] writes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `custody` or a part of it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let within = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
        let ids = |list: &str| list.split(',').map(RootId::parse).collect::<Result<Vec<_>, _>>();
        let parsed = if let Some(list) = within("split") {
            let mut ids = ids(list)?.into_iter();
            match (ids.next(), ids.next(), ids.next()) {
                (Some(inner), Some(outer), None) => return Self::split(inner, outer),
                _ => None,
            }
        } else if let Some(list) = within("replicated") {
            return Self::replicated(ids(list)?);
        } else {
            RootId::parse(text).ok().map(Self::Single)
        };
        parsed.ok_or_else(|| Error::invalid("custody", FORM_RULE))
    }

    /// `single`, `split` or `replicated`: a stable name for policies and answers.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Split(_) => "split",
            Self::Replicated(_) => "replicated",
        }
    }

    /// The roots: of a split custody the inner one first, of a replicated one in order.
    pub fn roots(&self) -> Vec<&RootId> {
        match self {
            Self::Single(root) => vec![root],
            Self::Split(SplitRoots { inner, outer }) => vec![inner, outer],
            Self::Replicated(Replicas { first, others }) => std::iter::once(first).chain(others).collect(),
        }
    }

    /// How the API names the root at a place of [`Self::roots`].
    pub fn field(&self, at: usize) -> String {
        match self {
            Self::Single(_) => "custody.root_key_id".to_owned(),
            Self::Split(_) if at == 0 => "custody.split.inner_root_key_id".to_owned(),
            Self::Split(_) => "custody.split.outer_root_key_id".to_owned(),
            Self::Replicated(_) => format!("custody.replicated.root_key_ids[{at}]"),
        }
    }
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(root) => root.fmt(f),
            Self::Split(SplitRoots { inner, outer }) => write!(f, "split({inner},{outer})"),
            Self::Replicated(Replicas { first, others }) => {
                write!(f, "replicated({first}")?;
                others.iter().try_for_each(|root| write!(f, ",{root}"))?;
                f.write_str(")")
            }
        }
    }
}

impl TryFrom<String> for Custody {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Custody> for String {
    fn from(custody: Custody) -> Self {
        custody.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_ids_are_exact() {
        let longest = format!("local:{}", "a".repeat(MAX_ROOT_ID - 6));
        for good in
            ["local:a", "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/mrk-1", "pkcs11:hsm-1/Root.1", &longest]
        {
            assert_eq!(RootId::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(RootId::parse("aws-kms:arn:aws").unwrap().scheme(), "aws-kms");
        let too_long = format!("{longest}a");
        let scheme = format!("{}:a", "s".repeat(33));
        for bad in
            ["", "local", ":a", "local:", "Local:a", "local:a b", "local:a,b", "local:(a)", "local:ä", "local:a\n"]
                .into_iter()
                .chain([too_long.as_str(), &scheme])
        {
            let refused = RootId::parse(bad);
            assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "root_key_id"), "{bad:?}");
        }
    }

    #[test]
    fn the_text_form_is_strict_and_has_one_meaning() {
        let five = "replicated(a:1,a:2,a:3,a:4,a:5)";
        for good in ["local:a", "split(a:1,b:2)", "replicated(a:1,b:2)", five] {
            let custody = Custody::parse(good).unwrap();
            assert_eq!(custody.to_string(), good);
            let json = serde_json::to_string(&custody).unwrap();
            assert_eq!(json, format!("{good:?}"));
            assert_eq!(serde_json::from_str::<Custody>(&json).unwrap(), custody);
        }
        for bad in [
            "",
            "split",
            "split()",
            "split(a:1)",
            "split(a:1,a:1)",
            "split(a:1,b:2,c:3)",
            "split(a:1, b:2)",
            "split(a:1,b:2) ",
            " split(a:1,b:2)",
            "Split(a:1,b:2)",
            "split(a:1,split(b:2,c:3))",
            "split(a:1,b:2",
            "replicated(a:1)",
            "replicated(a:1,b:2,a:1)",
            "replicated(a:1,b:2,)",
            "replicated(a:1,a:2,a:3,a:4,a:5,a:6)",
            "a:1,b:2",
        ] {
            assert!(matches!(Custody::parse(bad), Err(Error::Invalid { .. })), "{bad:?}");
            assert!(serde_json::from_str::<Custody>(&format!("{bad:?}")).is_err(), "{bad:?}");
        }
        let longest = |n: usize| RootId::parse(&format!("a:{n}{}", "x".repeat(MAX_ROOT_ID - 3))).unwrap();
        let most = Custody::replicated((0..MAX_REPLICAS).map(longest).collect()).unwrap();
        assert!(most.to_string().len() <= MAX_CUSTODY);
    }

    #[test]
    fn errors_name_the_root_as_the_api_does() {
        let id = |text: &str| RootId::parse(text).unwrap();
        let field = |made: Result<Custody, Error>| match made {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(Custody::split(id("a:1"), id("a:1"))), "custody.split.outer_root_key_id");
        let twice = vec![id("a:1"), id("b:2"), id("a:1")];
        assert_eq!(field(Custody::replicated(twice)), "custody.replicated.root_key_ids[2]");
        assert_eq!(field(Custody::replicated(vec![id("a:1")])), "custody.replicated.root_key_ids");
        let three = Custody::parse("replicated(a:1,b:2,c:3)").unwrap();
        assert_eq!(three.field(2), "custody.replicated.root_key_ids[2]");
        assert_eq!(three.roots().len(), 3);
    }
}
