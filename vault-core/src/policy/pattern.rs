//! Patterns of SPIFFE IDs, and the tree that keeps them disjoint and finds the one that matches.

use std::collections::HashMap;

/// Most segments of a path.
pub(super) const MAX_SEGMENTS: usize = 16;
/// The first segment of operators' SPIFFE IDs. No workload has it, in any case of letters.
const OPERATOR: &str = "operator";

/// One segment of a pattern's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// `*`: exactly one segment, whatever it is.
    Any,
    /// `{tenant}`: exactly one segment, which is the workload's tenant.
    Tenant,
}

/// A pattern of SPIFFE IDs of one trust domain: its segments in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Segment>);

impl Pattern {
    /// Reads `spiffe://<domain>/<segment>/…`.
    pub(super) fn parse(text: &str, domain: &str) -> Result<Self, &'static str> {
        let path = path(text, domain).ok_or("must start with spiffe://, the workload trust domain and a slash")?;
        let mut segments = Vec::new();
        for segment in path.split('/') {
            segments.push(match segment {
                "*" => Segment::Any,
                "{tenant}" => Segment::Tenant,
                literal if is_literal(literal) => Segment::Literal(literal.into()),
                _ => return Err("each segment must be *, {tenant}, or letters, digits and . _ - (but not . or ..)"),
            });
        }
        if segments.len() > MAX_SEGMENTS {
            return Err("at most 16 segments");
        }
        if segments.iter().filter(|s| **s == Segment::Tenant).count() > 1 {
            return Err("{tenant} may stand only once");
        }
        if matches!(segments.first(), Some(Segment::Literal(first)) if is_operator(first)) {
            return Err("operators are not workloads: the first segment must not be operator");
        }
        Ok(Self(segments))
    }

    /// The position of `{tenant}`.
    pub(super) fn tenant_at(&self) -> Option<usize> {
        self.0.iter().position(|s| *s == Segment::Tenant)
    }

    /// Whether it matches one SPIFFE ID only.
    pub(super) fn is_exact(&self) -> bool {
        self.0.iter().all(|s| matches!(s, Segment::Literal(_)))
    }
}

/// The path of a SPIFFE ID of exactly this trust domain, without its leading slash.
pub(super) fn path<'a>(spiffe_id: &'a str, domain: &str) -> Option<&'a str> {
    spiffe_id.strip_prefix("spiffe://")?.strip_prefix(domain)?.strip_prefix('/')
}

/// The characters that SPIFFE allows in a path segment.
fn is_literal(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_operator(first: &str) -> bool {
    first.eq_ignore_ascii_case(OPERATOR)
}

/// Disjoint patterns by their segments, each with a value.
#[derive(Debug)]
pub(super) struct Tree<T> {
    literal: HashMap<Box<str>, Tree<T>, foldhash::quality::RandomState>,
    /// `*` and `{tenant}` match the same, so they share a branch.
    wild: Option<Box<Tree<T>>>,
    value: Option<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { literal: HashMap::default(), wild: None, value: None }
    }
}

impl<T> Tree<T> {
    /// Adds a pattern; if some SPIFFE ID could match it and one that is there already, nothing is added and that one's
    /// value is the error.
    pub(super) fn insert(&mut self, pattern: &Pattern, value: T) -> Result<(), &T> {
        if self.overlap(&pattern.0).is_some() {
            // Looked up twice because a returned borrow would otherwise keep the tree from being changed below.
            return self.overlap(&pattern.0).map_or(Ok(()), Err);
        }
        let mut node = self;
        for segment in &pattern.0 {
            node = match segment {
                Segment::Literal(literal) => node.literal.entry(literal.clone()).or_default(),
                Segment::Any | Segment::Tenant => node.wild.get_or_insert_default(),
            };
        }
        node.value = Some(value);
        Ok(())
    }

