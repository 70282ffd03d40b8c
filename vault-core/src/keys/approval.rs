//! What an operator asks for and another one has to approve: bound to the hash of the request, carried out once.

use ring::digest;
use serde::{Deserialize, Serialize};

use super::access::{GrantOrder, GrantOrderRow, fresh_id};
use super::keyring::Keyring;
use super::receipt::hex;
use super::rows;
use super::work::Cursor;
use crate::bundle::BundleRef;
use crate::error::Error;
use crate::failpoint::{Step, around};
use crate::id::{ApprovalId, Fingerprint, Reason, Subject, TenantId};
use crate::store::{Expect, Table, Write};
use crate::time::Timestamp;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// Destroy all data keys of one subject of a tenant.
    ShredSubject(TenantId, Subject),
    /// Destroy all keys of a tenant.
    ShredTenant(TenantId),
    /// Give a workload roles on a dataset until an instant.
    Grant(GrantOrder),
    /// Put a policy bundle in force.
    ActivatePolicy(BundleRef),
}

impl Ordered {
    /// Whose keys or data, if it is about a tenant.
    pub const fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::ShredSubject(tenant, _) | Self::ShredTenant(tenant) => Some(tenant),
            Self::Grant(order) => Some(&order.tenant),
            Self::ActivatePolicy(_) => None,
        }
    }

    /// The grant, if it is about one.
    pub const fn grant(&self) -> Option<&GrantOrder> {
        match self {
            Self::Grant(order) => Some(order),
            Self::ShredSubject(..) | Self::ShredTenant(_) | Self::ActivatePolicy(_) => None,
        }
    }

    /// The policy bundle, if it is about one.
    pub const fn bundle(&self) -> Option<BundleRef> {
        match self {
            Self::ActivatePolicy(bundle) => Some(*bundle),
            Self::Grant(_) => None,
            Self::ShredSubject(..) | Self::ShredTenant(_) => None,
        }
    }

    /// The person, if it is about one.
    pub const fn subject(&self) -> Option<&Subject> {
        match self {
            Self::ShredSubject(_, subject) => Some(subject),
            Self::ShredTenant(_) | Self::Grant(_) | Self::ActivatePolicy(_) => None,
        }
    }

    /// The name of the action that asked for it.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::ShredSubject(..) => "ShredSubject",
            Self::ShredTenant(_) => "ShredTenant",
            Self::Grant(_) => "RequestGrant",
            Self::ActivatePolicy(_) => "ActivatePolicy",
        }
    }
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has decided yet.
    Pending,
    /// Approved, and being carried out.
    Approved,
    /// Carried out: there is a receipt if keys were destroyed.
    Executed,
    /// Refused, for ever.
    Rejected,
    /// Nobody decided in time.
    Expired,
}

/// An approval as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Its name.
    pub id: ApprovalId,
    /// What is to be done.
    pub ordered: Ordered,
    /// What stands for the subject in the audit log, in hexadecimal digits.
    pub pseudonym: Option<String>,
    /// Why, in the words of the one who asked.
    pub reason: String,
    /// The SPIFFE ID of the one who asked.
    pub requester: String,
    /// When it was asked for.
    pub requested: Timestamp,
    /// From when on it can no longer be approved.
    pub expires: Timestamp,
    /// What an approval is bound to.
    pub request_sha256: Fingerprint,
    /// Where it stands.
    pub state: ApprovalState,
    /// The SPIFFE ID of the one who approved or rejected.
    pub decided_by: Option<String>,
    /// When.
    pub decided: Option<Timestamp>,
    /// The signed erasure receipt, once keys were destroyed.
    pub receipt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalRow {
    /// Empty if it is about a policy bundle.
    pub tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantOrderRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonym: Option<String>,
    pub reason: String,
    pub requester: String,
    pub requested: u64,
    pub expires: u64,
    pub request_sha256: Fingerprint,
    /// Never `Expired`: that is seen from `expires`.
    pub state: ApprovalState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<u64>,
}

/// Names a policy bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BundleRow {
    pub version: u64,
    pub digest: Fingerprint,
}

impl ApprovalRow {
    fn ordered(&self) -> Result<Ordered, Error> {
        let damaged = |_| Error::corrupt("store", "table approvals: a row names no valid resource");
        if let (Some(BundleRow { version, digest }), "", None) = (&self.bundle, self.tenant.as_str(), &self.subject) {
            return Ok(Ordered::ActivatePolicy(BundleRef { version: *version, digest: *digest }));
        }
        let tenant = TenantId::parse(&self.tenant).map_err(damaged)?;
        if let Some(grant) = &self.grant {
            return grant.order(tenant).map(Ordered::Grant).map_err(damaged);
        }
        Ok(match &self.subject {
            Some(subject) => Ordered::ShredSubject(tenant, Subject::parse(subject).map_err(damaged)?),
            None => Ordered::ShredTenant(tenant),
        })
    }

