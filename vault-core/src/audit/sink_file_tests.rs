use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pollster::block_on;

use super::test_support::{FaultyFs, Place, decision, permit};
use super::*;
use crate::error::{Dependency, Error};
use crate::fs::{Fs, OsFs};
use crate::policy::Decrypt;
use crate::time::Timestamp;

fn line(entry: &Delivered) -> String {
    format!("{{\"index\":{},\"pad\":\"{}\"}}", entry.entry.index, "x".repeat(100))
}

/// A sink, its file and its disk.
struct Bed {
    dir: tempfile::TempDir,
    fs: FaultyFs,
    sink: FileSink,
    next: u64,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = FaultyFs::default();
        let sink = FileSink::new(Arc::new(fs.clone()), dir.path().join("audit.jsonl"), Box::new(line));
        Self { dir, fs, sink, next: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another process, on the same files.
    fn restart(&mut self) {
        self.sink = FileSink::new(Arc::new(self.fs.clone()), self.path("audit.jsonl"), Box::new(line));
    }

    /// Delivers the next two entries. What is not confirmed is delivered again the next time.
    fn deliver(&mut self) -> Result<(), &'static str> {
        let entry = |index| Delivered {
            entry: Entry {
                salt: [0; 16],
                index,
                time: Timestamp(1),
                request: None,
                link: None,
                body: Body::System { event: "started".into(), detail: String::new(), first: 0, second: 0 },
            },
            leaf_hash: [7; 32],
        };
        self.sink.deliver(&[entry(self.next), entry(self.next + 1)])?;
        self.next += 2;
        Ok(())
    }

    /// The indexes in a file, all of whose lines are whole.
    fn indexes(&self, name: &str) -> Vec<u64> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.is_empty() || text.ends_with("\"}\n"), "{text}");
        let index = |line: &str| line.strip_prefix("{\"index\":").unwrap().split(',').next().unwrap().parse().unwrap();
        text.lines().map(index).collect()
    }
}

#[test]
fn lines_are_appended_and_a_file_that_was_renamed_is_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bed = Bed::new();
    bed.sink.check().unwrap();
    bed.deliver().unwrap();
    assert_eq!(std::fs::metadata(bed.path("audit.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::rename(bed.path("audit.jsonl"), bed.path("audit.1")).unwrap();
    // At the next look the new file is there; without a look the entries go to the old one, which has them durably.
    bed.deliver().unwrap();
    bed.deliver().unwrap();
    assert_eq!((bed.indexes("audit.1"), bed.indexes("audit.jsonl")), (vec![0, 1, 2, 3], vec![4, 5]));
    std::fs::rename(bed.path("audit.jsonl"), bed.path("audit.2")).unwrap();
    bed.sink.check().unwrap();
    bed.deliver().unwrap();
    assert_eq!((bed.indexes("audit.2"), bed.indexes("audit.jsonl")), (vec![4, 5], vec![6, 7]));
    // One that was made by somebody else, as logrotate's `create` does, with a mode of its own.
    std::fs::rename(bed.path("audit.jsonl"), bed.path("audit.3")).unwrap();
    std::fs::write(bed.path("audit.jsonl"), "").unwrap();
    bed.sink.check().unwrap();
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [8, 9]);
    bed.restart();
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [8, 9, 10, 11]);
}

#[test]
fn a_removed_file_is_a_failure_and_its_lines_go_to_a_new_one() {
    let mut bed = Bed::new();
    for _ in 0..3 {
        bed.deliver().unwrap();
    }
    std::fs::remove_file(bed.path("audit.jsonl")).unwrap();
    assert_eq!(bed.deliver(), Err("its file was removed"));
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [0, 1, 2, 3, 4, 5, 6, 7]);
    // Found without a delivery, too; also when another file has taken the name meanwhile.
    std::fs::write(bed.path("other"), "{\"index\":99,\"\"}\n").unwrap();
    std::fs::rename(bed.path("other"), bed.path("audit.jsonl")).unwrap();
    assert_eq!(bed.sink.check(), Err("its file was removed"));
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [99, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_full_disk_and_a_sync_that_fails_confirm_nothing_and_leave_whole_lines() {
    let mut bed = Bed::new();
    bed.deliver().unwrap();
    bed.fs.0.fail_write.store(true, Ordering::SeqCst);
    assert_eq!(bed.deliver(), Err("its disk is full"));
    assert_eq!(bed.deliver(), Err("its disk is full"));
    bed.fs.0.fail_write.store(false, Ordering::SeqCst);
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [0, 1, 2, 3]);
    bed.fs.0.fail_sync.store(true, Ordering::SeqCst);
    assert_eq!(bed.deliver(), Err("its file cannot be written or synced"));
    bed.fs.0.fail_sync.store(false, Ordering::SeqCst);
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [0, 1, 2, 3, 4, 5]);
    // A process that died in the middle of a line.
    bed.fs.0.fail_write.store(true, Ordering::SeqCst);
    bed.deliver().unwrap_err();
    bed.fs.0.fail_write.store(false, Ordering::SeqCst);
    bed.restart();
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl").last(), Some(&7));
}

