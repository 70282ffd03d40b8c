//! The root keys of an installation, and what a custody means: making a key under it, and opening one again.
//!
//! ```text
//! single       K, W = A.generate                              K = A.unwrap(W)
//! split        K, I = A.generate;  S = B.seal(I)              K = A.unwrap(B.open(S))
//! replicated   K, W1 = A.generate; W2 = B.wrap(K); …          K = A.unwrap(W1), or if A is down B.unwrap(W2), …
//! ```
//! The outer layer of a split has a purpose of its own in its encryption context, so that no layer passes for another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wrapping::{Kind, Wrapped, Wrapping};
use super::{EncryptionContext, Layer, RootError, RootKey, RootProvider};
use crate::custody::{Custody, RootId};
use crate::error::Error;
use crate::secret::Key32;
use crate::time::{Clock, SystemClock};

/// How long a root that failed is asked last among replicas, in milliseconds.
const PAUSE_MILLIS: u64 = 10_000;

/// A root key that did not answer with a key, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFailure {
    /// Which.
    pub root: RootId,
    /// Why.
    pub error: RootError,
}

impl From<RootFailure> for Error {
    fn from(failure: RootFailure) -> Self {
        let root = failure.root.into();
        match Self::from(failure.error) {
            Self::Unavailable { why, .. } => Self::RootKey { root, retry: true, why },
            Self::FailedPrecondition(why) => Self::RootKey { root, retry: false, why },
            other => other,
        }
    }
}

/// What became of a root key, for logs: told when it changes, and each time a root refuses what is not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootEvent {
    /// It failed.
    Failed(RootFailure),
    /// It answers again.
    Recovered(RootId),
}

type Watch = Arc<dyn Fn(&RootEvent) + Send + Sync>;

/// Puts [`Roots`] together.
#[derive(Default)]
pub struct RootsBuilder {
    roots: BTreeMap<RootId, Arc<dyn RootKey>>,
    providers: Vec<(String, Arc<dyn RootProvider>)>,
    prefer: Vec<RootId>,
    clock: Option<Arc<dyn Clock>>,
    watch: Option<Watch>,
}

impl fmt::Debug for RootsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootsBuilder").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl RootsBuilder {
    /// Adds a root key.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `root_key_id` for an id that is none, or that another root has.
    pub fn root(mut self, root: Arc<dyn RootKey>) -> Result<Self, Error> {
        let id = RootId::parse(root.id())?;
        if self.roots.insert(id, root).is_some() {
            return Err(Error::invalid("root_key_id", "two root keys have the same id"));
        }
        Ok(self)
    }

    /// Adds a provider for all ids of a scheme that no root added by itself has.
    #[must_use]
    pub fn provider(mut self, scheme: &str, provider: Arc<dyn RootProvider>) -> Self {
        self.providers.push((scheme.to_owned(), provider));
        self
    }

    /// Which replicas to ask first, whatever order a tenant's custody names: those near by.
    #[must_use]
    pub fn prefer(mut self, roots: Vec<RootId>) -> Self {
        self.prefer = roots;
        self
    }

    /// The clock by which a root that failed is tried first again; the operating system's by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Who is told what becomes of the roots. Called from any thread; it must not block.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&RootEvent) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// The roots, with the custody of tenants that none is named for.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the root of the default custody that is not among them.
    pub fn build(self, default: Custody) -> Result<Arc<Roots>, Error> {
        let roots = Roots {
            default,
            roots: self.roots,
            providers: self.providers,
            prefer: self.prefer,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            watch: self.watch,
            down_until: Mutex::new(BTreeMap::new()),
        };
        roots.check(&roots.default)?;
        Ok(Arc::new(roots))
    }
}

/// The root keys that an installation is given, and the custody of new tenants.
pub struct Roots {
    default: Custody,
    roots: BTreeMap<RootId, Arc<dyn RootKey>>,
    providers: Vec<(String, Arc<dyn RootProvider>)>,
    prefer: Vec<RootId>,
    clock: Arc<dyn Clock>,
    watch: Option<Watch>,
    /// Roots that failed, and until when they are asked last.
    down_until: Mutex<BTreeMap<RootId, u64>>,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("default", &self.default.to_string()).finish_non_exhaustive()
    }
}

