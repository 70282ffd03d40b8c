//! The authorizer against a second, independent statement of the baseline's rules in plain Rust, on random requests.

use std::fmt::Write as _;
use std::sync::Arc;

use super::*;
use crate::error::Check;
use crate::principal::EndUser;

/// Requests in one run; `VAULT_TEST_CASES` asks for another number.
const CASES: usize = 10_000;
/// Requests between two registries.
const EACH: usize = 50;
const TENANTS: [&str; 4] = ["acme", "acme2", "globex", "initech"];
const ROLES: [&str; 4] = ["reader", "rewrapper", "writer", "auditor"];

/// xorshift64*: any numbers will do, the same each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % n
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        of.iter().copied().filter(|_| self.one_in(2)).collect()
    }
}

/// One registry entry, as the model keeps it: the text before and after the tenant or the free segment.
struct Entry {
    before: String,
    after: &'static str,
    /// `None`: the segment between is the tenant.
    tenants: Option<Vec<&'static str>>,
    /// The segment between is free.
    star: bool,
    roles: Vec<&'static str>,
}

struct World {
    entries: Vec<Entry>,
}

impl World {
    fn roll(dice: &mut Dice) -> Self {
        let entries = (0..4)
            .map(|n| {
                let roles = dice.some(&ROLES);
                let mut tenants = dice.some(&TENANTS);
                if tenants.is_empty() {
                    tenants.push("acme");
                }
                let before = format!("spiffe://prod.example/n{n}");
                match dice.below(3) {
                    0 => Entry { before, after: "/sa/x", tenants: None, star: false, roles },
                    1 => Entry { before, after: "/sa/x", tenants: Some(tenants), star: true, roles },
                    _ => Entry { before, after: "", tenants: Some(tenants), star: false, roles },
                }
            })
            .collect();
        Self { entries }
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let middle = match (&entry.tenants, entry.star) {
                (None, _) => "/{tenant}",
                (_, true) => "/*",
                _ => "",
            };
            let id = format!("{}{middle}{}", entry.before, entry.after);
            writeln!(text, "[[workload]]\nid = {id:?}\nservice = \"s\"\nenvironment = \"e\"").unwrap();
            writeln!(text, "roles = {:?}", entry.roles).unwrap();
            if let Some(tenants) = &entry.tenants {
                writeln!(text, "tenants = {tenants:?}").unwrap();
            }
        }
        text
    }

    fn someone(&self, dice: &mut Dice) -> String {
        let entry = &self.entries[dice.below(self.entries.len())];
        let between = ["", "/acme", "/globex", "/Acme", "/a/b"][dice.below(5)];
        let after = if dice.one_in(8) { "/other" } else { entry.after };
        format!("{}{between}{after}", entry.before)
    }

    /// The rules of the baseline, said once more.
    fn expected(&self, asked: &Asked<'_>, facts: Option<&Facts>) -> Option<Check> {
        let Asked { who, action, tenant, .. } = *asked;
        let mut roles = None;
        for entry in &self.entries {
            let Some(between) = who.strip_prefix(entry.before.as_str()).and_then(|s| s.strip_suffix(entry.after))
            else {
                continue;
            };
            let segment = between.strip_prefix('/').filter(|s| !s.is_empty() && !s.contains('/'));
            let listed = match &entry.tenants {
                None => segment == Some(tenant) && TENANTS.contains(&tenant),
                Some(tenants) if entry.star => segment.is_some() && tenants.contains(&tenant),
                Some(tenants) => between.is_empty() && tenants.contains(&tenant),
            };
            if listed {
                roles = Some(&entry.roles);
            }
        }
        let Some(roles) = roles else { return Some(Check::Registry) };
        if asked.user.is_some_and(|user| user.expired || user.tenant != tenant) {
            return Some(Check::EndUser);
        }
        let Some(facts) = facts else { return Some(Check::Policy) };
        if facts.suspended {
            return Some(Check::Suspended);
        }
        let needed = [("Encrypt", "writer"), ("Decrypt", "reader"), ("Rewrap", "rewrapper")];
        let role = needed.iter().find(|(a, _)| *a == action).unwrap().1;
        let granted = asked.grants.iter().any(|grant| grant.for_whom && grant.role == role && grant.ends_in > 0);
        let Some(dataset) = &facts.dataset else { return Some(Check::Policy) };
        let released = if action == "Decrypt" {
            let consented = !dataset.consent_required
                || asked.consents.iter().any(|c| c.purpose == "billing" && c.begins_in <= 0 && c.ends_in > 0);
            let user = match dataset.classification.as_deref() {
                Some("restricted") => asked.user.is_some_and(|user| user.fresh_for > 0),
                Some("confidential") => asked.user.is_some(),
                _ => true,
            };
            consented && user
        } else {
            true
        };
        (!released || !(granted || roles.contains(&role))).then_some(Check::Policy)
    }
}

/// What a request says, as the model keeps it. Times are milliseconds from now.
struct Asked<'a> {
    who: &'a str,
    action: &'a str,
    tenant: &'a str,
    user: Option<&'a User>,
    consents: &'a [Consent],
    grants: &'a [Grant],
}

#[derive(Debug)]
struct User {
    tenant: &'static str,
    expired: bool,
    /// 0: there was no second factor.
    fresh_for: u64,
}

