//! What root keys made of a key: kept in its row, and all that is needed to open it again but the roots themselves.

use serde::{Deserialize, Serialize};

use crate::base64_bytes;
use crate::custody::{Custody, Replicas, RootId, SplitRoots};
use crate::error::Error;

/// A key as one root wrapped it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wrapped {
    /// The root.
    pub root: RootId,
    #[serde(with = "base64_bytes")]
    pub wrapped: Vec<u8>,
}

/// A key as its custody's roots wrapped it. It says which roots; it is worth nothing without them.
///
/// As JSON: `{"single":{"root","wrapped"}}`, `{"split":{"inner","outer","sealed"}}` or
/// `{"replicated":[{"root","wrapped"},…]}`, bytes in unpadded base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Json", into = "Json")]
pub struct Wrapping(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Single(Wrapped),
    /// The inner root's wrapping, sealed by the outer root.
    Split(SplitRoots, Vec<u8>),
    /// The same key once for each root; 2 to 5 in all, all different.
    Replicated(Wrapped, Vec<Wrapped>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Json {
    Single(Wrapped),
    Split {
        inner: RootId,
        outer: RootId,
        #[serde(with = "base64_bytes")]
        sealed: Vec<u8>,
    },
    Replicated(Vec<Wrapped>),
}

impl TryFrom<Json> for Wrapping {
    type Error = Error;

    fn try_from(json: Json) -> Result<Self, Error> {
        Ok(Self(match json {
            Json::Single(wrapped) => Kind::Single(wrapped),
            Json::Split { inner, outer, sealed } => Kind::Split(SplitRoots::new(inner, outer)?, sealed),
            Json::Replicated(all) => {
                Replicas::new(all.iter().map(|one| one.root.clone()).collect())?;
                let mut all = all.into_iter();
                let first = all.next().ok_or(Error::invalid("replicated", "must not be empty"))?;
                Kind::Replicated(first, all.collect())
            }
        }))
    }
}

impl From<Wrapping> for Json {
    fn from(wrapping: Wrapping) -> Self {
        match wrapping.0 {
            Kind::Single(wrapped) => Self::Single(wrapped),
            Kind::Split(roots, sealed) => {
                Self::Split { inner: roots.inner().clone(), outer: roots.outer().clone(), sealed }
            }
            Kind::Replicated(first, others) => Self::Replicated([vec![first], others].concat()),
        }
    }
}

impl Wrapping {
    /// A key that one root wrapped, as rows of the first form keep it.
    pub(crate) const fn single(root: RootId, wrapped: Vec<u8>) -> Self {
        Self(Kind::Single(Wrapped { root, wrapped }))
    }

    /// Root and bytes, if one root wrapped it; else the whole.
    pub(crate) fn into_single(self) -> Result<(RootId, Vec<u8>), Self> {
        match self.0 {
            Kind::Single(Wrapped { root, wrapped }) => Ok((root, wrapped)),
            other => Err(Self(other)),
        }
    }

    /// Which roots hold the key, and how.
    pub fn custody(&self) -> Custody {
        match &self.0 {
            Kind::Single(wrapped) => Custody::Single(wrapped.root.clone()),
            Kind::Split(roots, _) => Custody::Split(roots.clone()),
            Kind::Replicated(first, others) => {
                let others = others.iter().map(|one| one.root.clone()).collect();
                Custody::Replicated(Replicas::of_checked(first.root.clone(), others))
            }
        }
    }

    /// The same without the wrapped key: what stays of a destroyed one.
    #[must_use]
    pub fn erased(&self) -> Self {
        let erase = |one: &Wrapped| Wrapped { root: one.root.clone(), wrapped: Vec::new() };
        Self(match &self.0 {
            Kind::Single(wrapped) => Kind::Single(erase(wrapped)),
            Kind::Split(roots, _) => Kind::Split(roots.clone(), Vec::new()),
            Kind::Replicated(first, others) => Kind::Replicated(erase(first), others.iter().map(erase).collect()),
        })
    }
}
