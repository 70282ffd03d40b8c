//! What the targets share: second implementations of formats, a vault in memory, and ways to spoil bytes.

#[path = "../../vault-core/tests/common/fixture.rs"]
mod fixture;
#[path = "../../vault-core/tests/common/pki.rs"]
mod pki;
#[path = "../../vault-core/tests/reference/mod.rs"]
pub mod reference;
#[path = "../../vault-core/tests/common/simfs.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod simfs;

pub mod bed;
pub mod change;
pub mod memory_store;
pub mod model;
pub mod note;
pub mod policies;
pub mod tokens;

use std::sync::LazyLock;

use vault_core::envelope::{DataKey, Scope};
use vault_core::id::{DatasetId, KeyId, KeyVersion, TenantId};
use vault_core::secret::{Key32, LockPolicy, set_lock_policy};

/// The data key of all targets.
pub const RAW: [u8; 32] = *b"a data key for fuzz targets only";
/// Its id.
pub const ID: [u8; 16] = *b"key id, 16 bytes";

/// Under a sanitizer and in containers little memory can be locked, and nothing here is secret.
pub fn unlocked() {
    set_lock_policy(LockPolicy::Allow);
}

/// A data key in a scope.
pub fn data_key(tenant: TenantId, dataset: DatasetId, subject: Option<vault_core::id::Subject>, version: u32) -> DataKey {
    unlocked();
    let raw = Key32::copy_of(&RAW).unwrap();
    DataKey::new(&raw, KeyId(ID), KeyVersion(version), Scope { tenant, dataset, subject }).unwrap()
}

/// The data key of tenant `acme`, dataset `customers`, version 1.
pub static KEY: LazyLock<DataKey> = LazyLock::new(|| {
    data_key(TenantId::parse("acme").unwrap(), DatasetId::parse("customers").unwrap(), None, 1)
});

/// The pairs as the library wants them: ascending, no key twice.
pub fn sorted(pairs: &[(String, String)]) -> std::collections::BTreeMap<&str, &str> {
    pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

/// A for [`KEY`], as the second implementation forms it.
pub fn context_of_key(pairs: &[(&str, &str)]) -> Vec<u8> {
    reference::context(&reference::header(&ID), "acme", "customers", None, 1, pairs)
}
