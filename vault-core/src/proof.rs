//! The record of a proof about a policy set: what a prover signs elsewhere, and a gateway without a solver accepts.
//!
//! `docs/policy.md` says how one is made. One text stands for each record: [`ProofText::parse`] reads only what
//! [`ProofText::text`] writes. All but its last line follows from what was proved, so whoever has the same files, prover
//! and solver makes the same text again.

use std::fmt::Write as _;

use ring::digest::{Context, SHA256};

use crate::audit::LogVerifier;
use crate::error::Error;
use crate::policy::{GUARDS, Source, properties};

const TITLE: &str = "blindvault policy proof v1";
/// What made the proof, as records name it: the versions that decide what a proof means.
pub const PROVER: &str = concat!("blindvault ", env!("CARGO_PKG_VERSION"), " cedar-policy-symcc 0.8");

/// What a proof record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofText {
    /// [`digest_of_policies`] of the set that was proved.
    pub policies: String,
    /// [`digest_of_schema`] of the schema that it was proved with, before it was widened.
    pub schema: String,
    /// [`digest_of_guards`] of the prover's version.
    pub guards: String,
    /// [`PROVER`] of the prover.
    pub prover: String,
    /// The solver's name and version.
    pub solver: String,
    /// How many kinds of requests there were.
    pub environments: usize,
    /// Of how many of them the set allows none.
    pub never: usize,
    /// Each property that was proved, and for how many kinds of requests.
    pub properties: Vec<(String, usize)>,
    /// When, as RFC 3339 says it.
    pub time: String,
}

impl ProofText {
    /// What a report says, if all of it is proven.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] if something is not.
    #[cfg(feature = "prove")]
    pub fn of(
        report: &crate::policy::prove::Report,
        schema: Source<'_>,
        policies: &[Source<'_>],
        at: crate::time::Timestamp,
    ) -> Result<Self, Error> {
        if !report.is_proven() {
            return Err(Error::FailedPrecondition("the policy set is not proven; see the report"));
        }
        Ok(Self {
            policies: digest_of_policies(policies),
            schema: digest_of_schema(schema),
            guards: digest_of_guards(),
            prover: PROVER.to_owned(),
            solver: report.solver.clone(),
            environments: report.environments.len(),
            never: report.never.len(),
            properties: report.properties.iter().map(|p| (p.id.clone(), p.proven)).collect(),
            time: crate::policy::rfc3339(at).unwrap_or_else(|| "never".to_owned()),
        })
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { policies, schema, guards, prover, solver, environments, never, properties, time } = self;
        let mut text = format!(
            "{TITLE}\npolicies sha256:{policies}\nschema sha256:{schema}\nguards sha256:{guards}\nprover {prover}\n\
             solver {solver}\nkinds of requests {environments}, of them nothing allowed {never}\n"
        );
        for (id, kinds) in properties {
            // Writing to a string does not fail.
            let _ = writeln!(text, "proven {id} for {kinds}");
        }
        let _ = writeln!(text, "time {time}");
        text
    }

    /// Reads a record's text.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for anything but what [`Self::text`] writes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let found = read(text).ok_or(Error::corrupt("policy proof", "not the text of a proof record"))?;
        // Whatever the reader let pass in spaces and zeros: only one text says it.
        if found.text() == text { Ok(found) } else { Err(Error::corrupt("policy proof", "not as a prover writes it")) }
    }

