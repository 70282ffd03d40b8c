//! Datasets: declared, read, listed.

use super::rotation::DESTROYED;
use super::{dataset_of, tenant_of};
use crate::audit::Recorded;
use crate::error::Error;
use crate::id::{DatasetId, TenantId};
use crate::keys::keyring::{Keyring, in_time};
use crate::keys::rows::{self, DatasetRow, TenantState};
use crate::policy::{CreateDataset, GetDataset, ListDatasets, Permit};
use crate::store::{Expect, Table};
use crate::time::Timestamp;

/// A dataset as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its id.
    pub id: DatasetId,
    /// How sensitive it is, for policies.
    pub classification: Option<String>,
    /// Where it must stay, for policies.
    pub residency: Option<String>,
    /// Whether its plaintext is released only for purposes that the tenant consented to.
    pub consent_required: bool,
    /// When it was declared.
    pub created: Timestamp,
    /// Grows with each change.
    pub revision: u64,
}

/// What is declared of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatasetProperties {
    /// How sensitive it is, for policies.
    pub classification: Option<String>,
    /// Where it must stay, for policies.
    pub residency: Option<String>,
    /// Whether its plaintext is released only for purposes that the tenant consented to. It stays so: nothing takes it
    /// back.
    pub consent_required: bool,
}

impl Keyring {
    /// Declares a dataset.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::AlreadyExists`]; [`Error::Unavailable`].
    pub async fn create_dataset(
        &self,
        recorded: &Recorded<Permit<CreateDataset>>,
        properties: DatasetProperties,
    ) -> Result<Dataset, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let (tenant, dataset) = (tenant_of(recorded)?, dataset_of(recorded)?);
        let (owner, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        if owner.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        let DatasetProperties { classification, residency, consent_required } = properties;
        let created = self.parts.clock.now().0;
        let row = DatasetRow { classification, residency, created, consent_required, access: false };
        let write = rows::write(Table::Datasets, rows::dataset_key(tenant, dataset), Expect::Absent, &row)?;
        match self.parts.store.commit(vec![write]).await {
            Ok(()) => Ok(dataset_view(tenant.clone(), dataset.clone(), row, 1)),
            Err(Error::Conflict(_)) => Err(Error::AlreadyExists("dataset")),
            Err(error) => Err(error),
        }
    }

    /// Reads a dataset's declaration.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn get_dataset(&self, recorded: &Recorded<Permit<GetDataset>>) -> Result<Dataset, Error> {
        let (tenant, dataset) = (tenant_of(recorded)?, dataset_of(recorded)?);
        let (row, stored) = self
            .row::<DatasetRow>(Table::Datasets, &rows::dataset_key(tenant, dataset))
            .await?
            .ok_or(Error::NotFound("dataset"))?;
        Ok(dataset_view(tenant.clone(), dataset.clone(), row, stored.version))
    }

    /// Lists up to `limit` datasets of a tenant after one, in order of their ids.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn list_datasets(
        &self,
        recorded: &Recorded<Permit<ListDatasets>>,
        after: Option<&DatasetId>,
        limit: usize,
    ) -> Result<Vec<Dataset>, Error> {
        let tenant = tenant_of(recorded)?;
        if self.tenant_row(tenant).await?.is_none() {
            return Err(Error::NotFound("tenant"));
        }
        let prefix = rows::of_tenant(tenant);
        let after = after.map(|dataset| rows::dataset_key(tenant, dataset));
        let found = self.parts.store.scan(Table::Datasets, &prefix, after.as_deref(), limit).await?;
        found
            .iter()
            .map(|scanned| {
                let id = rows::id_from(scanned.key.get(prefix.len()..).unwrap_or_default(), DatasetId::parse)?;
                Ok(dataset_view(tenant.clone(), id, rows::decode(Table::Datasets, &scanned.row)?, scanned.row.version))
            })
            .collect()
    }
}

fn dataset_view(tenant: TenantId, id: DatasetId, row: DatasetRow, revision: u64) -> Dataset {
    Dataset {
        tenant,
        id,
        classification: row.classification,
        residency: row.residency,
        consent_required: row.consent_required,
        created: Timestamp(row.created),
        revision,
    }
}
