//! The workload registry: which service a SPIFFE ID is, and whose data it may touch at most.
//!
//! This is the guard in front of the policies: a tenant outside a workload's entry stays out of reach whatever any
//! policy says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cedar_policy::Entities;
use serde::Deserialize;
use toml::Spanned;

use super::entities;
use super::pattern::{self, Pattern, Tree};
use super::scan;
use crate::error::Error;
use crate::id::{Purpose, TenantId};

/// Longest registry, in bytes.
pub const MAX_REGISTRY: usize = 4 * 1024 * 1024;
/// Most entries of a registry.
pub const MAX_ENTRIES: usize = 10_000;
/// Most tenants of one entry.
pub const MAX_TENANTS: usize = 1_000;
/// Most roles of one entry.
pub const MAX_ROLES: usize = 32;

/// What an entry says of a workload besides its tenants; policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) service: String,
    pub(super) environment: String,
    pub(super) roles: BTreeSet<String>,
}

impl Description {
    /// Any description: the schema is held against its shape.
    pub(super) fn for_probe() -> Self {
        Self { service: "a".to_owned(), environment: "a".to_owned(), roles: BTreeSet::from(["a".to_owned()]) }
    }
}

/// A parsed registry.
#[derive(Debug)]
pub struct Registry {
    domain: String,
    tree: Tree<Entry>,
    entries: usize,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    description: Description,
    tenants: Tenants,
    /// The workload as the engine sees it, if the entry matches one SPIFFE ID only.
    principal: Option<Entities>,
}

#[derive(Debug)]
enum Tenants {
    Listed(BTreeSet<TenantId>),
    /// The segment of the SPIFFE ID's path that is the tenant.
    Bound(usize),
}

/// The entry that matches a workload.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    entry: &'a Entry,
    bound: Option<TenantId>,
}

impl Grant<'_> {
    pub(super) fn lists(&self, tenant: &TenantId) -> bool {
        match (&self.bound, &self.entry.tenants) {
            (Some(bound), _) => bound == tenant,
            (None, Tenants::Listed(listed)) => listed.contains(tenant),
            (None, Tenants::Bound(_)) => false,
        }
    }

    /// How many tenants each workload as the engine sees it names for itself; 0 if all share the entry's list, or it is
    /// one tenant.
    pub(super) fn copied(&self) -> usize {
        match (&self.entry.principal, &self.entry.tenants) {
            (None, Tenants::Listed(listed)) => listed.len(),
            _ => 0,
        }
    }

    pub(super) const fn description(&self) -> &Description {
        &self.entry.description
    }

    /// The workload as the engine sees it.
    pub(super) fn principal(&self, spiffe_id: &str) -> Result<Entities, entities::NotExpressible> {
        if let Some(made) = &self.entry.principal {
            return Ok(made.clone());
        }
        let listed = match &self.entry.tenants {
            Tenants::Listed(listed) => Some(listed),
            Tenants::Bound(_) => None,
        };
        principal(spiffe_id, &self.entry.description, listed.into_iter().flatten().chain(&self.bound))
    }
}

fn principal<'a>(
    spiffe_id: &str,
    description: &Description,
    tenants: impl IntoIterator<Item = &'a TenantId>,
) -> Result<Entities, entities::NotExpressible> {
    let workload = entities::workload(spiffe_id, description, tenants)?;
    Entities::from_entities([workload], None).map_err(|_| entities::NotExpressible)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    workload: Vec<Spanned<Raw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: Spanned<String>,
    service: Spanned<String>,
    environment: Spanned<String>,
    tenants: Option<Spanned<Vec<Spanned<String>>>>,
    roles: Spanned<Vec<Spanned<String>>>,
}

impl Registry {
    /// A registry without entries: it refuses every workload.
    pub fn empty() -> Self {
        Self { domain: String::new(), tree: Tree::default(), entries: 0 }
    }

    /// Reads a registry (TOML, format in `docs/policy.md`) for the workloads of one trust domain.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the line and the key: not TOML, an unknown or missing key, a value of the wrong type
    /// or form, a SPIFFE ID outside of the trust domain or of operators, two entries that could match the same
    /// SPIFFE ID, `*` as a tenant, tenants both listed and bound by `{tenant}` or neither, something named twice, or
    /// more than [`MAX_REGISTRY`], [`MAX_ENTRIES`], [`MAX_TENANTS`], [`MAX_ROLES`].
    pub fn parse(text: &str, workload_domain: &str) -> Result<Self, Error> {
        let read = Reader { text, domain: workload_domain };
        if text.len() > MAX_REGISTRY {
            return Err(read.refuse(0..0, "", "the file is longer than 4 MiB"));
        }
        if workload_domain.is_empty() || workload_domain.contains('/') {
            return Err(Error::invalid("workload trust domain", "must be a name such as prod.example"));
        }
        let file: File = toml::from_str(text).map_err(|e| read.refuse_toml(&e))?;
        if file.workload.len() > MAX_ENTRIES {
            return Err(read.refuse(0..0, "", "more than 10,000 entries"));
        }
        let entries = file.workload.len();
        let mut tree = Tree::default();
        for raw in file.workload {
            let (pattern, entry) = read.entry(raw)?;
            let line = entry.line;
            if let Err(other) = tree.insert(&pattern, entry) {
                let field = format!("registry lines {} and {line}, id", other.line);
                return Err(Error::invalid(field, "two entries could match the same SPIFFE ID"));
            }
        }
        Ok(Self { domain: workload_domain.to_owned(), tree, entries })
    }

