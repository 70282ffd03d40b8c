//! Which bundle decides: loaded when the vault is opened, and again whenever another gateway or we ourselves put another
//! one in force. Where it cannot be loaded, nothing is decided.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Vault;
use super::policies::NOT_YET;
use crate::audit::{PolicyMark, SystemEvent};
use crate::bundle::{Act, Active, BundleRef, PolicyTrust, Shelf, SignedBundle};
use crate::error::{Dependency, Error};
use crate::id::Fingerprint;
use crate::store::{POLICY_ROWS, Watcher};
use crate::time::Clock;

/// How long the old policies may still decide once it is known that there are others, in milliseconds. A gateway hears
/// of others within 250 ms, so both together are less than a second.
const GRACE_MILLIS: u64 = 600;

/// The bundle in force, and what was heard of others.
pub(super) struct InForce {
    pub(super) trust: PolicyTrust,
    clock: Arc<dyn Clock>,
    /// Nothing was heard that was not dealt with: the one thing that a decision looks at.
    settled: AtomicBool,
    state: Mutex<State>,
    /// One at a time loads.
    turn: futures_util::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// `None` for the configuration's files.
    bundle: Option<BundleRef>,
    /// How often something was heard.
    heard: u64,
    /// When the first that was not dealt with was heard, and when the last was; by the monotonic clock.
    since: Option<u64>,
    last: u64,
    /// What is in force was found, and is not acceptable.
    refused: bool,
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InForce").field("bundle", &self.bundle()).finish_non_exhaustive()
    }
}

impl InForce {
    fn new(trust: PolicyTrust, clock: Arc<dyn Clock>) -> Self {
        let (settled, state, turn) = (AtomicBool::new(true), Mutex::default(), futures_util::lock::Mutex::default());
        Self { trust, clock, settled, state, turn }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bundle in force; `None` for the configuration's files.
    pub(super) fn bundle(&self) -> Option<BundleRef> {
        self.state().bundle
    }

    /// Another bundle may be in force.
    pub(super) fn hear(&self) {
        let now = self.clock.monotonic_millis();
        let mut state = self.state();
        state.heard += 1;
        state.since.get_or_insert(now);
        state.last = now;
        self.settled.store(false, Ordering::Release);
    }

    /// Whether decisions may be made.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let state = self.state();
        if state.refused {
            return Err(Error::unavailable(Dependency::Policy, "the policy bundle in force is not acceptable here"));
        }
        let waited = state.since.map_or(0, |since| self.clock.monotonic_millis().saturating_sub(since));
        if waited > GRACE_MILLIS {
            return Err(Error::unavailable(
                Dependency::Policy,
                "the policy bundle in force could not be loaded in time",
            ));
        }
        Ok(())
    }

    /// What was heard up to `heard` was dealt with.
    fn settle(&self, heard: u64) {
        let mut state = self.state();
        state.refused = false;
        if state.heard == heard {
            state.since = None;
            self.settled.store(true, Ordering::Release);
        } else {
            state.since = Some(state.last);
        }
    }

    /// It could not be dealt with. What passes is waited for, for a while from when it was heard; a store that is away
    /// ends nothing here, its lease does. What does not pass is refused at once.
    fn fail(&self, error: &Error) {
        if matches!(error, Error::Unavailable { .. }) {
            return;
        }
        let mut state = self.state();
        state.refused = true;
        self.settled.store(false, Ordering::Release);
    }
}

impl Watcher for InForce {
    fn changed(&self, tenant: Option<&[u8]>) {
        if tenant.is_none_or(|tenant| tenant == POLICY_ROWS) {
            self.hear();
        }
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt("store", format!("table policies: {what}"))
}

impl Vault {
    /// The same vault, with its policies from the bundle that the store says is in force; while none is, they stay those
    /// that it was made with. `recorded` is what its audit log says was in force last
    /// ([`Recovery::policy`](crate::audit::Recovery)): the store must stand there or later.
    ///
    /// From here on every bundle that comes into force, through whatever gateway, is to be loaded by
    /// [`Self::refresh_policies`]: ask [`Self::policies_changed`] every 50 milliseconds or oftener whether to call it, and
    /// call it twice a second anyhow. What it does not load in time, or cannot, ends all decisions.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the store was rolled back, or a bundle is not as it was proposed; what
    /// [`PolicyTrust::judge`] refuses; [`Error::Unavailable`].
    pub async fn adopt_policies(mut self, trust: PolicyTrust, recorded: Option<PolicyMark>) -> Result<Self, Error> {
        let wanted = !trust.signers.is_empty();
        let in_force = Arc::new(InForce::new(trust, Arc::clone(&self.clock)));
        let watcher: Weak<InForce> = Arc::downgrade(&in_force);
        // Before the first look, so that nothing is missed after it.
        self.keys.store().watch(watcher);
        let shelf = Shelf(&**self.keys.store());
        let active = if wanted { Some(shelf.begin(self.clock.now()).await?) } else { shelf.active().await? };
        if let Some(mark) = recorded {
            continues(&shelf, active, mark).await?;
        }
        in_force.hear();
        self.in_force = Some(in_force);
        self.refresh_policies().await?;
        Ok(self)
    }

