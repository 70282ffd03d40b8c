//! The policies of one data action, found by what they demand, so that a decision does not look at those about other
//! services, tenants or datasets.
//!
//! Each policy is filed under one comparison that it cannot do without: `principal == …` or `resource == …` in its scope,
//! or an attribute compared with a literal in its condition (`principal.service == "billing" && …`). Of several, the one
//! that the fewest policies share. Policies without one are looked at each time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::Entity;

use super::compile;
use super::reads::Reads;
use super::screen::{Test, Text, Truth, View};

/// One policy.
#[derive(Debug)]
pub(super) struct Single {
    pub(super) id: String,
    /// It alone, as the engine evaluates it.
    pub(super) set: cedar_policy::PolicySet,
    test: Test,
    pub(super) reads: Reads,
}

impl Single {
    pub(super) fn new(policy: &cedar_policy::Policy) -> Result<Self, &'static str> {
        let (test, reads) = compile::policy(policy);
        let set =
            cedar_policy::PolicySet::from_policies([policy.clone()]).map_err(|_| "a policy cannot be taken alone")?;
        Ok(Self { id: policy.id().to_string(), set, test, reads })
    }

    /// Whether the engine has to evaluate it; otherwise it is not satisfied, and does not fail.
    pub(super) fn may_matter(&self, view: &View<'_>) -> bool {
        self.test.of(view) != Truth::No
    }
}

/// The policies of one data action.
#[derive(Debug)]
pub(super) struct Index {
    /// [`super::Action::NAME`].
    pub(super) name: &'static str,
    /// The action with the groups it belongs to.
    pub(super) action: Entity,
    always: Vec<Arc<Single>>,
    by: HashMap<Text, HashMap<Box<str>, Vec<Arc<Single>>>>,
}

impl Index {
    pub(super) fn new(name: &'static str, action: Entity, policies: &[Arc<Single>]) -> Self {
        let demands: Vec<_> = policies.iter().map(|policy| demands(&policy.test)).collect();
        let mut shared: HashMap<(Text, &str), usize> = HashMap::new();
        for (text, literal) in demands.iter().flatten().flat_map(Demand::pairs) {
            *shared.entry((text, literal)).or_default() += 1;
        }
        let cost = |demand: &&Demand| -> usize { demand.pairs().filter_map(|pair| shared.get(&pair)).sum() };
        let mut index = Self { name, action, always: Vec::new(), by: HashMap::new() };
        for (policy, demands) in policies.iter().zip(&demands) {
            match demands.iter().min_by_key(cost) {
                None => index.always.push(Arc::clone(policy)),
                Some(Demand(text, literals)) => {
                    let by = index.by.entry(*text).or_default();
                    for literal in literals {
                        by.entry(literal.clone()).or_default().push(Arc::clone(policy));
                    }
                }
            }
        }
        index
    }

    /// The policy of an id, whatever it demands.
    #[cfg(feature = "prove")]
    pub(super) fn policy(&self, id: &str) -> Option<&Single> {
        let filed = self.by.values().flat_map(HashMap::values).flatten();
        self.always.iter().chain(filed).find(|policy| policy.id == id).map(AsRef::as_ref)
    }

    /// The policies that may matter to a request.
    pub(super) fn find(&self, view: &View<'_>) -> Vec<Arc<Single>> {
        let filed = self.by.iter().filter_map(|(text, by)| by.get(view.known(*text)?)).flatten();
        self.always.iter().chain(filed).filter(|policy| policy.may_matter(view)).cloned().collect()
    }
}

/// An attribute that has to have one of some values.
#[derive(Debug)]
struct Demand(Text, BTreeSet<Box<str>>);

impl Demand {
    fn pairs(&self) -> impl Iterator<Item = (Text, &str)> {
        self.1.iter().map(|literal| (self.0, &**literal))
    }
}

/// What a policy cannot do without: if the attribute has none of the values, or is absent, the policy is not satisfied
/// and evaluating it does not fail.
fn demands(test: &Test) -> Vec<Demand> {
    let mut found = Vec::new();
    collect(test, true, &mut found);
    found
}

/// What has to hold for `test` to come to `wanted`. A comparison counts only if nothing that is evaluated before it can
/// fail; what comes after it is not evaluated if it does not hold.
fn collect(test: &Test, wanted: bool, into: &mut Vec<Demand>) {
    match (test, wanted) {
        (Test::Same(text, literal), true) if is_filed(*text) => {
            into.push(Demand(*text, BTreeSet::from([literal.clone()])));
        }
        (Test::OneOf(literals, text), true) if is_filed(*text) => {
            into.push(Demand(*text, literals.iter().cloned().collect()));
        }
        (Test::Not(test), wanted) => collect(test, !wanted, into),
        (Test::And(one, other), true) | (Test::Or(one, other), false) => {
            collect(one, wanted, into);
            if !one.may_fail() {
                collect(other, wanted, into);
            }
        }
        _ => {}
    }
}

/// Whether policies are filed by an attribute: those that are part of every plan's key.
const fn is_filed(text: Text) -> bool {
    match text {
        Text::Principal
        | Text::Service
        | Text::Environment
        | Text::Dataset
        | Text::Tenant
        | Text::Classification
        | Text::Residency
        | Text::Purpose => true,
        Text::UserIssuer | Text::UserSubject | Text::UserTenant | Text::UserAcr => false,
    }
}
