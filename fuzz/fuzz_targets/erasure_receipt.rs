//! Erasure receipts and proof records are texts of one form each: what is read is written again as it was; and a signed
//! receipt verifies only as it was signed.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed_text};
use blindvault_fuzz::note::Signer;
use libfuzzer_sys::fuzz_target;
use vault_core::audit::LogVerifier;
use vault_core::id::{ApprovalId, TenantId};
use vault_core::keys::{Evicted, LeaseEnded, ReceiptText};
use vault_core::proof::ProofText;

static LOG: LazyLock<Signer> = LazyLock::new(|| Signer::new("example/log", 1));
static VERIFIER: LazyLock<LogVerifier> = LazyLock::new(|| LogVerifier::parse(&LOG.vkey()).unwrap());

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    text: &'a str,
    subject: Option<u8>,
    listed: Vec<(u8, u32)>,
    gateways: Vec<(bool, u8)>,
    numbers: (u64, u32, u64),
    due: bool,
    changes: Vec<Change>,
}

fn parse(text: &str) -> Option<ReceiptText> {
    let receipt = ReceiptText::parse(text).ok()?;
    assert_eq!(receipt.text(), text);
    Some(receipt)
}

fuzz_target!(|input: Input<'_>| {
    parse(input.text);
    assert!(ReceiptText::verify(input.text, &VERIFIER).is_err(), "of somebody who has no key");
    assert!(ProofText::parse(input.text).is_ok_and(|proof| proof.text() != input.text) == false);
    let time = || "2026-06-01T00:00:00.000Z".to_owned();
    let (evicted, ended): (Vec<_>, Vec<_>) = input.gateways.iter().copied().partition(|(evicted, _)| *evicted);
    let name = |(_, number): (bool, u8)| format!("gw-{number}");
    let receipt = ReceiptText {
        instance: "shop-1".into(),
        approval: ApprovalId([7; 16]),
        tenant: TenantId::parse("acme").unwrap(),
        subject: input.subject.map(|byte| format!("{byte:02x}").repeat(16)),
        decided: time(),
        data_keys: input.numbers.0,
        digest: "ab".repeat(32),
        listed: input.listed.iter().map(|(byte, version)| (format!("{byte:02x}").repeat(16), *version)).collect(),
        tenant_key_version: input.numbers.1,
        due: input.due.then(time),
        evicted: evicted.into_iter().map(|one| Evicted { gateway: name(one), confirmed: time() }).collect(),
        lease_ended: ended.into_iter().map(|one| LeaseEnded { gateway: name(one), ended: time() }).collect(),
        audit_entry: input.numbers.2,
    };
    assert_eq!(parse(&receipt.text()).as_ref(), Some(&receipt));
    parse(&changed_text(&receipt.text(), &input.changes));
    let note = LOG.note(&receipt.text());
    assert_eq!(ReceiptText::verify(&note, &VERIFIER).as_ref(), Ok(&receipt));
    let spoiled = changed_text(&note, &input.changes);
    assert!(ReceiptText::verify(&spoiled, &VERIFIER).is_ok_and(|other| other != receipt) == false, "not what was signed");
});