impl Roots {
    /// Puts several roots together.
    pub fn builder() -> RootsBuilder {
        RootsBuilder::default()
    }

    /// One root key for everything.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `root_key_id` if its id is none.
    pub fn single(root: Arc<dyn RootKey>) -> Result<Arc<Self>, Error> {
        let custody = Custody::Single(RootId::parse(root.id())?);
        Self::builder().root(root)?.build(custody)
    }

    /// The custody of tenants that none is named for.
    pub const fn default_custody(&self) -> &Custody {
        &self.default
    }

    /// The roots that failed and are asked last among replicas for a while.
    pub fn failing(&self) -> Vec<RootId> {
        let now = self.clock.monotonic_millis();
        self.down().iter().filter(|(_, until)| now < **until).map(|(id, _)| id.clone()).collect()
    }

    /// Refuses a custody with a root that is not among these.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the root as the API does.
    pub fn check(&self, custody: &Custody) -> Result<(), Error> {
        match custody.roots().into_iter().position(|id| self.find(id).is_none()) {
            None => Ok(()),
            Some(at) => Err(Error::invalid(custody.field(at), "must be a root key that this vault is given")),
        }
    }

    fn find(&self, id: &RootId) -> Option<Arc<dyn RootKey>> {
        if let Some(root) = self.roots.get(id) {
            return Some(Arc::clone(root));
        }
        let asked = self.providers.iter().filter(|(scheme, _)| scheme == id.scheme());
        // A provider that answers with another root is not believed.
        asked.filter_map(|(_, provider)| provider.root(id.as_str())).find(|root| root.id() == id.as_str())
    }

    /// Makes a key under a custody. Every root of it must answer, and what each made is opened again before the key is
    /// given out: a root that wraps but does not unwrap is noticed before anything depends on it.
    ///
    /// # Errors
    /// The first root that failed, and why. Nothing is kept then.
    pub async fn generate(
        &self,
        custody: &Custody,
        context: &EncryptionContext,
    ) -> Result<(Key32, Wrapping), RootFailure> {
        let (key, kind) = match custody {
            Custody::Single(id) => {
                let made = self.told(id, self.root(id)?.generate(context).await)?;
                (made.key, Kind::Single(Wrapped { root: id.clone(), wrapped: made.wrapped }))
            }
            Custody::Split(roots) => {
                let made = self.told(roots.inner(), self.root(roots.inner())?.generate(context).await)?;
                let outer = outer(context);
                let sealed = self.told(roots.outer(), self.root(roots.outer())?.seal(&made.wrapped, &outer).await)?;
                (made.key, Kind::Split(roots.clone(), sealed))
            }
            Custody::Replicated(roots) => {
                let first = roots.first();
                let made = self.told(first, self.root(first)?.generate(context).await)?;
                let first = Wrapped { root: first.clone(), wrapped: made.wrapped };
                let mut others = Vec::with_capacity(roots.others().len());
                for id in roots.others() {
                    let wrapped = self.told(id, self.root(id)?.wrap(&made.key, context).await)?;
                    others.push(Wrapped { root: id.clone(), wrapped });
                }
                (made.key, Kind::Replicated(first, others))
            }
        };
        let wrapping = Wrapping(kind);
        self.verify(&key, &wrapping, context).await?;
        Ok((key, wrapping))
    }

