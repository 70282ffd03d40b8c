//! A request as it is kept, and the hash that votes for it are bound to.
//!
//! Rows of version 1 are those of earlier versions of the vault: one vote, no summary. They are read, and what they began
//! is brought to its end, but none is approved any more: it is asked for again.

use ring::digest;
use serde::{Deserialize, Serialize};

use super::{Approval, ApprovalState, Ordered, Vote};
use crate::bundle::BundleRef;
use crate::error::Error;
use crate::id::{ApprovalId, Fingerprint, Subject, TenantId};
use crate::keys::access::GrantOrderRow;
use crate::kms::Custody;
use crate::time::Timestamp;

/// The version of rows that are written.
pub(super) const VERSION: u8 = 2;

const LABEL: &[u8] = b"blindvault/approval/v2\0";
const FIRST_LABEL: &[u8] = b"blindvault/approval/v1\0";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keys) struct ApprovalRow {
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub v: u8,
    /// Empty if it is about none.
    pub tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantOrderRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonym: Option<String>,
    /// What is none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeRow>,
    pub reason: String,
    pub requester: String,
    /// The person behind `requester`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub person: String,
    pub requested: u64,
    pub expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summary: Vec<String>,
    pub request_sha256: Fingerprint,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<VoteRow>,
    /// `Expired` once the audit log has it; before that it is seen from `expires`.
    pub state: ApprovalState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<u64>,
}

/// One person's vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keys) struct VoteRow {
    pub person: String,
    pub principal: String,
    pub at: u64,
    pub request_sha256: Fingerprint,
}

impl VoteRow {
    fn view(self) -> Vote {
        let Self { person, principal, at, request_sha256 } = self;
        Vote { person, principal, at: Timestamp(at), request_sha256 }
    }
}

/// Names a policy bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::keys) struct BundleRow {
    pub version: u64,
    pub digest: Fingerprint,
}

/// A change that earlier versions did not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::keys) enum ChangeRow {
    /// Of the tenant's suspension: its end.
    Resume {
        /// The tenant's, when it was asked for.
        revision: u64,
    },
    /// Of the tenant's custody.
    Custody {
        /// The new one.
        custody: Custody,
        /// The tenant's, when it was asked for.
        revision: u64,
    },
    /// Of the charter.
    Charter {
        /// The one in force when it was asked for.
        from: Fingerprint,
        /// The one that was proposed.
        to: Fingerprint,
    },
}

const fn first() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde demands the reference")]
const fn is_first(version: &u8) -> bool {
    *version == first()
}

impl ApprovalRow {
    /// What is to be done, in the columns that keep it.
    pub(super) fn with(mut self, ordered: &Ordered) -> Self {
        self.tenant = ordered.tenant().map(ToString::to_string).unwrap_or_default();
        self.bundle = ordered.bundle().map(|BundleRef { version, digest }| BundleRow { version, digest });
        self.grant = ordered.grant().map(GrantOrderRow::from);
        self.subject = ordered.subject().map(|subject| subject.as_str().to_owned());
        self.change = match ordered {
            Ordered::ResumeTenant(_, revision) => Some(ChangeRow::Resume { revision: *revision }),
            Ordered::ChangeCustody(_, custody, revision) => {
                Some(ChangeRow::Custody { custody: custody.clone(), revision: *revision })
            }
            Ordered::ChangeCharter { from, to } => Some(ChangeRow::Charter { from: *from, to: *to }),
            Ordered::ShredSubject(..) | Ordered::ShredTenant(_) | Ordered::Grant(_) | Ordered::ActivatePolicy(_) => {
                None
            }
        };
        self
    }

    pub(super) fn ordered(&self) -> Result<Ordered, Error> {
        let damaged = || Error::corrupt("store", "table approvals: a row names no valid resource");
        let tenant = || TenantId::parse(&self.tenant).map_err(|_| damaged());
        Ok(match (&self.bundle, &self.grant, &self.subject, &self.change) {
            (Some(BundleRow { version, digest }), None, None, None) if self.tenant.is_empty() => {
                Ordered::ActivatePolicy(BundleRef { version: *version, digest: *digest })
            }
            (None, Some(grant), None, None) => grant.order(tenant()?).map(Ordered::Grant).map_err(|_| damaged())?,
            (None, None, Some(subject), None) => {
                Ordered::ShredSubject(tenant()?, Subject::parse(subject).map_err(|_| damaged())?)
            }
            (None, None, None, None) => Ordered::ShredTenant(tenant()?),
            (None, None, None, Some(ChangeRow::Resume { revision })) => Ordered::ResumeTenant(tenant()?, *revision),
            (None, None, None, Some(ChangeRow::Custody { custody, revision })) => {
                Ordered::ChangeCustody(tenant()?, custody.clone(), *revision)
            }
            (None, None, None, Some(ChangeRow::Charter { from, to })) if self.tenant.is_empty() => {
                Ordered::ChangeCharter { from: *from, to: *to }
            }
            _ => return Err(damaged()),
        })
    }

    /// How many others have to approve it.
    pub(super) fn required(&self) -> u8 {
        self.required.unwrap_or(1).max(1)
    }

