//! An unwrapped data key, ready to seal and open.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread;

use super::context::prefix;
use super::slot::Working;
use super::stream::{STREAM_FRONT, StreamKeys, StreamOpener, StreamSealer};
use super::suites::Suites;
use super::{BACK, Context, FRONT, HEADER, Header, MAX_PLAINTEXT, OVERHEAD, Suite};
use crate::crypto::{COMMITMENT, KcKey, NONCE, SALT};
use crate::error::{Dependency, Error};
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::secret::{Key32, SecretBytes};

/// What a data key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The tenant.
    pub tenant: TenantId,
    /// The dataset.
    pub dataset: DatasetId,
    /// The person, if the key is theirs.
    pub subject: Option<Subject>,
}

/// One version of one data key, unwrapped.
///
/// A thread works on a slot, which it locks. As long as threads do not meet there is one slot; the first that finds it
/// taken makes one a core, and from then on sealing and opening take no lock that another core holds. [`Self::wipe`]
/// takes the locks of all slots, one by one: once it has returned, the key is gone and every later call fails.
///
/// A hundred thousand of these are kept in memory (`docs/keys.md`, "Keys in memory"), so a key that is not in use is
/// small: 64 bytes of locked memory, and no slot filled.
pub struct DataKey {
    header: Header,
    version: KeyVersion,
    scope: Scope,
    /// The part of A that this key fixes.
    a: Box<[u8]>,
    /// The suite keys, from which slots are filled and streams begun; `None` once wiped.
    suites: Mutex<Option<Suites>>,
    first: Slot,
    more: OnceLock<Box<[Padded]>>,
}

/// Where one thread works at a time.
type Slot = Mutex<Option<Box<Working>>>;

/// Two cache lines, so that neighbors do not slow each other down.
#[repr(align(128))]
struct Padded(Slot);

/// Slots of a key that threads meet in: at least one a core, so that they seldom meet again.
fn slot_count() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    match COUNT.load(Ordering::Relaxed) {
        0 => {
            let count = thread::available_parallelism().map_or(1, usize::from).next_power_of_two().min(64);
            COUNT.store(count, Ordering::Relaxed);
            count
        }
        count => count,
    }
}

/// A small number of this thread's own.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            own.set(Some(number));
            number
        })
    })
}

fn lock<T>(mutex: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    mutex.lock().unwrap_or_else(|poisoned| anew(mutex, poisoned.into_inner()))
}

/// The same, unless another has it now.
fn try_lock<T>(mutex: &Mutex<Option<T>>) -> Option<MutexGuard<'_, Option<T>>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(anew(mutex, poisoned.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// After a panic in mid-message: starts anew rather than trust what it left.
fn anew<'a, T>(mutex: &Mutex<Option<T>>, mut guard: MutexGuard<'a, Option<T>>) -> MutexGuard<'a, Option<T>> {
    *guard = None;
    mutex.clear_poison();
    guard
}

pub(super) const fn gone() -> Error {
    Error::unavailable(Dependency::Memory, "the key was evicted; try again")
}

impl DataKey {
    /// Derives the suite keys of `data_key`, which may be dropped afterwards.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `key_version` for version 0 (§2.4-1); [`Error::Unavailable`] without locked memory.
    pub fn new(data_key: &Key32, id: KeyId, version: KeyVersion, scope: Scope) -> Result<Self, Error> {
        version.check()?;
        let header = Header::new(Suite::Record, id);
        Ok(Self {
            a: prefix(&header, &scope, version)?.into(),
            header,
            version,
            scope,
            suites: Mutex::new(Some(Suites::derive(data_key)?)),
            first: Mutex::new(None),
            more: OnceLock::new(),
        })
    }

    /// The key's id.
    pub const fn id(&self) -> KeyId {
        self.header.key_id
    }

    /// The key's version.
    pub const fn version(&self) -> KeyVersion {
        self.version
    }

