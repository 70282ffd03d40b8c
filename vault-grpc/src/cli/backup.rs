//! `backup` and `restore`.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use vault_core::audit::SystemEvent;
use vault_core::backup::{self, Report, Source};
use vault_core::fs::{Fs, OsFs};
use vault_core::kms::Roots;
use vault_core::store::{Anchor, Store};
use vault_core::time::{Clock as _, SystemClock};
use vault_grpc::build::{self, StartError};
use vault_grpc::config::{Config, ConfigError, cannot_read};
use vault_grpc::telemetry::{Event, log};

use super::print;

/// Runs one command to its end; why it failed goes to the log lines.
fn run(what: &'static str, work: impl Future<Output = Result<(), StartError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(_) => Err(ConfigError::new("the operating system", "gave no threads").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(error)) => {
            log(&Event::Misconfigured(error));
            ExitCode::FAILURE
        }
        Err(StartError::Vault(error)) => {
            log(&Event::Failed { what, error });
            ExitCode::FAILURE
        }
    }
}

fn told(path: &Path, error: &io::Error) -> StartError {
    ConfigError::new(path.display().to_string(), cannot_read(error)).into()
}

pub(super) fn backup(config: &Path, out: &Path) -> ExitCode {
    run("write a backup", write(config, out))
}

async fn write(config: &Path, out: &Path) -> Result<(), StartError> {
    let config = Config::load(config)?;
    if out.exists() {
        return Err(ConfigError::new(out.display().to_string(), "exists already; a backup replaces nothing").into());
    }
    build::require_store(&config)?;
    let roots = build::roots(&config, build::Absent::Refused)?;
    let (audit, anchor) = build::audit(&config)?;
    let (config, store) = opened(config, &roots, anchor).await?;
    let mut aside = out.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    // What an earlier attempt left is no backup.
    if aside.exists() {
        OsFs.remove(&aside).map_err(|error| told(&aside, &error))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside);
    let mut file = BufWriter::new(file.map_err(|error| told(&aside, &error))?);
    let report = backup::write(&*store, &roots, &config.instance, SystemClock.now(), &mut file).await?;
    let finished = file.flush().and_then(|()| file.get_ref().sync_all());
    finished.map_err(|error| told(&aside, &error))?;
    audit.system(SystemEvent::Backup { rows: report.rows() }).await?;
    OsFs.rename(&aside, out).map_err(|error| told(out, &error))?;
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OsFs.sync_dir(dir).map_err(|error| told(dir, &error))?;
    audit.close()?;
    print::line(format_args!("wrote {}", out.display()));
    tell(&report);
    Ok(())
}

/// Opens the store, which may have to wait for a database.
async fn opened(
    config: Config,
    roots: &Arc<Roots>,
    anchor: Option<Anchor>,
) -> Result<(Config, Arc<dyn Store>), StartError> {
    let roots = Arc::clone(roots);
    let opening = tokio::task::spawn_blocking(move || {
        let store = build::store(&config, &roots, anchor)?;
        Ok((config, store))
    });
    opening.await.map_err(|_| ConfigError::new("the store", "opening it panicked"))?
}

fn tell(report: &Report) {
    print::line(format_args!("instance {}, begun {} ms after 1970", report.instance, report.created.0));
    for (table, rows) in &report.tables {
        print::line(format_args!("  {table:<12} {rows:>10} rows"));
    }
}

fn open(path: &Path) -> Result<BufReader<File>, StartError> {
    File::open(path).map(BufReader::new).map_err(|error| told(path, &error))
}

pub(super) fn restore(config: &Path, from: &Path, newer: &[PathBuf], check: bool) -> ExitCode {
    run("restore a backup", put_back(config, from, newer, check))
}

async fn put_back(config: &Path, from: &Path, newer: &[PathBuf], check: bool) -> Result<(), StartError> {
    let config = Config::load(config)?;
    let roots = build::roots(&config, build::Absent::Refused)?;
    let report = backup::verify(&mut open(from)?, &roots, &config.instance).await?;
    for path in newer {
        backup::verify(&mut open(path)?, &roots, &config.instance).await?;
    }
    if check {
        print::line(format_args!("whole: {}", from.display()));
        tell(&report);
        return Ok(());
    }
    let mut from = open(from)?;
    let mut files = newer.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut newer: Vec<&mut dyn Source> = files.iter_mut().map(|file| file as &mut dyn Source).collect();
    // Durable before the first row: who looks at the log learns of a restore that was interrupted as well.
    let (audit, anchor) = build::audit(&config)?;
    audit.system(SystemEvent::Restoring { created: report.created.0, rows: report.rows() }).await?;
    let (config, store) = opened(config, &roots, anchor).await?;
    let restored = backup::restore(&mut from, &mut newer, &*store, &roots, &config.instance).await;
    audit.close()?;
    let restored = restored?;
    let (written, tombstones) = (restored.written, restored.tombstones);
    print::line(format_args!("restored: {written} rows written, {tombstones} tombstones of later backups in place"));
    tell(&restored.backup);
    Ok(())
}
