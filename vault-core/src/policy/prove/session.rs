//! Questions to the solver about one kind of request, each with an answer that the authorizer has confirmed.

use cedar_policy::{Entities, Policy, PolicySet};
use cedar_policy_symcc::err::Error as SymError;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet, CompiledSchema, SymEnv};
use futures_util::FutureExt as _;

use super::example::{Counterexample, Replay};
use super::slice::{same, slice};
use super::solver::Solver;
use super::widen::{Environment, Widened};
use crate::policy::authorizer::{NOT_EVALUATED, Verdict};

/// Why something was not shown. None of these is a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotShown {
    /// A request that shows the contrary.
    Refuted(Box<Counterexample>),
    /// Neither one nor the other.
    Unknown(&'static str),
}

const MISMATCH: NotShown = NotShown::Unknown("the authorizer decides the solver's counterexample otherwise");
const NOT_TYPED: NotShown =
    NotShown::Unknown("a policy is not well-typed there: let it ask `principal is Vault::Workload` first");

/// A policy set as formulas of its slice, together with the whole of it: what is found is asked of the whole.
pub(super) struct Compiled<'a> {
    whole: &'a PolicySet,
    slice: PolicySet,
    formulas: CompiledPolicySet,
}

impl Compiled<'_> {
    /// The policies that can apply.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.slice.policies()
    }
}

/// A solver and what it is asked about.
pub(super) struct Session<'a> {
    solver: CedarSymCompiler<Solver>,
    /// The schema's part of the formulas, which all kinds of requests share.
    symbols: CompiledSchema,
    pub(super) widened: &'a Widened,
    pub(super) actions: &'a Entities,
}

impl<'a> Session<'a> {
    pub(super) fn new(solver: Solver, widened: &'a Widened, actions: &'a Entities) -> Option<Self> {
        let symbols = CompiledSchema::new(&widened.schema).ok()?;
        Some(Self { solver: CedarSymCompiler::new(solver).ok()?, symbols, widened, actions })
    }

    /// Why the solver no longer answers.
    fn fault(&self) -> Option<&'static str> {
        self.solver.solver().fault().map(|fault| fault.0)
    }

    /// [`Self::fault`], also if the time for the whole proof is over.
    pub(super) fn is_over(&mut self) -> Option<&'static str> {
        self.solver.solver_mut().end_in_time();
        self.fault()
    }

    /// The symbols of a kind of request: those that the compiler itself would make, from the part that is shared.
    fn symbols(&self, environment: &Environment) -> Result<SymEnv, NotShown> {
        self.symbols.sym_env(&environment.request).map_err(|error| self.unknown(&error))
    }

    /// The formulas of a set for one kind of request.
    pub(super) fn compile<'p>(
        &self,
        policies: &'p PolicySet,
        environment: &Environment,
    ) -> Result<Compiled<'p>, NotShown> {
        let slice = slice(policies, &environment.request, self.actions);
        let slice = slice.ok_or(NotShown::Unknown("the policies cannot be sliced"))?;
        let (request, schema, symbols) = (&environment.request, &self.widened.schema, self.symbols(environment)?);
        let formulas = CompiledPolicySet::compile_with_custom_symenv(&slice, request, schema, symbols);
        Ok(Compiled { whole: policies, slice, formulas: formulas.map_err(|error| self.unknown(&error))? })
    }

    /// Whether everything that `set` allows, `guard` allows. The counterexample is one that the authorizer allows under
    /// `set` and refuses under `guard`.
    pub(super) fn implies(
        &mut self,
        set: &Compiled<'_>,
        guard: &Compiled<'_>,
        environment: &Environment,
    ) -> Result<(), NotShown> {
        let answer = self.solver.check_implies_with_counterexample_opt(&set.formulas, &guard.formulas).now_or_never();
        let Some(found) = self.answer(answer)? else { return Ok(()) };
        let replay = Replay::new(&self.widened.schema, environment, found);
        let (allows, refuses) = (replay.ask(set.whole), replay.ask(guard.whole));
        match (allows, refuses) {
            (Ok(Verdict { refused: None, policies }), Ok(Verdict { refused: Some(_), .. })) => {
                Err(refuted(&replay, policies))
            }
            _ => Err(MISMATCH),
        }
    }

    /// Whether two sets allow the same.
    pub(super) fn equivalent(&mut self, a: &Compiled<'_>, b: &Compiled<'_>) -> Result<bool, NotShown> {
        if same(&a.slice, &b.slice) {
            return Ok(true);
        }
        let answer = self.solver.check_equivalent_opt(&a.formulas, &b.formulas).now_or_never();
        self.answer(answer)
    }

    /// Whether a set allows nothing; the counterexample is a request that the authorizer allows.
    pub(super) fn denies_all(&mut self, set: &Compiled<'_>, environment: &Environment) -> Result<(), NotShown> {
        let answer = self.solver.check_always_denies_with_counterexample_opt(&set.formulas).now_or_never();
        let Some(found) = self.answer(answer)? else { return Ok(()) };
        let replay = Replay::new(&self.widened.schema, environment, found);
        match replay.ask(set.whole) {
            Ok(Verdict { refused: None, policies }) => Err(refuted(&replay, policies)),
            _ => Err(MISMATCH),
        }
    }

    /// Whether a policy can always be evaluated; the counterexample is a request that the authorizer refuses because it
    /// cannot.
    pub(super) fn never_errors(&mut self, policy: &Policy, environment: &Environment) -> Result<(), NotShown> {
        let (request, schema, symbols) = (&environment.request, &self.widened.schema, self.symbols(environment)?);
        let compiled = CompiledPolicy::compile_with_custom_symenv(policy, request, schema, symbols);
        let compiled = compiled.map_err(|error| self.unknown(&error))?;
        let answer = self.solver.check_never_errors_with_counterexample_opt(&compiled).now_or_never();
        let Some(found) = self.answer(answer)? else { return Ok(()) };
        let replay = Replay::new(&self.widened.schema, environment, found);
        let alone = PolicySet::from_policies([policy.clone()]).map_err(|_| MISMATCH)?;
        match replay.ask(&alone) {
            Ok(Verdict { refused: Some(NOT_EVALUATED), policies }) => Err(refuted(&replay, policies)),
            _ => Err(MISMATCH),
        }
    }

    fn answer<T>(&self, answer: Option<Result<T, SymError>>) -> Result<T, NotShown> {
        // The solver blocks, so the future of a query is never left waiting.
        answer.ok_or(NotShown::Unknown("the query did not end"))?.map_err(|error| self.unknown(&error))
    }

    fn unknown(&self, error: &SymError) -> NotShown {
        if let Some(fault) = self.fault() {
            return NotShown::Unknown(fault);
        }
        match error {
            SymError::PolicyNotWellTyped { .. } => NOT_TYPED,
            SymError::SolverUnknown => NotShown::Unknown("the solver does not know within its time"),
            SymError::SolverError(_) => NotShown::Unknown("the solver failed"),
            SymError::DecodeModel(_) | SymError::ConcretizeError(_) | SymError::ModelInvalid { .. } => {
                NotShown::Unknown("the solver's counterexample makes no request")
            }
            _ => NotShown::Unknown("a policy cannot be expressed for the solver"),
        }
    }
}

fn refuted(replay: &Replay<'_>, policies: Vec<String>) -> NotShown {
    match replay.render(policies) {
        Ok(example) => NotShown::Refuted(Box::new(example)),
        Err(_) => MISMATCH,
    }
}
