//! A simulated disk that keeps exactly what `vault_core::fs` promises and no more.
//!
//! Every file and directory lives in memory twice: as the running process sees it, and as the platter holds it.
//! Between the two stand the unsynced changes. [`SimFs::crash`] draws from a seed which of those reach the platter, in
//! which order and how much of each, and answers the disk that the next process finds. A run on one thread and a seed
//! always give the same disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use vault_core::fs::{File, Fs, Lock, Open};

#[path = "simfs_crash.rs"]
mod crash;
pub(crate) use crash::Rng;
#[path = "simfs_tests.rs"]
mod tests;

/// The two things that make something durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SyncKind {
    /// `File::sync_data`.
    Data,
    /// `Fs::sync_dir`.
    Dir,
}

/// One call of a sync, as a suppressing rule sees it.
#[derive(Debug)]
pub(crate) struct SyncCall<'a> {
    pub(crate) kind: SyncKind,
    /// The file (by the name it was opened under) or the directory.
    pub(crate) path: &'a Path,
    /// How many syncs of this kind came before it on this disk.
    pub(crate) nth: u64,
}

/// A failure to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Writes, growth and new names fail with ENOSPC; half of the write's bytes land first.
    NoSpace,
    /// Writes fail with EIO; half of their bytes land first.
    WriteError,
    /// One sync of a file fails with EIO. What it should have made durable is lost on the platter (but for a part
    /// drawn from the seed), while the process goes on reading it, and later syncs say nothing of it.
    SyncError {
        /// Draws the part that reaches the platter.
        seed: u64,
    },
}

