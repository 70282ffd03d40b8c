//! The authorizer, which leaves policies out and keeps decisions, against Cedar on the whole set: random sets, random
//! requests again and again, while policies, registry, consents, suspension and the clock change.

use std::fmt::Write as _;
use std::sync::Arc;

use super::differential::Dice;
use super::naive::{Described, Naive, Said};
use super::*;
use crate::error::Check;
use crate::id::Subject;
use crate::policy::screen::View;
use crate::principal::EndUser;

/// Decisions in one run; `VAULT_TEST_CASES` asks for another number.
const CASES: usize = 12_000;
/// Decisions between two epochs.
const EACH: usize = 150;
/// Different requests between them.
const REQUESTS: usize = 10;
/// What each authorizer keeps at most: nothing, hardly anything, all.
const CAPACITIES: [usize; 3] = [0, 2, 1_000];
const TENANTS: [&str; 2] = ["acme", "globex"];
const DATASETS: [&str; 2] = ["orders", "people"];
const ROLES: [&str; 3] = ["reader", "writer", "auditor"];
const DESK: &str = "spiffe://prod.example/tenant/acme/region/eu/sa/desk";

/// Conditions that every data action of a workload can be asked for; the last two may fail, always or for batches.
const CONDITIONS: [&str; 46] = [
    "principal.service == \"billing\"",
    "principal.service != \"desk\"",
    "\"desk\" == principal.service",
    "principal.environment == \"production\"",
    "principal.roles.contains(\"reader\")",
    "principal.roles.containsAll([\"reader\", \"writer\"])",
    "principal.tenants.contains(resource.tenant)",
    "principal.tenants.contains(Vault::Tenant::\"globex\")",
    "principal == Vault::Workload::\"spiffe://prod.example/ns/shop/sa/billing\"",
    "resource == Vault::Dataset::\"acme/orders\"",
    "resource.tenant == Vault::Tenant::\"acme\"",
    "resource.tenant has suspended && !resource.tenant.suspended",
    "(if context.hasSubject then resource else resource).tenant has suspended",
    "(if context.consent then resource.tenant else resource.tenant) has suspended",
    "action == Vault::Action::\"Decrypt\"",
    "action in Vault::Action::\"Release\"",
    "[Vault::Action::\"Encrypt\", Vault::Action::\"Rewrap\"].contains(action)",
    "resource has classification",
    "resource has classification && resource.classification == \"restricted\"",
    "resource has classification && [\"pii\", \"restricted\"].contains(resource.classification)",
    "resource has residency && resource.residency == \"eu\"",
    "resource has residency && resource.residency like \"e*\"",
    "resource has consentRequired && (!resource.consentRequired || context.consent)",
    "context.consent",
    "context.hasSubject",
    "context.items > 1",
    "context.items == 2",
    "context.items >= 2",
    "2 <= context.items",
    "7 > context.items",
    "context.purpose == \"billing\"",
    "[\"billing\", \"audit\"].contains(context.purpose)",
    "context.grantedRoles.contains(\"reader\")",
    "context.grantedRoles.isEmpty()",
    "context has endUser",
    "context has endUser && context.endUser.mfaFresh",
    "context has endUser && context.endUser.mfa && context.endUser.subject == \"ann\"",
    "context has endUser && context.endUser.tenant == resource.tenant",
    "context has endUser && context.endUser.roles.contains(\"auditor\")",
    "context has endUser && context.endUser.amr.containsAny([\"otp\", \"hwk\"])",
    "context has endUser && context.endUser has acr && context.endUser.acr == \"high\"",
    "context has endUser && context.endUser has authAge && context.endUser.authAge < 2",
    "context.now < datetime(\"2026-11-24T06:40:00.200Z\")",
    "context.now.toTime() < duration(\"6h40m1s\")",
    "context.items + 9223372036854775806 > 5",
    "context.now.offset(duration(\"106751991167d\")) > context.now",
];

