//! Which parts of a request a policy reads. What none of the policies of a decision reads cannot change it.

use cedar_policy::pst::Expr;

use super::compile::path;

/// A set of parts of a data action's request. Attributes of the principal and the dataset are not among them: they are
/// part of every key, and every decision brings them along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Reads(u16);

impl Reads {
    pub(super) const NOTHING: Self = Self(0);
    pub(super) const ALL: Self = Self(u16::MAX);
    /// `now`, or how long ago the end user signed in.
    pub(super) const TIME: Self = Self(1);
    pub(super) const HAS_SUBJECT: Self = Self(1 << 1);
    pub(super) const ITEMS: Self = Self(1 << 2);
    pub(super) const CONSENT: Self = Self(1 << 3);
    pub(super) const GRANTED_ROLES: Self = Self(1 << 4);
    /// Whether there is an end user, and whether they are fresh, signed in with a second factor, and of which tenant:
    /// few values, so they go together.
    pub(super) const USER: Self = Self(1 << 5);
    pub(super) const USER_ISSUER: Self = Self(1 << 6);
    pub(super) const USER_SUBJECT: Self = Self(1 << 7);
    pub(super) const USER_ROLES: Self = Self(1 << 8);
    pub(super) const USER_AMR: Self = Self(1 << 9);
    pub(super) const USER_ACR: Self = Self(1 << 10);
    /// The purpose: part of every key, but not of a context in which no policy asks for it.
    pub(super) const PURPOSE: Self = Self(1 << 11);
    /// The groups of the action. Without its entity `action in …` would be false and not an error, so whatever is not
    /// understood reads it.
    pub(super) const ACTION: Self = Self(1 << 12);
    /// Attributes of the tenant. Without its entity, reading one is an error, and the decision a refusal.
    pub(super) const TENANT: Self = Self(1 << 13);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What an expression reads.
    pub(super) fn of(expr: &Expr) -> Self {
        if let Some(names) = path(expr) {
            return Self::of_path(&names);
        }
        let all = |parts: &[&Expr]| parts.iter().fold(Self::NOTHING, |reads, part| reads.and(Self::of(part)));
        match expr {
            Expr::Literal(_) => Self::NOTHING,
            Expr::HasAttr { expr, attrs } => match path(expr) {
                Some(names) if names == ["context"] && attrs.len() == 1 && attrs.first() == "endUser" => Self::USER,
                Some(mut names) => {
                    names.extend(attrs.iter().map(|attr| attr.as_str()));
                    Self::of_path(&names)
                }
                None => Self::of(expr).and(Self::TENANT),
            },
            // What is no path may come to a tenant.
            Expr::GetAttr { expr, .. } => Self::of(expr).and(Self::TENANT),
            Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } => Self::of(expr),
            Expr::BinaryOp { left, right, .. } => all(&[left, right]),
            Expr::Is { expr, in_expr, .. } => Self::of(expr).and(in_expr.as_deref().map_or(Self::NOTHING, Self::of)),
            Expr::IfThenElse { cond, then_expr, else_expr } => all(&[cond, then_expr, else_expr]),
            Expr::Set(members) => members.iter().fold(Self::NOTHING, |reads, member| reads.and(Self::of(member))),
            _ => Self::ALL,
        }
    }

    /// What `a.b.c` reads, or `a has b`: a record that is taken as a whole reads all of it.
    fn of_path(names: &[&str]) -> Self {
        match names {
            ["action", ..] => Self::ACTION,
            ["resource", "tenant", _, ..] => Self::TENANT,
            ["principal" | "resource", ..] => Self::NOTHING,
            ["context", "now", ..] => Self::TIME,
            ["context", "purpose", ..] => Self::PURPOSE,
            ["context", "hasSubject", ..] => Self::HAS_SUBJECT,
            ["context", "items", ..] => Self::ITEMS,
            ["context", "consent", ..] => Self::CONSENT,
            ["context", "grantedRoles", ..] => Self::GRANTED_ROLES,
            ["context", "endUser", "tenant", _, ..] => Self::USER.and(Self::TENANT),
            ["context", "endUser", claim, ..] => Self::USER.and(match *claim {
                "tenant" | "mfa" | "mfaFresh" => Self::NOTHING,
                "issuer" => Self::USER_ISSUER,
                "subject" => Self::USER_SUBJECT,
                "roles" => Self::USER_ROLES,
                "amr" => Self::USER_AMR,
                "acr" => Self::USER_ACR,
                "authAge" => Self::TIME,
                _ => Self::ALL,
            }),
            _ => Self::ALL,
        }
    }
}
