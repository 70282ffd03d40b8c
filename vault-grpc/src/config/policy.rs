//! `[policy]`: the files to begin with, and whoever signs what comes after them.

use serde::Deserialize;
use toml::Spanned;
use vault_core::Error;
use vault_core::audit::LogVerifier;
use vault_core::bundle::{Provers, Signers};

use super::prove::RawProve;
use super::read::{Reader, Text};
use super::{ConfigError, Environment, Policy};

/// How many signers it takes, unless the configuration says otherwise.
const QUORUM: usize = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    schema: Text,
    policies: Vec<Text>,
    registry: Text,
    #[serde(default)]
    signers: Vec<Text>,
    quorum: Option<Spanned<u64>>,
    proof: Option<Text>,
    provers: Option<Vec<Text>>,
    prove: Option<Spanned<RawProve>>,
}

impl Reader<'_> {
    pub(super) fn policy(&self, raw: &RawPolicy, environment: Environment) -> Result<Policy, ConfigError> {
        let (signers, quorum) = self.signers(raw, environment)?;
        let provers = self.provers(raw)?;
        let at = raw.signers.first().unwrap_or(&raw.schema).span().start;
        Ok(Policy {
            schema: self.file(&raw.schema, "policy.schema")?,
            policies: self.files(&raw.policies, "policy.policies")?,
            registry: self.file(&raw.registry, "policy.registry")?,
            signers,
            quorum,
            provers,
            prove: self.prove(raw.prove.as_ref(), raw.proof.as_ref())?,
            signers_place: self.place(at, "policy.signers"),
        })
    }

    fn signers(&self, raw: &RawPolicy, environment: Environment) -> Result<(Vec<LogVerifier>, usize), ConfigError> {
        let Some(first) = raw.signers.first() else {
            return match &raw.quorum {
                None => Ok((Vec::new(), 0)),
                Some(quorum) => {
                    Err(self.refuse(quorum.span().start, "policy.quorum", "must be absent without policy.signers"))
                }
            };
        };
        let mut keys = Vec::new();
        for text in &raw.signers {
            let key = LogVerifier::parse(text.get_ref()).map_err(|_| {
                let why = "must be verifier keys (name+hash+base64), as `vault-grpc policy key new` prints them";
                self.refuse(text.span().start, "policy.signers", why)
            })?;
            keys.push(key);
        }
        // On a developer's machine one person is all there are.
        let least = if environment == Environment::Dev { 1 } else { QUORUM };
        let (quorum, at) = match &raw.quorum {
            Some(quorum) => (usize::try_from(*quorum.get_ref()).unwrap_or(usize::MAX), quorum.span().start),
            None => (least, first.span().start),
        };
        if quorum < least {
            return Err(self.refuse(at, "policy.quorum", "must be at least 2 in production"));
        }
        match Signers::new(keys.clone(), quorum) {
            Ok(_) => Ok((keys, quorum)),
            Err(Error::Invalid { field, why }) if field == "signers" => {
                Err(self.refuse(first.span().start, "policy.signers", why))
            }
            Err(_) => {
                let why = "must be 1 to the number of policy.signers; unless it is named it is 2, in development 1";
                Err(self.refuse(at, "policy.quorum", why))
            }
        }
    }

    /// Whose proofs a bundle needs one of; none if it needs no proof.
    fn provers(&self, raw: &RawPolicy) -> Result<Vec<LogVerifier>, ConfigError> {
        let named = raw.provers.as_deref().unwrap_or_default();
        let required = match raw.proof.as_ref().map(|text| (text.get_ref().as_str(), text.span().start)) {
            None | Some(("off", _)) => None,
            Some(("required", at)) => Some(at),
            Some((_, at)) => return Err(self.refuse(at, "policy.proof", "must be \"off\" or \"required\"")),
        };
        let Some(at) = required else {
            return match named.first() {
                Some(prover) => {
                    let why = "must be absent unless policy.proof is \"required\"";
                    Err(self.refuse(prover.span().start, "policy.provers", why))
                }
                None => Ok(Vec::new()),
            };
        };
        // Files have no place for a record: only bundles bring one.
        if raw.signers.is_empty() {
            return Err(self.refuse(
                at,
                "policy.proof",
                "\"required\" needs policy.signers: only bundles bring a proof",
            ));
        }
        let Some(first) = named.first() else {
            if raw.prove.is_some() {
                return Ok(Vec::new());
            }
            return Err(self.refuse(at, "policy.proof", "\"required\" needs policy.provers, or policy.prove.solver"));
        };
        let mut keys = Vec::new();
        for text in named {
            let key = LogVerifier::parse(text.get_ref()).map_err(|_| {
                let why = "must be verifier keys (name+hash+base64), as `vault-grpc policy key new` prints them";
                self.refuse(text.span().start, "policy.provers", why)
            })?;
            keys.push(key);
        }
        match Provers::new(keys.clone()) {
            Ok(_) => Ok(keys),
            Err(Error::Invalid { why, .. }) => Err(self.refuse(first.span().start, "policy.provers", why)),
            Err(_) => Err(self.refuse(first.span().start, "policy.provers", "is not acceptable")),
        }
    }
}
