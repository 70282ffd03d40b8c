//! Criterion suites, each with its reference beside it (`benches/`), and the tools that measure beside them
//! (`src/bin/`). Here: what both share.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that cannot work must stop")]

pub mod bed;
pub mod cached;
pub mod counting;
pub mod fill;
pub mod lookup;

pub mod policies;
pub mod tree;

use ring::aead::{AES_256_GCM, LessSafeKey, Nonce, UnboundKey};
use vault_core::envelope::{Context, DataKey, Scope};
use vault_core::id::{DatasetId, KeyId, KeyVersion, TenantId};
use vault_core::secret::Key32;

/// Plaintext lengths, in bytes.
pub const SIZES: [usize; 7] = [16, 64, 256, 1024, 4096, 65_536, 1_048_576];
/// The key that is measured with, ours and ring's.
pub const RAW: [u8; 32] = [7; 32];
/// More nonce prefixes than a slot keeps record keys.
pub const PREFIXES: usize = 9;

/// A data key.
pub fn data_key() -> DataKey {
    let scope = Scope {
        tenant: TenantId::parse("acme").unwrap(),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: None,
    };
    DataKey::new(&Key32::copy_of(&RAW).unwrap(), KeyId([1; 16]), KeyVersion::FIRST, scope).unwrap()
}

/// An encryption context of two pairs.
pub fn context() -> Context {
    Context::from_pairs([("column", "iban"), ("table", "cust")]).unwrap()
}

/// Ring's AES-256-GCM.
pub fn ring_key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).unwrap())
}

/// A nonce that is new each time and costs nothing.
pub fn counted(count: &mut u64) -> Nonce {
    *count += 1;
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&count.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
