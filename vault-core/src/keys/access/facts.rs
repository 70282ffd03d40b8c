//! Consents and grants as decisions read them.
//!
//! What was opened is kept with the very index rows that led to it. The index is read for every decision, like the rows
//! of tenant and dataset (so from memory where the store allows that, and not longer than its lease); as each change
//! writes it, what is kept cannot outlive a change.

use std::sync::Arc;

use super::consents::ConsentRow;
use super::grants::GrantRow;
use super::index::AccessRow;
use super::sealed::{RowKey, SealedRow};
use crate::error::Error;
use crate::id::{ConsentId, DatasetId, GrantId, TenantId};
use crate::keys::keyring::Keyring;
use crate::keys::rows;
use crate::policy::{ConsentFacts, GrantFacts};
use crate::store::{Row, Table};
use crate::time::Timestamp;

/// Datasets whose consents and grants are kept. Beyond, all are read anew.
const MOST_KEPT: usize = 20_000;

/// What holds for a dataset, as the index led to it.
#[derive(Debug, Default)]
pub(in crate::keys) struct Access {
    index: [Option<Row>; 2],
    pub consents: Arc<[ConsentFacts]>,
    pub grants: Arc<[GrantFacts]>,
}

/// What is kept.
#[derive(Debug, Default)]
pub(in crate::keys) struct KnownAccess {
    of: papaya::HashMap<(TenantId, DatasetId), Arc<Access>>,
}

impl KnownAccess {
    fn keep(&self, name: (TenantId, DatasetId), access: Arc<Access>) {
        let of = self.of.pin();
        if of.len() >= MOST_KEPT {
            of.clear();
        }
        of.insert(name, access);
    }
}

impl Keyring {
    /// The consents and grants of a dataset. `own` and `all` say whether the dataset and the tenant have an index.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a row that the tenant's key did not seal, or an index that is not there;
    /// [`Error::Unavailable`], [`Error::RootKey`].
    pub(in crate::keys) async fn access(
        &self,
        (tenant, dataset): (&TenantId, &DatasetId),
        own: bool,
        all: bool,
    ) -> Result<Arc<Access>, Error> {
        if !own && !all {
            return Ok(Arc::default());
        }
        let mut index = [None, None];
        for (place, (there, of)) in index.iter_mut().zip([(own, Some(dataset)), (all, None)]) {
            if there {
                let found = self.parts.store.get_cached(Table::Access, &rows::access_key(tenant, of)).await?;
                let missing = || Error::corrupt("store", "table access: a row is missing");
                *place = Some(found.ok_or_else(missing)?);
            }
        }
        let name = (tenant.clone(), dataset.clone());
        if let Some(known) = self.known_access.of.pin().get(&name)
            && known.index == index
        {
            return Ok(Arc::clone(known));
        }
        let (consents, grants) = self.open_access(tenant, dataset, &index).await?;
        let access = Arc::new(Access { index, consents, grants });
        self.known_access.keep(name, Arc::clone(&access));
        Ok(access)
    }

    async fn open_access(
        &self,
        tenant: &TenantId,
        dataset: &DatasetId,
        index: &[Option<Row>],
    ) -> Result<(Arc<[ConsentFacts]>, Arc<[GrantFacts]>), Error> {
        let (mut consents, mut grants) = (Vec::new(), Vec::new());
        for row in index.iter().flatten() {
            let AccessRow { consents: some, grants: more } = rows::decode(Table::Access, row)?;
            consents.extend(some);
            grants.extend(more);
        }
        if consents.is_empty() && grants.is_empty() {
            return Ok(Default::default());
        }
        let key = self.row_key(tenant).await?;
        let mut found = Vec::with_capacity(consents.len());
        for id in consents {
            if let Some(row) = self.open_known::<ConsentRow>(&key, Table::Consents, tenant, id.0).await?
                && row.covers(dataset)
            {
                found.push(row.facts(id)?);
            }
        }
        let mut given = Vec::with_capacity(grants.len());
        for id in grants {
            if let Some(row) = self.open_known::<GrantRow>(&key, Table::Grants, tenant, id.0).await?
                && row.order.dataset == dataset.as_str()
            {
                given.push(row.facts(id));
            }
        }
        Ok((found.into(), given.into()))
    }

    /// A row that has not ended, perhaps from memory: what a row says never changes but by its end, and that changes the
    /// index too.
    async fn open_known<T: serde::de::DeserializeOwned>(
        &self,
        key: &RowKey,
        table: Table,
        tenant: &TenantId,
        id: [u8; 16],
    ) -> Result<Option<T>, Error> {
        let place = rows::named_key(tenant, id);
        // One that an index names and that is not there holds as little as one that has ended.
        let Some(row) = self.parts.store.get_cached(table, &place).await? else { return Ok(None) };
        if rows::decode::<SealedRow>(table, &row)?.ended {
            return Ok(None);
        }
        key.open(table, &place, &row).map(|(row, _)| Some(row))
    }

    /// Takes out of an index that is full what can hold no more.
    pub(super) async fn prune(
        &self,
        key: &RowKey,
        tenant: &TenantId,
        row: &mut AccessRow,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut consents: Vec<ConsentId> = Vec::new();
        for id in std::mem::take(&mut row.consents) {
            let found = self.open_known::<ConsentRow>(key, Table::Consents, tenant, id.0).await?;
            if found.is_some_and(|consent| consent.until.is_none_or(|until| now.0 < until)) {
                consents.push(id);
            }
        }
        let mut grants: Vec<GrantId> = Vec::new();
        for id in std::mem::take(&mut row.grants) {
            let found = self.open_known::<GrantRow>(key, Table::Grants, tenant, id.0).await?;
            if found.is_some_and(|grant| now.0 < grant.order.until) {
                grants.push(id);
            }
        }
        (row.consents, row.grants) = (consents, grants);
        Ok(())
    }
}
