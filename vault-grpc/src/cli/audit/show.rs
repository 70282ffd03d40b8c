//! `audit tail` and `audit export`: entries, one a line.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use vault_core::Error;
use vault_core::audit::{Entry, EntryReader, published_checkpoint};
use vault_core::error::Dependency;
use vault_core::fs::OsFs;
use vault_grpc::sinks::fields;

use super::{Format, log_of};

/// How often a log that is followed is looked at.
const AGAIN: Duration = Duration::from_millis(200);
/// Most lines of a tail.
const MAX_LINES: usize = 100_000;

type Line = Box<dyn Fn(&Entry, &[u8; 32]) -> String>;

pub(super) fn tail(dir: &Path, key: &str, lines: usize, follow: bool) -> Result<bool, Error> {
    let verifier = log_of(dir, key)?;
    let lines = lines.min(MAX_LINES);
    // Not all of a log of many segments is read for its end.
    let size = published_checkpoint(&OsFs, dir, &verifier)?.map_or(0, |(head, _)| head.size);
    let mut reader = EntryReader::open_from(&OsFs, dir, &verifier, size.saturating_sub(lines as u64))?;
    let mut last = VecDeque::new();
    let mut keep = |entry, hash| {
        last.push_back((entry, hash));
        if last.len() > lines {
            last.pop_front();
        }
        Ok(())
    };
    while reader.group(&mut keep)? {}
    let mut out = Out::new(Box::new(|entry, _| human(entry)));
    for (entry, hash) in &last {
        out.write(entry, hash)?;
    }
    out.rest(&mut reader, 0, follow)
}

pub(super) fn export(dir: &Path, key: &str, format: Format, from: u64, follow: bool) -> Result<bool, Error> {
    let verifier = log_of(dir, key)?;
    let mut reader = EntryReader::open_from(&OsFs, dir, &verifier, from)?;
    let origin = verifier.origin().to_owned();
    let line = move |entry: &Entry, hash: &[u8; 32]| {
        let value = match format {
            Format::Ocsf => fields::ocsf(&origin, entry, hash),
            Format::Ecs => fields::ecs(&origin, entry, hash),
        };
        value.to_string()
    };
    Out::new(Box::new(line)).rest(&mut reader, from, follow)
}

struct Out {
    out: BufWriter<io::Stdout>,
    line: Line,
}

impl Out {
    fn new(line: Line) -> Self {
        Self { out: BufWriter::new(io::stdout()), line }
    }

    fn write(&mut self, entry: &Entry, hash: &[u8; 32]) -> Result<(), Error> {
        writeln!(self.out, "{}", (self.line)(entry, hash)).map_err(unwritable)
    }

    /// Everything from an index on; and, if it is followed, until the process is ended or its output is closed.
    fn rest(mut self, reader: &mut EntryReader, from: u64, follow: bool) -> Result<bool, Error> {
        loop {
            while reader
                .group(&mut |entry, hash| if entry.index < from { Ok(()) } else { self.write(&entry, &hash) })?
            {
            }
            self.out.flush().map_err(unwritable)?;
            if !follow {
                return Ok(true);
            }
            sleep(AGAIN);
        }
    }
}

fn unwritable(_: io::Error) -> Error {
    Error::unavailable(Dependency::Audit, "the output was closed")
}

/// A line for people: time, index, tenant, what, who.
fn human(entry: &Entry) -> String {
    let facts = fields::facts(entry);
    let text = |name: &str| facts.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let tenant = entry.link.as_ref().map_or("-", |link| link.tenant.as_str());
    let number = |name: &str| facts.get(name).and_then(Value::as_u64);
    let mut line = format!(
        "{} {:>8} {:<8} {tenant} {} {}",
        fields::rfc3339(entry.time.0),
        entry.index,
        text("kind"),
        text("action"),
        text("principal")
    );
    for name in ["dataset", "purpose", "check", "reason", "status", "detail"] {
        if let Some(value) = facts.get(name).and_then(Value::as_str).filter(|value| !value.is_empty()) {
            line.push_str(&format!(" {name}={value:?}"));
        }
    }
    for name in ["intent", "first", "second"] {
        if let Some(value) = number(name) {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line
}
