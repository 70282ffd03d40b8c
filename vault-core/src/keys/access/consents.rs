//! Consents: given and taken back by a tenant's own end users.

use ring::digest;
use serde::{Deserialize, Serialize};

use super::index::MOST_CONSENTS;
use super::{RETRIES, fresh_id};
use crate::audit::{Pseudonym, Recorded};
use crate::error::Error;
use crate::id::{ConsentId, DatasetId, Fingerprint, Purpose, TenantId};
use crate::keys::keyring::{Keyring, in_time};
use crate::keys::receipt::hex;
use crate::keys::rows;
use crate::policy::{ConsentAction, ConsentFacts, GrantConsent, ListConsents, Permit, WithdrawConsent};
use crate::principal::EndUser;
use crate::store::{Expect, Row, Table};
use crate::time::Timestamp;

/// Most datasets that one consent names.
const MOST_DATASETS: usize = 100;
/// Most purposes of one consent.
const MOST_PURPOSES: usize = 16;
/// Ten years, in milliseconds: how long a consent holds at most if it ends, and how far ahead it may begin.
const LONGEST: u64 = 3653 * 86_400_000;

/// What a consent is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsentScope {
    /// All datasets of the tenant, also those that are made later.
    All,
    /// These.
    Datasets(Vec<DatasetId>),
}

/// A consent to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewConsent {
    /// For which datasets: 1 to 100, none twice, or all.
    pub scope: ConsentScope,
    /// What for: 1 to 16, none twice.
    pub purposes: Vec<Purpose>,
    /// From when on; `None` for now.
    pub from: Option<Timestamp>,
    /// The first instant at which it no longer holds, ten years after it begins at most; `None` until it is withdrawn.
    pub until: Option<Timestamp>,
}

fn twice<T: Ord>(items: &[T]) -> Option<usize> {
    let mut seen = std::collections::BTreeSet::new();
    items.iter().position(|item| !seen.insert(item))
}

impl NewConsent {
    /// Whether it may be given at an instant.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `datasets`, `purposes` or one of their items, `from` or `until`.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        if let ConsentScope::Datasets(datasets) = &self.scope {
            if !(1..=MOST_DATASETS).contains(&datasets.len()) {
                return Err(Error::invalid("datasets", "must be 1 to 100, or all_datasets"));
            }
            if let Some(at) = twice(datasets) {
                return Err(Error::invalid(format!("datasets[{at}]"), "is named twice"));
            }
        }
        if !(1..=MOST_PURPOSES).contains(&self.purposes.len()) {
            return Err(Error::invalid("purposes", "must be 1 to 16"));
        }
        if let Some(at) = twice(&self.purposes) {
            return Err(Error::invalid(format!("purposes[{at}]"), "is named twice"));
        }
        let from = self.from.unwrap_or(now);
        if from > now.plus_millis(LONGEST) {
            return Err(Error::invalid("from", "must not be more than ten years ahead"));
        }
        match self.until {
            Some(until) if until <= from.max(now) => {
                Err(Error::invalid("until", "must be later than now and than from"))
            }
            Some(until) if until > from.plus_millis(LONGEST) => {
                Err(Error::invalid("until", "must not be more than ten years after from"))
            }
            _ => Ok(()),
        }
    }
}

/// Who gave a consent, or took it back, when and through whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenBy {
    /// When.
    pub at: Timestamp,
    /// What stands for the end user in the audit log.
    pub end_user: Pseudonym,
    /// Who issued the token that proved them.
    pub issuer: String,
    /// The SPIFFE ID of the workload that asked for them.
    pub workload: String,
}

/// A consent, in force, over or withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Its name.
    pub id: ConsentId,
    /// Whose it is.
    pub tenant: TenantId,
    /// For which datasets.
    pub scope: ConsentScope,
    /// What for.
    pub purposes: Vec<Purpose>,
    /// From when on.
    pub from: Timestamp,
    /// The first instant at which it no longer holds; `None` until it is withdrawn.
    pub until: Option<Timestamp>,
    /// Who gave it.
    pub granted: GivenBy,
    /// Who took it back, if anybody did.
    pub withdrawn: Option<GivenBy>,
    /// SHA-256 over all of it but its withdrawal, in canonical form (`docs/consent.md`): what the audit log names.
    pub sha256: Fingerprint,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenRow {
    at: u64,
    end_user: String,
    issuer: String,
    workload: String,
}

/// What stands in the seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsentRow {
    /// Absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datasets: Option<Vec<String>>,
    purposes: Vec<String>,
    from: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    granted: GivenRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    withdrawn: Option<GivenRow>,
}

