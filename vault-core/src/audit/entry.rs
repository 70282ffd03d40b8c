//! One entry: what it says, and its bytes (docs/audit.md, section "Entry").

use super::decided::{Decided, Form};
use super::merkle::{Hash, sha256};
use super::wire::{In, Out};
use crate::error::Error;
use crate::id::{KeyId, KeyVersion, RequestId, TenantId};
use crate::time::Timestamp;

/// Longest entry in bytes: what the u16 length of an entry bundle (C2SP tlog-tiles) can say. The bounds on the fields
/// below keep every entry under it.
pub const MAX_ENTRY: usize = 65_535;
/// Longest principal in bytes (the SPIFFE ID specification's limit).
pub const MAX_PRINCIPAL: usize = 2048;
/// Longest action, check, reason, event or detail in bytes.
pub const MAX_CODE: usize = 255;

const VERSION: u8 = 1;

/// Which key an action uses: names and versions, never the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef {
    /// The data key version's name.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// The version of the tenant key above it, where known.
    pub tenant_key_version: Option<KeyVersion>,
}

impl KeyRef {
    /// Names a data key version.
    pub const fn new(key_id: KeyId, version: KeyVersion) -> Self {
        Self { key_id, version, tenant_key_version: None }
    }

    /// Names the tenant key version above it too.
    #[must_use]
    pub const fn under(self, tenant_key_version: KeyVersion) -> Self {
        Self { tenant_key_version: Some(tenant_key_version), ..self }
    }
}

/// How an action that was recorded ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It ended as asked; `items` says how much.
    Done = 0,
    /// Nothing was released.
    Failed = 1,
    /// The caller went away; what it had got by then is not known.
    Cancelled = 2,
    /// Only `items` of what was asked.
    Partial = 3,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An action was allowed and is about to happen.
    Intent {
        /// The decision.
        decided: Decided,
        /// The key it uses, if any.
        key: Option<KeyRef>,
        /// How many items it is about.
        items: u32,
    },
    /// An action that was recorded ended otherwise than plainly well, or a stream ended.
    Outcome {
        /// The index of its intent.
        intent: u64,
        /// How it ended.
        status: Status,
        /// Why: a code of the source, never data.
        reason: String,
        /// The key, if it became known only now.
        key: Option<KeyRef>,
        /// How many items were done.
        items: u32,
    },
    /// An action was refused.
    Refused {
        /// The decision.
        decided: Decided,
        /// The check that refused.
        check: String,
        /// Which rule of it.
        reason: String,
    },
    /// An action on tenants, keys, datasets or consents was executed.
    Control {
        /// The index of its intent.
        intent: u64,
        /// The SPIFFE ID of the operator, or of the workload that asked for an end user.
        principal: String,
        /// The action's name.
        action: String,
        /// What was done: a code of the source.
        detail: String,
        /// The key it made or changed, if any.
        key: Option<KeyRef>,
    },
    /// The log or the gateway itself.
    System {
        /// What happened: `started`, `stopped`, `executable`, `recovery_cut`, `policy_epoch`, `policy_bundle`,
        /// `operators`, `backup`, `restoring`, `refusals`.
        event: String,
        /// A code, for `refusals` the reason; else empty.
        detail: String,
        /// `recovery_cut`: position in the file; `policy_epoch`: the epoch; `backup`: rows; `restoring`: when the backup
        /// was begun, in milliseconds since 1970; `refusals`: seconds since 1970.
        first: u64,
        /// `recovery_cut`: bytes cut; `restoring`: rows; `refusals`: how many.
        second: u64,
    },
}

/// An entry's place among its tenant's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The tenant.
    pub tenant: TenantId,
    /// 1 for the tenant's first entry, one more each time.
    pub sequence: u64,
    /// The leaf hash of the tenant's previous entry; for the first, [`first_previous`].
    pub previous: Hash,
}

/// What a tenant's first entry names as its previous one: SHA-256("blindvault/audit/tenant/v1" ‖ 00 ‖ tenant).
pub fn first_previous(tenant: &TenantId) -> Hash {
    sha256(&[b"blindvault/audit/tenant/v1\0", tenant.as_str().as_bytes()])
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the log, from 0.
    pub index: u64,
    /// When it was written.
    pub time: Timestamp,
    /// 16 random bytes: whoever sees only the hash of an entry cannot find it by guessing.
    pub salt: [u8; 16],
    /// The call it belongs to.
    pub request: Option<RequestId>,
    /// The tenant it belongs to.
    pub link: Option<Link>,
    /// What it says.
    pub body: Body,
}

/// What a caller submits: everything but what the writer assigns.
#[derive(Debug)]
pub(super) struct Draft {
    kind: u8,
    request: Option<RequestId>,
    pub(super) tenant: Option<TenantId>,
    body: Vec<u8>,
}

impl Draft {
    pub(super) fn new(request: Option<RequestId>, tenant: Option<TenantId>, body: &Body) -> Self {
        let mut bytes = Vec::with_capacity(256);
        encode_body(&mut Out(&mut bytes), body);
        Self { kind: kind(body), request, tenant, body: bytes }
    }

    /// The call and the tenant, given away.
    pub(super) fn names(self) -> (Option<RequestId>, Option<TenantId>) {
        (self.request, self.tenant)
    }

    /// Upper bound of the entry's length.
    pub(super) fn size(&self) -> usize {
        self.body.len() + 160
    }

