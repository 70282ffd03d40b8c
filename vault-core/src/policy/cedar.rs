//! The policy set: parsed, validated against the schema and sliced once, when it is loaded.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Context, Entities, Entity, EntityTypeName, Policy, PolicyId, PrincipalConstraint, Request,
    RequestValidationError, ResourceConstraint, Schema, ValidationError, ValidationMode, Validator,
};
use miette::Diagnostic;

use super::action::{CONSENT_ACTIONS, CONTROL_ACTIONS, CUSTODY_ACTIONS, DATA_ACTIONS, RELEASING_ACTIONS};
use super::entities::{self, Asked, Kind, NAMES, NotExpressible};
use super::index::{Index, Single};
use super::registry::Description;
use super::request::{DatasetFacts, Facts};
use super::scan::{self, Language};
use crate::custody::Custody;
use crate::error::Error;
use crate::id::{DatasetId, Purpose, TenantId};
use crate::principal::{EndUser, Operator};
use crate::time::Timestamp;

/// Most policies in a set.
pub const MAX_POLICIES: usize = 10_000;
const TOO_MANY: &str = "more than 10,000 policies";
/// How many entities a policy may follow from one to the next: `resource.tenant.suspended` is 2. All that can be
/// reached in so many steps are given to the engine with each request, so none that a policy reads is missing.
pub(super) const DEREFERENCES: u32 = 2;

/// A text and the name that errors call it by.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// For example `baseline.cedar`.
    pub name: &'a str,
    /// The whole text.
    pub text: &'a str,
}

impl Source<'_> {
    fn refuse(&self, offset: usize, why: &'static str) -> Error {
        Error::invalid(format!("{} line {}", self.name, scan::line(self.text, offset)), why)
    }

    /// A syntax error, at the first place that the parser points to.
    fn refuse_at(&self, error: &dyn Diagnostic, why: &'static str) -> Error {
        let offset = error.labels().and_then(|labels| labels.map(|label| label.offset()).min());
        self.refuse(offset.unwrap_or(0), why)
    }
}

/// A validated policy set, ready to decide.
#[derive(Debug)]
pub struct PolicySet {
    slices: HashMap<(&'static str, Kind), Slice>,
    data: HashMap<&'static str, Index, foldhash::fast::RandomState>,
    ids: Vec<String>,
}

/// The policies that can apply to one control action, or one on consents, on one kind of resource, by their scopes alone.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) policies: cedar_policy::PolicySet,
    /// The action with the groups it belongs to.
    pub(super) action: Entity,
}

impl PolicySet {
    /// Parses and strictly validates a schema and the policies written against it.
    ///
    /// An empty set is a valid one: it denies everything. Refused are: what does not parse or validate (warnings
    /// count as errors, among them policies that can never apply and confusable characters); templates; a policy
    /// without an `@id`, with one that does not match `[a-z0-9][a-z0-9._-]{0,62}`, or with another policy's; a policy
    /// that reads an entity which a request does not bring along; more than [`MAX_POLICIES`], files above 256 KiB,
    /// policies above 8 KiB or nested deeper than 16 or with more than 24
    /// operators; and a schema that is not the one this version fills in.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the file and the line.
    pub fn load(schema: Source<'_>, policies: &[Source<'_>]) -> Result<Self, Error> {
        scan::check(schema.text, Language::Schema).map_err(|f| schema.refuse(f.offset, f.why))?;
        let (parsed, _) =
            Schema::from_cedarschema_str(schema.text).map_err(|e| schema.refuse_at(&e, "not a valid Cedar schema"))?;
        count(policies)?;
        let mut set = cedar_policy::PolicySet::new();
        let mut origins = HashMap::new();
        for source in policies {
            parse(*source, &mut set, &mut origins)?;
        }
        validate(&parsed, &set, &origins)?;
        let (slices, data) = slices(&parsed, &set).map_err(|why| schema.refuse(0, why))?;
        let mut ids: Vec<_> = origins.into_keys().collect();
        ids.sort_unstable();
        Ok(Self { slices, data, ids })
    }

    /// The schema and baseline set that come with this version.
    ///
    /// # Errors
    /// None as released; a test holds that.
    pub fn baseline() -> Result<Self, Error> {
        Self::load(BASELINE_SCHEMA, &[BASELINE_POLICIES])
    }

    /// The ids of all policies, sorted.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    pub(super) fn slice(&self, action: &'static str, kind: Kind) -> Option<&Slice> {
        self.slices.get(&(action, kind))
    }

    /// The policies of a data action.
    pub(super) fn data(&self, action: &'static str) -> Option<&Index> {
        self.data.get(action)
    }
}

