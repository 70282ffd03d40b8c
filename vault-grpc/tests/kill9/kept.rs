//! What callers kept, held against the log and against the file that is its mandatory sink.

use std::collections::HashMap;
use std::path::PathBuf;

use vault_client::AuditReceipt;
use vault_core::audit::{self, LogVerifier, VerifyOptions, verify};
use vault_core::fs::OsFs;

pub(crate) struct Kept {
    pub(crate) log: PathBuf,
    pub(crate) sink: PathBuf,
    pub(crate) verifier: String,
}

impl Kept {
    /// Each receipt's entries are in the log with the leaf hash that it names, the log extends each receipt's head, and
    /// the sink has each of the entries.
    pub(crate) fn hold(&self, receipts: &[AuditReceipt]) {
        let verifier = LogVerifier::parse(&self.verifier).unwrap();
        let mut options = VerifyOptions::default();
        for receipt in receipts {
            options.keep(&audit::AuditReceipt::parse(&receipt.text()).unwrap(), &verifier).unwrap();
        }
        let report = verify(&OsFs, &self.log, &verifier, &options).unwrap();
        assert!(report.is_sound(), "{report}");
        let lines = self.lines();
        for (index, leaf) in receipts.iter().flat_map(AuditReceipt::entries) {
            let line = lines.get(&index);
            assert_eq!(line.map(String::as_str), Some(hex::encode(leaf).as_str()), "entry {index} in the sink");
        }
    }

    /// The leaf hashes in the sink by index. What comes twice says the same twice.
    fn lines(&self) -> HashMap<u64, String> {
        let text = std::fs::read_to_string(&self.sink).unwrap();
        let mut found = HashMap::new();
        // The last line may be half of one: the gateway was killed while it wrote it, or is writing it now.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let index = line["metadata"]["sequence"].as_u64().unwrap();
            let leaf = line["unmapped"]["leaf_hash"].as_str().unwrap().to_owned();
            let before = found.insert(index, leaf.clone());
            assert!(before.is_none_or(|before| before == leaf), "entry {index} in the sink");
        }
        found
    }
}
