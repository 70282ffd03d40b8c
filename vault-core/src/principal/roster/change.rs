//! What differs between two lists, for whoever has to agree to the newer one.

use std::collections::BTreeSet;
use std::fmt;

use super::{Person, Role};

/// One thing that another list changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListChange {
    /// A person is new.
    Added {
        /// Who.
        person: String,
        /// With which roles.
        roles: BTreeSet<Role>,
    },
    /// A person is gone.
    Removed {
        /// Who.
        person: String,
    },
    /// A person has other roles.
    Roles {
        /// Who.
        person: String,
        /// Those that they had not.
        gained: BTreeSet<Role>,
        /// Those that they have no longer.
        lost: BTreeSet<Role>,
    },
    /// A person has other certificates or tokens.
    Names {
        /// Who.
        person: String,
        /// Certificates and tokens that are new.
        added: Vec<String>,
        /// Certificates and tokens that are gone.
        removed: Vec<String>,
    },
}

impl ListChange {
    /// Whether somebody can do more than before.
    pub fn widens(&self) -> bool {
        match self {
            Self::Added { .. } => true,
            Self::Removed { .. } => false,
            Self::Roles { gained, .. } => !gained.is_empty(),
            Self::Names { added, .. } => !added.is_empty(),
        }
    }
}

impl fmt::Display for ListChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |roles: &BTreeSet<Role>| roles.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Added { person, roles } => write!(f, "+ {person}: {}", names(roles).join(" ")),
            Self::Removed { person } => write!(f, "- {person}"),
            Self::Roles { person, gained, lost } => {
                write!(f, "~ {person}: roles")?;
                for (sign, roles) in [('+', gained), ('-', lost)] {
                    names(roles).iter().try_for_each(|role| write!(f, " {sign}{role}"))?;
                }
                Ok(())
            }
            Self::Names { person, added, removed } => {
                write!(f, "~ {person}:")?;
                added.iter().try_for_each(|name| write!(f, " +{name}"))?;
                removed.iter().try_for_each(|name| write!(f, " -{name}"))
            }
        }
    }
}

/// Both are in ascending order of ids, and so is the answer.
pub(super) fn between(before: &[Person], after: &[Person]) -> Vec<ListChange> {
    let ids: BTreeSet<&str> = before.iter().chain(after).map(|person| person.id.as_str()).collect();
    let of = |people: &'_ [Person], id: &str| people.iter().find(|person| person.id == id).cloned();
    let mut changes = Vec::new();
    for id in ids {
        let person = id.to_owned();
        match (of(before, id), of(after, id)) {
            (None, None) => {}
            (None, Some(new)) => changes.push(ListChange::Added { person, roles: new.roles }),
            (Some(_), None) => changes.push(ListChange::Removed { person }),
            (Some(old), Some(new)) => {
                let gained: BTreeSet<Role> = new.roles.difference(&old.roles).copied().collect();
                let lost: BTreeSet<Role> = old.roles.difference(&new.roles).copied().collect();
                if !(gained.is_empty() && lost.is_empty()) {
                    changes.push(ListChange::Roles { person: person.clone(), gained, lost });
                }
                let (old, new) = (names(&old), names(&new));
                let added: Vec<_> = new.difference(&old).cloned().collect();
                let removed: Vec<_> = old.difference(&new).cloned().collect();
                if !(added.is_empty() && removed.is_empty()) {
                    changes.push(ListChange::Names { person, added, removed });
                }
            }
        }
    }
    changes
}

fn names(person: &Person) -> BTreeSet<String> {
    let certificates = person.certificates.iter().map(|id| id.as_str().to_owned());
    certificates.chain(person.tokens.iter().map(ToString::to_string)).collect()
}
