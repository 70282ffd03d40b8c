use proptest::prelude::*;

use super::super::decided::{EndUserName, Policies};
use super::super::pseudonym::Pseudonym;
use super::*;
use crate::custody::{Custody, MAX_REPLICAS, MAX_ROOT_ID, RootId};
use crate::id::{ConsentId, DatasetId, GrantId, Purpose, Reason};

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9._-]{0,62}"
}

fn key() -> impl Strategy<Value = KeyRef> {
    (any::<[u8; 16]>(), any::<u32>(), proptest::option::of(any::<u32>())).prop_map(|(id, version, tenant)| KeyRef {
        key_id: KeyId(id),
        version: KeyVersion(version),
        tenant_key_version: tenant.map(KeyVersion),
    })
}

fn decided() -> impl Strategy<Value = Decided> {
    let texts = ("\\PC{0,80}", "[A-Za-z]{0,30}");
    let options = (proptest::option::of(name()), proptest::option::of(any::<[u8; 16]>()), proptest::option::of(name()));
    let rest = (any::<u64>(), any::<u64>(), proptest::collection::vec("\\PC{0,40}", 0..6));
    let reason = proptest::option::of("[a-z ]{1,80}");
    let custody = proptest::option::of(prop_oneof![
        "[a-z]{1,9}:[!-'*+.-~]{1,60}".prop_map(|root| Custody::parse(&root).unwrap()),
        "split\\(a:[a-z]{1,9},b:[a-z]{1,9}\\)".prop_map(|text| Custody::parse(&text).unwrap()),
        "replicated\\(a:[a-z]{1,9},b:[a-z]{1,9},c:[a-z]{1,9}\\)".prop_map(|text| Custody::parse(&text).unwrap()),
    ]);
    let user = proptest::option::of(("https://[a-z]{1,20}", proptest::option::of(any::<[u8; 16]>())));
    let access = (proptest::option::of(any::<[u8; 16]>()), proptest::collection::vec(any::<[u8; 16]>(), 0..4));
    (texts, options, rest, (reason, custody, user, access)).prop_map(
        |((principal, action), (dataset, pseudonym, purpose), (at, epoch, ids), (reason, custody, user, access))| {
            Decided {
                principal,
                action,
                dataset: dataset.map(|d| DatasetId::parse(&d).unwrap()),
                pseudonym: pseudonym.map(Pseudonym),
                end_user: user
                    .filter(|_| custody.is_none())
                    .map(|(issuer, pseudonym)| EndUserName { issuer, pseudonym: pseudonym.map(Pseudonym) }),
                consent: access.0.filter(|_| custody.is_none()).map(ConsentId),
                grants: if custody.is_none() { access.1.into_iter().map(GrantId).collect() } else { Vec::new() },
                purpose: purpose.map(|p| Purpose::parse(&p).unwrap()),
                reason: reason.map(|r| Reason::parse(&r).unwrap()),
                custody,
                at: Timestamp(at),
                epoch,
                policies: Policies::of(&ids),
            }
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Done), Just(Status::Failed), Just(Status::Cancelled), Just(Status::Partial)]
}

