//! A part of Cedar with an evaluator of its own, written from the language's specification: what policies in it mean for
//! the requests of one workload and one operator.

use arbitrary::Arbitrary;

/// Who a policy's scope names.
#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
pub enum Who {
    Anybody,
    Workload,
    Operator,
}

/// Which actions a policy's scope names.
#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
pub enum What {
    Anything,
    Data,
    Release,
    Control,
    Encrypt,
    Decrypt,
    GetTenant,
    SuspendTenant,
}

/// A condition. Those about the workload or the context hold only where there is such.
#[derive(Debug, Clone, Arbitrary)]
pub enum When {
    Always,
    IsOperator,
    HasRole(bool),
    ListsTenant,
    HasSubject,
    ItemsBelow(u8),
    PurposeIs(bool),
    Not(Box<When>),
    And(Box<When>, Box<When>),
    Or(Box<When>, Box<When>),
}

/// A policy.
#[derive(Debug, Clone, Arbitrary)]
pub struct Rule {
    pub permits: bool,
    pub who: Who,
    pub what: What,
    pub when: When,
    pub unless: bool,
}

/// A request: of the workload if it is about data, else of the operator.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub action: &'static str,
    pub is_data: bool,
    pub has_subject: bool,
    pub items: u32,
    pub purpose: &'static str,
}

/// The roles of the workload are `writer` alone.
const ROLES: [&str; 2] = ["writer", "reader"];
const PURPOSES: [&str; 2] = ["billing", "support"];
/// Deeper conditions are as good as none.
const DEEPEST: usize = 3;

impl When {
    fn text(&self, depth: usize) -> String {
        let workload = |text: &str| format!("(principal is Vault::Workload && resource is Vault::Dataset && {text})");
        match self {
            _ if depth > DEEPEST => "true".into(),
            Self::Always => "true".into(),
            Self::IsOperator => "principal is Vault::Operator".into(),
            Self::HasRole(writer) => workload(&format!("principal.roles.contains(\"{}\")", ROLES[usize::from(!writer)])),
            Self::ListsTenant => workload("principal.tenants.contains(resource.tenant)"),
            Self::HasSubject => "(context has hasSubject && context.hasSubject)".into(),
            Self::ItemsBelow(most) => format!("(context has items && context.items < {most})"),
            Self::PurposeIs(billing) => {
                format!("(context has purpose && context.purpose == \"{}\")", PURPOSES[usize::from(!billing)])
            }
            Self::Not(when) => format!("!({})", when.text(depth + 1)),
            Self::And(one, two) => format!("({} && {})", one.text(depth + 1), two.text(depth + 1)),
            Self::Or(one, two) => format!("({} || {})", one.text(depth + 1), two.text(depth + 1)),
        }
    }

    fn holds(&self, request: &Request, depth: usize) -> bool {
        let data = request.is_data;
        match self {
            _ if depth > DEEPEST => true,
            Self::Always => true,
            Self::IsOperator => !data,
            Self::HasRole(writer) => data && *writer,
            Self::ListsTenant => data,
            Self::HasSubject => data && request.has_subject,
            Self::ItemsBelow(most) => data && request.items < u32::from(*most),
            Self::PurposeIs(billing) => data && request.purpose == PURPOSES[usize::from(!billing)],
            Self::Not(when) => !when.holds(request, depth + 1),
            Self::And(one, two) => one.holds(request, depth + 1) && two.holds(request, depth + 1),
            Self::Or(one, two) => one.holds(request, depth + 1) || two.holds(request, depth + 1),
        }
    }
}

impl Rule {
    /// In Cedar.
    pub fn text(&self, id: usize) -> String {
        let effect = if self.permits { "permit" } else { "forbid" };
        let who = match self.who {
            Who::Anybody => "principal",
            Who::Workload => "principal is Vault::Workload",
            Who::Operator => "principal is Vault::Operator",
        };
        let what = match self.what {
            What::Anything => "action".to_owned(),
            group @ (What::Data | What::Release | What::Control) => format!("action in Vault::Action::\"{group:?}\""),
            one => format!("action == Vault::Action::\"{one:?}\""),
        };
        let when = if self.unless { "unless" } else { "when" };
        format!("@id(\"p{id}\")\n{effect} ({who}, {what}, resource)\n{when} {{ {} }};\n", self.when.text(0))
    }

    fn applies(&self, request: &Request) -> bool {
        let who = match self.who {
            Who::Anybody => true,
            Who::Workload => request.is_data,
            Who::Operator => !request.is_data,
        };
        let what = match self.what {
            What::Anything => true,
            What::Data => request.is_data,
            What::Release => request.action == "Decrypt",
            What::Control => !request.is_data,
            one => format!("{one:?}") == request.action,
        };
        who && what && self.when.holds(request, 0) != self.unless
    }
}

/// Whether the rules allow a request: one permits it, and none forbids it.
pub fn allows(rules: &[Rule], request: &Request) -> bool {
    let any = |permits: bool| rules.iter().any(|rule| rule.permits == permits && rule.applies(request));
    any(true) && !any(false)
}
