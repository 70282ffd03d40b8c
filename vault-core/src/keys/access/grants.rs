//! Grants: roles of a workload on a dataset beyond its registry entry, until an instant; asked for by one operator and
//! made by the approval of another.

use serde::{Deserialize, Serialize};

use super::RETRIES;
use super::index::MOST_GRANTS;
use crate::audit::Recorded;
use crate::error::Error;
use crate::id::{ApprovalId, DatasetId, Fingerprint, GrantId, Purpose, TenantId};
use crate::keys::approval::ApprovalRow;
use crate::keys::keyring::{Keyring, in_time};
use crate::keys::lifecycle::DESTROYED;
use crate::keys::rows::{self, DatasetRow, TenantState};
use crate::policy::{GrantFacts, Permit, RevokeGrant};
use crate::principal::SpiffeId;
use crate::store::{Expect, Row, Table, Write};
use crate::time::Timestamp;

/// Most roles of one grant.
const MOST_ROLES: usize = 8;
/// Thirty days, in milliseconds: how far ahead a grant may end.
const LONGEST: u64 = 30 * 86_400_000;

/// A grant as it is asked for, and made exactly so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantOrder {
    /// Whose data.
    pub tenant: TenantId,
    /// Which body of data.
    pub dataset: DatasetId,
    /// The workload's SPIFFE ID, compared by exact bytes.
    pub workload: String,
    /// The roles: 1 to 8, none twice.
    pub roles: Vec<String>,
    /// The first instant at which it no longer holds: 30 days ahead at most.
    pub until: Timestamp,
}

impl GrantOrder {
    /// Whether it may be asked for at an instant.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `workload`, `roles` or one of them, or `until`.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        let no_workload =
            || Error::invalid("workload", "must be the SPIFFE ID of a workload, spiffe://<domain>/<path>");
        let id = SpiffeId::parse(&self.workload).map_err(|_| no_workload())?;
        if matches!(id.segments().next(), None | Some("operator")) {
            return Err(no_workload());
        }
        if !(1..=MOST_ROLES).contains(&self.roles.len()) {
            return Err(Error::invalid("roles", "must be 1 to 8"));
        }
        for (at, role) in self.roles.iter().enumerate() {
            // The form that the registry demands of roles, which is that of all names.
            if Purpose::parse(role).is_err() {
                return Err(Error::invalid(format!("roles[{at}]"), "must match [a-z0-9][a-z0-9._-]{0,62}"));
            }
            if self.roles.iter().take(at).any(|other| other == role) {
                return Err(Error::invalid(format!("roles[{at}]"), "is named twice"));
            }
        }
        if self.until <= now || self.until > now.plus_millis(LONGEST) {
            return Err(Error::invalid("until", "must be later than now, and at most 30 days ahead"));
        }
        Ok(())
    }
}

/// The same in rows, but for the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keys) struct GrantOrderRow {
    pub dataset: String,
    pub workload: String,
    pub roles: Vec<String>,
    pub until: u64,
}

impl From<&GrantOrder> for GrantOrderRow {
    fn from(order: &GrantOrder) -> Self {
        Self {
            dataset: order.dataset.to_string(),
            workload: order.workload.clone(),
            roles: order.roles.clone(),
            until: order.until.0,
        }
    }
}

impl GrantOrderRow {
    /// What was asked for, for a tenant.
    pub(in crate::keys) fn order(&self, tenant: TenantId) -> Result<GrantOrder, Error> {
        Ok(GrantOrder {
            tenant,
            dataset: DatasetId::parse(&self.dataset)?,
            workload: self.workload.clone(),
            roles: self.roles.clone(),
            until: Timestamp(self.until),
        })
    }
}

/// Who ended a grant early, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// The SPIFFE ID of the operator.
    pub by: String,
}