fn condition(dice: &mut Dice, depth: usize) -> String {
    if depth == 0 || dice.one_in(3) {
        // Of those that fail about one in a set, or nothing else would show.
        let good = CONDITIONS.len() - 2;
        let one = if dice.one_in(20) { good + dice.below(2) } else { dice.below(good) };
        return format!("({})", CONDITIONS[one]);
    }
    let mut part = || condition(dice, depth - 1);
    let (one, other, third) = (part(), part(), part());
    match dice.below(8) {
        0..4 => format!("({one} && {other})"),
        4 | 5 => format!("({one} || {other})"),
        6 => format!("!{one}"),
        _ => format!("(if {one} then {other} else {third})"),
    }
}

/// A set that loads: seldom one contradicts itself, which the validator refuses.
fn policies(dice: &mut Dice) -> (String, PolicySet) {
    for _ in 0..20 {
        let text = text(dice);
        if let Ok(set) = load(&text) {
            return (text, set);
        }
    }
    panic!("twenty sets in a row do not load: {:?}", load(&text(dice)));
}

fn text(dice: &mut Dice) -> String {
    let mut text = String::new();
    for n in 0..1 + dice.below(16) {
        let effect = if dice.one_in(3) { "forbid" } else { "permit" };
        let principal = match dice.below(4) {
            0 => "principal == Vault::Workload::\"spiffe://prod.example/ns/shop/sa/billing\"".to_owned(),
            1 => format!("principal == Vault::Workload::\"{DESK}\""),
            _ => "principal is Vault::Workload".to_owned(),
        };
        let action = [
            "action in Vault::Action::\"Data\"",
            "action == Vault::Action::\"Decrypt\"",
            "action in Vault::Action::\"Release\"",
            "action in [Vault::Action::\"Encrypt\", Vault::Action::\"Rewrap\"]",
        ][dice.below(4)];
        let resource =
            ["resource", "resource is Vault::Dataset", "resource == Vault::Dataset::\"acme/people\""][dice.below(3)];
        write!(text, "@id(\"p{n}\") {effect} ({principal}, {action}, {resource})").unwrap();
        for clause in ["when", "unless"] {
            if dice.one_in(2) {
                write!(text, "\n  {clause} {{ {} }}", condition(dice, 2)).unwrap();
            }
        }
        text.push_str(";\n");
    }
    text
}

/// The three workloads that ask; a registry gives each some roles, and the first some tenants.
fn described(dice: &mut Dice) -> (Vec<Described>, String) {
    let billing_tenants = if dice.one_in(3) { vec!["acme"] } else { TENANTS.to_vec() };
    let one = |id: &str, service, environment, tenants, roles| Described {
        id: id.to_owned(),
        service,
        environment,
        tenants,
        roles,
    };
    let who = vec![
        one(BILLING, "billing", "production", billing_tenants, dice.some(&ROLES)),
        one("spiffe://prod.example/ns/shop/sa/signup", "signup", "test", vec!["acme"], dice.some(&ROLES)),
        one(DESK, "desk", "production", vec!["acme"], dice.some(&ROLES)),
    ];
    let mut text = String::new();
    for (n, of) in who.iter().enumerate() {
        let id = if n == 2 { "spiffe://prod.example/tenant/{tenant}/region/*/sa/desk" } else { &of.id };
        let (service, environment) = (of.service, of.environment);
        write!(text, "[[workload]]\nid = {id:?}\nservice = {service:?}\nenvironment = {environment:?}\n").unwrap();
        writeln!(text, "roles = {:?}", of.roles).unwrap();
        if n != 2 {
            writeln!(text, "tenants = {:?}", of.tenants).unwrap();
        }
    }
    (who, text)
}

/// One request and what the store says to it.
struct Asked {
    who: usize,
    action: usize,
    request: DataRequest,
    facts: Facts,
}

fn end_user(dice: &mut Dice, now: Timestamp) -> EndUser {
    let fresh = [None, Some(now.plus_millis(40)), Some(now.plus_millis(100_000))][dice.below(3)];
    let tenant = if dice.one_in(10) { "globex" } else { "acme" };
    EndUser::for_test(["ann", "bob"][dice.below(2)], tenant, fresh).claiming(
        dice.some(&ROLES),
        dice.some(&["otp", "pwd"]),
        [None, Some("high"), Some("low")][dice.below(3)],
        [None, Some(now)][dice.below(2)],
    )
}