    /// Opens a key. A replica whose root is down or disabled is passed over; any other refusal ends it, so that of each
    /// wrapping exactly one key is tried.
    ///
    /// # Errors
    /// The root that failed, and why; of several that were passed over, one that may answer later if there is one.
    pub async fn unwrap(&self, wrapping: &Wrapping, context: &EncryptionContext) -> Result<Key32, RootFailure> {
        match &wrapping.0 {
            Kind::Single(one) => self.unwrap_one(one, context).await,
            Kind::Split(roots, sealed) => {
                let outer = outer(context);
                let inner = self.told(roots.outer(), self.root(roots.outer())?.open(sealed, &outer).await)?;
                self.told(roots.inner(), self.root(roots.inner())?.unwrap(&inner, context).await)
            }
            Kind::Replicated(first, others) => {
                let mut passed: Option<RootFailure> = None;
                let may_come_back = |failure: &RootFailure| matches!(failure.error, RootError::Unavailable(_));
                for one in self.in_order(first, others) {
                    match self.unwrap_one(one, context).await {
                        Err(failure) if failure.error.is_absence() => {
                            if passed.as_ref().is_none_or(|known| may_come_back(&failure) && !may_come_back(known)) {
                                passed = Some(failure);
                            }
                        }
                        done => return done,
                    }
                }
                // Never `None`: there is a first one, and it was asked.
                let error = RootError::Unavailable("no replica was asked");
                Err(passed.unwrap_or_else(|| RootFailure { root: first.root.clone(), error }))
            }
        }
    }

    async fn verify(&self, key: &Key32, wrapping: &Wrapping, context: &EncryptionContext) -> Result<(), RootFailure> {
        let differs = |root: &RootId| RootFailure { root: root.clone(), error: RootError::NotMine };
        match &wrapping.0 {
            Kind::Replicated(first, others) => {
                for one in std::iter::once(first).chain(others) {
                    if self.unwrap_one(one, context).await? != *key {
                        return Err(differs(&one.root));
                    }
                }
            }
            Kind::Single(Wrapped { root, .. }) => {
                if self.unwrap(wrapping, context).await? != *key {
                    return Err(differs(root));
                }
            }
            Kind::Split(roots, _) => {
                if self.unwrap(wrapping, context).await? != *key {
                    return Err(differs(roots.inner()));
                }
            }
        }
        Ok(())
    }

    async fn unwrap_one(&self, one: &Wrapped, context: &EncryptionContext) -> Result<Key32, RootFailure> {
        self.told(&one.root, self.root(&one.root)?.unwrap(&one.wrapped, context).await)
    }

    /// The replicas: those whose root did not just fail first, of these the preferred ones, else as they are.
    fn in_order<'a>(&self, first: &'a Wrapped, others: &'a [Wrapped]) -> Vec<&'a Wrapped> {
        let failing = self.failing();
        let preference = |id: &RootId| self.prefer.iter().position(|p| p == id).unwrap_or(usize::MAX);
        let mut ordered: Vec<_> = std::iter::once(first).chain(others).collect();
        ordered.sort_by_key(|one| (failing.contains(&one.root), preference(&one.root)));
        ordered
    }

    /// The root of an id; that it is not there counts as a failure of it.
    fn root(&self, id: &RootId) -> Result<Arc<dyn RootKey>, RootFailure> {
        let unknown = RootError::Unavailable("it is not among the root keys that this vault is given");
        self.find(id).ok_or(unknown).or_else(|error| self.told(id, Err(error)))
    }

    fn told<T>(&self, id: &RootId, answer: Result<T, RootError>) -> Result<T, RootFailure> {
        self.note(id, answer.as_ref().err().copied());
        answer.map_err(|error| RootFailure { root: id.clone(), error })
    }

    /// Remembers how a root answered, and tells whoever watches.
    fn note(&self, id: &RootId, error: Option<RootError>) {
        let event = match error {
            Some(error) => {
                let failed = RootEvent::Failed(RootFailure { root: id.clone(), error });
                if error.is_absence() {
                    let until = self.clock.monotonic_millis().saturating_add(PAUSE_MILLIS);
                    self.down().insert(id.clone(), until).is_none().then_some(failed)
                } else {
                    Some(failed)
                }
            }
            None => self.down().remove(id).map(|_| RootEvent::Recovered(id.clone())),
        };
        if let (Some(event), Some(watch)) = (event, &self.watch) {
            watch(&event);
        }
    }

    fn down(&self) -> MutexGuard<'_, BTreeMap<RootId, u64>> {
        // Each change under this lock is one insertion or removal.
        self.down_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outer(context: &EncryptionContext) -> EncryptionContext {
    EncryptionContext { layer: Layer::Outer, ..context.clone() }
}
