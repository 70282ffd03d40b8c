//! Trust domains and SPIFFE IDs, accepted exactly as written or refused.
//!
//! The grammar is that of the SPIFFE-ID specification, sections 2.1 to 2.3. Where the specification lets a URI parser
//! normalize (case of scheme and host, percent-encoding, dot segments), nothing is normalized here: an identity has one
//! spelling, and any other is refused. So comparing two IDs is comparing their bytes.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// Longest SPIFFE ID, in bytes (SPIFFE-ID section 2.3).
pub const MAX_SPIFFE_ID: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID section 2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

const SCHEME: &str = "spiffe://";

fn is_trust_domain(s: &str) -> bool {
    (1..=MAX_TRUST_DOMAIN).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_segment(s: &str) -> bool {
    !matches!(s, "" | "." | "..") && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The name of a trust domain, for example `prod.example`: one root of trust, run by one party.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Accepts exactly `[a-z0-9._-]{1,255}`; no scheme, port, or upper case.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `trust_domain`.
    pub fn parse(s: &str) -> Result<Self, Error> {
        if is_trust_domain(s) {
            Ok(Self(s.into()))
        } else {
            Err(Error::invalid("trust_domain", "must match [a-z0-9._-]{1,255}, without spiffe:// and without a port"))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID: `spiffe://`, a trust domain, and a path that may be absent.
///
/// It is a name and proves nothing; [`super::Workload`] and [`super::Operator`] are the proofs.
///
/// ```
/// use vault_core::principal::SpiffeId;
/// let id = SpiffeId::parse("spiffe://prod.example/ns/shop/sa/billing")?;
/// assert_eq!(id.trust_domain(), "prod.example");
/// assert_eq!(id.segments().collect::<Vec<_>>(), ["ns", "shop", "sa", "billing"]);
/// assert!(SpiffeId::parse("spiffe://Prod.example/ns/shop").is_err());
/// # Ok::<(), vault_core::principal::SpiffeIdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Length of the trust domain's name. The path is what follows it.
    domain_len: usize,
}

impl SpiffeId {
    /// Parses an ID from its exact bytes. A root ID (no path) is accepted: signing certificates carry one.
    ///
    /// # Errors
    /// [`SpiffeIdError`], the first rule that is broken.
    pub fn parse(id: impl AsRef<[u8]>) -> Result<Self, SpiffeIdError> {
        let bytes = id.as_ref();
        if bytes.len() > MAX_SPIFFE_ID {
            return Err(SpiffeIdError::TooLong);
        }
        if !bytes.starts_with(SCHEME.as_bytes()) {
            return Err(SpiffeIdError::Scheme);
        }
        // Not UTF-8 is not a path either; which of the two parts it sits in does not matter to anyone.
        let text = std::str::from_utf8(bytes).map_err(|_| SpiffeIdError::Path)?;
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        if !is_trust_domain(domain) {
            return Err(SpiffeIdError::TrustDomain);
        }
        if !path.is_none_or(|path| path.split('/').all(is_segment)) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self { text: text.into(), domain_len: domain.len() })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.split().0
    }

    /// The path with its leading slash, or nothing for a root ID.
    pub fn path(&self) -> &str {
        self.split().1
    }

    /// The segments of the path, none for a root ID.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path().split('/').skip(1)
    }

    /// Whether the ID lies in `domain`.
    pub fn is_in(&self, domain: &TrustDomain) -> bool {
        self.trust_domain() == domain.as_str()
    }

    fn split(&self) -> (&str, &str) {
        // Total: `domain_len` was measured on this text, so neither default is ever taken.
        self.text.get(SCHEME.len()..).and_then(|rest| rest.split_at_checked(self.domain_len)).unwrap_or(("", ""))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpiffeId").field(&self.as_str()).finish()
    }
}

/// The rule of the SPIFFE-ID specification that a text breaks. It holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// Longer than [`MAX_SPIFFE_ID`] bytes.
    TooLong,
    /// Does not begin with `spiffe://` in lower case.
    Scheme,
    /// The trust domain is empty, too long, or has a byte outside `[a-z0-9._-]` (so also userinfo and port).
    TrustDomain,
    /// A segment of the path is empty, `.`, `..`, or has a byte outside `[a-zA-Z0-9._-]` (so also `%`, `?` and `#`).
    Path,
}

impl SpiffeIdError {
    /// A stable name for audit entries and counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "id_too_long",
            Self::Scheme => "wrong_scheme",
            Self::TrustDomain => "bad_trust_domain",
            Self::Path => "bad_path",
        }
    }

    /// The rule, as a sentence.
    pub const fn message(self) -> &'static str {
        match self {
            Self::TooLong => "the SPIFFE ID is longer than 2048 bytes",
            Self::Scheme => "the URI does not begin with spiffe://",
            Self::TrustDomain => "the trust domain of the SPIFFE ID must match [a-z0-9._-]{1,255}",
            Self::Path => "every path segment of the SPIFFE ID must match [a-zA-Z0-9._-]+ and not be . or ..",
        }
    }
}

