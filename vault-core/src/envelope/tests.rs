//! Behavior of one data key: round trips, refusals, nonces, wiping. The committed vectors are in `tests/vectors.rs`.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::Error;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::secret::Key32;

fn scope(subject: Option<&str>) -> Scope {
    Scope {
        tenant: TenantId::parse("acme").unwrap(),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: subject.map(|s| Subject::parse(s).unwrap()),
    }
}

fn data_key(fill: u8) -> DataKey {
    DataKey::new(&Key32::copy_of(&[fill; 32]).unwrap(), KeyId([fill; 16]), KeyVersion(3), scope(Some("alice"))).unwrap()
}

fn pairs() -> Context {
    Context::from_pairs([("table", "orders"), ("column", "iban")]).unwrap()
}

#[test]
fn every_length_comes_back() {
    let key = data_key(1);
    for len in [0, 1, 15, 16, 17, 255, 1024, 65_536, MAX_PLAINTEXT] {
        let plaintext: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut envelope = key.seal(&pairs(), &plaintext).unwrap();
        assert_eq!(envelope.len(), len + OVERHEAD);
        assert_eq!(key.open(&pairs(), &envelope).unwrap().expose(), plaintext);
        assert_eq!(key.open_in_place(&pairs(), &mut envelope).unwrap(), plaintext);
    }
    assert!(
        matches!(key.seal(&pairs(), &vec![0; MAX_PLAINTEXT + 1]), Err(Error::Invalid { field, .. }) if field == "plaintext")
    );
    assert!(matches!(key.seal_in_place(&pairs(), &mut [0; OVERHEAD - 1]), Err(Error::Invalid { .. })));
}

#[test]
fn every_flipped_bit_truncation_and_extension_is_refused_alike() {
    let key = data_key(1);
    let envelope = key.seal(&pairs(), b"forty-two").unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut bad = envelope.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key.open(&pairs(), &bad).err(), Some(Error::Unopenable), "bit {bit}");
        let mut in_place = bad.clone();
        assert_eq!(key.open_in_place(&pairs(), &mut in_place).err(), Some(Error::Unopenable), "bit {bit}");
        assert!(!in_place.windows(9).any(|w| w == b"forty-two"), "plaintext left behind at bit {bit}");
    }
    for len in 0..envelope.len() {
        assert_eq!(key.open(&pairs(), &envelope[..len]).err(), Some(Error::Unopenable), "length {len}");
    }
    let mut longer = envelope.clone();
    longer.push(0);
    assert_eq!(key.open(&pairs(), &longer).err(), Some(Error::Unopenable));
}

#[test]
fn another_scope_key_version_or_context_is_refused() {
    let key = data_key(1);
    let envelope = key.seal(&pairs(), b"x").unwrap();
    let raw = Key32::copy_of(&[1; 32]).unwrap();
    let same_id = |version, scope| DataKey::new(&raw, KeyId([1; 16]), KeyVersion(version), scope).unwrap();
    assert!(same_id(3, scope(Some("alice"))).open(&pairs(), &envelope).is_ok());
    let mut other_tenant = scope(Some("alice"));
    other_tenant.tenant = TenantId::parse("acme2").unwrap();
    let mut other_dataset = scope(Some("alice"));
    other_dataset.dataset = DatasetId::parse("customer").unwrap();
    let others = [
        same_id(4, scope(Some("alice"))),
        same_id(3, scope(None)),
        same_id(3, scope(Some("Alice"))),
        same_id(3, other_tenant),
        same_id(3, other_dataset),
        data_key(2),
    ];
    for other in others {
        assert_eq!(other.open(&pairs(), &envelope).err(), Some(Error::Unopenable));
    }
    let contexts = [
        Context::empty(),
        Context::from_pairs([("table", "orders")]).unwrap(),
        Context::from_pairs([("table", "orders"), ("column", "Iban")]).unwrap(),
        Context::from_pairs([("tableo", "rders"), ("column", "iban")]).unwrap(),
        Context::from_pairs([("table", "orders"), ("column", "iban"), ("", "")]).unwrap(),
    ];
    for context in contexts {
        assert_eq!(key.open(&context, &envelope).err(), Some(Error::Unopenable));
    }
    let reordered = Context::from_pairs([("column", "iban"), ("table", "orders")]).unwrap();
    assert!(key.open(&reordered, &envelope).is_ok(), "the order in which a map is given means nothing");
}

