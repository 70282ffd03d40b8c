//! Finding the key of a call in stores of different sizes.

use std::path::Path;
use std::time::{Duration, Instant};

use vault_core::audit::Recorded;
use vault_core::id::{KeyId, Subject, TenantId};
use vault_core::keys::CacheSettings;
use vault_core::policy::{DataRequest, Decrypt, Permit};
use vault_core::principal::Workload;
use vault_core::time::{Clock as _, SystemClock};

use crate::bed::{Bed, BenchRoot, TENANTS_EACH, target};
use crate::fill;

/// What there is much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    /// Subjects of one tenant, each with a data key.
    Subjects,
    /// Tenants, each with one data key.
    Tenants,
}

/// The one tenant of [`Many::Subjects`].
const ACME: &str = "acme";
/// Keys measured in turn.
pub const SET: usize = 256;

/// A store with many keys, and a vault over it.
pub struct Lookup {
    bed: Bed,
    workload: Workload,
    many: Many,
    rows: u64,
    seed: u64,
}

/// Permits for some keys: they last for half a minute.
pub struct Ready(Vec<(Recorded<Permit<Decrypt>>, KeyId)>);

impl Lookup {
    /// Fills the store in `dir`.
    pub fn fill(dir: &Path, many: Many, rows: u64) {
        let root = BenchRoot::shared();
        let acme = TenantId::parse(ACME).unwrap();
        let bed = Bed::open(dir, dir, CacheSettings::default(), std::slice::from_ref(&acme));
        match many {
            Many::Tenants => fill::tenants(&*bed.store, &root, rows),
            Many::Subjects => {
                bed.make_tenant(&acme);
                fill::subjects(&*bed.store, &fill::wrapping_key(&*bed.store, &root, &acme), &acme, rows)
            }
        };
    }

    /// Over a store that was filled before. The audit log is in `audit`.
    pub fn open(dir: &Path, audit: &Path, many: Many, rows: u64) -> Self {
        // The first ones, for hot keys, and others that the seed finds.
        let tenants: Vec<TenantId> = match many {
            Many::Subjects => vec![TenantId::parse(ACME).unwrap()],
            Many::Tenants => scattered(rows).map(fill::tenant_of).collect(),
        };
        let bed = Bed::open(dir, audit, CacheSettings::default(), &tenants);
        let workload = bed.workload(0);
        Self { bed, workload, many, rows, seed: 0 }
    }

    /// What a call is about, and its key.
    fn key(&self, number: u64) -> (TenantId, Option<Subject>, KeyId) {
        let id = fill::key_id(number);
        match self.many {
            Many::Subjects => (TenantId::parse(ACME).unwrap(), Some(fill::subject_of(id)), id),
            Many::Tenants => (fill::tenant_of(number), None, id),
        }
    }

    /// Permits for [`SET`] keys: for the same ones each time, or others.
    pub fn ready(&mut self, same: bool) -> Ready {
        let begin = if same { 0 } else { self.seed };
        self.seed += SET as u64;
        let this = &*self;
        let keys = this.vault().keys();
        let all: Vec<u64> = match this.many {
            // All that the registry names.
            Many::Tenants => scattered(this.rows).collect(),
            Many::Subjects => Vec::new(),
        };
        let numbers = (begin..begin + SET as u64).map(|at| match this.many {
            Many::Subjects => at.wrapping_mul(0x9e37_79b9) % this.rows,
            Many::Tenants => all[usize::try_from(at).unwrap() % all.len()],
        });
        let recorded = numbers.map(|number| async move {
            let (tenant, subject, id) = this.key(number);
            let about = target(&tenant, subject.clone());
            let facts = keys.facts(&tenant, &about.dataset).await.unwrap();
            let request = DataRequest {
                tenant: tenant.clone(),
                dataset: about.dataset,
                subject: subject.clone(),
                purpose: about.purpose,
                end_user: None,
                request: about.request,
                items: 1,
            };
            let now = SystemClock.now();
            let permit =
                this.vault().authorizer().authorize_data(&this.workload, request, facts.as_ref(), now).unwrap();
            let pseudonym = match &subject {
                Some(subject) => Some(keys.pseudonym(&tenant, subject).await.unwrap()),
                None => None,
            };
            (this.vault().audit().record(permit, None, pseudonym.into()).await.unwrap(), id)
        });
        Ready(pollster::block_on(futures_util::future::join_all(recorded)))
    }

    fn vault(&self) -> &vault_core::Vault {
        &self.bed.vault
    }

    /// Wipes all keys in memory.
    pub fn evict(&self) {
        self.vault().keys().evict_all();
    }

    /// Everything that a Decrypt does to get at its keys, for each of them: the facts for the policy, the key that the
    /// envelope names, the key. The time of one.
    pub fn look_up(&self, ready: &Ready) -> Duration {
        let keys = self.vault().keys();
        let begun = Instant::now();
        pollster::block_on(async {
            for (recorded, id) in &ready.0 {
                let resource = recorded.permit().resource();
                let (tenant, dataset) = (resource.tenant.as_ref().unwrap(), resource.dataset.as_ref().unwrap());
                assert!(keys.facts(tenant, dataset).await.unwrap().is_some());
                let plan = keys.plan_opening(resource, *id).await.unwrap().unwrap();
                let opened = keys.open_with(recorded, &plan, |key| Ok(key.id())).await.unwrap();
                assert!(opened == *id);
            }
        });
        begun.elapsed() / u32::try_from(ready.0.len()).unwrap()
    }

    /// The keys of the rows in the store that [`Self::look_up`] unwraps.
    pub fn row_keys(&self, ready: &Ready) -> Vec<Vec<u8>> {
        let key = |(recorded, id): &(Recorded<Permit<Decrypt>>, KeyId)| {
            [recorded.permit().resource().tenant.as_ref().unwrap().as_str().as_bytes(), &id.0].join(&0)
        };
        ready.0.iter().map(key).collect()
    }
}

impl Ready {
    /// Says that all went well: nothing is written of them any more.
    pub fn done(self) {
        for (recorded, _) in self.0 {
            recorded.complete();
        }
    }
}

/// As many tenants as a workload may use, from all over.
fn scattered(rows: u64) -> impl Iterator<Item = u64> {
    let count = rows.min(TENANTS_EACH as u64);
    (0..count).map(move |at| at * (rows / count))
}