    /// Appends the entry's bytes. `link` is the tenant's sequence number and previous hash.
    pub(super) fn encode(
        &self,
        out: &mut Vec<u8>,
        index: u64,
        time: Timestamp,
        salt: &[u8],
        link: Option<(u64, Hash)>,
    ) {
        let mut out = Out(out);
        out.u8(VERSION);
        out.u8(self.kind);
        out.bytes(salt);
        out.u64(index);
        out.u64(time.0);
        out.option(self.request, |out, id| out.bytes(&id.0));
        out.option(self.tenant.as_ref().zip(link), |out, (tenant, (sequence, previous))| {
            out.text(tenant.as_str(), MAX_CODE);
            out.u64(sequence);
            out.bytes(&previous);
        });
        out.bytes(&self.body);
    }
}

const fn kind(body: &Body) -> u8 {
    match body {
        Body::Intent { decided, .. } => match decided.form() {
            Form::Plain => 1,
            Form::Custody => 6,
            Form::Additions => 8,
        },
        Body::Outcome { .. } => 2,
        Body::Refused { decided, .. } => match decided.form() {
            Form::Plain => 3,
            Form::Custody => 7,
            Form::Additions => 9,
        },
        Body::Control { .. } => 4,
        Body::System { .. } => 5,
    }
}

fn encode_body(out: &mut Out<'_>, body: &Body) {
    match body {
        Body::Intent { decided, key, items } => {
            decided.encode(out);
            out.option(*key, encode_key);
            out.u32(*items);
        }
        Body::Outcome { intent, status, reason, key, items } => {
            out.u64(*intent);
            out.u8(*status as u8);
            out.text(reason, MAX_CODE);
            out.option(*key, encode_key);
            out.u32(*items);
        }
        Body::Refused { decided, check, reason } => {
            decided.encode(out);
            out.text(check, MAX_CODE);
            out.text(reason, MAX_CODE);
        }
        Body::Control { intent, principal, action, detail, key } => {
            out.u64(*intent);
            out.text(principal, MAX_PRINCIPAL);
            out.text(action, MAX_CODE);
            out.text(detail, MAX_CODE);
            out.option(*key, encode_key);
        }
        Body::System { event, detail, first, second } => {
            out.text(event, MAX_CODE);
            out.text(detail, MAX_CODE);
            out.u64(*first);
            out.u64(*second);
        }
    }
}

fn encode_key(out: &mut Out<'_>, key: KeyRef) {
    out.bytes(&key.key_id.0);
    out.u32(key.version.0);
    out.option(key.tenant_key_version, |out, version| out.u32(version.0));
}

impl Entry {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let tenant = self.link.as_ref().map(|link| link.tenant.clone());
        let mut out = Vec::new();
        Draft::new(self.request, tenant, &self.body).encode(
            &mut out,
            self.index,
            self.time,
            &self.salt,
            self.link.as_ref().map(|link| (link.sequence, link.previous)),
        );
        out
    }

    /// Reads an entry, refusing whatever [`Self::encode`] would not have written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the byte.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = In::new(bytes);
        if bytes.len() > MAX_ENTRY {
            return Err(input.refuse("the entry is longer than 65,535 bytes"));
        }
        if input.u8()? != VERSION {
            return Err(input.refuse("unknown version"));
        }
        let kind = input.u8()?;
        let salt = input.array()?;
        let index = input.u64()?;
        let time = Timestamp(input.u64()?);
        let request = input.option(|i| i.array().map(RequestId))?;
        let link = input.option(|i| {
            let tenant = TenantId::parse(i.text(MAX_CODE)?).map_err(|_| i.refuse("not a tenant"))?;
            let sequence = i.u64()?;
            if sequence == 0 {
                return Err(i.refuse("sequence numbers start at 1"));
            }
            Ok(Link { tenant, sequence, previous: i.array()? })
        })?;
        let body = decode_body(&mut input, kind)?;
        input.end()?;
        Ok(Self { index, time, salt, request, link, body })
    }
}

pub(super) fn code(input: &mut In<'_>) -> Result<String, Error> {
    input.text(MAX_CODE).map(str::to_owned)
}

fn intent(i: &mut In<'_>, form: Form) -> Result<Body, Error> {
    Ok(Body::Intent { decided: Decided::decode(i, form)?, key: i.option(decode_key)?, items: i.u32()? })
}

fn refused(i: &mut In<'_>, form: Form) -> Result<Body, Error> {
    Ok(Body::Refused { decided: Decided::decode(i, form)?, check: code(i)?, reason: code(i)? })
}

fn decode_body(i: &mut In<'_>, kind: u8) -> Result<Body, Error> {
    Ok(match kind {
        1 => intent(i, Form::Plain)?,
        6 => intent(i, Form::Custody)?,
        8 => intent(i, Form::Additions)?,
        2 => Body::Outcome {
            intent: i.u64()?,
            status: match i.u8()? {
                0 => Status::Done,
                1 => Status::Failed,
                2 => Status::Cancelled,
                3 => Status::Partial,
                _ => return Err(i.refuse("unknown status")),
            },
            reason: code(i)?,
            key: i.option(decode_key)?,
            items: i.u32()?,
        },
        3 => refused(i, Form::Plain)?,
        7 => refused(i, Form::Custody)?,
        9 => refused(i, Form::Additions)?,
        4 => Body::Control {
            intent: i.u64()?,
            principal: i.text(MAX_PRINCIPAL)?.to_owned(),
            action: code(i)?,
            detail: code(i)?,
            key: i.option(decode_key)?,
        },
        5 => Body::System { event: code(i)?, detail: code(i)?, first: i.u64()?, second: i.u64()? },
        _ => return Err(i.refuse("unknown kind")),
    })
}

fn decode_key(i: &mut In<'_>) -> Result<KeyRef, Error> {
    Ok(KeyRef {
        key_id: KeyId(i.array()?),
        version: KeyVersion(i.u32()?),
        tenant_key_version: i.option(|i| i.u32().map(KeyVersion))?,
    })
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
