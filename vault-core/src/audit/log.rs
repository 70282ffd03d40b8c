//! The log: opening, recovering, appending, closing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::FutureExt as _;

use super::anchor::{Anchor, PolicyMark, operators_body};
use super::archiver::{Archiver, Archiving, SegmentStatus};
use super::checkpoint::Checkpoint;
use super::entry::{Body, Draft};
use super::frame;
use super::group::Growing;
use super::log_keys::{self, Chain, LogKey};
use super::publisher::{Heads, Publisher, Stop};
use super::queue::{Health, Pending, Receipt, Reply, Shared};
use super::recover::{Files, UNWRITABLE, check_signer, first_listed, prepare, repair};
use super::replay::{LOCK, Unwatched, VKEY, newest, replay};
use super::sealer::Sealer;
use super::segments::{ARCHIVE, Frames, Segments};
use super::signer::LogSigner;
use super::writer::Writer;
use crate::error::{Dependency, Error};
use crate::fs::{Fs, Lock};
use crate::id::{ApprovalId, Fingerprint, KeyId, KeyVersion, TenantId};
use crate::principal::ListRef;
use crate::time::Clock;

/// Bounds of a log. The defaults are those of [`Log::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many entries may wait to be written; 8,192.
    pub queue: usize,
    /// How often a checkpoint is signed while entries arrive; 1 s.
    pub checkpoint_every: Duration,
    /// How long a write may take before entries are refused; 10 s.
    pub stall: Duration,
    /// The length in bytes at which the open segment is sealed; 256 MiB.
    pub segment_size: u64,
    /// The age of its first entry at which it is sealed; `None` for no such bound.
    pub segment_age: Option<Duration>,
    /// Where sealed segments are archived; `None` for `archive` in the log's directory. Another directory must be there, and
    /// its path absolute.
    pub archive: Option<PathBuf>,
    /// Segments are archived only when [`Log::cosigned`] has covered them; false.
    pub await_cosignatures: bool,
    /// How long after a failure archiving is tried again; 10 s.
    pub archive_retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 8192,
            checkpoint_every: Duration::from_secs(1),
            stall: Duration::from_secs(10),
            segment_size: 256 << 20,
            segment_age: None,
            archive: None,
            await_cosignatures: false,
            archive_retry: Duration::from_secs(10),
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// There was no log, and one was made.
    pub created: bool,
    /// How many entries were there, before the entries that opening itself writes.
    pub entries: u64,
    /// How many of them a checkpoint covered.
    pub signed: u64,
    /// The incomplete last frame that was cut, which nobody had been told of.
    pub cut: Option<Cut>,
    /// The last state of the store that was recorded.
    pub anchor: Option<Anchor>,
    /// The last policy bundle that came into force.
    pub policy: Option<PolicyMark>,
    /// The list of operators with the highest version that was in force.
    pub operators: Option<ListRef>,
}

/// What was cut from the end of `entries.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The byte at which it started.
    pub position: u64,
    /// How many bytes there were.
    pub bytes: u64,
}

