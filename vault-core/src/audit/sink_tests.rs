use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pollster::block_on;

use super::test_support::{Place, decision, permit, refusal};
use super::*;
use crate::error::{Dependency, Error};
use crate::fs::{Fs, OsFs};
use crate::policy::{CreateTenant, Decrypt};

/// What a sink of the tests got, and how it behaves.
#[derive(Debug, Default)]
struct Behavior {
    got: Mutex<Vec<(u64, [u8; 32])>>,
    hang: AtomicBool,
    fail: AtomicBool,
    /// While set, a look at it does not return.
    hang_check: AtomicBool,
    checks: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Tested(Arc<Behavior>);

impl Tested {
    fn hang(&self, hang: bool) {
        self.0.hang.store(hang, Ordering::SeqCst);
    }
    fn fail(&self, fail: bool) {
        self.0.fail.store(fail, Ordering::SeqCst);
    }
    fn got(&self) -> Vec<(u64, [u8; 32])> {
        self.0.got.lock().unwrap().clone()
    }
    /// Everything, once, in order, from an index on.
    fn has_all(&self, place: &Place, from: u64) {
        let mut got = self.got();
        // At least once, and never out of order but where it begins again.
        assert!(got.windows(2).all(|pair| pair[1].0 <= pair[0].0 + 1), "{got:?}");
        got.sort_unstable();
        got.dedup();
        assert_eq!(got, leaves(place, from));
    }
}

impl Sink for Tested {
    fn kind(&self) -> &'static str {
        "test"
    }
    fn check(&mut self) -> Result<(), &'static str> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        while self.0.hang_check.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.0.fail.load(Ordering::SeqCst) { Err("told to fail") } else { Ok(()) }
    }
    fn deliver(&mut self, entries: &[Delivered]) -> Result<(), &'static str> {
        while self.0.hang.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.check()?;
        assert!(!entries.is_empty() && entries.len() <= self.most());
        self.0.got.lock().unwrap().extend(entries.iter().map(|e| (e.entry.index, e.leaf_hash)));
        Ok(())
    }
}

fn leaves(place: &Place, from: u64) -> Vec<(u64, [u8; 32])> {
    let mut reader = EntryReader::open(&OsFs, &place.dir, &place.verifier()).unwrap();
    let mut all = Vec::new();
    let mut each = |entry: Entry, leaf| {
        if entry.index >= from {
            all.push((entry.index, leaf));
        }
        Ok(())
    };
    while reader.group(&mut each).unwrap() {}
    all
}

fn bodies(place: &Place) -> Vec<Body> {
    let mut reader = EntryReader::open(&OsFs, &place.dir, &place.verifier()).unwrap();
    let mut all = Vec::new();
    let mut each = |entry: Entry, _| {
        all.push(entry.body);
        Ok(())
    };
    while reader.group(&mut each).unwrap() {}
    all
}

fn settings(name: &str, mandatory: bool, deadline_ms: u64) -> SinkSettings {
    let deadline = Duration::from_millis(deadline_ms);
    SinkSettings { name: name.to_owned(), mandatory, deadline, queue: 1000, history: false }
}

fn fs() -> Arc<dyn Fs> {
    Arc::new(OsFs)
}

fn attach(log: &Log, sinks: &[(SinkSettings, &Tested)]) {
    let boxed = |(settings, sink): &(SinkSettings, &Tested)| {
        let sink: Box<dyn Sink> = Box::new((*sink).clone());
        (settings.clone(), sink)
    };
    log.attach(&fs(), sinks.iter().map(boxed).collect()).unwrap();
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn good(log: &Log) {
    until("good", || log.health() == Health::Good && log.sinks().iter().all(|sink| sink.state == SinkState::Good));
}

fn call(log: &Log) -> Result<Receipt, Error> {
    block_on(log.record::<Decrypt>(permit(decision("acme", 1)), None, Pseudonyms::default())).map(Recorded::complete)
}

fn is_sink_down<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable { dependency: Dependency::Audit, why }) if why.contains("audit sink"))
}

/// A call on a thread of its own.
fn calling(log: &Arc<Log>) -> JoinHandle<Result<Receipt, Error>> {
    let log = Arc::clone(log);
    std::thread::spawn(move || call(&log))
}

