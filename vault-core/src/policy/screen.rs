//! What a policy's condition comes to, as far as that can be told without the engine: [`Truth::No`] is proof that the
//! engine would find the policy not satisfied, without an error. Such policies are left out of a decision.
//!
//! Only a *no* is ever acted on. Whatever permits, forbids or fails is evaluated by the engine. The rules are those of
//! Cedar's evaluator for `&&`, `||`, `!`, `if`, `==`, `has` and `contains` (Cedar's language reference, "Operators"), on
//! the attributes that this version fills in; all other expressions are [`Truth::Open`], or [`Truth::MayFail`] if they
//! could also fail.
//!
//! Why a no is a proof:
//! - A set is loaded only if it passes Cedar's strict validation against a schema whose shapes are those of
//!   [`super::entities`]. For such a policy types fit and no absent attribute is read; what is left that can fail is
//!   arithmetic and the functions of extension types, and [`super::compile`] marks both as `MayFail`.
//! - `a && b` is no if `a` is no, for `b` is then not evaluated; or if `b` is no and `a` cannot fail. Likewise for `||`.
//! - An attribute that is not there after all makes `MayFail`, not no.

use super::entities::Asked;
use super::registry::Grant;
use super::request::DatasetFacts;
use crate::id::TenantId;

/// What can be told of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// It is false, and evaluating it does not fail.
    No,
    /// It is true, and evaluating it does not fail.
    Yes,
    /// It is one or the other, and evaluating it does not fail.
    Open,
    /// Nothing.
    MayFail,
}

impl Truth {
    pub(super) const fn of(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }

    const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            same => same,
        }
    }

    /// `self && then`.
    fn and(self, then: impl FnOnce() -> Self) -> Self {
        match (self, then) {
            (Self::No | Self::MayFail, _) => self,
            (Self::Yes, then) => then(),
            (Self::Open, then) => match then() {
                Self::Yes => Self::Open,
                same => same,
            },
        }
    }

    /// `self || then`.
    fn or(self, then: impl FnOnce() -> Self) -> Self {
        self.not().and(|| then().not()).not()
    }
}

/// An attribute that is text, or an entity by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Text {
    /// `principal`.
    Principal,
    /// `principal.service`.
    Service,
    /// `principal.environment`.
    Environment,
    /// `resource`, as `<tenant>/<dataset>`.
    Dataset,
    /// `resource.tenant`.
    Tenant,
    /// `resource.classification`.
    Classification,
    /// `resource.residency`.
    Residency,
    /// `context.purpose`.
    Purpose,
    /// `context.endUser.issuer`.
    UserIssuer,
    /// `context.endUser.subject`.
    UserSubject,
    /// `context.endUser.tenant`.
    UserTenant,
    /// `context.endUser.acr`.
    UserAcr,
}

/// An attribute that is true or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    /// `resource.tenant.suspended`.
    Suspended,
    /// `resource.consentRequired`.
    ConsentRequired,
    /// `context.hasSubject`.
    HasSubject,
    /// `context.consent`.
    Consent,
    /// `context.endUser.mfa`.
    UserMfa,
    /// `context.endUser.mfaFresh`.
    UserMfaFresh,
}

/// An attribute that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Optional {
    Suspended,
    Classification,
    Residency,
    ConsentRequired,
    User,
    UserAcr,
    UserAuthAge,
}

/// An attribute that is a set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// `principal.roles`.
    Roles,
    /// `context.grantedRoles`.
    GrantedRoles,
    /// `context.endUser.roles`.
    UserRoles,
    /// `context.endUser.amr`.
    UserAmr,
}

/// A condition, as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// The same for every request.
    Is(bool),
    Flag(Flag),
    Has(Optional),
    /// `attribute == "literal"`.
    Same(Text, Box<str>),
    /// `attribute == other attribute`.
    Alike(Text, Text),
    /// `["literal", …].contains(attribute)`.
    OneOf(Box<[Box<str>]>, Text),
    /// `set.contains("literal")`.
    Holds(Names, Box<str>),
    /// `principal.tenants.contains(attribute)`.
    Lists(Text),
    /// `principal.tenants.contains(Tenant::"literal")`.
    ListsTenant(TenantId),
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    If(Box<[Test; 3]>),
    /// Something that only the engine can tell.
    Opaque {
        may_fail: bool,
    },
}

/// A request as the engine is going to see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) principal: &'a str,
    pub(super) grant: &'a Grant<'a>,
    pub(super) tenant: &'a TenantId,
    /// `<tenant>/<dataset>`.
    pub(super) id: &'a str,
    pub(super) dataset: &'a DatasetFacts,
    pub(super) purpose: &'a str,
    /// The rest of the context; `None` if it is to be left open.
    pub(super) asked: Option<&'a Asked<'a>>,
}

/// An attribute's value.
enum Value<T> {
    Known(T),
    Absent,
    Open,
}

impl<T> Value<T> {
    fn optional(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Self::Known)
    }

    fn test(self, test: impl FnOnce(T) -> bool) -> Truth {
        match self {
            Self::Known(value) => Truth::of(test(value)),
            Self::Absent => Truth::MayFail,
            Self::Open => Truth::Open,
        }
    }
}

impl<'a> View<'a> {
    /// What the context says, unless it is left open.
    fn asked<T>(&self, of: impl FnOnce(&'a Asked<'a>) -> Option<T>) -> Value<T> {
        self.asked.map_or(Value::Open, |asked| Value::optional(of(asked)))
    }

