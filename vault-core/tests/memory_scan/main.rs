//! Keys are nowhere in memory but in the locked arena, and nowhere at all once they are gone.
//!
//! A child process works with keys on many threads (`child`), and stops now and then; its parent, which knows the keys
//! too, looks through all of its memory for them: the raw bytes, all round keys, HMAC states, GCM tables, and a
//! plaintext (`needles`, `scan`). That the child holds no copy of its own makes every hit one of the library's.
//!
//! Only a release build keeps its promise: without optimization, moved values leave copies on the stack.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

mod child;
mod needles;
#[expect(dead_code, unreachable_pub, reason = "shared by several tests, each of which uses a part")]
#[path = "../reference/mod.rs"]
mod reference;
mod scan;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use child::Stop;
use needles::Needles;
use scan::{Hit, preceding, scan};

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

struct Watched {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    suite_key: [u8; 32],
    stream_key: [u8; 32],
    wrapping_key: [u8; 32],
    /// Each Kx, to find its GCM table by.
    record_keys: Vec<[u8; 32]>,
    /// An address on the stack of each thread, and what it did.
    threads: Vec<(u64, String)>,
    needles: Needles,
    plaintext: [u8; 64],
}

impl Watched {
    fn start(mode: &str) -> Self {
        let (data_key, tenant_key, plaintext) = (random::<32>(), random(), random());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(child::MODE, mode)
            // Else the first call of a function of a shared library spills the vector registers to the stack, with what
            // the last message left in them. `docs/threat-model.md`, "Residues".
            .env("LD_BIND_NOW", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let info = [b"blindvault/wrap/v1\0\0\x04", child::TENANT.as_bytes(), &[0, 0, 0, 1]].concat();
        let mut watched = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            suite_key: reference::suite_key(&data_key),
            stream_key: reference::expand(&data_key, b"blindvault/suite/v1\0\x02"),
            wrapping_key: reference::expand(&tenant_key, &info),
            record_keys: Vec::new(),
            threads: Vec::new(),
            needles: Needles::new(),
            plaintext,
        };
        needles::data_key(&mut watched.needles, &data_key);
        needles::stream_key(&mut watched.needles, &watched.stream_key);
        needles::hkdf_key(&mut watched.needles, "tenant key", &tenant_key);
        needles::kc_key(&mut watched.needles, &watched.wrapping_key);
        needles::add(&mut watched.needles, "plaintext", &plaintext);

        let header = reference::header(&child::ID);
        let a = reference::context(&header, child::TENANT, child::DATASET, None, 1, &[]);
        let mut input = [data_key, tenant_key].concat();
        for _ in 0..12 {
            let nonce: [u8; 24] = random();
            watched.add_run(&nonce[..12]);
            input.extend(reference::seal(&data_key, &header, &nonce, &a, &plaintext));
        }
        watched.input.write_all(&input).unwrap();
        watched
    }

    fn add_run(&mut self, prefix: &[u8]) {
        self.record_keys.push(reference::record_key(&self.suite_key, prefix));
        needles::run(&mut self.needles, &self.suite_key, prefix);
    }

    /// What the child's streams have for keys: HKDF-Expand-SHA512 by hand, of the two blocks that it takes.
    fn add_stream(&mut self, salt: &[u8]) {
        let mut header = reference::header(&child::ID);
        header[4] = 2;
        let a = reference::context(&header, child::TENANT, child::DATASET, None, 1, &[]);
        let info = [b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0", salt, &a].concat();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA512, &self.stream_key);
        let first = ring::hmac::sign(&key, &[&info[..], &[1]].concat());
        let stream = first.as_ref()[..32].try_into().unwrap();
        self.record_keys.push(stream);
        needles::stream(&mut self.needles, &stream);
    }

    /// Waits until the child stands at `expected`, and takes in what it tells.
    fn wait(&mut self, expected: Stop) {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the child ended before {expected:?}");
            let line = line.trim_end();
            if let Some(prefix) = line.strip_prefix(child::PREFIX) {
                self.add_run(&hex::decode(prefix).unwrap());
            } else if let Some(wrapped) = line.strip_prefix(child::WRAPPED) {
                let key = self.wrapping_key;
                needles::run(&mut self.needles, &key, &hex::decode(wrapped).unwrap()[1..13]);
            } else if let Some(salt) = line.strip_prefix(child::SALT) {
                self.add_stream(&hex::decode(salt).unwrap());
            } else if let Some(thread) = line.strip_prefix(child::THREAD) {
                let (name, at) = thread.split_once(' ').unwrap();
                self.threads.push((at.parse().unwrap(), name.to_owned()));
            } else if let Some(stop) = line.strip_prefix(child::STOP) {
                assert_eq!(stop, format!("{expected:?}"));
                return;
            }
        }
    }

