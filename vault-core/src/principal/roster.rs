//! The list of operators: which certificates and tokens are whose, and what each person is here for.
//!
//! There is no built-in operator, no shared one and none above the others: whoever is in no list may do nothing. The list
//! is a text that the gateway's owner signs (`docs/operators.md`); nothing here looks at the signature, which is
//! [`LogVerifier::note`](crate::audit::LogVerifier::note)'s to check:
//!
//! ```
//! use vault_core::Error;
//! use vault_core::audit::LogVerifier;
//! use vault_core::principal::{Operator, OperatorList};
//!
//! fn operator(proven: &Operator, note: &str, owner: &LogVerifier) -> Result<Operator, Error> {
//!     let list = OperatorList::parse(owner.note(note)?)?;
//!     Ok(list.admit(proven, None)?)
//! }
//! ```

mod change;
mod text;

use std::collections::BTreeSet;
use std::fmt;

pub use change::ListChange;
use ring::digest::{SHA256, digest};

use super::operator::{Office, Operator};
use super::spiffe::SpiffeId;
use super::token::{OperatorToken, OperatorTokenError};
use crate::error::Error;
use crate::id::{Fingerprint, Subject};

/// Longest list, in bytes: signed, it is a signed note of 64 KiB at most.
pub const MAX_LIST: usize = 60_000;
/// Most people in a list.
pub const MAX_PEOPLE: usize = 500;
/// Most certificates, and most tokens, of one person.
const MAX_NAMES: usize = 8;

/// What somebody operates the vault for. Policies say what each may do; the baseline's table is in `docs/operators.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Approves or rejects what others asked for.
    Approver,
    /// Reads the audit log and what it proves.
    Auditor,
    /// Brings policies, and asks for them to come into force.
    Author,
    /// Looks after tenants, datasets and their keys, and asks for their end.
    Custodian,
    /// Looks at tenants, datasets, approvals and policies.
    Viewer,
}

impl Role {
    /// All of them, by name.
    pub const ALL: [Self; 5] = [Self::Approver, Self::Auditor, Self::Author, Self::Custodian, Self::Viewer];

    /// As lists and policies name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Author => "author",
            Self::Custodian => "custodian",
            Self::Viewer => "viewer",
        }
    }

    /// By its name, by exact bytes.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom a token names: `iss` and `sub`, compared by exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenName {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: String,
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.issuer, self.subject)
    }
}

/// One person of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The person's id: `[a-z0-9][a-z0-9._-]{0,62}`. Where two people have to agree, two ids have to differ.
    pub id: String,
    /// Their certificates, by SPIFFE ID: 1 to 8, in ascending order.
    pub certificates: Vec<SpiffeId>,
    /// Whom their tokens name: up to 8, in ascending order. Who has none cannot call where tokens are demanded.
    pub tokens: Vec<TokenName>,
    /// At least one.
    pub roles: BTreeSet<Role>,
}

/// Which list: its version, and SHA-256 of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRef {
    /// Grows with each list.
    pub version: u64,
    /// SHA-256 of the text, without signatures.
    pub digest: Fingerprint,
}

impl fmt::Display for ListRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} (sha256:{})", self.version, self.digest)
    }
}

/// The people who operate one vault. By default there are none, and every operator is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OperatorList {
    instance: String,
    version: u64,
    people: Vec<Person>,
}

impl OperatorList {
    /// A list of these people, in any order.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `instance`, `version`, `people` or `people[i].field`: a form that is wrong, no or too many
    /// of something, or a person, certificate or token twice.
    pub fn new(instance: &str, version: u64, mut people: Vec<Person>) -> Result<Self, Error> {
        people.sort_by(|a, b| a.id.cmp(&b.id));
        for person in &mut people {
            person.certificates.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            person.tokens.sort();
        }
        let list = Self { instance: instance.to_owned(), version, people };
        list.check()?;
        Ok(list)
    }