    /// What the key belongs to.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// A slot for this thread.
    #[inline]
    fn slot(&self) -> Result<MutexGuard<'_, Option<Box<Working>>>, Error> {
        if self.more.get().is_none()
            && let Some(first) = try_lock(&self.first)
        {
            return Ok(first);
        }
        let more = self.more.get_or_init(|| (0..slot_count()).map(|_| Padded(Mutex::new(None))).collect());
        let at = thread_number() & (more.len() - 1);
        Ok(lock(&more.get(at).ok_or_else(gone)?.0))
    }

    /// Runs `work` on a slot, with A put together in it.
    #[inline]
    fn with_slot<T>(&self, context: &Context, work: impl FnOnce(&mut Working) -> Result<T, Error>) -> Result<T, Error> {
        let mut slot = self.slot()?;
        let working = match &mut *slot {
            Some(working) => working,
            none => none.insert(self.begin()?),
        };
        context.append_to(working.start_a(&self.a, context.encoded_len()))?;
        work(working)
    }

    /// What fills a slot. The evictor empties `suites` before it comes to the slots, and one who made further slots
    /// did so before coming here: so a slot is either filled from a key that still lives, or was found empty for good.
    #[cold]
    fn begin(&self) -> Result<Box<Working>, Error> {
        let key = lock(&self.suites).as_ref().ok_or_else(gone)?.key(Suite::Record)?;
        Ok(Box::new(Working::new(KcKey::new(&key)?)))
    }

    /// Seals in place: `buffer` is [`FRONT`] bytes of room, the plaintext, and [`BACK`] bytes of room, and becomes the
    /// envelope. The fastest way: nothing is copied or allocated.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `plaintext` (over 1 MiB, or a buffer shorter than the room) or `context` (over 8 KiB);
    /// [`Error::Unavailable`] without entropy, or after [`Self::wipe`]. `buffer` then holds plaintext still.
    pub fn seal_in_place(&self, context: &Context, buffer: &mut [u8]) -> Result<(), Error> {
        match buffer.len().checked_sub(OVERHEAD) {
            None => {
                return Err(Error::invalid("plaintext", "the buffer has no room for the envelope's front and back"));
            }
            Some(len) if len > MAX_PLAINTEXT => return Err(Error::invalid("plaintext", "must be at most 1 MiB")),
            Some(_) => {}
        }
        self.with_slot(context, |slot| slot.seal(&self.header, buffer))
    }

    /// Seals a copy of `plaintext`: one allocation, the envelope.
    ///
    /// # Errors
    /// As [`Self::seal_in_place`].
    pub fn seal(&self, context: &Context, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(Error::invalid("plaintext", "must be at most 1 MiB"));
        }
        let mut envelope = Vec::with_capacity(plaintext.len() + OVERHEAD);
        envelope.extend_from_slice(&[0; FRONT]);
        envelope.extend_from_slice(plaintext);
        envelope.extend_from_slice(&[0; BACK]);
        // On failure the copy of the plaintext goes with this wrapper, which wipes it.
        let mut envelope = SecretBytes::new(envelope);
        self.seal_in_place(context, envelope.expose_mut())?;
        Ok(envelope.into_sealed())
    }

    /// Opens in place and returns the plaintext, a part of `envelope`.
    ///
    /// # Errors
    /// [`Error::Unopenable`] for whatever is wrong with envelope or context, and the place of the plaintext is wiped;
    /// [`Error::Invalid`] for a context over 8 KiB; [`Error::Unavailable`] after [`Self::wipe`].
    pub fn open_in_place<'e>(&self, context: &Context, envelope: &'e mut [u8]) -> Result<&'e mut [u8], Error> {
        let plaintext_len = self.check(envelope)?;
        let (front, rest) = envelope.split_at_mut(FRONT);
        let (body, tag) = rest.split_at_mut(plaintext_len);
        self.open_parts(context, front, body, tag)?;
        Ok(body)
    }

    /// Opens into memory of its own: one allocation, the plaintext.
    ///
    /// # Errors
    /// As [`Self::open_in_place`]; `envelope` is untouched.
    pub fn open(&self, context: &Context, envelope: &[u8]) -> Result<SecretBytes, Error> {
        let plaintext_len = self.check(envelope)?;
        let (front, rest) = envelope.split_at(FRONT);
        let (ciphertext, tag) = rest.split_at(plaintext_len);
        let mut body = SecretBytes::copy_of(ciphertext);
        self.open_parts(context, front, body.expose_mut(), tag)?;
        Ok(body)
    }

    /// Length, magic, version, suite, flags and key id, in that order; returns the plaintext's length.
    fn check(&self, envelope: &[u8]) -> Result<usize, Error> {
        let plaintext_len = envelope.len().checked_sub(OVERHEAD).ok_or(Error::Unopenable)?;
        if plaintext_len > MAX_PLAINTEXT || Header::parse_as(Suite::Record, envelope)? != self.header {
            return Err(Error::Unopenable);
        }
        Ok(plaintext_len)
    }

    /// Makes this thread's next message use `nonce`, to compare with vectors. No public way leads here.
    #[cfg(test)]
    pub(super) fn force_nonce(&self, nonce: &[u8; NONCE]) -> Result<(), Error> {
        self.with_slot(&Context::empty(), |slot| slot.force_nonce(nonce))
    }

    #[inline]
    fn open_parts(&self, context: &Context, front: &[u8], body: &mut [u8], tag: &[u8]) -> Result<(), Error> {
        let nonce = front.get(HEADER..HEADER + NONCE).and_then(<[u8]>::first_chunk).ok_or(Error::Unopenable)?;
        let commitment = front.last_chunk().ok_or(Error::Unopenable)?;
        let tag = *tag.first_chunk().ok_or(Error::Unopenable)?;
        self.with_slot(context, |slot| slot.open(nonce, commitment, body, tag))
    }

    /// Begins to seal a stream, under a fresh random salt.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `context` (over 8 KiB); [`Error::Unavailable`] without entropy, or after [`Self::wipe`].
    pub fn seal_stream(&self, context: &Context) -> Result<StreamSealer, Error> {
        StreamSealer::begin(self, context)
    }

    /// Begins to open a stream, whose first 78 bytes are `front`: compares the commitment before any chunk is read.
    ///
    /// # Errors
    /// [`Error::Unopenable`] for whatever is wrong with front or context; [`Error::Invalid`] for a context over 8 KiB;
    /// [`Error::Unavailable`] after [`Self::wipe`].
    pub fn open_stream(&self, context: &Context, front: &[u8; STREAM_FRONT]) -> Result<StreamOpener, Error> {
        StreamOpener::begin(self, context, front)
    }

    /// The keys of a stream, registered so that [`Self::wipe`] reaches them.
    pub(super) fn stream_keys(
        &self,
        salt: &[u8; SALT],
        a: &[u8],
    ) -> Result<(Arc<StreamKeys>, [u8; COMMITMENT]), Error> {
        // Derived and registered under the lock: the evictor either comes later, or left nothing to derive from.
        lock(&self.suites).as_mut().ok_or_else(gone)?.stream(salt, a)
    }

    /// True once [`Self::wipe`] has begun: the caller may fetch the key anew.
    pub fn is_wiped(&self) -> bool {
        lock(&self.suites).is_none()
    }

    /// Destroys the key in memory: the suite keys, what each thread made of them, and the keys of streams that run.
    /// Waits for calls in progress; when it returns, none is left and every later one fails.
    pub fn wipe(&self) {
        let suites = lock(&self.suites).take();
        if let Some(suites) = suites {
            suites.wipe_streams();
        }
        for slot in self.slots() {
            *lock(slot) = None;
        }
    }

    /// Wipes what threads made of the key, where no call is in progress; the next call makes it anew, which takes some
    /// microseconds. For keys that nobody uses just now: what is left in memory is the suite key.
    pub fn rest(&self) {
        for slot in self.slots() {
            if let Some(mut slot) = try_lock(slot) {
                *slot = None;
            }
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.first).chain(self.more.get().into_iter().flatten().map(|padded| &padded.0))
    }
}
