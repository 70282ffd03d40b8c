use super::*;
use crate::bundle::BundleRef;
use crate::id::DatasetId;
use crate::keys::access::GrantOrder;

const ID: ApprovalId = ApprovalId([7; 16]);

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn row(ordered: &Ordered) -> ApprovalRow {
    let row = ApprovalRow {
        v: VERSION,
        tenant: String::new(),
        bundle: None,
        grant: None,
        subject: None,
        pseudonym: None,
        change: None,
        reason: "because".into(),
        requester: "spiffe://ops.example/operator/alice".into(),
        person: "spiffe://ops.example/operator/alice".into(),
        requested: 1_700_000_000_000,
        expires: 1_700_000_600_000,
        required: Some(2),
        delay: Some(60_000),
        summary: vec!["one".into(), "two".into()],
        request_sha256: Fingerprint([0; 32]),
        votes: Vec::new(),
        state: ApprovalState::Pending,
        scheduled: None,
        decided_by: None,
        decided: None,
    };
    row.with(ordered)
}

fn orders() -> Vec<Ordered> {
    let custody = |text: &str| Custody::parse(text).unwrap();
    let grant = |roles: &[&str], until| {
        Ordered::Grant(GrantOrder {
            tenant: tenant(),
            dataset: DatasetId::parse("orders").unwrap(),
            workload: "spiffe://prod.example/ns/shop/sa/support".into(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            until: Timestamp(until),
        })
    };
    let bundle = |version, byte| Ordered::ActivatePolicy(BundleRef { version, digest: Fingerprint([byte; 32]) });
    vec![
        Ordered::ShredSubject(tenant(), Subject::parse("mia").unwrap()),
        Ordered::ShredSubject(tenant(), Subject::parse("noa").unwrap()),
        Ordered::ShredTenant(tenant()),
        Ordered::ShredTenant(TenantId::parse("globex").unwrap()),
        grant(&["reader"], 5),
        grant(&["reader", "writer"], 5),
        grant(&["reader"], 6),
        bundle(1, 1),
        bundle(2, 1),
        bundle(1, 2),
        Ordered::ResumeTenant(tenant(), 3),
        Ordered::ResumeTenant(tenant(), 4),
        Ordered::ChangeCustody(tenant(), custody("a:1"), 3),
        Ordered::ChangeCustody(tenant(), custody("a:1"), 4),
        Ordered::ChangeCustody(tenant(), custody("split(a:1,b:2)"), 3),
    ]
}

#[test]
fn whatever_can_be_asked_for_is_kept_and_has_a_hash_of_its_own() {
    let mut hashes = Vec::new();
    for ordered in orders() {
        let mut row = row(&ordered);
        row.request_sha256 = row.fingerprint(ID).unwrap();
        let text = serde_json::to_string(&row).unwrap();
        let read: ApprovalRow = serde_json::from_str(&text).unwrap();
        assert_eq!((read.ordered().unwrap(), &read), (ordered, &row));
        read.is_whole(ID).unwrap();
        assert!(read.is_whole(ApprovalId([8; 16])).is_err(), "under another name");
        assert!(!hashes.contains(&row.request_sha256), "{text}");
        hashes.push(row.request_sha256);
    }
}

#[test]
fn every_part_of_a_request_is_under_its_hash() {
    let mut whole = row(&Ordered::ResumeTenant(tenant(), 3));
    whole.request_sha256 = whole.fingerprint(ID).unwrap();
    let changes: [fn(&mut ApprovalRow); 12] = [
        |row| row.tenant = "globex".into(),
        |row| row.change = Some(ChangeRow::Resume { revision: 4 }),
        |row| row.reason = "another".into(),
        |row| row.requester = "spiffe://ops.example/operator/bob".into(),
        |row| row.person = "bob".into(),
        |row| row.requested += 1,
        |row| row.expires += 1,
        |row| row.required = Some(1),
        |row| row.delay = None,
        |row| row.summary = vec!["one".into()],
        // The same letters in other lines.
        |row| row.summary = vec!["onet".into(), "wo".into()],
        |row| row.v = 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut changed = whole.clone();
        change(&mut changed);
        assert!(matches!(changed.is_whole(ID), Err(Error::Corrupt { .. })), "change {at}");
    }
    // What is no part of the request is not.
    let mut voted = whole.clone();
    voted.state = ApprovalState::Scheduled;
    voted.scheduled = Some(5);
    voted.is_whole(ID).unwrap();
    let newer = ApprovalRow { v: 3, ..whole };
    assert!(newer.is_whole(ID).is_err());
}

/// As an earlier version wrote it.
const FIRST: &str = r#"{"tenant":"acme","subject":"mia","pseudonym":"00112233445566778899aabbccddeeff","reason":"because","requester":"spiffe://ops.example/operator/alice","requested":1700000000000,"expires":1700000600000,"request_sha256":"HASH","state":"pending"}"#;

#[test]
fn a_row_of_an_earlier_version_is_read_and_written_back_as_it_was() {
    let bytes = [
        &b"blindvault/approval/v1\0"[..],
        &ID.0,
        b"\0\x0cShredSubject\0\x04acme\0\x03mia\0\x07because\0\x23spiffe://ops.example/operator/alice",
        &1_700_000_000_000_u64.to_be_bytes(),
        &1_700_000_600_000_u64.to_be_bytes(),
    ]
    .concat();
    let hash = Fingerprint(crate::crypto::sha256(&[&bytes]));
    let text = FIRST.replace("HASH", &hash.to_string());
    let row: ApprovalRow = serde_json::from_str(&text).unwrap();
    assert_eq!((row.v, row.required()), (1, 1));
    row.is_whole(ID).unwrap();
    assert_eq!(serde_json::to_string(&row).unwrap(), text);
    let view = row.view(ID, Timestamp(1_700_000_000_001), None).unwrap();
    assert_eq!((view.state, view.summary.len(), view.requester_person), (ApprovalState::Pending, 0, view.requester));
}

#[test]
fn a_row_that_names_two_things_or_half_of_one_is_damage() {
    let good = row(&Ordered::ShredTenant(tenant()));
    let of = |change: fn(&mut ApprovalRow)| {
        let mut row = good.clone();
        change(&mut row);
        row.ordered()
    };
    let bad: [fn(&mut ApprovalRow); 4] = [
        |row| row.tenant = String::new(),
        |row| row.tenant = "Acme".into(),
        |row| {
            row.subject = Some("mia".into());
            row.change = Some(ChangeRow::Resume { revision: 1 });
        },
        |row| row.bundle = Some(BundleRow { version: 1, digest: Fingerprint([1; 32]) }),
    ];
    for bad in bad {
        assert!(matches!(of(bad), Err(Error::Corrupt { .. })));
    }
}
