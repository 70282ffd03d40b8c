//! From an operator's token to an [`OperatorToken`]: the same form and the same rules as for end users, and a second
//! factor that was shown a short time ago.

use std::fmt;

use super::{Issuers, TokenError, claims};
use crate::error::{Check, Error};
use crate::id::Subject;
use crate::principal::{Operator, TokenName};
use crate::time::Timestamp;

/// What a token proves of a person who operates the vault. It is worth nothing by itself: an
/// [`OperatorList`](crate::principal::OperatorList) holds it against the certificate.
#[derive(Debug)]
pub struct OperatorToken {
    pub(super) issuer: String,
    pub(super) subject: Subject,
    pub(super) until: Timestamp,
}

impl OperatorToken {
    /// Verifies the token that an operator brings. A token that is bound to a certificate (`cnf`) is good for the holder
    /// of that certificate alone. The text is the caller's to wipe; nothing of it is kept.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub fn verify(token: &[u8], issuers: &Issuers, who: &Operator, now: Timestamp) -> Result<Self, OperatorTokenError> {
        let (token, issuer) = issuers.prove(token, now)?;
        claims::judge_operator(&issuer.settings, &token.claims, who, now)
    }

    /// Whether this is whom a list means by a name; by exact bytes.
    pub fn names(&self, name: &TokenName) -> bool {
        self.issuer == name.issuer && self.subject.as_str() == name.subject
    }

    /// One that no signature proves.
    #[cfg(test)]
    pub(crate) fn for_test(issuer: &str, subject: &str, until: Timestamp) -> Self {
        Self { issuer: issuer.to_owned(), subject: Subject::parse(subject).unwrap(), until }
    }

    /// The first instant at which the token no longer holds, or its second factor is no longer fresh.
    pub const fn until(&self) -> Timestamp {
        self.until
    }
}

/// Why a call of an operator is not taken for one of theirs. It holds nothing of the token, so it may be logged and
/// answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperatorTokenError {
    /// There is no `authorization`.
    Missing,
    /// There is more than one `authorization`.
    Several,
    /// `authorization` is not `Bearer` and a token (RFC 6750 section 2.1).
    Scheme,
    /// The token breaks a rule that end users' tokens have, too.
    Token(TokenError),
    /// Neither `amr` nor `acr` shows a second factor.
    SecondFactor,
    /// There is no `auth_time`: how long ago the second factor was shown is not known.
    SignInTime,
    /// The second factor was shown too long ago.
    Stale,
    /// The token is of somebody else than the certificate, or of nobody in the list.
    OtherPerson,
}

impl OperatorTokenError {
    /// A stable name for counters, answers and documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Several => "token_several",
            Self::Scheme => "token_scheme",
            Self::Token(rule) => rule.of_operator(),
            Self::SecondFactor => "token_second_factor",
            Self::SignInTime => "token_sign_in_time",
            Self::Stale => "token_stale",
            Self::OtherPerson => "token_other_person",
        }
    }

    /// The rule, as a sentence that holds no data.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Missing => "the call brings no token in the metadata `authorization`",
            Self::Several => "the call brings more than one `authorization`",
            Self::Scheme => "the metadata `authorization` is not `Bearer` and a token",
            Self::Token(rule) => rule.message(),
            Self::SecondFactor => "the token does not show a second factor",
            Self::SignInTime => "the token does not say when its person signed in",
            Self::Stale => "the sign-in with a second factor was too long ago; sign in again",
            Self::OtherPerson => "the token is not of the person whose certificate it is",
        }
    }
}

impl fmt::Display for OperatorTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for OperatorTokenError {}

impl From<TokenError> for OperatorTokenError {
    fn from(rule: TokenError) -> Self {
        Self::Token(rule)
    }
}

impl From<OperatorTokenError> for Error {
    fn from(_: OperatorTokenError) -> Self {
        Self::Denied(Check::Identity)
    }
}
