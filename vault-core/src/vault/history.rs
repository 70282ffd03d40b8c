//! Reading the audit log: tenants their own entries, operators with the right to it all of them. Neither holds data.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_channel::oneshot;

use super::{ControlCall, Vault};
use crate::audit::merkle::Hash;
use crate::audit::{Body, Entry, History, Log, LogVerifier, PageBounds, Proven, Pseudonym, Recorded};
use crate::error::{Check, Dependency, Error};
use crate::id::{DatasetId, Purpose, RequestId, Subject, TenantId};
use crate::policy::{
    GetCheckpoint, GetConsistencyProof, GetInclusionProof, HistoryRequest, ListAccesses, ListEntries, Permit, Refusal,
    Resource,
};
use crate::principal::{EndUser, TokenError, Workload};
use crate::store::LogName;
use crate::time::Timestamp;

/// Most bytes of entries and paths in an answer.
const MAX_PAGE: usize = 3 << 20;
/// Most entries that a selection looks at before it answers.
const MAX_LOOKED_AT: usize = 10_000;
/// Most that read at the same time, each on a thread of its own.
const MAX_READERS: usize = 16;
/// How long the answer waits for the checkpoint that covers the call itself; checkpoints are signed every second.
const PATIENCE: Duration = Duration::from_secs(5);

/// The logs that this vault can read: its own, and copies of other gateways'.
#[derive(Debug)]
pub(super) struct Histories {
    own: History,
    others: Vec<Other>,
    reading: AtomicUsize,
}

/// The directory of another log, which may not be there yet.
#[derive(Debug)]
struct Other {
    dir: PathBuf,
    indexes: PathBuf,
    opened: OnceLock<History>,
}

impl Other {
    fn history(&self) -> Result<&History, Error> {
        if let Some(history) = self.opened.get() {
            return Ok(history);
        }
        let opened = History::of_copy(&self.dir, &self.indexes)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

impl Histories {
    pub(super) fn of(log: &Log) -> Self {
        Self { own: History::of(log), others: Vec::new(), reading: AtomicUsize::new(0) }
    }

    /// Its own log, and of the others' that are there those of which the store says the same key.
    fn readable<'a>(&'a self, logs: &'a [LogName]) -> impl Iterator<Item = &'a History> {
        let others = self.others.iter().filter_map(|other| other.history().ok());
        let is_known = |history: &&History| {
            let key = history.verifier().vkey();
            logs.iter().any(|log| log.origin == history.origin() && log.keys.contains(&key))
        };
        let others = others.filter(|other| other.origin() != self.own.origin()).filter(is_known);
        std::iter::once(&self.own).chain(others)
    }

    fn find<'a>(&'a self, origin: Option<&str>, logs: &'a [LogName]) -> Option<&'a History> {
        let origin = origin.unwrap_or_else(|| self.own.origin());
        self.readable(logs).find(|history| history.origin() == origin)
    }

    /// Reads on a thread of its own: files, and the wait for the next checkpoint, block.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        struct Reading(Arc<Histories>);
        impl Drop for Reading {
            fn drop(&mut self) {
                self.0.reading.fetch_sub(1, Ordering::AcqRel);
            }
        }
        const BUSY: Error = Error::unavailable(Dependency::Audit, "too many read the audit log");
        let before = self.reading.fetch_add(1, Ordering::AcqRel);
        let reading = Reading(Arc::clone(self));
        if before >= MAX_READERS {
            return Err(BUSY);
        }
        let (sender, receiver) = oneshot::channel();
        let work = move || drop(sender.send(read(&reading.0)));
        std::thread::Builder::new().name("audit-history".to_owned()).spawn(work).map_err(|_| BUSY)?;
        receiver.await.map_err(|_| Error::unavailable(Dependency::Audit, "reading the log ended unexpectedly"))?
    }
}

/// Keeps the indexes of tenants' entries up to date, so that nobody who reads waits for it.
#[derive(Debug, Clone)]
pub struct LogFollower(Arc<Histories>);

impl LogFollower {
    /// Reads what is new in each log. Blocks; to be called every second or so.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`]: the first of any log; the others are up to date.
    pub fn follow(&self) -> Result<(), Error> {
        let Histories { own, others, .. } = &*self.0;
        let others = others.iter().map(|other| other.history().and_then(History::follow));
        let results: Vec<_> = std::iter::once(own.follow()).chain(others).collect();
        results.into_iter().collect()
    }
}

/// Who reads what the log says of a tenant.
#[derive(Debug, Clone)]
pub struct AccessCall<'a> {
    /// The workload that asks.
    pub who: &'a Workload,
    /// The end user for whom it asks, if there is one.
    pub end_user: Option<Arc<EndUser>>,
    /// Whose entries.
    pub tenant: &'a TenantId,
    /// Names the call in the audit log.
    pub request: RequestId,
}