fn damaged() -> Error {
    Error::corrupt("store", "table consents: a row is not as it was written")
}

fn given(row: &GivenRow) -> Result<GivenBy, Error> {
    let pseudonym = crate::id::from_hex(&row.end_user).map(Pseudonym).ok_or_else(damaged)?;
    let at = Timestamp(row.at);
    Ok(GivenBy { at, end_user: pseudonym, issuer: row.issuer.clone(), workload: row.workload.clone() })
}

impl ConsentRow {
    /// Whether it is about a dataset.
    pub(super) fn covers(&self, dataset: &DatasetId) -> bool {
        self.datasets.as_ref().is_none_or(|named| named.iter().any(|name| name == dataset.as_str()))
    }

    fn purposes(&self) -> Result<Vec<Purpose>, Error> {
        self.purposes.iter().map(|purpose| Purpose::parse(purpose).map_err(|_| damaged())).collect()
    }

    /// What a decision reads of it.
    pub(super) fn facts(&self, id: ConsentId) -> Result<ConsentFacts, Error> {
        let until = self.until.map(Timestamp);
        Ok(ConsentFacts { id, purposes: self.purposes()?, from: Timestamp(self.from), until })
    }

    fn named(&self) -> Result<Option<Vec<DatasetId>>, Error> {
        let parse = |name: &String| DatasetId::parse(name).map_err(|_| damaged());
        self.datasets.as_ref().map(|named| named.iter().map(parse).collect()).transpose()
    }

