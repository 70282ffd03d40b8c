//! Mutants of the baseline, made by machine from its text: each that lets somebody through whom a guard keeps out is
//! found by the proof, and refused by the guards in Rust alone.
//!
//! The baseline is deep: most of what one policy gives away another still forbids. So its permits are weakened with the
//! forbids taken away, and its forbids are weakened beside a permit for everything; one that another still covers there
//! is taken alone.

use std::collections::BTreeSet;

use vault_core::policy::prove::Report;
use vault_core::policy::rehearse::{Scenes, ask as rehearse};
use vault_core::policy::{Authorizer, BASELINE_POLICIES, BASELINE_SCHEMA, PolicySet, Registry};

use super::{ask, oracle, refuted, solver, source};

/// One policy of the baseline.
struct Policy {
    id: String,
    permits: bool,
    text: String,
}

fn baseline() -> Vec<Policy> {
    let mut policies = Vec::new();
    for part in BASELINE_POLICIES.text.split("@id(").skip(1) {
        let code: String =
            part.lines().filter(|line| !line.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
        let end = code.rfind(';').unwrap();
        let id = code.split('"').nth(1).unwrap().to_owned();
        let permits = code.contains("permit (");
        policies.push(Policy { id, permits, text: format!("@id({};\n", &code[..end]) });
    }
    policies
}

/// The scope alone, with its condition taken away: for a forbid this is no weakening.
fn without_condition(text: &str) -> String {
    let end = text.find("when {").or_else(|| text.find("unless {")).unwrap_or(text.len());
    format!("{};\n", text[..end].trim_end().trim_end_matches(';'))
}

/// Each conjunct of the condition taken away, one at a time: `true` in its place.
fn without_conjuncts(text: &str) -> Vec<String> {
    let Some(start) = text.find("when {").map(|at| at + 6).or_else(|| text.find("unless {").map(|at| at + 8)) else {
        return Vec::new();
    };
    let end = text.rfind('}').unwrap();
    let (mut depth, mut from, mut parts) = (0, start, Vec::new());
    for (at, byte) in text.bytes().enumerate().take(end).skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'&' if depth == 0 && text[at..].starts_with("&&") => {
                parts.push(from..at);
                from = at + 2;
            }
            _ => {}
        }
    }
    parts.push(from..end);
    // `x has a && x.a…` belong together: without the first, the second does not validate, and the set is refused.
    parts.into_iter().map(|part| format!("{} true {}", &text[..part.start], &text[part.end..])).collect()
}

fn any_principal(text: &str) -> String {
    without_condition(text)
        .replace("principal is Vault::Workload", "principal")
        .replace("principal is Vault::Operator", "principal")
}

fn any_action(text: &str) -> String {
    let from = text.find("action").unwrap();
    let to = text.rfind("resource").filter(|_| !text.contains("when") && !text.contains("unless"));
    let to = to.or_else(|| text.find("resource\n)").or_else(|| text.find("resource)"))).unwrap();
    without_condition(&format!("{}action, {}", &text[..from], &text[to..]))
}

fn all_but(policies: &[Policy], out: &str, with: &str, keep: impl Fn(&Policy) -> bool) -> String {
    let kept = policies.iter().filter(|policy| policy.id != out && keep(policy)).map(|policy| policy.text.as_str());
    kept.chain([with]).collect::<Vec<_>>().join("\n")
}

/// The one forbid that the permits need to keep every guard about principals: they ask for a fresh second factor, and that
/// a fresh one is one is nothing that a policy knows.
const MFA: &str = "never-consent-without-mfa";
const EVERYTHING: &str = "@id(\"everything\") permit (principal, action, resource);\n";

/// Requests that each break one property and no other, and the guard in Rust that refuses each.
const REHEARSED: &str = include_str!("rehearsed.toml");

struct Bed {
    command: vault_core::policy::prove::SolverCommand,
    trials: Vec<oracle::Trial>,
    scenes: Scenes,
    registry: String,
}

impl Bed {
    /// The properties of a set that are refuted, or `None` if it is refused at load. The second opinion has to agree, and
    /// the guards in Rust have to refuse whatever the set says.
    fn judge(&self, text: &str) -> Option<(BTreeSet<String>, Report)> {
        let set = PolicySet::load(BASELINE_SCHEMA, &[source(text)]).ok()?;
        let authorizer = Authorizer::new(set, Registry::parse(&self.registry, "prod.example").unwrap());
        for scene in &self.scenes.scenes {
            let outcome = rehearse(&authorizer, scene).unwrap();
            assert!(scene.expected.as_ref().unwrap().is(&outcome), "{}: {outcome}\n{text}", scene.name);
        }
        let report = ask(&self.command, &[source(text)], None);
        let found: BTreeSet<String> = refuted(&report).into_iter().map(str::to_owned).collect();
        let unknown = report.properties.iter().flat_map(|p| &p.findings).find(|f| f.unknown.is_some());
        assert!(unknown.is_none(), "{unknown:?}\n{text}");
        for property in oracle::broken(text, &self.trials) {
            assert!(found.contains(property), "the proof misses {property} of\n{text}\n{report}");
        }
        Some((found, report))
    }
}

