//! The locked arena: the only module of the library with `unsafe` in it.
//!
//! Memory comes from the kernel in chunks of [`CHUNK`] bytes, aligned to their size, each cut into slots of one size
//! class. A chunk is locked against swapping (`mlock`), left out of core dumps (`MADV_DONTDUMP`) and emptied in a
//! forked child (`MADV_WIPEONFORK`). Its first word is a mark that a fork therefore zeroes; every access through
//! [`Locked`] looks at that mark first, so a child can neither use a key of zeros nor repeat its parent's nonces.
#![expect(unsafe_code, reason = "mmap, mlock and madvise, and placing values in what they return")]

use std::alloc::Layout;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize as _;

use crate::error::{Dependency, Error};

/// Bytes in a chunk, and its alignment.
const CHUNK: usize = 64 * 1024;
/// Slot sizes are multiples of this, which is also every slot's alignment: a cache line pair.
const GRAIN: usize = 64;
/// Largest value that fits.
const MAX_SLOT: usize = 4096;
const CLASSES: usize = MAX_SLOT / GRAIN;
/// What a chunk's first word holds while the process that mapped it lives.
const ALIVE: u64 = 0x626c_696e_6476_6c74;

/// What to do where the operating system refuses to lock memory (`RLIMIT_MEMLOCK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockPolicy {
    /// Keys are refused: [`Error::Unavailable`]. The default.
    Require,
    /// Keys live in memory that could be swapped out; [`status`] tells how much.
    Allow,
}

static POLICY: AtomicU8 = AtomicU8::new(if cfg!(feature = "dev") { 1 } else { 0 });
static LOCKED: AtomicUsize = AtomicUsize::new(0);
static UNLOCKED: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);

/// Chooses what happens when memory cannot be locked. The default is [`LockPolicy::Require`], with feature `dev`
/// [`LockPolicy::Allow`].
pub fn set_lock_policy(policy: LockPolicy) {
    POLICY.store(u8::from(policy == LockPolicy::Allow), Ordering::SeqCst);
}

/// How much memory the arena holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Bytes locked in memory.
    pub locked: usize,
    /// Bytes that the operating system refused to lock (only under [`LockPolicy::Allow`]).
    pub unlocked: usize,
    /// Bytes of the slots that hold a value now.
    pub used: usize,
}

/// How much memory the arena holds now. It is never given back, only reused.
pub fn status() -> MemoryStatus {
    let load = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    MemoryStatus { locked: load(&LOCKED), unlocked: load(&UNLOCKED), used: load(&USED) }
}

/// The free slots of each class, and the chunk whose mark tells whether we are still the process that filled them.
struct Arena {
    free: [Vec<Slot>; CLASSES],
    newest: Option<Slot>,
}

#[derive(Clone, Copy)]
struct Slot(NonNull<u8>);

// SAFETY: a slot is an address; who may use the memory behind it is decided by `Locked`, which owns it alone.
unsafe impl Send for Slot {}

static ARENA: Mutex<Arena> = Mutex::new(Arena { free: [const { Vec::new() }; CLASSES], newest: None });

fn arena() -> MutexGuard<'static, Arena> {
    // The free lists are valid after any panic: a push or pop either happened or not.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chunk's mark, read through a pointer anywhere into it.
fn is_alive(inside: NonNull<u8>) -> bool {
    let base = inside.as_ptr().map_addr(|addr| addr & !(CHUNK - 1)).cast::<AtomicU64>();
    // SAFETY: `inside` points into a chunk that is never unmapped; chunks are aligned to CHUNK and start with the mark,
    // which is only ever accessed atomically after the chunk was published.
    unsafe { (*base).load(Ordering::Relaxed) == ALIVE }
}

impl Arena {
    fn take(&mut self, class: usize) -> Result<Slot, Error> {
        if self.newest.is_some_and(|slot| !is_alive(slot.0)) {
            // A forked child: what the lists name belongs to a life that ended. Start over.
            *self = Self { free: [const { Vec::new() }; CLASSES], newest: None };
        }
        let list = self.free.get_mut(class).ok_or_else(too_large)?;
        if list.is_empty() {
            let chunk = map_chunk()?;
            let size = (class + 1) * GRAIN;
            // The first grain holds the mark.
            for start in (GRAIN..=CHUNK - size).step_by(size) {
                // SAFETY: start + size <= CHUNK, so the slot lies inside the chunk just mapped.
                list.push(Slot(unsafe { chunk.0.add(start) }));
            }
            self.newest = Some(chunk);
        }
        list.pop().ok_or_else(too_large)
    }
}

