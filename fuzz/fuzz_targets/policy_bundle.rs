//! A policy bundle has one sequence of bytes and one digest; its file is read as it was written or refused with the field's
//! name; and the signers' signatures hold for what they signed alone.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed, changed_text};
use blindvault_fuzz::note::Signer;
use libfuzzer_sys::fuzz_target;
use vault_core::Error;
use vault_core::audit::LogVerifier;
use vault_core::bundle::{Bundle, PolicyFile, SignedBundle, Signers};
use vault_core::id::{Fingerprint, Reason};
use vault_core::time::Timestamp;

static KEYS: LazyLock<[Signer; 2]> = LazyLock::new(|| [Signer::new("ann", 1), Signer::new("ben", 2)]);
static SIGNERS: LazyLock<Signers> = LazyLock::new(|| {
    Signers::new(KEYS.iter().map(|key| LogVerifier::parse(&key.vkey()).unwrap()).collect(), 2).unwrap()
});

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    bytes: &'a [u8],
    version: u64,
    previous: Option<[u8; 32]>,
    times: (u64, u64),
    texts: [&'a str; 3],
    policies: Vec<(u8, &'a str)>,
    changes: Vec<Change>,
}

fn decode(bytes: &[u8]) -> Option<Bundle> {
    let bundle = Bundle::decode(bytes).ok()?;
    assert_eq!(bundle.encode().unwrap(), bytes, "read, and written otherwise");
    Some(bundle)
}

fn document(text: &str) -> Option<SignedBundle> {
    match SignedBundle::from_document(text) {
        Ok(signed) => {
            assert_eq!(SignedBundle::from_document(&signed.to_document().unwrap()).as_ref(), Ok(&signed));
            Some(signed)
        }
        Err(Error::Invalid { field, .. }) if !field.is_empty() => None,
        Err(error) => panic!("{error}"),
    }
}

fuzz_target!(|input: Input<'_>| {
    decode(input.bytes);
    document(&String::from_utf8_lossy(input.bytes));
    let [comment, schema, registry] = input.texts;
    let comment = if Reason::parse(comment).is_ok() { comment } else { "a change" };
    let mut policies: Vec<_> =
        input.policies.iter().map(|(n, text)| PolicyFile { name: format!("p{n}"), text: (*text).into() }).collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    policies.dedup_by(|a, b| a.name == b.name);
    let bundle = Bundle {
        instance: "shop-1".into(),
        version: input.version.max(1),
        previous: input.previous.map(Fingerprint),
        created: Timestamp(input.times.0),
        not_before: Timestamp(input.times.1),
        comment: comment.into(),
        schema: schema.into(),
        policies,
        registry: registry.into(),
    };
    let Ok(signed) = SignedBundle::new(bundle.clone()) else { return assert!(bundle.check().is_err()) };
    let bytes = signed.encoded().to_vec();
    assert_eq!(decode(&bytes).as_ref(), Some(&bundle));
    let spoiled = changed(&bytes, &input.changes);
    assert_eq!(decode(&spoiled).is_some_and(|other| other == bundle), spoiled == bytes);
    let lines = KEYS.iter().map(|key| key.line(&signed.statement()).trim_end().to_owned()).collect();
    let signed = signed.with_signatures(lines).unwrap();
    assert_eq!(SIGNERS.verify(&signed).unwrap(), ["ann", "ben"]);
    let text = signed.to_document().unwrap();
    assert_eq!(document(&text).as_ref(), Some(&signed));
    if let Some(other) = document(&changed_text(&text, &input.changes)) {
        assert!(SIGNERS.verify(&other).is_err() || other.bundle() == &bundle, "not what was signed");
    }
});
