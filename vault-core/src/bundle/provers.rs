//! Whose proofs a vault believes.

use super::{Bundle, ProofCheck};
use crate::audit::LogVerifier;
use crate::error::Error;
use crate::policy::Source;
use crate::proof::ProofText;

/// Most provers of an installation.
pub const MAX_PROVERS: usize = 16;

/// The keys of the provers: a bundle needs a proof record that one of them has signed.
#[derive(Debug, Clone)]
pub struct Provers(Vec<LogVerifier>);

impl Provers {
    /// These keys.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `provers`: none, more than [`MAX_PROVERS`], or a key twice.
    pub fn new(keys: Vec<LogVerifier>) -> Result<Self, Error> {
        if keys.is_empty() || keys.len() > MAX_PROVERS {
            return Err(Error::invalid("provers", "must be 1 to 16 keys"));
        }
        let twice = |(at, key): (usize, &LogVerifier)| keys.iter().take(at).any(|other| other.is_same_key(key));
        if keys.iter().enumerate().any(twice) {
            return Err(Error::invalid("provers", "names a key twice"));
        }
        Ok(Self(keys))
    }
}

impl ProofCheck for Provers {
    fn check(&self, bundle: &Bundle, record: Option<&str>) -> Result<(), Error> {
        let Some(record) = record else { return Err(Error::invalid("proof", "is missing, and must be there")) };
        let schema = Source { name: "schema", text: &bundle.schema };
        let policies: Vec<_> =
            bundle.policies.iter().map(|file| Source { name: &file.name, text: &file.text }).collect();
        match ProofText::verify(record, &self.0, schema, &policies) {
            Ok(_) => Ok(()),
            Err(Error::FailedPrecondition(why)) => Err(Error::invalid("proof", why)),
            Err(_) => Err(Error::invalid("proof", "is not a proof record")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::LogSigner;
    use crate::bundle::PolicyFile;
    use crate::fs::OsFs;
    use crate::policy::{BASELINE_POLICIES, BASELINE_SCHEMA, properties};
    use crate::proof::{PROVER, digest_of_guards, digest_of_policies, digest_of_schema};
    use crate::time::Timestamp;

    #[test]
    fn a_bundle_needs_a_record_about_itself() {
        let dir = tempfile::tempdir().unwrap();
        let signer = LogSigner::create(&OsFs, &dir.path().join("key"), "prover/ci").unwrap();
        let provers = Provers::new(vec![signer.verifier().clone()]).unwrap();
        let mut bundle = Bundle {
            instance: "vault-1".to_owned(),
            version: 1,
            previous: None,
            created: Timestamp(0),
            not_before: Timestamp(0),
            comment: "first".to_owned(),
            schema: BASELINE_SCHEMA.text.to_owned(),
            policies: vec![PolicyFile { name: "base.cedar".to_owned(), text: BASELINE_POLICIES.text.to_owned() }],
            registry: String::new(),
        };
        let record = ProofText {
            policies: digest_of_policies(&[BASELINE_POLICIES]),
            schema: digest_of_schema(BASELINE_SCHEMA),
            guards: digest_of_guards(),
            prover: PROVER.to_owned(),
            solver: "cvc5 1.3.1".to_owned(),
            environments: 78,
            never: 40,
            properties: properties().into_iter().map(|id| (id, 1)).collect(),
            time: "2026-11-24T12:00:00.000Z".to_owned(),
        };
        let note = signer.note(&record.text()).unwrap();
        assert!(provers.check(&bundle, Some(&note)).is_ok());
        let refused = |bundle: &Bundle, record: Option<&str>| match provers.check(bundle, record) {
            Err(Error::Invalid { field, why }) if field == "proof" => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(&bundle, None).contains("missing"));
        assert!(refused(&bundle, Some("")).contains("signed"));
        bundle.policies[0].text.push(' ');
        assert!(refused(&bundle, Some(&note)).contains("other policies"));
        assert!(Provers::new(Vec::new()).is_err());
        assert!(Provers::new(vec![signer.verifier().clone(), signer.verifier().clone()]).is_err());
    }
}