    /// Puts a bundle in force by its signatures alone, while no gateway serves: when the bundle in force is not one for
    /// this version of the program any more, so that there is nobody to approve another. Everything else is demanded as
    /// ever. The vault is to be closed afterwards.
    ///
    /// # Errors
    /// As [`Self::adopt_policies`]; [`Error::Invalid`] naming what is wrong with the bundle; [`Error::FailedPrecondition`]
    /// if it is in force or may not yet be.
    pub async fn install_policy(
        &self,
        trust: &PolicyTrust,
        recorded: Option<PolicyMark>,
        signed: &SignedBundle,
    ) -> Result<BundleRef, Error> {
        let (shelf, now, bundle) = (Shelf(&**self.keys.store()), self.clock.now(), signed.reference());
        let judged = trust.judge_aside(signed.clone(), self.keys.instance()).await?;
        let active = shelf.begin(now).await?;
        if let Some(mark) = recorded {
            continues(&shelf, Some(active), mark).await?;
        }
        active.admits(bundle, signed.bundle().previous)?;
        if now < signed.bundle().not_before {
            return Err(NOT_YET);
        }
        // In the log before it happens.
        self.audit.system(SystemEvent::PolicyInstalling(bundle.into())).await?;
        shelf.put(signed, &judged, "", now).await?;
        let writes = shelf.activation(&active, Act { bundle, approval: None, now })?;
        self.keys.store().commit(Vec::from(writes)).await?;
        let epoch = self.authorizer.swap(judged.set, judged.registry);
        self.audit.system(SystemEvent::PolicyBundle { mark: bundle.into(), epoch }).await?;
        Ok(bundle)
    }

    /// The bundle in force; `None` if policies are from elsewhere.
    pub fn policy_bundle(&self) -> Option<BundleRef> {
        self.in_force.as_ref().and_then(|in_force| in_force.bundle())
    }

    /// Whether another bundle may be in force than the one that decides here.
    pub fn policies_changed(&self) -> bool {
        self.in_force.as_ref().is_some_and(|in_force| !in_force.settled.load(Ordering::Acquire))
    }

    /// Whether decisions are made: not when the bundle in force could not be loaded.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn policies_ready(&self) -> Result<(), Error> {
        self.in_force.as_ref().map_or(Ok(()), |in_force| in_force.check())
    }

    /// Loads the bundle in force, if it is another than the one that decides here, and puts it in its place in one step.
    ///
    /// # Errors
    /// As [`Self::adopt_policies`]. Nothing is decided until a later call succeeds.
    pub async fn refresh_policies(&self) -> Result<(), Error> {
        let Some(in_force) = &self.in_force else { return Ok(()) };
        let _turn = in_force.turn.lock().await;
        let heard = in_force.state().heard;
        match self.load_active(in_force).await {
            // Not what was heard while it was loaded.
            Ok(()) => {
                in_force.settle(heard);
                Ok(())
            }
            Err(error) => {
                in_force.fail(&error);
                Err(error)
            }
        }
    }

    async fn load_active(&self, in_force: &InForce) -> Result<(), Error> {
        let shelf = Shelf(&**self.keys.store());
        let wanted = shelf.active().await?.and_then(|active| active.reference);
        let here = in_force.bundle();
        if wanted == here {
            return Ok(());
        }
        let newer = |wanted: &BundleRef| here.is_none_or(|here| here.version < wanted.version);
        let Some(wanted) = wanted.filter(newer) else {
            return Err(damaged("an older bundle than the one that decides, or another of its version, is in force"));
        };
        if in_force.settled.load(Ordering::Acquire) {
            // Found without being told of it.
            in_force.hear();
        }
        let signed = match shelf.signed(wanted.version).await {
            Err(Error::NotFound(_)) => return Err(damaged("the bundle in force is missing")),
            found => found?,
        };
        if signed.reference() != wanted {
            return Err(damaged("the bundle in force is another one"));
        }
        let judged = in_force.trust.judge_aside(signed, self.keys.instance()).await?;
        let epoch = self.authorizer.swap(judged.set, judged.registry);
        in_force.state().bundle = Some(wanted);
        self.audit.system(SystemEvent::PolicyBundle { mark: wanted.into(), epoch }).await.map(drop)
    }
}

/// How many bundles that wait are looked at ahead.
const AHEAD: usize = 8;

impl Vault {
    /// The bundles that wait and could be next, oldest first, eight at most: for [`Self::prepare_policy`].
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Corrupt`].
    pub async fn waiting_policies(&self) -> Result<Vec<BundleRef>, Error> {
        if self.in_force.as_ref().is_none_or(|in_force| in_force.trust.signers.is_empty()) {
            return Ok(Vec::new());
        }
        let shelf = Shelf(&**self.keys.store());
        let Some(active) = shelf.active().await? else { return Ok(Vec::new()) };
        let waiting = shelf.list(active.reference.map(|active| active.version), AHEAD).await?;
        let next = waiting.into_iter().filter(|stored| active.admits(stored.reference, stored.previous).is_ok());
        Ok(next.map(|stored| stored.reference).collect())
    }

    /// Judges a bundle that waits, as if it had come into force: what its proof takes is over before it does. Changes
    /// nothing, and what is found is no more than a hint.
    ///
    /// # Errors
    /// What is wrong with it; [`Error::NotFound`]; [`Error::Unavailable`].
    pub async fn prepare_policy(&self, bundle: BundleRef) -> Result<(), Error> {
        let Some(in_force) = &self.in_force else { return Ok(()) };
        let signed = Shelf(&**self.keys.store()).signed(bundle.version).await?;
        in_force.trust.judge_aside(signed, self.keys.instance()).await.map(drop)
    }
}

/// Refuses a store that does not continue what the log recorded.
async fn continues(shelf: &Shelf<'_>, active: Option<Active>, mark: PolicyMark) -> Result<(), Error> {
    let recorded = Fingerprint(mark.digest);
    let active = active.and_then(|active| active.reference);
    let same = match active {
        Some(active) if active.version == mark.version => active.digest == recorded,
        Some(active) if active.version > mark.version => shelf.past(mark.version).await? == Some(recorded),
        _ => return Err(damaged("the bundle in force is older than one that the audit log says was in force")),
    };
    if same { Ok(()) } else { Err(damaged("the audit log says that another bundle of this version was in force")) }
}
