//! What a vault must answer, in a few lines: names, states and plaintexts, no key and no cipher.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::Arbitrary;
use vault_core::error::Check;
use vault_core::{Error, Vault};

use crate::bed::{Bed, Place};
use crate::change::{Change, changed, pick};

/// Two that the workload's entry lists, and one that it does not.
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const DATASETS: [&str; 2] = ["customers", "orders"];
const SUBJECTS: [&str; 2] = ["mia", "noa"];

/// One call.
#[derive(Debug, Arbitrary)]
pub enum Op {
    CreateTenant(u8),
    CreateDataset(u8, u8),
    Encrypt { tenant: u8, dataset: u8, subject: Option<u8>, pairs: u8, plaintext: Vec<u8> },
    Decrypt(u8),
    /// Somewhere else, or with other pairs.
    DecryptAt { which: u8, tenant: u8, dataset: u8, subject: Option<u8>, pairs: u8 },
    DecryptChanged(u8, Vec<Change>),
    Rewrap(u8),
    RotateTenantKey(u8),
    RotateDataKeys(u8),
    Suspend(u8),
    Resume(u8),
    Shred(u8, u8),
    EvictKeys,
    Tend(u8),
    Reopen,
}

struct Envelope {
    place: Place,
    pairs: u8,
    plaintext: Vec<u8>,
    bytes: Vec<u8>,
    version: u32,
}

/// What was done so far.
#[derive(Default)]
pub struct Model {
    /// Tenants, and whether they are suspended.
    tenants: BTreeMap<&'static str, bool>,
    datasets: BTreeSet<(&'static str, &'static str)>,
    shredded: BTreeSet<(&'static str, &'static str)>,
    envelopes: Vec<Envelope>,
}

fn place(tenant: u8, dataset: u8, subject: Option<u8>) -> Place {
    (pick(&TENANTS, tenant), pick(&DATASETS, dataset), subject.map(|subject| pick(&SUBJECTS, subject)))
}

impl Model {
    fn refusal(&self, (tenant, dataset, _): Place) -> Option<Error> {
        match self.tenants.get(tenant) {
            _ if tenant == TENANTS[2] => Some(Error::Denied(Check::Registry)),
            None => Some(Error::Denied(Check::Policy)),
            Some(true) => Some(Error::Denied(Check::Suspended)),
            Some(false) if !self.datasets.contains(&(tenant, dataset)) => Some(Error::Denied(Check::Policy)),
            Some(false) => None,
        }
    }

    fn is_shredded(&self, (tenant, _, subject): Place) -> bool {
        subject.is_some_and(|subject| self.shredded.contains(&(tenant, subject)))
    }

    /// What opening one envelope in a place gives.
    fn opens(&self, envelope: &Envelope, place: Place, pairs: u8) -> Result<Vec<u8>, Error> {
        match self.refusal(place) {
            Some(refusal) => Err(refusal),
            None if place != envelope.place || pairs % 4 != envelope.pairs % 4 || self.is_shredded(place) => {
                Err(Error::Unopenable)
            }
            None => Ok(envelope.plaintext.clone()),
        }
    }

    fn envelope(&self, which: u8) -> Option<&Envelope> {
        let count = self.envelopes.len();
        (count > 0).then(|| &self.envelopes[usize::from(which) % count])
    }

    /// An answer about a tenant: `NotFound` without one, else what `expected` says.
    fn about(&self, tenant: &str, answer: Result<(), Error>, expected: impl FnOnce(Result<(), Error>)) {
        if self.tenants.contains_key(tenant) {
            expected(answer);
        } else {
            assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
        }
    }