#[test]
fn a_file_that_somebody_else_writes_or_that_is_none_of_lines_is_refused() {
    let mut bed = Bed::new();
    bed.deliver().unwrap();
    let append = |bed: &Bed, text: &str| {
        let old = std::fs::read_to_string(bed.path("audit.jsonl")).unwrap();
        std::fs::write(bed.path("audit.jsonl"), old + text).unwrap();
    };
    append(&bed, "{\"index\":1,\"\"}\n");
    assert_eq!(bed.deliver(), Err("its file was changed by somebody else"));
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [0, 1, 1, 2, 3]);
    // Emptied, as `copytruncate` does: told, and gone on with.
    std::fs::write(bed.path("audit.jsonl"), "").unwrap();
    assert_eq!(bed.deliver(), Err("its file was changed by somebody else"));
    bed.deliver().unwrap();
    assert_eq!(bed.indexes("audit.jsonl"), [4, 5]);
    // Not a byte of another kind of file is cut.
    for other in ["not a line of ours", "{}\nfree text"] {
        std::fs::write(bed.path("audit.jsonl"), other).unwrap();
        bed.restart();
        assert_eq!(bed.deliver(), Err("its file does not hold lines of this sink"));
        assert_eq!(std::fs::read_to_string(bed.path("audit.jsonl")).unwrap(), other);
    }
    std::fs::remove_file(bed.path("audit.jsonl")).unwrap();
    std::fs::create_dir(bed.path("audit.jsonl")).unwrap();
    bed.restart();
    assert_eq!(bed.deliver(), Err("its file cannot be opened"));
}

/// What callers got: entries by index and leaf hash.
type Receipts = Vec<Receipt>;

/// Begins on a disk, with a file, or ends.
type Fault<'a> = &'a dyn Fn(&FaultyFs, &std::path::Path, bool);

