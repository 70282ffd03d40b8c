//! The canonical bytes, the file, and the signatures.

use std::sync::Arc;

use super::*;
use crate::audit::{LogSigner, LogVerifier};
use crate::error::Error;
use crate::fs::OsFs;
use crate::policy::{BASELINE_POLICIES, BASELINE_SCHEMA};
use crate::time::Timestamp;

fn small() -> Bundle {
    let file = |name: &str, text: &str| PolicyFile { name: name.into(), text: text.into() };
    Bundle {
        instance: "shop-1".into(),
        version: 7,
        previous: Some(Fingerprint([0xab; 32])),
        created: Timestamp(1_795_502_400_000),
        not_before: Timestamp(1_795_502_400_001),
        comment: "more readers".into(),
        schema: "s\n".into(),
        policies: vec![file("a.cedar", "p\t\u{e9}"), file("b.cedar", "")],
        registry: "r".into(),
    }
}

fn real() -> Bundle {
    let policies = vec![PolicyFile { name: "baseline.cedar".into(), text: BASELINE_POLICIES.text.into() }];
    Bundle { schema: BASELINE_SCHEMA.text.into(), policies, registry: String::new(), ..small() }
}

fn signer(name: &str) -> (tempfile::TempDir, LogSigner) {
    let dir = tempfile::tempdir().unwrap();
    let signer = LogSigner::create(&OsFs, &dir.path().join("key"), name).unwrap();
    (dir, signer)
}

fn field<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// The layout is what signatures stand on: these bytes must not change.
#[test]
fn known_bytes() {
    let encoded = small().encode().unwrap();
    let expected = [
        b"blindvault/policy-bundle/v1\0\0\x06shop-1\0\0\0\0\0\0\0\x07\x01".as_slice(),
        &[0xab; 32],
        b"\0\0\x01\xa2\x0c\x48\x62\0\0\0\x01\xa2\x0c\x48\x62\x01\0\x0cmore readers\0\0\0\x02s\n\0\x02",
        b"\0\x07a.cedar\0\0\0\x04p\t\xc3\xa9\0\x07b.cedar\0\0\0\0\0\0\0\x01r",
    ]
    .concat();
    assert_eq!(hex::encode(&encoded), hex::encode(&expected));
    let signed = SignedBundle::new(small()).unwrap();
    let digest = Bundle::digest(&encoded);
    assert_eq!(
        signed.statement(),
        format!(
            "blindvault policy bundle v1\ninstance: shop-1\nversion: 7\nprevious: sha256:{}\ndigest: sha256:{digest}\n",
            "ab".repeat(32)
        )
    );
    let first = SignedBundle::new(Bundle { previous: None, ..small() }).unwrap();
    assert!(first.statement().contains("\nprevious: none\n"));
}

#[test]
fn bytes_are_read_back_and_every_other_sequence_is_another_bundle_or_none() {
    let encoded = small().encode().unwrap();
    assert_eq!(Bundle::decode(&encoded).unwrap(), small());
    for len in 0..encoded.len() {
        assert!(Bundle::decode(&encoded[..len]).is_err(), "{len} bytes");
    }
    assert!(Bundle::decode(&[&encoded[..], b"x"].concat()).is_err());
    for at in 0..encoded.len() {
        for bit in [1, 0x80] {
            let mut other = encoded.clone();
            other[at] ^= bit;
            // What can be read at all is written as it was read, so no two sequences stand for the same bundle.
            if let Ok(read) = Bundle::decode(&other) {
                assert_eq!(read.encode().unwrap(), other, "byte {at}");
                assert_ne!(read, small());
            }
        }
    }
}

