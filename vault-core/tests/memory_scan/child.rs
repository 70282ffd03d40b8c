//! The process that is looked at. It gets its keys over a pipe straight into locked memory, works on many threads, and
//! leaves each of them parked right after its last call, so that nothing covers up what the call left on its stack.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Barrier, Mutex};

use vault_core::crypto::{Randomness, set_randomness};
use vault_core::envelope::{
    BACK, Context, DataKey, FRONT, HEADER, OVERHEAD, SEALED_CHUNK, STREAM_CHUNK, Scope, StreamOpener, StreamSealer,
};
use vault_core::id::{DatasetId, KeyId, KeyVersion, TenantId};
use vault_core::keys::WrappingKey;
use vault_core::secret::{Key32, SecretBytes};

/// Set in the environment of the child, to the name of what it shall do.
pub(super) const MODE: &str = "BLINDVAULT_SCAN_CHILD";
/// The key's id.
pub(super) const ID: [u8; 16] = *b"memory scan, id.";
/// The tenant; there is no subject.
pub(super) const TENANT: &str = "acme";
/// The dataset.
pub(super) const DATASET: &str = "customers";

/// Where the child stops to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Every thread has made its calls; the keys live.
    Live,
    /// The data keys were wiped or dropped; all threads still stand where they were.
    Gone,
    /// The threads have ended.
    Ended,
    /// A copy of the data key lies about, to show that it is found.
    Leaked,
}

/// Nobody else's lines start like this.
pub(super) const PREFIX: &str = "@prefix ";
/// As above.
pub(super) const STOP: &str = "@stop ";
/// As above; the name of what a thread does, and an address on its stack.
pub(super) const THREAD: &str = "@thread ";
/// As above.
pub(super) const WRAPPED: &str = "@wrapped ";
/// As above; the salt of a stream.
pub(super) const SALT: &str = "@salt ";

fn scope() -> Scope {
    Scope { tenant: TenantId::parse(TENANT).unwrap(), dataset: DatasetId::parse(DATASET).unwrap(), subject: None }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

fn stop(at: Stop, input: &mut File) {
    say(&format!("{STOP}{at:?}"));
    input.read_exact(&mut [0]).unwrap();
}

/// What a thread does; the last call of each is another one.
type Work<'a> = (&'static str, Box<dyn FnOnce() + Send + 'a>);

struct Shared<'a> {
    key: &'a DataKey,
    prefixes: Mutex<HashSet<Vec<u8>>>,
}

impl Shared<'_> {
    fn seal(&self, len: usize) -> Vec<u8> {
        let envelope = self.key.seal(&Context::empty(), &vec![0x55; len]).unwrap();
        self.prefixes.lock().unwrap().insert(envelope[22..34].to_vec());
        envelope
    }
}