impl fmt::Display for SpiffeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for SpiffeIdError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parts_of_an_id() {
        let id = SpiffeId::parse("spiffe://prod.example/operator/alice").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("prod.example", "/operator/alice"));
        assert_eq!(id.segments().collect::<Vec<_>>(), ["operator", "alice"]);
        let root = SpiffeId::parse("spiffe://prod.example").unwrap();
        assert_eq!((root.trust_domain(), root.path(), root.segments().count()), ("prod.example", "", 0));
    }

    #[test]
    fn what_is_refused_and_why() {
        use SpiffeIdError::{Path, Scheme, TooLong, TrustDomain};
        for (text, rule) in [
            ("", Scheme),
            ("https://prod.example/a", Scheme),
            ("SPIFFE://prod.example/a", Scheme),
            ("spiffe:/prod.example/a", Scheme),
            (" spiffe://prod.example/a", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///a", TrustDomain),
            ("spiffe://Prod.example/a", TrustDomain),
            ("spiffe://prod.example:443/a", TrustDomain),
            ("spiffe://user@prod.example/a", TrustDomain),
            ("spiffe://prod%2eexample/a", TrustDomain),
            ("spiffe://prod.example?q/a", TrustDomain),
            ("spiffe://prod.example#f", TrustDomain),
            ("spiffe://[::1]/a", TrustDomain),
            ("spiffe://prod.exämple/a", TrustDomain),
            ("spiffe://prod.example/", Path),
            ("spiffe://prod.example/a/", Path),
            ("spiffe://prod.example//a", Path),
            ("spiffe://prod.example/a//b", Path),
            ("spiffe://prod.example/.", Path),
            ("spiffe://prod.example/a/../b", Path),
            ("spiffe://prod.example/a%2fb", Path),
            ("spiffe://prod.example/a?b", Path),
            ("spiffe://prod.example/a#b", Path),
            ("spiffe://prod.example/a b", Path),
            ("spiffe://prod.example/a\0", Path),
            ("spiffe://prod.example/а", Path), // Cyrillic
        ] {
            assert_eq!(SpiffeId::parse(text), Err(rule), "{text:?}");
        }
        let filled = |n: usize| format!("spiffe://d/{}", "a".repeat(n - "spiffe://d/".len()));
        assert!(SpiffeId::parse(filled(2048)).is_ok());
        assert_eq!(SpiffeId::parse(filled(2049)), Err(TooLong));
        assert!(SpiffeId::parse(format!("spiffe://{}/a", "d".repeat(255))).is_ok());
        assert_eq!(SpiffeId::parse(format!("spiffe://{}/a", "d".repeat(256))), Err(TrustDomain));
        assert_eq!(SpiffeId::parse(b"spiffe://prod.example/\xff"), Err(Path));
    }

    /// The same grammar, written as a walk over bytes that shares nothing with the parser.
    fn by_the_book(bytes: &[u8]) -> bool {
        let prefix = [0x73, 0x70, 0x69, 0x66, 0x66, 0x65, 0x3a, 0x2f, 0x2f];
        if bytes.len() > 2048 || bytes.len() < prefix.len() || bytes[..prefix.len()] != prefix {
            return false;
        }
        let (mut in_domain, mut run, mut dots) = (true, 0usize, 0usize);
        for &b in &bytes[prefix.len()..] {
            if b == 0x2f {
                if run == 0 || (in_domain && run > 255) || (!in_domain && run == dots && dots <= 2) {
                    return false;
                }
                (in_domain, run, dots) = (false, 0, 0);
                continue;
            }
            let upper = (0x41..=0x5a).contains(&b);
            let common = (0x61..=0x7a).contains(&b) || (0x30..=0x39).contains(&b) || [0x2d, 0x2e, 0x5f].contains(&b);
            if !(common || (upper && !in_domain)) {
                return false;
            }
            run += 1;
            dots += usize::from(b == 0x2e);
        }
        run > 0 && if in_domain { run <= 255 } else { run != dots || dots > 2 }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic_as_the_book_does(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(SpiffeId::parse(&bytes).is_ok(), by_the_book(&bytes));
        }

        #[test]
        fn near_misses_are_judged_as_the_book_does(
            text in "spiffe://[a-zA-Z0-9._:@%-]{0,12}(/[a-zA-Z0-9._%?#-]{0,4}){0,5}",
        ) {
            prop_assert_eq!(SpiffeId::parse(&text).is_ok(), by_the_book(text.as_bytes()), "{}", text);
        }

        #[test]
        fn a_valid_id_round_trips(text in "spiffe://[a-z0-9._-]{1,40}(/[a-zA-Z0-9_-]{1,9}){0,6}") {
            let id = SpiffeId::parse(&text).unwrap();
            prop_assert_eq!(id.as_str(), text.as_str());
            prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text.as_str());
            let rebuilt: String = id.segments().map(|segment| format!("/{segment}")).collect();
            prop_assert_eq!(rebuilt, id.path());
            prop_assert_eq!(SpiffeId::parse(id.as_str()), Ok(id));
        }
    }
}
