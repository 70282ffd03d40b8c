//! What every call to one key goes through: a place among the calls, the breaker, attempts with a bound each, pauses
//! between them, and one deadline over all.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::{Failure, TIMEOUT};
use super::breaker::Breaker;
use super::retry::{Backoff, random};
use super::settings::AwsKmsSettings;
use crate::kms::RootError;
use crate::time::Clock;

pub(super) const OPEN: &str = "AWS KMS has not answered for this key lately; it is asked again in a while";
pub(super) const CROWDED: &str = "too many calls to AWS KMS are waiting";

#[derive(Debug)]
pub(super) struct Line {
    of_key: Semaphore,
    of_region: Arc<Semaphore>,
    breaker: Breaker,
    backoff: Backoff,
    deadline: Duration,
    attempt: Duration,
}

impl Line {
    pub(super) fn new(settings: &AwsKmsSettings, of_region: Arc<Semaphore>, clock: Arc<dyn Clock>) -> Self {
        Self {
            of_key: Semaphore::new(settings.calls_per_key),
            of_region,
            breaker: Breaker::new(settings.breaker, clock),
            backoff: Backoff::default(),
            deadline: settings.deadline,
            attempt: settings.attempt,
        }
    }

    /// Whether calls are answered without asking.
    pub(super) fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Makes attempts until one says something that stays so. Needs Tokio's time.
    pub(super) async fn call<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, RootError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let end = Instant::now() + self.deadline;
        // Before waiting for a place, too: the places may be taken by calls that hang.
        if self.breaker.is_open() {
            return Err(RootError::Unavailable(OPEN));
        }
        let places = async { (self.of_key.acquire().await, self.of_region.acquire().await) };
        let Ok((Ok(_key), Ok(_region))) = timeout_at(end, places).await else {
            return Err(RootError::Unavailable(CROWDED));
        };
        let mut made = 0;
        loop {
            let Some(right) = self.breaker.attempt() else { return Err(RootError::Unavailable(OPEN)) };
            made += 1;
            let bound = self.attempt.min(end.saturating_duration_since(Instant::now()));
            let why = match timeout(bound, attempt()).await.unwrap_or(Err(Failure::Passing(TIMEOUT))) {
                Ok(done) => {
                    right.answered();
                    return Ok(done);
                }
                Err(Failure::Final(error)) => {
                    right.answered();
                    return Err(error);
                }
                // A refusal is an answer: else one odd request could shut the key for all others.
                Err(Failure::Hopeless(why)) => {
                    right.answered();
                    return Err(RootError::Unavailable(why));
                }
                Err(Failure::Passing(why)) => {
                    right.failed();
                    why
                }
            };
            let left = end.saturating_duration_since(Instant::now());
            let Some(pause) = self.backoff.pause(made, left, random()) else {
                return Err(RootError::Unavailable(why));
            };
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::super::answer::{FAILING, UNREACHABLE};
    use super::*;
    use crate::kms::aws::BreakerSettings;
    use crate::time::SystemClock;

    fn line(settings: &AwsKmsSettings) -> Line {
        Line::new(settings, Arc::new(Semaphore::new(settings.calls_per_region)), Arc::new(SystemClock))
    }

    fn quick() -> AwsKmsSettings {
        AwsKmsSettings {
            deadline: Duration::from_millis(600),
            attempt: Duration::from_millis(200),
            calls_per_key: 2,
            ..AwsKmsSettings::default()
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        run(async {
            // Time enough for all attempts, however busy the machine is.
            let patient = AwsKmsSettings { deadline: Duration::from_secs(60), ..quick() };
            let line = line(&AwsKmsSettings { attempt: Duration::from_secs(30), ..patient });
            let made = Cell::new(0);
            let failing = |failure: Failure, good_after: u32| {
                let made = &made;
                made.set(0);
                move || {
                    made.set(made.get() + 1);
                    let answer = if made.get() > good_after { Ok(()) } else { Err(failure) };
                    async move { answer }
                }
            };
            assert_eq!(line.call(failing(Failure::Passing(FAILING), 2)).await, Ok(()));
            assert_eq!(made.get(), 3);
            let disabled = line.call(failing(Failure::Final(RootError::Disabled), 2)).await;
            assert_eq!((disabled, made.get()), (Err(RootError::Disabled), 1));
            let hopeless = line.call(failing(Failure::Hopeless("no"), 2)).await;
            assert_eq!((hopeless, made.get()), (Err(RootError::Unavailable("no")), 1));
            let for_ever = line.call(failing(Failure::Passing(UNREACHABLE), 99)).await;
            assert_eq!((for_ever, made.get()), (Err(RootError::Unavailable(UNREACHABLE)), 5));
        });
    }

    #[test]
    fn nothing_lasts_longer_than_the_deadline() {
        run(async {
            let line = line(&quick());
            let begun = Instant::now();
            assert_eq!(line.call(pending::<Result<(), Failure>>).await, Err(RootError::Unavailable(TIMEOUT)));
            assert!((Duration::from_millis(400)..Duration::from_secs(3)).contains(&begun.elapsed()));
            // With both places taken, a call is told within its deadline, and the breaker knows nothing of it.
            let _all = line.of_key.acquire_many(2).await.unwrap();
            let begun = Instant::now();
            assert_eq!(line.call(pending::<Result<(), Failure>>).await, Err(RootError::Unavailable(CROWDED)));
            assert!((Duration::from_millis(500)..Duration::from_secs(3)).contains(&begun.elapsed()));
            assert!(!line.is_open());
        });
    }

    #[test]
    fn an_open_breaker_answers_without_an_attempt_and_without_a_place() {
        run(async {
            let breaker = BreakerSettings { failures: 3, pause: Duration::from_secs(60) };
            let line = line(&AwsKmsSettings { breaker, ..quick() });
            // The third failure opens it in the middle of the call.
            let failing = || async { Err::<(), _>(Failure::Passing(UNREACHABLE)) };
            assert_eq!(line.call(failing).await, Err(RootError::Unavailable(OPEN)));
            assert!(line.is_open());
            let _all = line.of_key.acquire_many(2).await.unwrap();
            let begun = Instant::now();
            let never = || async { unreachable!("an open breaker makes no attempt") };
            assert_eq!(line.call::<(), _>(never).await, Err(RootError::Unavailable(OPEN)));
            assert!(begun.elapsed() < quick().deadline, "it waits for nothing");
        });
    }
}
