//! Audit receipts as answers carry them.

use vault_core::Error;
use vault_core::audit::{AuditReceipt, Audited};
use vault_proto::v1;

/// The receipt of a call of one value.
pub(super) fn of(audited: &Audited) -> Result<Option<v1::AuditReceipt>, Error> {
    Ok(AuditReceipt::of([audited])?.into_iter().next().map(|receipt| message(receipt, |_| 0)))
}

/// The receipts of a batch's items, those that failed left out; each entry names its item.
pub(super) fn of_batch<'a>(items: impl Iterator<Item = Option<&'a Audited>>) -> Result<Vec<v1::AuditReceipt>, Error> {
    let mut done: Vec<(u64, u32, &Audited)> = items
        .zip(0..)
        .filter_map(|(audited, item)| audited.map(|audited| (audited.entry().index, item, audited)))
        .collect();
    done.sort_unstable_by_key(|(index, ..)| *index);
    let receipts = AuditReceipt::of(done.iter().map(|(.., audited)| *audited))?;
    let item = |index: u64| {
        let found = done.binary_search_by_key(&index, |(index, ..)| *index).ok().and_then(|at| done.get(at));
        found.map(|(_, item, _)| *item).unwrap_or_default()
    };
    Ok(receipts.into_iter().map(|receipt| message(receipt, item)).collect())
}

fn message(receipt: AuditReceipt, item: impl Fn(u64) -> u32) -> v1::AuditReceipt {
    let entry = |entry: &vault_core::audit::Receipt| v1::AuditReceiptEntry {
        index: entry.index,
        leaf_hash: entry.leaf_hash.to_vec().into(),
        item: item(entry.index),
    };
    v1::AuditReceipt {
        entries: receipt.entries.iter().map(entry).collect(),
        hashes: receipt.hashes.concat().into(),
        checkpoint: receipt.checkpoint,
    }
}
