//! The SMT solver: a child process that reads SMT-LIB on its standard input, held to limits of memory and time.
//!
//! Everything here blocks, so a proof needs no runtime. The solver gets no environment but a search path and a locale,
//! is in a process group of its own, and the whole group is killed when [`Solver`] is dropped. If this process is killed
//! instead, the solver reads the end of its input and ends by itself, at the latest when its own limit for a query is over.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use cedar_policy_symcc::solver::{self as smt, Decision, DecisionWithModel, SolverError};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};

/// Longest line of an answer and longest model, in bytes: far beyond what a schema needs, and a bound for a solver that
/// has gone wrong.
const MAX_LINE: u64 = 1024 * 1024;
const MAX_MODEL: usize = 8 * 1024 * 1024;
/// How long the solver may be late behind the limit that it was given for a query.
const GRACE: Duration = Duration::from_secs(2);
/// How long it may take to start: a Python interpreter and a library of 30 MB, on a busy machine.
const START: Duration = Duration::from_secs(30);

/// How to start a solver. It gets cvc5's options as further arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverCommand {
    /// The program: cvc5, or an interpreter.
    pub program: PathBuf,
    /// Arguments before cvc5's options, for example the path of `policies/prover/cvc5_shim.py`.
    pub arguments: Vec<OsString>,
}

/// What a proof may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The address space of the solver, in bytes.
    pub memory: u64,
    /// The time for one query.
    pub query: Duration,
    /// The time for all queries together.
    pub total: Duration,
}

impl Default for Limits {
    /// 512 MiB, 10 seconds a query, 2 minutes.
    fn default() -> Self {
        Self { memory: 512 * 1024 * 1024, query: Duration::from_secs(10), total: Duration::from_secs(120) }
    }
}

/// Why there is no solver, or no answer from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub(super) &'static str);

const MISSING: Fault = Fault("the solver cannot be started: is it installed, and does --solver or CVC5 name it?");
const UNLIMITED: Fault = Fault("the limits of the solver's memory could not be set");
const ENDED: Fault = Fault("the solver ended before it answered");
const LATE: Fault = Fault("the solver did not answer in time");
const SPENT: Fault = Fault("the time for the whole proof is over");
const GARBLED: Fault = Fault("the solver answered what is no answer");

impl From<Fault> for SolverError {
    fn from(fault: Fault) -> Self {
        Self::Solver(fault.0.to_owned())
    }
}

/// A running solver. After a fault it is dead, and every further query has the same fault.
pub(super) struct Solver {
    child: Child,
    input: SyncSender<Vec<u8>>,
    lines: Receiver<String>,
    /// The query as it is being written.
    script: Vec<u8>,
    limits: Limits,
    end: Instant,
    fault: Option<Fault>,
    /// Name and version, as the solver says them.
    version: String,
}