    fn text(&self, text: Text) -> Value<&'a str> {
        match text {
            Text::Principal => Value::Known(self.principal),
            Text::Service => Value::Known(&self.grant.description().service),
            Text::Environment => Value::Known(&self.grant.description().environment),
            Text::Dataset => Value::Known(self.id),
            Text::Tenant => Value::Known(self.tenant.as_str()),
            Text::Classification => Value::optional(self.dataset.classification.as_deref()),
            Text::Residency => Value::optional(self.dataset.residency.as_deref()),
            Text::Purpose => Value::Known(self.purpose),
            Text::UserIssuer => self.asked(|asked| Some(asked.end_user?.issuer())),
            Text::UserSubject => self.asked(|asked| Some(asked.end_user?.subject().as_str())),
            Text::UserTenant => self.asked(|asked| Some(asked.end_user?.tenant().as_str())),
            Text::UserAcr => self.asked(|asked| asked.end_user?.acr()),
        }
    }

    /// The value of an attribute that policies are found by, if it is there.
    pub(super) fn known(&self, text: Text) -> Option<&'a str> {
        match self.text(text) {
            Value::Known(value) => Some(value),
            Value::Absent | Value::Open => None,
        }
    }

    fn flag(&self, flag: Flag) -> Value<bool> {
        match flag {
            // A decision about a suspended tenant ends before any policy is asked.
            Flag::Suspended => Value::Known(false),
            Flag::ConsentRequired => Value::Known(self.dataset.consent_required),
            Flag::HasSubject => self.asked(|asked| Some(asked.has_subject)),
            Flag::Consent => self.asked(|asked| Some(asked.consent)),
            Flag::UserMfa => self.asked(|asked| Some(asked.end_user?.mfa())),
            Flag::UserMfaFresh => self.asked(|asked| Some(asked.end_user?.mfa_fresh_at(asked.now))),
        }
    }

    fn has(&self, optional: Optional) -> Truth {
        let asked = |of: fn(&Asked<'_>) -> bool| self.asked.map_or(Truth::Open, |asked| Truth::of(of(asked)));
        match optional {
            Optional::Suspended | Optional::ConsentRequired => Truth::Yes,
            Optional::Classification => Truth::of(self.dataset.classification.is_some()),
            Optional::Residency => Truth::of(self.dataset.residency.is_some()),
            Optional::User => asked(|asked| asked.end_user.is_some()),
            // Without an end user there is nothing to ask, and `context.endUser` alone would fail.
            Optional::UserAcr => self.asked(|asked| Some(asked.end_user?.acr().is_some())).test(|is| is),
            Optional::UserAuthAge => self.asked(|asked| Some(asked.end_user?.auth_time().is_some())).test(|is| is),
        }
    }

    fn holds(&self, names: Names, name: &str) -> Truth {
        match names {
            Names::Roles => Truth::of(self.grant.description().roles.contains(name)),
            Names::GrantedRoles => self.asked(|asked| Some(asked.granted_roles.contains(name))).test(|is| is),
            Names::UserRoles => self.asked(|asked| Some(asked.end_user?.roles().contains(name))).test(|is| is),
            Names::UserAmr => self.asked(|asked| Some(asked.end_user?.amr().contains(name))).test(|is| is),
        }
    }
}

impl Test {
    /// What can be told of it for a request.
    pub(super) fn of(&self, view: &View<'_>) -> Truth {
        match self {
            Self::Is(value) => Truth::of(*value),
            Self::Flag(flag) => view.flag(*flag).test(|is| is),
            Self::Has(optional) => view.has(*optional),
            Self::Same(text, literal) => view.text(*text).test(|value| *value == **literal),
            Self::Alike(one, other) => match (view.text(*one), view.text(*other)) {
                (Value::Known(one), Value::Known(other)) => Truth::of(one == other),
                (Value::Absent, _) | (_, Value::Absent) => Truth::MayFail,
                _ => Truth::Open,
            },
            Self::OneOf(literals, text) => {
                view.text(*text).test(|value| literals.iter().any(|literal| **literal == *value))
            }
            Self::Holds(names, name) => view.holds(*names, name),
            Self::Lists(text) => match (text, view.asked(|asked| Some(asked.end_user?.tenant()))) {
                (Text::Tenant, _) => Truth::of(view.grant.lists(view.tenant)),
                (Text::UserTenant, tenant) => tenant.test(|tenant| view.grant.lists(tenant)),
                _ => Truth::MayFail,
            },
            Self::ListsTenant(tenant) => Truth::of(view.grant.lists(tenant)),
            Self::Not(test) => test.of(view).not(),
            Self::And(one, other) => one.of(view).and(|| other.of(view)),
            Self::Or(one, other) => one.of(view).or(|| other.of(view)),
            Self::If(parts) => {
                let [test, then, otherwise] = parts.as_ref();
                match test.of(view) {
                    Truth::Yes => then.of(view),
                    Truth::No => otherwise.of(view),
                    Truth::MayFail => Truth::MayFail,
                    Truth::Open => match (then.of(view), otherwise.of(view)) {
                        (one, other) if one == other => one,
                        (Truth::MayFail, _) | (_, Truth::MayFail) => Truth::MayFail,
                        _ => Truth::Open,
                    },
                }
            }
            Self::Opaque { may_fail: false } => Truth::Open,
            Self::Opaque { may_fail: true } => Truth::MayFail,
        }
    }

    /// Whether evaluating it could fail for some request.
    pub(super) fn may_fail(&self) -> bool {
        match self {
            Self::Opaque { may_fail } => *may_fail,
            Self::Not(test) => test.may_fail(),
            Self::And(one, other) | Self::Or(one, other) => one.may_fail() || other.may_fail(),
            Self::If(parts) => parts.iter().any(Self::may_fail),
            _ => false,
        }
    }
}
