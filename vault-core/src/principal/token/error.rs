//! Which rule a token breaks.

use std::fmt;

use crate::error::{Check, Error};

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $message:literal;)+) => {
        /// The first rule that an end user's token breaks. It holds nothing of the token, so it may be logged; callers
        /// outside get [`Error::Denied`] with [`Check::EndUser`], whichever rule it was, unless the text is no token.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum TokenError {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl TokenError {
            /// A stable name for counters and documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The same for a token of an operator, among other reasons to refuse a call.
            pub(super) const fn of_operator(self) -> &'static str {
                match self { $(Self::$variant => concat!("token_", $name),)+ }
            }

            /// The rule, as a sentence that holds no data: for the audit entry.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }
        }

        /// Every rule.
        #[cfg(test)]
        pub(super) const ALL: &[TokenError] = &[$(TokenError::$variant),+];
    };
}

rules! {
    /// Longer than [`super::MAX_TOKEN`].
    TooLarge = "too_large", "the token is longer than 8 KiB";
    /// Not three parts of base64url without padding, with a dot between them (RFC 7515 section 7.1).
    Malformed = "malformed", "the token is not three parts of base64url without padding";
    /// Header or claims are no JSON object, are nested too deeply, or name a member twice (RFC 8725 section 2.4).
    Json = "json", "the token's header or claims are not a JSON object of at most 8 levels without a member twice";
    /// The header has `crit` (RFC 7515 section 4.1.11): no extension is understood here.
    Critical = "critical", "the token's header demands an extension";
    /// The header brings or points to a key: `jwk`, `jku`, `x5c` or `x5u` (RFC 8725 section 3.10).
    EmbeddedKey = "embedded_key", "the token's header brings or points to a key";
    /// The header's `typ` is not the configured one (RFC 9068 section 4, RFC 8725 section 3.11).
    Type = "type", "the token is not of the configured type";
    /// The header's `alg` is not in the issuer's list (RFC 8725 section 3.1).
    Algorithm = "algorithm", "the token's algorithm is not in the issuer's list";
    /// The claim `iss` is not, byte by byte, a configured issuer.
    Issuer = "issuer", "the token's issuer is not configured";
    /// The issuer's keys were never read, or not for longer than is allowed.
    NoKeys = "no_keys", "the issuer's keys are not there, or too old";
    /// The header has no `kid`, or one that is not 1 to 256 bytes long.
    NoKeyId = "no_key_id", "the token does not name the key that signed it";
    /// None of the issuer's keys has this `kid`.
    UnknownKey = "unknown_key", "the issuer has no key of this name";
    /// The key is not one for this algorithm.
    KeyMismatch = "key_mismatch", "the key is not for the token's algorithm";
    /// The signature is not the key's.
    Signature = "signature", "the token's signature does not verify";
    /// The claim `exp` is missing or not a whole number of seconds.
    Expiry = "expiry", "the token has no expiry as a whole number";
    /// The claim `exp` has passed.
    Expired = "expired", "the token has expired";
    /// The claim `iat` is missing, or `iat` or `nbf` is not a whole number of seconds.
    IssuedAt = "issued_at", "the token does not say as whole numbers when it was issued and when it begins";
    /// The claim `iat` or `nbf` lies ahead.
    NotYetValid = "not_yet_valid", "the token is not valid yet";
    /// From `iat` to `exp` is longer than a token of this issuer may live.
    LivesTooLong = "lives_too_long", "the token is valid for longer than is allowed";
    /// The claim `aud` names none of the issuer's audiences here.
    Audience = "audience", "the token is not for this audience";
    /// The claim `sub` is not 1 to 256 bytes of 0x21 to 0x7e.
    Subject = "subject", "the token does not name a subject of 1 to 256 visible characters";
    /// The claim `jti` is not 1 to 256 bytes long (RFC 9068 section 2.2 requires one).
    TokenId = "token_id", "the token has no id of 1 to 256 bytes";
    /// The tenant claim is not a tenant id, byte by byte.
    Tenant = "tenant", "the token does not name a tenant";
    /// The issuer may not speak for people of this tenant.
    ForeignTenant = "foreign_tenant", "the issuer may not speak for the token's tenant";
    /// The roles claim is not a list of names.
    Roles = "roles", "the token's roles are not a list of names";
    /// The claim `amr` is not a list of names, or `acr` is not a name.
    Authentication = "authentication", "the token does not say in names how the end user signed in";
    /// The claim `auth_time` is not a whole number of seconds, or lies ahead.
    AuthTime = "auth_time", "the token does not say as a whole number, not ahead, when the end user signed in";
    /// There is no claim `cnf`, and the issuer's tokens have to be bound to a certificate.
    Unbound = "unbound", "the token is not bound to a certificate";
    /// The claim `cnf` demands a proof other than `x5t#S256` (RFC 8705 section 3.1).
    Confirmation = "confirmation", "the token demands a proof other than a certificate";
    /// The claim `cnf` names another certificate than the workload's.
    OtherCertificate = "other_certificate", "the token is bound to another certificate";
}

impl TokenError {
    /// Whether the text is no token at all, or too long to be read: the request's fault, whoever asks.
    pub const fn is_malformed(self) -> bool {
        matches!(self, Self::TooLarge | Self::Malformed | Self::Json)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for TokenError {}

impl From<TokenError> for Error {
    fn from(rule: TokenError) -> Self {
        if rule.is_malformed() { Self::invalid("end_user_token", rule.message()) } else { Self::Denied(Check::EndUser) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_outside_all_rules_look_the_same() {
        let names: BTreeSet<_> = ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), ALL.len());
        for rule in ALL {
            match Error::from(*rule) {
                Error::Denied(Check::EndUser) => assert!(!rule.is_malformed()),
                Error::Invalid { field, .. } => assert!(rule.is_malformed() && field == "end_user_token"),
                other => panic!("{other}"),
            }
        }
    }

    /// Each rule has one row in the documentation, which names at least one test; and those tests exist.
    #[test]
    fn every_rule_is_documented_with_its_tests() {
        let (_, doc) = include_str!("../../../../docs/end-users.md").split_once("## Rules").unwrap();
        let tests = [
            include_str!("../../../tests/end_user_tokens/main.rs"),
            include_str!("../../../tests/end_user_tokens/hostile.rs"),
        ];
        for rule in ALL {
            let rows: Vec<_> = doc.lines().filter(|line| line.starts_with(&format!("| `{}` |", rule.name()))).collect();
            let [row] = rows[..] else { panic!("{} has {} rows", rule.name(), rows.len()) };
            let named: Vec<_> = row.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{} names no test", rule.name());
            for test in named {
                assert!(tests.iter().any(|file| file.contains(&format!("fn {test}()"))), "no test {test}");
            }
        }
    }
}
