//! `policy verify-proof`.

use std::path::Path;
use std::process::ExitCode;

use vault_core::proof::ProofText;

use super::super::commands::verifier_of;
use super::files::{Files, read};
use super::{failed, print, wrong_usage};

pub(super) fn verify(files: &Files, proof: &Path, key: &str) -> ExitCode {
    let (texts, note) = match files.read().and_then(|texts| Ok((texts, read(proof)?))) {
        Ok(read) => read,
        Err(error) => return wrong_usage(error),
    };
    let verified = verifier_of(key).and_then(|prover| {
        let record =
            ProofText::verify(&note.text, std::slice::from_ref(&prover), texts.schema.source(), &texts.policies())?;
        Ok((record, prover))
    });
    match verified {
        Ok((record, prover)) => {
            print::line(record.text().trim_end());
            print::line(format_args!("in order: proven by {}", prover.origin()));
            ExitCode::SUCCESS
        }
        Err(error) => failed("verify the policy proof", error),
    }
}