    /// The hash of all that is asked for.
    ///
    /// Version 2: SHA-256("blindvault/approval/v2" ‖ 00 ‖ id ‖ LP(action) ‖ LP(tenant, empty if none) ‖ L(parameters) ‖
    /// LP(reason) ‖ LP(requester) ‖ LP(person) ‖ u64 requested ‖ u64 expires ‖ u64 required ‖ u64 delay ‖ L(summary)).
    /// LP(x) is x behind its u16 length, L(list) the LP of each behind their u16 number; integers are big-endian, times
    /// in milliseconds. docs/approvals.md lists the parameters of each action.
    ///
    /// Version 1: SHA-256("blindvault/approval/v1" ‖ 00 ‖ id ‖ LP(action) ‖ LP(tenant) ‖ LP(subject, or the bundle, or
    /// empty) ‖ LP(reason) ‖ LP(requester) ‖ u64 requested ‖ u64 expires), and of a grant LP(dataset) ‖ LP(workload) ‖
    /// u64 until ‖ LP(role) for each role.
    pub(super) fn fingerprint(&self, id: ApprovalId) -> Result<Fingerprint, Error> {
        let ordered = self.ordered()?;
        let mut hash = Hash(digest::Context::new(&digest::SHA256));
        if self.v == first() {
            let bundle = ordered.bundle().map(|bundle| bundle.to_string());
            let about = bundle.as_deref().or(self.subject.as_deref()).unwrap_or_default();
            hash.0.update(FIRST_LABEL);
            hash.0.update(&id.0);
            [ordered.action(), &self.tenant, about, &self.reason, &self.requester]
                .into_iter()
                .try_for_each(|text| hash.text(text))?;
            hash.number(self.requested);
            hash.number(self.expires);
            if let Some(grant) = ordered.grant() {
                hash.text(grant.dataset.as_str())?;
                hash.text(&grant.workload)?;
                hash.number(grant.until.0);
                grant.roles.iter().try_for_each(|role| hash.text(role))?;
            }
            return hash.finish();
        }
        hash.0.update(LABEL);
        hash.0.update(&id.0);
        hash.text(ordered.action())?;
        hash.text(&self.tenant)?;
        hash.list(&ordered.parameters())?;
        hash.text(&self.reason)?;
        hash.text(&self.requester)?;
        hash.text(&self.person)?;
        let numbers = [self.requested, self.expires, u64::from(self.required()), self.delay.unwrap_or(0)];
        numbers.into_iter().for_each(|number| hash.number(number));
        hash.list(&self.summary)?;
        hash.finish()
    }

    /// Refuses a row that is not what its hash says, or is of a version that nobody wrote.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(super) fn is_whole(&self, id: ApprovalId) -> Result<(), Error> {
        if !(first()..=VERSION).contains(&self.v) || self.fingerprint(id)? != self.request_sha256 {
            return Err(Error::corrupt("store", "table approvals: a row is not what its hash says"));
        }
        Ok(())
    }

    /// Whether it ended without being carried out.
    pub(in crate::keys) const fn was_taken_back(&self) -> bool {
        matches!(self.state, ApprovalState::Rejected | ApprovalState::Cancelled | ApprovalState::Expired)
    }

    /// Where it stands at an instant.
    pub(super) const fn state_at(&self, now: Timestamp) -> ApprovalState {
        match self.state {
            ApprovalState::Pending if now.0 >= self.expires => ApprovalState::Expired,
            state => state,
        }
    }

    pub(super) fn view(self, id: ApprovalId, now: Timestamp, receipt: Option<String>) -> Result<Approval, Error> {
        let person = if self.v == first() { self.requester.clone() } else { self.person.clone() };
        Ok(Approval {
            id,
            ordered: self.ordered()?,
            state: self.state_at(now),
            required: self.required(),
            pseudonym: self.pseudonym,
            reason: self.reason,
            summary: self.summary,
            requester: self.requester,
            requester_person: person,
            requested: Timestamp(self.requested),
            expires: Timestamp(self.expires),
            votes: self.votes.into_iter().map(VoteRow::view).collect(),
            delay_millis: self.delay.unwrap_or(0),
            request_sha256: self.request_sha256,
            scheduled: self.scheduled.map(Timestamp),
            decided_by: self.decided_by,
            decided: self.decided.map(Timestamp),
            receipt,
        })
    }
}

struct Hash(digest::Context);

impl Hash {
    fn text(&mut self, text: &str) -> Result<(), Error> {
        let len = u16::try_from(text.len()).map_err(|_| Error::invalid("reason", "is too long"))?;
        self.0.update(&len.to_be_bytes());
        self.0.update(text.as_bytes());
        Ok(())
    }

    fn list(&mut self, list: &[String]) -> Result<(), Error> {
        let len = u16::try_from(list.len()).map_err(|_| Error::invalid("summary", "is too long"))?;
        self.0.update(&len.to_be_bytes());
        list.iter().try_for_each(|text| self.text(text))
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn finish(self) -> Result<Fingerprint, Error> {
        let digest = self.0.finish();
        let bytes = digest.as_ref().try_into().map_err(|_| Error::corrupt("approval", "SHA-256 has 32 bytes"))?;
        Ok(Fingerprint(bytes))
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