/// Which of a tenant's entries to read.
#[derive(Debug, Clone, Default)]
pub struct AccessQuery {
    /// Of which log; `None` is the one of this vault.
    pub log: Option<String>,
    /// Those after this sequence number; 0 for the first.
    pub after: u64,
    /// At most so many, 1 to 1,000.
    pub limit: usize,
    /// The size of a checkpoint that is known, for the proof that the answer's extends it; 0 for none.
    pub known: u64,
    /// Written at or after this instant.
    pub from: Option<Timestamp>,
    /// Written before this instant.
    pub until: Option<Timestamp>,
    /// About this dataset.
    pub dataset: Option<DatasetId>,
    /// About this person's data.
    pub subject: Option<Subject>,
    /// For this purpose.
    pub purpose: Option<Purpose>,
}

impl AccessQuery {
    /// Whether it asks for less than all entries.
    pub const fn is_selection(&self) -> bool {
        self.from.is_some()
            || self.until.is_some()
            || self.dataset.is_some()
            || self.subject.is_some()
            || self.purpose.is_some()
    }
}

/// A page of a tenant's entries of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPage {
    /// The log's name.
    pub log: String,
    /// A signed checkpoint of it.
    pub checkpoint: String,
    /// The proof that it extends the one whose size was named (RFC 6962 section 2.1.2).
    pub consistency: Vec<Hash>,
    /// The entries, by ascending sequence, each with its path to the checkpoint.
    pub entries: Vec<Proven>,
    /// The tenant's last entry below the checkpoint.
    pub head: Option<Proven>,
    /// Up to which sequence number the tenant's entries were looked at.
    pub seen: u64,
    /// Entries between were left out, because they were not asked for.
    pub is_selection: bool,
    /// All logs that gateways on the same store have, this one first.
    pub logs: Vec<LogName>,
    /// Those of them that this vault can read.
    pub readable: Vec<String>,
    /// The entry of this call, in the log of this vault.
    pub audit_entry: u64,
}

/// Entries of the log, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntries {
    /// The entries with their leaf hashes.
    pub entries: Vec<(Entry, Hash)>,
    /// How many entries the newest published checkpoint covers.
    pub size: u64,
}

/// That the log holds an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The size of the tree that it is about.
    pub size: u64,
    /// The entry's leaf hash.
    pub leaf_hash: Hash,
    /// The path (RFC 6962 section 2.1.1), lowest first.
    pub path: Vec<Hash>,
}

/// What a query asks of entries.
struct Selection {
    query: AccessQuery,
    subject: Option<Pseudonym>,
}

impl Selection {
    /// An outcome and an execution are about what their intent is about.
    fn takes(&self, entry: &Entry, other: &mut dyn FnMut(u64) -> Result<Entry, Error>) -> Result<bool, Error> {
        if self.query.from.is_some_and(|from| entry.time < from) || self.query.until.is_some_and(|to| entry.time >= to)
        {
            return Ok(false);
        }
        if self.query.dataset.is_none() && self.subject.is_none() && self.query.purpose.is_none() {
            return Ok(true);
        }
        let intent;
        let body = match &entry.body {
            Body::Outcome { intent: index, .. } | Body::Control { intent: index, .. } if *index < entry.index => {
                intent = other(*index)?;
                &intent.body
            }
            body => body,
        };
        let (Body::Intent { decided, .. } | Body::Refused { decided, .. }) = body else { return Ok(false) };
        Ok(self.query.dataset.as_ref().is_none_or(|dataset| decided.dataset.as_ref() == Some(dataset))
            && self.query.purpose.as_ref().is_none_or(|purpose| decided.purpose.as_ref() == Some(purpose))
            && self.subject.is_none_or(|subject| decided.pseudonym == Some(subject)))
    }
}