/// A grant, in force, over or revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its name: that of the approval that made it.
    pub id: GrantId,
    /// What it gives whom.
    pub order: GrantOrder,
    /// Why, in the words of the one who asked.
    pub reason: String,
    /// The SPIFFE ID of the one who asked.
    pub requester: String,
    /// The SPIFFE ID of the one who approved.
    pub approver: String,
    /// When it was approved.
    pub granted: Timestamp,
    /// Who ended it early, if anybody did.
    pub revoked: Option<Revoked>,
    /// What the approval was bound to, and the audit log names.
    pub request_sha256: Fingerprint,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedRow {
    at: u64,
    by: String,
}

/// What stands in the seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantRow {
    pub order: GrantOrderRow,
    reason: String,
    requester: String,
    approver: String,
    granted: u64,
    request_sha256: Fingerprint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<RevokedRow>,
}

impl GrantRow {
    /// What a decision reads of it.
    pub(super) fn facts(&self, id: GrantId) -> GrantFacts {
        let GrantOrderRow { workload, roles, until, .. } = self.order.clone();
        GrantFacts { id, workload, roles, until: Timestamp(until) }
    }

    fn view(self, tenant: &TenantId, id: GrantId) -> Result<Grant, Error> {
        let damaged = |_| Error::corrupt("store", "table grants: a row is not as it was written");
        Ok(Grant {
            id,
            order: self.order.order(tenant.clone()).map_err(damaged)?,
            reason: self.reason,
            requester: self.requester,
            approver: self.approver,
            granted: Timestamp(self.granted),
            revoked: self.revoked.map(|RevokedRow { at, by }| Revoked { at: Timestamp(at), by }),
            request_sha256: self.request_sha256,
        })
    }
}

impl Keyring {
    /// Whether a grant may be asked for.
    ///
    /// # Errors
    /// What [`GrantOrder::check`] answers; [`Error::NotFound`] for an unknown tenant or dataset;
    /// [`Error::FailedPrecondition`] if the tenant is destroyed.
    pub(in crate::keys) async fn can_be_granted(&self, order: &GrantOrder) -> Result<(), Error> {
        order.check(self.parts.clock.now())?;
        let (tenant, _) = self.tenant_row(&order.tenant).await?.ok_or(Error::NotFound("tenant"))?;
        if tenant.state == TenantState::Destroyed {
            return Err(DESTROYED);
        }
        let key = rows::dataset_key(&order.tenant, &order.dataset);
        let dataset = self.row::<DatasetRow>(Table::Datasets, &key).await?;
        dataset.map(drop).ok_or(Error::NotFound("dataset"))
    }