    /// Checks that a record, signed by one of the provers, proves exactly this schema and these policies against the
    /// guards of this version: what a gateway asks before it activates a set. Digests are computed anew, from the texts
    /// that are to be activated.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for its form; [`Error::FailedPrecondition`] naming what does not fit: nobody who is trusted
    /// signed it, or it is about other policies, another schema, other guards or not all properties.
    pub fn verify(
        note: &str,
        provers: &[LogVerifier],
        schema: Source<'_>,
        policies: &[Source<'_>],
    ) -> Result<Self, Error> {
        let refuse = |why| Err(Error::FailedPrecondition(why));
        let Some(text) = provers.iter().find_map(|prover| prover.note(note).ok()) else {
            return refuse("no configured prover has signed the policy proof");
        };
        let record = Self::parse(text)?;
        record.is_about(schema, policies)?;
        Ok(record)
    }

    /// Checks that a record proves exactly this schema and these policies against the guards of this version. Whether it
    /// is to be believed is another question, which [`Self::verify`] asks.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] naming what does not fit.
    pub fn is_about(&self, schema: Source<'_>, policies: &[Source<'_>]) -> Result<(), Error> {
        let refuse = |why| Err(Error::FailedPrecondition(why));
        if self.guards != digest_of_guards() {
            return refuse("the policy proof was made against other guards than this version's");
        }
        if self.schema != digest_of_schema(schema) {
            return refuse("the policy proof is about another schema");
        }
        if self.policies != digest_of_policies(policies) {
            return refuse("the policy proof is about other policies");
        }
        let proven = self.properties.iter().filter(|(_, kinds)| *kinds > 0).map(|(id, _)| id);
        if !proven.eq(properties().iter()) {
            return refuse("the policy proof does not show every property");
        }
        Ok(())
    }
}

fn read(text: &str) -> Option<ProofText> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != TITLE {
        return None;
    }
    let mut value = |key: &str| lines.next()?.strip_prefix(key).map(str::to_owned);
    let digest = |value: String| {
        let is_digest = value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_digest.then_some(value)
    };
    let policies = digest(value("policies sha256:")?)?;
    let schema = digest(value("schema sha256:")?)?;
    let guards = digest(value("guards sha256:")?)?;
    let (prover, solver) = (value("prover ")?, value("solver ")?);
    let kinds = value("kinds of requests ")?;
    let (environments, never) = kinds.split_once(", of them nothing allowed ")?;
    let mut properties = Vec::new();
    let time = loop {
        let line = lines.next()?;
        if let Some(time) = line.strip_prefix("time ") {
            break time.to_owned();
        }
        let (id, kinds) = line.strip_prefix("proven ")?.split_once(" for ")?;
        properties.push((id.to_owned(), kinds.parse().ok()?));
    };
    let (environments, never) = (environments.parse().ok()?, never.parse().ok()?);
    let record = ProofText { policies, schema, guards, prover, solver, environments, never, properties, time };
    lines.next().is_none().then_some(record)
}

