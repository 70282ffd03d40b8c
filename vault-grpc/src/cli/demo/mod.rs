//! `demo`: the main job on embedded defaults. Real certificates, a real gateway on loopback, real clients over mutual
//! TLS; each step says what was tried, what came of it, and whether that is what must be.

mod data;
mod report;
mod scene;
mod scorecard;
mod steps;
mod tamper;

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use vault_grpc::telemetry;

use super::print;
use report::Report;
use scene::Scene;

/// Anything that keeps a step from being tried at all.
type Failed = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn demo(json: bool, keep: bool, dir: Option<PathBuf>) -> ExitCode {
    telemetry::set_quiet(true);
    let runtime = match runtime::Builder::new_multi_thread().enable_all().thread_name("vault").build() {
        Ok(runtime) => runtime,
        Err(_) => {
            print::line("the operating system gave no threads");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::new(json);
    match runtime.block_on(run(&mut report, keep, dir)) {
        Ok(()) => {}
        Err(error) => report.broken(&error.to_string()),
    }
    report.finish()
}

async fn run(report: &mut Report, keep: bool, dir: Option<PathBuf>) -> Result<(), Failed> {
    // Before anything that must be cleaned up, so that an interrupt ends the demo in order.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let scene = report.time(async { Scene::set(dir).await }).await?;
    report.step("two certificate authorities, keys, policies, configuration; gateway started", true, scene.summary());
    steps::all(&scene, report).await?;
    scorecard::step(&scene, report).await?;
    tamper::log(&scene, report).await?;
    if keep {
        report.finish_table();
        for line in scene.commands()? {
            print::line(line);
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    scene.strike().await
}