    /// Makes a grant, exactly as it was asked for, with the write that closes its approval.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another writer came between; [`Error::FailedPrecondition`] if it would have ended, the
    /// dataset has too many, or the tenant is destroyed; [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn make_grant(
        &self,
        order: &GrantOrder,
        (approval, approved): (ApprovalId, Write),
    ) -> Result<(), Error> {
        let now = self.parts.clock.now();
        if order.until <= now {
            return Err(Error::FailedPrecondition("the grant would have ended by now; ask again"));
        }
        let closed: ApprovalRow = rows::decode(Table::Approvals, &Row { version: 0, value: approved.value.clone() })?;
        let row = GrantRow {
            order: GrantOrderRow::from(order),
            reason: closed.reason,
            requester: closed.requester,
            approver: closed.decided_by.unwrap_or_default(),
            granted: now.0,
            request_sha256: closed.request_sha256,
            revoked: None,
        };
        let (tenant, dataset) = (&order.tenant, Some(&order.dataset));
        let key = self.row_key(tenant).await?;
        let id = GrantId(approval.0);
        let mut index = self.index(tenant, dataset).await?;
        if index.row.grants.len() >= MOST_GRANTS {
            self.prune(&key, tenant, &mut index.row, now).await?;
        }
        if index.row.grants.len() >= MOST_GRANTS {
            return Err(Error::FailedPrecondition("too many grants are in force for the dataset; revoke some"));
        }
        index.row.grants.push(id);
        let place = (Table::Grants, rows::named_key(tenant, id.0));
        let mut writes = vec![approved, key.write(place, Expect::Absent, &row, false)?];
        writes.extend(self.write_index(tenant, dataset, &index).await?);
        self.parts.store.commit(writes).await
    }

    /// Ends a grant early, for ever: durable, and without effect from here on, when this returns. One that was revoked
    /// before stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the tenant has no such grant; [`Error::FailedPrecondition`] if the tenant is destroyed;
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn revoke_grant(
        &self,
        recorded: &Recorded<Permit<RevokeGrant>>,
        tenant: &TenantId,
        id: GrantId,
    ) -> Result<Grant, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let key = self.row_key(tenant).await?;
        let place = rows::named_key(tenant, id.0);
        for _ in 0..RETRIES {
            let stored = self.parts.store.get(Table::Grants, &place).await?.ok_or(Error::NotFound("grant"))?;
            let (mut row, ended): (GrantRow, bool) = key.open(Table::Grants, &place, &stored)?;
            if ended {
                return row.view(tenant, id);
            }
            let by = recorded.permit().decision().principal.clone();
            row.revoked = Some(RevokedRow { at: self.parts.clock.now().0, by });
            let expect = Expect::Version(stored.version);
            let mut writes = vec![key.write((Table::Grants, place.clone()), expect, &row, true)?];
            let view = row.view(tenant, id)?;
            let dataset = Some(&view.order.dataset);
            let mut index = self.index(tenant, dataset).await?;
            let before = index.row.grants.len();
            index.row.grants.retain(|named| *named != id);
            if index.row.grants.len() != before {
                writes.extend(self.write_index(tenant, dataset, &index).await?);
            }
            match self.parts.store.commit(writes).await {
                Err(Error::Conflict(_)) => {}
                done => return done.map(|()| view),
            }
        }
        Err(Error::Conflict("grant"))
    }

    /// Up to `limit` grants of a tenant after one, oldest first, those that ended too.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant; [`Error::FailedPrecondition`] for a destroyed one;
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn list_grants(
        &self,
        tenant: &TenantId,
        after: Option<GrantId>,
        limit: usize,
    ) -> Result<Vec<Grant>, Error> {
        let key = self.row_key(tenant).await?;
        let after = after.map(|id| rows::named_key(tenant, id.0));
        let found = self.parts.store.scan(Table::Grants, &rows::of_tenant(tenant), after.as_deref(), limit).await?;
        let view = |at: &[u8], row: &Row| {
            let id = rows::named_id(at)?;
            let (row, _): (GrantRow, bool) = key.open(Table::Grants, at, row)?;
            row.view(tenant, GrantId(id))
        };
        found.iter().map(|scanned| view(&scanned.key, &scanned.row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_named() {
        let now = Timestamp(1_700_000_000_000);
        let good = GrantOrder {
            tenant: TenantId::parse("acme").unwrap(),
            dataset: DatasetId::parse("orders").unwrap(),
            workload: "spiffe://prod.example/ns/shop/sa/support".into(),
            roles: vec!["reader".into()],
            until: now.plus_millis(LONGEST),
        };
        let field = |order: GrantOrder| match order.check(now) {
            Ok(()) => String::new(),
            Err(Error::Invalid { field, .. }) => field,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(field(good.clone()), "");
        for workload in ["", "support", "spiffe://prod.example", "spiffe://ops.example/operator/alice", "spiffe://A/b"]
        {
            assert_eq!(field(GrantOrder { workload: workload.into(), ..good.clone() }), "workload", "{workload}");
        }
        let roles = |roles: &[&str]| GrantOrder { roles: roles.iter().map(|r| (*r).into()).collect(), ..good.clone() };
        assert_eq!(field(roles(&[])), "roles");
        assert_eq!(field(roles(&["a", "b", "c", "d", "e", "f", "g", "h"])), "");
        assert_eq!(field(roles(&["a", "b", "c", "d", "e", "f", "g", "h", "i"])), "roles");
        assert_eq!(field(roles(&["reader", "Reader"])), "roles[1]");
        assert_eq!(field(roles(&["reader", "writer", "reader"])), "roles[2]");
        for until in [Timestamp(0), now, now.plus_millis(LONGEST + 1)] {
            assert_eq!(field(GrantOrder { until, ..good.clone() }), "until");
        }
    }
}
