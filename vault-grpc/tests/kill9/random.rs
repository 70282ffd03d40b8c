//! SplitMix64: what happens when is decided by the seed alone.

pub(crate) struct Random(u64);

impl Random {
    /// By `BLINDVAULT_SEED`, or a fresh seed; also what to say of it.
    pub(crate) fn seeded() -> (Self, u64) {
        let fresh = || u64::from_le_bytes(vault_core::vault::new_request_id().unwrap().0[..8].try_into().unwrap());
        let seed = std::env::var("BLINDVAULT_SEED").map_or_else(|_| fresh(), |seed| seed.parse().unwrap());
        (Self(seed), seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `most`.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(most).unwrap()).unwrap()
    }
}
