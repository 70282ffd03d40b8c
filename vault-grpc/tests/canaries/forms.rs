//! The forms in which a secret could come out, and the search for all of them at once.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Every form has at least this many bytes.
const LEAST: usize = 8;

/// What is searched for.
pub(crate) struct Needles {
    forms: Vec<(String, Vec<u8>)>,
    /// Places in `forms`, by the first bytes.
    by_start: HashMap<[u8; LEAST], Vec<usize>>,
    /// Whether a form starts with these two bytes: cheaper to ask at every place.
    starts: Vec<bool>,
}

/// Raw, halves, hexadecimal, base64 in both alphabets and at each of the three offsets, backwards as a whole and in words
/// of 4 and 8 bytes, UTF-16, and as a list of numbers.
pub(crate) fn forms(needle: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    assert!(needle.len() >= 2 * LEAST);
    let backwards = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<_>>();
    let words = |len: usize| needle.chunks(len).flat_map(backwards).collect::<Vec<_>>();
    let (first, last) = needle.split_at(needle.len() / 2);
    let list: Vec<String> = first.iter().map(u8::to_string).collect();
    let mut forms = vec![
        ("raw", needle.to_vec()),
        ("its first half", first.to_vec()),
        ("its last half", last.to_vec()),
        ("hexadecimal", hex::encode(needle).into_bytes()),
        ("upper-case hexadecimal", hex::encode_upper(needle).into_bytes()),
        ("backwards", backwards(needle)),
        ("backwards in words of 4", words(4)),
        ("backwards in words of 8", words(8)),
        ("UTF-16", needle.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("a list of numbers", list.join(", ").into_bytes()),
    ];
    for before in 0..3 {
        let bytes = [&vec![0; before], needle].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&bytes);
            // Without the characters that share bits with what is before and after.
            let from = (before * 8).div_ceil(6);
            forms.push(("base64", text.as_bytes()[from..text.len() - 2].to_vec()));
        }
    }
    forms
}

impl Needles {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let named = secrets.into_iter().flat_map(|(name, secret)| {
            forms(secret).into_iter().map(move |(form, bytes)| (format!("{name}, {form}"), bytes))
        });
        let forms: Vec<(String, Vec<u8>)> = named.collect();
        let mut by_start: HashMap<[u8; LEAST], Vec<usize>> = HashMap::new();
        let mut starts = vec![false; 1 << 16];
        for (place, (_, form)) in forms.iter().enumerate() {
            starts[usize::from(u16::from_be_bytes(*form.first_chunk().unwrap()))] = true;
            by_start.entry(*form.first_chunk().unwrap()).or_default().push(place);
        }
        Self { forms, by_start, starts }
    }

    /// The forms that are in there.
    pub(crate) fn found(&self, hay: &[u8]) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for (at, start) in hay.windows(LEAST).enumerate() {
            if !self.starts[usize::from(start[0]) << 8 | usize::from(start[1])] {
                continue;
            }
            let start: &[u8; LEAST] = start.try_into().unwrap();
            for place in self.by_start.get(start).into_iter().flatten() {
                let (name, form) = &self.forms[*place];
                if hay[at..].starts_with(form) && !found.contains(&name.as_str()) {
                    found.push(name);
                }
            }
        }
        found
    }
}

#[test]
fn the_search_finds_every_form_wherever_it_is() {
    let secret = b"Control-canary-4bd2e1";
    let needles = Needles::new([("control", &secret[..])]);
    for (name, form) in forms(secret) {
        let hay = [b"some bytes before \xff\x00", &form[..], b"\x00 and after"].concat();
        assert!(needles.found(&hay).iter().any(|found| found.contains(name)), "{name}");
    }
    for before in ["", "a", "ab", "abc"] {
        let text = STANDARD_NO_PAD.encode(format!("{before}Control-canary-4bd2e1 and more"));
        assert!(!needles.found(text.as_bytes()).is_empty(), "base64 after {before:?}");
    }
    assert!(needles.found(b"Contrition, Conclusion-canary and other things").is_empty());
}
