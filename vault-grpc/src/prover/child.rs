//! The prover's process: what it gets, how long it may take, and that it is gone afterwards.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::wire::{Answer, Question};

pub(super) const NOT_STARTED: &str = "the gateway's own prover cannot be started";
const LATE: &str = "the gateway's own prover did not answer in time";
const ENDED: &str = "the gateway's own prover ended without an answer";
const GARBLED: &str = "the gateway's own prover answered what is no answer";

/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// How long it may be late: it bounds itself, and says so.
const GRACE: Duration = Duration::from_secs(2);

/// Killed and reaped when dropped, whatever became of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // None is left if it has ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Starts it, asks, and waits. Blocks for the question's time and two seconds at most.
pub(super) fn ask(program: &Path, question: &Question) -> Result<Answer, &'static str> {
    let text = serde_json::to_vec(question).map_err(|_| NOT_STARTED)?;
    let mut start = Command::new(program);
    // It refuses to live on if this is not its parent any more.
    start.args(["policy", "prove-inside", "--parent", &std::process::id().to_string()]);
    start.env_clear().current_dir("/").process_group(0);
    start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(start.spawn().map_err(|_| NOT_STARTED)?);
    let (Some(mut to), Some(from)) = (running.0.stdin.take(), running.0.stdout.take()) else {
        return Err(NOT_STARTED);
    };
    // A thread for each pipe, so that a process that neither reads nor writes is given up in time. They end with it.
    let writer = move || drop(to.write_all(&text));
    let (found, answer) = sync_channel(1);
    let reader = move || {
        let mut bytes = Vec::new();
        let read = from.take(MAX_ANSWER).read_to_end(&mut bytes);
        drop(found.send(read.map(|_| bytes)));
    };
    let spawn = std::thread::Builder::new;
    spawn().name("prover input".into()).spawn(writer).map_err(|_| NOT_STARTED)?;
    spawn().name("prover output".into()).spawn(reader).map_err(|_| NOT_STARTED)?;
    let within = Duration::from_millis(question.timeout_ms) + GRACE;
    let bytes = answer.recv_timeout(within).map_err(|_| LATE)?.map_err(|_| ENDED)?;
    if bytes.is_empty() {
        return Err(ENDED);
    }
    serde_json::from_slice(&bytes).map_err(|_| GARBLED)
}