const fn too_large() -> Error {
    Error::unavailable(Dependency::Memory, "the value is larger than a slot of locked memory")
}

/// Maps one chunk, aligned to its size, locked and marked alive.
fn map_chunk() -> Result<Slot, Error> {
    let failed = |why| Error::unavailable(Dependency::Memory, why);
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let raw = unsafe {
        libc::mmap(
            ptr::null_mut(),
            2 * CHUNK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(failed("the operating system gave no memory"));
    }
    let raw = raw.cast::<u8>();
    let head = raw.align_offset(CHUNK);
    // SAFETY: twice CHUNK was mapped, so an aligned chunk starts at most CHUNK - 1 bytes in and ends inside.
    let base = unsafe { raw.add(head) };
    // SAFETY: the ranges unmapped are the rest of our own mapping, before and behind the chunk; nothing points there.
    unsafe {
        if head > 0 {
            libc::munmap(raw.cast(), head);
        }
        if head < CHUNK {
            libc::munmap(base.add(CHUNK).cast(), CHUNK - head);
        }
    }
    // SAFETY: advice on a mapping that is ours alone; both change only what happens on fork and core dump.
    let advised = unsafe {
        libc::madvise(base.cast(), CHUNK, libc::MADV_WIPEONFORK) == 0
            && libc::madvise(base.cast(), CHUNK, libc::MADV_DONTDUMP) == 0
    };
    // SAFETY: as above; locking changes no contents.
    let locked = unsafe { libc::mlock(base.cast(), CHUNK) == 0 };
    if !advised || (!locked && POLICY.load(Ordering::SeqCst) == 0) {
        // SAFETY: the chunk was not given out; nothing points into it.
        unsafe { libc::munmap(base.cast(), CHUNK) };
        return Err(failed(if advised {
            "memory cannot be locked; raise RLIMIT_MEMLOCK"
        } else {
            "memory cannot be kept out of core dumps and forks"
        }));
    }
    if locked { &LOCKED } else { &UNLOCKED }.fetch_add(CHUNK, Ordering::Relaxed);
    // SAFETY: the chunk is mapped, writable, aligned to far more than a u64, and not shared yet.
    unsafe { base.cast::<u64>().write(ALIVE) };
    NonNull::new(base).map(Slot).ok_or_else(|| failed("the operating system gave no memory"))
}

/// One value in the locked arena: owned, wiped on drop, gone in a forked child.
///
/// `T` should hold its secrets inline: what `T` points to elsewhere is not in the arena.
pub struct Locked<T> {
    slot: NonNull<T>,
    _owns: PhantomData<T>,
}

// SAFETY: `Locked<T>` owns its `T` alone, as `Box<T>` does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: shared access gives out only `&T`, as `Box<T>` does.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    const CLASS: usize = {
        let layout = Layout::new::<T>();
        assert!(layout.size() <= MAX_SLOT, "the value does not fit a slot of locked memory");
        assert!(layout.align() <= GRAIN, "the value wants more alignment than a slot has");
        if layout.size() == 0 { 0 } else { (layout.size() - 1) / GRAIN }
    };

    /// Bytes of its slot.
    const SLOT: usize = (Self::CLASS + 1) * GRAIN;

    /// Moves a value in. Where it came through the stack, follow with [`super::scrub_stack`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no memory, or none that can be locked under [`LockPolicy::Require`].
    pub fn new(value: T) -> Result<Self, Error> {
        let slot = arena().take(Self::CLASS)?.0.cast::<T>();
        // SAFETY: the slot is large and aligned enough for T (checked in CLASS), and ours alone until dropped.
        unsafe { slot.as_ptr().write(value) };
        USED.fetch_add(Self::SLOT, Ordering::Relaxed);
        Ok(Self { slot, _owns: PhantomData })
    }

    fn alive(&self) -> Result<(), Error> {
        if is_alive(self.slot.cast()) {
            Ok(())
        } else {
            Err(Error::unavailable(Dependency::Memory, "the process was forked, and keys do not pass to a child"))
        }
    }

    /// The value.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    pub fn get(&self) -> Result<&T, Error> {
        self.alive()?;
        // SAFETY: the slot holds a T since `new`, and the mark says that no fork has emptied it.
        Ok(unsafe { self.slot.as_ref() })
    }

    /// The value, writable.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a forked child.
    pub fn get_mut(&mut self) -> Result<&mut T, Error> {
        self.alive()?;
        // SAFETY: as in `get`, and `&mut self` makes the access exclusive.
        Ok(unsafe { self.slot.as_mut() })
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        if self.alive().is_err() {
            // A forked child: the kernel has wiped the slot, and there is no T in it to drop.
            return;
        }
        // SAFETY: the slot holds a T that nothing else points to; it is not read again.
        unsafe { ptr::drop_in_place(self.slot.as_ptr()) };
        let bytes = ptr::slice_from_raw_parts_mut(self.slot.as_ptr().cast::<u8>(), Self::SLOT);
        // SAFETY: the slot is that many bytes, all of them writable and, the T being gone, plain bytes; they were
        // zeroed by the kernel and then only written, so none is uninitialized but T's padding, which is overwritten.
        unsafe { (*bytes).zeroize() };
        USED.fetch_sub(Self::SLOT, Ordering::Relaxed);
        let mut arena = arena();
        if let Some(list) = arena.free.get_mut(Self::CLASS) {
            list.push(Slot(self.slot.cast()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_dropped_wiped_and_their_slots_reused() {
        struct Counts<'a>(&'a AtomicUsize, [u8; 3000]);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let drops = AtomicUsize::new(0);
        let held = Locked::new(Counts(&drops, [0xa5; 3000])).unwrap();
        assert_eq!(held.get().unwrap().1[2999], 0xa5);
        let slot = held.slot.cast::<u8>().as_ptr();
        drop(held);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        // SAFETY: chunks are never unmapped; no other test uses this size class, so nobody writes here meanwhile.
        let after = unsafe { std::slice::from_raw_parts(slot, 3000) };
        assert!(after.iter().all(|b| *b == 0));
        let again = Locked::new(Counts(&drops, [1; 3000])).unwrap();
        assert_eq!(again.slot.cast::<u8>().as_ptr(), slot);
    }

    #[test]
    fn many_threads_share_the_arena() {
        std::thread::scope(|scope| {
            for t in 0..4u8 {
                scope.spawn(move || {
                    for round in 0..200u8 {
                        let held: Vec<_> = (0..20).map(|_| Locked::new([t ^ round; 200]).unwrap()).collect();
                        assert!(held.iter().all(|h| h.get().unwrap().iter().all(|b| *b == t ^ round)));
                    }
                });
            }
        });
        assert!(status().locked + status().unlocked > 0);
    }

    #[test]
    fn slots_are_left_out_of_dumps_and_locked() {
        let held = Locked::new([7u8; 32]).unwrap();
        let addr = held.slot.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut flags = None;
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split_whitespace().next().and_then(|w| w.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&addr);
            }
            if inside && let Some(rest) = line.strip_prefix("VmFlags:") {
                flags = Some(rest.to_owned());
            }
        }
        let flags = flags.unwrap();
        assert!(flags.contains("dd"), "not left out of core dumps: {flags}");
        assert!(flags.contains("wf"), "not wiped on fork: {flags}");
        if status().unlocked == 0 {
            assert!(flags.contains("lo"), "not locked: {flags}");
        }
    }

    #[test]
    fn a_forked_child_has_no_keys() {
        let held = Locked::new([9u8; 32]).unwrap();
        // SAFETY: the child calls nothing but our own code and _exit; it takes the arena's lock only to allocate, and
        // this test's process holds it in no other thread for longer than a push.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let gone = held.get().is_err();
            // SAFETY: ends the child at once, without running the parent's destructors or test harness.
            unsafe { libc::_exit(if gone { 0 } else { 1 }) };
        }
        let mut state = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut state, 0) }, child);
        assert!(libc::WIFEXITED(state) && libc::WEXITSTATUS(state) == 0, "the child still had the key");
        assert_eq!(held.get().unwrap(), &[9u8; 32]);
    }
}
