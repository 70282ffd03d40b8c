//! Stores with many keys, written as rows: a million calls that make one key each would take an hour.
//!
//! The rows are those that the vault writes itself; it reads them strictly, so a difference would show at once.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use futures_util::future::join_all;
use vault_core::envelope::Scope;
use vault_core::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use vault_core::keys::WrappingKey;
use vault_core::kms::{EncryptionContext, Layer};
use vault_core::secret::Key32;
use vault_core::store::{Expect, MAX_BATCH, Store, Table, Write};

use crate::bed::{BenchRoot, DATASET, INSTANCE, ROOT};

/// When all rows were made, in milliseconds since 1970.
const MADE: u64 = 1_790_000_000_000;
/// Batches handed to the store at a time: its writer puts some of them into one commit.
const AT_ONCE: usize = 16;

/// Rows on their way to a store.
pub struct Filler<'a> {
    store: &'a dyn Store,
    batches: Vec<Vec<Write>>,
    rows: u64,
}

impl<'a> Filler<'a> {
    /// To this store.
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, batches: vec![Vec::new()], rows: 0 }
    }

    fn add(&mut self, rows: Vec<Write>) {
        self.rows += rows.len() as u64;
        if self.batches.last().unwrap().len() + rows.len() > MAX_BATCH {
            if self.batches.len() == AT_ONCE {
                self.flush();
            }
            self.batches.push(Vec::new());
        }
        self.batches.last_mut().unwrap().extend(rows);
    }

    fn flush(&mut self) {
        let batches = std::mem::take(&mut self.batches);
        let commits = batches.into_iter().map(|writes| self.store.commit(writes));
        pollster::block_on(join_all(commits)).into_iter().for_each(|done| done.unwrap());
    }

    /// Writes what is left; how many rows it was in all.
    pub fn finish(mut self) -> u64 {
        self.flush();
        self.rows
    }

    /// A tenant with its tenant key and its dataset; no side key, so no subject of it can be named in a call.
    pub fn tenant(&mut self, root: &BenchRoot, tenant: &TenantId) -> WrappingKey {
        let (key, wrapped) = root.make(&root_context(tenant));
        let tenant_key =
            format!(r#"{{"root":"{ROOT}","wrapped":"{}","state":"active","created":{MADE}}}"#, BASE64.encode(wrapped));
        let row = format!(r#"{{"state":"active","key_version":1,"created":{MADE},"updated":{MADE}}}"#);
        let version = KeyVersion::FIRST;
        self.add(vec![
            write(Table::Tenants, &[tenant.as_str().as_bytes()], row),
            write(Table::TenantKeys, &[tenant.as_str().as_bytes(), &version.0.to_be_bytes()], tenant_key),
            write(
                Table::Datasets,
                &[tenant.as_str().as_bytes(), DATASET.as_bytes()],
                format!(r#"{{"created":{MADE}}}"#),
            ),
        ]);
        WrappingKey::derive(&key, tenant, version).unwrap()
    }

    /// A data key of the tenant's dataset, or of a subject. The row of the first subject does not list its key, as if an
    /// earlier version had written it.
    pub fn data_key(&mut self, wrapping: &WrappingKey, tenant: &TenantId, subject: Option<&Subject>, id: KeyId) {
        let scope =
            Scope { tenant: tenant.clone(), dataset: DatasetId::parse(DATASET).unwrap(), subject: subject.cloned() };
        let wrapped = wrapping.wrap(&scope, id, KeyVersion::FIRST, &Key32::generate().unwrap()).unwrap();
        let mut row = format!(r#"{{"dataset":"{DATASET}","#);
        if let Some(subject) = subject {
            write!(row, r#""subject":"{}","#, subject.as_str()).unwrap();
        }
        write!(
            row,
            r#""version":1,"tenant_key_version":1,"wrapped":"{}","state":"active","created":{MADE}}}"#,
            BASE64.encode(wrapped)
        )
        .unwrap();
        let tenant = tenant.as_str().as_bytes();
        let of = subject.map_or("", Subject::as_str).as_bytes();
        let active = format!(r#"{{"key_id":"{}","version":1}}"#, BASE64.encode(id.0));
        let mut rows = vec![
            write(Table::DataKeys, &[tenant, &id.0], row),
            write(Table::ActiveKeys, &[tenant, DATASET.as_bytes(), of], active),
        ];
        if subject.is_some() {
            let keys = if id == key_id(0) { String::new() } else { format!(r#","keys":"{}""#, BASE64.encode(id.0)) };
            let row = format!(r#"{{"state":"active","since":{MADE}{keys}}}"#);
            rows.push(write(Table::Subjects, &[tenant, of], row));
        }
        self.add(rows);
    }
}

/// The encryption context of a tenant's first key.
fn root_context(tenant: &TenantId) -> EncryptionContext {
    EncryptionContext {
        instance: INSTANCE.into(),
        tenant: Some(tenant.clone()),
        version: KeyVersion::FIRST,
        layer: Layer::TenantKey,
    }
}

fn write(table: Table, key: &[&[u8]], value: String) -> Write {
    Write { table, key: key.join(&0), expect: Expect::Absent, value: value.into_bytes(), revokes: false }
}

/// The wrapping key of a tenant that the vault made.
pub fn wrapping_key(store: &dyn Store, root: &BenchRoot, tenant: &TenantId) -> WrappingKey {
    let key = [tenant.as_str().as_bytes(), &KeyVersion::FIRST.0.to_be_bytes()].join(&0);
    let row = pollster::block_on(store.get(Table::TenantKeys, &key)).unwrap().unwrap();
    let text = String::from_utf8(row.value).unwrap();
    let wrapped = text.split(r#""wrapped":""#).nth(1).unwrap().split('"').next().unwrap();
    let key = root.open(&root_context(tenant), &BASE64.decode(wrapped).unwrap());
    WrappingKey::derive(&key, tenant, KeyVersion::FIRST).unwrap()
}

/// The `number`th id: as scattered as random ones, and found again without looking for it.
pub fn key_id(number: u64) -> KeyId {
    // SplitMix64, twice.
    let scattered = |seed: u64| {
        let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    KeyId((u128::from(scattered(number)) << 64 | u128::from(scattered(!number))).to_be_bytes())
}

/// The subject whose data key has this id. In the order of the ids, so that both tables are filled in order.
pub fn subject_of(id: KeyId) -> Subject {
    Subject::parse(&format!("user-{id}")).unwrap()
}

/// The `number`th tenant.
pub fn tenant_of(number: u64) -> TenantId {
    TenantId::parse(&format!("t{number:07}")).unwrap()
}

/// Gives a tenant this many subjects with a data key each.
pub fn subjects(store: &dyn Store, wrapping: &WrappingKey, tenant: &TenantId, count: u64) -> u64 {
    let mut ids: Vec<KeyId> = (0..count).map(key_id).collect();
    ids.sort_unstable();
    let mut filler = Filler::new(store);
    for id in ids {
        filler.data_key(wrapping, tenant, Some(&subject_of(id)), id);
    }
    filler.finish()
}

/// Makes this many tenants with a dataset and its data key each.
pub fn tenants(store: &dyn Store, root: &BenchRoot, count: u64) -> u64 {
    let mut filler = Filler::new(store);
    for number in 0..count {
        let tenant = tenant_of(number);
        let wrapping = filler.tenant(root, &tenant);
        filler.data_key(&wrapping, &tenant, None, key_id(number));
    }
    filler.finish()
}