impl Vault {
    /// The same vault, which can also read other gateways' logs, or copies of them, in these directories. One that is not
    /// there yet is read when it is.
    #[must_use]
    pub fn with_logs(self, dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        let indexes = self.audit.dir().join("shards");
        let other = |dir| Other { dir, indexes: indexes.clone(), opened: OnceLock::new() };
        let (own, others) = (History::of(&self.audit), dirs.into_iter().map(other).collect());
        Self { histories: Arc::new(Histories { own, others, reading: AtomicUsize::new(0) }), ..self }
    }

    /// Enters this vault's log among those of the store, so that tenants know that it is there. To be called before the
    /// first call is served.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] if another log of this name is there; [`Error::Unavailable`]; [`Error::Corrupt`].
    pub async fn enter_log(&self) -> Result<(), Error> {
        let name = self.log_name().await?;
        self.keys.logs(&name, true).await.map(drop)
    }

    async fn log_name(&self) -> Result<LogName, Error> {
        self.histories
            .read(|histories| {
                let own = &histories.own;
                own.wait_for(0, PATIENCE)?;
                let (_, first, _) = own.inclusion(0, Some(1))?;
                let keys = own.keys()?.iter().map(LogVerifier::vkey).collect();
                Ok(LogName { origin: own.origin().to_owned(), keys, first })
            })
            .await
    }

    /// Keeps the indexes of tenants' entries up to date, without keeping the vault.
    pub fn log_follower(&self) -> LogFollower {
        LogFollower(Arc::clone(&self.histories))
    }

    /// Refuses a call whose end user's token proves nobody, as [`Self::refuse_token`] does for data calls.
    pub async fn refuse_history_token(
        &self,
        who: &Workload,
        (tenant, request): (&TenantId, RequestId),
        rule: TokenError,
    ) -> Error {
        if rule.is_malformed() {
            return rule.into();
        }
        let about = (Resource::default(), request);
        let refusal = self.authorizer.refuse_token::<ListAccesses>(who, tenant, about, rule, self.clock.now());
        self.refuse(&refusal).await
    }

    /// Reads a page of the tenant's own entries, with proofs: every access to its data, also those that were refused, and
    /// every action of operators on its keys. A tenant that is suspended reads, and one that is destroyed, too: nothing is
    /// released by it.
    ///
    /// The call is itself such an entry, and the last page holds it: the answer waits for a checkpoint that covers it.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Invalid`] naming the field; [`Error::NotFound`] for a log that this vault cannot read;
    /// [`Error::FailedPrecondition`] if a person is named and the tenant is destroyed; [`Error::Unavailable`].
    pub async fn list_accesses(&self, call: &AccessCall<'_>, query: AccessQuery) -> Result<AccessPage, Error> {
        if query.limit == 0 || query.limit > 1000 {
            return Err(Error::invalid("page_size", "must be from 1 to 1,000"));
        }
        let request = HistoryRequest {
            tenant: call.tenant.clone(),
            end_user: call.end_user.clone(),
            subject: query.subject.clone(),
            request: call.request,
        };
        let permit = match self.authorizer.authorize_history::<ListAccesses>(call.who, request, self.clock.now()) {
            Ok(permit) => permit,
            Err(refusal) => return Err(self.refuse(&refusal).await),
        };
        if !self.keys.has_tenant(call.tenant).await? {
            let decision = Box::new(permit.decision().clone());
            let refusal = Refusal { decision, check: Check::Policy, reason: "no such tenant" };
            return Err(self.refuse(&refusal).await);
        }
        let recorded = self.intend(permit, None).await?;
        let page = self.read_accesses(&recorded, query).await;
        self.settle(recorded, page).await
    }

