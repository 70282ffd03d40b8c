//! The one thread that writes: whatever waits goes to disk in one transaction, so that its syncs serve all.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use futures_channel::oneshot;
use redb::{Durability, WriteTransaction};

use super::engine::{Engine, Fault, bytes_of, decode, fenced};
use super::{Expect, Write, row};
use crate::error::{Dependency, Error};
use crate::failpoint::{Moment, Step, reach};

/// Batches that may wait; past that the disk cannot keep up, and callers are told at once.
const QUEUE: usize = 1024;
/// Batches and bytes of values in one transaction.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 8 << 20;

/// What became of a batch.
pub(super) type Answer = Result<(), Error>;

struct Job {
    writes: Vec<Write>,
    done: oneshot::Sender<Answer>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.writes.iter().map(|write| write.value.len()).sum()
    }

    fn answer(self, answer: Answer) {
        // A caller who is gone does not want to know.
        let _ = self.done.send(answer);
    }
}

/// Hands batches to the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(engine: Arc<Engine>) -> Result<Self, Error> {
        let (jobs, queue) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&engine, &queue))
            .map_err(|_| Error::unavailable(Dependency::Store, "its writing thread could not be started"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a batch whose bounds were checked. The answer comes once it is durable, or not to be.
    pub(super) fn submit(&self, writes: Vec<Write>) -> Result<oneshot::Receiver<Answer>, Error> {
        const GONE: Error = Error::unavailable(Dependency::Store, "its writing thread has ended");
        let (done, answer) = oneshot::channel();
        match self.jobs.as_ref().ok_or(GONE)?.try_send(Job { writes, done }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(Error::unavailable(Dependency::Store, "too many writes are waiting")),
            Err(TrySendError::Disconnected(_)) => Err(GONE),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        // A waker run by an answer may drop the store on the writing thread itself, which cannot wait for its end.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Until every sender is gone and the queue is empty.
fn run(engine: &Engine, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Ok(job) = queue.try_recv() else { break };
            bytes += job.bytes();
            group.push(job);
        }
        let answers = write(engine, &group);
        for (job, answer) in group.into_iter().zip(answers) {
            // An answer runs the caller's waker, which is not our code.
            let _ = fenced(|| {
                job.answer(answer);
                Ok(())
            });
        }
    }
}

/// One transaction for the whole group. An answer for each of its batches.
fn write(engine: &Engine, group: &[Job]) -> Vec<Answer> {
    let result = engine.db().and_then(|db| {
        fenced(|| {
            let mut txn = db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            // With one sync for both the pages and the switch to them, a page that is damaged later would look like
            // a commit that never got through, and be rolled back instead of reported.
            txn.set_two_phase_commit(true);
            let mut outcomes = Vec::with_capacity(group.len());
            let mut changed = false;
            for job in group {
                let outcome = apply(&txn, &job.writes)?;
                changed |= outcome == Outcome::Applied;
                outcomes.push(outcome);
            }
            if changed {
                reach(Step::StoreCommit, Moment::Before);
                txn.commit()?;
                reach(Step::StoreCommit, Moment::After);
            } else {
                txn.abort()?;
            }
            Ok(outcomes)
        })
        .map_err(|fault| {
            // After a failed sync nobody knows what the disk holds; only a reopening finds out.
            engine.fail();
            engine.error(fault)
        })
    });
    match result {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Applied => Ok(()),
                Outcome::Conflict(table) => Err(Error::Conflict(table)),
                Outcome::Damaged(fault) => Err(engine.error(fault)),
            })
            .collect(),
        Err(error) => vec![Err(error); group.len()],
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Applied,
    /// A row of this table was not as expected.
    Conflict(&'static str),
    /// A row that the batch would replace is damaged.
    Damaged(Fault),
}

/// Applies one batch if all its rows are as expected, else nothing of it.
fn apply(txn: &WriteTransaction, writes: &[Write]) -> Result<Outcome, Fault> {
    let mut versions = Vec::with_capacity(writes.len());
    for write in writes {
        let rows = txn.open_table(bytes_of(write.table))?;
        let found = match redb::ReadableTable::get(&rows, write.key.as_slice())? {
            None => None,
            Some(bytes) => match decode(write.table, &write.key, bytes.value()) {
                Ok(row) => Some(row.version),
                Err(fault) => return Ok(Outcome::Damaged(fault)),
            },
        };
        let next = match (write.expect, found) {
            (Expect::Absent, None) => Some(1),
            (Expect::Version(expected), Some(version)) if expected == version => version.checked_add(1),
            _ => None,
        };
        match next {
            Some(next) => versions.push(next),
            None => return Ok(Outcome::Conflict(write.table.name())),
        }
    }
    for (write, version) in writes.iter().zip(versions) {
        let bytes = row::encode(write.table, &write.key, version, &write.value);
        txn.open_table(bytes_of(write.table))?.insert(write.key.as_slice(), bytes.as_slice())?;
    }
    Ok(Outcome::Applied)
}

#[cfg(test)]
mod tests {
    use redb::Database;

    use super::super::overlay::Overlay;
    use super::super::{Row, Table};
    use super::*;
    use crate::fs::Lock;

    #[derive(Debug)]
    struct NoLock;
    impl Lock for NoLock {}

    fn engine() -> Engine {
        let db = Database::builder().create_with_backend(Overlay::empty()).unwrap();
        Engine::new(db, "rows".into(), Box::new(NoLock))
    }

    fn job(rows: &[(&[u8], Expect)]) -> Job {
        let writes = rows.iter().map(|(key, expect)| Write {
            table: Table::Tenants,
            key: key.to_vec(),
            expect: *expect,
            value: b"value".to_vec(),
            revokes: false,
        });
        Job { writes: writes.collect(), done: oneshot::channel().0 }
    }

    fn version(engine: &Engine, key: &[u8]) -> Option<u64> {
        engine.get(Table::Tenants, key).unwrap().map(|row| row.version)
    }

    /// Puts bytes under a key that are no row, as only damage could.
    fn damage(engine: &Engine, key: &[u8]) {
        let txn = engine.db().unwrap().begin_write().unwrap();
        txn.open_table(bytes_of(Table::Tenants)).unwrap().insert(key, [1; 40].as_slice()).unwrap();
        txn.commit().unwrap();
    }

    #[test]
    fn a_conflict_in_one_batch_leaves_the_others_of_its_group() {
        let engine = engine();
        let conflict = Err(Error::Conflict("tenants"));
        let group = [
            job(&[(b"a", Expect::Absent), (b"b", Expect::Absent)]),
            job(&[(b"c", Expect::Absent), (b"a", Expect::Absent)]),
            job(&[(b"a", Expect::Version(1)), (b"d", Expect::Absent)]),
            job(&[(b"a", Expect::Version(1))]),
        ];
        assert_eq!(write(&engine, &group), [Ok(()), conflict.clone(), Ok(()), conflict.clone()]);
        let versions = [b"a", b"b", b"c", b"d"].map(|key| version(&engine, key));
        assert_eq!(versions, [Some(2), Some(1), None, Some(1)]);
        // And a group that has nothing else.
        assert_eq!(write(&engine, &[job(&[(b"a", Expect::Absent)])]), [conflict]);
    }

    #[test]
    fn a_damaged_row_is_reported_and_closes_nothing() {
        let engine = engine();
        damage(&engine, b"bad");
        let corrupt = Error::corrupt("rows", "a row of table tenants: checksum mismatch");
        let group = [job(&[(b"bad", Expect::Absent)]), job(&[(b"good", Expect::Absent)])];
        assert_eq!(write(&engine, &group), [Err(corrupt.clone()), Ok(())]);
        assert_eq!(engine.get(Table::Tenants, b"bad"), Err(corrupt.clone()));
        assert_eq!(engine.scan(Table::Tenants, b"", None, 9), Err(corrupt));
        assert_eq!(engine.get(Table::Tenants, b"good"), Ok(Some(Row { version: 1, value: b"value".to_vec() })));
    }

    #[test]
    fn a_failed_engine_refuses_everything() {
        let engine = engine();
        engine.fail();
        let refused = |error: Error| matches!(error, Error::Unavailable { dependency: Dependency::Store, .. });
        assert!(refused(engine.get(Table::Tenants, b"a").unwrap_err()));
        assert!(refused(engine.scan(Table::Tenants, b"", None, 9).unwrap_err()));
        assert!(
            write(&engine, &[job(&[(b"a", Expect::Absent)])]).into_iter().all(|answer| refused(answer.unwrap_err()))
        );
    }

    #[test]
    fn a_panic_is_an_answer() {
        let engine = engine();
        let fault = fenced(|| -> Result<(), Fault> { panic!("as redb might") }).unwrap_err();
        assert_eq!(fault, Fault::Panic);
        assert!(matches!(engine.error(fault), Error::Unavailable { .. }));
        assert!(engine.db().is_err());
    }

    /// The store may be dropped by a waker that its own writing thread runs.
    #[test]
    fn the_writing_thread_may_drop_its_writer() {
        let writer = Writer::start(Arc::new(engine())).unwrap();
        let (sent, dropped) = std::sync::mpsc::channel();
        let answer = writer.submit(job(&[(b"a", Expect::Absent)]).writes).unwrap();
        struct DropsIt(std::sync::Mutex<Option<(Writer, std::sync::mpsc::Sender<()>)>>);
        impl std::task::Wake for DropsIt {
            fn wake(self: Arc<Self>) {
                if let Some((writer, sent)) = self.0.lock().unwrap().take() {
                    drop(writer);
                    sent.send(()).unwrap();
                }
            }
        }
        let waker = Arc::new(DropsIt(std::sync::Mutex::new(Some((writer, sent))))).into();
        let mut answer = std::pin::pin!(answer);
        if answer.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending() {
            dropped.recv().unwrap();
        }
        assert_eq!(pollster::block_on(answer), Ok(Ok(())));
    }
}
