//! A policy's scope and condition as a [`Test`], and what of a request it reads. Cedar's own syntax tree is walked; what
//! is not understood is [`Test::Opaque`], and reads everything.

use cedar_policy::pst::{ActionConstraint, Policy as Tree, PrincipalConstraint, ResourceConstraint};
use cedar_policy::pst::{BinaryOp, Clause, EntityOrSlot, EntityUID, Expr, Literal, UnaryOp, Var};

use super::reads::Reads;
use super::screen::{Flag, Names, Optional, Test, Text, Than};
use crate::id::TenantId;

const WORKLOAD: &str = "Vault::Workload";
const TENANT: &str = "Vault::Tenant";
const DATASET: &str = "Vault::Dataset";

/// A policy of a data action: principals are workloads and resources datasets, and the action is known to fit.
pub(super) fn policy(policy: &cedar_policy::Policy) -> (Test, Reads) {
    let Ok(Tree::Static(tree)) = policy.to_pst() else {
        return (Test::Opaque { may_fail: true }, Reads::ALL);
    };
    let tree = tree.body();
    let entity = |of: &EntityOrSlot, kind: &str, text| match of {
        EntityOrSlot::Entity(uid) => same(text, kind, uid),
        EntityOrSlot::Slot(_) => Test::Opaque { may_fail: true },
    };
    let opaque = Test::Opaque { may_fail: false };
    let principal = match &tree.principal {
        PrincipalConstraint::Any => Test::Is(true),
        PrincipalConstraint::Eq(of) => entity(of, WORKLOAD, Text::Principal),
        PrincipalConstraint::Is(of) => Test::Is(of.to_string() == WORKLOAD),
        PrincipalConstraint::IsIn(of, _) if of.to_string() != WORKLOAD => Test::Is(false),
        PrincipalConstraint::In(_) | PrincipalConstraint::IsIn(..) => opaque.clone(),
    };
    let resource = match &tree.resource {
        ResourceConstraint::Any => Test::Is(true),
        ResourceConstraint::Eq(of) => entity(of, DATASET, Text::Dataset),
        ResourceConstraint::Is(of) => Test::Is(of.to_string() == DATASET),
        ResourceConstraint::IsIn(of, _) if of.to_string() != DATASET => Test::Is(false),
        ResourceConstraint::In(_) | ResourceConstraint::IsIn(..) => opaque,
    };
    let is_in = matches!(tree.principal, PrincipalConstraint::In(_) | PrincipalConstraint::IsIn(..))
        || matches!(tree.resource, ResourceConstraint::In(_) | ResourceConstraint::IsIn(..));
    let scope = if is_in { Reads::TENANT } else { Reads::NOTHING };
    let groups = if matches!(tree.action, ActionConstraint::In(_)) { Reads::ACTION } else { Reads::NOTHING };
    let (mut test, mut reads) = (and(principal, resource), scope.and(groups));
    for clause in tree.clauses() {
        let (Clause::When(expr) | Clause::Unless(expr)) = clause;
        reads = reads.and(Reads::of(expr));
        let of = condition(expr);
        test = and(test, if matches!(clause, Clause::When(_)) { of } else { Test::Not(Box::new(of)) });
    }
    (test, reads)
}

fn and(one: Test, other: Test) -> Test {
    match (one, other) {
        (Test::Is(true), only) => only,
        (one, other) => Test::And(Box::new(one), Box::new(other)),
    }
}

fn same(text: Text, kind: &str, uid: &EntityUID) -> Test {
    if uid.ty.to_string() == kind { Test::Same(text, uid.eid.as_str().into()) } else { Test::Is(false) }
}

/// An expression that is true or false.
fn condition(expr: &Expr) -> Test {
    understood(expr).unwrap_or_else(|| Test::Opaque { may_fail: may_fail(expr) })
}

