//! The Python decoder, written from `docs/format.md` alone, opens what Rust sealed, and the other way round: random
//! cases, a few hundred each way, and damaged ones that both must refuse. It gives every committed vector's outcome, and
//! so does the program that made the vectors.
//!
//! The interpreter is `BLINDVAULT_PYTHON`, or `python3`; it needs PyPI `cryptography`. Without it the tests print
//! `SKIPPED`, or fail if `BLINDVAULT_REQUIRE=1`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vault_core::Error;
use vault_core::envelope::{Context, DataKey, SEALED_CHUNK, STREAM_CHUNK, Scope};
use vault_core::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use vault_core::keys::WrappingKey;
use vault_core::secret::Key32;

const CASES: usize = 300;

/// The interpreter, or `None` after saying that `test` is skipped.
fn python(test: &str) -> Option<String> {
    let python = std::env::var("BLINDVAULT_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let reason = format!("{python} with the package `cryptography` is needed");
    assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
    println!("SKIPPED {test}: {reason}");
    None
}

/// The replies of one run of the Python program to `requests`.
fn ask(python: &str, command: &str, requests: &[Value]) -> Vec<Value> {
    let program = format!("{}/tests/python/blindvault_decoder.py", env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new(python)
        .args([&program, command])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    // Written while the replies are read, so that neither pipe fills up.
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let replies: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replies.len(), requests.len());
    replies
}

/// SplitMix64; the seed is printed, so that a failure can be repeated (`BLINDVAULT_SEED`).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = match std::env::var("BLINDVAULT_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => {
                let mut seed = [0; 8];
                getrandom::fill(&mut seed).unwrap();
                u64::from_ne_bytes(seed)
            }
        };
        eprintln!("BLINDVAULT_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes(N).try_into().unwrap()
    }

    fn text(&mut self, alphabet: &str, len: usize) -> String {
        let alphabet: Vec<_> = alphabet.chars().collect();
        (0..len).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }

    fn name(&mut self) -> String {
        let len = self.below(63);
        self.text("abcxyz019", 1) + &self.text("abcxyz019._-", len)
    }
}

/// One random data key with its place.
struct Case {
    raw: [u8; 32],
    id: [u8; 16],
    version: u32,
    tenant: String,
    dataset: String,
    subject: Option<String>,
}

impl Case {
    fn random(random: &mut Random) -> Self {
        let len = 1 + random.below(256);
        Self {
            raw: random.array(),
            id: random.array(),
            version: u32::from_be_bytes(random.array()).max(1),
            tenant: random.name(),
            dataset: random.name(),
            subject: (random.below(3) > 0).then(|| random.text("aZ09!|@~:/\"\\", len)),
        }
    }

    fn scope(&self) -> Scope {
        Scope {
            tenant: TenantId::parse(&self.tenant).unwrap(),
            dataset: DatasetId::parse(&self.dataset).unwrap(),
            subject: self.subject.as_deref().map(|s| Subject::parse(s).unwrap()),
        }
    }

    fn key(&self) -> DataKey {
        let raw = Key32::copy_of(&self.raw).unwrap();
        DataKey::new(&raw, KeyId(self.id), KeyVersion(self.version), self.scope()).unwrap()
    }

    fn request(&self) -> Value {
        json!({
            "data_key": hex::encode(self.raw), "key_id": hex::encode(self.id), "key_version": self.version,
            "tenant": self.tenant, "dataset": self.dataset, "subject": self.subject,
        })
    }
}

