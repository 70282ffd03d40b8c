//! `[policy.prove]`: the solver with which this gateway proves policy bundles by itself.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::read::{Reader, Text};
use super::{ConfigError, Prove};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProve {
    solver: Text,
    #[serde(default)]
    arguments: Vec<Text>,
    timeout_ms: Option<Spanned<u64>>,
    memory_mib: Option<Spanned<u64>>,
}

impl Reader<'_> {
    pub(super) fn prove(
        &self,
        raw: Option<&Spanned<RawProve>>,
        proof: Option<&Text>,
    ) -> Result<Option<Prove>, ConfigError> {
        let Some(raw) = raw else { return Ok(None) };
        let at = raw.span().start;
        let raw = raw.get_ref();
        if !cfg!(feature = "prove") {
            let why = "this build proves nothing (feature `prove`): name policy.provers, and bring records";
            return Err(self.refuse(raw.solver.span().start, "policy.prove.solver", why));
        }
        if proof.is_none_or(|proof| proof.get_ref() != "required") {
            return Err(self.refuse(at, "policy.prove", "must be absent unless policy.proof is \"required\""));
        }
        for argument in &raw.arguments {
            if argument.get_ref().contains('\0') {
                return Err(self.refuse(argument.span().start, "policy.prove.arguments", "must be text without NUL"));
            }
        }
        let timeout = self.within(&raw.timeout_ms, "policy.prove.timeout_ms", 20_000, 1000, 600_000)?;
        Ok(Some(Prove {
            solver: self.file(&raw.solver, "policy.prove.solver")?,
            arguments: raw.arguments.iter().map(|argument| argument.get_ref().clone()).collect(),
            timeout: Duration::from_millis(timeout),
            memory_mib: self.within(&raw.memory_mib, "policy.prove.memory_mib", 512, 64, 65_536)?,
        }))
    }
}
