//! What decides for one principal, action, dataset and purpose: the policies that may matter there, and the entities they
//! read, made once.

use std::iter;
use std::sync::Arc;

use cedar_policy::{Authorizer, Entities, EntityUid, Request, Response};

use super::authorizer::Verdict;
use super::entities::{self, Asked, NotExpressible};
use super::index::{Index, Single};
use super::reads::Reads;
use super::registry::Grant;
use super::request::{DatasetFacts, Facts};
use super::screen::View;
use crate::id::{DatasetId, TenantId};

/// A data action that the guards let through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) policies: &'a Index,
    pub(super) principal: &'a str,
    pub(super) grant: &'a Grant<'a>,
    pub(super) tenant: &'a TenantId,
    pub(super) dataset: &'a DatasetId,
    pub(super) facts: &'a DatasetFacts,
    pub(super) asked: &'a Asked<'a>,
}

impl<'a> Question<'a> {
    fn view(&self, id: &'a str) -> View<'a> {
        View {
            principal: self.principal,
            grant: self.grant,
            tenant: self.tenant,
            id,
            dataset: self.facts,
            purpose: self.asked.purpose.as_str(),
            asked: None,
        }
    }
}

/// Holds for every question with the same principal, action, tenant, dataset, labels of the dataset, and purpose.
#[derive(Debug)]
pub(super) struct Plan {
    /// Tells it from all other plans of its epoch.
    pub(super) serial: u64,
    /// What of the context its policies read.
    pub(super) reads: Reads,
    /// How much memory it takes: 1 is an ordinary plan, some 3 KiB.
    pub(super) weight: usize,
    policies: Vec<Arc<Single>>,
    /// `<tenant>/<dataset>`.
    id: String,
    principal: EntityUid,
    resource: EntityUid,
    entities: Entities,
}

impl Plan {
    pub(super) fn new(question: &Question<'_>, serial: u64) -> Result<Self, NotExpressible> {
        Self::made(question, serial, None)
    }

    /// For this one question.
    pub(super) fn once(question: &Question<'_>) -> Result<Self, NotExpressible> {
        Self::made(question, 0, Some(question.asked))
    }

    fn made<'a>(question: &Question<'a>, serial: u64, asked: Option<&'a Asked<'a>>) -> Result<Self, NotExpressible> {
        let (tenant, facts) = (question.tenant, question.facts);
        let id = format!("{tenant}/{}", question.dataset);
        let policies = question.policies.find(&View { asked, ..question.view(&id) });
        let reads = policies.iter().fold(Reads::NOTHING, |reads, policy| reads.and(policy.reads));
        let weight = 1 + question.grant.copied() / 32 + policies.len() / 256;
        let known = question.grant.principal(question.principal)?;
        let principal = known.iter().next().ok_or(NotExpressible)?.uid();
        let dataset = entities::dataset(tenant, question.dataset, Some(facts))?;
        let resource = dataset.uid();
        // A decision about a suspended tenant ends before any policy is asked.
        let tenant = || entities::tenant(tenant, Some(&Facts { suspended: false, dataset: None }));
        // Each one takes as long to add as a policy to evaluate.
        let tenant = reads.has(Reads::TENANT).then(tenant).transpose()?;
        let action = reads.has(Reads::ACTION).then(|| question.policies.action.clone());
        let all = iter::once(dataset).chain(tenant).chain(action);
        let entities = known.add_entities(all, None).map_err(|_| NotExpressible)?;
        Ok(Self { serial, reads, weight, policies, id, principal, resource, entities })
    }

    /// Asks the engine about each policy that may still matter, and puts the answers together as it does itself, but that
    /// any error is a refusal.
    pub(super) fn decide(&self, question: &Question<'_>) -> Result<Verdict, NotExpressible> {
        let view = View { asked: Some(question.asked), ..question.view(&self.id) };
        let left: Vec<_> = self.policies.iter().filter(|policy| policy.may_matter(&view)).collect();
        let mut outcome = Outcome::default();
        if !left.is_empty() {
            let reads = left.iter().fold(Reads::NOTHING, |reads, policy| reads.and(policy.reads));
            let context = entities::data_context_for(question.asked, reads)?;
            let (principal, resource) = (self.principal.clone(), self.resource.clone());
            let request = Request::new(principal, question.policies.action.uid(), resource, context, None)
                .map_err(|_| NotExpressible)?;
            let engine = Authorizer::new();
            for policy in left {
                outcome.add(policy, &engine.is_authorized(&request, &policy.set, &self.entities));
            }
        }
        Ok(outcome.verdict())
    }
}

/// Answers about single policies.
#[derive(Default)]
struct Outcome {
    failed: Vec<String>,
    forbid: Vec<String>,
    permit: Vec<String>,
}

impl Outcome {
    fn add(&mut self, policy: &Single, response: &Response) {
        let diagnostics = response.diagnostics();
        if diagnostics.errors().next().is_some() {
            self.failed.push(policy.id.clone());
        } else if diagnostics.reason().next().is_some() {
            // It alone was asked, and it is satisfied.
            match response.decision() {
                cedar_policy::Decision::Allow => self.permit.push(policy.id.clone()),
                cedar_policy::Decision::Deny => self.forbid.push(policy.id.clone()),
            }
        }
    }

    fn verdict(self) -> Verdict {
        let Self { failed, forbid, permit } = self;
        let (refused, mut policies) = if !failed.is_empty() {
            (Some("a policy could not be evaluated"), failed)
        } else if !forbid.is_empty() {
            (Some("a policy forbids"), forbid)
        } else if permit.is_empty() {
            (Some("no policy permits"), permit)
        } else {
            (None, permit)
        };
        policies.sort_unstable();
        Verdict { refused, policies }
    }
}