    /// SHA-256("blindvault/consent/v1" ‖ 00 ‖ id ‖ LP(tenant) ‖ u16 n ‖ n × LP(dataset) ‖ u16 m ‖ m × LP(purpose) ‖ u64
    /// from ‖ u64 until ‖ u64 when ‖ LP(end user's pseudonym as hexadecimal digits) ‖ LP(issuer) ‖ LP(workload)), LP(x)
    /// being x behind its u16 length. n is 0 for all datasets, until 0 for none.
    fn sha256(&self, tenant: &TenantId, id: ConsentId) -> Result<Fingerprint, Error> {
        let mut bytes = b"blindvault/consent/v1\0".to_vec();
        bytes.extend_from_slice(&id.0);
        let count = |bytes: &mut Vec<u8>, len: usize| {
            // At most 100 of anything, and texts below 64 KiB.
            bytes.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        };
        let text = |bytes: &mut Vec<u8>, text: &str| {
            count(bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(&mut bytes, tenant.as_str());
        for list in [self.datasets.as_deref().unwrap_or_default(), &self.purposes] {
            count(&mut bytes, list.len());
            list.iter().for_each(|item| text(&mut bytes, item));
        }
        for number in [self.from, self.until.unwrap_or(0), self.granted.at] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for part in [&self.granted.end_user, &self.granted.issuer, &self.granted.workload] {
            text(&mut bytes, part);
        }
        let digest = digest::digest(&digest::SHA256, &bytes);
        digest.as_ref().try_into().map(Fingerprint).map_err(|_| damaged())
    }

    fn view(&self, tenant: &TenantId, id: ConsentId) -> Result<Consent, Error> {
        Ok(Consent {
            id,
            tenant: tenant.clone(),
            scope: self.named()?.map_or(ConsentScope::All, ConsentScope::Datasets),
            purposes: self.purposes()?,
            from: Timestamp(self.from),
            until: self.until.map(Timestamp),
            granted: given(&self.granted)?,
            withdrawn: self.withdrawn.as_ref().map(given).transpose()?,
            sha256: self.sha256(tenant, id)?,
        })
    }
}

fn names_of<A: ConsentAction>(recorded: &Recorded<Permit<A>>) -> Result<(&TenantId, &EndUser), Error> {
    let decision = recorded.permit().decision();
    let tenant = decision.resource.tenant.as_ref().ok_or_else(|| Error::invalid("tenant", "this call needs one"))?;
    let user = decision.end_user.as_deref().ok_or_else(|| Error::invalid("end_user_token", "this call needs one"))?;
    Ok((tenant, user))
}

impl Keyring {
    async fn given_by<A: ConsentAction>(&self, recorded: &Recorded<Permit<A>>) -> Result<GivenRow, Error> {
        let (tenant, user) = names_of(recorded)?;
        Ok(GivenRow {
            at: self.parts.clock.now().0,
            end_user: hex(&self.end_user_pseudonym(tenant, user).await?.0),
            issuer: user.issuer().to_owned(),
            workload: recorded.permit().decision().principal.clone(),
        })
    }

    /// Writes down a consent of the permit's end user: durable, and in force, when this returns.
    ///
    /// # Errors
    /// What [`NewConsent::check`] answers; [`Error::Invalid`] naming the dataset that the tenant does not have;
    /// [`Error::FailedPrecondition`] if the tenant is destroyed, or has too many consents in force for a dataset;
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn grant_consent(
        &self,
        recorded: &Recorded<Permit<GrantConsent>>,
        new: &NewConsent,
    ) -> Result<Consent, Error> {
        in_time(recorded, &*self.parts.clock)?;
        let (tenant, _) = names_of(recorded)?;
        let now = self.parts.clock.now();
        new.check(now)?;
        let id = ConsentId(fresh_id(now)?);
        let text = |id: &DatasetId| id.as_str().to_owned();
        let datasets = match &new.scope {
            ConsentScope::All => None,
            ConsentScope::Datasets(named) => Some(named.iter().map(text).collect()),
        };
        let row = ConsentRow {
            datasets,
            purposes: new.purposes.iter().map(|purpose| purpose.as_str().to_owned()).collect(),
            from: new.from.unwrap_or(now).0,
            until: new.until.map(|until| until.0),
            granted: self.given_by(recorded).await?,
            withdrawn: None,
        };
        let key = self.row_key(tenant).await?;
        let places: Vec<Option<&DatasetId>> = match &new.scope {
            ConsentScope::All => vec![None],
            ConsentScope::Datasets(named) => named.iter().map(Some).collect(),
        };
        for _ in 0..RETRIES {
            let place = (Table::Consents, rows::named_key(tenant, id.0));
            let mut writes = vec![key.write(place, Expect::Absent, &row, false)?];
            for (at, dataset) in places.iter().enumerate() {
                let mut index = self.index(tenant, *dataset).await?;
                if index.row.consents.len() >= MOST_CONSENTS {
                    self.prune(&key, tenant, &mut index.row, now).await?;
                }
                if index.row.consents.len() >= MOST_CONSENTS {
                    return Err(Error::FailedPrecondition("too many consents are in force; withdraw some"));
                }
                index.row.consents.push(id);
                writes.extend(self.write_index(tenant, *dataset, &index).await.map_err(|error| match error {
                    Error::NotFound("dataset") => {
                        Error::invalid(format!("datasets[{at}]"), "is no dataset of the tenant")
                    }
                    other => other,
                })?);
            }
            match self.parts.store.commit(writes).await {
                Err(Error::Conflict(_)) => {}
                done => return done.and_then(|()| row.view(tenant, id)),
            }
        }
        Err(Error::Conflict("consent"))
    }

    /// Takes a consent back, for ever: durable, and without effect from here on, when this returns. One that was taken
    /// back before stays as it is. The flag says whether this call did it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the tenant has no such consent; [`Error::FailedPrecondition`] if the tenant is destroyed;
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn withdraw_consent(
        &self,
        recorded: &Recorded<Permit<WithdrawConsent>>,
        id: ConsentId,
    ) -> Result<(Consent, bool), Error> {
        in_time(recorded, &*self.parts.clock)?;
        let (tenant, _) = names_of(recorded)?;
        let key = self.row_key(tenant).await?;
        let place = rows::named_key(tenant, id.0);
        for _ in 0..RETRIES {
            let stored = self.parts.store.get(Table::Consents, &place).await?.ok_or(Error::NotFound("consent"))?;
            let (mut row, ended): (ConsentRow, bool) = key.open(Table::Consents, &place, &stored)?;
            if ended {
                return Ok((row.view(tenant, id)?, false));
            }
            row.withdrawn = Some(self.given_by(recorded).await?);
            let expect = Expect::Version(stored.version);
            let mut writes = vec![key.write((Table::Consents, place.clone()), expect, &row, true)?];
            let named = row.named()?;
            let places = named.as_ref().map_or_else(|| vec![None], |named| named.iter().map(Some).collect());
            for dataset in places {
                let mut index = self.index(tenant, dataset).await?;
                let before = index.row.consents.len();
                index.row.consents.retain(|named| *named != id);
                if index.row.consents.len() != before {
                    writes.extend(self.write_index(tenant, dataset, &index).await?);
                }
            }
            match self.parts.store.commit(writes).await {
                Err(Error::Conflict(_)) => {}
                done => return done.and_then(|()| Ok((row.view(tenant, id)?, true))),
            }
        }
        Err(Error::Conflict("consent"))
    }

    /// Up to `limit` consents of the tenant after one, oldest first, withdrawn ones too.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] if the tenant is destroyed; [`Error::Unavailable`], [`Error::Corrupt`].
    pub(crate) async fn list_consents(
        &self,
        recorded: &Recorded<Permit<ListConsents>>,
        after: Option<ConsentId>,
        limit: usize,
    ) -> Result<Vec<Consent>, Error> {
        let (tenant, _) = names_of(recorded)?;
        let key = self.row_key(tenant).await?;
        let after = after.map(|id| rows::named_key(tenant, id.0));
        let found = self.parts.store.scan(Table::Consents, &rows::of_tenant(tenant), after.as_deref(), limit).await?;
        let view = |key_of_row: &[u8], row: &Row| {
            let id = rows::named_id(key_of_row)?;
            let (row, _): (ConsentRow, bool) = key.open(Table::Consents, key_of_row, row)?;
            row.view(tenant, ConsentId(id))
        };
        found.iter().map(|scanned| view(&scanned.key, &scanned.row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn new(datasets: usize, purposes: usize) -> NewConsent {
        NewConsent {
            scope: ConsentScope::Datasets((0..datasets).map(|n| DatasetId::parse(&format!("d{n}")).unwrap()).collect()),
            purposes: (0..purposes).map(|n| Purpose::parse(&format!("p{n}")).unwrap()).collect(),
            from: None,
            until: None,
        }
    }

    #[test]
    fn bounds_are_named() {
        let field = |consent: &NewConsent| match consent.check(NOW) {
            Ok(()) => String::new(),
            Err(Error::Invalid { field, .. }) => field,
            Err(other) => panic!("{other}"),
        };
        for (datasets, purposes, wanted) in [(1, 1, ""), (100, 16, ""), (0, 1, "datasets"), (101, 1, "datasets")] {
            assert_eq!(field(&new(datasets, purposes)), wanted);
        }
        assert_eq!((field(&new(1, 0)), field(&new(1, 17))), ("purposes".to_owned(), "purposes".to_owned()));
        let mut twice = new(3, 3);
        twice.purposes[2] = twice.purposes[0].clone();
        assert_eq!(field(&twice), "purposes[2]");
        let d = DatasetId::parse("d").unwrap();
        assert_eq!(
            field(&NewConsent { scope: ConsentScope::Datasets(vec![d.clone(), d]), ..new(1, 1) }),
            "datasets[1]"
        );
        let all = NewConsent { scope: ConsentScope::All, ..new(0, 1) };
        assert_eq!(field(&all), "");
        let at = |from: Option<u64>, until: Option<u64>| {
            let [from, until] = [from, until].map(|at| at.map(|at| NOW.plus_millis(at)));
            field(&NewConsent { from, until, ..all.clone() })
        };
        assert_eq!(at(None, Some(1)), "");
        assert_eq!(at(None, Some(0)), "until");
        assert_eq!(at(Some(5), Some(5)), "until");
        assert_eq!(at(Some(5), Some(6)), "");
        assert_eq!((at(None, Some(LONGEST)), at(None, Some(LONGEST + 1))), (String::new(), "until".to_owned()));
        assert_eq!((at(Some(LONGEST), None), at(Some(LONGEST + 1), None)), (String::new(), "from".to_owned()));
        // One that would have ended before it was given.
        let past = NewConsent { from: Some(Timestamp(0)), until: Some(Timestamp(1)), ..all };
        assert_eq!(field(&past), "until");
    }

    #[test]
    fn the_fingerprint_is_that_of_its_documentation() {
        let by =
            GivenRow { at: 7, end_user: "00".repeat(16), issuer: "https://i".into(), workload: "spiffe://w/a".into() };
        let row = ConsentRow {
            datasets: Some(vec!["customers".into()]),
            purposes: vec!["billing".into()],
            from: 5,
            until: None,
            granted: by,
            withdrawn: None,
        };
        let (acme, id) = (TenantId::parse("acme").unwrap(), ConsentId([1; 16]));
        let made = row.sha256(&acme, id).unwrap();
        // With Python's hashlib, from the form that is documented.
        assert_eq!(made.to_string(), "a739e55a25f838d9b6ad2c114ff898f6b65e0ad700b3cbdfdbf41f1dab9f0fac");
        assert_ne!(ConsentRow { datasets: None, ..row.clone() }.sha256(&acme, id).unwrap(), made);
        assert_ne!(ConsentRow { until: Some(9), ..row.clone() }.sha256(&acme, id).unwrap(), made);
        // A withdrawal changes nothing of what was given.
        assert_eq!(ConsentRow { withdrawn: Some(row.granted.clone()), ..row }.sha256(&acme, id).unwrap(), made);
    }
}