#[test]
fn what_no_bundle_may_be_is_refused_with_its_field() {
    let file = |name: &str| PolicyFile { name: name.into(), text: String::new() };
    let big = "x".repeat(MAX_BUNDLE);
    let table: Vec<(&str, Bundle)> = vec![
        ("instance", Bundle { instance: "Shop".into(), ..small() }),
        ("instance", Bundle { instance: String::new(), ..small() }),
        ("version", Bundle { version: 0, ..small() }),
        ("comment", Bundle { comment: String::new(), ..small() }),
        ("comment", Bundle { comment: "two\nlines".into(), ..small() }),
        ("policies", Bundle { policies: vec![file("b"), file("a")], ..small() }),
        ("policies", Bundle { policies: vec![file("a"), file("a")], ..small() }),
        ("policies", Bundle { policies: (0..1001).map(|n| file(&format!("p{n:04}"))).collect(), ..small() }),
        ("policies[0].name", Bundle { policies: vec![file("../a")], ..small() }),
        ("bundle", Bundle { registry: big.clone(), ..small() }),
        ("bundle", Bundle { schema: big[1..].to_owned(), registry: String::new(), ..small() }),
    ];
    for (name, bundle) in table {
        assert_eq!(field(SignedBundle::new(bundle)), name);
    }
    assert_eq!(field(Bundle::decode(&[0; MAX_BUNDLE + 1])), "bundle");
}

#[test]
fn a_file_is_read_back_and_half_of_it_is_refused() {
    let (_dir, alice) = signer("alice");
    let signed = SignedBundle::new(small()).unwrap().sign(&alice).unwrap().with_proof(Some("proved".into())).unwrap();
    let document = signed.to_document().unwrap();
    assert_eq!(SignedBundle::from_document(&document).unwrap(), signed);
    assert_eq!(signed.clone().sign(&alice).unwrap().signatures().len(), 1, "the same signature once");
    for len in (0..document.len() - 1).filter(|len| document.is_char_boundary(*len)) {
        let refused = SignedBundle::from_document(&document[..len]).map(drop);
        // Without the last newline it is still whole.
        assert!(refused.is_err() || document[len..].trim().is_empty(), "{len} bytes");
    }
    let with = |from: &str, to: &str| {
        assert!(document.contains(from), "{from}");
        field(SignedBundle::from_document(&document.replacen(from, to, 1)))
    };
    assert!(with("\"version\": 7", "\"version\": \"7\"").starts_with("bundle line 4"));
    assert!(with("\"version\": 7", "\"version\": 7, \"version\": 7").starts_with("bundle line 4"));
    assert!(with("\"version\": 7", "\"version\": 7, \"more\": 7").starts_with("bundle line 4"));
    assert!(with("\"version\": 7,", "").starts_with("bundle line"));
    assert_eq!(with("\"version\": 7", "\"version\": 0"), "version");
    assert_eq!(with("bundle v1", "bundle v2"), "format");
    assert_eq!(with("\u{2014} alice", "- alice"), "signatures[0]");
    let deep = document.replacen("\"proved\"", &"[".repeat(100_000), 1);
    assert!(field(SignedBundle::from_document(&deep)).starts_with("bundle line"));
    assert_eq!(field(SignedBundle::from_document(&" ".repeat(MAX_DOCUMENT + 1))), "bundle");
    let proof = Some("x".repeat(MAX_PROOF + 1));
    assert_eq!(field(signed.clone().with_proof(proof)), "proof");
    let many = vec![signed.signatures()[0].clone(); MAX_SIGNATURES + 1];
    assert_eq!(field(signed.with_signatures(many)), "signatures");
}

#[test]
fn a_quorum_of_different_keys_has_to_sign_and_exactly_this() {
    let ((_a, alice), (_b, bob), (_c, carol)) = (signer("alice"), signer("bob"), signer("carol"));
    let key = |signer: &LogSigner| signer.verifier().clone();
    let signers = Signers::new(vec![key(&alice), key(&bob)], 2).unwrap();
    let bare = SignedBundle::new(small()).unwrap();
    let sign = |by: &[&LogSigner]| by.iter().fold(bare.clone(), |signed, by| signed.sign(by).unwrap());
    let refused = |signed: &SignedBundle| assert_eq!(field(signers.verify(signed)), "signatures");
    refused(&bare);
    refused(&sign(&[&alice]));
    refused(&sign(&[&alice, &carol]));
    assert_eq!(signers.verify(&sign(&[&carol, &bob, &alice])).unwrap(), ["alice", "bob"]);

    // The same key under another name counts for nothing, nor does the line of one twice.
    let both = sign(&[&alice, &bob]);
    let line = |at: usize| both.signatures()[at].clone();
    refused(&bare.clone().with_signatures(vec![line(0), line(0)]).unwrap());
    refused(&bare.clone().with_signatures(vec![line(0), line(0).replace("alice", "bob")]).unwrap());
    // A signature of another bundle.
    let other = SignedBundle::new(Bundle { registry: "s".into(), ..small() }).unwrap();
    refused(&other.with_signatures(both.signatures().to_vec()).unwrap());
    // Every character of a signature counts.
    let at = line(1).len() - 10;
    let mut bad = line(1).into_bytes();
    bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
    refused(&bare.clone().with_signatures(vec![line(0), String::from_utf8(bad).unwrap()]).unwrap());

    // And who may sign is a list without doubles.
    assert_eq!(field(Signers::new(vec![], 1)), "signers");
    assert_eq!(field(Signers::new(vec![key(&alice), key(&alice)], 2)), "signers");
    let renamed = LogSigner::load(&OsFs, &_a.path().join("key"), "alicia").unwrap();
    assert_eq!(field(Signers::new(vec![key(&alice), key(&renamed)], 2)), "signers");
    let (_other, twin) = signer("alice");
    assert_eq!(field(Signers::new(vec![key(&alice), key(&twin)], 2)), "signers");
    for quorum in [0, 3] {
        assert_eq!(field(Signers::new(vec![key(&alice), key(&bob)], quorum)), "quorum");
    }
    assert!(matches!(Signers::none().verify(&both), Err(Error::FailedPrecondition(_))));
}