fn understood(expr: &Expr) -> Option<Test> {
    let boxed = |expr: &Expr| Box::new(condition(expr));
    Some(match expr {
        Expr::Literal(Literal::Bool(value)) => Test::Is(*value),
        Expr::UnaryOp { op: UnaryOp::Not, expr } => Test::Not(boxed(expr)),
        Expr::BinaryOp { op: BinaryOp::And, left, right } => Test::And(boxed(left), boxed(right)),
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => Test::Or(boxed(left), boxed(right)),
        Expr::BinaryOp { op: BinaryOp::Eq, left, right } => equal(left, right)?,
        Expr::BinaryOp { op: BinaryOp::NotEq, left, right } => Test::Not(Box::new(equal(left, right)?)),
        Expr::BinaryOp { op: BinaryOp::Contains, left, right } => contains(left, right)?,
        Expr::BinaryOp { op, left, right } => match (&**left, &**right) {
            (attribute, Expr::Literal(Literal::Long(literal))) if is_items(attribute) => match op {
                BinaryOp::Less => Test::Items(Than::Less, *literal),
                BinaryOp::LessEq => Test::Items(Than::LessOrEqual, *literal),
                BinaryOp::Greater => Test::Not(Box::new(Test::Items(Than::LessOrEqual, *literal))),
                BinaryOp::GreaterEq => Test::Not(Box::new(Test::Items(Than::Less, *literal))),
                _ => return None,
            },
            // The engine's tree writes `a > b` as `b < a`.
            (Expr::Literal(Literal::Long(literal)), attribute) if is_items(attribute) => match op {
                BinaryOp::Less => Test::Not(Box::new(Test::Items(Than::LessOrEqual, *literal))),
                BinaryOp::LessEq => Test::Not(Box::new(Test::Items(Than::Less, *literal))),
                BinaryOp::Greater => Test::Items(Than::Less, *literal),
                BinaryOp::GreaterEq => Test::Items(Than::LessOrEqual, *literal),
                _ => return None,
            },
            _ => return None,
        },
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            Test::If(Box::new([condition(cond), condition(then_expr), condition(else_expr)]))
        }
        Expr::Is { expr, entity_type, in_expr: None } => {
            let kind = match text(expr)? {
                Text::Principal => WORKLOAD,
                Text::Dataset => DATASET,
                Text::Tenant => TENANT,
                _ => return None,
            };
            Test::Is(entity_type.to_string() == kind)
        }
        Expr::HasAttr { expr, attrs } if attrs.len() == 1 => match (path(expr)?.as_slice(), attrs.first().as_str()) {
            (["resource", "tenant"], "suspended") => Test::Has(Optional::Suspended),
            (["resource"], "classification") => Test::Has(Optional::Classification),
            (["resource"], "residency") => Test::Has(Optional::Residency),
            (["resource"], "consentRequired") => Test::Has(Optional::ConsentRequired),
            (["context"], "endUser") => Test::Has(Optional::User),
            (["context", "endUser"], "acr") => Test::Has(Optional::UserAcr),
            (["context", "endUser"], "authAge") => Test::Has(Optional::UserAuthAge),
            _ => return None,
        },
        Expr::GetAttr { .. } => Test::Flag(match path(expr)?.as_slice() {
            ["resource", "tenant", "suspended"] => Flag::Suspended,
            ["resource", "consentRequired"] => Flag::ConsentRequired,
            ["context", "hasSubject"] => Flag::HasSubject,
            ["context", "consent"] => Flag::Consent,
            ["context", "endUser", "mfa"] => Flag::UserMfa,
            ["context", "endUser", "mfaFresh"] => Flag::UserMfaFresh,
            _ => return None,
        }),
        _ => return None,
    })
}

/// `a.b.c` as its names; `None` for anything else.
pub(super) fn path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Var(var) => Some(vec![match var {
            Var::Principal => "principal",
            Var::Action => "action",
            Var::Resource => "resource",
            Var::Context => "context",
        }]),
        Expr::GetAttr { expr, attr } => {
            let mut names = path(expr)?;
            names.push(attr.as_str());
            Some(names)
        }
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<Text> {
    Some(match path(expr)?.as_slice() {
        ["principal"] => Text::Principal,
        ["principal", "service"] => Text::Service,
        ["principal", "environment"] => Text::Environment,
        ["resource"] => Text::Dataset,
        ["resource", "tenant"] => Text::Tenant,
        ["resource", "classification"] => Text::Classification,
        ["resource", "residency"] => Text::Residency,
        ["context", "purpose"] => Text::Purpose,
        ["context", "endUser", "issuer"] => Text::UserIssuer,
        ["context", "endUser", "subject"] => Text::UserSubject,
        ["context", "endUser", "tenant"] => Text::UserTenant,
        ["context", "endUser", "acr"] => Text::UserAcr,
        _ => return None,
    })
}