impl Asked {
    fn roll(dice: &mut Dice, who: &[Described], now: Timestamp) -> Self {
        let number = dice.below(who.len());
        let words = |dice: &mut Dice, of: [&str; 2]| (!dice.one_in(3)).then(|| of[dice.below(2)].to_owned());
        let request = DataRequest {
            dataset: DatasetId::parse(DATASETS[dice.below(2)]).unwrap(),
            purpose: Purpose::parse(["billing", "marketing"][dice.below(2)]).unwrap(),
            subject: dice.one_in(2).then(|| Subject::parse("s").unwrap()),
            end_user: dice.one_in(2).then(|| Arc::new(end_user(dice, now))),
            items: [1, 1, 2, 7][dice.below(4)],
            ..ask(if dice.one_in(4) { "globex" } else { "acme" })
        };
        let grant = GrantFacts {
            id: GrantId([1; 16]),
            workload: who[number].id.clone(),
            roles: vec![ROLES[dice.below(2)].to_owned()],
            until: now.plus_millis(60),
        };
        let dataset = DatasetFacts {
            classification: words(dice, ["restricted", "pii"]),
            residency: words(dice, ["eu", "us"]),
            consent_required: dice.one_in(3),
            grants: if dice.one_in(3) { [grant].into() } else { [].into() },
            ..DatasetFacts::default()
        };
        let mut asked = Self { who: number, action: dice.below(3), request, facts: with(dataset) };
        asked.flip_consent(now);
        asked
    }

    fn flip_consent(&mut self, now: Timestamp) {
        let dataset = self.facts.dataset.as_mut().unwrap();
        let consent = ConsentFacts {
            id: ConsentId([2; 16]),
            purposes: vec![Purpose::parse("billing").unwrap()],
            from: Timestamp(0),
            until: Some(now.plus_millis(30)),
        };
        dataset.consents = if dataset.consents.is_empty() { [consent].into() } else { [].into() };
    }
}

fn with(dataset: DatasetFacts) -> Facts {
    Facts { suspended: false, dataset: Some(dataset) }
}

/// An authorizer, and what it should do.
struct World {
    authorizer: Authorizer,
    text: String,
    naive: Naive,
    who: Vec<Described>,
    asked: Vec<Asked>,
}

impl World {
    fn new(capacity: usize) -> Self {
        let authorizer = Authorizer::caching(set(""), Registry::empty(), capacity);
        Self { authorizer, text: String::new(), naive: Naive::new(""), who: Vec::new(), asked: Vec::new() }
    }

    /// Another epoch: other policies, another registry, or both.
    fn swap(&mut self, dice: &mut Dice, now: Timestamp) {
        let (who, entries) = described(dice);
        if self.who.is_empty() || dice.one_in(2) {
            let (text, set) = policies(dice);
            (self.naive, self.text) = (Naive::new(&text), text);
            self.authorizer.swap(set, registry(&entries));
        } else {
            self.authorizer.swap_registry(registry(&entries));
        }
        self.asked = (0..REQUESTS).map(|_| Asked::roll(dice, &who, now)).collect();
        self.who = who;
    }

    /// One decision both ways. Answers whether it was allowed, and whether a policy failed.
    fn compare(&self, asked: &Asked, now: Timestamp) -> Said {
        let (who, request, facts) = (&self.who[asked.who], &asked.request, &asked.facts);
        let workload = Workload::for_test(&who.id);
        let action = ["Encrypt", "Decrypt", "Rewrap"][asked.action];
        let ours = match asked.action {
            0 => outcome(self.authorizer.authorize_data::<Encrypt>(&workload, request.clone(), Some(facts), now)),
            1 => outcome(self.authorizer.authorize_data::<Decrypt>(&workload, request.clone(), Some(facts), now)),
            _ => outcome(self.authorizer.authorize_data::<Rewrap>(&workload, request.clone(), Some(facts), now)),
        };
        let dataset = facts.dataset.as_ref().unwrap();
        let said = self.naive.says(action, who, request, dataset, now);
        let other = request.end_user.as_ref().is_some_and(|user| user.tenant() != &request.tenant);
        let covered = dataset.consents.iter().any(|consent| consent.covers(&request.purpose, now));
        let expected = if !who.tenants.contains(&request.tenant.as_str()) {
            (Some(Check::Registry), Vec::new())
        } else if other {
            (Some(Check::EndUser), Vec::new())
        } else if facts.suspended {
            (Some(Check::Suspended), Vec::new())
        } else if !said.allows {
            (Some(Check::Policy), said.policies.clone())
        } else if action == "Decrypt" && dataset.consent_required && !covered {
            (Some(Check::Consent), Vec::new())
        } else {
            (None, said.policies.clone())
        };
        assert_eq!(ours, expected, "{action} at {now:?} by {who:?}\n{request:?}\n{facts:?}\n{said:?}\n{}", self.text);
        said
    }
}

