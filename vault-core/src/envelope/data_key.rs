//! An unwrapped data key, ready to seal and open.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::context::prefix;
use super::slot::Working;
use super::{BACK, Context, FRONT, HEADER, Header, MAX_PLAINTEXT, OVERHEAD};
use crate::crypto::{KcKey, NONCE, expand_sha256};
use crate::error::{Dependency, Error};
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::secret::{Key32, SecretBytes};

/// Info of the HKDF-Expand that makes a suite's key from a data key: this ‖ 00 ‖ suite.
const SUITE_INFO: &[u8] = b"blindvault/suite/v1\0";

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
/// Each thread works on a slot of its own, so sealing and opening take no lock that another core holds. [`Self::wipe`]
/// takes the locks of all slots, one by one: once it has returned, the key is gone and every later call fails.
pub struct DataKey {
    header: Header,
    version: KeyVersion,
    scope: Scope,
    /// The part of A that this key fixes.
    a: Vec<u8>,
    /// The suite key, from which slots are filled; `None` once wiped.
    suite_key: Mutex<Option<KcKey>>,
    slots: Box<[Slot]>,
}

/// Two cache lines, so that neighbors do not slow each other down.
#[repr(align(128))]
struct Slot(Mutex<Option<Working>>);

/// Slots of a key: at least one a core, so threads seldom meet in one.
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
    mutex.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
        // A panic in mid-message: start this slot anew rather than trust what it left.
        let mut guard = poisoned.into_inner();
        *guard = None;
        mutex.clear_poison();
        guard
    })
}

const fn gone() -> Error {
    Error::unavailable(Dependency::Memory, "the key was evicted; try again")
}

impl DataKey {
    /// Derives the suite key of `data_key`, which may be dropped afterwards.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `key_version` for version 0 (§2.4-1); [`Error::Unavailable`] without locked memory.
    pub fn new(data_key: &Key32, id: KeyId, version: KeyVersion, scope: Scope) -> Result<Self, Error> {
        version.check()?;
        let header = Header { key_id: id };
        let suite_key = expand_sha256(data_key, &[SUITE_INFO, &[super::header::SUITE_RECORD]])?;
        Ok(Self {
            a: prefix(&header, &scope, version)?,
            header,
            version,
            scope,
            suite_key: Mutex::new(Some(KcKey::new(&suite_key)?)),
            slots: (0..slot_count()).map(|_| Slot(Mutex::new(None))).collect(),
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

    /// Runs `work` on this thread's slot, with A put together in it.
    #[inline]
    fn with_slot<T>(&self, context: &Context, work: impl FnOnce(&mut Working) -> Result<T, Error>) -> Result<T, Error> {
        let at = thread_number() & (self.slots.len() - 1);
        let mut slot = lock(&self.slots.get(at).ok_or_else(gone)?.0);
        let working = match &mut *slot {
            Some(working) => working,
            // The evictor empties `suite_key` before it comes to the slots, so a slot filled here is either filled from
            // a key that still lives, or was found empty for good.
            none => none.insert(Working::new(lock(&self.suite_key).as_ref().ok_or_else(gone)?.duplicate()?)),
        };
        context.append_to(working.start_a(&self.a, context.encoded_len()))?;
        work(working)
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
        if plaintext_len > MAX_PLAINTEXT || Header::parse(envelope)? != self.header {
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

    /// True once [`Self::wipe`] has begun: the caller may fetch the key anew.
    pub fn is_wiped(&self) -> bool {
        lock(&self.suite_key).is_none()
    }

    /// Destroys the key in memory: the suite key, and what each thread made of it. Waits for calls in progress; when it
    /// returns, none is left and every later one fails.
    pub fn wipe(&self) {
        *lock(&self.suite_key) = None;
        for slot in &self.slots {
            *lock(&slot.0) = None;
        }
    }
}