#[test]
fn an_answer_waits_until_every_mandatory_sink_has_confirmed_its_entry() {
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let (one, other, best_effort) = (Tested::default(), Tested::default(), Tested::default());
    let from = log.head().size;
    attach(
        &log,
        &[
            (settings("one", true, 60_000), &one),
            (settings("other", true, 60_000), &other),
            (settings("best-effort", false, 60_000), &best_effort),
        ],
    );
    good(&log);
    // The best-effort sink hangs all the while: nobody waits for it.
    best_effort.hang(true);
    assert_eq!(call(&log).unwrap().index, from);
    other.hang(true);
    let waiting = calling(&log);
    until("durable", || log.head().size == from + 2);
    until("confirmed by one of them", || one.got().len() == 2);
    std::thread::sleep(Duration::from_millis(30));
    assert!(!waiting.is_finished(), "answered before both confirmed");
    other.hang(false);
    assert_eq!(waiting.join().unwrap().unwrap().index, from + 1);
    assert_eq!(log.health(), Health::Good);
    let lagging = &log.sinks()[2];
    assert_eq!((lagging.name.as_str(), lagging.kind, lagging.mandatory), ("best-effort", "test", false));
    assert_eq!((lagging.confirmed, lagging.lag), (from, 2));
    assert!(lagging.behind_for > Duration::ZERO);
    best_effort.hang(false);
    until("caught up", || log.sinks()[2].lag == 0);
    Arc::into_inner(log).unwrap().close().unwrap();
    [one, other, best_effort].iter().for_each(|sink| sink.has_all(&place, from));
}

#[test]
fn a_hung_mandatory_sink_stops_calls_at_its_deadline_and_they_go_on_when_it_has_caught_up() {
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let sink = Tested::default();
    let from = log.head().size;
    attach(&log, &[(settings("siem", true, 100), &sink)]);
    good(&log);
    let control =
        block_on(log.record::<CreateTenant>(permit(decision("new", 3)), None, Pseudonyms::default())).unwrap();
    sink.hang(true);
    let failed = call(&log);
    assert!(is_sink_down(&failed), "{failed:?}");
    assert!(matches!(log.health(), Health::SinkDown(_)), "{:?}", log.health());
    let status = &log.sinks()[0];
    assert_eq!((status.state, status.failures), (SinkState::Failing, 1));
    assert_eq!(status.last_error, Some("it did not confirm within its deadline"));
    // New calls are refused at once, and nothing is written for them.
    let size = || leaves(&place, 0).len();
    until("the outcome of the failed call", || {
        bodies(&place)
            .iter()
            .any(|body| matches!(body, Body::Outcome { intent, status: Status::Failed, .. } if *intent == from + 1))
    });
    let before = size();
    let begun = Instant::now();
    assert!(is_sink_down(&call(&log)));
    assert!(is_sink_down(&block_on(log.refused(&refusal("acme", 2), Pseudonyms::default()))));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(size(), before);
    // What the log itself has to say, and the end of what was begun, are written; the latter is not answered.
    block_on(log.system(SystemEvent::PolicyEpoch(8))).unwrap();
    assert!(is_sink_down(&block_on(log.control(&control, "created", None))));
    drop(control);
    assert!(matches!(bodies(&place).last(), Some(Body::Control { .. })));
    sink.hang(false);
    good(&log);
    call(&log).unwrap();
    Arc::into_inner(log).unwrap().close().unwrap();
    sink.has_all(&place, from);
    assert!(verify(&OsFs, &place.dir, &place.verifier(), &VerifyOptions::default()).unwrap().is_sound());
}

#[test]
fn a_failing_mandatory_sink_stops_calls_and_recovers_by_itself_and_a_best_effort_one_stops_nothing() {
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let (mandatory, best_effort) = (Tested::default(), Tested::default());
    // Not there from the start.
    mandatory.fail(true);
    best_effort.fail(true);
    let from = log.head().size;
    attach(&log, &[(settings("a", true, 30_000), &mandatory), (settings("b", false, 30_000), &best_effort)]);
    assert!(is_sink_down(&call(&log)), "before it is known to work");
    until("found failing", || log.sinks()[0].state == SinkState::Failing);
    assert!(is_sink_down(&call(&log)));
    mandatory.fail(false);
    until("serving", || log.health() == Health::Good);
    for _ in 0..3 {
        call(&log).unwrap();
    }
    let status = &log.sinks()[1];
    assert_eq!((status.state, status.last_error, status.lag), (SinkState::Failing, Some("told to fail"), 3));
    // A call that is under way when it begins to fail waits, and is answered if it recovers within the deadline.
    mandatory.fail(true);
    let waiting = calling(&log);
    until("failing", || log.sinks()[0].state == SinkState::Failing);
    assert!(is_sink_down(&call(&log)));
    mandatory.fail(false);
    assert_eq!(waiting.join().unwrap().unwrap().index, from + 3);
    best_effort.fail(false);
    good(&log);
    Arc::into_inner(log).unwrap().close().unwrap();
    mandatory.has_all(&place, from);
    best_effort.has_all(&place, from);
}

