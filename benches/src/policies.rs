//! Policy sets of any size, of which ten are about the request that is measured.

use std::fmt::Write as _;

use vault_core::policy::Source;

/// The workload that asks.
pub const WORKLOAD: &str = "spiffe://prod.example/ns/shop/sa/billing";
/// Its entry, among those of other services.
pub const REGISTRY: &str = include_str!("../../policies/registry.toml");

/// What an `n`th policy is about: the first ten the request that is measured, each further ten another service with its
/// own tenant and datasets.
fn one(n: usize) -> String {
    let group = n / 10;
    let (service, tenant) =
        if group == 0 { ("billing".to_owned(), "acme".to_owned()) } else { (format!("s{group}"), format!("t{group}")) };
    let dataset = format!("Vault::Dataset::\"{tenant}/orders\"");
    let data = "action in Vault::Action::\"Data\"";
    let decrypt = "action == Vault::Action::\"Decrypt\"";
    let rule = match n % 10 {
        0 => format!(
            "permit (principal is Vault::Workload, {decrypt}, resource) when {{ principal.service == \"{service}\" && \
             principal.roles.contains(\"reader\") && principal.tenants.contains(resource.tenant) }};"
        ),
        1 => format!(
            "forbid (principal, {data}, resource) when {{ resource.tenant == Vault::Tenant::\"{tenant}\" }} \
             unless {{ principal is Vault::Workload && principal.tenants.contains(resource.tenant) }};"
        ),
        2 => format!(
            "permit (principal is Vault::Workload, {data}, resource == {dataset}) when {{ \
             context.grantedRoles.contains(\"reader\") }};"
        ),
        3 => format!(
            "forbid (principal, {data}, resource == {dataset}) unless {{ \
             [\"billing\", \"refunds\", \"audit\"].contains(context.purpose) }};"
        ),
        4 => format!("forbid (principal, {decrypt}, resource == {dataset}) unless {{ context.items < 2000000000 }};"),
        5 => format!(
            "forbid (principal, {data}, resource) when {{ resource.tenant == Vault::Tenant::\"{tenant}\" && \
             resource has residency && resource.residency == \"eu\" && !(principal is Vault::Workload && \
             principal.environment == \"production-eu\") }};"
        ),
        6 => format!(
            "forbid (principal, {decrypt}, resource == {dataset}) when {{ resource has classification && \
             resource.classification == \"restricted\" }} unless {{ context has endUser && context.endUser.mfaFresh }};"
        ),
        7 => format!(
            "forbid (principal, {data}, resource == {dataset}) unless {{ resource.tenant has suspended && \
             !resource.tenant.suspended }};"
        ),
        8 => format!(
            "forbid (principal, {decrypt}, resource == {dataset}) unless {{ resource has consentRequired && \
             (!resource.consentRequired || context.consent) }};"
        ),
        _ => format!(
            "permit (principal == Vault::Workload::\"spiffe://prod.example/ns/shop/sa/{service}\", action == \
             Vault::Action::\"Encrypt\", resource) when {{ principal.tenants.contains(resource.tenant) }};"
        ),
    };
    format!("@id(\"p{n}\")\n{rule}\n")
}

/// Files of `count` policies, none longer than a file may be.
pub fn files(count: usize) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for first in (0..count).step_by(500) {
        let mut text = String::new();
        for n in first..count.min(first + 500) {
            let _ = write!(text, "{}", one(n));
        }
        files.push((format!("p{first}.cedar"), text));
    }
    files
}

/// The same, as a set is loaded from.
pub fn sources(files: &[(String, String)]) -> Vec<Source<'_>> {
    files.iter().map(|(name, text)| Source { name, text }).collect()
}
