//! Bundles as rows. All keys begin with [`POLICY_ROWS`], then 00 and:
//!
//! ```text
//! active                    which bundle is in force: the one row that is replaced, and the only way to change that
//! bundle 00 u64 version     what a bundle is called, who brought it, who signed it
//! chunk  00 u64 version u16 n   its canonical bytes, in pieces
//! proof  00 u64 version     its proof record
//! past   00 u64 version     that it came into force, by which approval
//! ```
//! The rows of a version are written once, so no two bundles have the same version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bundle, BundleRef, Judged, SignedBundle};
use crate::error::Error;
use crate::id::{ApprovalId, Fingerprint};
use crate::store::{Expect, POLICY_ROWS, Row, Store, Table, Write};
use crate::time::Timestamp;

/// Bytes of a bundle in one row.
const CHUNK: usize = 60_000;
/// What a row begins with that is a piece of text; the others are JSON.
const PIECE: u8 = 1;
/// More pieces than any bundle has.
const MOST_PIECES: usize = 100;

/// What became of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleState {
    /// It waits.
    Pending,
    /// It is in force.
    Active,
    /// It was in force.
    Retired,
    /// It never was, and no longer can be: a newer one is.
    Passed,
}

/// A bundle in the store, without its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBundle {
    /// Which.
    pub reference: BundleRef,
    /// The digest of the bundle that it follows.
    pub previous: Option<Fingerprint>,
    /// When it was made.
    pub created: Timestamp,
    /// Before this time it cannot come into force.
    pub not_before: Timestamp,
    /// Why it was made.
    pub comment: String,
    /// Policies in it.
    pub policies: u64,
    /// Entries in its registry.
    pub workloads: u64,
    /// The policy signers who had signed it when it was proposed.
    pub signers: Vec<String>,
    /// The SPIFFE ID of the operator who proposed it; empty if it was installed while no gateway ran.
    pub proposer: String,
    /// When.
    pub proposed: Timestamp,
    /// What became of it.
    pub state: BundleState,
    /// When it came into force.
    pub activated: Option<Timestamp>,
    /// The approval by which it did; `None` also if it was installed while no gateway ran.
    pub approval: Option<ApprovalId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum PolicyRow {
    Active(ActiveRow),
    Bundle(BundleRow),
    Past(PastRow),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActiveRow {
    /// 0 while none is: then the files are that the configuration names.
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Fingerprint>,
    since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleRow {
    version: u64,
    digest: Fingerprint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Fingerprint>,
    created: u64,
    not_before: u64,
    comment: String,
    policies: u64,
    workloads: u64,
    signers: Vec<String>,
    signatures: Vec<String>,
    proof: bool,
    proposer: String,
    proposed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PastRow {
    digest: Fingerprint,
    /// Absent if it was installed while no gateway ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalId>,
    since: u64,
}

/// Refuses a row that this version does not read.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn check_row(value: &[u8]) -> Result<(), Error> {
    if value.first() == Some(&PIECE) { Ok(()) } else { decode(value).map(drop) }
}

fn damaged(at: impl std::fmt::Display) -> Error {
    Error::corrupt("store", format!("table policies: {at}"))
}

fn decode(value: &[u8]) -> Result<PolicyRow, Error> {
    // serde's message may quote the row; its position may be told.
    serde_json::from_slice(value)
        .map_err(|error| damaged(format_args!("a row is not as it was written, at byte {}", error.column())))
}

fn key(kind: &str, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = [POLICY_ROWS, kind.as_bytes()].join(&0);
    if !rest.is_empty() {
        key.push(0);
    }
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn write(key: Vec<u8>, expect: Expect, value: Vec<u8>) -> Write {
    Write { table: Table::Policies, key, expect, value, revokes: false }
}

fn write_row(key: Vec<u8>, expect: Expect, row: &PolicyRow) -> Result<Write, Error> {
    let value = serde_json::to_vec(row).map_err(|_| damaged("a row cannot be written as JSON"))?;
    Ok(write(key, expect, value))
}

fn piece(text: &[u8]) -> Vec<u8> {
    [&[PIECE], text].concat()
}

fn text_of(row: &Row) -> Result<&[u8], Error> {
    match row.value.split_first() {
        Some((&PIECE, text)) => Ok(text),
        _ => Err(damaged("a piece of a bundle is not as it was written")),
    }
}

/// What is in force, as the store says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Active {
    /// `None` while it is the configuration's files.
    pub(crate) reference: Option<BundleRef>,
    row_version: u64,
}

impl Active {
    /// Whether a bundle may take its place.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `version` or `previous`; [`Error::FailedPrecondition`] if it is in force.
    pub(crate) fn admits(&self, next: BundleRef, previous: Option<Fingerprint>) -> Result<(), Error> {
        if let Some(now) = self.reference {
            if next == now {
                return Err(Error::FailedPrecondition("the bundle is in force"));
            }
            if next.version == now.version {
                return Err(Error::invalid("version", "another bundle of this version is in force"));
            }
            if next.version < now.version {
                return Err(Error::invalid("version", "is below that of the bundle in force; there is no way back"));
            }
        }
        if previous != self.reference.map(|now| now.digest) {
            return Err(Error::invalid("previous", "is not the digest of the bundle in force"));
        }
        Ok(())
    }
}

/// A bundle that comes into force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act {
    pub(crate) bundle: BundleRef,
    pub(crate) approval: Option<ApprovalId>,
    pub(crate) now: Timestamp,
}

/// The rows of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shelf<'a>(pub(crate) &'a dyn Store);

impl Shelf<'_> {
    async fn row(&self, key: &[u8]) -> Result<Option<(PolicyRow, u64)>, Error> {
        match self.0.get(Table::Policies, key).await? {
            Some(row) => Ok(Some((decode(&row.value)?, row.version))),
            None => Ok(None),
        }
    }

    /// What is in force; `None` if nobody has ever wanted to know ([`Self::begin`]).
    pub(crate) async fn active(&self) -> Result<Option<Active>, Error> {
        let (row, row_version) = match self.row(&key("active", &[])).await? {
            Some((PolicyRow::Active(row), version)) => (row, version),
            Some(_) => return Err(damaged("the row of what is in force is another")),
            None => return Ok(None),
        };
        let reference = match (row.version, row.digest) {
            (0, None) => None,
            (version @ 1.., Some(digest)) => Some(BundleRef { version, digest }),
            _ => return Err(damaged("the row of what is in force contradicts itself")),
        };
        Ok(Some(Active { reference, row_version }))
    }

    /// The same, after writing down that no bundle is in force yet where nothing was: from then on a change replaces a
    /// row, of which every gateway hears.
    pub(crate) async fn begin(&self, now: Timestamp) -> Result<Active, Error> {
        if let Some(active) = self.active().await? {
            return Ok(active);
        }
        let row = PolicyRow::Active(ActiveRow { version: 0, digest: None, since: now.0 });
        match self.0.commit(vec![write_row(key("active", &[]), Expect::Absent, &row)?]).await {
            // Another gateway did.
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        self.active().await?.ok_or_else(|| damaged("the row of what is in force is gone"))
    }

    /// The writes that put a bundle in force in the place of `active`.
    pub(crate) fn activation(&self, active: &Active, act: Act) -> Result<[Write; 2], Error> {
        let BundleRef { version, digest } = act.bundle;
        let since = act.now.0;
        let row = PolicyRow::Active(ActiveRow { version, digest: Some(digest), since });
        let replaced = write_row(key("active", &[]), Expect::Version(active.row_version), &row)?;
        let past = PolicyRow::Past(PastRow { digest, approval: act.approval, since });
        let past = write_row(key("past", &[&version.to_be_bytes()]), Expect::Absent, &past)?;
        // Every gateway must drop what it decides by.
        Ok([Write { revokes: true, ..replaced }, past])
    }

    /// The digest of the bundle of a version that is or was in force.
    pub(crate) async fn past(&self, version: u64) -> Result<Option<Fingerprint>, Error> {
        match self.row(&key("past", &[&version.to_be_bytes()])).await? {
            Some((PolicyRow::Past(row), _)) => Ok(Some(row.digest)),
            Some(_) => Err(damaged("a row of what was in force is another")),
            None => Ok(None),
        }
    }

    /// Keeps a bundle that was judged. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `version` if another bundle of this version is there.
    pub(crate) async fn put(
        &self,
        signed: &SignedBundle,
        judged: &Judged,
        proposer: &str,
        now: Timestamp,
    ) -> Result<StoredBundle, Error> {
        let (reference, bundle) = (signed.reference(), signed.bundle());
        let version = reference.version.to_be_bytes();
        let row = BundleRow {
            version: reference.version,
            digest: reference.digest,
            previous: bundle.previous,
            created: bundle.created.0,
            not_before: bundle.not_before.0,
            comment: bundle.comment.clone(),
            policies: judged.set.ids().len() as u64,
            workloads: judged.registry.len() as u64,
            signers: judged.signers.clone(),
            signatures: signed.signatures().to_vec(),
            proof: signed.proof().is_some(),
            proposer: proposer.to_owned(),
            proposed: now.0,
        };
        let mut writes = vec![write_row(key("bundle", &[&version]), Expect::Absent, &PolicyRow::Bundle(row))?];
        for (n, part) in (0_u16..).zip(signed.encoded().chunks(CHUNK)) {
            writes.push(write(key("chunk", &[&version, &n.to_be_bytes()]), Expect::Absent, piece(part)));
        }
        if let Some(proof) = signed.proof() {
            writes.push(write(key("proof", &[&version]), Expect::Absent, piece(proof.as_bytes())));
        }
        match self.0.commit(writes).await {
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        let there = self.get(reference.version).await?;
        if there.reference != reference {
            return Err(Error::invalid("version", "another bundle of this version was proposed"));
        }
        Ok(there)
    }

    /// One bundle.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn get(&self, version: u64) -> Result<StoredBundle, Error> {
        let row = self.bundle_row(version).await?;
        let past = match self.row(&key("past", &[&version.to_be_bytes()])).await? {
            Some((PolicyRow::Past(past), _)) => Some(past),
            _ => None,
        };
        Ok(view(row, past.as_ref(), self.active().await?))
    }

    /// Up to `limit` bundles after a version, ascending.
    pub(crate) async fn list(&self, after: Option<u64>, limit: usize) -> Result<Vec<StoredBundle>, Error> {
        let page = async |kind| {
            let prefix = key(kind, &[b""]);
            let after = after.map(|version| key(kind, &[&version.to_be_bytes()]));
            self.0.scan(Table::Policies, &prefix, after.as_deref(), limit).await
        };
        let (found, past) = (page("bundle").await?, page("past").await?);
        let mut pasts = BTreeMap::new();
        for scanned in &past {
            let version = scanned.key.last_chunk::<8>().copied().map(u64::from_be_bytes);
            if let (Some(version), PolicyRow::Past(row)) = (version, decode(&scanned.row.value)?) {
                pasts.insert(version, row);
            }
        }
        let active = self.active().await?;
        found
            .iter()
            .map(|scanned| match decode(&scanned.row.value)? {
                PolicyRow::Bundle(row) => {
                    let past = pasts.get(&row.version);
                    Ok(view(row, past, active))
                }
                _ => Err(damaged("a bundle's row is another")),
            })
            .collect()
    }

    async fn bundle_row(&self, version: u64) -> Result<BundleRow, Error> {
        match self.row(&key("bundle", &[&version.to_be_bytes()])).await? {
            Some((PolicyRow::Bundle(row), _)) if row.version == version => Ok(row),
            Some(_) => Err(damaged("a bundle's row is another")),
            None => Err(Error::NotFound("policy bundle")),
        }
    }

    /// A whole bundle, as it was proposed. Its signatures are still to be checked.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] if a piece is missing, cut or altered.
    pub(crate) async fn signed(&self, version: u64) -> Result<SignedBundle, Error> {
        let row = self.bundle_row(version).await?;
        let number = version.to_be_bytes();
        let pieces = self.0.scan(Table::Policies, &key("chunk", &[&number]), None, MOST_PIECES).await?;
        let mut encoded = Vec::new();
        for scanned in &pieces {
            encoded.extend_from_slice(text_of(&scanned.row)?);
        }
        let whole = format!("bundle {version} is not as it was proposed");
        if Bundle::digest(&encoded) != row.digest {
            return Err(damaged(whole));
        }
        let bundle = Bundle::decode(&encoded).map_err(|_| damaged(&whole))?;
        let proof = match self.0.get(Table::Policies, &key("proof", &[&number])).await? {
            Some(found) => Some(String::from_utf8(text_of(&found)?.to_vec()).map_err(|_| damaged(&whole))?),
            None => None,
        };
        if bundle.version != version || row.proof != proof.is_some() {
            return Err(damaged(whole));
        }
        SignedBundle::new(bundle)?.with_signatures(row.signatures)?.with_proof(proof)
    }
}

fn view(row: BundleRow, past: Option<&PastRow>, active: Option<Active>) -> StoredBundle {
    let reference = BundleRef { version: row.version, digest: row.digest };
    let active = active.and_then(|active| active.reference);
    let state = match active {
        Some(active) if active == reference => BundleState::Active,
        _ if past.is_some() => BundleState::Retired,
        Some(active) if row.version <= active.version => BundleState::Passed,
        _ => BundleState::Pending,
    };
    StoredBundle {
        reference,
        previous: row.previous,
        created: Timestamp(row.created),
        not_before: Timestamp(row.not_before),
        comment: row.comment,
        policies: row.policies,
        workloads: row.workloads,
        signers: row.signers,
        proposer: row.proposer,
        proposed: Timestamp(row.proposed),
        state,
        activated: past.map(|past| Timestamp(past.since)),
        approval: past.and_then(|past| past.approval),
    }
}