/// The schema that comes with this version.
pub const BASELINE_SCHEMA: Source<'static> =
    Source { name: "schema.cedarschema", text: include_str!("../../../policies/schema.cedarschema") };
/// The baseline policies that come with this version.
pub const BASELINE_POLICIES: Source<'static> =
    Source { name: "baseline.cedar", text: include_str!("../../../policies/baseline.cedar") };

/// Refuses too many policies before any is parsed.
fn count(policies: &[Source<'_>]) -> Result<(), Error> {
    let mut room = MAX_POLICIES;
    for source in policies {
        let starts = scan::check(source.text, Language::Policy).map_err(|f| source.refuse(f.offset, f.why))?;
        if let Some(offset) = starts.get(room) {
            return Err(source.refuse(*offset, TOO_MANY));
        }
        room -= starts.len();
    }
    Ok(())
}

/// Where a policy was written: for messages.
pub(super) struct Origin<'a> {
    pub(super) source: Source<'a>,
    pub(super) offset: usize,
}

/// Reads the policies of a file into a set, each under its `@id`.
pub(super) fn parse<'a>(
    source: Source<'a>,
    into: &mut cedar_policy::PolicySet,
    origins: &mut HashMap<String, Origin<'a>>,
) -> Result<(), Error> {
    let starts = scan::check(source.text, Language::Policy).map_err(|f| source.refuse(f.offset, f.why))?;
    let parsed = cedar_policy::PolicySet::from_str(source.text)
        .map_err(|e| source.refuse_at(&e, "not valid Cedar policies; is the file complete?"))?;
    if parsed.templates().next().is_some() {
        return Err(source.refuse(0, "templates are not supported: write each policy out"));
    }
    for policy in parsed.policies() {
        // The parser calls the policies of a file `policy0`, `policy1`, … in order.
        let position = policy.id().to_string().strip_prefix("policy").and_then(|n| n.parse::<usize>().ok());
        let offset = position.and_then(|n| starts.get(n)).copied().unwrap_or(0);
        let id = policy.annotation("id").ok_or_else(|| source.refuse(offset, "the policy has no @id"))?;
        // A policy's id follows the rule of all names, so that it can stand in an audit entry.
        if Purpose::parse(id).is_err() {
            return Err(source.refuse(offset, "the policy's @id must match [a-z0-9][a-z0-9._-]{0,62}"));
        }
        if origins.insert(id.to_owned(), Origin { source, offset }).is_some() {
            return Err(source.refuse(offset, "another policy has the same @id"));
        }
        if origins.len() > MAX_POLICIES {
            return Err(source.refuse(offset, TOO_MANY));
        }
        into.add(policy.new_id(PolicyId::new(id))).map_err(|_| source.refuse(offset, "the policy cannot be added"))?;
    }
    Ok(())
}

/// The policies of some files: each as Cedar writes it, by its id.
///
/// # Errors
/// As [`PolicySet::load`], for what does not parse.
pub(crate) fn texts(sources: &[Source<'_>]) -> Result<BTreeMap<String, String>, Error> {
    count(sources)?;
    let (mut set, mut origins) = (cedar_policy::PolicySet::new(), HashMap::new());
    sources.iter().try_for_each(|source| parse(*source, &mut set, &mut origins))?;
    Ok(set.policies().map(|policy| (policy.id().to_string(), policy.to_string())).collect())
}

fn validate(
    schema: &Schema,
    set: &cedar_policy::PolicySet,
    origins: &HashMap<String, Origin<'_>>,
) -> Result<(), Error> {
    let result = Validator::new(schema.clone()).validate_with_level(set, ValidationMode::Strict, DEREFERENCES);
    // An unknown name makes other things wrong after it, so it is told first; warnings are told last.
    let errors = result.validation_errors().map(|e| {
        let unknown =
            matches!(e, ValidationError::UnrecognizedEntityType(_) | ValidationError::UnrecognizedActionId(_));
        (e.policy_id(), if unknown { 0 } else { 1 }, what_is_wrong(e))
    });
    let warnings = result.validation_warnings().map(|w| {
        (
            w.policy_id(),
            2,
            "it can never apply, or has characters that look like others (a warning of Cedar's validator)",
        )
    });
    let mut faults: Vec<_> = errors
        .chain(warnings)
        .map(|(id, rank, why)| {
            let origin = origins.get(AsRef::<str>::as_ref(id));
            let field = origin.map_or_else(
                || "policies".to_owned(),
                |o| format!("{} line {} policy {id}", o.source.name, scan::line(o.source.text, o.offset)),
            );
            (origin.map(|o| (o.source.name, o.offset)), rank, field, why)
        })
        .collect();
    faults.sort_unstable();
    match faults.into_iter().next() {
        Some((_, _, field, why)) => Err(Error::invalid(field, why)),
        None => Ok(()),
    }
}

pub(super) const fn what_is_wrong(error: &ValidationError) -> &'static str {
    match error {
        ValidationError::UnrecognizedEntityType(_) => "it names an entity type that the schema does not have",
        ValidationError::UnrecognizedActionId(_) => "it names an action that the schema does not have",
        ValidationError::InvalidActionApplication(_) => "no action fits its principal and resource",
        ValidationError::UnsafeAttributeAccess(_) => "it reads an attribute that the schema does not have",
        ValidationError::UnsafeOptionalAttributeAccess(_) => {
            "it reads an attribute that may be absent: ask `has` first"
        }
        ValidationError::EntityDerefLevelViolation(_) => "it reads an entity that a request does not bring along",
        ValidationError::UnexpectedType(_) | ValidationError::IncompatibleTypes(_) => "its types do not fit",
        _ => "it does not fit the schema",
    }
}

