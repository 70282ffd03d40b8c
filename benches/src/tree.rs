//! A log's tree in memory, and an entry as the gateway writes them.

use vault_core::Error;
use vault_core::audit::merkle::{Hash, Subtrees, leaf_hash, node_hash};
use vault_core::audit::{Body, Decided, Entry, KeyRef, Link, Policies, Pseudonym};
use vault_core::id::{DatasetId, KeyId, KeyVersion, Purpose, RequestId, TenantId};
use vault_core::time::Timestamp;

/// An intent to decrypt one value of a subject.
pub fn entry(index: u64) -> Entry {
    Entry {
        index,
        salt: [3; 16],
        time: Timestamp(1_700_000_000_000),
        request: Some(RequestId([5; 16])),
        link: Some(Link { tenant: TenantId::parse("acme").unwrap(), sequence: index + 1, previous: [7; 32] }),
        body: Body::Intent {
            decided: Decided {
                principal: "spiffe://prod.example/ns/billing/sa/invoices".to_owned(),
                action: "Decrypt".to_owned(),
                dataset: Some(DatasetId::parse("customers").unwrap()),
                pseudonym: Some(Pseudonym([9; 16])),
                end_user: None,
                consent: None,
                grants: Vec::new(),
                purpose: Some(Purpose::parse("billing").unwrap()),
                reason: None,
                custody: None,
                at: Timestamp(1_700_000_000_000),
                epoch: 7,
                policies: Policies { listed: vec!["services-use-their-tenants".to_owned()], total: 1, digest: None },
            },
            key: Some(KeyRef::new(KeyId([1; 16]), KeyVersion(2)).under(KeyVersion(1))),
            items: 1,
        },
    }
}

/// Every perfect subtree of a tree of so many leaves.
pub struct Tree {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over the numbers below `size`.
    pub fn of(size: u64) -> Self {
        let mut levels = vec![(0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect::<Vec<_>>()];
        while let Some(last) = levels.last().filter(|last| last.len() > 1) {
            let next = last.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
            levels.push(next);
        }
        Self { size, levels }
    }

    /// A leaf's hash.
    pub fn leaf(&self, index: u64) -> Hash {
        self.levels[0][index as usize]
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut at = self.size;
        let mut roots = Vec::new();
        for level in (0..self.levels.len()).rev() {
            if self.size >> level & 1 == 1 {
                roots.push(self.levels[level][(self.size >> level) as usize - 1]);
                at -= 1 << level;
            }
        }
        assert_eq!(at, 0);
        let last = roots.pop().unwrap();
        roots.iter().rev().fold(last, |right, left| node_hash(left, &right))
    }
}

impl Subtrees for Tree {
    fn subtree(&self, level: u32, index: u64) -> Result<Hash, Error> {
        Ok(self.levels[level as usize][index as usize])
    }
}