/// `request` with more fields.
fn with(mut request: Value, fields: Value) -> Value {
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

fn hex_of(reply: &Value, field: &str) -> Vec<u8> {
    hex::decode(reply[field].as_str().unwrap_or_else(|| panic!("{reply}"))).unwrap()
}

struct Message {
    case: Case,
    pairs: BTreeMap<String, String>,
    plaintext: Vec<u8>,
}

impl Message {
    fn random(random: &mut Random, at: usize) -> Self {
        let len = match at {
            0 => 0,
            1 => 1 << 20,
            2..10 => random.below(70_000),
            _ => random.below(300),
        };
        let mut pairs = BTreeMap::new();
        for _ in 0..random.below(6) {
            let (k, v) = (random.below(9), random.below(40));
            pairs.insert(random.text("ab_é€\u{1f600}\u{ffff} \0\n\"", k), random.text("xyz_é€\u{1f600} \t\"\\", v));
        }
        Self { case: Case::random(random), pairs, plaintext: random.bytes(len) }
    }

    fn context(&self) -> Context {
        Context::from_pairs(self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap()
    }

    fn request(&self, fields: Value) -> Value {
        let pairs: Vec<_> = self.pairs.iter().collect();
        with(with(self.case.request(), json!({ "context": pairs })), fields)
    }
}

fn damaged(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut bad = bytes.to_vec();
    match random.below(4) {
        0 => bad.truncate(random.below(bytes.len())),
        1 => bad.push(0),
        _ => bad[random.below(bytes.len())] ^= 1 << random.below(8),
    }
    bad
}

#[test]
fn envelopes_both_ways() {
    let Some(python) = python("envelopes_both_ways") else { return };
    let mut random = Random::new();
    let messages: Vec<_> = (0..CASES).map(|at| Message::random(&mut random, at)).collect();

    let ours: Vec<_> = messages.iter().map(|m| m.case.key().seal(&m.context(), &m.plaintext).unwrap()).collect();
    let opening = |envelope: &[u8], m: &Message| m.request(json!({ "envelope": hex::encode(envelope) }));
    let requests: Vec<_> = messages.iter().zip(&ours).map(|(m, envelope)| opening(envelope, m)).collect();
    for (message, reply) in messages.iter().zip(ask(&python, "open", &requests)) {
        assert!(hex_of(&reply, "plaintext") == message.plaintext);
    }

    let requests: Vec<_> =
        messages.iter().map(|m| m.request(json!({ "plaintext": hex::encode(&m.plaintext) }))).collect();
    let theirs: Vec<_> = ask(&python, "seal", &requests).iter().map(|reply| hex_of(reply, "envelope")).collect();
    for (message, envelope) in messages.iter().zip(&theirs) {
        let opened = message.case.key().open(&message.context(), envelope).unwrap();
        assert!(opened.expose() == message.plaintext);
        let bad = damaged(&mut random, envelope);
        assert_eq!(message.case.key().open(&message.context(), &bad).err(), Some(Error::Unopenable));
    }

    let requests: Vec<_> =
        messages.iter().zip(&ours).map(|(m, envelope)| opening(&damaged(&mut random, envelope), m)).collect();
    for reply in ask(&python, "open", &requests) {
        assert_eq!(reply, json!({ "error": "unopenable" }));
    }
}

fn seal_stream(key: &DataKey, context: &Context, plaintext: &[u8]) -> Vec<u8> {
    let mut sealer = key.seal_stream(context).unwrap();
    let mut envelope = sealer.front().to_vec();
    let mut chunks = plaintext.chunks_exact(STREAM_CHUNK);
    for chunk in &mut chunks {
        let mut buffer = [chunk, &[0; 16]].concat();
        sealer.seal_chunk(&mut buffer).unwrap();
        envelope.extend(buffer);
    }
    let mut buffer = [chunks.remainder(), &[0; 16]].concat();
    sealer.seal_last(&mut buffer).unwrap();
    envelope.extend(buffer);
    envelope
}

fn open_stream(key: &DataKey, context: &Context, envelope: &[u8]) -> Result<Vec<u8>, Error> {
    let (front, chunks) = envelope.split_first_chunk().ok_or(Error::Unopenable)?;
    let mut opener = key.open_stream(context, front)?;
    let (mut plaintext, mut chunks) = (Vec::new(), chunks.chunks_exact(SEALED_CHUNK));
    for chunk in &mut chunks {
        plaintext.extend_from_slice(opener.open_chunk(&mut chunk.to_vec())?);
    }
    plaintext.extend_from_slice(opener.open_last(&mut chunks.remainder().to_vec())?);
    Ok(plaintext)
}

#[test]
fn streams_both_ways() {
    let Some(python) = python("streams_both_ways") else { return };
    let mut random = Random::new();
    let messages: Vec<_> = (0..CASES / 3).map(|at| Message::random(&mut random, at)).collect();
    let opening = |envelope: &[u8], m: &Message| m.request(json!({ "envelope": hex::encode(envelope) }));
    let ours: Vec<_> = messages.iter().map(|m| seal_stream(&m.case.key(), &m.context(), &m.plaintext)).collect();
    let requests: Vec<_> = messages.iter().zip(&ours).map(|(m, envelope)| opening(envelope, m)).collect();
    for (message, reply) in messages.iter().zip(ask(&python, "open_stream", &requests)) {
        assert!(hex_of(&reply, "plaintext") == message.plaintext);
    }

    let requests: Vec<_> =
        messages.iter().map(|m| m.request(json!({ "plaintext": hex::encode(&m.plaintext) }))).collect();
    let theirs: Vec<_> = ask(&python, "seal_stream", &requests).iter().map(|reply| hex_of(reply, "envelope")).collect();
    for (message, envelope) in messages.iter().zip(&theirs) {
        let (key, context) = (message.case.key(), message.context());
        assert!(open_stream(&key, &context, envelope).unwrap() == message.plaintext);
        let bad = damaged(&mut random, envelope);
        assert_eq!(open_stream(&key, &context, &bad).err(), Some(Error::Unopenable));
    }

    let requests: Vec<_> =
        messages.iter().zip(&ours).map(|(m, envelope)| opening(&damaged(&mut random, envelope), m)).collect();
    for reply in ask(&python, "open_stream", &requests) {
        assert_eq!(reply, json!({ "error": "unopenable" }));
    }
}

#[test]
fn wrapped_keys_both_ways() {
    let Some(python) = python("wrapped_keys_both_ways") else { return };
    let mut random = Random::new();
    let rows: Vec<_> = (0..CASES)
        .map(|_| {
            let case = Case::random(&mut random);
            let (tenant_key, version) = (random.array(), u32::from_be_bytes(random.array()).max(1));
            let fields = json!({ "tenant_key": hex::encode(tenant_key), "tenant_key_version": version });
            let key = Key32::copy_of(&tenant_key).unwrap();
            let wrapping = WrappingKey::derive(&key, &case.scope().tenant, KeyVersion(version)).unwrap();
            (with(case.request(), fields), wrapping, case)
        })
        .collect();

    let ours: Vec<_> = rows
        .iter()
        .map(|(_, wrapping, case)| {
            let key = Key32::copy_of(&case.raw).unwrap();
            wrapping.wrap(&case.scope(), KeyId(case.id), KeyVersion(case.version), &key).unwrap()
        })
        .collect();
    let unwrapping = |row: &Value, wrapped: &[u8]| with(row.clone(), json!({ "wrapped": hex::encode(wrapped) }));
    let requests: Vec<_> = rows.iter().zip(&ours).map(|((row, ..), wrapped)| unwrapping(row, wrapped)).collect();
    for ((.., case), reply) in rows.iter().zip(ask(&python, "unwrap", &requests)) {
        assert_eq!(hex_of(&reply, "data_key"), case.raw);
    }

    let requests: Vec<_> = rows.iter().map(|(row, ..)| row.clone()).collect();
    for ((_, wrapping, case), reply) in rows.iter().zip(ask(&python, "wrap", &requests)) {
        let unwrap = |wrapped: &[u8]| wrapping.unwrap(&case.scope(), KeyId(case.id), KeyVersion(case.version), wrapped);
        let wrapped = hex_of(&reply, "wrapped");
        assert_eq!(unwrap(&wrapped).unwrap().expose().unwrap(), &case.raw);
        assert_eq!(unwrap(&damaged(&mut random, &wrapped)).err(), Some(Error::Unopenable));
    }

    let requests: Vec<_> =
        rows.iter().zip(&ours).map(|((row, ..), wrapped)| unwrapping(row, &damaged(&mut random, wrapped))).collect();
    for reply in ask(&python, "unwrap", &requests) {
        assert_eq!(reply, json!({ "error": "unopenable" }));
    }
}

/// The cases of a committed vector file.
fn committed(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let whole: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    whole["tests"].as_array().unwrap().clone()
}

#[test]
fn the_decoder_gives_every_committed_outcome() {
    let Some(python) = python("the_decoder_gives_every_committed_outcome") else { return };
    let files = [
        ("envelope_v1.json", "open", "plaintext"),
        ("stream_v1.json", "open_stream", "plaintext"),
        ("wrapped_key_v1.json", "unwrap", "data_key"),
    ];
    for (file, command, result) in files {
        let cases = committed(file);
        assert!(cases.len() > 100, "{file}: {} cases", cases.len());
        for (case, reply) in cases.iter().zip(ask(&python, command, &cases)) {
            let expected = match case["expected"].as_str().unwrap() {
                "ok" => json!({ result: case[result] }),
                refusal => json!({ "error": refusal }),
            };
            assert_eq!(reply, expected, "{file}, test {}", case["id"]);
        }
    }
}

#[test]
fn the_program_that_made_the_vectors_verifies_them_and_the_examples() {
    let Some(python) = python("the_program_that_made_the_vectors_verifies_them_and_the_examples") else { return };
    let root = env!("CARGO_MANIFEST_DIR");
    let names = ["envelope_v1.json", "wrapped_key_v1.json", "kc_xaes_256_gcm.json", "xaes_256_gcm.json"];
    let files = names.iter().map(|name| format!("{root}/tests/vectors/{name}"));
    let checked = Command::new(python)
        .args([format!("{root}/tests/python/blindvault_format.py"), "check".to_owned()])
        .args(files.chain([format!("{root}/../docs/format.md")]))
        .env("PYTHONUTF8", "1")
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn the_program_that_made_the_vectors_of_streams_verifies_them() {
    let Some(python) = python("the_program_that_made_the_vectors_of_streams_verifies_them") else { return };
    let root = env!("CARGO_MANIFEST_DIR");
    let checked = Command::new(python)
        .args([
            &format!("{root}/tests/python/blindvault_streams.py"),
            "check",
            &format!("{root}/tests/vectors/stream_v1.json"),
        ])
        .env("PYTHONUTF8", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
