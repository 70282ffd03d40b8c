//! An entry of the audit log, read from its bytes (docs/audit.md, "Entry"): what was proven is these bytes, so nothing else
//! is believed.

use super::AccessLogFault;
use super::proofs::{Hash, leaf_hash};

/// An entry of a tenant whose proof holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessEntry {
    /// The name of the log that it is of.
    pub log: String,
    /// Its number in that log, from 0.
    pub index: u64,
    /// Its number among the tenant's entries of that log, from 1.
    pub sequence: u64,
    /// When it was written, in milliseconds since 1970, by the clock of the gateway.
    pub time_ms: u64,
    /// The call that it belongs to.
    pub request: Option<[u8; 16]>,
    /// What it says.
    pub body: AccessBody,
    /// Its bytes.
    pub bytes: Vec<u8>,
    pub(super) tenant: String,
    pub(super) previous: Hash,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessBody {
    /// It was allowed, and unless an [`Outcome`](Self::Outcome) says otherwise, carried out as asked.
    Intent {
        /// The decision.
        decision: AccessDecision,
        /// The key that was used.
        key: Option<AccessKey>,
        /// How many items it was about.
        items: u32,
    },
    /// It was refused.
    Refused {
        /// The decision.
        decision: AccessDecision,
        /// The check that refused.
        check: String,
        /// Which rule of it.
        rule: String,
    },
    /// It ended otherwise than plainly well, or a stream ended.
    Outcome {
        /// The index of its intent.
        intent: u64,
        /// `done`, `failed`, `cancelled` or `partial`.
        status: &'static str,
        /// Why.
        why: String,
        /// How many items were done.
        items: u32,
    },
    /// An operator's action, or one on consents, was executed.
    Executed {
        /// The index of its intent.
        intent: u64,
        /// Who did it.
        principal: String,
        /// The action.
        action: String,
        /// What was done.
        detail: String,
    },
    /// Something happened in the life of the tenant's keys.
    Event {
        /// What.
        event: String,
        /// What it is about.
        detail: String,
        /// Its first number.
        first: u64,
        /// Its second number.
        second: u64,
    },
}

/// Who asked for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDecision {
    /// The SPIFFE ID of the workload or operator.
    pub principal: String,
    /// The action.
    pub action: String,
    /// The dataset.
    pub dataset: Option<String>,
    /// What stands for the person whom the data is about.
    pub subject_pseudonym: Option<[u8; 16]>,
    /// The purpose.
    pub purpose: Option<String>,
    /// An operator's own words.
    pub reason: Option<String>,
    /// What stands for the end user for whom the workload asked, if the entry has it.
    pub end_user_pseudonym: Option<[u8; 16]>,
    /// The epoch of the policies that decided.
    pub policy_epoch: u64,
    /// The policies that decided, as far as they are listed.
    pub policies: Vec<String>,
}

/// A key, by name and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessKey {
    /// The data key's id.
    pub key_id: [u8; 16],
    /// Its version.
    pub version: u32,
}

struct In<'a>(&'a [u8]);

type Read<T> = Option<T>;

impl<'a> In<'a> {
    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn text(&mut self) -> Read<String> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    fn key(&mut self) -> Read<AccessKey> {
        let (key_id, version) = (self.array()?, self.u32()?);
        self.option(Self::u32)?;
        Some(AccessKey { key_id, version })
    }

    /// Answers the end user's pseudonym, if there is one.
    fn additions(&mut self) -> Read<Option<[u8; 16]>> {
        let mut end_user = None;
        for _ in 0..self.u8()? {
            let tag = self.u8()?;
            let len = usize::from(u16::from_be_bytes(self.array()?));
            let mut value = In(self.take(len)?);
            if tag == 1 {
                value.text()?;
                end_user = value.option(Self::array)?;
            }
        }
        Some(end_user)
    }

    fn decision(&mut self, end_user_pseudonym: Option<[u8; 16]>) -> Read<AccessDecision> {
        let (principal, action) = (self.text()?, self.text()?);
        let (dataset, subject_pseudonym) = (self.option(Self::text)?, self.option(Self::array)?);
        let (purpose, reason) = (self.option(Self::text)?, self.option(Self::text)?);
        self.u64()?;
        let policy_epoch = self.u64()?;
        self.u32()?;
        let listed = self.u32()?;
        let policies = (0..listed).map(|_| self.text()).collect::<Option<Vec<_>>>()?;
        self.option(Self::array::<32>)?;
        Some(AccessDecision {
            principal,
            action,
            dataset,
            subject_pseudonym,
            purpose,
            reason,
            end_user_pseudonym,
            policy_epoch,
            policies,
        })
    }

    fn body(&mut self, kind: u8) -> Read<AccessBody> {
        let end_user = match kind {
            6 | 7 => self.text().map(|_| None)?,
            8 | 9 => self.additions()?,
            _ => None,
        };
        Some(match kind {
            1 | 6 | 8 => AccessBody::Intent {
                decision: self.decision(end_user)?,
                key: self.option(Self::key)?,
                items: self.u32()?,
            },
            3 | 7 | 9 => {
                AccessBody::Refused { decision: self.decision(end_user)?, check: self.text()?, rule: self.text()? }
            }
            2 => {
                let intent = self.u64()?;
                let status = match self.u8()? {
                    0 => "done",
                    1 => "failed",
                    2 => "cancelled",
                    3 => "partial",
                    _ => return None,
                };
                let why = self.text()?;
                self.option(Self::key)?;
                AccessBody::Outcome { intent, status, why, items: self.u32()? }
            }
            4 => {
                let (intent, principal) = (self.u64()?, self.text()?);
                let (action, detail) = (self.text()?, self.text()?);
                self.option(Self::key)?;
                AccessBody::Executed { intent, principal, action, detail }
            }
            5 => {
                AccessBody::Event { event: self.text()?, detail: self.text()?, first: self.u64()?, second: self.u64()? }
            }
            _ => return None,
        })
    }
}

impl AccessEntry {
    /// Reads an entry's bytes.
    pub(super) fn decode(log: &str, bytes: &[u8]) -> Result<Self, AccessLogFault> {
        let read = || {
            let mut input = In(bytes);
            let (version, kind) = (input.u8()?, input.u8()?);
            input.take(16)?;
            let (index, time_ms) = (input.u64()?, input.u64()?);
            let request = input.option(In::array)?;
            let link = input.option(|input| Some((input.text()?, input.u64()?, input.array()?)))?;
            let body = input.body(kind)?;
            // An entry that belongs to no tenant is none of a tenant's.
            let (tenant, sequence, previous) = link?;
            let (log, bytes) = (log.to_owned(), bytes.to_vec());
            let entry = Self { log, index, sequence, time_ms, request, body, bytes, tenant, previous };
            (version == 1 && input.0.is_empty()).then_some(entry)
        };
        read().ok_or(AccessLogFault::Malformed("an entry does not read as one of a tenant"))
    }

    /// The hash over it in the log.
    pub fn leaf_hash(&self) -> [u8; 32] {
        leaf_hash(&self.bytes)
    }

    /// The decision, of an intent or a refusal.
    pub fn decision(&self) -> Option<&AccessDecision> {
        match &self.body {
            AccessBody::Intent { decision, .. } | AccessBody::Refused { decision, .. } => Some(decision),
            _ => None,
        }
    }
}