    async fn read_accesses(
        &self,
        recorded: &Recorded<Permit<ListAccesses>>,
        query: AccessQuery,
    ) -> Result<AccessPage, Error> {
        let resource = recorded.permit().resource();
        // From the permit, never from the request again.
        let tenant = resource.tenant.clone().ok_or(Error::NotFound("tenant"))?;
        let subject = match &resource.subject {
            Some(subject) => Some(self.keys.pseudonym(&tenant, subject).await?),
            None => None,
        };
        let logs = self.keys.logs(&self.log_name().await?, false).await?;
        let own = recorded.receipt().index;
        self.histories
            .read(move |histories| {
                let history = histories.find(query.log.as_deref(), &logs).ok_or(Error::NotFound("log"))?;
                if history.origin() == histories.own.origin() {
                    history.wait_for(own, PATIENCE)?;
                }
                let bounds = PageBounds {
                    after: query.after,
                    entries: query.limit,
                    bytes: MAX_PAGE,
                    looked_at: if query.is_selection() { MAX_LOOKED_AT } else { query.limit },
                };
                let selection = Selection { query, subject };
                let page = history.page(&tenant, bounds, &mut |entry, other| selection.takes(entry, other))?;
                let known = selection.query.known;
                let consistency = match known {
                    0 => Vec::new(),
                    known => history.consistency(known, Some(page.checkpoint.size)).map_err(in_known)?.1,
                };
                let readable = histories.readable(&logs).map(|history| history.origin().to_owned()).collect();
                Ok(AccessPage {
                    log: history.origin().to_owned(),
                    checkpoint: page.note,
                    consistency,
                    entries: page.entries,
                    head: page.head,
                    seen: page.seen,
                    is_selection: selection.query.is_selection(),
                    logs,
                    readable,
                    audit_entry: own,
                })
            })
            .await
    }

    /// The newest published checkpoint of this vault's log, as it was signed.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Unavailable`].
    pub async fn get_checkpoint(&self, call: &ControlCall<'_>) -> Result<String, Error> {
        let get = async |_: &Recorded<Permit<GetCheckpoint>>| {
            self.histories.read(|histories| Ok(histories.own.latest()?.1)).await
        };
        self.operate(call, (None, None), get).await
    }

    /// Up to `limit` entries of this vault's log from an index on, those that a published checkpoint covers.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Unavailable`]; [`Error::Corrupt`].
    pub async fn list_entries(&self, call: &ControlCall<'_>, from: u64, limit: usize) -> Result<AuditEntries, Error> {
        let list = async |_: &Recorded<Permit<ListEntries>>| {
            let read = move |histories: &Histories| {
                let (checkpoint, entries) = histories.own.entries(from, limit, MAX_PAGE)?;
                Ok(AuditEntries { entries, size: checkpoint.size })
            };
            self.histories.read(read).await
        };
        self.operate(call, (None, None), list).await
    }

    /// The proof that this vault's log holds an entry, in the tree of a size or of the newest published checkpoint.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Invalid`] naming `index` or `tree_size`; [`Error::Unavailable`].
    pub async fn get_inclusion_proof(
        &self,
        call: &ControlCall<'_>,
        index: u64,
        size: Option<u64>,
    ) -> Result<InclusionProof, Error> {
        let get = async |_: &Recorded<Permit<GetInclusionProof>>| {
            let read = move |histories: &Histories| {
                let (size, leaf_hash, path) = histories.own.inclusion(index, size)?;
                Ok(InclusionProof { size, leaf_hash, path })
            };
            self.histories.read(read).await
        };
        self.operate(call, (None, None), get).await
    }

    /// The proof that the tree of one size extends the tree of a smaller one; and the larger size, that of the newest
    /// published checkpoint for `None`.
    ///
    /// # Errors
    /// [`Error::Denied`]; [`Error::Invalid`] naming `old_size` or `tree_size`; [`Error::Unavailable`].
    pub async fn get_consistency_proof(
        &self,
        call: &ControlCall<'_>,
        old: u64,
        size: Option<u64>,
    ) -> Result<(u64, Vec<Hash>), Error> {
        let get = async |_: &Recorded<Permit<GetConsistencyProof>>| {
            self.histories.read(move |histories| histories.own.consistency(old, size)).await
        };
        self.operate(call, (None, None), get).await
    }
}

/// The size that a reader says it knows.
fn in_known(error: Error) -> Error {
    match error {
        Error::Invalid { field, .. } if field == "old_size" => Error::invalid(
            "known_size",
            "is above the log's size: the log, or this copy of it, is behind what you have seen",
        ),
        other => other,
    }
}