    /// SHA-256("blindvault/approval/v1" ‖ 00 ‖ id ‖ LP(action) ‖ LP(tenant) ‖ LP(subject, empty if none) ‖ LP(reason) ‖
    /// LP(requester) ‖ u64 requested ‖ u64 expires), LP(x) being x behind its u16 length. No subject is empty. Where it
    /// is about a policy bundle, the tenant is empty and [`BundleRef`] as text stands in the place of the subject.
    /// Where it is about a grant, there follow LP(dataset) ‖ LP(workload) ‖ u64 until ‖ LP(role) for each role.
    fn fingerprint(&self, id: ApprovalId) -> Result<Fingerprint, Error> {
        let ordered = self.ordered()?;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"blindvault/approval/v1\0");
        context.update(&id.0);
        let bundle = ordered.bundle().map(|bundle| bundle.to_string());
        let about = bundle.as_deref().or(self.subject.as_deref()).unwrap_or_default();
        let part = |context: &mut digest::Context, part: &str| {
            let len = u16::try_from(part.len()).map_err(|_| Error::invalid("reason", "is too long"))?;
            context.update(&len.to_be_bytes());
            context.update(part.as_bytes());
            Ok::<_, Error>(())
        };
        for text in [ordered.action(), &self.tenant, about, &self.reason, &self.requester] {
            part(&mut context, text)?;
        }
        context.update(&self.requested.to_be_bytes());
        context.update(&self.expires.to_be_bytes());
        if let Some(grant) = ordered.grant() {
            part(&mut context, grant.dataset.as_str())?;
            part(&mut context, &grant.workload)?;
            context.update(&grant.until.0.to_be_bytes());
            grant.roles.iter().try_for_each(|role| part(&mut context, role))?;
        }
        let digest = context.finish();
        let bytes = digest.as_ref().try_into().map_err(|_| Error::corrupt("approval", "SHA-256 has 32 bytes"))?;
        Ok(Fingerprint(bytes))
    }

    fn view(self, id: ApprovalId, now: Timestamp, receipt: Option<String>) -> Result<Approval, Error> {
        let state = match self.state {
            ApprovalState::Pending if now.0 >= self.expires => ApprovalState::Expired,
            state => state,
        };
        Ok(Approval {
            id,
            ordered: self.ordered()?,
            pseudonym: self.pseudonym,
            reason: self.reason,
            requester: self.requester,
            requested: Timestamp(self.requested),
            expires: Timestamp(self.expires),
            request_sha256: self.request_sha256,
            state,
            decided_by: self.decided_by,
            decided: self.decided.map(Timestamp),
            receipt,
        })
    }
}

/// What the one who approves saw and knows.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// [`Approval::request_sha256`].
    pub request_sha256: Fingerprint,
    /// The person, if it is about one: from elsewhere, as an approval does not say.
    pub subject: Option<&'a Subject>,
}

/// What is asked for, by whom, and for how long.
#[derive(Debug)]
pub(crate) struct NewApproval<'a> {
    pub ordered: &'a Ordered,
    pub reason: &'a Reason,
    pub requester: &'a str,
    pub lifetime_millis: u64,
}

impl Keyring {
    /// Writes down what is to be approved.
    pub(crate) async fn ask_approval(&self, new: NewApproval<'_>) -> Result<Approval, Error> {
        match (new.ordered, new.ordered.tenant()) {
            (Ordered::Grant(order), _) => self.can_be_granted(order).await?,
            (_, Some(tenant)) => self.can_be_shredded(tenant, new.ordered.subject()).await?,
            (_, None) => {}
        }
        let now = self.parts.clock.now();
        let id = ApprovalId(fresh_id(now)?);
        let pseudonym = match (new.ordered.tenant(), new.ordered.subject()) {
            (Some(tenant), Some(subject)) => Some(hex(&self.pseudonym(tenant, subject).await?.0)),
            _ => None,
        };
        let mut row = ApprovalRow {
            tenant: new.ordered.tenant().map(ToString::to_string).unwrap_or_default(),
            bundle: new.ordered.bundle().map(|BundleRef { version, digest }| BundleRow { version, digest }),
            grant: new.ordered.grant().map(GrantOrderRow::from),
            pseudonym,
            subject: new.ordered.subject().map(|subject| subject.as_str().to_owned()),
            reason: new.reason.as_str().to_owned(),
            requester: new.requester.to_owned(),
            requested: now.0,
            expires: now.0.saturating_add(new.lifetime_millis),
            request_sha256: Fingerprint([0; 32]),
            state: ApprovalState::Pending,
            decided_by: None,
            decided: None,
        };
        row.request_sha256 = row.fingerprint(id)?;
        let write = rows::write(Table::Approvals, id.0.to_vec(), Expect::Absent, &row)?;
        around(Step::ShredAsk, self.parts.store.commit(vec![write])).await?;
        row.view(id, now, None)
    }