fn list(of: &BTreeSet<String>) -> String {
    if of.is_empty() { "nothing".to_owned() } else { of.iter().cloned().collect::<Vec<_>>().join(", ") }
}

#[test]
fn every_baseline_policy_weakened_is_caught() {
    let Some(command) = solver::solver("every_baseline_policy_weakened_is_caught") else { return };
    let bed = Bed {
        command,
        trials: oracle::trials(),
        scenes: Scenes::parse("rehearsed.toml", REHEARSED).unwrap(),
        registry: include_str!("../../../policies/registry.toml").to_owned(),
    };
    let policies = baseline();
    assert_eq!(policies.len(), PolicySet::baseline().unwrap().ids().len());
    let permits_alone = bed.judge(&all_but(&policies, "", "", |policy| policy.permits || policy.id == MFA)).unwrap().0;
    let forbids_alone = bed.judge(&all_but(&policies, "", EVERYTHING, |policy| !policy.permits)).unwrap().0;
    assert!(forbids_alone.iter().all(|property| property.ends_with("-by-permits-alone")), "{forbids_alone:?}");
    let nothing_forbidden = bed.judge(EVERYTHING).unwrap().0;
    for policy in &policies {
        let (mutants, known) = if policy.permits {
            let mut mutants =
                vec![("for any principal", any_principal(&policy.text)), ("for any action", any_action(&policy.text))];
            mutants.extend(without_conjuncts(&policy.text).into_iter().map(|text| ("without a conjunct", text)));
            let whole = |text: String| all_but(&policies, &policy.id, &text, |other| other.permits || other.id == MFA);
            (mutants.into_iter().map(|(how, text)| (how, whole(text))).collect::<Vec<_>>(), &permits_alone)
        } else {
            let mut mutants = vec![("dropped", String::new())];
            let weaker = without_conjuncts(&policy.text);
            if weaker.len() > 1 {
                mutants.extend(weaker.into_iter().map(|text| ("without a conjunct", text)));
            }
            let whole =
                |text: &str| all_but(&policies, &policy.id, &format!("{text}{EVERYTHING}"), |other| !other.permits);
            (mutants.into_iter().map(|(how, text)| (how, whole(&text))).collect(), &forbids_alone)
        };
        let mut caught = false;
        for (how, text) in mutants {
            let verdict = match bed.judge(&text) {
                None => "refused at load".to_owned(),
                Some((found, _)) => {
                    let new: BTreeSet<String> = found.difference(known).cloned().collect();
                    caught |= !new.is_empty();
                    list(&new)
                }
            };
            println!("measured: {} {how}: {verdict}", policy.id);
        }
        if !caught && !policy.permits {
            let (alone, _) = bed.judge(&format!("{}{EVERYTHING}", policy.text)).unwrap();
            let kept: BTreeSet<String> = nothing_forbidden.difference(&alone).cloned().collect();
            caught = !kept.is_empty();
            println!("measured: {} alone keeps: {}", policy.id, list(&kept));
        }
        assert!(caught, "no mutant of {} is caught", policy.id);
    }
    // In the whole baseline, where one policy covers for another: what is given away is found, and what is not is not.
    for policy in policies.iter().filter(|policy| !policy.permits) {
        let text = all_but(&policies, &policy.id, "", |_| true);
        let (found, _) = bed.judge(&text).unwrap();
        println!("measured: the baseline without {}: {}", policy.id, list(&found));
    }
}

/// Asked behind the policies, so it shows only where they let everybody through.
const WITHOUT_CONSENT: &str = r#"
workload_domain = "prod.example"
policies = []

[[test]]
name = "plaintext that takes a consent, without one"
principal = "spiffe://prod.example/ns/shop/sa/billing"
action = "Decrypt"
tenant = "acme"
dataset = "orders"
purpose = "billing"
resource = { consent_required = true }
expect = "deny"
check = "consent"

[[test]]
name = "for another purpose"
principal = "spiffe://prod.example/ns/shop/sa/billing"
action = "Decrypt"
tenant = "acme"
dataset = "orders"
purpose = "billing"
resource = { consent_required = true }
consents = [{ purposes = ["marketing"] }]
expect = "deny"
check = "consent"

[[test]]
name = "with it"
principal = "spiffe://prod.example/ns/shop/sa/billing"
action = "Decrypt"
tenant = "acme"
dataset = "orders"
purpose = "billing"
resource = { consent_required = true }
consents = [{ purposes = ["billing"] }]
expect = "allow"
by = ["everything"]
"#;

#[test]
fn the_guard_in_rust_asks_for_consent_where_the_policies_do_not() {
    let set = PolicySet::load(BASELINE_SCHEMA, &[source(EVERYTHING)]).unwrap();
    let registry = Registry::parse(include_str!("../../../policies/registry.toml"), "prod.example").unwrap();
    let authorizer = Authorizer::new(set, registry);
    let scenes = Scenes::parse("consent.toml", WITHOUT_CONSENT).unwrap().scenes;
    assert_eq!(scenes.len(), 3);
    for scene in &scenes {
        let outcome = rehearse(&authorizer, scene).unwrap();
        assert!(scene.expected.as_ref().unwrap().is(&outcome), "{}: {outcome}", scene.name);
    }
}
