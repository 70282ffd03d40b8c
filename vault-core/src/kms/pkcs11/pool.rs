//! Threads for calls that block: a bounded number of them, a bounded queue, and an answer in time whatever they do.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;

use crate::error::{Dependency, Error};
use crate::kms::RootError;

type Job<W> = Box<dyn FnOnce(&mut W) + Send>;
/// Answers a call that was not answered in time.
type Expire = Box<dyn FnOnce() + Send>;
type Answer<T> = Arc<Mutex<Option<oneshot::Sender<Result<T, RootError>>>>>;

struct Queue<W> {
    jobs: VecDeque<Job<W>>,
    closed: bool,
}

struct Inner<W> {
    queue: Mutex<Queue<W>>,
    arrived: Condvar,
    most: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads, each with a `W` of its own. They end when the pool is dropped, as soon as what they are in returns.
pub(super) struct Pool<W> {
    inner: Arc<Inner<W>>,
    deadlines: Sender<(Instant, Expire)>,
    timeout: Duration,
}

impl<W: 'static> Pool<W> {
    /// Starts the threads, and one that watches the clock.
    pub(super) fn start(
        threads: usize,
        most: usize,
        timeout: Duration,
        mut make: impl FnMut() -> W,
    ) -> Result<Self, Error>
    where
        W: Send,
    {
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), closed: false });
        let inner = Arc::new(Inner { queue, arrived: Condvar::new(), most });
        let (deadlines, watched) = mpsc::channel();
        // Made before the first thread starts, so that whichever fails to start ends the others by being dropped.
        let pool = Self { inner: Arc::clone(&inner), deadlines, timeout };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
            spawned.map(drop).map_err(|_| Error::unavailable(Dependency::RootKey, "no thread for the module's calls"))
        };
        spawn("vault-hsm-clock", Box::new(move || watch(&watched)))?;
        for _ in 0..threads {
            let (inner, mut worker) = (Arc::clone(&inner), make());
            spawn("vault-hsm", Box::new(move || serve(&inner, &mut worker)))?;
        }
        Ok(pool)
    }

    /// Runs `work` on one of the threads. Answered when it is done, or without it when the time is over; then it is not
    /// begun any more.
    ///
    /// # Errors
    /// What `work` answers; [`RootError::Unavailable`] if the queue is full or the time is over.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut W) -> Result<T, RootError> + Send + 'static,
    ) -> impl Future<Output = Result<T, RootError>> + Send + 'static {
        let receiver = self.submit(work);
        async move {
            match receiver?.await {
                Ok(answer) => answer,
                Err(oneshot::Canceled) => Err(RootError::Unavailable("the thread for the module's calls is gone")),
            }
        }
    }

    fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut W) -> Result<T, RootError> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, RootError>>, RootError> {
        let (sender, receiver) = oneshot::channel();
        let answer: Answer<T> = Arc::new(Mutex::new(Some(sender)));
        let late = Arc::downgrade(&answer);
        let job: Job<W> = Box::new(move |worker| {
            let wanted = lock(&answer).as_ref().is_some_and(|sender| !sender.is_canceled());
            if wanted {
                let done = work(worker);
                if let Some(sender) = lock(&answer).take() {
                    // The caller may have gone meanwhile; then what was made is wiped here.
                    drop(sender.send(done));
                }
            }
        });
        {
            let mut queue = lock(&self.inner.queue);
            if queue.jobs.len() >= self.inner.most {
                return Err(RootError::Unavailable("too many calls wait for the module"));
            }
            queue.jobs.push_back(job);
        }
        self.inner.arrived.notify_one();
        let expire: Expire = Box::new(move || {
            let sender = late.upgrade().and_then(|answer| lock(&answer).take());
            if let Some(sender) = sender {
                drop(sender.send(Err(RootError::Unavailable("the module did not answer in time"))));
            }
        });
        let watched = self.deadlines.send((Instant::now() + self.timeout, expire));
        watched.map_err(|_| RootError::Unavailable("the thread that watches the clock is gone"))?;
        Ok(receiver)
    }
}

impl<W> Drop for Pool<W> {
    fn drop(&mut self) {
        lock(&self.inner.queue).closed = true;
        self.inner.arrived.notify_all();
    }
}

fn serve<W>(inner: &Inner<W>, worker: &mut W) {
    loop {
        let mut queue = lock(&inner.queue);
        let job = loop {
            if queue.closed {
                return;
            }
            match queue.jobs.pop_front() {
                Some(job) => break job,
                None => queue = inner.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(queue);
        job(worker);
    }
}

/// All calls have the same time, so the next deadline is always the first of the channel.
fn watch(deadlines: &Receiver<(Instant, Expire)>) {
    while let Ok((deadline, expire)) = deadlines.recv() {
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        expire();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pollster::block_on;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn unavailable<T>(result: Result<T, RootError>) -> &'static str {
        match result {
            Err(RootError::Unavailable(why)) => why,
            _ => panic!("must be unavailable"),
        }
    }

    #[test]
    fn every_thread_works_and_each_has_its_own() {
        let pool = Pool::start(3, 100, LONG, || 0usize).unwrap();
        let together = Arc::new(Barrier::new(3));
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let together = Arc::clone(&together);
                pool.call(move |own: &mut usize| {
                    together.wait();
                    *own += 1;
                    Ok(*own)
                })
            })
            .collect();
        assert!(calls.into_iter().all(|call| block_on(call) == Ok(1)));
    }

    #[test]
    fn a_call_that_hangs_is_answered_in_time_and_one_behind_it_is_never_begun() {
        let pool = Pool::start(1, 100, Duration::from_millis(100), || ()).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let begun = Arc::new(AtomicUsize::new(0));
        let hung = pool.call(move |()| Ok(held.recv_timeout(LONG).is_ok()));
        let counter = Arc::clone(&begun);
        let behind = pool.call(move |()| Ok(counter.fetch_add(1, Ordering::SeqCst)));
        let from = Instant::now();
        assert!(unavailable(block_on(hung)).contains("in time"));
        assert!(unavailable(block_on(behind)).contains("in time"));
        assert!(from.elapsed() < LONG / 2);
        release.send(()).unwrap();
        // The thread goes on with what comes next.
        assert_eq!(block_on(pool.call(|()| Ok(7))), Ok(7));
        assert_eq!(begun.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_a_cancelled_call_is_not_begun() {
        let pool = Pool::start(1, 1, LONG, || ()).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (busy, is_busy) = mpsc::channel::<()>();
        let hung = pool.call(move |()| {
            busy.send(()).unwrap();
            Ok(held.recv_timeout(LONG).is_ok())
        });
        is_busy.recv_timeout(LONG).unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let cancelled = pool.call(move |()| Ok(counter.fetch_add(1, Ordering::SeqCst)));
        assert!(unavailable(block_on(pool.call(|()| Ok(())))).contains("too many"));
        drop(cancelled);
        release.send(()).unwrap();
        assert_eq!(block_on(hung), Ok(true));
        let mut last = block_on(pool.call(|()| Ok(())));
        // The cancelled call may still stand in the queue for a moment.
        for _ in 0..1000 {
            if last.is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
            last = block_on(pool.call(|()| Ok(())));
        }
        assert_eq!(last, Ok(()));
        assert_eq!(begun.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_worker_that_panics_leaves_no_call_waiting() {
        let pool = Pool::start(1, 100, LONG, || ()).unwrap();
        assert!(
            unavailable(block_on(pool.call(|()| -> Result<(), RootError> { panic!("a test's") }))).contains("gone")
        );
    }
}