    /// Reads the text of a list, whose form is exact: what would not be written so is refused.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the line or the field.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let list = text::read(text)?;
        list.check()?;
        if list.text() == text {
            Ok(list)
        } else {
            Err(Error::invalid("operators", "people, and the lines of each, must be in ascending order"))
        }
    }

    fn check(&self) -> Result<(), Error> {
        let rule = |good: bool, field: &str, why| if good { Ok(()) } else { Err(Error::invalid(field, why)) };
        let instance = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=63).contains(&self.instance.len()) && self.instance.bytes().all(instance);
        rule(good, "instance", "must be 1 to 63 of the characters a-z 0-9 . _ -")?;
        rule(self.version > 0, "version", "must be at least 1")?;
        rule((1..=MAX_PEOPLE).contains(&self.people.len()), "people", "must be 1 to 500")?;
        let (mut ids, mut certificates, mut tokens) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (at, person) in self.people.iter().enumerate() {
            let field = |name: &str| format!("people[{at}].{name}");
            rule(is_person(&person.id), &field("id"), "must match [a-z0-9][a-z0-9._-]{0,62}")?;
            rule(ids.insert(&person.id), &field("id"), "another person has the same id")?;
            let count = (1..=MAX_NAMES).contains(&person.certificates.len());
            rule(count, &field("certificates"), "must be 1 to 8")?;
            for id in &person.certificates {
                rule(certificates.insert(id.as_str()), &field("certificates"), "is listed twice")?;
            }
            rule(person.tokens.len() <= MAX_NAMES, &field("tokens"), "must be at most 8")?;
            for token in &person.tokens {
                let visible = token.issuer.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
                let good = visible && (1..=super::MAX_ISSUER).contains(&token.issuer.len());
                let good = good && Subject::parse(&token.subject).is_ok();
                rule(good, &field("tokens"), "must be an issuer and a subject, both of visible characters")?;
                rule(tokens.insert(token), &field("tokens"), "is listed twice")?;
            }
            rule(!person.roles.is_empty(), &field("roles"), "must be at least one")?;
        }
        rule(self.text().len() <= MAX_LIST, "operators", "the list is longer than 60,000 bytes")
    }

    /// The text, which is what the owner signs.
    pub fn text(&self) -> String {
        text::write(self)
    }

    /// The instance whose operators these are; empty if there are none.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The people, by id.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Which list this is.
    pub fn reference(&self) -> ListRef {
        let mut bytes = [0; 32];
        let hash = digest(&SHA256, self.text().as_bytes());
        // SHA-256 has 32 bytes.
        bytes.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        ListRef { version: self.version, digest: Fingerprint(bytes) }
    }

    /// Whether this list may come into force after another, `before`: the same, or one with a higher version.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `version`.
    pub fn check_follows(&self, before: Option<ListRef>) -> Result<(), Error> {
        let Some(before) = before else { return Ok(()) };
        if self.version < before.version {
            Err(Error::invalid("version", "is lower than that of a list that was in force: an old list was put back"))
        } else if self.version == before.version && self.reference() != before {
            Err(Error::invalid("version", "is that of another list that was in force: raise it with every change"))
        } else {
            Ok(())
        }
    }

    /// What would change for whom if `other` took this list's place.
    pub fn changes(&self, other: &Self) -> Vec<ListChange> {
        change::between(&self.people, &other.people)
    }

    /// Says which person a proven operator is and what they are here for, and holds the token, if they brought one,
    /// against the certificate: both have to be of the same person. Whoever's certificate is in no list comes back without
    /// person and roles, so that what they ask for is refused, with an entry in the audit log, by the authorizer.
    ///
    /// # Errors
    /// [`OperatorTokenError::OtherPerson`].
    pub fn admit(&self, who: &Operator, token: Option<&OperatorToken>) -> Result<Operator, OperatorTokenError> {
        let person = self.people.iter().find(|person| person.certificates.contains(who.id()));
        let named = |person: &Person, token: &OperatorToken| person.tokens.iter().any(|name| token.names(name));
        if let (Some(person), Some(token)) = (person, token)
            && !named(person, token)
        {
            return Err(OperatorTokenError::OtherPerson);
        }
        let office = person.map(|person| Office {
            person: person.id.clone(),
            roles: person.roles.clone(),
            until: token.map(OperatorToken::until),
        });
        Ok(Operator { proof: who.proof.clone(), office })
    }
}

/// The form of a person's id.
fn is_person(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&id.len())
        && id.bytes().next().is_some_and(plain)
        && id.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests;