    /// The entries of a registry's text: what each says in one line, by the pattern of its SPIFFE IDs.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no TOML of a registry.
    pub(crate) fn texts(text: &str) -> Result<BTreeMap<String, String>, Error> {
        let file: File = toml::from_str(text).map_err(|e| Reader { text, domain: "" }.refuse_toml(&e))?;
        let said = |raw: Spanned<Raw>| {
            let raw = raw.into_inner();
            let list = |list: Vec<Spanned<String>>| {
                let list: BTreeSet<String> = list.into_iter().map(Spanned::into_inner).collect();
                list.into_iter().collect::<Vec<_>>().join(" ")
            };
            let tenants = raw.tenants.map(|tenants| list(tenants.into_inner()));
            let (service, environment) = (raw.service.into_inner(), raw.environment.into_inner());
            let roles = list(raw.roles.into_inner());
            (raw.id.into_inner(), format!("{service} | {environment} | {tenants:?} | {roles}"))
        };
        Ok(file.workload.into_iter().map(said).collect())
    }

    /// The number of entries.
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// Whether every workload is refused.
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The entry for a SPIFFE ID, compared by exact bytes.
    pub(super) fn find(&self, spiffe_id: &str) -> Option<Grant<'_>> {
        let path = pattern::path(spiffe_id, &self.domain)?;
        let entry = self.tree.find(path)?;
        let bound = match entry.tenants {
            Tenants::Listed(_) => None,
            Tenants::Bound(at) => Some(TenantId::parse(path.split('/').nth(at)?).ok()?),
        };
        Some(Grant { entry, bound })
    }
}

struct Reader<'a> {
    text: &'a str,
    domain: &'a str,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        scan::line(self.text, offset)
    }

    fn refuse(&self, at: Range<usize>, key: &str, why: &'static str) -> Error {
        let comma = if key.is_empty() { "" } else { ", " };
        Error::invalid(format!("registry line {}{comma}{key}", self.line(at.start)), why)
    }

    /// The parser's message quotes the file, so only its kind is kept.
    fn refuse_toml(&self, error: &toml::de::Error) -> Error {
        let message = error.message();
        let why = if message.starts_with("unknown field") {
            "unknown key: an entry has id, service, environment, tenants and roles"
        } else if message.starts_with("missing field") {
            "a key is missing: an entry needs id, service, environment and roles"
        } else if message.starts_with("invalid type") {
            "a value has the wrong type"
        } else {
            "not valid TOML; is the file complete?"
        };
        self.refuse(error.span().unwrap_or(0..0), "", why)
    }

    fn entry(&self, raw: Spanned<Raw>) -> Result<(Pattern, Entry), Error> {
        let raw = raw.into_inner();
        let line = self.line(raw.id.span().start);
        let pattern = Pattern::parse(raw.id.get_ref(), self.domain).map_err(|w| self.refuse(raw.id.span(), "id", w))?;
        let description = Description {
            service: self.name(&raw.service, "service")?,
            environment: self.name(&raw.environment, "environment")?,
            roles: self.unique(&raw.roles, "roles", MAX_ROLES, |role| self.name(role, "roles"))?,
        };
        let tenants = match (pattern.tenant_at(), &raw.tenants) {
            (Some(at), None) => Tenants::Bound(at),
            (Some(_), Some(listed)) => {
                return Err(self.refuse(listed.span(), "tenants", "must be absent where the id binds {tenant}"));
            }
            (None, None) => return Err(self.refuse(raw.id.span(), "tenants", "is missing, and the id binds none")),
            (None, Some(listed)) if listed.get_ref().is_empty() => {
                return Err(self.refuse(listed.span(), "tenants", "must name at least one tenant"));
            }
            (None, Some(listed)) => {
                Tenants::Listed(self.unique(listed, "tenants", MAX_TENANTS, |tenant| self.tenant(tenant))?)
            }
        };
        let principal = match &tenants {
            Tenants::Listed(listed) if pattern.is_exact() => principal(raw.id.get_ref(), &description, listed).ok(),
            _ => None,
        };
        Ok((pattern, Entry { line, description, tenants, principal }))
    }

    fn unique<T: Ord>(
        &self,
        list: &Spanned<Vec<Spanned<String>>>,
        key: &str,
        most: usize,
        parse: impl Fn(&Spanned<String>) -> Result<T, Error>,
    ) -> Result<BTreeSet<T>, Error> {
        if list.get_ref().len() > most {
            return Err(self.refuse(list.span(), key, "too many: at most 1,000 tenants and 32 roles"));
        }
        let mut found = BTreeSet::new();
        for item in list.get_ref() {
            if !found.insert(parse(item)?) {
                return Err(self.refuse(item.span(), key, "names the same one twice"));
            }
        }
        Ok(found)
    }

    /// Services, environments and roles follow the rule of all names.
    fn name(&self, value: &Spanned<String>, key: &str) -> Result<String, Error> {
        Purpose::parse(value.get_ref())
            .map(|name| name.as_str().to_owned())
            .map_err(|_| self.refuse(value.span(), key, "must match [a-z0-9][a-z0-9._-]{0,62}"))
    }

    fn tenant(&self, value: &Spanned<String>) -> Result<TenantId, Error> {
        let why = if value.get_ref().contains('*') {
            "no workload has the keys to the kingdom: name each tenant, or bind it with {tenant} in the id"
        } else {
            "must match [a-z0-9][a-z0-9._-]{0,62}"
        };
        TenantId::parse(value.get_ref()).map_err(|_| self.refuse(value.span(), "tenants", why))
    }
}
