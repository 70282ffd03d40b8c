//! The reviewed guards: what has to hold of every policy set before it is activated.
//!
//! They come with this version and are no part of a policy set, so nobody can weaken them together with it. A build
//! without the prover knows them too, for it accepts only proofs against exactly these.

use super::Source;

/// One property, as a lone permit whose condition is the property: a set keeps it if whatever the set allows, the guard
/// allows. The guard's scope says which requests it is about.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// Its name in reports and proofs; also the guard's `@id` and the name of its file.
    pub id: &'static str,
    /// What it says, in one line.
    pub says: &'static str,
    /// The file.
    pub source: Source<'static>,
    /// Whether the permits of a set have to keep it without the set's forbids too.
    pub of_permits: bool,
}

macro_rules! guard {
    ($id:literal, $of_permits:literal, $says:literal) => {
        Guard {
            id: $id,
            says: $says,
            source: Source {
                name: concat!("guards/", $id, ".cedar"),
                text: include_str!(concat!("../../../policies/guards/", $id, ".cedar")),
            },
            of_permits: $of_permits,
        }
    };
}

/// All guards.
pub const GUARDS: &[Guard] = &[
    guard!("only-workloads", true, "only workloads are allowed any data action"),
    guard!("own-tenants", false, "a workload is allowed data actions on its own tenants only"),
    guard!("consent", false, "plaintext of a dataset that demands consent is released only with one"),
    guard!("active-tenants", false, "no data action is allowed on a suspended tenant"),
    guard!(
        "classified",
        false,
        "classified plaintext is released only for an end user, restricted only with fresh MFA"
    ),
    guard!("only-operators", true, "only operators are allowed any control action"),
    guard!("own-consents", false, "consents are a tenant's own people's, through workloads of the tenant"),
    guard!("own-history", false, "what the log says of a tenant is for workloads of the tenant and its own people"),
];

/// The property that no policy and no guard can fail to evaluate.
pub const NO_ERRORS: &str = "no-errors";
/// The property that each guard refuses some request that a set could allow: the guard and the solver can both say no.
pub const GUARDS_REFUSE: &str = "guards-refuse";

/// The names of all properties that a proof shows, in the order of its report.
pub fn properties() -> Vec<String> {
    let mut names = vec![NO_ERRORS.to_owned(), GUARDS_REFUSE.to_owned()];
    for guard in GUARDS {
        names.push(guard.id.to_owned());
        if guard.of_permits {
            names.push(of_permits(guard.id));
        }
    }
    names
}

/// The name of a guard's property of a set's permits alone.
pub(crate) fn of_permits(id: &str) -> String {
    format!("{id}-by-permits-alone")
}
