//! Who asked for what, and why: the part that intents and refusals share, and its bytes (docs/audit.md, *decided*).

use super::entry::{MAX_CODE, MAX_PRINCIPAL, code};
use super::merkle::{Hash, sha256};
use super::pseudonym::{Pseudonym, Pseudonyms};
use super::wire::{In, Out};
use crate::custody::{Custody, MAX_CUSTODY};
use crate::error::Error;
use crate::id::{ConsentId, DatasetId, GrantId, Purpose, Reason};
use crate::policy::Decision;
use crate::principal::MAX_ISSUER;
use crate::time::Timestamp;

/// Longest reason of an operator, in bytes.
const MAX_REASON: usize = 512;
/// How many bytes of policy ids an entry lists; the ids after that are counted and hashed, not listed.
pub const MAX_POLICY_BYTES: usize = 16 * 1024;

const DIGEST_LABEL: &[u8] = b"blindvault/audit/policies/v1\0";

/// The addition that names the end user.
const END_USER: u8 = 1;
/// The addition that names the consent that covers the purpose.
const CONSENT: u8 = 2;
/// The addition that names the time-bound grants that gave the workload roles.
const GRANTS: u8 = 3;
/// Most grants that an entry names: a dataset has no more in force.
const MAX_GRANTS: usize = 200;

/// What stands before *decided*; the entry's kind says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    Plain,
    /// A custody.
    Custody,
    /// Additions: what some decisions of the data plane say beyond the rest.
    Additions,
}

/// An end user as an entry names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndUserName {
    /// Who vouched for them: the token's `iss`.
    pub issuer: String,
    /// What stands for them. An intent always has it; a refusal only if the tenant's keys could be asked for.
    pub pseudonym: Option<Pseudonym>,
}

/// The determining policies: as many ids as fit [`MAX_POLICY_BYTES`], and how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// The first ids, sorted as decided.
    pub listed: Vec<String>,
    /// How many ids determined the decision.
    pub total: u32,
    /// If not all are listed: SHA-256("blindvault/audit/policies/v1" ‖ 00 ‖ (u64 length ‖ id) of every id), so that the
    /// full list can still be checked.
    pub digest: Option<Hash>,
}

impl Policies {
    /// Takes as many ids as fit.
    pub fn of(ids: &[String]) -> Self {
        let mut room = MAX_POLICY_BYTES;
        let mut listed = Vec::new();
        for id in ids {
            let Some(rest) = room.checked_sub(id.len() + 2) else { break };
            room = rest;
            listed.push(id.clone());
        }
        let digest = (listed.len() < ids.len()).then(|| {
            let mut all = DIGEST_LABEL.to_vec();
            for id in ids {
                all.extend_from_slice(&u64::try_from(id.len()).unwrap_or(u64::MAX).to_be_bytes());
                all.extend_from_slice(id.as_bytes());
            }
            sha256(&[&all])
        });
        Self { listed, total: u32::try_from(ids.len()).unwrap_or(u32::MAX), digest }
    }
}

/// Who asked for what, why, and which policies decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The principal's SPIFFE ID.
    pub principal: String,
    /// The action's name.
    pub action: String,
    /// The dataset, if the action is about one.
    pub dataset: Option<DatasetId>,
    /// Who the data is about, if anyone is named.
    pub pseudonym: Option<Pseudonym>,
    /// The end user for whom the workload asked, if there was one.
    pub end_user: Option<EndUserName>,
    /// The consent that covers the purpose, if one does.
    pub consent: Option<ConsentId>,
    /// The time-bound grants that gave the workload roles here, 200 at most.
    pub grants: Vec<GrantId>,
    /// Why.
    pub purpose: Option<Purpose>,
    /// The operator's own words, for a control action.
    pub reason: Option<Reason>,
    /// The root keys that a tenant key is to be put under, for a control action that names them.
    pub custody: Option<Custody>,
    /// When it was decided.
    pub at: Timestamp,
    /// The epoch of the policy set that decided.
    pub epoch: u64,
    /// The policies that determined it.
    pub policies: Policies,
}

impl Decided {
    pub(super) fn of(decision: &Decision, who: Pseudonyms) -> Result<Self, Error> {
        if decision.principal.len() > MAX_PRINCIPAL {
            return Err(Error::invalid("principal", "must be at most 2048 bytes long"));
        }
        let end_user = decision
            .end_user
            .as_ref()
            .map(|user| EndUserName { issuer: user.issuer().to_owned(), pseudonym: who.end_user });
        if end_user.as_ref().is_some_and(|user| user.issuer.len() > MAX_ISSUER) {
            return Err(Error::invalid("end_user", "must have an issuer of at most 512 bytes"));
        }
        let additions = end_user.is_some() || decision.consent.is_some() || !decision.grants.is_empty();
        if additions && decision.custody.is_some() {
            // The ones are of the data plane, the other of the control plane; an entry has room for either.
            return Err(Error::invalid("end_user", "must not stand beside a custody"));
        }
        Ok(Self {
            principal: decision.principal.clone(),
            action: decision.action.to_owned(),
            dataset: decision.resource.dataset.clone(),
            pseudonym: who.subject,
            end_user,
            consent: decision.consent,
            grants: decision.grants.iter().copied().take(MAX_GRANTS).collect(),
            purpose: decision.resource.purpose.clone(),
            reason: decision.reason.clone(),
            custody: decision.custody.clone(),
            at: decision.at,
            epoch: decision.epoch,
            policies: Policies::of(&decision.policies),
        })
    }