/// Does nothing unless the environment says that this process is the one to look at.
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    // Not through `Stdin`, whose buffer on the heap would keep the keys.
    let mut input = File::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut key32 = || Key32::init_with(|bytes| input.read_exact(bytes).map_err(|_| vault_core::Error::Unopenable));
    let (raw, tenant_key) = (key32().unwrap(), key32().unwrap());
    let mut foreign = vec![vec![0; OVERHEAD + 64]; 12];
    foreign.iter_mut().for_each(|envelope| input.read_exact(envelope).unwrap());
    if mode.contains("unbuffered") {
        set_randomness(Randomness::Unbuffered);
    }

    let version = KeyVersion::FIRST;
    let key = DataKey::new(&raw, KeyId(ID), version, scope()).unwrap();
    let wrapping = Mutex::new(Some(WrappingKey::derive(&tenant_key, &scope().tenant, version).unwrap()));
    let kept: Mutex<Vec<DataKey>> = Mutex::new(Vec::new());
    // Streams that run when the key is wiped: their keys go with it.
    let (sealers, openers): (Mutex<Vec<StreamSealer>>, Mutex<Vec<StreamOpener>>) = Default::default();
    let shared = Shared { key: &key, prefixes: Mutex::default() };
    let raw = Mutex::new(Some(raw));
    let tenant_key = Mutex::new(Some(tenant_key));
    let none = Context::empty();

    let long = "v".repeat(3000);
    let large = Context::from_pairs([("k", long.as_str())]).unwrap();
    let with_raw = |work: &dyn Fn(&Key32)| work(raw.lock().unwrap().as_ref().unwrap());
    let with_wrapping = |work: &dyn Fn(&WrappingKey)| work(wrapping.lock().unwrap().as_ref().unwrap());
    let open = |at: usize| drop(key.open(&none, &foreign[at]).unwrap());
    let refused = |at: usize, byte: usize| {
        let mut bad = foreign[at].clone();
        bad[byte] ^= 1;
        assert!(key.open(&none, &bad).is_err());
        assert!(key.open_in_place(&none, &mut bad).is_err());
    };
    let wrap = || {
        let wrapped = Mutex::new(Vec::new());
        with_raw(&|raw| {
            with_wrapping(&|w| *wrapped.lock().unwrap() = w.wrap(&scope(), KeyId(ID), version, raw).unwrap());
        });
        wrapped.into_inner().unwrap()
    };
    let wrapped = wrap();
    say(&format!("{WRAPPED}{}", hex::encode(&wrapped)));
    let unwrap = |bad: bool| {
        let mut wrapped = wrapped.clone();
        wrapped[40] ^= u8::from(bad);
        with_wrapping(&|w| assert_eq!(w.unwrap(&scope(), KeyId(ID), version, &wrapped).is_err(), bad));
    };

    let work: Vec<Work<'_>> = vec![
        (
            "seal",
            Box::new(|| {
                shared.seal(64);
            }),
        ),
        ("seal_to_a_new_batch", Box::new(|| (0..9).for_each(|_| drop(shared.seal(64))))),
        ("seal_to_a_new_run", Box::new(|| (0..4097).for_each(|_| drop(shared.seal(16))))),
        ("open_own", Box::new(|| drop(key.open(&none, &shared.seal(1000)).unwrap()))),
        (
            "seal_in_place",
            Box::new(|| {
                let mut buffer = vec![0x55; FRONT + 65_536 + BACK];
                key.seal_in_place(&none, &mut buffer).unwrap();
                shared.prefixes.lock().unwrap().insert(buffer[22..34].to_vec());
            }),
        ),
        (
            "seal_and_open_large_context",
            Box::new(|| {
                shared.seal(10);
                let envelope = key.seal(&large, &[0x55; 100]).unwrap();
                shared.prefixes.lock().unwrap().insert(envelope[22..34].to_vec());
                drop(key.open(&large, &envelope).unwrap());
            }),
        ),
        ("open_new_prefix", Box::new(|| open(0))),
        ("open_many_prefixes", Box::new(|| (0..foreign.len()).cycle().take(200).for_each(open))),
        (
            "open_in_place",
            Box::new(|| {
                let mut envelope = foreign[1].clone();
                // The plaintext stands in this buffer; its owner wipes it.
                key.open_in_place(&none, &mut envelope).unwrap().fill(0);
            }),
        ),
        ("refused_tag", Box::new(|| refused(2, OVERHEAD + 63))),
        ("refused_commitment", Box::new(|| refused(3, FRONT - 1))),
        ("refused_ciphertext", Box::new(|| refused(4, FRONT))),
        (
            "refused_context",
            Box::new(|| {
                assert!(key.open(&large, &foreign[5]).is_err());
            }),
        ),
        (
            "wrap",
            Box::new(|| {
                let wrapped = wrap();
                say(&format!("{WRAPPED}{}", hex::encode(wrapped)));
            }),
        ),
        ("unwrap", Box::new(|| unwrap(false))),
        ("unwrap_refused", Box::new(|| unwrap(true))),
        (
            "new_data_key",
            Box::new(|| {
                with_raw(&|raw| kept.lock().unwrap().push(DataKey::new(raw, KeyId(ID), version, scope()).unwrap()));
            }),
        ),
        (
            "derive_wrapping_key",
            Box::new(|| {
                let again = tenant_key.lock().unwrap();
                drop(WrappingKey::derive(again.as_ref().unwrap(), &scope().tenant, version).unwrap());
            }),
        ),
        (
            "seal_stream",
            Box::new(|| {
                let mut sealer = key.seal_stream(&none).unwrap();
                say(&format!("{SALT}{}", hex::encode(&sealer.front()[HEADER..HEADER + 24])));
                (0..3).for_each(|_| sealer.seal_chunk(&mut vec![0x55; SEALED_CHUNK]).unwrap());
                sealers.lock().unwrap().push(sealer);
            }),
        ),
        (
            "open_stream",
            Box::new(|| {
                let mut sealer = key.seal_stream(&none).unwrap();
                say(&format!("{SALT}{}", hex::encode(&sealer.front()[HEADER..HEADER + 24])));
                let mut chunk = vec![0x55; SEALED_CHUNK];
                sealer.seal_chunk(&mut chunk).unwrap();
                let mut opener = key.open_stream(&none, sealer.front()).unwrap();
                assert_eq!(opener.open_chunk(&mut chunk).unwrap(), [0x55; STREAM_CHUNK]);
                openers.lock().unwrap().push(opener);
            }),
        ),
        (
            "copy_and_compare",
            Box::new(|| with_raw(&|raw| assert!(*raw == Key32::copy_of(raw.expose().unwrap()).unwrap()))),
        ),
    ];

    let worked = Barrier::new(work.len() + 1);
    let ending = Barrier::new(work.len() + 1);
    std::thread::scope(|threads| {
        let (worked, ending) = (&worked, &ending);
        for (name, task) in work {
            threads.spawn(move || {
                say(&format!("{THREAD}{name} {}", (&raw const name).addr()));
                task();
                worked.wait();
                ending.wait();
            });
        }
        worked.wait();
        let prefixes = std::mem::take(&mut *shared.prefixes.lock().unwrap());
        prefixes.iter().for_each(|prefix| say(&format!("{PREFIX}{}", hex::encode(prefix))));
        stop(Stop::Live, &mut input);
        if mode.contains("leak") {
            let copy = raw.lock().unwrap().as_ref().unwrap().expose().unwrap().to_vec();
            stop(Stop::Leaked, &mut input);
            drop(SecretBytes::new(copy));
        }
        key.wipe();
        assert!(sealers.lock().unwrap().iter().all(StreamSealer::is_wiped));
        assert!(openers.lock().unwrap().iter().all(StreamOpener::is_wiped));
        kept.lock().unwrap().clear();
        *wrapping.lock().unwrap() = None;
        *raw.lock().unwrap() = None;
        *tenant_key.lock().unwrap() = None;
        stop(Stop::Gone, &mut input);
        ending.wait();
    });
    drop(key);
    stop(Stop::Ended, &mut input);
}