#[test]
fn contexts_are_canonical_or_refused() {
    assert!(Context::from_pairs([("a", "1"), ("a", "2")]).is_err());
    assert!(Context::from_ascending([("b", ""), ("a", "")]).is_err());
    assert!(Context::from_ascending([("a", ""), ("b", "")]).is_ok());
    let key = data_key(1);
    let fixed = Context::empty().canonical(&key).unwrap().len();
    let fits = "v".repeat(MAX_CONTEXT - fixed - 4);
    assert!(key.seal(&Context::from_pairs([("", fits.as_str())]).unwrap(), b"").is_ok());
    let over = format!("{fits}v");
    assert!(matches!(key.seal(&Context::from_pairs([("", over.as_str())]).unwrap(), b""),
        Err(Error::Invalid { field, .. }) if field == "context"));
    assert!(Context::from_pairs([("", "v".repeat(70_000).as_str())]).is_err());
    assert!(!format!("{:?}", pairs()).contains("iban"));
}

#[test]
fn nonces_never_repeat_across_threads_and_runs() {
    let key = data_key(1);
    let nonces = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let nonce = |_| key.seal(&Context::empty(), b"").unwrap()[HEADER..HEADER + 24].to_vec();
                    (0..10_000).map(nonce).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    let prefixes: HashSet<_> = nonces.iter().map(|n| &n[..12]).collect();
    assert!(prefixes.len() >= 10, "40,000 messages are at least 10 runs, not {}", prefixes.len());
    assert_eq!(nonces.iter().collect::<HashSet<_>>().len(), nonces.len());
}

#[test]
fn a_wiped_key_seals_and_opens_nothing() {
    let key = data_key(1);
    let envelope = key.seal(&pairs(), b"x").unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut opened = 0;
            while key.open(&pairs(), &envelope).is_ok() {
                opened += 1;
            }
            opened
        });
        while !worker.is_finished() {
            key.wipe();
        }
        worker.join().unwrap();
    });
    assert!(matches!(key.seal(&pairs(), b"x"), Err(Error::Unavailable { .. })));
    assert!(matches!(key.open(&pairs(), &envelope), Err(Error::Unavailable { .. })));
}

#[test]
fn more_prefixes_than_are_kept_still_open() {
    let key = data_key(1);
    let mut envelopes = Vec::new();
    for round in 0..3u8 {
        for _ in 0..5 {
            // A new thread number, hence (often) another slot and in any case another run.
            let fresh = data_key(1);
            envelopes.push((round, fresh.seal(&pairs(), &[round]).unwrap()));
        }
    }
    for (round, envelope) in envelopes.iter().chain(&envelopes) {
        assert_eq!(key.open(&pairs(), envelope).unwrap().expose(), [*round]);
    }
}

proptest! {
    #[test]
    fn headers_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..64), id in any::<[u8; 16]>()) {
        let header = Header::new(Suite::Record, KeyId(id));
        prop_assert_eq!(Header::parse(&header.encode()).unwrap(), header);
        if let Ok(parsed) = Header::parse(&bytes) {
            prop_assert_eq!(&parsed.encode()[..], &bytes[..HEADER]);
        }
    }

    /// Different inputs give different A: the encoding can be read back unambiguously.
    #[test]
    fn the_context_is_injective(
        a in (scopes(), any::<u32>(), context_pairs()),
        b in (scopes(), any::<u32>(), context_pairs()),
    ) {
        let encode = |(scope, version, pairs): &(Scope, u32, std::collections::BTreeMap<String, String>)| {
            let mut out = super::context::prefix(&Header::new(Suite::Record, KeyId([0; 16])), scope, KeyVersion(*version)).unwrap();
            let context = Context::from_pairs(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap();
            context.append_to(&mut out).unwrap();
            out
        };
        prop_assert_eq!(a == b, encode(&a) == encode(&b));
        prop_assert_eq!(encode(&a), encode(&a.clone()));
    }
}

/// From a small alphabet, so that near-collisions such as ("ab", "c") and ("a", "bc") do occur.
fn scopes() -> impl Strategy<Value = Scope> {
    ("[ab]{1,3}", "[ab]{1,3}", proptest::option::of("[ab]{1,3}")).prop_map(|(tenant, dataset, subject)| Scope {
        tenant: TenantId::parse(&tenant).unwrap(),
        dataset: DatasetId::parse(&dataset).unwrap(),
        subject: subject.map(|s| Subject::parse(&s).unwrap()),
    })
}

fn context_pairs() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    proptest::collection::btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3)
}