    fn overlap(&self, segments: &[Segment]) -> Option<&T> {
        let Some((segment, rest)) = segments.split_first() else {
            return self.value.as_ref();
        };
        let wild = self.wild.as_ref().and_then(|node| node.overlap(rest));
        wild.or_else(|| match segment {
            Segment::Literal(literal) => self.literal.get(literal).and_then(|node| node.overlap(rest)),
            Segment::Any | Segment::Tenant => self.literal.values().find_map(|node| node.overlap(rest)),
        })
    }

    /// The value of the one pattern that matches the path, compared by exact bytes.
    pub(super) fn find(&self, path: &str) -> Option<&T> {
        let mut segments = path.split('/');
        if segments.clone().next().is_none_or(is_operator) {
            return None;
        }
        self.walk(&mut segments)
    }

    fn walk(&self, segments: &mut std::str::Split<'_, char>) -> Option<&T> {
        let Some(segment) = segments.next() else {
            return self.value.as_ref();
        };
        if segment.is_empty() {
            return None;
        }
        let literal = self.literal.get(segment);
        let Some(wild) = &self.wild else {
            return literal.and_then(|node| node.walk(segments));
        };
        literal.and_then(|node| node.walk(&mut segments.clone())).or_else(|| wild.walk(segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str) -> Pattern {
        Pattern::parse(&format!("spiffe://prod.example/{path}"), "prod.example").unwrap()
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for bad in [
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://prod.example/a/",
            "spiffe://prod.example//a",
            "spiffe://prod.example/a/../b",
            "spiffe://prod.example/a*",
            "spiffe://prod.example/{Tenant}",
            "spiffe://prod.example/x-{tenant}",
            "spiffe://prod.example/{tenant}/{tenant}",
            "spiffe://prod.example/**",
            "spiffe://prod.example/ä",
            "spiffe://prod.example/a%2fb",
            "spiffe://PROD.example/a",
            "spiffe://prod.example.evil/a",
            "SPIFFE://prod.example/a",
            "https://prod.example/a",
            "spiffe://operators.example/operator/alice",
            "spiffe://prod.example/operator/alice",
            "spiffe://prod.example/Operator/alice",
        ] {
            assert!(Pattern::parse(bad, "prod.example").is_err(), "{bad} must be refused");
        }
        let long = format!("spiffe://prod.example{}", "/a".repeat(MAX_SEGMENTS + 1));
        assert!(Pattern::parse(&long, "prod.example").is_err());
    }

    #[test]
    fn overlapping_patterns_do_not_enter() {
        for (first, second) in [
            ("a/b", "a/b"),
            ("a/*", "a/b"),
            ("a/b", "a/*"),
            ("a/*", "*/b"),
            ("*/b", "a/*"),
            ("a/{tenant}", "a/*"),
            ("{tenant}/b", "*/b"),
            ("*/x/*", "{tenant}/x/y"),
        ] {
            let mut tree = Tree::default();
            tree.insert(&pattern(first), 1).unwrap();
            assert_eq!(tree.insert(&pattern(second), 2), Err(&1), "{first} and {second}");
        }
        let mut tree = Tree::default();
        for (value, path) in ["a", "a/b", "a/c/*", "*/d/e", "b/{tenant}/f"].into_iter().enumerate() {
            assert_eq!(tree.insert(&pattern(path), value), Ok(()), "{path}");
        }
    }

    #[test]
    fn finds_by_whole_segments_and_exact_bytes() {
        let mut tree = Tree::default();
        for (value, path) in ["a/b", "a/c/*", "*/d/e", "{tenant}/x"].into_iter().enumerate() {
            tree.insert(&pattern(path), value).unwrap();
        }
        for (path, found) in [
            ("a/b", Some(0)),
            ("A/b", None),
            ("a/B", None),
            ("a/b/", None),
            ("a/b/b", None),
            ("a/c/z", Some(1)),
            ("a/c/", None),
            ("a/c/z/z", None),
            ("a/d/e", Some(2)),
            ("q/d/e", Some(2)),
            ("operator/d/e", None),
            ("OPERATOR/x", None),
            ("/x", None),
            ("", None),
            ("acme/x", Some(3)),
        ] {
            assert_eq!(tree.find(path).copied(), found, "{path:?}");
        }
    }
}
