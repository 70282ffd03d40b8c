//! Secrets that somebody left in the tree: `detect-secrets` over every file that git knows, by the forms that keys and
//! tokens have. Its guesses by entropy are off: digests and vectors are all entropy.

use std::path::Path;

use crate::prerequisites;
use crate::run::program;
use crate::say;

/// Tokens that look like tokens because they are to be read as such; the keys that signed them are gone.
const TEST_TOKENS: &str = "^fuzz/corpus/end_user_token/";

/// Whether there are none.
pub(crate) fn scan() -> bool {
    let python = match prerequisites::python() {
        Ok(python) => python,
        Err(reason) => {
            say::line(format_args!("FAILED: {reason}"));
            return false;
        }
    };
    let listed = match program("git").args(["ls-files", "-z"]).output() {
        Ok(done) if done.status.success() => String::from_utf8_lossy(&done.stdout).into_owned(),
        _ => {
            say::line("FAILED: git does not list the files");
            return false;
        }
    };
    let files: Vec<&str> = listed.split_terminator('\0').collect();
    say::line(format_args!("detect-secrets over {} files", files.len()));
    // In parts that a command line can hold; quietly, since the list is long.
    files.chunks(500).all(|part| are_clean(&python, part))
}

/// Whether no file of these has a secret in it, as far as forms tell; says which has.
fn are_clean(python: &Path, files: &[&str]) -> bool {
    let mut hook = program(python.with_file_name("detect-secrets-hook"));
    for plugin in ["Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector"] {
        hook.args(["--disable-plugin", plugin]);
    }
    match hook.args(["--no-verify", "--exclude-files", TEST_TOKENS]).args(files).status() {
        Ok(status) => status.success(),
        Err(error) => {
            say::line(format_args!("FAILED: detect-secrets-hook: {error}"));
            false
        }
    }
}

#[cfg(test)]
mod tests {

    use std::fs;

    use super::*;

    #[test]
    fn a_key_that_was_left_is_found() {
        let name = "a_key_that_was_left_is_found";
        let python = std::env::var_os("BLINDVAULT_PYTHON").map(std::path::PathBuf::from);
        let Some(python) = python.filter(|python| python.with_file_name("detect-secrets-hook").exists()) else {
            let reason = "beside the interpreter of BLINDVAULT_PYTHON is no detect-secrets";
            assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{name}: {reason}");
            crate::say::line(format_args!("SKIPPED {name}: {reason}"));
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        let clean = |text: &str| {
            fs::write(&file, text).unwrap();
            are_clean(&python, &[file.to_str().unwrap()])
        };
        assert!(clean("the key is where it belongs\n"));
        // Put together here: this file is scanned as well.
        assert!(!clean(&["-----BEGIN EC PRIVATE", " KEY-----\nMHcCAQEE\n"].concat()));
        assert!(!clean(&["id = AKIA", "2E0A8F3B244C9986\n"].concat()));
    }
}
