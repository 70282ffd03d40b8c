//! The erasure receipt: what a shred destroyed, who confirmed it, and what remains until when, as a signed text.
//!
//! `docs/receipts.md` is the specification. One text stands for each receipt: [`ReceiptText::parse`] reads only what
//! [`ReceiptText::text`] writes.

use std::fmt::Write as _;

use crate::audit::LogVerifier;
use crate::error::Error;
use crate::id::{ApprovalId, KeyId, KeyVersion, TenantId};
use crate::policy::rfc3339;
use crate::time::Timestamp;

const TITLE: &str = "blindvault erasure receipt v1";
/// What remains after a subject's data keys, and after a tenant's keys.
const RESIDUE_OF_SUBJECT: &str = "copies made before (backups, database logs, unused pages of the store) of a wrapped \
    data key open with the tenant key: until its versions are destroyed, and from then on for whoever has the root key \
    and a copy of the wrapped tenant key";
const RESIDUE_OF_TENANT: &str = "copies made before (backups, database logs, unused pages of the store) of the wrapped \
    tenant key open for whoever has the root key";

/// One gateway, and since when it holds none of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Its name: the instance's, where the store has no other; else its own, and what tells its starts apart.
    pub gateway: String,
    /// When it confirmed that the keys are wiped from its memory, as RFC 3339 says it.
    pub confirmed: String,
}

/// One gateway that said nothing, and from when on it served nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseEnded {
    /// Its name.
    pub gateway: String,
    /// When its revocation lease had ended for certain, as RFC 3339 says it.
    pub ended: String,
}

/// What an erasure receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptText {
    /// The installation.
    pub instance: String,
    /// The approval that was carried out.
    pub approval: ApprovalId,
    /// Whose keys they were.
    pub tenant: TenantId,
    /// The pseudonym of the subject in 32 hexadecimal digits, or `None` if it was the whole tenant.
    pub subject: Option<String>,
    /// From when on no key was made or used for it any more, as RFC 3339 says it.
    pub decided: String,
    /// How many data keys were destroyed.
    pub data_keys: u64,
    /// SHA-256 over all of them, in 64 hexadecimal digits.
    pub digest: String,
    /// The first of them, at most 200.
    pub listed: Vec<(String, u32)>,
    /// The version of the tenant key that was active: it and all before it go.
    pub tenant_key_version: u32,
    /// When they are to be destroyed, as RFC 3339 says it; `None` if they are.
    pub due: Option<String>,
    /// The gateways that confirmed.
    pub evicted: Vec<Evicted>,
    /// The others.
    pub lease_ended: Vec<LeaseEnded>,
    /// The index of the entry in the audit log.
    pub audit_entry: u64,
}

/// A time as a receipt writes it.
pub(crate) fn time(at: Timestamp) -> String {
    rfc3339(at).unwrap_or_else(|| "never".to_owned())
}

/// A data key as a receipt writes it.
pub(crate) fn listed(key: &(KeyId, KeyVersion)) -> (String, u32) {
    (hex(&key.0.0), key.1.0)
}

