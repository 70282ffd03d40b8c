//! What one thread needs to seal and open with one data key: its own copy of the round keys, its current run of nonces,
//! and the record keys it opened with last.
//!
//! A slot is locked by its thread for each message, without contention, and by the evictor, who may wipe it at any time.

use zeroize::Zeroize as _;

use super::{BACK, FRONT, HEADER, Header};
use crate::crypto::{COMMITMENT, KcKey, NONCE, PREFIX, Run, SUFFIX, TAG, random_bytes, unbuffered};
use crate::error::Error;
use crate::secret::Locked;

/// Messages sealed under one nonce prefix (`docs/format.md`, "Sticky prefix").
const RUN: u32 = 1 << 12;
/// Record keys kept for opening.
const OPENED: usize = 4;

/// One thread's working state for one data key.
pub(super) struct Working {
    key: KcKey,
    sealing: Option<Sealing>,
    opened: [Option<Run>; OPENED],
    /// The next of `opened` to replace.
    oldest: usize,
    /// Where A is put together; it holds context values, so it is wiped too.
    a: Vec<u8>,
}

/// A run of nonces with one prefix.
struct Sealing {
    run: Run,
    left: u32,
    ahead: Locked<Ahead>,
}

/// Nonces drawn ahead, with their commitments, so that the AES units are kept busy.
struct Ahead {
    suffixes: [[u8; SUFFIX]; Run::LANES],
    commitments: [[u8; COMMITMENT]; Run::LANES],
    next: usize,
}

impl Working {
    pub(super) fn new(key: KcKey) -> Self {
        Self { key, sealing: None, opened: [const { None }; OPENED], oldest: 0, a: Vec::new() }
    }

    /// The buffer for A, holding `prefix`, with room for `more` bytes.
    #[inline]
    pub(super) fn start_a(&mut self, prefix: &[u8], more: usize) -> &mut Vec<u8> {
        let needed = prefix.len() + more;
        if self.a.capacity() < needed {
            // Replaced rather than grown: growing would leave the last context behind in freed memory.
            self.a.zeroize();
            self.a = Vec::with_capacity(needed.next_power_of_two());
        }
        self.a.clear();
        self.a.extend_from_slice(prefix);
        &mut self.a
    }

    /// Seals `buffer`, which is room for the front, plaintext, and room for the tag, under a fresh nonce. A has been put
    /// together before.
    #[inline]
    pub(super) fn seal(&mut self, header: &Header, buffer: &mut [u8]) -> Result<(), Error> {
        if self.sealing.as_ref().is_none_or(|sealing| sealing.left == 0) {
            self.sealing = Some(Sealing::start(&self.key)?);
        }
        let Some(sealing) = &mut self.sealing else { return Err(Error::Unopenable) };
        sealing.left -= 1;
        let (suffix, commitment) = sealing.next_nonce(&self.key)?;

        let (front, rest) = buffer.split_at_mut(FRONT);
        let (body, back) = rest.split_at_mut(rest.len() - BACK);
        let tag = sealing.run.seal(suffix, &self.a, body)?;
        let (h, nonce_and_commitment) = front.split_at_mut(HEADER);
        let (nonce, c) = nonce_and_commitment.split_at_mut(NONCE);
        let (n0, n1) = nonce.split_at_mut(PREFIX);
        h.copy_from_slice(&header.encode());
        n0.copy_from_slice(sealing.run.prefix()?);
        n1.copy_from_slice(&suffix);
        c.copy_from_slice(&commitment);
        back.copy_from_slice(&tag);
        Ok(())
    }

    /// Opens `body` in place.
    #[inline]
    pub(super) fn open(
        &mut self,
        nonce: &[u8; NONCE],
        commitment: &[u8; COMMITMENT],
        body: &mut [u8],
        tag: [u8; TAG],
    ) -> Result<(), Error> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, suffix @ ..] = *nonce;
        let prefix = [a, b, c, d, e, f, g, h, i, j, k, l];
        let at = self.run_for(&prefix)?;
        let run = self.opened.get(at).and_then(Option::as_ref).ok_or(Error::Unopenable)?;
        let committed = self.key.committed(run, &suffix, commitment)?;
        // Decrypt even where the commitment is another key's, so that both failures take the same time; what that gives
        // is wiped and never leaves.
        let opened = run.open(suffix, &self.a, body, tag);
        if committed && opened.is_ok() {
            return Ok(());
        }
        body.zeroize();
        opened.and(Err(Error::Unopenable))
    }

    /// Where the record key of a nonce prefix is, after deriving it if need be.
    #[inline]
    fn run_for(&mut self, prefix: &[u8; PREFIX]) -> Result<usize, Error> {
        for (at, run) in self.opened.iter().enumerate() {
            if let Some(run) = run
                && run.prefix()? == prefix
            {
                return Ok(at);
            }
        }
        let run = self.key.run(prefix)?;
        let at = self.oldest;
        self.oldest = (at + 1) % OPENED;
        if let Some(slot) = self.opened.get_mut(at) {
            *slot = Some(run);
        }
        Ok(at)
    }
}

#[cfg(test)]
impl Working {
    /// Begins a run of one message, under this nonce.
    pub(super) fn force_nonce(&mut self, nonce: &[u8; NONCE]) -> Result<(), Error> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, suffix @ ..] = *nonce;
        let run = self.key.run(&[a, b, c, d, e, f, g, h, i, j, k, l])?;
        let suffixes = [suffix; Run::LANES];
        let mut commitments = [[0; COMMITMENT]; Run::LANES];
        self.key.commit_all(&run, &suffixes, &mut commitments)?;
        let ahead = Locked::new(Ahead { suffixes, commitments, next: Run::LANES - 1 })?;
        self.sealing = Some(Sealing { run, left: 1, ahead });
        Ok(())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.a.zeroize();
    }
}

impl Sealing {
    fn start(key: &KcKey) -> Result<Self, Error> {
        let mut prefix = [0; PREFIX];
        random_bytes(&mut prefix)?;
        let none_left =
            Ahead { suffixes: [[0; SUFFIX]; Run::LANES], commitments: [[0; COMMITMENT]; Run::LANES], next: Run::LANES };
        Ok(Self { run: key.run(&prefix)?, left: RUN, ahead: Locked::new(none_left)? })
    }

    /// A nonce suffix that was never used, and the commitment that goes with it.
    #[inline]
    fn next_nonce(&mut self, key: &KcKey) -> Result<([u8; SUFFIX], [u8; COMMITMENT]), Error> {
        if unbuffered() {
            let mut suffix = [0; SUFFIX];
            random_bytes(&mut suffix)?;
            return Ok((suffix, key.commitment(&self.run, &suffix)?));
        }
        let ahead = self.ahead.get_mut()?;
        if ahead.next >= Run::LANES {
            random_bytes(ahead.suffixes.as_flattened_mut())?;
            key.commit_all(&self.run, &ahead.suffixes, &mut ahead.commitments)?;
            ahead.next = 0;
        }
        let at = ahead.next;
        ahead.next += 1;
        match (ahead.suffixes.get_mut(at), ahead.commitments.get(at)) {
            (Some(suffix), Some(commitment)) => {
                let own = *suffix;
                // Gone from here, so that nothing can use it again.
                *suffix = [0; SUFFIX];
                Ok((own, *commitment))
            }
            _ => Err(Error::Unopenable),
        }
    }
}