type Rule = Box<dyn Fn(&SyncCall<'_>) -> bool + Send>;

/// A change to a file's bytes.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

/// A file, apart from its names.
#[derive(Debug, Clone, Default)]
struct Node {
    live: Vec<u8>,
    platter: Vec<u8>,
    unsynced: Vec<Change>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Dir,
    File(usize),
}

/// A change to one name. A rename is two of them: the new name set, the old one gone.
#[derive(Debug, Clone)]
struct NameEdit {
    name: PathBuf,
    to: Option<Entry>,
    /// For the second half of a rename, the first: the old name never goes without the new one having come.
    after: Option<PathBuf>,
}

#[derive(Default)]
struct Disk {
    nodes: Vec<Node>,
    live: BTreeMap<PathBuf, Entry>,
    platter: BTreeMap<PathBuf, Entry>,
    unsynced: Vec<NameEdit>,
    locks: BTreeSet<PathBuf>,
    ops: u64,
    dies_at: Option<u64>,
    fault: Option<(u64, Fault)>,
    suppress: Option<Rule>,
    suppressed: u64,
    syncs: BTreeMap<SyncKind, u64>,
}

/// What is to become of the operation at hand.
enum Fate {
    Do,
    /// The process dies in it: it was issued, and nobody hears how it ended.
    Die,
}

impl Disk {
    fn alive(&self) -> io::Result<()> {
        match self.dies_at {
            Some(at) if self.ops >= at => Err(dead()),
            _ => Ok(()),
        }
    }

    /// Counts an operation that changes something.
    fn step(&mut self) -> io::Result<Fate> {
        self.alive()?;
        self.ops += 1;
        Ok(if self.alive().is_err() { Fate::Die } else { Fate::Do })
    }

    /// True if the fault is due for this operation, which is of its class.
    fn due(&mut self, class: impl Fn(Fault) -> bool) -> Option<Fault> {
        let (left, fault) = self.fault.as_mut()?;
        if !class(*fault) {
            return None;
        }
        if *left > 0 {
            *left -= 1;
            return None;
        }
        let fault = *fault;
        if matches!(fault, Fault::SyncError { .. }) {
            self.fault = None;
        }
        Some(fault)
    }

    fn suppressed(&mut self, kind: SyncKind, path: &Path) -> bool {
        let count = self.syncs.entry(kind).or_default();
        let nth = *count;
        *count += 1;
        let hit = self.suppress.as_ref().is_some_and(|rule| rule(&SyncCall { kind, path, nth }));
        self.suppressed += u64::from(hit);
        hit
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.live.get(path) {
            Some(Entry::File(node)) => Ok(*node),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|dir| self.live.get(dir)) {
            Some(Entry::Dir) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn edit(&mut self, name: &Path, to: Option<Entry>, after: Option<&Path>) {
        match to {
            Some(entry) => self.live.insert(name.to_owned(), entry),
            None => self.live.remove(name),
        };
        self.unsynced.push(NameEdit { name: name.to_owned(), to, after: after.map(Path::to_owned) });
    }
}

fn dead() -> io::Error {
    io::Error::other("the simulated process is dead")
}

fn errno(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
        // EIO has no stable kind of its own.
        Fault::WriteError | Fault::SyncError { .. } => io::Error::from_raw_os_error(5),
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// The simulated file system. Clones share one disk.
#[derive(Clone)]
pub(crate) struct SimFs(Arc<Mutex<Disk>>);

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimFs")
    }
}

impl SimFs {
    /// An empty disk with the directories `/` and `/data`, both durable.
    pub(crate) fn new() -> Self {
        let mut disk = Disk::default();
        for dir in ["/", "/data"] {
            disk.live.insert(dir.into(), Entry::Dir);
        }
        disk.platter.clone_from(&disk.live);
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Operations so far that change something (writes, lengths, names, syncs); reads are not counted.
    pub(crate) fn ops(&self) -> u64 {
        self.disk().ops
    }

    /// Syncs so far of one kind, those suppressed included.
    pub(crate) fn syncs(&self, kind: SyncKind) -> u64 {
        self.disk().syncs.get(&kind).copied().unwrap_or(0)
    }

    /// From the operation of this number on (1 is the first on this disk) the process is dead: that operation may
    /// still reach the platter, and it and every later call fail.
    pub(crate) fn crash_at(&self, op: u64) {
        self.disk().dies_at = Some(op);
    }

    /// Lets `n` further operations of the fault's class succeed, then fails those after it (of syncs, one).
    pub(crate) fn fail_after(&self, n: u64, fault: Fault) {
        self.disk().fault = Some((n, fault));
    }

    /// Takes the fault back.
    pub(crate) fn heal(&self) {
        self.disk().fault = None;
    }

    /// From now on every sync for which `rule` is true answers `Ok` and does nothing.
    pub(crate) fn suppress_sync(&self, rule: impl Fn(&SyncCall<'_>) -> bool + Send + 'static) {
        self.disk().suppress = Some(Box::new(rule));
    }

    /// How many syncs were suppressed.
    pub(crate) fn suppressed(&self) -> u64 {
        self.disk().suppressed
    }

    /// Removes a file's name behind the back of whoever has it open, at once and durably.
    pub(crate) fn unlink(&self, path: &Path) {
        let mut disk = self.disk();
        disk.live.remove(path);
        disk.platter.remove(path);
        disk.unsynced.retain(|edit| edit.name != path);
    }

    /// A file's bytes as the process sees them.
    pub(crate) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.file(path).ok().map(|node| disk.nodes[node].live.clone())
    }

    /// Puts a file on the disk, durably.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let entry = Entry::File(disk.nodes.len());
        disk.nodes.push(Node { live: bytes.clone(), platter: bytes, unsynced: Vec::new() });
        disk.unsynced.retain(|edit| edit.name != path);
        disk.live.insert(path.to_owned(), entry);
        disk.platter.insert(path.to_owned(), entry);
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        disk.alive()?;
        let node = match how {
            Open::Read | Open::ReadWrite => disk.file(path)?,
            Open::CreateNew => {
                if disk.live.contains_key(path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                disk.parent_exists(path)?;
                let fate = disk.step()?;
                if let Some(fault) = disk.due(|fault| fault == Fault::NoSpace) {
                    return Err(errno(fault));
                }
                let node = disk.nodes.len();
                disk.nodes.push(Node::default());
                disk.edit(path, Some(Entry::File(node)), None);
                if let Fate::Die = fate {
                    return Err(dead());
                }
                node
            }
        };
        Ok(Box::new(SimFile { fs: self.clone(), node, path: path.to_owned(), writable: how != Open::Read }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            match self.disk().live.get(dir) {
                Some(Entry::Dir) => break,
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => missing.push(dir),
            }
        }
        for dir in missing.into_iter().rev() {
            let mut disk = self.disk();
            let fate = disk.step()?;
            disk.edit(dir, Some(Entry::Dir), None);
            if let Fate::Die = fate {
                return Err(dead());
            }
        }
        self.disk().alive()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.disk();
        disk.alive()?;
        match disk.live.get(dir) {
            Some(Entry::Dir) => Ok(disk.live.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        let disk = self.disk();
        disk.alive().is_ok() && disk.live.contains_key(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        let node = disk.file(from)?;
        if from.parent() != to.parent() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "SimFs renames within one directory only"));
        }
        let fate = disk.step()?;
        disk.edit(to, Some(Entry::File(node)), None);
        disk.edit(from, None, Some(to));
        if let Fate::Die = fate { Err(dead()) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        disk.file(path)?;
        let fate = disk.step()?;
        disk.edit(path, None, None);
        if let Fate::Die = fate { Err(dead()) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        if disk.live.get(dir) != Some(&Entry::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Fate::Die = disk.step()? {
            return Err(dead());
        }
        if disk.suppressed(SyncKind::Dir, dir) {
            return Ok(());
        }
        let edits = std::mem::take(&mut disk.unsynced);
        for edit in edits {
            if edit.name.parent() != Some(dir) {
                disk.unsynced.push(edit);
                continue;
            }
            match edit.to {
                Some(entry) => disk.platter.insert(edit.name, entry),
                None => disk.platter.remove(&edit.name),
            };
        }
        Ok(())
    }

    fn share(&self) -> Arc<dyn Fs> {
        Arc::new(self.clone())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.disk();
        disk.alive()?;
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { fs: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    path: PathBuf,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.disk().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    node: usize,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    /// One change, subject to death and faults.
    fn change(&self, change: Change, class: impl Fn(Fault) -> bool) -> io::Result<()> {
        let mut disk = self.fs.disk();
        disk.alive()?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let fate = disk.step()?;
        let fault = disk.due(class);
        let change = match (fault, change) {
            (None, change) => change,
            (Some(_), Change::Write { offset, mut data }) => {
                data.truncate(data.len() / 2);
                Change::Write { offset, data }
            }
            (Some(fault), Change::SetLen(_)) => return Err(errno(fault)),
        };
        let node = &mut disk.nodes[self.node];
        change.apply(&mut node.live);
        node.unsynced.push(change);
        match (fault, fate) {
            (_, Fate::Die) => Err(dead()),
            (Some(fault), Fate::Do) => Err(errno(fault)),
            (None, Fate::Do) => Ok(()),
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let disk = self.fs.disk();
        disk.alive()?;
        Ok(disk.nodes[self.node].live.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let disk = self.fs.disk();
        disk.alive()?;
        let start = index(offset);
        let bytes = disk.nodes[self.node].live.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { offset: index(offset), data: data.to_vec() }, |fault| {
            matches!(fault, Fault::NoSpace | Fault::WriteError)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = len > self.len()?;
        self.change(Change::SetLen(index(len)), |fault| grows && fault == Fault::NoSpace)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.fs.disk();
        if let Fate::Die = disk.step()? {
            return Err(dead());
        }
        if disk.suppressed(SyncKind::Data, &self.path) {
            return Ok(());
        }
        let fault = disk.due(|fault| matches!(fault, Fault::SyncError { .. }));
        let node = &mut disk.nodes[self.node];
        let changes = std::mem::take(&mut node.unsynced);
        if let Some(fault) = fault {
            if let Fault::SyncError { seed } = fault {
                crash::land_some(&mut node.platter, &changes, &mut crash::Rng::new(seed));
            }
            return Err(errno(fault));
        }
        for change in changes {
            change.apply(&mut node.platter);
        }
        Ok(())
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.fs.disk().alive()?;
        Ok((0, self.node as u64))
    }

    fn links(&self) -> io::Result<u64> {
        let disk = self.fs.disk();
        disk.alive()?;
        Ok(disk.live.values().filter(|entry| **entry == Entry::File(self.node)).count() as u64)
    }
}