type Slices = (HashMap<(&'static str, Kind), Slice>, HashMap<&'static str, Index, foldhash::fast::RandomState>);

/// One slice for each action of the code and each kind of resource that the schema allows it on; refuses a schema
/// whose shapes are not those of [`entities`].
fn slices(schema: &Schema, set: &cedar_policy::PolicySet) -> Result<Slices, &'static str> {
    let actions = schema.action_entities().map_err(|_| "its actions cannot be listed")?;
    let probe = Probe::new(schema).map_err(|NotExpressible| "entities of this version do not fit the schema")?;
    let (mut slices, mut data) = (HashMap::new(), HashMap::default());
    let mut singles = HashMap::new();
    for (names, world) in
        [(DATA_ACTIONS, World::Data), (CONSENT_ACTIONS, World::Consent), (CONTROL_ACTIONS, World::Control)]
    {
        let principal = world.principal();
        for &name in names {
            let uid = entities::action(name);
            let action = actions.get(&uid).ok_or("an action of this version is missing")?;
            let within = |group: &str| actions.is_ancestor_of(&entities::action(group), &uid);
            if World::ALL.iter().any(|other| within(other.group()) != (*other == world)) {
                return Err("an action is not in its group, Data, Consent or Control, or in another's");
            }
            if within("Release") != RELEASING_ACTIONS.contains(&name) {
                return Err("the group Release does not hold just the actions that release plaintext");
            }
            let ancestors: HashSet<_> = actions.ancestors(&uid).into_iter().flatten().collect();
            let mut fits = false;
            for &kind in world.kinds() {
                if !probe.fits(name, world, kind)? {
                    continue;
                }
                fits = true;
                let applies = |policy: &&Policy| {
                    let action = match policy.action_constraint() {
                        ActionConstraint::Any => true,
                        ActionConstraint::Eq(of) => of == uid,
                        ActionConstraint::In(of) => of.iter().any(|of| *of == uid || ancestors.contains(of)),
                    };
                    let principal = match policy.principal_constraint() {
                        PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
                        PrincipalConstraint::Eq(of) => of.type_name() == principal,
                        PrincipalConstraint::Is(of) | PrincipalConstraint::IsIn(of, _) => of == *principal,
                    };
                    let resource = match policy.resource_constraint() {
                        ResourceConstraint::Any | ResourceConstraint::In(_) => true,
                        ResourceConstraint::Eq(of) => of.type_name() == kind.type_name(),
                        ResourceConstraint::Is(of) | ResourceConstraint::IsIn(of, _) => of == *kind.type_name(),
                    };
                    action && principal && resource
                };
                if world == World::Data {
                    let policies: Vec<_> =
                        set.policies().filter(applies).map(|p| single(&mut singles, p)).collect::<Result<_, _>>()?;
                    data.insert(name, Index::new(name, action.clone(), &policies));
                    continue;
                }
                let policies = cedar_policy::PolicySet::from_policies(set.policies().filter(applies).cloned())
                    .map_err(|_| "the policies cannot be sliced")?;
                slices.insert((name, kind), Slice { policies, action: action.clone() });
            }
            if !fits {
                return Err("an action of this version applies to no resource");
            }
        }
    }
    Ok((slices, data))
}

/// Each policy is kept once, however many actions it is about.
fn single(made: &mut HashMap<PolicyId, Arc<Single>>, policy: &Policy) -> Result<Arc<Single>, &'static str> {
    Ok(match made.entry(policy.id().clone()) {
        Entry::Occupied(found) => Arc::clone(found.get()),
        Entry::Vacant(free) => Arc::clone(free.insert(Arc::new(Single::new(policy)?))),
    })
}