#[test]
fn a_sink_that_is_further_behind_than_its_queue_is_full_or_behind_and_loses_nothing() {
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let (mandatory, best_effort) = (Tested::default(), Tested::default());
    let from = log.head().size;
    let few = |name: &str, mandatory| SinkSettings { queue: 2, ..settings(name, mandatory, 60_000) };
    attach(&log, &[(few("a", true), &mandatory), (few("b", false), &best_effort)]);
    good(&log);
    mandatory.hang(true);
    best_effort.hang(true);
    let waiting: Vec<_> = (0..3).map(|_| calling(&log)).collect();
    until("full", || matches!(log.health(), Health::SinkDown(why) if why.contains("too many")));
    assert!(is_sink_down(&call(&log)));
    until("behind", || log.sinks()[1].state == SinkState::Behind);
    mandatory.hang(false);
    assert!(waiting.into_iter().all(|call| call.join().unwrap().is_ok()));
    for _ in 0..5 {
        call(&log).unwrap();
    }
    best_effort.hang(false);
    good(&log);
    Arc::into_inner(log).unwrap().close().unwrap();
    mandatory.has_all(&place, from);
    best_effort.has_all(&place, from);
}

#[test]
fn a_sink_goes_on_where_it_was_after_a_stop_and_after_a_crash() {
    let place = Place::new();
    let (sink, history) = (Tested::default(), Tested::default());
    let attached = |log: &Log| {
        let all = SinkSettings { history: true, ..settings("all", false, 1000) };
        attach(log, &[(settings("siem", true, 10_000), &sink), (all, &history)]);
    };
    let mut from = None;
    for round in 0..6 {
        let (log, _) = place.open();
        let size = log.head().size;
        from.get_or_insert(size);
        attached(&log);
        good(&log);
        for _ in 0..20 {
            call(&log).unwrap();
        }
        if round % 2 == 0 {
            log.close().unwrap();
        } else {
            // While the sink is away: what it did not get it gets next time.
            sink.fail(true);
            block_on(log.system(SystemEvent::PolicyEpoch(9))).unwrap();
            drop(log);
            sink.fail(false);
        }
    }
    // Entries of a process without sinks reach them, too.
    let (log, _) = place.open();
    call(&log).unwrap();
    log.close().unwrap();
    let (log, _) = place.open();
    attached(&log);
    good(&log);
    log.close().unwrap();
    sink.has_all(&place, from.unwrap());
    history.has_all(&place, 0);
}

#[test]
fn a_position_that_is_not_of_this_log_is_refused() {
    let place = Place::new();
    let sink = Tested::default();
    let (log, _) = place.open();
    attach(&log, &[(settings("siem", true, 10_000), &sink)]);
    good(&log);
    call(&log).unwrap();
    log.close().unwrap();
    let file = place.file("sinks/siem");
    let kept = std::fs::read_to_string(&file).unwrap();
    let attach = |place: &Place| {
        let (log, _) = place.open();
        let sink: Box<dyn Sink> = Box::new(Tested::default());
        let attached = log.attach(&fs(), vec![(settings("siem", true, 10_000), sink)]);
        (log, attached)
    };
    // More entries than there are: the log was rolled back.
    let mut lines: Vec<String> = kept.lines().map(str::to_owned).collect();
    lines[1] = "1000000".to_owned();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    assert!(matches!(attach(&place).1, Err(Error::Corrupt { at, .. }) if at.contains("rolled back")));
    std::fs::write(&file, kept.trim_end()).unwrap();
    assert!(matches!(attach(&place).1, Err(Error::Corrupt { .. })));
    // Another entry was delivered there: another history. It is never good again by itself.
    let mut lines: Vec<String> = kept.lines().map(str::to_owned).collect();
    lines[2] = lines[2].replace(|c: char| c.is_ascii_lowercase(), "A");
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let (log, attached) = attach(&place);
    attached.unwrap();
    until("found", || log.sinks()[0].last_error.is_some_and(|why| why.contains("not the one")));
    assert!(is_sink_down(&call(&log)));
    drop(log);
    std::fs::write(&file, kept).unwrap();
    let (log, attached) = attach(&place);
    attached.unwrap();
    good(&log);
}