/// SHA-256 over policy texts, in hexadecimal digits. The names of the files and their order do not matter, as they do not
/// to a decision: `"blindvault/policies/v1" ‖ 00`, then each text in ascending order of bytes behind its length as u64.
pub fn digest_of_policies(policies: &[Source<'_>]) -> String {
    let mut texts: Vec<_> = policies.iter().map(|source| source.text).collect();
    texts.sort_unstable();
    digest("blindvault/policies/v1", texts)
}

/// SHA-256 over a schema text, in hexadecimal digits: as [`digest_of_policies`], with `"blindvault/schema/v1"`.
pub fn digest_of_schema(schema: Source<'_>) -> String {
    digest("blindvault/schema/v1", [schema.text])
}

/// SHA-256 over the guards of this version, in hexadecimal digits: as [`digest_of_policies`], with
/// `"blindvault/guards/v1"`, each guard's name before its text, in their order.
pub fn digest_of_guards() -> String {
    digest("blindvault/guards/v1", GUARDS.iter().flat_map(|guard| [guard.id, guard.source.text]))
}

fn digest<'a>(label: &str, texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = Context::new(&SHA256);
    context.update(label.as_bytes());
    context.update(&[0]);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::audit::LogSigner;
    use crate::fs::OsFs;
    use crate::policy::{BASELINE_POLICIES, BASELINE_SCHEMA};

    fn record() -> ProofText {
        ProofText {
            policies: digest_of_policies(&[BASELINE_POLICIES]),
            schema: digest_of_schema(BASELINE_SCHEMA),
            guards: digest_of_guards(),
            prover: PROVER.to_owned(),
            solver: "cvc5 1.3.1".to_owned(),
            environments: 69,
            never: 40,
            properties: properties().into_iter().map(|id| (id, 9)).collect(),
            time: "2026-11-24T12:00:00.000Z".to_owned(),
        }
    }

    fn signer(dir: &tempfile::TempDir, name: &str) -> LogSigner {
        let path: PathBuf = dir.path().join(name.replace('/', "-"));
        LogSigner::create(&OsFs, &path, name).unwrap()
    }

    #[test]
    fn a_record_is_one_text() {
        let text = record().text();
        assert_eq!(ProofText::parse(&text).unwrap(), record());
        for (from, to) in [
            ("v1\n", "v2\n"),
            ("sha256:", "sha512:"),
            ("for 9", "for 09"),
            ("for 9", "for +9"),
            ("for 9", "for -9"),
            ("for 9\n", "for 9 \n"),
            ("proven no-errors", "refuted no-errors"),
            ("time ", "\ntime "),
            ("000Z\n", "000Z\n\n"),
            ("000Z\n", "000Z\nproven more for 1\n"),
            ("000Z\n", "000Z"),
        ] {
            let bent = text.replacen(from, to, 1);
            assert_ne!(bent, text, "{from}");
            assert!(ProofText::parse(&bent).is_err(), "{to:?}");
        }
    }

    #[test]
    fn a_gateway_takes_only_a_proof_of_what_it_activates() {
        let dir = tempfile::tempdir().unwrap();
        let (good, other) = (signer(&dir, "prover/a"), signer(&dir, "prover/b"));
        let keys = [good.verifier().clone()];
        let verify = |record: &ProofText, by: &LogSigner, schema, policies: &[Source<'_>]| {
            ProofText::verify(&by.note(&record.text()).unwrap(), &keys, schema, policies)
        };
        let (schema, policies) = (BASELINE_SCHEMA, [BASELINE_POLICIES]);
        assert_eq!(verify(&record(), &good, schema, &policies).unwrap(), record());
        let why = |result: Result<ProofText, Error>| match result {
            Err(Error::FailedPrecondition(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(verify(&record(), &other, schema, &policies)).contains("signed"));
        let changed = BASELINE_POLICIES.text.replacen("reader", "writer", 1);
        let changed = [Source { name: "baseline.cedar", text: &changed }];
        assert!(why(verify(&record(), &good, schema, &changed)).contains("other policies"));
        assert!(why(verify(&record(), &good, schema, &[])).contains("other policies"));
        let twice = [BASELINE_POLICIES, BASELINE_POLICIES];
        assert!(why(verify(&record(), &good, schema, &twice)).contains("other policies"));
        let spaced = format!("{} ", schema.text);
        let spaced = Source { name: schema.name, text: &spaced };
        assert!(why(verify(&record(), &good, spaced, &policies)).contains("another schema"));
        let mut bent = record();
        bent.guards = digest_of_schema(schema);
        assert!(why(verify(&bent, &good, schema, &policies)).contains("guards"));
        for break_it in [
            (|p: &mut Vec<(String, usize)>| drop(p.pop())) as fn(&mut Vec<_>),
            |p| p.swap(0, 1),
            |p| p.iter_mut().for_each(|(_, kinds)| *kinds = 0),
            |p| p.clear(),
            |p| p.iter_mut().take(1).for_each(|(id, _)| id.push('x')),
        ] {
            let mut bent = record();
            break_it(&mut bent.properties);
            assert!(why(verify(&bent, &good, schema, &policies)).contains("every property"));
        }
        let note = good.note(&record().text()).unwrap();
        let tampered = note.replacen("for 9", "for 8", 1);
        assert!(ProofText::verify(&tampered, &keys, schema, &policies).is_err());
        assert!(ProofText::verify(&note, &[], schema, &policies).is_err());
    }

    #[test]
    fn names_and_order_of_files_do_not_matter_but_their_bounds_do() {
        let of = |texts: &[&str]| {
            digest_of_policies(&texts.iter().map(|text| Source { name: "x", text }).collect::<Vec<_>>())
        };
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
        assert_ne!(of(&[]), of(&[""]));
    }
}
