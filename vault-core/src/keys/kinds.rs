//! What a row of each table is, for whoever handles rows without using them: backups.

use super::access::{AccessRow, SealedRow};
use super::approval::ApprovalRow;
use super::rows::{
    ActiveKeyRow, DataKeyRow, DatasetRow, KeyState, SideKeyRow, TenantKeyRow, TenantRow, TenantState, decode,
};
use super::subjects::SubjectRow;
use super::work::WorkRow;
use crate::bundle;
use crate::error::Error;
use crate::store::{Row, Table};

/// Refuses a row that this version does not read.
///
/// # Errors
/// [`Error::Corrupt`] naming the table.
pub(crate) fn check_row(table: Table, value: &[u8]) -> Result<(), Error> {
    let row = Row { version: 0, value: value.to_vec() };
    match table {
        Table::Tenants => decode::<TenantRow>(table, &row).map(drop),
        Table::Datasets => decode::<DatasetRow>(table, &row).map(drop),
        Table::TenantKeys => decode::<TenantKeyRow>(table, &row).map(drop),
        Table::DataKeys => decode::<DataKeyRow>(table, &row).map(drop),
        Table::ActiveKeys => decode::<ActiveKeyRow>(table, &row).map(drop),
        Table::SideKeys => decode::<SideKeyRow>(table, &row).map(drop),
        Table::Work => decode::<WorkRow>(table, &row).map(drop),
        Table::Subjects => decode::<SubjectRow>(table, &row).map(drop),
        Table::Approvals => decode::<ApprovalRow>(table, &row).map(drop),
        Table::Policies => bundle::check_row(value),
        Table::Consents | Table::Grants => decode::<SealedRow>(table, &row).map(drop),
        Table::Access => decode::<AccessRow>(table, &row).map(drop),
        // A text with its own signature.
        Table::Receipts => std::str::from_utf8(value)
            .map(drop)
            .map_err(|_| Error::corrupt("store", "table receipts: a row is not as it was written")),
        Table::Gateways => Err(Error::corrupt("store", "table gateways: a shared store's own")),
    }
}

/// Whether a row is what stays of something destroyed, withdrawn, revoked, rejected or cancelled.
pub(crate) fn is_tombstone(table: Table, value: &[u8]) -> bool {
    let row = Row { version: 0, value: value.to_vec() };
    match table {
        Table::Tenants => decode::<TenantRow>(table, &row).is_ok_and(|row| row.state == TenantState::Destroyed),
        Table::TenantKeys => decode::<TenantKeyRow>(table, &row).is_ok_and(|row| row.state == KeyState::Destroyed),
        Table::DataKeys => decode::<DataKeyRow>(table, &row).is_ok_and(|row| row.state == KeyState::Destroyed),
        Table::Subjects => decode::<SubjectRow>(table, &row).is_ok_and(|row| row.state == KeyState::Destroyed),
        Table::SideKeys => decode::<SideKeyRow>(table, &row).is_ok_and(|row| row.wrapped.is_empty()),
        Table::Consents | Table::Grants => decode::<SealedRow>(table, &row).is_ok_and(|row| row.ended),
        // What was carried out has its tombstones elsewhere.
        Table::Approvals => decode::<ApprovalRow>(table, &row).is_ok_and(|row| row.was_taken_back()),
        _ => false,
    }
}
