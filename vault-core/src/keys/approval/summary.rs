//! What a request changes, said by the vault in lines of text: identifiers, numbers and times, never data, and no person's
//! name but operators'.

use super::{Demand, NewApproval, Ordered};
use crate::error::Error;
use crate::id::{KeyVersion, Subject, TenantId};
use crate::keys::access::GrantOrder;
use crate::keys::keyring::Keyring;
use crate::keys::receipt;
use crate::keys::rows;
use crate::keys::subjects::SubjectRow;
use crate::kms::{Custody, RootId};
use crate::store::Table;
use crate::time::Timestamp;

/// Most lines of a summary.
const MOST_LINES: usize = 120;
/// Most bytes of a summary: with a request's other parts it fits one row.
const MOST_BYTES: usize = 16 * 1024;
/// Data keys are counted up to here.
const COUNTED: usize = 10_000;

/// Lines of a summary, within its bounds: what does not fit any more is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    lines: Vec<String>,
    bytes: usize,
    left_out: usize,
}

impl Lines {
    /// Adds a line.
    pub(crate) fn push(&mut self, line: String) {
        self.bytes = self.bytes.saturating_add(line.len());
        if self.bytes > MOST_BYTES || self.lines.len() >= MOST_LINES {
            self.left_out += 1;
        } else {
            self.lines.push(line);
        }
    }

    /// Adds the lines of another.
    fn append(&mut self, other: Self) {
        other.lines.into_iter().for_each(|line| self.push(line));
        self.left_out += other.left_out;
    }

    /// All of them, and how many there was no room for.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.lines.push(format!("and {} more changes that do not fit here", self.left_out));
        }
        self.lines
    }
}

impl Keyring {
    /// The summary of a request.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(super) async fn summary(&self, new: &NewApproval<'_>) -> Result<Vec<String>, Error> {
        let mut lines = Lines::default();
        match new.ordered {
            Ordered::ShredSubject(tenant, subject) => {
                let count = self.data_keys_of(tenant, subject).await?;
                lines.push(format!(
                    "destroys all data keys of one subject of tenant {tenant}, in all datasets, for ever"
                ));
                lines.push(format!("data keys, all versions: {count}"));
                let version = self.version_of(tenant).await?;
                let after = length(new.destroy_after_millis);
                lines.push(format!(
                    "tenant key versions up to {version} are destroyed {after} later, once rotated away from"
                ));
            }
            Ordered::ShredTenant(tenant) => {
                let count = self.data_keys(tenant).await?;
                lines.push(format!("destroys all keys of tenant {tenant}, for ever; the name is not used again"));
                lines.push(format!("data keys, all versions: {count}"));
                lines.push(format!("tenant key versions: all, 1 to {}", self.version_of(tenant).await?));
            }
            Ordered::Grant(order) => granted(order, &mut lines),
            Ordered::ResumeTenant(tenant, revision) => {
                let (row, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
                lines.push(format!("lifts the suspension of tenant {tenant}, which is at revision {revision}"));
                lines.push(match row.suspended {
                    Some(suspended) => {
                        format!("suspended since {} by {}", receipt::time(Timestamp(suspended.at)), suspended.by)
                    }
                    None => "suspended by an earlier version of the vault, which did not note by whom".to_owned(),
                });
            }
            Ordered::ChangeCustody(tenant, custody, revision) => {
                let version = self.version_of(tenant).await?;
                let (now, _) = self.active_version(tenant, version).await?;
                lines.push(format!(
                    "makes a new version of the key of tenant {tenant}, which is at revision {revision}"
                ));
                moved(&now.wrapping.custody(), custody, version, &mut lines);
            }
            Ordered::ActivatePolicy(_) | Ordered::ChangeCharter { .. } => {}
        }
        lines.append(new.lines.clone());
        demanded(new.demand, &mut lines);
        Ok(lines.finish())
    }

    async fn version_of(&self, tenant: &TenantId) -> Result<KeyVersion, Error> {
        let (row, _) = self.tenant_row(tenant).await?.ok_or(Error::NotFound("tenant"))?;
        Ok(KeyVersion(row.key_version))
    }

