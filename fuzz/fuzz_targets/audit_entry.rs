//! An entry of the audit log has one sequence of bytes: what is read is written again as it was, what is written is read
//! again as it was, and whatever else the bytes are is refused without a panic.
#![no_main]

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed};
use libfuzzer_sys::fuzz_target;
use vault_core::audit::{Body, Entry, KeyRef, Link, MAX_CODE, MAX_ENTRY, MAX_PRINCIPAL, Status};
use vault_core::id::{KeyId, KeyVersion, RequestId, TenantId};
use vault_core::time::Timestamp;

#[derive(Debug, Arbitrary)]
enum Kind {
    Outcome { intent: u64, status: u8, reason: String, items: u32 },
    Control { intent: u64, principal: String, action: String, detail: String },
    System { event: String, detail: String, first: u64, second: u64 },
}

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Entry {
        index: u64,
        time: u64,
        salt: [u8; 16],
        request: Option<[u8; 16]>,
        sequence: Option<u64>,
        key: Option<([u8; 16], u32, Option<u32>)>,
        kind: Kind,
        changes: Vec<Change>,
    },
}

fn read(bytes: &[u8]) -> Option<Entry> {
    let entry = Entry::decode(bytes).ok()?;
    assert!(bytes.len() <= MAX_ENTRY && entry.encode() == bytes, "read, and written otherwise");
    Some(entry)
}

fn short(text: String, most: usize) -> String {
    text.chars().scan(0, |len, c| { *len += c.len_utf8(); (*len <= most).then_some(c) }).collect()
}

fn body(kind: Kind, key: Option<KeyRef>) -> Body {
    let code = |text| short(text, MAX_CODE);
    match kind {
        Kind::Outcome { intent, status, reason, items } => {
            let status = [Status::Done, Status::Failed, Status::Cancelled, Status::Partial][usize::from(status % 4)];
            Body::Outcome { intent, status, reason: code(reason), key, items }
        }
        Kind::Control { intent, principal, action, detail } => {
            let principal = short(principal, MAX_PRINCIPAL);
            Body::Control { intent, principal, action: code(action), detail: code(detail), key }
        }
        Kind::System { event, detail, first, second } => {
            Body::System { event: code(event), detail: code(detail), first, second }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let (index, time, salt, request, sequence, key, kind, changes) = match input {
        Input::Bytes(bytes) => return drop(read(bytes)),
        Input::Entry { index, time, salt, request, sequence, key, kind, changes } => {
            (index, time, salt, request, sequence, key, kind, changes)
        }
    };
    let key = key.map(|(id, version, above)| {
        let named = KeyRef::new(KeyId(id), KeyVersion(version));
        above.map_or(named, |above| named.under(KeyVersion(above)))
    });
    let link = sequence.map(|sequence| Link {
        tenant: TenantId::parse("acme").unwrap(),
        sequence: sequence.max(1),
        previous: [7; 32],
    });
    let request = request.map(RequestId);
    let entry = Entry { index, time: Timestamp(time), salt, request, link, body: body(kind, key) };
    let bytes = entry.encode();
    assert_eq!(read(&bytes).as_ref(), Some(&entry));
    let spoiled = changed(&bytes, &changes);
    assert!(read(&spoiled).is_none_or(|other| (other == entry) == (spoiled == bytes)), "two texts for one entry");
});