#[test]
fn names_are_checked_and_a_log_gets_its_sinks_once() {
    let place = Place::new();
    let (log, _) = place.open();
    let with = |names: &[&str]| {
        let sink = |name: &&str| {
            let sink: Box<dyn Sink> = Box::new(Tested::default());
            (settings(name, false, 1000), sink)
        };
        log.attach(&fs(), names.iter().map(sink).collect())
    };
    for bad in ["", "A", "../x", "a_b", &"a".repeat(33)] {
        assert!(matches!(with(&[bad]), Err(Error::Invalid { field, .. }) if field == "name"), "{bad}");
    }
    assert!(matches!(with(&["a", "a"]), Err(Error::Invalid { .. })));
    with(&[]).unwrap();
    assert!(log.sinks().is_empty());
    with(&["a", &"b".repeat(32)]).unwrap();
    assert!(matches!(with(&["c"]), Err(Error::FailedPrecondition(_))));
}

#[test]
fn a_sink_that_panics_fails_and_stops_calls() {
    #[derive(Debug)]
    struct Panics;
    impl Sink for Panics {
        fn kind(&self) -> &'static str {
            "test"
        }
        fn check(&mut self) -> Result<(), &'static str> {
            Ok(())
        }
        fn deliver(&mut self, _: &[Delivered]) -> Result<(), &'static str> {
            panic!("on purpose")
        }
    }
    let place = Place::new();
    let (log, _) = place.open();
    log.attach(&fs(), vec![(settings("a", true, 5000), Box::new(Panics))]).unwrap();
    good(&log);
    assert!(is_sink_down(&call(&log)));
    until("told", || log.sinks()[0].last_error == Some("the sink's thread ended unexpectedly"));
    assert!(is_sink_down(&call(&log)));
}

#[test]
fn a_sink_reads_across_segments_and_goes_on_without_those_it_has() {
    let place = Place::new();
    let sink = Tested::default();
    let with_history = || SinkSettings { history: true, ..settings("siem", true, 10_000) };
    let calls = |log: &Log| {
        for _ in 0..20 {
            call(log).unwrap();
        }
    };
    let (log, _) = place.open_cutting();
    attach(&log, &[(with_history(), &sink)]);
    good(&log);
    calls(&log);
    until("segments", || log.segments().open >= 3 && log.segments().archived == log.segments().open);
    log.close().unwrap();
    // Behind by several segments, all of them archived by now.
    let (log, _) = place.open_cutting();
    calls(&log);
    until("segments", || log.segments().archived == log.segments().open);
    attach(&log, &[(with_history(), &sink)]);
    good(&log);
    log.close().unwrap();
    sink.has_all(&place, 0);
    let all = leaves(&place, 0);
    // What it has was moved away.
    std::fs::rename(place.file("archive"), place.temp.path().join("elsewhere")).unwrap();
    let (log, _) = place.open_cutting();
    attach(&log, &[(with_history(), &sink)]);
    good(&log);
    calls(&log);
    let end = log.head().size;
    until("the end", || log.sinks()[0].confirmed >= end);
    log.close().unwrap();
    let mut got: Vec<u64> = sink.got().into_iter().map(|(index, _)| index).collect();
    got.sort_unstable();
    got.dedup();
    assert!(got.len() as u64 >= end && all.len() >= 40, "{} of {end}", got.len());
    assert_eq!(got, (0..got.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_call_that_comes_while_a_sink_is_looked_at_does_not_stop_others() {
    let place = Place::new();
    let log = Arc::new(place.open().0);
    let sink = Tested::default();
    attach(&log, &[(settings("siem", true, 30_000), &sink)]);
    good(&log);
    let checks = sink.0.checks.load(Ordering::SeqCst);
    sink.0.hang_check.store(true, Ordering::SeqCst);
    until("a look", || sink.0.checks.load(Ordering::SeqCst) > checks);
    let size = log.head().size;
    let waiting = calling(&log);
    until("durable", || log.head().size > size);
    // The look ends well, and the entry is not confirmed yet.
    sink.hang(true);
    sink.0.hang_check.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        assert_eq!(log.health(), Health::Good);
        std::thread::yield_now();
    }
    sink.hang(false);
    waiting.join().unwrap().unwrap();
}
