//! The index of a dataset, or of a tenant for all its datasets.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::{ConsentId, DatasetId, GrantId, TenantId};
use crate::keys::keyring::Keyring;
use crate::keys::rows::{self, DatasetRow};
use crate::store::{Expect, Table, Write};

/// Most consents in force of a dataset, and most that are for all datasets.
pub(super) const MOST_CONSENTS: usize = 200;
/// Most grants in force of a dataset.
pub(super) const MOST_GRANTS: usize = 200;

/// Which consents and grants a decision has to look at. Those that ended are taken out; it may name some all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keys) struct AccessRow {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<ConsentId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantId>,
}

/// An index as it was read, and what a write of it must expect.
pub(super) struct Index {
    pub row: AccessRow,
    expect: Expect,
}

impl Keyring {
    /// The index of a dataset, or of all; empty if there is none.
    pub(super) async fn index(&self, tenant: &TenantId, dataset: Option<&DatasetId>) -> Result<Index, Error> {
        Ok(match self.row::<AccessRow>(Table::Access, &rows::access_key(tenant, dataset)).await? {
            Some((row, stored)) => Index { row, expect: Expect::Version(stored.version) },
            None => Index { row: AccessRow::default(), expect: Expect::Absent },
        })
    }

    /// The writes that put an index back as it is now, and have the dataset or tenant say that it is there. As a row is
    /// replaced each time, other gateways hear of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the dataset or tenant is not there.
    pub(super) async fn write_index(
        &self,
        tenant: &TenantId,
        dataset: Option<&DatasetId>,
        index: &Index,
    ) -> Result<Vec<Write>, Error> {
        let key = rows::access_key(tenant, dataset);
        let mut writes = vec![rows::write(Table::Access, key, index.expect, &index.row)?];
        if let Some(dataset) = dataset {
            let key = rows::dataset_key(tenant, dataset);
            let found = self.row::<DatasetRow>(Table::Datasets, &key).await?;
            let (mut row, stored) = found.ok_or(Error::NotFound("dataset"))?;
            if !row.access {
                row.access = true;
                writes.push(rows::write(Table::Datasets, key, Expect::Version(stored.version), &row)?);
            }
        } else {
            let (mut row, stored) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
            if !row.access {
                row.access = true;
                let key = rows::tenant_key(tenant);
                writes.push(rows::write(Table::Tenants, key, Expect::Version(stored.version), &row)?);
            }
        }
        Ok(writes)
    }
}