/// A gateway's name, which has no spaces, and a time.
fn gateway_and_time(value: &str) -> Option<(String, String)> {
    let (gateway, at) = value.split_once(' ')?;
    let good = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    (good(gateway) && good(at)).then(|| (gateway.to_owned(), at.to_owned()))
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl ReceiptText {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        let mut line = |name: &str, value: &str| {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        };
        line("instance", &self.instance);
        line("approval", &self.approval.to_string());
        line("tenant", self.tenant.as_str());
        line("subject", self.subject.as_deref().unwrap_or("all"));
        line("decided", &self.decided);
        line("data keys", &self.data_keys.to_string());
        line("digest", &format!("sha256:{}", self.digest));
        for (id, version) in &self.listed {
            line("data key", &format!("{id} version {version}"));
        }
        line("tenant key versions", &format!("1 to {}", self.tenant_key_version));
        match &self.due {
            Some(due) => line("tenant key destruction", &format!("after {due}")),
            None => line("tenant key destruction", "done"),
        }
        for one in &self.evicted {
            line("evicted", &format!("{} {}", one.gateway, one.confirmed));
        }
        for one in &self.lease_ended {
            line("lease ended", &format!("{} {}", one.gateway, one.ended));
        }
        line("residue", if self.due.is_some() { RESIDUE_OF_SUBJECT } else { RESIDUE_OF_TENANT });
        line("audit entry", &self.audit_entry.to_string());
        text
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the line that is not as it must be.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |line: &str| Error::corrupt("receipt", format!("the line `{line}` is missing or malformed"));
        let mut lines = text.split('\n').peekable();
        if lines.next() != Some(TITLE) {
            return Err(Error::corrupt("receipt", "it is not an erasure receipt of version 1"));
        }
        let mut take = |name: &'static str| -> Result<String, Error> {
            let value = lines.next_if(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ")));
            let value = value.and_then(|line| line.get(name.len() + 2..)).ok_or_else(|| refuse(name))?;
            Ok(value.to_owned())
        };
        let number = |name: &'static str, value: &str| value.parse::<u64>().map_err(|_| refuse(name));
        let instance = take("instance")?;
        let approval = ApprovalId::parse(&take("approval")?).map_err(|_| refuse("approval"))?;
        let tenant = TenantId::parse(&take("tenant")?).map_err(|_| refuse("tenant"))?;
        let subject = Some(take("subject")?).filter(|subject| subject != "all");
        let decided = take("decided")?;
        let data_keys = number("data keys", &take("data keys")?)?;
        let digest = take("digest")?.strip_prefix("sha256:").ok_or_else(|| refuse("digest"))?.to_owned();
        let mut listed = Vec::new();
        while let Ok(key) = take("data key") {
            let (id, version) = key.split_once(" version ").ok_or_else(|| refuse("data key"))?;
            listed.push((id.to_owned(), version.parse().map_err(|_| refuse("data key"))?));
        }
        let versions = take("tenant key versions")?;
        let last = versions.strip_prefix("1 to ").and_then(|last| last.parse().ok());
        let tenant_key_version = last.ok_or_else(|| refuse("tenant key versions"))?;
        let due = take("tenant key destruction")?;
        let due = match due.strip_prefix("after ") {
            Some(due) => Some(due.to_owned()),
            None if due == "done" => None,
            None => return Err(refuse("tenant key destruction")),
        };
        let mut evicted = Vec::new();
        while let Ok(one) = take("evicted") {
            let (gateway, confirmed) = gateway_and_time(&one).ok_or_else(|| refuse("evicted"))?;
            evicted.push(Evicted { gateway, confirmed });
        }
        let mut lease_ended = Vec::new();
        while let Ok(one) = take("lease ended") {
            let (gateway, ended) = gateway_and_time(&one).ok_or_else(|| refuse("lease ended"))?;
            lease_ended.push(LeaseEnded { gateway, ended });
        }
        take("residue")?;
        let audit_entry = number("audit entry", &take("audit entry")?)?;
        let receipt = Self {
            instance,
            approval,
            tenant,
            subject,
            decided,
            data_keys,
            digest,
            listed,
            tenant_key_version,
            due,
            evicted,
            lease_ended,
            audit_entry,
        };
        if receipt.text() == text { Ok(receipt) } else { Err(refuse("end")) }
    }

    /// Checks a signed receipt against the audit log's verifier key, without anything else.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming what is wrong: the note's form, its signature, or a line of its text.
    pub fn verify(note: &str, verifier: &LogVerifier) -> Result<Self, Error> {
        Self::parse(verifier.note(note)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ReceiptText {
        ReceiptText {
            instance: "shop-1".into(),
            approval: ApprovalId([7; 16]),
            tenant: TenantId::parse("acme").unwrap(),
            subject: Some("0f".repeat(16)),
            decided: time(Timestamp(1_764_000_000_000)),
            data_keys: 2,
            digest: "ab".repeat(32),
            listed: vec![("01".repeat(16), 1), ("02".repeat(16), 7)],
            tenant_key_version: 3,
            due: Some(time(Timestamp(1_764_604_800_000))),
            evicted: vec![
                Evicted { gateway: "gw-1/3f9a01c2".into(), confirmed: time(Timestamp(1_764_000_000_123)) },
                Evicted { gateway: "gw-2/b07755e1".into(), confirmed: time(Timestamp(1_764_000_000_131)) },
            ],
            lease_ended: vec![LeaseEnded {
                gateway: "gw-3/0c4d8e90".into(),
                ended: time(Timestamp(1_764_000_011_000)),
            }],
            audit_entry: 4711,
        }
    }

    #[test]
    fn a_text_is_read_as_it_was_written_and_in_no_other_form() {
        let tenant = ReceiptText { subject: None, due: None, listed: vec![], ..example() };
        for receipt in [example(), tenant] {
            let text = receipt.text();
            assert_eq!(ReceiptText::parse(&text).unwrap(), receipt);
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            for cut in 0..lines.len() {
                let mut fewer = lines.clone();
                let gone = fewer.remove(cut);
                // A list may be shorter, and is then another receipt: only the signature tells.
                if !["data key: ", "evicted: ", "lease ended: "].iter().any(|list| gone.starts_with(list)) {
                    assert!(ReceiptText::parse(&fewer.concat()).is_err(), "without {gone}");
                }
            }
            let ended = "lease ended: gw-3/0c4d8e90 2025-11-24T16:00:11.000Z\n";
            assert!(text.contains(ended));
            for bad in [
                text.replace("audit entry: 4711", "audit entry: 04711"),
                text.replace("gw-1/", "gw 1/"),
                text.replace("gw-3/0c4d8e90 ", "gw-3/0c4d8e90"),
                text.replace(ended, "").replace("evicted: gw-1", &format!("{ended}evicted: gw-1")),
                format!("{text}more: 1\n"),
                text + "\n",
            ] {
                assert!(ReceiptText::parse(&bad).is_err(), "{bad}");
            }
        }
    }

    /// The worked example of the specification.
    #[test]
    fn the_document_shows_what_is_written() {
        let document = include_str!("../../../docs/receipts.md");
        assert!(document.contains(&example().text()), "{}", example().text());
    }
}
