//! The decision cache of one epoch: plans, and under them verdicts. Reads take no lock.
//!
//! A verdict is kept under everything that could have made it different:
//!
//! ```text
//! plan     action, principal, tenant, dataset, classification, residency, consentRequired, purpose
//! verdict  plan, and of the context what one of the plan's policies reads
//! ```
//!
//! The principal's attributes are those of its registry entry, which an epoch does not change; with the epoch the whole
//! cache goes. Facts, consents and grants are looked up for each call, and what they come to (whether a consent covers
//! the purpose now, which roles are granted now, whether the second factor is fresh now) is in the key, so that nothing
//! has to be dropped when one is withdrawn or ends. A verdict that depends on the time itself is not kept. Suspension and
//! the registry are guards in front, and ask no cache.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::authorizer::Verdict;
use super::entities::{Asked, NotExpressible};
use super::plan::{Plan, Question};
use super::reads::Reads;
use super::request::DatasetFacts;

/// Longest key that is kept, in bytes. With the number of verdicts and the weight of plans it bounds the cache's memory.
const MAX_KEY: usize = 1_024;
/// Most policies that a kept verdict names.
const MAX_IDS: usize = 64;
/// How many verdicts are kept at most, for each unit of the plans' weight.
const VERDICTS_PER_PLAN: usize = 4;

/// Hashed with a seed of this process's own: only workloads of the registry put keys here, and the number of keys is
/// bounded.
type Map<V> = papaya::HashMap<Box<[u8]>, Arc<V>, foldhash::quality::RandomState>;

/// Plans and verdicts.
pub(super) struct Decisions {
    plans: Map<Plan>,
    verdicts: Map<Verdict>,
    serial: AtomicU64,
    /// Of the plans; what two threads put there at once may count twice.
    weight: AtomicUsize,
    /// The plans' weight at most.
    capacity: usize,
    #[cfg(test)]
    hits: AtomicU64,
}

impl Decisions {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            plans: Map::default(),
            verdicts: Map::default(),
            serial: AtomicU64::new(0),
            weight: AtomicUsize::new(0),
            capacity,
            #[cfg(test)]
            hits: AtomicU64::new(0),
        }
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The verdict on a question.
    pub(super) fn decide(&self, question: &Question<'_>) -> Result<Arc<Verdict>, NotExpressible> {
        if self.capacity == 0 {
            return Plan::once(question)?.decide(question).map(Arc::new);
        }
        let mut key = plan_key(question);
        let found = self.plans.pin().get(key.as_slice()).map(Arc::clone);
        let plan = match found {
            Some(plan) => plan,
            None => {
                let plan = Arc::new(Plan::new(question, self.serial.fetch_add(1, Ordering::Relaxed))?);
                let weight = self.weight.fetch_add(plan.weight, Ordering::Relaxed);
                let full = weight.saturating_add(plan.weight) > self.capacity;
                if full {
                    self.weight.store(plan.weight, Ordering::Relaxed);
                }
                if !keep(&self.plans, &key, &plan, full) {
                    return plan.decide(question).map(Arc::new);
                }
                plan
            }
        };
        if plan.reads.has(Reads::TIME) {
            return plan.decide(question).map(Arc::new);
        }
        verdict_key(&plan, question.asked, &mut key);
        let found = self.verdicts.pin().get(key.as_slice()).map(Arc::clone);
        if let Some(verdict) = found {
            #[cfg(test)]
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(verdict);
        }
        let verdict = Arc::new(plan.decide(question)?);
        if verdict.policies.len() <= MAX_IDS {
            let full = self.verdicts.len() >= self.capacity.saturating_mul(VERDICTS_PER_PLAN);
            keep(&self.verdicts, &key, &verdict, full);
        }
        Ok(verdict)
    }

    /// Plans and verdicts held, and verdicts that were found.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, u64) {
        (self.plans.len(), self.verdicts.len(), self.hits.load(Ordering::Relaxed))
    }
}

/// Shows no key: those have names of people's end users in them.
impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decisions").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// A full map starts again: what is in use is back after one decision each. Answers whether it was kept.
fn keep<V>(map: &Map<V>, key: &[u8], value: &Arc<V>, full: bool) -> bool {
    if key.len() > MAX_KEY {
        return false;
    }
    let map = map.pin();
    if full {
        map.clear();
    }
    map.insert(key.into(), Arc::clone(value));
    true
}

/// Each part with its length before it, so that no two lists of parts make the same key.
fn put(key: &mut Vec<u8>, part: &str) {
    // On every platform that this builds for, a length fits.
    key.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
    key.extend_from_slice(part.as_bytes());
}

fn put_optional(key: &mut Vec<u8>, part: Option<&str>) {
    key.push(u8::from(part.is_some()));
    if let Some(part) = part {
        put(key, part);
    }
}

fn put_all<'a>(key: &mut Vec<u8>, parts: impl ExactSizeIterator<Item = &'a str>) {
    key.extend_from_slice(&u64::try_from(parts.len()).unwrap_or(u64::MAX).to_le_bytes());
    for part in parts {
        put(key, part);
    }
}

fn plan_key(question: &Question<'_>) -> Vec<u8> {
    // Taken apart, so that a fact or an attribute that is added has to be thought of here. Consents and grants become
    // parts of the context.
    let DatasetFacts { classification, residency, consent_required, consents: _, grants: _ } = question.facts;
    let mut key = Vec::with_capacity(256);
    put(&mut key, question.policies.name);
    put(&mut key, question.principal);
    put(&mut key, question.tenant.as_str());
    put(&mut key, question.dataset.as_str());
    put_optional(&mut key, classification.as_deref());
    put_optional(&mut key, residency.as_deref());
    key.push(u8::from(*consent_required));
    put(&mut key, question.asked.purpose.as_str());
    key
}

/// The order of the parts is fixed, and which of them are there depends on the plan alone.
fn verdict_key(plan: &Plan, asked: &Asked<'_>, key: &mut Vec<u8>) {
    // `now` is not a part: a plan that reads it keeps no verdicts. `purpose` is one of the plan's.
    let Asked { now, purpose: _, has_subject, items, consent, granted_roles, end_user } = *asked;
    let reads = |part| plan.reads.has(part);
    key.clear();
    key.extend_from_slice(&plan.serial.to_le_bytes());
    if reads(Reads::HAS_SUBJECT) {
        key.push(u8::from(has_subject));
    }
    if reads(Reads::ITEMS) {
        key.extend_from_slice(&items.to_le_bytes());
    }
    if reads(Reads::CONSENT) {
        key.push(u8::from(consent));
    }
    if reads(Reads::GRANTED_ROLES) {
        put_all(key, granted_roles.iter().copied());
    }
    if !reads(Reads::USER) {
        return;
    }
    key.push(u8::from(end_user.is_some()));
    let Some(user) = end_user else { return };
    put(key, user.tenant().as_str());
    key.extend_from_slice(&[
        u8::from(user.mfa()),
        u8::from(user.mfa_fresh_at(now)),
        u8::from(user.auth_time().is_some()),
    ]);
    if reads(Reads::USER_ISSUER) {
        put(key, user.issuer());
    }
    if reads(Reads::USER_SUBJECT) {
        put(key, user.subject().as_str());
    }
    if reads(Reads::USER_ROLES) {
        put_all(key, user.roles().iter().map(String::as_str));
    }
    if reads(Reads::USER_AMR) {
        put_all(key, user.amr().iter().map(String::as_str));
    }
    if reads(Reads::USER_ACR) {
        put_optional(key, user.acr());
    }
}