fn body() -> impl Strategy<Value = Body> {
    let key = || proptest::option::of(key());
    prop_oneof![
        (decided(), key(), any::<u32>()).prop_map(|(decided, key, items)| Body::Intent { decided, key, items }),
        (any::<u64>(), status(), "\\PC{0,60}", key(), any::<u32>())
            .prop_map(|(intent, status, reason, key, items)| { Body::Outcome { intent, status, reason, key, items } }),
        (decided(), "[a-z]{0,9}", "\\PC{0,60}").prop_map(|(decided, check, reason)| Body::Refused {
            decided,
            check,
            reason
        }),
        (any::<u64>(), "\\PC{0,60}", "[A-Z]{0,9}", "[a-z]{0,9}", key()).prop_map(
            |(intent, principal, action, detail, key)| Body::Control { intent, principal, action, detail, key }
        ),
        ("[a-z_]{0,20}", "[a-z_]{0,20}", any::<u64>(), any::<u64>())
            .prop_map(|(event, detail, first, second)| { Body::System { event, detail, first, second } }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let head = (any::<u64>(), any::<u64>(), any::<[u8; 16]>(), proptest::option::of(any::<[u8; 16]>()));
    let link = proptest::option::of((name(), 1..=u64::MAX, any::<[u8; 32]>()));
    (head, link, body()).prop_map(|((index, time, salt, request), link, body)| Entry {
        index,
        time: Timestamp(time),
        salt,
        request: request.map(RequestId),
        link: link.map(|(tenant, sequence, previous)| Link {
            tenant: TenantId::parse(&tenant).unwrap(),
            sequence,
            previous,
        }),
        body,
    })
}

proptest! {
    #[test]
    fn round_trip_and_no_truncation_or_addition_is_read(entry in entry()) {
        let bytes = entry.encode();
        prop_assert_eq!(&Entry::decode(&bytes).unwrap(), &entry);
        for len in 0..bytes.len() {
            prop_assert!(Entry::decode(&bytes[..len]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(Entry::decode(&longer).is_err());
    }

    #[test]
    fn what_is_read_from_altered_bytes_is_written_the_same(entry in entry(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(read) = Entry::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes, "two ways to write one entry");
        }
    }

    #[test]
    fn junk_is_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..11u8) {
        if let [first, second, ..] = bytes.as_mut_slice() {
            (*first, *second) = (1, kind);
        }
        if let Ok(read) = Entry::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}

fn longest_custody() -> Custody {
    let root = |n: usize| RootId::parse(&format!("a:{n}{}", "x".repeat(MAX_ROOT_ID - 3))).unwrap();
    Custody::replicated((0..MAX_REPLICAS).map(root).collect()).unwrap()
}

#[test]
fn the_longest_entry_fits() {
    let ids: Vec<String> = (0..5000).map(|n| format!("{n:0100}")).collect();
    let policies = Policies::of(&ids);
    assert!(policies.listed.len() > 100 && policies.digest.is_some());
    assert_eq!(policies.total, 5000);
    let longest = "a".repeat(63);
    let entry = Entry {
        index: u64::MAX,
        time: Timestamp(u64::MAX),
        salt: [1; 16],
        request: Some(RequestId([1; 16])),
        link: Some(Link { tenant: TenantId::parse(&longest).unwrap(), sequence: 1, previous: [0; 32] }),
        body: Body::Refused {
            decided: Decided {
                principal: "p".repeat(MAX_PRINCIPAL),
                action: "a".repeat(MAX_CODE),
                dataset: Some(DatasetId::parse(&longest).unwrap()),
                pseudonym: Some(Pseudonym([1; 16])),
                end_user: None,
                consent: None,
                grants: Vec::new(),
                purpose: Some(Purpose::parse(&longest).unwrap()),
                reason: Some(Reason::parse(&"r".repeat(512)).unwrap()),
                custody: Some(longest_custody()),
                at: Timestamp(1),
                epoch: 1,
                policies,
            },
            check: "c".repeat(MAX_CODE),
            reason: "r".repeat(MAX_CODE),
        },
    };
    let bytes = entry.encode();
    assert!(bytes.len() < MAX_ENTRY, "{}", bytes.len());
    assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    // The ids that are not listed are still bound.
    let mut other = ids.clone();
    other[4999] = "another".to_owned();
    assert_ne!(Policies::of(&other).digest, Policies::of(&ids).digest);
}

/// An entry of before end users were in the log is read, and written, as it was; additions are read only as they are
/// written.
#[test]
fn additions_have_one_encoding_and_older_kinds_stay() {
    let refused_by = |end_user, consent, grants| Entry {
        index: 1,
        time: Timestamp(2),
        salt: [3; 16],
        request: None,
        link: None,
        body: Body::Refused {
            decided: Decided {
                principal: "p".into(),
                action: "Decrypt".into(),
                dataset: None,
                pseudonym: None,
                end_user,
                consent,
                grants,
                purpose: None,
                reason: None,
                custody: None,
                at: Timestamp(4),
                epoch: 5,
                policies: Policies::default(),
            },
            check: "end_user".into(),
            reason: "r".into(),
        },
    };
    let refused = |end_user| refused_by(end_user, None, Vec::new());
    let old = refused(None).encode();
    assert_eq!(old[1], 3);
    let new = refused(Some(EndUserName { issuer: "i".into(), pseudonym: None })).encode();
    assert_eq!(new[1], 9);
    // Behind the head of 36 bytes: one addition, tag 1, 4 bytes: LP("i"), no pseudonym.
    assert_eq!(new[36..44], [1, 1, 0, 4, 0, 1, b'i', 0]);
    assert_eq!(new[44..], old[36..]);
    let edited = |at: usize, to: u8| {
        let mut bytes = new.clone();
        bytes[at] = to;
        Entry::decode(&bytes)
    };
    assert!(Entry::decode(&new).is_ok());
    for (at, to) in [(36, 0), (36, 2), (37, 0), (37, 2), (37, 255), (39, 3), (39, 5)] {
        assert!(edited(at, to).is_err(), "byte {at} as {to}");
    }
    let consented = refused_by(None, Some(ConsentId([7; 16])), vec![GrantId([8; 16]), GrantId([9; 16])]).encode();
    let additions = [&[2, 2, 0, 16][..], &[7; 16], &[3, 0, 33, 2], &[8; 16], &[9; 16]].concat();
    assert_eq!((consented[1], &consented[36..36 + additions.len()]), (9, additions.as_slice()));
    assert_eq!(consented[36 + additions.len()..], old[36..]);
    for (at, to) in [(36, 1), (37, 3), (39, 15), (56, 2), (58, 32), (59, 0), (59, 1), (59, 3), (59, 201)] {
        let mut bytes = consented.clone();
        bytes[at] = to;
        assert!(Entry::decode(&bytes).is_err(), "byte {at} as {to}");
    }
}

/// The worked example of docs/audit.md.
#[test]
fn the_example_of_the_specification() {
    let tenant = TenantId::parse("acme").unwrap();
    let entry = Entry {
        index: 5,
        time: Timestamp(1_700_000_000_000),
        salt: *b"0123456789abcdef",
        request: Some(RequestId([0x11; 16])),
        link: Some(Link { previous: first_previous(&tenant), tenant, sequence: 1 }),
        body: Body::Outcome { intent: 4, status: Status::Failed, reason: "tag".into(), key: None, items: 0 },
    };
    let hex = hex::encode(entry.encode());
    let document = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit.md"));
    let joined: String = document.split_whitespace().collect();
    assert!(joined.contains(&hex), "docs/audit.md does not show {hex}");
    let leaf = hex::encode(super::super::merkle::leaf_hash(&entry.encode()));
    assert!(joined.contains(&leaf), "docs/audit.md does not show {leaf}");
}