/// The entity type of an attribute that is an entity.
const fn kind(text: Text) -> Option<&'static str> {
    match text {
        Text::Principal => Some(WORKLOAD),
        Text::Dataset => Some(DATASET),
        Text::Tenant | Text::UserTenant => Some(TENANT),
        _ => None,
    }
}

fn is_items(expr: &Expr) -> bool {
    path(expr).is_some_and(|names| names == ["context", "items"])
}

fn equal(left: &Expr, right: &Expr) -> Option<Test> {
    match (left, right) {
        (attribute, Expr::Literal(Literal::Long(literal))) | (Expr::Literal(Literal::Long(literal)), attribute)
            if is_items(attribute) =>
        {
            return Some(Test::Items(Than::Equal, *literal));
        }
        _ => {}
    }
    let (attribute, other) = match (text(left), text(right)) {
        (Some(one), Some(other)) => return (kind(one) == kind(other)).then_some(Test::Alike(one, other)),
        (Some(one), None) => (one, right),
        (None, Some(one)) => (one, left),
        (None, None) => return None,
    };
    match (kind(attribute), other) {
        (None, Expr::Literal(Literal::String(literal))) => Some(Test::Same(attribute, literal.as_str().into())),
        (Some(kind), Expr::Literal(Literal::EntityUID(uid))) => Some(same(attribute, kind, uid)),
        _ => None,
    }
}

fn contains(set: &Expr, one: &Expr) -> Option<Test> {
    if let Expr::Set(members) = set {
        let attribute = text(one)?;
        let literals = members.iter().map(|member| match (kind(attribute), &**member) {
            (None, Expr::Literal(Literal::String(literal))) => Some(literal.as_str().into()),
            (Some(kind), Expr::Literal(Literal::EntityUID(uid))) if uid.ty.to_string() == kind => {
                Some(uid.eid.as_str().into())
            }
            _ => None,
        });
        return Some(Test::OneOf(literals.collect::<Option<_>>()?, attribute));
    }
    let names = match path(set)?.as_slice() {
        ["principal", "tenants"] => {
            return match (text(one), one) {
                (Some(text @ (Text::Tenant | Text::UserTenant)), _) => Some(Test::Lists(text)),
                (None, Expr::Literal(Literal::EntityUID(uid))) if uid.ty.to_string() == TENANT => {
                    TenantId::parse(&uid.eid).ok().map(Test::ListsTenant)
                }
                _ => None,
            };
        }
        ["principal", "roles"] => Names::Roles,
        ["context", "grantedRoles"] => Names::GrantedRoles,
        ["context", "endUser", "roles"] => Names::UserRoles,
        ["context", "endUser", "amr"] => Names::UserAmr,
        _ => return None,
    };
    match one {
        Expr::Literal(Literal::String(literal)) => Some(Test::Holds(names, literal.as_str().into())),
        _ => None,
    }
}

/// Whether evaluating a validated expression could fail: arithmetic can overflow, and so can the functions of dates and
/// durations. What is not listed is taken to fail.
fn may_fail(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(_) | Expr::Var(_) => false,
        Expr::UnaryOp { op: UnaryOp::Not | UnaryOp::IsEmpty, expr }
        | Expr::GetAttr { expr, .. }
        | Expr::HasAttr { expr, .. }
        | Expr::Like { expr, .. } => may_fail(expr),
        Expr::BinaryOp { op, left, right } => {
            let safe = matches!(
                op,
                BinaryOp::Eq
                    | BinaryOp::NotEq
                    | BinaryOp::Less
                    | BinaryOp::LessEq
                    | BinaryOp::Greater
                    | BinaryOp::GreaterEq
                    | BinaryOp::And
                    | BinaryOp::Or
                    | BinaryOp::In
                    | BinaryOp::Contains
                    | BinaryOp::ContainsAll
                    | BinaryOp::ContainsAny
            );
            !safe || may_fail(left) || may_fail(right)
        }
        Expr::Is { expr, in_expr, .. } => may_fail(expr) || in_expr.as_deref().is_some_and(may_fail),
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            [cond, then_expr, else_expr].into_iter().any(|e| may_fail(e))
        }
        Expr::Set(members) => members.iter().any(|member| may_fail(member)),
        _ => true,
    }
}