    /// Does one call, and compares.
    pub fn step(&mut self, bed: &Bed, vault: &Vault, op: &Op) {
        let ok = |answer: Result<(), Error>| assert_eq!(answer, Ok(()));
        match op {
            Op::CreateTenant(tenant) => {
                let tenant = pick(&TENANTS, *tenant);
                match bed.create_tenant(vault, tenant) {
                    Ok(()) => assert_eq!(self.tenants.insert(tenant, false), None, "created twice"),
                    Err(error) => {
                        assert!(matches!(error, Error::AlreadyExists(_)) && self.tenants.contains_key(tenant), "{error}");
                    }
                }
            }
            Op::CreateDataset(tenant, dataset) => {
                let (tenant, dataset, _) = place(*tenant, *dataset, None);
                let is_new = !self.datasets.contains(&(tenant, dataset));
                self.about(tenant, bed.create_dataset(vault, tenant, dataset), |answer| match answer {
                    Ok(()) => assert!(is_new),
                    Err(error) => assert!(matches!(error, Error::AlreadyExists(_)) && !is_new, "{error}"),
                });
                if self.tenants.contains_key(tenant) {
                    self.datasets.insert((tenant, dataset));
                }
            }
            Op::Encrypt { tenant, dataset, subject, pairs, plaintext } => {
                let place = place(*tenant, *dataset, *subject);
                match (bed.encrypt(vault, place, *pairs, plaintext), self.refusal(place)) {
                    (Err(error), Some(refusal)) => assert_eq!(error, refusal),
                    (Err(Error::FailedPrecondition(_)), None) if self.is_shredded(place) => {}
                    (Ok(sealed), None) if !self.is_shredded(place) => self.envelopes.push(Envelope {
                        place,
                        pairs: *pairs,
                        plaintext: plaintext.clone(),
                        bytes: sealed.envelope,
                        version: sealed.key_version.0,
                    }),
                    (answer, refusal) => panic!("{:?} where {refusal:?} was expected", answer.map(drop)),
                }
            }
            Op::Decrypt(which) => {
                let Some(envelope) = self.envelope(*which) else { return };
                let expected = self.opens(envelope, envelope.place, envelope.pairs);
                assert_eq!(bed.decrypt(vault, envelope.place, envelope.pairs, &envelope.bytes), expected);
            }
            Op::DecryptAt { which, tenant, dataset, subject, pairs } => {
                let Some(envelope) = self.envelope(*which) else { return };
                let place = place(*tenant, *dataset, *subject);
                let expected = self.opens(envelope, place, *pairs);
                assert_eq!(bed.decrypt(vault, place, *pairs, &envelope.bytes), expected);
            }
            Op::DecryptChanged(which, changes) => {
                let Some(envelope) = self.envelope(*which) else { return };
                let bytes = changed(&envelope.bytes, changes);
                let answer = bed.decrypt(vault, envelope.place, envelope.pairs, &bytes);
                // Two envelopes of one place may come to stand for each other by a copy of all bytes; these do not.
                assert!(answer.is_err() || bytes == envelope.bytes, "a changed envelope opens");
            }
            Op::Rewrap(which) => {
                let Some(envelope) = self.envelope(*which) else { return };
                let expected = self.opens(envelope, envelope.place, envelope.pairs).map(drop);
                let answer = bed.rewrap(vault, envelope.place, envelope.pairs, &envelope.bytes);
                match answer {
                    Ok(sealed) => {
                        assert!(expected.is_ok() && sealed.key_version.0 >= envelope.version);
                        let (place, pairs, plaintext) = (envelope.place, envelope.pairs, envelope.plaintext.clone());
                        let (bytes, version) = (sealed.envelope, sealed.key_version.0);
                        self.envelopes.push(Envelope { place, pairs, plaintext, bytes, version });
                    }
                    Err(error) => assert_eq!(Err(error), expected),
                }
            }
            Op::RotateTenantKey(tenant) => {
                let tenant = pick(&TENANTS, *tenant);
                self.about(tenant, bed.rotate_tenant_key(vault, tenant), ok);
            }
            Op::RotateDataKeys(tenant) => {
                let tenant = pick(&TENANTS, *tenant);
                self.about(tenant, bed.rotate_data_keys(vault, tenant), ok);
            }
            Op::Suspend(tenant) | Op::Resume(tenant) => {
                let (tenant, suspend) = (pick(&TENANTS, *tenant), matches!(op, Op::Suspend(_)));
                let answer = if suspend { bed.suspend(vault, tenant) } else { bed.resume(vault, tenant) };
                let was = self.tenants.get(tenant).copied();
                self.about(tenant, answer, |answer| match answer {
                    Ok(()) => {}
                    // Nothing to lift.
                    Err(error) => {
                        let nothing = !suspend && was == Some(false);
                        assert!(nothing && matches!(error, Error::FailedPrecondition(_)), "{error}");
                    }
                });
                if let Some(suspended) = self.tenants.get_mut(tenant) {
                    *suspended = suspend;
                }
            }
            Op::Shred(tenant, subject) => {
                let (tenant, subject) = (pick(&TENANTS, *tenant), pick(&SUBJECTS, *subject));
                let is_gone = self.shredded.contains(&(tenant, subject));
                self.about(tenant, bed.shred(vault, tenant, subject), |answer| match answer {
                    Ok(()) => assert!(!is_gone, "shredded twice"),
                    Err(error) => assert!(matches!(error, Error::FailedPrecondition(_)) && is_gone, "{error}"),
                });
                if self.tenants.contains_key(tenant) {
                    self.shredded.insert((tenant, subject));
                }
            }
            Op::EvictKeys => vault.keys().evict_all(),
            Op::Tend(hours) => bed.tend(vault, (*hours).into()),
            // By the target, which owns the vault.
            Op::Reopen => {}
        }
    }

    /// Opens everything that was ever sealed, or is refused as it must be.
    pub fn check_all(&self, bed: &Bed, vault: &Vault) {
        for envelope in &self.envelopes {
            let expected = self.opens(envelope, envelope.place, envelope.pairs);
            assert_eq!(bed.decrypt(vault, envelope.place, envelope.pairs, &envelope.bytes), expected);
        }
    }
}
