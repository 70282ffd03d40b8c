//! What runs in the pipeline and what the image stands on is named by digest; linters that others wrote agree.

use std::fs;
use std::path::PathBuf;

use crate::run::{program, root};

const PIPELINE: &str = ".github/workflows/ci.yml";
const IMAGE: &str = "deploy/Dockerfile";

fn lines(file: &str) -> Vec<String> {
    fs::read_to_string(root().join(file)).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn actions_and_images_are_named_by_digest() {
    let is_commit = |text: &str| text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut actions = 0;
    for line in lines(PIPELINE) {
        let Some((_, action)) = line.split_once("uses: ") else { continue };
        let (_, version) = action.split_once('@').unwrap();
        let (commit, name) = version.split_once(" # v").unwrap();
        assert!(is_commit(commit) && !name.is_empty(), "{line}");
        actions += 1;
    }
    assert!(actions > 0, "the pipeline uses no action at all?");
    // The base comes from whoever builds; a default would be a tag that moves.
    let image = lines(IMAGE);
    let of = |word: &str| image.iter().filter(|line| line.starts_with(word)).cloned().collect::<Vec<_>>();
    assert_eq!((of("FROM "), of("ARG ")), (vec!["FROM ${BASE}".to_owned()], vec!["ARG BASE".to_owned()]));
    assert_eq!(of("USER "), ["USER 65532:65532"]);
}

#[test]
fn linters_take_the_image_and_the_pipeline() {
    let name = "linters_take_the_image_and_the_pipeline";
    let tools =
        std::env::var_os("BLINDVAULT_PYTHON").and_then(|python| Some(PathBuf::from(python).parent()?.to_owned()));
    let there = |tools: &PathBuf| ["hadolint", "zizmor"].iter().all(|tool| tools.join(tool).exists());
    let Some(tools) = tools.filter(there) else {
        let reason = "beside the interpreter of BLINDVAULT_PYTHON are no hadolint and zizmor";
        assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{name}: {reason}");
        crate::say::line(format_args!("SKIPPED {name}: {reason}"));
        return;
    };
    for (tool, args) in [("hadolint", vec![IMAGE]), ("zizmor", vec!["--offline", "--no-progress", PIPELINE])] {
        let done = program(tools.join(tool)).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success(), "{tool}: {said}");
    }
}
