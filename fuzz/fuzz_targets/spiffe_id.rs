//! The library and a second parser (crate `url`, the WHATWG's rules) agree on SPIFFE IDs: what is accepted has the same
//! domain and path there and one spelling, and what that one reads as an ID without anything unusual is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use url::Url;
use vault_core::principal::{MAX_SPIFFE_ID, MAX_TRUST_DOMAIN, SpiffeId};

/// Whether a parsed URL is a SPIFFE ID by the specification's sections 2.1 to 2.3.
fn is_id(url: &Url, text: &str) -> bool {
    let name = |c: char| c.is_ascii_digit() || ".-_".contains(c) || c.is_ascii_lowercase();
    let segment = |s: &str| !["", ".", ".."].contains(&s) && s.chars().all(|c| name(c) || c.is_ascii_uppercase());
    let host = url.host_str().unwrap_or_default();
    let path = url.path();
    url.as_str() == text
        && text.len() <= MAX_SPIFFE_ID
        && url.scheme() == "spiffe"
        && (url.port(), url.query(), url.fragment(), url.password()) == (None, None, None, None)
        && url.username().is_empty()
        && (1..=MAX_TRUST_DOMAIN).contains(&host.len())
        && host.chars().all(name)
        && text.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(host)) == Some(path)
        && (path.is_empty() || path.strip_prefix('/').is_some_and(|path| path.split('/').all(segment)))
}

fuzz_target!(|bytes: &[u8]| {
    let id = SpiffeId::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return assert!(id.is_err()) };
    let url = Url::parse(text);
    match id {
        Ok(id) => {
            let url = url.expect("no URL");
            assert!(is_id(&url, text), "an ID that is none: {url}");
            assert_eq!((id.as_str(), id.trust_domain(), id.path()), (text, url.host_str().unwrap(), url.path()));
            assert_eq!(id.segments().collect::<Vec<_>>().join("/"), url.path().trim_start_matches('/'));
        }
        Err(_) => assert!(!url.is_ok_and(|url| is_id(&url, text)), "refused, and it is one"),
    }
});
