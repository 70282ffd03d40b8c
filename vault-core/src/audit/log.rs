//! The log: opening, recovering, appending, closing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_channel::oneshot;

use super::anchor::{Anchor, PolicyMark};
use super::checkpoint::Checkpoint;
use super::entry::{Body, Draft};
use super::frame::{self, UNREADABLE, header};
use super::group::Growing;
use super::merkle::empty_root;
use super::publisher::{Heads, Publisher, Stop};
use super::queue::{Health, Pending, Receipt, Reply, Shared};
use super::replay::{CHECKPOINTS, ENTRIES, Finding, LOCK, PUBLISHED, State, Unwatched, VKEY, replay};
use super::signer::LogSigner;
use super::tiles;
use super::writer::Writer;
use crate::error::{Dependency, Error};
use crate::fs::{File, Fs, Lock, Open};
use crate::id::{ApprovalId, Fingerprint, KeyId, KeyVersion, TenantId};
use crate::time::Clock;

/// Bounds of a log. The defaults are those of [`Log::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many entries may wait to be written; 8,192.
    pub queue: usize,
    /// How often a checkpoint is signed while entries arrive; 1 s.
    pub checkpoint_every: Duration,
    /// How long a write may take before entries are refused; 10 s.
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { queue: 8192, checkpoint_every: Duration::from_secs(1), stall: Duration::from_secs(10) }
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
    /// A policy bundle was put into the store, where it waits.
    PolicyProposed(PolicyMark),
    /// A policy bundle is about to be put in force while no gateway runs: by its signatures alone.
    PolicyInstalling(PolicyMark),
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
            Self::PolicyProposed(mark) => {
                about = Fingerprint(mark.digest).to_string();
                ("policy_proposed", about.as_str(), mark.version, 0)
            }
            Self::PolicyInstalling(mark) => {
                about = Fingerprint(mark.digest).to_string();
                ("policy_installing", about.as_str(), mark.version, 0)
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
}

/// An open audit log: one writer thread, one publisher thread. Everything else about it is the files of its directory.
///
/// Dropping it without [`Log::close`] is like a crash: nothing acknowledged is lost, but no checkpoint is signed over
/// the last entries until it is opened again.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    heads: Arc<Heads>,
    signer: Arc<LogSigner>,
    dir: PathBuf,
    threads: Mutex<Option<Threads>>,
    /// Dropped last, after the threads have ended.
    _lock: Box<dyn Lock>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).field("health", &self.health()).finish_non_exhaustive()
    }
}

const UNWRITABLE: Error = Error::unavailable(Dependency::Audit, "the log's directory or files cannot be written");

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
        let created = prepare(&*fs, dir, &signer)?;
        let state = replay(&*fs, dir, signer.verifier(), &mut Unwatched)??;
        let recovery = Recovery {
            created,
            entries: state.edge.size(),
            signed: state.last.map_or(0, |last| last.size),
            cut: (state.torn > 0).then_some(Cut { position: state.entries_end, bytes: state.torn }),
            anchor: state.anchor,
            policy: state.policy,
        };
        // Everything was checked. From here on the disk is written.
        let Files { entries, checkpoints } = repair(&*fs, dir, &signer, &state)?;
        let latest = Checkpoint { size: state.edge.size(), root: state.edge.root() };
        let shared = Arc::new(Shared::new(options.queue, options.stall));
        let heads = Arc::new(Heads::new(latest));
        let frames = fs.open(&dir.join(ENTRIES), Open::Read).map_err(|_| UNREADABLE)?;
        let mut publisher = Publisher {
            shared: Arc::clone(&shared),
            heads: Arc::clone(&heads),
            fs,
            dir: dir.to_owned(),
            frames: frame::Reader::new(frames, signer.verifier().origin())?,
            signer: Arc::clone(&signer),
            every: options.checkpoint_every,
            file: checkpoints,
            end: state.checkpoints_end,
            signed: latest,
            note: String::new(),
            tiles: tiles::Builder::default(),
            published: false,
            found: latest.size,
        };
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            heads: Arc::clone(&heads),
            clock,
            file: entries,
            end: state.entries_end,
            chain: state.chain,
            growing: Growing::after(&state.edge),
            edge: state.edge,
            tenants: state.tenants,
            frame: frame::Builder::default(),
            signer: Arc::clone(&signer),
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
        let writer = match builder("audit-writer").spawn(move || writer.run()).map_err(no_thread) {
            Ok(writer) => writer,
            Err(error) => {
                heads.stop(Stop::AtOnce);
                return Err(error);
            }
        };
        let threads = Mutex::new(Some(Threads { writer, publisher }));
        Ok((Self { shared, heads, signer, dir: dir.to_owned(), threads, _lock: lock }, recovery))
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

    /// The directory with its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The key that verifies its checkpoints, which also names it.
    pub fn verifier(&self) -> &super::LogVerifier {
        self.signer.verifier()
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

    /// Appends one entry and waits until it is durable.
    pub(super) async fn append(&self, draft: Draft) -> Result<Receipt, Error> {
        let (sender, receiver) = oneshot::channel();
        self.shared.submit(vec![Pending { draft, reply: Reply::Receipt(sender) }])?;
        receiver.await.map_err(|_| self.shared.unavailable())
    }

    /// Records the end, writes what waits, signs the last checkpoint, brings the tiles up to it, and ends the threads.
    /// Blocks until then.
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

    fn end(&self, how: Stop) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(threads) = threads {
            self.shared.close();
            // The threads report their own panics as a failed log.
            drop(threads.writer.join());
            self.heads.stop(how);
            drop(threads.publisher.join());
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end(Stop::AtOnce);
    }
}