impl Solver {
    /// Starts it and asks for its version.
    pub(super) fn start(command: &SolverCommand, limits: Limits) -> Result<Self, Fault> {
        let mut start = Command::new(&command.program);
        start.args(&command.arguments).arg("--lang=smt2").arg(format!("--tlimit-per={}", limits.query.as_millis()));
        start.env_clear().env("LC_ALL", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(path) = std::env::var_os("PATH") {
            start.env("PATH", path);
        }
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = start.spawn().map_err(|_| MISSING)?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (input, scripts) = sync_channel::<Vec<u8>>(1);
        let (found, lines) = sync_channel::<String>(16);
        // Dropping it from here on kills the child.
        let mut solver = Self {
            child,
            input,
            lines,
            script: Vec::new(),
            limits,
            end: Instant::now() + limits.total,
            fault: None,
            version: String::new(),
        };
        solver.limit()?;
        let (Some(mut to), Some(from)) = (to, from) else { return Err(MISSING) };
        // A thread for each pipe, so that neither a solver that does not read nor one that does not answer can hold the
        // proof up beyond its limits. They end with their pipes.
        let writer =
            move || while scripts.recv().is_ok_and(|script| to.write_all(&script).and_then(|()| to.flush()).is_ok()) {};
        let reader = move || {
            let mut from = BufReader::new(from);
            loop {
                let mut line = Vec::new();
                let read = from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
                let whole = read.is_ok() && line.pop() == Some(b'\n');
                let Some(line) = whole.then_some(line).and_then(|line| String::from_utf8(line).ok()) else { return };
                if found.send(line).is_err() {
                    return;
                }
            }
        };
        let spawn = std::thread::Builder::new;
        spawn().name("solver input".into()).spawn(writer).map_err(|_| MISSING)?;
        spawn().name("solver output".into()).spawn(reader).map_err(|_| MISSING)?;
        solver.script.extend_from_slice(b"(get-info :version)\n");
        let deadline = Instant::now() + START.min(limits.total);
        solver.send(deadline)?;
        let said = solver.line(deadline)?;
        let version = said.trim().strip_prefix("(:version \"").and_then(|rest| rest.strip_suffix("\")"));
        let is_plain = |v: &&str| v.len() <= 64 && v.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+_".contains(&b));
        let version = version.filter(is_plain).ok_or(GARBLED)?;
        solver.version = format!("cvc5 {version}");
        solver.end = Instant::now() + limits.total;
        Ok(solver)
    }

    /// For example `cvc5 1.3.1`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Why it no longer answers.
    pub(super) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Ends it if the time for the whole proof is over: the proof itself takes time between its queries, too.
    pub(super) fn end_in_time(&mut self) {
        if self.fault.is_none() && Instant::now() >= self.end {
            let _: Result<(), Fault> = self.fail(SPENT);
        }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn limit(&self) -> Result<(), Fault> {
        let bound = |most| Rlimit { current: Some(most), maximum: Some(most) };
        let pid = Some(self.pid().ok_or(UNLIMITED)?);
        prlimit(pid, Resource::As, bound(self.limits.memory)).map_err(|_| UNLIMITED)?;
        prlimit(pid, Resource::Core, bound(0)).map_err(|_| UNLIMITED)?;
        prlimit(pid, Resource::Fsize, bound(0)).map_err(|_| UNLIMITED)?;
        Ok(())
    }

    fn send(&mut self, deadline: Instant) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if Instant::now() >= self.end {
            return self.fail(SPENT);
        }
        let mut script = std::mem::take(&mut self.script);
        // The channel has no send with a deadline; it is full only while the solver reads nothing.
        loop {
            match self.input.try_send(script) {
                Ok(()) => return Ok(()),
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return self.fail(ENDED),
                Err(std::sync::mpsc::TrySendError::Full(back)) if Instant::now() < deadline => script = back,
                Err(std::sync::mpsc::TrySendError::Full(_)) => return self.fail(LATE),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Fault> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => self.fail(LATE),
            Err(RecvTimeoutError::Disconnected) => self.fail(ENDED),
        }
    }

    fn fail<T>(&mut self, fault: Fault) -> Result<T, Fault> {
        self.fault = Some(fault);
        self.kill();
        Err(fault)
    }

    fn kill(&mut self) {
        // The group outlives its leader, who may have been a wrapper; without a child there is none left to kill.
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn deadline(&self) -> Instant {
        (Instant::now() + self.limits.query + GRACE).min(self.end + GRACE)
    }

    fn decide(&mut self) -> Result<Decision, Fault> {
        self.script.extend_from_slice(b"(check-sat)\n");
        let deadline = self.deadline();
        self.send(deadline)?;
        match self.line(deadline)?.trim() {
            "sat" => Ok(Decision::Sat),
            "unsat" => Ok(Decision::Unsat),
            "unknown" => Ok(Decision::Unknown),
            _ => self.fail(GARBLED),
        }
    }

    fn model(&mut self) -> Result<String, Fault> {
        self.script.extend_from_slice(b"(get-model)\n");
        let deadline = self.deadline();
        self.send(deadline)?;
        let mut model = self.line(deadline)?;
        if model.trim() != "(" {
            return self.fail(GARBLED);
        }
        model.push('\n');
        loop {
            let line = self.line(deadline)?;
            model.push_str(&line);
            model.push('\n');
            if line.trim() == ")" {
                return Ok(model);
            }
            if model.len() > MAX_MODEL {
                return self.fail(GARBLED);
            }
        }
    }
}

impl Drop for Solver {
    fn drop(&mut self) {
        if self.fault.is_none() {
            self.kill();
        }
    }
}

// None of these ever waits for a runtime: they block, or write to memory.
impl smt::Solver for Solver {
    fn smtlib_input(&mut self) -> &mut (dyn tokio::io::AsyncWrite + Unpin + Send) {
        &mut self.script
    }

    async fn enable_models(&mut self) -> Result<(), SolverError> {
        self.script.extend_from_slice(b"(set-option :produce-models true)\n");
        Ok(())
    }

    async fn check_sat(&mut self) -> Result<Decision, SolverError> {
        Ok(self.decide()?)
    }

    async fn check_sat_with_model(&mut self) -> Result<DecisionWithModel, SolverError> {
        Ok(match self.decide()? {
            Decision::Sat => DecisionWithModel::Sat { model: self.model()? },
            Decision::Unsat => DecisionWithModel::Unsat,
            Decision::Unknown => DecisionWithModel::Unknown,
        })
    }
}