/// Wants to see one word.
#[derive(Debug)]
struct Word;

impl ProofCheck for Word {
    fn check(&self, bundle: &Bundle, record: Option<&str>) -> Result<(), Error> {
        assert_eq!(bundle.version, 7);
        if record == Some("proved") { Ok(()) } else { Err(Error::invalid("proof", "is missing")) }
    }
}

#[test]
fn a_bundle_is_judged_by_instance_signatures_proof_and_every_text() {
    let (_dir, alice) = signer("alice");
    let signers = Signers::new(vec![LogVerifier::parse(&alice.verifier().vkey()).unwrap()], 1).unwrap();
    let trust = |proof: Option<Arc<dyn ProofCheck>>| PolicyTrust {
        signers: signers.clone(),
        workload_domain: "prod.example".into(),
        proof,
    };
    let sign = |bundle: Bundle| SignedBundle::new(bundle).unwrap().sign(&alice).unwrap();
    let judge = |bundle: Bundle| trust(None).judge(&sign(bundle), "shop-1");
    let judged = judge(real()).unwrap();
    assert_eq!((judged.signers, judged.registry.len()), (vec!["alice".to_owned()], 0));
    assert!(judged.set.ids().contains(&"workload-decrypt".to_owned()));
    assert_eq!(field(trust(None).judge(&sign(real()), "shop-2")), "instance");
    assert_eq!(field(trust(None).judge(&SignedBundle::new(real()).unwrap(), "shop-1")), "signatures");
    assert_eq!(field(judge(Bundle { schema: "entity".into(), ..real() })), "schema line 1");
    let policy = |text: &str| {
        let file = PolicyFile { name: "extra.cedar".into(), text: text.into() };
        judge(Bundle { policies: vec![file], ..real() })
    };
    assert_eq!(field(policy("\npermit (principal, action")), "extra.cedar line 2");
    assert_eq!(field(policy(&"(".repeat(1000))), "extra.cedar line 1");
    let entry = |id: &str| {
        format!("[[workload]]\nid = {id:?}\nservice = \"s\"\nenvironment = \"e\"\ntenants = [\"t\"]\nroles = []\n")
    };
    let registry = |text: String| judge(Bundle { registry: text, ..real() });
    assert_eq!(registry(entry("spiffe://prod.example/a")).unwrap().registry.len(), 1);
    assert_eq!(field(registry(entry("spiffe://ops.example/operator/a"))), "registry line 2, id");
    assert_eq!(field(registry(entry("spiffe://prod.example/operator/a"))), "registry line 2, id");
    let overlap = entry("spiffe://prod.example/a") + &entry("spiffe://prod.example/*");
    assert_eq!(field(registry(overlap)), "registry lines 2 and 8, id");

    let proved = |record: Option<&str>| {
        let signed = sign(real()).with_proof(record.map(str::to_owned)).unwrap();
        trust(Some(Arc::new(Word))).judge(&signed, "shop-1").map(drop)
    };
    assert_eq!(proved(Some("proved")), Ok(()));
    assert_eq!(field(proved(None)), "proof");
    assert_eq!(field(proved(Some("else"))), "proof");
}