#[derive(Debug)]
struct Consent {
    purpose: &'static str,
    begins_in: i64,
    ends_in: i64,
}

#[derive(Debug)]
struct Grant {
    for_whom: bool,
    role: &'static str,
    ends_in: i64,
}

fn at(offset: i64) -> Timestamp {
    Timestamp(NOW.0.saturating_add_signed(offset))
}

impl User {
    fn roll(dice: &mut Dice) -> Self {
        let tenant = TENANTS[dice.below(2)];
        Self { tenant, expired: dice.one_in(8), fresh_for: [0, 0, 1, 60_000][dice.below(4)] }
    }

    fn proven(&self) -> EndUser {
        let user = EndUser::for_test("ann", self.tenant, (self.fresh_for > 0).then(|| NOW.plus_millis(self.fresh_for)));
        if self.expired { user.ending(NOW) } else { user }
    }
}

impl Consent {
    fn roll(dice: &mut Dice) -> Self {
        let (begins_in, ends_in) = ([-5, 0, 1][dice.below(3)], [0, 1, 90][dice.below(3)]);
        Self { purpose: ["billing", "marketing"][dice.below(2)], begins_in, ends_in }
    }

    fn facts(&self) -> ConsentFacts {
        let (from, until) = (at(self.begins_in), at(self.ends_in));
        ConsentFacts {
            id: ConsentId([2; 16]),
            purposes: vec![Purpose::parse(self.purpose).unwrap()],
            from,
            until: Some(until),
        }
    }
}

impl Grant {
    fn roll(dice: &mut Dice) -> Self {
        let ends_in = [-1, 0, 1, 90][dice.below(4)];
        Self { for_whom: dice.one_in(2), role: ROLES[dice.below(ROLES.len())], ends_in }
    }

    fn facts(&self, who: &str) -> GrantFacts {
        let workload = if self.for_whom { who.to_owned() } else { format!("{who}2") };
        GrantFacts { id: GrantId([3; 16]), workload, roles: vec![self.role.to_owned()], until: at(self.ends_in) }
    }
}

#[test]
fn agrees_with_an_independent_model() {
    let cases = std::env::var("VAULT_TEST_CASES").ok().map_or(CASES, |n| n.parse().unwrap());
    let mut dice = Dice(0x00B1_1D5A_17E0_0001);
    let authorizer = baseline();
    let (mut allowed, mut kept) = (0, 0);
    for _ in 0..cases.div_ceil(EACH) {
        let world = World::roll(&mut dice);
        authorizer.swap_registry(registry(&world.toml()));
        for _ in 0..EACH {
            let who = world.someone(&mut dice);
            let tenant = TENANTS[dice.below(TENANTS.len())];
            let user = dice.one_in(2).then(|| User::roll(&mut dice));
            let consents: Vec<_> = (0..dice.below(3)).map(|_| Consent::roll(&mut dice)).collect();
            let grants: Vec<_> = (0..dice.below(3)).map(|_| Grant::roll(&mut dice)).collect();
            let facts = (!dice.one_in(8)).then(|| {
                let dataset = DatasetFacts {
                    classification: [None, Some("public"), Some("confidential"), Some("restricted")][dice.below(4)]
                        .map(str::to_owned),
                    consent_required: dice.one_in(3),
                    consents: consents.iter().map(Consent::facts).collect(),
                    grants: grants.iter().map(|grant| grant.facts(&who)).collect(),
                    ..DatasetFacts::default()
                };
                Facts { suspended: dice.one_in(4), dataset: (!dice.one_in(6)).then_some(dataset) }
            });
            let workload = Workload::for_test(&who);
            let end_user = user.as_ref().map(|user| Arc::new(user.proven()));
            let decide = |action: usize| {
                let end_user = end_user.clone();
                let (request, facts) = (DataRequest { end_user, ..ask(tenant) }, facts.as_ref());
                match action {
                    0 => ("Encrypt", authorizer.authorize_data::<Encrypt>(&workload, request, facts, NOW).err()),
                    1 => ("Decrypt", authorizer.authorize_data::<Decrypt>(&workload, request, facts, NOW).err()),
                    _ => ("Rewrap", authorizer.authorize_data::<Rewrap>(&workload, request, facts, NOW).err()),
                }
            };
            let number = dice.below(3);
            let (action, refusal) = decide(number);
            let asked = Asked { who: &who, action, tenant, user: user.as_ref(), consents: &consents, grants: &grants };
            let expected = world.expected(&asked, facts.as_ref());
            assert_eq!(
                refusal.as_ref().map(|r| r.check),
                expected,
                "{who} {action} {tenant} {facts:?} {user:?}\n{}\n{refusal:?}",
                world.toml()
            );
            // Once more, when the decision may have been kept.
            assert_eq!(decide(number).1.map(|refusal| refusal.check), expected, "{who} {action} {tenant}, kept");
            allowed += usize::from(refusal.is_none());
        }
        kept += authorizer.counts().2;
    }
    assert!(allowed > cases / 50, "too few requests are allowed to tell: {allowed} of {cases}");
    assert!(kept > cases as u64 / 40, "too few decisions were kept: {kept} of {cases}");
}
