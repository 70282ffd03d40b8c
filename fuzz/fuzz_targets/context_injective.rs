//! The canonical context is injective: every A can be read back, by a reader that knows only the format, to exactly the
//! scope, version and pairs that it was made of.
#![no_main]

use blindvault_fuzz::{ID, data_key, reference, sorted};
use libfuzzer_sys::fuzz_target;
use vault_core::envelope::Context;
use vault_core::id::{DatasetId, Subject, TenantId};

fn take<'a>(a: &mut &'a [u8], len: usize) -> &'a [u8] {
    a.split_off(..len).expect("A ends early")
}

fn text<'a>(a: &mut &'a [u8]) -> &'a str {
    let len = u16::from_be_bytes(take(a, 2).try_into().unwrap());
    std::str::from_utf8(take(a, len.into())).expect("no UTF-8")
}

/// Text of the identifiers' alphabet, so that most inputs get past parsing.
fn name(bytes: &[u8]) -> String {
    let name = bytes.iter().map(|b| char::from(b"abcdefghijklmnopqrstuvwxyz0123._"[usize::from(b % 32)])).take(62);
    format!("x{}", name.collect::<String>())
}

fuzz_target!(|input: (&[u8], &[u8], Option<String>, u32, Vec<(String, String)>)| {
    let (tenant, dataset, subject, version, pairs) = input;
    let (tenant, dataset, pairs) = (name(tenant), name(dataset), sorted(&pairs));
    let Ok(of_subject) = subject.as_deref().map(Subject::parse).transpose() else { return };
    let Ok(context) = Context::from_pairs(pairs.clone()) else { return };
    let (of_tenant, of_dataset) = (TenantId::parse(&tenant).unwrap(), DatasetId::parse(&dataset).unwrap());
    let key = data_key(of_tenant, of_dataset, of_subject, version.max(1));
    let Ok(a) = context.canonical(&key) else { return };
    let mut rest = &a[..];
    assert_eq!(take(&mut rest, 18), b"blindvault/ctx/v1\0");
    assert_eq!(take(&mut rest, 22), reference::header(&ID));
    assert_eq!([text(&mut rest), text(&mut rest), text(&mut rest)], [&tenant, &dataset, &subject.unwrap_or_default()]);
    assert_eq!(take(&mut rest, 4), version.max(1).to_be_bytes());
    let count = u16::from_be_bytes(take(&mut rest, 2).try_into().unwrap());
    assert!((0..count).map(|_| (text(&mut rest), text(&mut rest))).eq(pairs));
    assert!(rest.is_empty());
});