    /// An approval of a tenant, or of what is about none; with its receipt once there is one.
    pub(crate) async fn approval(&self, tenant: Option<&TenantId>, id: ApprovalId) -> Result<Approval, Error> {
        let (row, _) = self.approval_row(tenant, id).await?;
        let receipt = self.parts.store.get(Table::Receipts, &id.0).await?;
        let receipt = receipt.map(|row| String::from_utf8(row.value)).transpose();
        let receipt = receipt.map_err(|_| Error::corrupt("store", "table receipts: a row is not text"))?;
        row.view(id, self.parts.clock.now(), receipt)
    }

    async fn approval_row(&self, tenant: Option<&TenantId>, id: ApprovalId) -> Result<(ApprovalRow, u64), Error> {
        match self.row::<ApprovalRow>(Table::Approvals, &id.0).await? {
            Some((row, stored)) if row.tenant == tenant.map_or("", TenantId::as_str) => Ok((row, stored.version)),
            _ => Err(Error::NotFound("approval")),
        }
    }

    /// Up to `limit` approvals after one, oldest first, without their receipts.
    pub(crate) async fn approvals(&self, after: Option<ApprovalId>, limit: usize) -> Result<Vec<Approval>, Error> {
        let after = after.map(|id| id.0);
        let found = self.parts.store.scan(Table::Approvals, b"", after.as_ref().map(|id| &id[..]), limit).await?;
        let now = self.parts.clock.now();
        let damaged = || Error::corrupt("store", "table approvals: a row's key is not as it was written");
        found
            .iter()
            .map(|scanned| {
                let id = ApprovalId(scanned.key.as_slice().try_into().map_err(|_| damaged())?);
                rows::decode::<ApprovalRow>(Table::Approvals, &scanned.row)?.view(id, now, None)
            })
            .collect()
    }

    /// The write that decides a pending approval; and what it is about. Nobody approves what they asked for, what has
    /// expired, or anything but what they saw.
    pub(crate) async fn decide(
        &self,
        (tenant, id): (Option<&TenantId>, ApprovalId),
        seen: Option<Seen<'_>>,
        who: &str,
        to: ApprovalState,
    ) -> Result<(Write, Ordered, Fingerprint), Error> {
        let (mut row, version) = self.approval_row(tenant, id).await?;
        let now = self.parts.clock.now();
        if row.fingerprint(id)? != row.request_sha256 {
            return Err(Error::corrupt("store", "table approvals: a row is not what its hash says"));
        }
        if row.state != ApprovalState::Pending {
            return Err(Error::FailedPrecondition("the approval has been decided"));
        }
        if now.0 >= row.expires {
            return Err(Error::FailedPrecondition("the approval has expired; ask again"));
        }
        if to != ApprovalState::Rejected {
            if row.requester == who {
                return Err(Error::FailedPrecondition("nobody approves what they asked for; another operator must"));
            }
            if seen.is_none_or(|seen| seen.request_sha256 != row.request_sha256) {
                let why = "is not the hash of what is to be approved; read it again";
                return Err(Error::invalid("request_sha256", why));
            }
            if seen.and_then(|seen| seen.subject).map(Subject::as_str) != row.subject.as_deref() {
                return Err(Error::invalid("subject", "is not whom it is about"));
            }
        }
        let ordered = row.ordered()?;
        row.state = match to {
            // One commit makes a grant; nothing of it is left to be carried out.
            ApprovalState::Approved if ordered.grant().is_some() => ApprovalState::Executed,
            to => to,
        };
        row.decided_by = Some(who.to_owned());
        row.decided = Some(now.0);
        let write = rows::write(Table::Approvals, id.0.to_vec(), Expect::Version(version), &row)?;
        Ok((write, ordered, row.request_sha256))
    }

    /// Writes down a decision that has nothing else to be written with it.
    pub(crate) async fn commit_decision(&self, write: Write) -> Result<(), Error> {
        match self.parts.store.commit(vec![write]).await {
            Err(Error::Conflict(_)) => Err(Error::FailedPrecondition("the approval has been decided")),
            done => done,
        }
    }

    /// The writes that close an approved one with its receipt.
    pub(super) async fn executed(
        &self,
        tenant: &TenantId,
        id: ApprovalId,
        receipt: &str,
    ) -> Result<Option<[Write; 2]>, Error> {
        let (mut row, version) = self.approval_row(Some(tenant), id).await?;
        if row.state != ApprovalState::Approved {
            return Ok(None);
        }
        row.state = ApprovalState::Executed;
        let value = receipt.as_bytes().to_vec();
        Ok(Some([
            rows::write(Table::Approvals, id.0.to_vec(), Expect::Version(version), &row)?,
            Write { table: Table::Receipts, key: id.0.to_vec(), expect: Expect::Absent, value, revokes: false },
        ]))
    }
}

/// Ids and digests as the work row keeps them.
pub(super) fn kept(bytes: &[u8]) -> Cursor {
    Cursor(bytes.to_vec())
}
