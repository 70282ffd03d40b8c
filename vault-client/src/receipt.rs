//! Audit receipts: what to keep of a call.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vault_proto::v1;

/// Shows later, without the gateway, that the audit log held the entry of a call. Its [`text`](Self::text) is what to
/// keep, and what `vault-grpc audit receipt verify` and `audit verify --receipt` read. Nothing of it was verified here.
/// Copies are cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditReceipt(Arc<v1::AuditReceipt>);

// Numbers, bytes and text: each equals itself.
impl Eq for AuditReceipt {}

impl AuditReceipt {
    pub(crate) fn new(receipt: v1::AuditReceipt) -> Self {
        Self(Arc::new(receipt))
    }

    /// The entries that it names: each one's number in the log, and its leaf hash.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.entries.iter().map(|entry| (entry.index, &*entry.leaf_hash))
    }

    /// The log as it was: a signed checkpoint (C2SP tlog-checkpoint).
    pub fn checkpoint(&self) -> &str {
        &self.0.checkpoint
    }

    /// The receipt as text.
    pub fn text(&self) -> String {
        let mut out = "blindvault/audit-receipt/v1\n".to_owned();
        for entry in &self.0.entries {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "entry {} {}", entry.index, STANDARD.encode(&entry.leaf_hash));
        }
        for hash in self.0.hashes.chunks(32) {
            let _ = writeln!(out, "{}", STANDARD.encode(hash));
        }
        out.push('\n');
        out.push_str(&self.0.checkpoint);
        out
    }
}

/// The receipts of a batch, by item.
pub(crate) fn of_items(receipts: Vec<v1::AuditReceipt>) -> HashMap<u32, AuditReceipt> {
    let receipts = receipts.into_iter().map(AuditReceipt::new);
    receipts
        .flat_map(|receipt| receipt.0.entries.iter().map(|entry| (entry.item, receipt.clone())).collect::<Vec<_>>())
        .collect()
}