/// The actions of one kind of principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    Data,
    Consent,
    Control,
}

impl World {
    const ALL: [Self; 3] = [Self::Data, Self::Consent, Self::Control];

    const fn group(self) -> &'static str {
        match self {
            Self::Data => "Data",
            Self::Consent => "Consent",
            Self::Control => "Control",
        }
    }

    fn principal(self) -> &'static EntityTypeName {
        match self {
            Self::Data | Self::Consent => &NAMES.workload,
            Self::Control => &NAMES.operator,
        }
    }

    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Data => &[Kind::Dataset],
            Self::Consent => &[Kind::Tenant],
            Self::Control => &Kind::ALL,
        }
    }
}

/// Sample requests in every shape that [`entities`] produces, held against the schema once, so that the requests
/// themselves need not be.
struct Probe<'a> {
    schema: &'a Schema,
    workload: Entity,
    operator: Entity,
    resources: [(Kind, Entity); 3],
    data: [Context; 2],
    consent: [Context; 2],
    control: Context,
    custody: Context,
}

impl<'a> Probe<'a> {
    fn new(schema: &'a Schema) -> Result<Self, NotExpressible> {
        let tenant = TenantId::parse("acme").map_err(|_| NotExpressible)?;
        let dataset = DatasetId::parse("orders").map_err(|_| NotExpressible)?;
        let purpose = Purpose::parse("billing").map_err(|_| NotExpressible)?;
        let described = DatasetFacts {
            classification: Some("pii".to_owned()),
            residency: Some("eu".to_owned()),
            ..DatasetFacts::default()
        };
        let facts = Facts { suspended: false, dataset: Some(described) };
        let [plain, full_user] = EndUser::for_probe(&tenant).ok_or(NotExpressible)?;
        let description = Description::for_probe();
        let workload = entities::workload("spiffe://prod.example/a", &description, [&tenant])?;
        let operator = entities::operator(&Operator::for_probe().ok_or(NotExpressible)?)?;
        let resources = [
            (Kind::Instance, entities::instance()?),
            (Kind::Tenant, entities::tenant(&tenant, None)?),
            (Kind::Dataset, entities::dataset(&tenant, &dataset, None)?),
        ];
        // Once with all that may be absent, once without.
        let full =
            [entities::tenant(&tenant, Some(&facts))?, entities::dataset(&tenant, &dataset, facts.dataset.as_ref())?];
        let bare = resources.iter().map(|(_, entity)| entity.clone()).chain([workload.clone(), operator.clone()]);
        Entities::from_entities(bare, Some(schema)).map_err(|_| NotExpressible)?;
        Entities::from_entities(full, Some(schema)).map_err(|_| NotExpressible)?;
        let granted_roles = BTreeSet::from(["reader"]);
        let asked = Asked {
            now: Timestamp(0),
            purpose: &purpose,
            has_subject: true,
            items: 1,
            consent: true,
            granted_roles: &granted_roles,
            end_user: None,
        };
        let data = [
            entities::data_context(&asked)?,
            entities::data_context(&Asked { end_user: Some(&full_user), granted_roles: &BTreeSet::new(), ..asked })?,
        ];
        let consent = [&plain, &full_user].map(|user| entities::consent_context(Timestamp(0), user));
        let [without, with] = consent;
        let consent = [without?, with?];
        let control = entities::control_context(Timestamp(0), None)?;
        let named = Custody::parse("split(local:a,local:b)").map_err(|_| NotExpressible)?;
        let custody = entities::control_context(Timestamp(0), Some(&named))?;
        Ok(Self { schema, workload, operator, resources, data, consent, control, custody })
    }

    /// Whether the schema allows the action on the kind of resource; an error if anything else does not fit.
    fn fits(&self, action: &str, world: World, kind: Kind) -> Result<bool, &'static str> {
        let (principal, contexts) = match world {
            World::Data => (&self.workload, self.data.iter().collect()),
            World::Consent => (&self.workload, self.consent.iter().collect()),
            World::Control if CUSTODY_ACTIONS.contains(&action) => (&self.operator, vec![&self.control, &self.custody]),
            World::Control => (&self.operator, vec![&self.control]),
        };
        let Some((_, resource)) = self.resources.iter().find(|(of, _)| *of == kind) else {
            return Ok(false);
        };
        let uid = entities::action(action);
        for context in contexts {
            let request =
                Request::new(principal.uid(), uid.clone(), resource.uid(), context.clone(), Some(self.schema));
            match request {
                Ok(_) => {}
                Err(RequestValidationError::InvalidResourceType(_)) => return Ok(false),
                Err(_) => return Err("the principal or context of an action is not what this version passes"),
            }
        }
        Ok(true)
    }
}
