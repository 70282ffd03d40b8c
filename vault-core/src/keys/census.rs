//! What there is: tenants, datasets, keys and their ages, approvals that wait, how fast erasures took effect. Read from the
//! rows page by page; no key is unwrapped.

use std::collections::BTreeMap;

use super::approval::{ApprovalFilter, ApprovalState};
use super::keyring::Keyring;
use super::receipt::ReceiptText;
use super::rows::{self, DataKeyRow, DatasetRow, KeyState, TenantKeyRow, TenantRow, TenantState};
use crate::audit::LogVerifier;
use crate::error::Error;
use crate::id::ApprovalId;
use crate::store::{BoxFuture, Scanned, Table};
use crate::time::Timestamp;

/// Rows of one page.
const PAGE: usize = 256;
/// Most erasures that are told one by one; of more, the newest.
const MOST_ERASURES: usize = 10_000;
const DAY: u64 = 86_400_000;

/// What is awaited after each page: a pause, or nothing; an error gives up.
pub type Between = dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync;

/// When keys are due, as far as a census tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CensusLimits {
    /// The age at which a tenant key is rotated, in milliseconds; `None` for never.
    pub tenant_key_age_millis: Option<u64>,
    /// The age at which a data key is rotated, in milliseconds; `None` for never.
    pub data_key_age_millis: Option<u64>,
    /// How often a data key seals before it is rotated.
    pub data_key_uses: u64,
}

/// Upper bounds of the classes of [`KeyAges::by_age`], in days; the last class is what is older than all of them.
pub const AGE_BOUNDS_DAYS: [u64; 6] = [7, 30, 90, 180, 365, 730];

/// The active versions of one kind of key, of tenants that are not destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyAges {
    /// How many.
    pub count: u64,
    /// The age of the oldest, in milliseconds; 0 if there is none.
    pub oldest_millis: u64,
    /// How many have reached their age, or sealed as often as they should: their rotation is due.
    pub due: u64,
    /// How many lie in each class of [`AGE_BOUNDS_DAYS`].
    pub by_age: [u64; AGE_BOUNDS_DAYS.len() + 1],
}

impl KeyAges {
    fn add(&mut self, age: u64, due: bool) {
        self.count += 1;
        self.oldest_millis = self.oldest_millis.max(age);
        self.due += u64::from(due);
        let class = AGE_BOUNDS_DAYS.iter().position(|days| age < days * DAY).unwrap_or(AGE_BOUNDS_DAYS.len());
        if let Some(count) = self.by_age.get_mut(class) {
            *count += 1;
        }
    }
}

/// One erasure that was carried out, by its receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// From when on no key was used any more.
    pub decided: Timestamp,
    /// How long after that the last gateway had confirmed that the keys are wiped, in milliseconds; `None` if none confirmed.
    pub last_confirmed_millis: Option<u64>,
    /// Gateways that did not confirm: their lease was waited for.
    pub leases_waited_for: u64,
}

/// What a census found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// When it began.
    pub at: Timestamp,
    /// Rows that were read.
    pub rows: u64,
    /// Tenants that are active, suspended, destroyed.
    pub tenants: [u64; 3],
    /// Datasets of tenants that are not destroyed.
    pub datasets: u64,
    /// How many of these are released only under consent.
    pub consent_required: u64,
    /// Tenant keys.
    pub tenant_keys: KeyAges,
    /// Data keys.
    pub data_keys: KeyAges,
    /// When each approval that still waits was asked for: how many, and the oldest.
    pub pending: u64,
    /// When the oldest of them was asked for.
    pub oldest_pending: Option<Timestamp>,
    /// Approvals that nobody decided in time, by the day on which they expired (days since 1970).
    pub expired: BTreeMap<u64, u64>,
    /// Erasures, oldest first, 10,000 at most.
    pub erasures: Vec<Erasure>,
    /// Receipts that are not what this log signed.
    pub bad_receipts: u64,
}