struct End<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Calls from many threads while `faults` come and go; then everything that was answered is in the log and in the file.
fn storm(faults: &[(&str, Fault<'_>)]) {
    const CALLERS: usize = 16;
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let begin = log.head().size;
    // The sink's disk is not the log's.
    let (fs, dir) = (FaultyFs::default(), tempfile::tempdir().unwrap());
    let path = dir.path().join("audit.jsonl");
    let sink = FileSink::new(Arc::new(fs.clone()), path.clone(), Box::new(line));
    let settings = SinkSettings {
        name: "siem".into(),
        mandatory: true,
        deadline: Duration::from_millis(150),
        queue: 10_000,
        history: false,
    };
    log.attach(&(Arc::new(OsFs) as Arc<dyn Fs>), vec![(settings, Box::new(sink))]).unwrap();
    let is_good = || log.health() == Health::Good && log.sinks()[0].state == SinkState::Good;
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what} never happened: {:?}", log.sinks());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    until("the start", &is_good);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answered = std::sync::atomic::AtomicU64::new(0);
    let caller = |n: usize| {
        let (mut receipts, mut refused) = (Receipts::new(), 0u64);
        while !stop.load(Ordering::SeqCst) {
            let permit = permit::<Decrypt>(decision("acme", u8::try_from(n).unwrap()));
            match block_on(log.record(permit, None, Pseudonyms::default())) {
                Ok(recorded) => {
                    receipts.push(recorded.complete());
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                Err(Error::Unavailable { dependency: Dependency::Audit, .. }) => {
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
        (receipts, refused)
    };
    let count = &answered;
    let (receipts, refused) = std::thread::scope(|scope| {
        // Also if the test fails here: the callers have to end.
        let end = End(&stop);
        let callers: Vec<_> = (0..CALLERS).map(|n| scope.spawn(move || caller(n))).collect();
        for (what, fault) in faults {
            let more = |than: u64| move || count.load(Ordering::SeqCst) > than;
            until("load", &more(answered.load(Ordering::SeqCst) + 200));
            let failures = log.sinks()[0].failures;
            fault(&fs, &path, true);
            until(what, &|| log.sinks()[0].failures > failures);
            std::thread::sleep(Duration::from_millis(50));
            fault(&fs, &path, false);
            until("recovery", &is_good);
            until("answers again", &more(answered.load(Ordering::SeqCst) + 200));
        }
        drop(end);
        let mut all = (Receipts::new(), 0);
        for caller in callers {
            let (receipts, refused) = caller.join().unwrap();
            all.0.extend(receipts);
            all.1 += refused;
        }
        all
    });
    Arc::into_inner(log).unwrap().close().unwrap();
    assert!(refused > 0, "no fault stopped anybody");
    // Every answer's entry is in the log, unchanged; and its line is in the file.
    let options = VerifyOptions { receipts: receipts.clone(), ..VerifyOptions::default() };
    let report = verify(&OsFs, &place.dir, &place.verifier(), &options).unwrap();
    assert!(report.is_sound(), "{report}");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<u64> = text
        .lines()
        .map(|line| line.strip_prefix("{\"index\":").unwrap().split(',').next().unwrap().parse().unwrap())
        .collect();
    let repeated = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines, (begin..report.entries).collect::<Vec<_>>(), "the file has every entry");
    let without = receipts.iter().filter(|receipt| lines.binary_search(&receipt.index).is_err()).count();
    assert_eq!(without, 0, "answers without a line");
    #[expect(clippy::print_stdout, reason = "says what was counted")]
    {
        println!(
            "counted: {} answers to {CALLERS} callers, {refused} refused, {} entries, 0 answers without an entry or a \
             line; {} lines came twice",
            receipts.len(),
            report.entries,
            repeated - lines.len(),
        );
    }
}

#[test]
fn under_load_no_fault_of_a_mandatory_file_releases_an_answer_without_its_entry_and_line() {
    storm(&[
        ("a full disk", &|fs, _, on| fs.0.fail_write.store(on, Ordering::SeqCst)),
        ("a sync that hangs", &|fs, _, on| fs.0.hang.store(on, Ordering::SeqCst)),
        ("a sync that fails", &|fs, _, on| fs.0.fail_sync.store(on, Ordering::SeqCst)),
        ("a removed file", &|_, path, on| {
            if on {
                std::fs::remove_file(path).unwrap();
            }
        }),
    ]);
}

/// Calls from many threads until the log's own disk fails; what a restart finds then.
fn log_storm(what: &str, fault: &dyn Fn(&Place), mend: &dyn Fn(&Place)) {
    const CALLERS: usize = 16;
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let answered = std::sync::atomic::AtomicU64::new(0);
    let caller = |n: usize| {
        let mut receipts = Receipts::new();
        loop {
            let permit = permit::<Decrypt>(decision("acme", u8::try_from(n).unwrap()));
            match block_on(log.record(permit, None, Pseudonyms::default())) {
                Ok(recorded) => receipts.push(recorded.complete()),
                // The disk of the tests is slow now and then, which is no failure.
                Err(_) if !matches!(log.health(), Health::Failed(_)) => continue,
                Err(_) => return receipts,
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    let receipts: Receipts = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|n| scope.spawn(move || caller(n))).collect();
        let begun = Instant::now();
        while answered.load(Ordering::SeqCst) < 300 && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        fault(&place);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    assert!(receipts.len() >= 300, "{what}: {} answers", receipts.len());
    // Nothing more is answered, whoever asks, until it is opened again.
    assert!(block_on(log.system(SystemEvent::PolicyEpoch(9))).is_err());
    drop(log);
    mend(&place);
    let (log, _) = place.open();
    log.close().unwrap();
    let options = VerifyOptions { receipts: receipts.clone(), ..VerifyOptions::default() };
    let report = verify(&OsFs, &place.dir, &place.verifier(), &options).unwrap();
    assert!(report.is_sound(), "{what}: {report}");
}

#[test]
fn under_load_no_fault_of_the_logs_own_disk_releases_an_answer_without_its_entry_and_a_restart_loses_none() {
    let mended = |place: &Place| {
        place.fs.0.fail_write.store(false, Ordering::SeqCst);
        place.fs.0.fail_sync.store(false, Ordering::SeqCst);
    };
    log_storm("a full disk", &|place| place.fs.0.fail_write.store(true, Ordering::SeqCst), &mended);
    log_storm("a sync that fails", &|place| place.fs.0.fail_sync.store(true, Ordering::SeqCst), &mended);
    // What was in a removed file is still there for whoever has it open (`/proc/PID/fd`), and is copied back from there.
    let kept = std::sync::Mutex::new(None);
    log_storm(
        "a removed file",
        &|place| {
            *kept.lock().unwrap() = Some(std::fs::File::open(place.file("entries.log")).unwrap());
            std::fs::remove_file(place.file("entries.log")).unwrap();
        },
        &|place| {
            let mut from = kept.lock().unwrap().take().unwrap();
            let mut to = std::fs::File::create(place.file("entries.log")).unwrap();
            std::io::copy(&mut from, &mut to).unwrap();
        },
    );
}
