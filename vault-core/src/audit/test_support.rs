//! A log in a temporary directory, over a file system that counts and can be told to fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{Log, LogSigner, LogVerifier, Options, Recovery};
use crate::error::{Check, Error};
use crate::fs::{File, Fs, Open, OsFs};
use crate::id::{DatasetId, Purpose, RequestId, Subject, TenantId};
use crate::policy::{Decision, Permit, Refusal, Resource};
use crate::time::{ManualClock, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) syncs: AtomicU64,
    pub(super) fail_sync: AtomicBool,
    pub(super) fail_write: AtomicBool,
    /// While set, a sync does not return.
    pub(super) hang: AtomicBool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct FaultyFs(pub(super) Arc<Faults>);

#[derive(Debug)]
struct FaultyFile(Box<dyn File>, Arc<Faults>);

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buf)
    }
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.fail_write.load(Ordering::SeqCst) {
            self.0.write_all_at(offset, &data[..data.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_all_at(offset, data)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        while self.1.hang.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if self.1.fail_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        self.0.sync_data()
    }
    fn links(&self) -> io::Result<u64> {
        self.0.links()
    }
    fn identity(&self) -> io::Result<(u64, u64)> {
        self.0.identity()
    }
}

impl Fs for FaultyFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        Ok(Box::new(FaultyFile(OsFs.open(path, how)?, Arc::clone(&self.0))))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir_all(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        OsFs.list(dir)
    }
    fn exists(&self, path: &Path) -> bool {
        OsFs.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFs.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsFs.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn crate::fs::Lock>> {
        OsFs.lock(path)
    }
    fn share(&self) -> Arc<dyn Fs> {
        Arc::new(self.clone())
    }
}

pub(super) struct Place {
    pub(super) temp: tempfile::TempDir,
    pub(super) dir: PathBuf,
    pub(super) fs: FaultyFs,
}

pub(super) const ORIGIN: &str = "vault.example/audit/0";

impl Place {
    pub(super) fn new() -> Self {
        crate::secret::set_lock_policy(crate::secret::LockPolicy::Allow);
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("state/audit");
        Self { temp, dir, fs: FaultyFs::default() }
    }

    pub(super) fn signer(&self) -> LogSigner {
        LogSigner::load_or_create(&OsFs, &self.temp.path().join("signing.key"), ORIGIN).unwrap()
    }

    pub(super) fn verifier(&self) -> LogVerifier {
        self.signer().verifier().clone()
    }

    pub(super) fn try_open(&self, every: Duration) -> Result<(Log, Recovery), Error> {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let options = Options { checkpoint_every: every, stall: Duration::from_millis(50), ..Options::default() };
        Log::open_with(Arc::new(self.fs.clone()), &self.dir, self.signer(), clock, options)
    }

    /// With segments of about a KiB, and a checkpoint at once.
    pub(super) fn open_cutting(&self) -> (Log, Recovery) {
        self.open_with(self.cutting()).unwrap()
    }

    pub(super) fn cutting(&self) -> Options {
        Options {
            checkpoint_every: Duration::ZERO,
            segment_size: 1000,
            archive_retry: Duration::from_millis(20),
            ..Options::default()
        }
    }

    pub(super) fn open_with(&self, options: Options) -> Result<(Log, Recovery), Error> {
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        Log::open_with(Arc::new(self.fs.clone()), &self.dir, self.signer(), clock, options)
    }

    /// No checkpoint but at opening and closing.
    pub(super) fn open(&self) -> (Log, Recovery) {
        self.try_open(Duration::from_secs(3600)).unwrap()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Every file below the log's directory, with its bytes.
    pub(super) fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
            for path in OsFs.list(dir).unwrap() {
                if path.is_dir() {
                    walk(&path, out);
                } else if !path.ends_with("lock") {
                    out.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.dir, &mut out);
        out
    }
}

pub(super) fn decision(tenant: &str, request: u8) -> Decision {
    Decision {
        principal: "spiffe://prod.example/billing".to_owned(),
        person: None,
        action: "Decrypt",
        resource: Resource {
            tenant: Some(TenantId::parse(tenant).unwrap()),
            dataset: Some(DatasetId::parse("customers").unwrap()),
            subject: None,
            purpose: Some(Purpose::parse("billing").unwrap()),
        },
        reason: None,
        custody: None,
        end_user: None,
        consent: None,
        grants: Vec::new(),
        request: RequestId([request; 16]),
        at: Timestamp(1_700_000_000_000),
        epoch: 7,
        policies: vec!["allow-billing".to_owned()],
    }
}

pub(super) fn with_subject(mut decision: Decision) -> Decision {
    decision.resource.subject = Some(Subject::parse("ann@example.com").unwrap());
    decision
}

pub(super) fn permit<A: crate::policy::Action>(decision: Decision) -> Permit<A> {
    Permit::for_test(decision, Timestamp(u64::MAX))
}

pub(super) fn refusal(tenant: &str, request: u8) -> Refusal {
    Refusal { decision: Box::new(decision(tenant, request)), check: Check::Policy, reason: "no policy allows it" }
}