impl Keyring {
    /// Counts. `between` is awaited after each page of 256 rows, to pause or to give up; pages are of one moment, the census
    /// is not. `verifier` is the audit log's key, which receipts are signed with.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]; what `between` returns.
    pub async fn census(
        &self,
        limits: CensusLimits,
        verifier: &LogVerifier,
        between: &Between,
    ) -> Result<Census, Error> {
        let now = self.parts.clock.now();
        let mut census = Census { at: now, ..Census::default() };
        // Tenants come in the order of their names, and so do the rows of the other tables: what a tenant is, is known when
        // its rows come. Only the names of those that are destroyed are kept.
        let mut destroyed = std::collections::BTreeSet::new();
        let mut tenants = BTreeMap::new();
        self.each(Table::Tenants, between, &mut |scanned| {
            let row: TenantRow = rows::decode(Table::Tenants, &scanned.row)?;
            census.rows += 1;
            let place = match row.state {
                TenantState::Active => 0,
                TenantState::Suspended => 1,
                TenantState::Destroyed => 2,
            };
            if let Some(count) = census.tenants.get_mut(place) {
                *count += 1;
            }
            if row.state == TenantState::Destroyed {
                destroyed.insert(scanned.key.clone());
            } else {
                tenants.insert(scanned.key.clone(), row.key_version);
            }
            Ok(())
        })
        .await?;
        let owner = |key: &[u8]| key.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        self.each(Table::Datasets, between, &mut |scanned| {
            let row: DatasetRow = rows::decode(Table::Datasets, &scanned.row)?;
            census.rows += 1;
            if !destroyed.contains(&owner(&scanned.key)) {
                census.datasets += 1;
                census.consent_required += u64::from(row.consent_required);
            }
            Ok(())
        })
        .await?;
        self.each(Table::TenantKeys, between, &mut |scanned| {
            let row: TenantKeyRow = rows::decode(Table::TenantKeys, &scanned.row)?;
            census.rows += 1;
            let version = scanned.key.last_chunk().copied().map(u32::from_be_bytes);
            if row.state == KeyState::Active && tenants.get(&owner(&scanned.key)).copied() == version {
                let age = now.0.saturating_sub(row.created);
                census.tenant_keys.add(age, limits.tenant_key_age_millis.is_some_and(|limit| age >= limit));
            }
            Ok(())
        })
        .await?;
        self.each(Table::DataKeys, between, &mut |scanned| {
            let row: DataKeyRow = rows::decode(Table::DataKeys, &scanned.row)?;
            census.rows += 1;
            if row.state == KeyState::Active && !destroyed.contains(&owner(&scanned.key)) {
                let age = now.0.saturating_sub(row.created);
                let due =
                    limits.data_key_age_millis.is_some_and(|limit| age >= limit) || row.uses >= limits.data_key_uses;
                census.data_keys.add(age, due);
            }
            Ok(())
        })
        .await?;
        self.each(Table::Receipts, between, &mut |scanned| {
            census.rows += 1;
            let note = std::str::from_utf8(&scanned.row.value).unwrap_or_default();
            match ReceiptText::verify(note, verifier).ok().as_ref().and_then(erasure) {
                Some(erasure) => census.erasures.push(erasure),
                None => census.bad_receipts += 1,
            }
            Ok(())
        })
        .await?;
        census.erasures.sort_by_key(|erasure| erasure.decided);
        let more = census.erasures.len().saturating_sub(MOST_ERASURES);
        census.erasures.drain(..more);
        self.waiting_approvals(&mut census, between).await?;
        Ok(census)
    }

    async fn waiting_approvals(&self, census: &mut Census, between: &Between) -> Result<(), Error> {
        let mut after: Option<ApprovalId> = None;
        loop {
            let all = ApprovalFilter { state: None, waits_for: None };
            let (page, next) = self.approvals(all, after, PAGE).await?;
            for approval in &page {
                census.rows += 1;
                match approval.state {
                    ApprovalState::Pending => {
                        census.pending += 1;
                        let oldest = census.oldest_pending.get_or_insert(approval.requested);
                        *oldest = (*oldest).min(approval.requested);
                    }
                    ApprovalState::Expired => *census.expired.entry(approval.expires.0 / DAY).or_default() += 1,
                    _ => {}
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
            between().await?;
        }
    }

    async fn each(
        &self,
        table: Table,
        between: &Between,
        one: &mut (dyn FnMut(&Scanned) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.parts.store.scan(table, b"", after.as_deref(), PAGE).await?;
            page.iter().try_for_each(&mut *one)?;
            match page.last().filter(|_| page.len() == PAGE) {
                Some(last) => after = Some(last.key.clone()),
                None => return Ok(()),
            }
            between().await?;
        }
    }
}

fn erasure(receipt: &ReceiptText) -> Option<Erasure> {
    let decided = Timestamp::parse_rfc3339(&receipt.decided)?;
    let confirmed = |one: &super::receipt::Evicted| Timestamp::parse_rfc3339(&one.confirmed);
    let last = receipt.evicted.iter().filter_map(confirmed).max();
    Some(Erasure {
        decided,
        last_confirmed_millis: last.map(|last| last.millis_since(decided)),
        leases_waited_for: receipt.lease_ended.len() as u64,
    })
}