/// Makes the files of a log where there are none; true if it did. Refuses where some are missing.
fn prepare(fs: &dyn Fs, dir: &Path, signer: &LogSigner) -> Result<bool, Error> {
    let [entries, checkpoints, published, vkey] = [ENTRIES, CHECKPOINTS, PUBLISHED, VKEY].map(|name| dir.join(name));
    if fs.exists(&vkey) {
        let found = fs.read(&vkey, 4096).map_err(|_| UNREADABLE)?;
        if found != format!("{}\n", signer.verifier().vkey()).as_bytes() {
            return Err(Finding::File { file: VKEY, why: "the log belongs to another signing key or origin" }.into());
        }
    }
    if fs.exists(&entries) {
        return Ok(false);
    }
    let lost = || Error::from(Finding::File { file: ENTRIES, why: "the file is missing, though a log was here" });
    if fs.exists(&published) || fs.exists(&dir.join("tile")) {
        return Err(lost());
    }
    let first = Checkpoint { size: 0, root: empty_root() };
    if fs.exists(&checkpoints) {
        // A crash may have come between the two files; then there is exactly the first checkpoint.
        let expected = format!("{}\n", first.sign(signer)?);
        if fs.read(&checkpoints, 4096).ok().as_deref() != Some(expected.as_bytes()) {
            return Err(lost());
        }
    }
    fs.replace(&checkpoints, format!("{}\n", first.sign(signer)?).as_bytes()).map_err(|_| UNWRITABLE)?;
    // Last: where this file is, the log is.
    fs.replace(&entries, &header(signer.verifier().origin()).0).map_err(|_| UNWRITABLE)?;
    Ok(true)
}

/// The two files that are written.
struct Files {
    entries: Box<dyn File>,
    checkpoints: Box<dyn File>,
}

/// Cuts what is incomplete, and makes the names durable that were found.
fn repair(fs: &dyn Fs, dir: &Path, signer: &LogSigner, state: &State) -> Result<Files, Error> {
    let open = |name| fs.open(&dir.join(name), Open::ReadWrite).map_err(|_| UNWRITABLE);
    let (entries, checkpoints) = (open(ENTRIES)?, open(CHECKPOINTS)?);
    // The last name that is made. Where it is, those before it were synced; where it is not, its own sync is theirs as
    // well, those included that a killed process made and did not sync.
    if !fs.exists(&dir.join(VKEY)) {
        fs.replace(&dir.join(VKEY), format!("{}\n", signer.verifier().vkey()).as_bytes()).map_err(|_| UNWRITABLE)?;
    }
    if state.torn > 0 {
        entries.set_len(state.entries_end).map_err(|_| UNWRITABLE)?;
        // Before anything is written there: else a crash could bring parts of the cut frame back behind a new one.
        entries.sync_data().map_err(|_| UNWRITABLE)?;
    }
    if state.checkpoint_torn {
        checkpoints.set_len(state.checkpoints_end).map_err(|_| UNWRITABLE)?;
        checkpoints.sync_data().map_err(|_| UNWRITABLE)?;
    }
    // Written again, because a page that could not be written once may count as clean since (and so would not be
    // written by the next sync), though the disk has not got it.
    rewrite(&*entries, state.signed_end, state.entries_end)?;
    rewrite(&*checkpoints, state.last_note, state.checkpoints_end)?;
    Ok(Files { entries, checkpoints })
}

fn rewrite(file: &dyn File, from: u64, to: u64) -> Result<(), Error> {
    let mut at = from;
    let mut block = Vec::new();
    while at < to {
        let len = (to - at).min(1 << 20);
        block.resize(usize::try_from(len).map_err(|_| UNREADABLE)?, 0);
        file.read_exact_at(at, &mut block).map_err(|_| UNREADABLE)?;
        file.write_all_at(at, &block).map_err(|_| UNWRITABLE)?;
        at += len;
    }
    Ok(())
}
