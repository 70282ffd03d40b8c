//! Tokens that were verified a while ago: a page of a browser asks for many values with one token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{Context, SHA256};

use crate::principal::{EndUser, Workload};
use crate::time::Timestamp;

/// Most tokens that are remembered.
const MOST: usize = 4096;

/// What stands for a token in the hand of one workload.
pub(super) type Print = [u8; 32];

/// SHA-256(SHA-256 of the workload's certificate ‖ token): the first part has a fixed length.
pub(super) fn print(token: &[u8], who: &Workload) -> Print {
    let mut context = Context::new(&SHA256);
    context.update(who.fingerprint());
    context.update(token);
    let mut print = [0; 32];
    // SHA-256 has 32 bytes.
    print.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    print
}

/// End users by what stands for their tokens. The tokens are not kept.
#[derive(Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    /// Grows whenever everything is forgotten, so that what was verified with keys of before is not remembered after.
    generation: u64,
    users: HashMap<Print, Arc<EndUser>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered and still holds; and the generation, for [`Self::remember`].
    pub(super) fn recall(&self, print: &Print, now: Timestamp) -> (Option<Arc<EndUser>>, u64) {
        let remembered = self.lock();
        let user = remembered.users.get(print).filter(|user| user.valid_at(now)).cloned();
        (user, remembered.generation)
    }

    pub(super) fn remember(&self, print: Print, user: &Arc<EndUser>, generation: u64, now: Timestamp) {
        let mut remembered = self.lock();
        if remembered.generation != generation {
            return;
        }
        if remembered.users.len() >= MOST {
            remembered.users.retain(|_, user| user.valid_at(now));
        }
        if remembered.users.len() >= MOST {
            remembered.users.clear();
        }
        remembered.users.insert(print, Arc::clone(user));
    }

    pub(super) fn forget_all(&self) {
        let mut remembered = self.lock();
        remembered.generation += 1;
        remembered.users.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_holds_for_that_workload_until_everything_is_forgotten() {
        let memory = Memory::default();
        let who = Workload::for_test("spiffe://prod.example/shop");
        let user = Arc::new(EndUser::for_test("ann", "acme", None).ending(Timestamp(100)));
        let print = print(b"token", &who);
        let (none, generation) = memory.recall(&print, Timestamp(0));
        assert!(none.is_none());
        memory.remember(print, &user, generation, Timestamp(0));
        assert!(memory.recall(&print, Timestamp(99)).0.is_some());
        assert!(memory.recall(&print, Timestamp(100)).0.is_none(), "the token has ended");
        memory.forget_all();
        assert!(memory.recall(&print, Timestamp(0)).0.is_none());
        memory.remember(print, &user, generation, Timestamp(0));
        assert!(memory.recall(&print, Timestamp(0)).0.is_none(), "verified with the keys of before");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let memory = Memory::default();
        let user = Arc::new(EndUser::for_test("ann", "acme", None));
        for n in 0..2 * MOST as u64 {
            let mut print = [0; 32];
            print[..8].copy_from_slice(&n.to_be_bytes());
            memory.remember(print, &user, 0, Timestamp(1));
        }
        assert!((1..=MOST).contains(&memory.lock().users.len()));
    }
}
