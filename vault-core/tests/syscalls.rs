//! Sealing and opening make no system call per message: random bytes are drawn in blocks. Counted by `strace`; without
//! it, or where tracing is not permitted, the test prints `SKIPPED`, or fails if `BLINDVAULT_REQUIRE=1`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::process::{Command, Stdio};

use vault_core::crypto::{Randomness, set_randomness};
use vault_core::envelope::{Context, DataKey, Scope};
use vault_core::id::{DatasetId, KeyId, KeyVersion, TenantId};
use vault_core::secret::Key32;

const MODE: &str = "BLINDVAULT_SYSCALLS_CHILD";
const MESSAGES: usize = 10_000;
/// Files that do not exist; asking for them marks the beginning and the end in the trace.
const MARKS: [&str; 2] = ["/blindvault-mark-begin", "/blindvault-mark-end"];

/// Does nothing unless the environment says that this is the traced process.
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    if mode == "unbuffered" {
        set_randomness(Randomness::Unbuffered);
    }
    let scope = Scope {
        tenant: TenantId::parse("acme").unwrap(),
        dataset: DatasetId::parse("customers").unwrap(),
        subject: None,
    };
    let raw = Key32::copy_of(&[7; 32]).unwrap();
    let key = DataKey::new(&raw, KeyId([1; 16]), KeyVersion::FIRST, scope).unwrap();
    let context = Context::from_pairs([("table", "payments")]).unwrap();
    let message = || {
        let envelope = key.seal(&context, b"4111 1111 1111 1111").unwrap();
        key.open(&context, &envelope).unwrap();
    };
    message();
    assert!(!std::fs::exists(MARKS[0]).unwrap());
    (0..MESSAGES).for_each(|_| message());
    assert!(!std::fs::exists(MARKS[1]).unwrap());
}

/// System calls between the two marks, or why they could not be counted.
fn count(mode: &str) -> Result<usize, String> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-o"])
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--test-threads=1"])
        .env(MODE, mode)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("strace cannot be started: {error}"))?;
    let lines = std::fs::read_to_string(trace.path()).unwrap();
    let Some((_, rest)) = lines.split_once(MARKS[0]) else {
        return Err(format!("strace traced nothing ({status})"));
    };
    let (between, _) = rest.split_once(MARKS[1]).unwrap();
    // The line of each mark's own call is cut in two.
    Ok(between.lines().count() - 2)
}

#[test]
fn no_system_call_per_message() {
    match count("buffered").and_then(|buffered| Ok((buffered, count("unbuffered")?))) {
        Ok((buffered, unbuffered)) => {
            println!("measured: {MESSAGES} messages: {buffered} system calls, {unbuffered} with nothing drawn ahead");
            // 12 bytes a message from blocks of 3968, and 12 a run.
            assert!(buffered <= MESSAGES / 100, "{buffered} system calls for {MESSAGES} messages");
            assert!(unbuffered >= MESSAGES, "the count misses what it should see: {unbuffered}");
        }
        Err(reason) => {
            assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{reason}");
            println!("SKIPPED no_system_call_per_message: {reason}");
        }
    }
}