/// What the log says about itself and the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEvent {
    /// The log was opened.
    Started,
    /// The log is being closed.
    Stopped,
    /// An incomplete last frame was cut.
    RecoveryCut(Cut),
    /// The gateway that writes from here on is this executable: its SHA-256.
    Executable(Fingerprint),
    /// Another policy set decides from here on.
    PolicyEpoch(u64),
    /// A policy bundle decides from here on: an older one is refused.
    PolicyBundle {
        /// Which.
        mark: PolicyMark,
        /// The policy epoch of this process that it is.
        epoch: u64,
    },
    /// This list of operators says who may call: one with a lower version is refused from here on.
    Operators(ListRef),
    /// A policy bundle was put into the store, where it waits.
    PolicyProposed(PolicyMark),
    /// A policy bundle is about to be put in force while no gateway runs: by its signatures alone.
    PolicyInstalling(PolicyMark),
    /// A charter is about to come into force that nobody had to approve: the first, or one in development.
    Charter {
        /// 1 for the first.
        number: u64,
        /// Its digest.
        digest: Fingerprint,
    },
    /// A backup of the store was written.
    Backup {
        /// How many rows it holds.
        rows: u64,
    },
    /// A backup is being restored into an empty store; told before its first row is written.
    Restoring {
        /// When the backup was begun, in milliseconds since 1970.
        created: u64,
        /// How many rows it holds.
        rows: u64,
    },
    /// So many calls without a proven identity were refused within one second; they have no entries of their own.
    Refusals {
        /// A code of the source.
        reason: &'static str,
        /// Seconds since 1970.
        second: u64,
        /// How many.
        count: u64,
    },
    /// A state that the store had reached: an older one is refused from here on.
    StoreAnchor(Anchor),
    /// All of a tenant's data keys are under a version of its tenant key, none under one before it.
    TenantKeyRotated {
        /// The version.
        version: KeyVersion,
        /// Data keys rewrapped under it.
        data_keys: u64,
    },
    /// A data key got a new version because it was due: the key before.
    DataKeyDue {
        /// Its id.
        key: KeyId,
    },
    /// The rotation of a tenant key began because it was due.
    TenantKeyDue,
    /// What an operator approves is about to begin.
    Approving {
        /// The approval.
        approval: ApprovalId,
        /// What it is bound to.
        request: Fingerprint,
    },
    /// A vote for an approval is about to be counted, after which others have to approve it, too.
    Voting {
        /// The approval.
        approval: ApprovalId,
        /// What it is bound to.
        request: Fingerprint,
    },
    /// What is approved is about to be scheduled.
    Scheduling {
        /// The approval.
        approval: ApprovalId,
        /// What it is bound to.
        request: Fingerprint,
        /// When it is to be carried out, in milliseconds since 1970.
        at: u64,
    },
    /// An approval is about to be rejected or cancelled, or found that too few approved it in time.
    ApprovalClosing {
        /// The approval.
        approval: ApprovalId,
        /// What it is bound to.
        request: Fingerprint,
        /// `approval_rejecting`, `approval_cancelling` or `approval_expired`.
        event: &'static str,
    },
    /// A shred was carried out to its end: the receipt names this entry.
    Shredded {
        /// The approval that it carried out.
        approval: ApprovalId,
        /// Data keys destroyed.
        data_keys: u64,
        /// The tenant key version that was active.
        version: KeyVersion,
    },
    /// A version of the tenant key, and all before it, are about to be destroyed, as a shred had scheduled.
    TenantKeyDestroyed {
        /// The version.
        version: KeyVersion,
    },
}

impl SystemEvent {
    fn body(self) -> Body {
        let about;
        let (event, detail, first, second) = match self {
            Self::Started => ("started", "", 0, 0),
            Self::Stopped => ("stopped", "", 0, 0),
            Self::RecoveryCut(cut) => ("recovery_cut", "", cut.position, cut.bytes),
            Self::Executable(digest) => {
                about = digest.to_string();
                ("executable", about.as_str(), 0, 0)
            }
            Self::PolicyEpoch(epoch) => ("policy_epoch", "", epoch, 0),
            Self::PolicyBundle { mark, epoch } => return mark.body(epoch),
            Self::Operators(list) => return operators_body(list),
            Self::PolicyProposed(mark) => {
                about = Fingerprint(mark.digest).to_string();
                ("policy_proposed", about.as_str(), mark.version, 0)
            }
            Self::PolicyInstalling(mark) => {
                about = Fingerprint(mark.digest).to_string();
                ("policy_installing", about.as_str(), mark.version, 0)
            }
            Self::Charter { number, digest } => {
                about = digest.to_string();
                ("charter", about.as_str(), number, 0)
            }
            Self::Backup { rows } => ("backup", "", rows, 0),
            Self::Restoring { created, rows } => ("restoring", "", created, rows),
            Self::Refusals { reason, second, count } => ("refusals", reason, second, count),
            Self::StoreAnchor(anchor) => return anchor.body(),
            Self::TenantKeyRotated { version, data_keys } => {
                ("tenant_key_rotated", "", u64::from(version.0), data_keys)
            }
            Self::Approving { approval, request } => {
                about = format!("{approval} sha256:{request}");
                ("approving", about.as_str(), 0, 0)
            }
            Self::Voting { approval, request } => {
                about = format!("{approval} sha256:{request}");
                ("approval_voting", about.as_str(), 0, 0)
            }
            Self::Scheduling { approval, request, at } => {
                about = format!("{approval} sha256:{request}");
                ("approval_scheduling", about.as_str(), at, 0)
            }
            Self::ApprovalClosing { approval, request, event } => {
                about = format!("{approval} sha256:{request}");
                (event, about.as_str(), 0, 0)
            }
            Self::Shredded { approval, data_keys, version } => {
                about = approval.to_string();
                ("shredded", about.as_str(), data_keys, u64::from(version.0))
            }
            Self::DataKeyDue { key } => {
                about = key.to_string();
                ("data_key_due", about.as_str(), 0, 0)
            }
            Self::TenantKeyDue => ("tenant_key_due", "", 0, 0),
            Self::TenantKeyDestroyed { version } => ("tenant_key_destroyed", "", u64::from(version.0), 0),
        };
        Body::System { event: event.to_owned(), detail: detail.to_owned(), first, second }
    }