    /// ring's table of multiples of H lies in front of the round keys of Kx. Its form is ring's own but for its first
    /// entry, so it is read from the arena while it lives.
    fn learn_tables(&mut self) {
        let mut learned = 0;
        for kx in &self.record_keys {
            let first = needles::doubled(reference::aes(kx, [0; 16])).to_ne_bytes();
            for table in preceding(self.child.id(), kx, 256) {
                let halves = [&first[..8], &first[8..]];
                assert!(halves.iter().all(|half| table.chunks(8).any(|piece| piece == *half)), "no table is there");
                needles::add(&mut self.needles, "GCM table", &table);
                learned += 1;
            }
        }
        assert!(learned > 1, "no record key lives in the arena");
    }

    fn scan(&self) -> Vec<Hit> {
        scan(self.child.id(), &self.needles)
    }

    fn go_on(&mut self) {
        self.input.write_all(&[0]).unwrap();
    }
}

impl Drop for Watched {
    /// A failed check must not leave the child waiting for ever.
    fn drop(&mut self) {
        // Fails if it has ended already, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names with counts: enough to find the culprit by, and none of the bytes.
fn summary<'h>(watched: &Watched, hits: impl IntoIterator<Item = &'h Hit>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for hit in hits {
        let inside = |(at, _): &&(u64, String)| hit.region.contains(at);
        let thread = watched.threads.iter().find(inside).map_or("no thread", |(_, name)| name);
        let where_ = format!("{} in {} (stack of {thread})", hit.name, hit.region_name);
        *counts.entry(where_).or_insert(0) += 1;
    }
    counts
}

fn check(mode: &str) {
    let mut watched = Watched::start(mode);
    watched.wait(Stop::Live);
    watched.learn_tables();
    let live = watched.scan();
    // The scan finds what is there: this is what makes the empty results below mean something.
    let count = |name| live.iter().filter(|hit| hit.in_arena && hit.name == name).count();
    for name in [
        "data key",
        "tenant key",
        "round key of the suite or wrapping key",
        "round key of a record key",
        "K1",
        "X + K1",
        "H doubled",
        "GCM table",
    ] {
        eprintln!("{mode}, live: {:4} × {name}", count(name));
    }
    assert!(count("data key") >= 4 && count("tenant key") >= 4);
    assert!(count("round key of the suite or wrapping key") >= 2 * 30);
    assert!(count("round key of a record key") >= 2 * 30 && count("GCM table") > 8);
    assert!(count("K1") >= 4 && count("X + K1") >= 4);
    let mut left = vec![(Stop::Live, summary(&watched, live.iter().filter(|hit| !hit.in_arena)))];
    watched.go_on();
    if mode.contains("leak") {
        watched.wait(Stop::Leaked);
        let leaked = watched.scan();
        assert!(
            leaked.iter().filter(|hit| !hit.in_arena && hit.name == "data key").count() >= 4,
            "a leak is not found"
        );
        watched.go_on();
    }
    for stop in [Stop::Gone, Stop::Ended] {
        watched.wait(stop);
        left.push((stop, summary(&watched, &watched.scan())));
        watched.go_on();
    }
    assert!(watched.child.wait().unwrap().success());
    assert!(watched.plaintext.iter().any(|b| *b != 0));
    assert!(left.iter().all(|(_, found)| found.is_empty()), "{mode}: {left:#?}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the promise is one of release builds")]
fn keys_live_in_the_arena_and_die_with_it() {
    check("buffered leak");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "the promise is one of release builds")]
fn keys_live_in_the_arena_and_die_with_it_unbuffered() {
    check("unbuffered");
}