    async fn data_keys_of(&self, tenant: &TenantId, subject: &Subject) -> Result<String, Error> {
        let row = self.row::<SubjectRow>(Table::Subjects, &rows::subject_key(tenant, subject)).await?;
        Ok(match row.map(|(row, _)| row.listed()).transpose()? {
            Some(Some(listed)) => listed.len().to_string(),
            Some(None) => "not counted, as the subject's row does not list them".to_owned(),
            None => "0".to_owned(),
        })
    }

    async fn data_keys(&self, tenant: &TenantId) -> Result<String, Error> {
        let found = self.parts.store.scan(Table::DataKeys, &rows::of_tenant(tenant), None, COUNTED + 1).await?;
        Ok(if found.len() > COUNTED { format!("more than {COUNTED}") } else { found.len().to_string() })
    }
}

fn granted(order: &GrantOrder, lines: &mut Lines) {
    let (tenant, dataset) = (&order.tenant, &order.dataset);
    lines.push(format!("gives the workload {} roles on dataset {dataset} of tenant {tenant}", order.workload));
    lines.push(format!("roles: {}", order.roles.join(", ")));
    lines.push(format!("until {}", receipt::time(order.until)));
}

fn moved(now: &Custody, then: &Custody, version: KeyVersion, lines: &mut Lines) {
    lines.push(format!("now, version {version}: {now}"));
    lines.push(format!("then, version {}: {then}", u64::from(version.0) + 1));
    let beyond = |roots: &[&RootId], others: &[&RootId]| -> String {
        let only: Vec<&str> = roots.iter().filter(|root| !others.contains(root)).map(|root| root.as_str()).collect();
        if only.is_empty() { "none".to_owned() } else { only.join(" ") }
    };
    let (before, after) = (now.roots(), then.roots());
    lines.push(format!("root keys added: {}", beyond(&after, &before)));
    lines.push(format!("root keys no longer needed once it is rotated: {}", beyond(&before, &after)));
    lines.push(format!("opens with {} in place of {}", needed(then), needed(now)));
}

const fn needed(custody: &Custody) -> &'static str {
    match custody {
        Custody::Single(_) => "one root key",
        Custody::Split(_) => "two root keys, both needed",
        Custody::Replicated(_) => "any one of several root keys",
    }
}

fn demanded(demand: Demand, lines: &mut Lines) {
    if demand.delay_millis > 0 {
        let delay = length(demand.delay_millis);
        lines.push(format!("carried out {delay} after it is approved, unless it is cancelled until then"));
    }
}

/// A length of time, in the largest unit that it is a whole number of.
fn length(millis: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let whole = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{millis} ms"), |(unit, name)| format!("{} {name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_told_in_their_largest_unit() {
        for (millis, text) in [(0, "0 ms"), (1, "1 ms"), (60_000, "1 min"), (86_400_000, "1 d"), (90_000_000, "25 h")] {
            assert_eq!(length(millis), text);
        }
    }

    #[test]
    fn what_does_not_fit_a_summary_is_counted() {
        let mut lines = Lines::default();
        (0..MOST_LINES + 7).for_each(|n| lines.push(format!("line {n}")));
        let lines = lines.finish();
        assert_eq!(lines.len(), MOST_LINES + 1);
        assert_eq!(lines.last().map(String::as_str), Some("and 7 more changes that do not fit here"));
        let mut lines = Lines::default();
        (0..20).for_each(|_| lines.push("x".repeat(1000)));
        assert_eq!(lines.finish().len(), 17, "sixteen, and how many more");
    }

    #[test]
    fn a_change_of_custody_names_the_root_keys_that_come_and_go() {
        let custody = |text: &str| Custody::parse(text).unwrap_or_else(|error| unreachable!("{error}"));
        let mut lines = Lines::default();
        moved(&custody("split(a:1,b:2)"), &custody("b:2"), KeyVersion(3), &mut lines);
        assert_eq!(
            lines.finish(),
            [
                "now, version 3: split(a:1,b:2)",
                "then, version 4: b:2",
                "root keys added: none",
                "root keys no longer needed once it is rotated: a:1",
                "opens with one root key in place of two root keys, both needed",
            ]
        );
    }
}
