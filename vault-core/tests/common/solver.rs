//! The solver of the tests: the executable that `CVC5` names, or PyPI `cvc5` behind `policies/prover/cvc5_shim.py` in the
//! interpreter that `BLINDVAULT_PYTHON` names (or `python3`).

#![expect(clippy::print_stdout, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};

use vault_core::policy::prove::SolverCommand;

/// The solver, or `None` after saying that `test` is skipped.
pub(crate) fn solver(test: &str) -> Option<SolverCommand> {
    if let Some(program) = std::env::var_os("CVC5") {
        return Some(SolverCommand { program: program.into(), arguments: Vec::new() });
    }
    let python = std::env::var("BLINDVAULT_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import cvc5"]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/prover/cvc5_shim.py");
        return Some(SolverCommand { program: python.into(), arguments: vec![shim.into()] });
    }
    let reason = format!("CVC5, or {python} with the package `cvc5`, is needed");
    assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
    println!("SKIPPED {test}: {reason}");
    None
}