    fn draft(self) -> Draft {
        Draft::new(None, None, &self.body())
    }
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<()>,
    publisher: JoinHandle<()>,
    archiver: JoinHandle<()>,
}

/// An open audit log: a writer thread, a publisher thread, an archiver thread. Everything else about it is the files of its directory.
///
/// Dropping it without [`Log::close`] is like a crash: nothing acknowledged is lost, but no checkpoint is signed over
/// the last entries until it is opened again.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Arc<Heads>,
    pub(super) signer: Arc<LogSigner>,
    pub(super) segments: Segments,
    keys: Chain,
    archiving: Arc<Archiving>,
    threads: Mutex<Option<Threads>>,
    /// Dropped last, after the threads have ended.
    _lock: Box<dyn Lock>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.segments.dir).field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in `dir`, or makes one where there is none. When it returns, the log is durable, its start is
    /// recorded, and a checkpoint covers everything.
    ///
    /// Only an incomplete last frame that no checkpoint covers is cut, and reported. Nothing but the lock file is written before
    /// everything was checked.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and position for any other damage; [`Error::Unavailable`] if the disk fails.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        signer: LogSigner,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), Error> {
        Self::open_with(fs, dir, signer, clock, Options::default())
    }

    /// [`Self::open`] with other bounds.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        fs: Arc<dyn Fs>,
        dir: &Path,
        signer: LogSigner,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<(Self, Recovery), Error> {
        fs.create_dir_durable(dir).map_err(|_| UNWRITABLE)?;
        let lock = fs.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                Error::unavailable(Dependency::Audit, "the log is open already, here or in another process")
            }
            _ => UNWRITABLE,
        })?;
        let signer = Arc::new(signer);
        let archive = options.archive.clone().unwrap_or_else(|| dir.join(ARCHIVE));
        let segments = Segments::of(&*fs, dir, Some(&archive), signer.verifier().origin());
        let created = prepare(&segments, &signer)?;
        let first = first_listed(&*fs, dir)?.unwrap_or_else(|| signer.verifier().clone());
        let from = newest(&segments, &first)?;
        let (start, tiles) = (from.start(), from.tiles.clone());
        let state = replay(&segments, from, &first, None, &mut Unwatched)??;
        check_signer(&state, &signer)?;
        let recovery = Recovery {
            created,
            entries: state.at.edge.size(),
            signed: state.at.last.map_or(0, |last| last.size),
            cut: (state.torn > 0).then_some(Cut { position: state.entries_end, bytes: state.torn }),
            anchor: state.at.anchor,
            policy: state.at.policy,
            operators: state.at.operators,
        };
        // Everything was checked. From here on the disk is written.
        let Files { entries, entries_end, chain, checkpoints } = repair(&segments, &options, &state)?;
        let latest = Checkpoint { size: state.at.edge.size(), root: state.at.edge.root() };
        let shared = Arc::new(Shared::new(options.queue, options.stall));
        let heads = Arc::new(Heads::new(latest));
        let open = state.start.number;
        let unarchived = (0..open).find(|number| fs.exists(&segments.sealed(*number)));
        let archiving = Arc::new(Archiving::new(open, unarchived.unwrap_or(open), options.await_cosignatures));
        let mut publisher = Publisher {
            shared: Arc::clone(&shared),
            heads: Arc::clone(&heads),
            archiving: Arc::clone(&archiving),
            fs,
            dir: dir.to_owned(),
            frames: Frames::at(segments.clone(), start),
            signer: Arc::clone(&signer),
            every: options.checkpoint_every,
            file: checkpoints,
            end: state.checkpoints_end,
            signed: latest,
            note: String::new(),
            tiles,
            published: false,
            found: latest.size,
            resumed: true,
        };
        let (size, age) = (options.segment_size, options.segment_age);
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            heads: Arc::clone(&heads),
            clock,
            file: entries,
            end: entries_end,
            chain,
            growing: Growing::after(&state.at.edge),
            edge: state.at.edge,
            tenants: state.at.tenants,
            frame: frame::Builder::default(),
            signer: Arc::clone(&signer),
            sealer: Sealer::new(segments.clone(), Arc::clone(&archiving), state.start, state.since, size, age),
        };
        let archiver = Archiver {
            archiving: Arc::clone(&archiving),
            segments: segments.clone(),
            signer: Arc::clone(&signer),
            first,
            retry: options.archive_retry,
        };
        let mut group: Vec<Pending> = recovery
            .cut
            .map(SystemEvent::RecoveryCut)
            .into_iter()
            .chain([SystemEvent::Started])
            .map(|event| Pending { draft: event.draft(), reply: Reply::Nobody })
            .collect();
        writer.commit(&mut group).map_err(|why| Error::unavailable(Dependency::Audit, why))?;
        publisher.keep(heads.latest())?;
        let no_thread = |_| Error::unavailable(Dependency::Audit, "the operating system gave no thread");
        let builder = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let publisher = builder("audit-publisher").spawn(move || publisher.run()).map_err(no_thread)?;
        let stop = |error| {
            heads.stop(Stop::AtOnce);
            archiving.stop();
            error
        };
        let archiver = builder("audit-archiver").spawn(move || archiver.run()).map_err(no_thread).map_err(stop)?;
        let writer = builder("audit-writer").spawn(move || writer.run()).map_err(no_thread).map_err(stop)?;
        let threads = Mutex::new(Some(Threads { writer, publisher, archiver }));
        let keys = state.at.keys;
        Ok((Self { shared, heads, signer, segments, keys, archiving, threads, _lock: lock }, recovery))
    }

    /// A text as a note signed with the log's key. The first line must not be the log's name: that is a checkpoint's.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `text` if it is; [`Error::Unavailable`] without the key.
    pub fn sign_note(&self, text: &str) -> Result<String, Error> {
        if text.split('\n').next() == Some(self.signer.verifier().origin()) {
            return Err(Error::invalid("text", "its first line is that of a checkpoint"));
        }
        super::note::sign(text, &self.signer)
    }

    /// Whether the log takes entries, and if not, why.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Refuses entries from here on, for a reason of the source, or with `None` takes them again. Unlike after a failure
    /// nothing has to be opened again. Outcomes of what was begun before are written when it takes entries again.
    pub fn hold(&self, why: Option<&'static str>) {
        self.shared.hold(why);
    }

    /// How its segments are: what is sealed, and what of that is archived.
    pub fn segments(&self) -> SegmentStatus {
        self.archiving.status()
    }

    /// Witnesses have cosigned a checkpoint of this size: with [`Options::await_cosignatures`], segments up to there may be
    /// archived.
    pub fn cosigned(&self, size: u64) {
        self.archiving.cosigned(size);
    }

    /// The keys that have signed it, the present one last.
    pub fn keys(&self) -> &[LogKey] {
        self.keys.keys()
    }

    /// The tree over all durable entries, signed or not yet.
    pub fn head(&self) -> Checkpoint {
        self.heads.latest()
    }

    /// Records an event of the log or the gateway.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn system(&self, event: SystemEvent) -> Result<Receipt, Error> {
        self.append(event.draft()).await
    }

    /// Records an event in the life of a tenant's keys, among the tenant's entries.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log does not take entries.
    pub async fn system_of(&self, tenant: &TenantId, event: SystemEvent) -> Result<Receipt, Error> {
        self.append(Draft::new(None, Some(tenant.clone()), &event.body())).await
    }

    /// Appends one entry of the log's own and waits until it is durable.
    async fn append(&self, draft: Draft) -> Result<Receipt, Error> {
        let (sender, receiver) = oneshot::channel();
        self.shared.submit(vec![Pending { draft, reply: Reply::Durable(sender) }])?;
        self.shared.answer(receiver).await
    }

    /// Records the end, writes what waits, gives the sinks until their deadline to take it, signs the last checkpoint,
    /// brings the tiles up to it, and ends the threads. Blocks until then.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log had failed, or fails meanwhile.
    pub fn close(self) -> Result<(), Error> {
        let stopped = Pending { draft: SystemEvent::Stopped.draft(), reply: Reply::Nobody };
        let submitted = self.shared.submit(vec![stopped]);
        self.end(Stop::Cleanly);
        submitted?;
        if self.shared.has_failed() { Err(self.shared.unavailable()) } else { Ok(()) }
    }

    /// Hands the log over to another key and closes it: an entry names the key, the last checkpoint is signed by both, and
    /// from there on only the new key goes on with the log. If it fails, or the process dies, before that checkpoint is
    /// durable, the log is the present key's, and the entry has no effect.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `next` if it has another name or is one of the log's keys; [`Error::Unavailable`] if the log
    /// had failed, or fails meanwhile: opening it with one of the keys then tells which one is in force.
    pub fn hand_over(self, next: LogSigner) -> Result<LogKey, Error> {
        let verifier = next.verifier().clone();
        let is_known = self.keys.keys().iter().any(|key| key.verifier.is_same_key(&verifier));
        if verifier.origin() != self.signer.verifier().origin() || is_known {
            return Err(Error::invalid("next", "must be another key, of the same name"));
        }
        // From here on no checkpoint is signed but the last one.
        self.heads.pause();
        let draft = Draft::new(None, None, &log_keys::body(&verifier));
        let (sender, receiver) = oneshot::channel();
        self.shared.submit(vec![Pending { draft, reply: Reply::Durable(sender) }])?;
        let mut receipt = None;
        self.end_with(Stop::Cleanly, || {
            receipt = receiver.now_or_never().and_then(Result::ok).and_then(Result::ok);
            // Unless another entry came behind it.
            if receipt.is_some_and(|receipt| receipt.index + 1 == self.heads.latest().size) {
                self.heads.hand_over(Arc::new(next));
            }
        });
        let receipt = receipt.ok_or_else(|| self.shared.unavailable())?;
        if self.shared.has_failed() {
            return Err(self.shared.unavailable());
        }
        let from = self.heads.latest().size;
        if from != receipt.index + 1 {
            return Err(Error::unavailable(Dependency::Audit, "another entry came after the one that names the key"));
        }
        let key = LogKey { verifier, from };
        let keys = self.keys.keys().iter().cloned().chain([key.clone()]).collect();
        let file = Chain::of(keys).map(|keys| keys.file()).unwrap_or_default();
        self.segments.fs.replace(&self.segments.dir.join(VKEY), file.as_bytes()).map_err(|_| UNWRITABLE)?;
        Ok(key)
    }

    fn end(&self, how: Stop) {
        self.end_with(how, || ());
    }

    /// Ends the threads; `written` is called when the last entry is written, before the last checkpoint is signed.
    fn end_with(&self, how: Stop, written: impl FnOnce()) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            self.shared.close();
            // The threads report their own panics as a failed log.
            drop(threads.writer.join());
            if let Some(sinks) = self.shared.sinks.get() {
                sinks.stop(&self.shared, how == Stop::Cleanly);
            }
            written();
            self.heads.stop(how);
            drop(threads.publisher.join());
            self.archiving.stop();
            drop(threads.archiver.join());
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end(Stop::AtOnce);
    }
}
