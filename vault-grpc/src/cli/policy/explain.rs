//! `policy explain`.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use vault_core::policy::Authorizer;
use vault_core::policy::rehearse::{Evaluated, Outcome, ask, evaluate};
use vault_grpc::config::ConfigError;

use super::test::Bed;
use super::{failed, json, print, wrong_usage};

pub(super) fn explain(file: &Path, name: &str, as_json: bool) -> ExitCode {
    let bed = match Bed::read(file) {
        Ok(bed) => bed,
        Err(error) => return wrong_usage(error),
    };
    let Some(scene) = bed.scenes.scenes.iter().find(|scene| scene.name == name) else {
        return wrong_usage(ConfigError::new("--name", "no request of the file has this name"));
    };
    let explained = bed.load().and_then(|(set, registry)| {
        let evaluated = evaluate(&set, &registry, scene)?;
        Ok((ask(&Authorizer::new(set, registry), scene)?, evaluated))
    });
    let (outcome, evaluated) = match explained {
        Ok(explained) => explained,
        Err(error) => return failed("explain a decision", error),
    };
    if as_json {
        json(&json!({ "name": scene.name, "outcome": outcome, "policies": evaluated }));
    } else {
        say(&outcome, &evaluated);
    }
    ExitCode::SUCCESS
}

fn say(outcome: &Outcome, evaluated: &[Evaluated]) {
    print::line(outcome);
    match outcome.check {
        Some("policy") | None => print::line("no guard in front of the policies refuses"),
        Some(check) => print::line(format_args!("the guard {check} refuses, whatever the policies say:")),
    }
    for Evaluated { policy, effect, says } in evaluated {
        print::line(format_args!("  {:<6} {policy}: {says}", effect.unwrap_or("-")));
    }
}
