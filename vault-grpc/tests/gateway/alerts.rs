//! The alerting rules: they parse, fire when they should and not otherwise, and ask for metrics that there are.

#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::metrics::{metrics, start};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(deploy().join(name)).unwrap()
}

/// What stands behind `key` in the lines that have it.
fn values(text: &str, key: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix(key)).map(|rest| rest.trim().to_owned()).collect()
}

#[test]
fn promtool_takes_the_rules_and_every_case_holds() {
    let name = "promtool_takes_the_rules_and_every_case_holds";
    let promtool = |args: &[&str]| Command::new("promtool").current_dir(deploy()).args(args).output();
    if promtool(&["--version"]).is_err() {
        let reason = "promtool is not installed";
        assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{name}: {reason}");
        println!("SKIPPED {name}: {reason}");
        return;
    }
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let done = promtool(&args).unwrap();
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        assert!(done.status.success() && said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn every_rule_has_a_case_in_which_it_fires() {
    let rules = values(&text("alerts.yml"), "- alert:");
    let cases = text("alerts.test.yml");
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        let fires = cases
            .split("- eval_time:")
            .any(|case| values(case, "alertname:").contains(&rule) && case.contains("exp_labels:"));
        assert!(fires, "no case in which {rule} fires");
    }
}

#[tokio::test]
async fn rules_ask_for_metrics_that_the_gateway_tells() {
    let fixture = start().await;
    let told = metrics(&fixture).await;
    fixture.gateway.shutdown().await.unwrap();
    let kinds = values(&told, "# TYPE");
    let mut names = BTreeSet::new();
    for kind in &kinds {
        let (name, kind) = kind.split_once(' ').unwrap();
        names.insert(name.to_owned());
        if kind == "histogram" {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    // Of the expressions only: summaries are for people.
    let rules = text("alerts.yml");
    let expressions: String = rules.lines().filter(|line| !line.contains("alert:")).collect::<Vec<_>>().join("\n");
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let asked: BTreeSet<&str> = expressions.split(word).filter(|word| word.starts_with("blindvault_")).collect();
    assert!(asked.len() > 5, "{asked:?}");
    for name in asked {
        assert!(names.contains(name), "no metric {name}");
    }
}