fn outcome<A: Action>(of: Result<Permit<A>, Refusal>) -> (Option<Check>, Vec<String>) {
    match of {
        Ok(permit) => (None, permit.decision().policies.clone()),
        Err(refusal) => (Some(refusal.check), refusal.decision.policies),
    }
}

#[test]
fn agrees_with_cedar_on_the_whole_set() {
    let cases = std::env::var("VAULT_TEST_CASES").ok().map_or(CASES, |n| n.parse().unwrap());
    let mut dice = Dice(0x00B1_1D5A_17E0_0002);
    let mut now = NOW;
    let mut worlds = CAPACITIES.map(World::new);
    let (mut allowed, mut failed, mut kept) = (0, 0, 0);
    for round in 0..cases.div_ceil(EACH) {
        if round % 8 == 0 {
            now = NOW;
        }
        let swapped = dice.below(worlds.len());
        kept += worlds[swapped].authorizer.counts().2;
        for (n, world) in worlds.iter_mut().enumerate() {
            if n == swapped || world.who.is_empty() {
                world.swap(&mut dice, now);
            }
        }
        for _ in 0..EACH {
            // The keeping ones more often: they have more to get wrong.
            let world = &mut worlds[[0, 1, 1, 2, 2, 2, 2, 2][dice.below(8)]];
            let number = dice.below(REQUESTS);
            let asked = &mut world.asked[number];
            match dice.below(12) {
                0 => asked.flip_consent(now),
                1 => asked.facts.suspended = !asked.facts.suspended,
                2 => asked.request.items = [1, 2][dice.below(2)],
                _ => {}
            }
            now = now.plus_millis([0, 0, 1, 3, 20][dice.below(5)]);
            let said = world.compare(&world.asked[number], now);
            allowed += usize::from(said.allows);
            failed += usize::from(said.failed);
        }
    }
    let kept = kept + worlds.iter().map(|world| world.authorizer.counts().2).sum::<u64>();
    assert!(allowed > cases / 20 && failed > cases / 100, "{allowed} allowed and {failed} failed of {cases}");
    assert!(kept > cases as u64 / 20, "too few decisions were kept: {kept} of {cases}");
}

#[test]
fn what_is_kept_is_bounded_and_goes_with_its_epoch() {
    let authorizer = Authorizer::caching(PolicySet::baseline().unwrap(), registry(REGISTRY), 8);
    for n in 0..100 {
        let request = DataRequest { purpose: Purpose::parse(&format!("p{n}")).unwrap(), ..ask("acme") };
        assert!(data::<Decrypt>(&authorizer, BILLING, request).is_ok());
        let (plans, verdicts, _) = authorizer.counts();
        assert!((1..=8).contains(&plans) && (1..=32).contains(&verdicts), "{plans} {verdicts}");
    }
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_ok());
    let before = authorizer.counts().2;
    assert!(data::<Decrypt>(&authorizer, BILLING, ask("acme")).is_ok());
    assert_eq!(authorizer.counts().2, before + 1);
    authorizer.swap_registry(registry(REGISTRY));
    assert_eq!(authorizer.counts(), (0, 0, 0));
}

