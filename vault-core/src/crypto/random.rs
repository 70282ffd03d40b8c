//! Random bytes from the operating system, drawn in blocks.
//!
//! Each thread keeps one block in locked memory. Bytes are wiped as they are handed out, so none can be handed out
//! twice. A forked child finds its block gone (see [`crate::secret`]) and draws a fresh one. What no process can notice
//! is that its machine was restored from a snapshot: the unused rest of a block would then be used again. Where
//! machines are snapshot while they run, [`Randomness::Unbuffered`] draws from the kernel for every message.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroize as _;

use crate::error::{Dependency, Error};
use crate::secret::Locked;

/// Bytes drawn at once: some 300 nonce suffixes.
const BLOCK: usize = 3968;

/// Whether random bytes are drawn ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Randomness {
    /// Blocks per thread; no system call for most messages. The default.
    Buffered,
    /// Nothing is drawn before it is used, so that a restored snapshot repeats nothing.
    Unbuffered,
}

static UNBUFFERED: AtomicBool = AtomicBool::new(false);

/// Chooses for the whole process. Bytes drawn ahead before the change stay unused.
pub fn set_randomness(how: Randomness) {
    UNBUFFERED.store(how == Randomness::Unbuffered, Ordering::SeqCst);
}

/// True if nothing may be drawn ahead.
pub(crate) fn unbuffered() -> bool {
    UNBUFFERED.load(Ordering::Relaxed)
}

struct Block {
    bytes: [u8; BLOCK],
    /// Bytes before this one are used and wiped.
    next: usize,
}

thread_local! {
    static BLOCK_OF_THREAD: RefCell<Option<Locked<Block>>> = const { RefCell::new(None) };
}

/// Fills `out` with random bytes.
///
/// # Errors
/// [`Error::Unavailable`] if the operating system gives none: nothing may be sealed then.
pub(crate) fn fill(out: &mut [u8]) -> Result<(), Error> {
    if unbuffered() || out.len() > BLOCK / 4 {
        return from_system(out);
    }
    BLOCK_OF_THREAD
        .try_with(|cell| cell.try_borrow_mut().ok().map(|mut slot| from_block(&mut slot, out)))
        .ok()
        .flatten()
        // The thread is ending, and its block with it.
        .unwrap_or_else(|| from_system(out))
}

fn from_block(slot: &mut Option<Locked<Block>>, out: &mut [u8]) -> Result<(), Error> {
    // A block that a fork took away is replaced like a missing one.
    let mut held = match slot.take().filter(|block| block.get().is_ok()) {
        Some(held) => held,
        None => Locked::new(Block { bytes: [0; BLOCK], next: BLOCK })?,
    };
    let block = held.get_mut()?;
    if BLOCK - block.next < out.len() {
        block.bytes.as_mut_slice().zeroize();
        from_system(&mut block.bytes)?;
        block.next = 0;
    }
    let end = block.next + out.len();
    let Some(source) = block.bytes.get_mut(block.next..end) else {
        return from_system(out);
    };
    out.copy_from_slice(source);
    source.zeroize();
    block.next = end;
    *slot = Some(held);
    Ok(())
}

fn from_system(out: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(out)
        .map_err(|_| Error::unavailable(Dependency::Entropy, "the operating system gave no random bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn threads_never_repeat() {
        let drawn = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..5000)
                            .map(|_| {
                                let mut nonce = [0; 12];
                                fill(&mut nonce).unwrap();
                                nonce
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), drawn.len());
    }

    #[test]
    fn what_was_handed_out_is_wiped() {
        let mut slot = None;
        let mut out = [0; 100];
        from_block(&mut slot, &mut out).unwrap();
        let block = slot.as_ref().unwrap().get().unwrap();
        assert_eq!(block.next, 100);
        assert!(block.bytes[..100].iter().all(|b| *b == 0));
        assert!(out.iter().any(|b| *b != 0));
        assert!(block.bytes[100..].iter().any(|b| *b != 0));
    }

    #[test]
    fn a_block_is_replaced_when_too_little_is_left() {
        let mut slot = None;
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let mut out = [0; 24];
            from_block(&mut slot, &mut out).unwrap();
            assert!(seen.insert(out));
        }
    }
}