    /// What stands before it.
    pub(super) const fn form(&self) -> Form {
        match (&self.custody, self.additions()) {
            (Some(_), _) => Form::Custody,
            (None, 0) => Form::Plain,
            (None, _) => Form::Additions,
        }
    }

    /// How many it has.
    const fn additions(&self) -> u8 {
        self.end_user.is_some() as u8 + self.consent.is_some() as u8 + !self.grants.is_empty() as u8
    }

    /// Appends it, behind its custody or its additions.
    pub(super) fn encode(&self, out: &mut Out<'_>) {
        match (&self.custody, self.additions()) {
            (Some(custody), _) => out.text(&custody.to_string(), MAX_CUSTODY),
            (None, 0) => {}
            (None, additions) => {
                out.u8(additions);
                self.encode_additions(out);
            }
        }
        out.text(&self.principal, MAX_PRINCIPAL);
        out.text(&self.action, MAX_CODE);
        out.option(self.dataset.as_ref(), |out, id| out.text(id.as_str(), MAX_CODE));
        out.option(self.pseudonym, |out, pseudonym| out.bytes(&pseudonym.0));
        out.option(self.purpose.as_ref(), |out, purpose| out.text(purpose.as_str(), MAX_CODE));
        out.option(self.reason.as_ref(), |out, reason| out.text(reason.as_str(), MAX_REASON));
        out.u64(self.at.0);
        out.u64(self.epoch);
        let policies = &self.policies;
        out.u32(policies.total);
        // At most MAX_POLICY_BYTES of them, two each at least.
        out.u32(u32::try_from(policies.listed.len()).unwrap_or(u32::MAX));
        for id in &policies.listed {
            out.text(id, MAX_POLICY_BYTES);
        }
        out.option(policies.digest, |out, digest| out.bytes(&digest));
    }

    fn encode_additions(&self, out: &mut Out<'_>) {
        if let Some(user) = &self.end_user {
            out.addition(END_USER, |out| {
                out.text(&user.issuer, MAX_ISSUER);
                out.option(user.pseudonym, |out, pseudonym| out.bytes(&pseudonym.0));
            });
        }
        if let Some(consent) = &self.consent {
            out.addition(CONSENT, |out| out.bytes(&consent.0));
        }
        if !self.grants.is_empty() {
            out.addition(GRANTS, |out| {
                out.u8(u8::try_from(self.grants.len()).unwrap_or(u8::MAX));
                self.grants.iter().for_each(|grant| out.bytes(&grant.0));
            });
        }
    }

    /// Reads it, behind what `form` says.
    pub(super) fn decode(i: &mut In<'_>, form: Form) -> Result<Self, Error> {
        let (mut custody, mut end_user, mut consent, mut grants) = (None, None, None, Vec::new());
        match form {
            Form::Plain => {}
            Form::Custody => {
                custody = Some(Custody::parse(i.text(MAX_CUSTODY)?).map_err(|_| i.refuse("not a custody"))?);
            }
            Form::Additions => i.additions(|i, tag| match tag {
                END_USER => {
                    let issuer = i.text(MAX_ISSUER)?.to_owned();
                    end_user = Some(EndUserName { issuer, pseudonym: i.option(|i| i.array().map(Pseudonym))? });
                    Ok(())
                }
                CONSENT => {
                    consent = Some(ConsentId(i.array()?));
                    Ok(())
                }
                GRANTS => {
                    let count = i.u8()?;
                    if !(1..=MAX_GRANTS).contains(&usize::from(count)) {
                        return Err(i.refuse("a number of grants that an entry cannot have"));
                    }
                    grants = (0..count).map(|_| i.array().map(GrantId)).collect::<Result<_, _>>()?;
                    Ok(())
                }
                _ => Err(i.refuse("unknown addition")),
            })?,
        }
        let principal = i.text(MAX_PRINCIPAL)?.to_owned();
        let action = code(i)?;
        let dataset = i.option(|i| DatasetId::parse(i.text(MAX_CODE)?).map_err(|_| i.refuse("not a dataset")))?;
        let pseudonym = i.option(|i| i.array().map(Pseudonym))?;
        let purpose = i.option(|i| Purpose::parse(i.text(MAX_CODE)?).map_err(|_| i.refuse("not a purpose")))?;
        let reason = i.option(|i| Reason::parse(i.text(MAX_REASON)?).map_err(|_| i.refuse("not a reason")))?;
        let at = Timestamp(i.u64()?);
        let epoch = i.u64()?;
        let total = i.u32()?;
        let count = i.u32()?;
        if count > total {
            return Err(i.refuse("more policies are listed than counted"));
        }
        let mut listed = Vec::new();
        let mut bytes = 0;
        for _ in 0..count {
            let id = i.text(MAX_POLICY_BYTES)?.to_owned();
            bytes += id.len() + 2;
            if bytes > MAX_POLICY_BYTES {
                return Err(i.refuse("more policy ids are listed than allowed"));
            }
            listed.push(id);
        }
        let digest: Option<Hash> = i.option(In::array)?;
        if digest.is_some() != (count < total) {
            return Err(i.refuse("a digest of the policies belongs to a list that is not complete"));
        }
        let policies = Policies { listed, total, digest };
        Ok(Self {
            principal,
            action,
            dataset,
            pseudonym,
            end_user,
            consent,
            grants,
            purpose,
            reason,
            custody,
            at,
            epoch,
            policies,
        })
    }
}
