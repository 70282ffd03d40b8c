//! Death at a named step, for tests: `serve --failpoint FILE`, in builds with feature `dev` only.
//!
//! The file says where, and may come, change and go while the gateway runs: `STEP before N` or `STEP after N`. At the
//! Nth time since it says so the process kills itself with SIGKILL: nothing of it runs any more. A file that is not
//! there, or says something else, lets it live.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use vault_core::failpoint::{Moment, Step, on_reach};

static FILE: OnceLock<PathBuf> = OnceLock::new();
/// What the file said the last time that it named a step that was reached, and how often that was since.
static REACHED: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

/// From here on the file decides.
pub(super) fn arm(file: PathBuf) {
    if FILE.set(file).is_ok() {
        on_reach(reached);
    }
}

fn reached(step: Step, moment: Moment) {
    let Some(text) = FILE.get().and_then(|file| fs::read_to_string(file).ok()) else { return };
    if !is_meant(&text, step, moment) {
        return;
    }
    let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
    if reached.0 != text {
        *reached = (text, 0);
    }
    reached.1 += 1;
    if wanted(&reached.0) == Some(reached.1) {
        // It does not return; were it refused, this death would not look like a SIGKILL to the test.
        let _ = kill_process(getpid(), Signal::KILL);
        process::abort();
    }
}

fn is_meant(text: &str, step: Step, moment: Moment) -> bool {
    let moment = match moment {
        Moment::Before => "before",
        Moment::After => "after",
    };
    let mut words = text.split_whitespace();
    words.next() == Some(step.name()) && words.next() == Some(moment)
}

fn wanted(text: &str) -> Option<u64> {
    text.split_whitespace().nth(2)?.parse().ok()
}