#[test]
fn what_the_time_decides_is_not_kept() {
    let at = rfc3339(NOW.plus_millis(1)).unwrap();
    let text = format!(
        "@id(\"p\") permit (principal is Vault::Workload, action in Vault::Action::\"Data\", resource)
         when {{ principal.service == \"billing\" && context.now < datetime(\"{at}\") }};"
    );
    let authorizer = Authorizer::new(set(&text), registry(REGISTRY));
    let who = Workload::for_test(BILLING);
    let at = |now| authorizer.authorize_data::<Decrypt>(&who, ask("acme"), Some(&facts()), now).is_ok();
    for _ in 0..3 {
        assert!(at(NOW) && !at(NOW.plus_millis(1)));
    }
    assert_eq!(authorizer.counts(), (1, 0, 0));
    // A policy about another service does not keep the decisions on this one from being kept.
    let other = text.replace("\"billing\"", "\"signup\"");
    let all = "@id(\"all\") permit (principal, action, resource);";
    authorizer.swap_policies(set(&format!("{other}{all}")));
    assert!(at(NOW) && at(NOW.plus_millis(1)));
    assert_eq!(authorizer.counts(), (1, 1, 1));
}

/// Whether the order of a condition's parts is kept in mind: what is evaluated before a comparison and may fail keeps the
/// policy from being left out by it, what comes after does not.
#[test]
fn a_policy_that_would_fail_is_never_left_out() {
    let (fails, other) = ("context.items + 9223372036854775807 > 5", "principal.service == \"signup\"");
    let forbid = |condition: &str| {
        let scope = "principal is Vault::Workload, action in Vault::Action::\"Data\", resource";
        let all = "@id(\"all\") permit (principal, action, resource);";
        let authorizer =
            Authorizer::new(set(&format!("{all}\n@id(\"f\") forbid ({scope}) {condition};")), registry(REGISTRY));
        let once = || data::<Decrypt>(&authorizer, BILLING, ask("acme")).map_err(|refusal| refusal.decision.policies);
        let first = once().map(drop);
        assert_eq!(once().map(drop), first);
        first
    };
    let denied = Err(vec!["f".to_owned()]);
    assert_eq!(forbid(&format!("when {{ {fails} && {other} }}")), denied);
    assert_eq!(forbid(&format!("when {{ {other} && {fails} }}")), Ok(()));
    assert_eq!(forbid(&format!("when {{ {fails} }} when {{ {other} }}")), denied);
    assert_eq!(forbid(&format!("when {{ {other} }} unless {{ {fails} }}")), Ok(()));
    assert_eq!(forbid(&format!("unless {{ {fails} || !({other}) }}")), denied);
    assert_eq!(forbid(&format!("unless {{ !({other}) || {fails} }}")), Ok(()));
    assert_eq!(forbid(&format!("when {{ if {other} then {fails} else false }}")), Ok(()));
    assert_eq!(forbid(&format!("when {{ if {other} then false else {fails} }}")), denied);
}

/// Of many policies, only those about this service, tenant, dataset, label or purpose are looked at.
#[test]
fn unrelated_policies_are_left_out() {
    let scope = "action in Vault::Action::\"Data\"";
    let mut text = String::new();
    for (n, (service, tenant)) in [("billing", "acme"), ("desk", "globex"), ("signup", "initech")].iter().enumerate() {
        for (m, rule) in [
            format!("permit (principal is Vault::Workload, {scope}, resource) when {{ principal.service == \"{service}\" }}"),
            format!("forbid (principal, {scope}, resource == Vault::Dataset::\"{tenant}/orders\") unless {{ context.consent }}"),
            format!("forbid (principal, {scope}, resource) when {{ resource.tenant == Vault::Tenant::\"{tenant}\" && context.items > 9 }}"),
            format!("forbid (principal, {scope}, resource) when {{ [\"{tenant}\", \"x\"].contains(context.purpose) }}"),
            format!("permit (principal == Vault::Workload::\"spiffe://prod.example/{service}\", {scope}, resource)"),
        ]
        .iter()
        .enumerate()
        {
            writeln!(text, "@id(\"p{n}{m}\") {rule};").unwrap();
        }
    }
    let (set, registry) = (set(&text), registry(REGISTRY));
    let (request, facts) = (ask("acme"), facts());
    let found = set.data("Decrypt").unwrap().find(&View {
        principal: BILLING,
        grant: &registry.find(BILLING).unwrap(),
        tenant: &request.tenant,
        id: "acme/orders",
        dataset: facts.dataset.as_ref().unwrap(),
        purpose: request.purpose.as_str(),
        asked: None,
    });
    let mut ids: Vec<_> = found.iter().map(|policy| policy.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["p00", "p01", "p02"]);
}
