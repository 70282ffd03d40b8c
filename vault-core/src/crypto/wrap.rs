//! Wrapped keys, version 1 (`docs/format.md`, "Wrapped keys"): `01 ‖ N(24) ‖ C(32) ‖ ciphertext(32) ‖ tag(16)`.

use super::{COMMITMENT, KcKey, NONCE, TAG, random_bytes};
use crate::error::Error;
use crate::secret::Key32;

/// Bytes of a wrapped 32 byte key.
const WRAPPED: usize = 1 + NONCE + COMMITMENT + 32 + TAG;

const VERSION: u8 = 1;

/// Wraps `key` under `wrapping`, bound to `aad`, with a fresh random nonce.
///
/// # Errors
/// [`Error::Unavailable`] without entropy or locked memory.
pub(crate) fn wrap32(wrapping: &KcKey, aad: &[u8], key: &Key32) -> Result<[u8; WRAPPED], Error> {
    let mut nonce = [0; NONCE];
    random_bytes(&mut nonce)?;
    wrap32_with(wrapping, &nonce, aad, key)
}

fn wrap32_with(wrapping: &KcKey, nonce: &[u8; NONCE], aad: &[u8], key: &Key32) -> Result<[u8; WRAPPED], Error> {
    // Encrypted where the copy lies: in locked memory until it is ciphertext.
    let mut sealed = Err(Error::Unopenable);
    let body = Key32::init_with(|bytes| {
        bytes.copy_from_slice(key.expose()?);
        sealed = wrapping.seal_once(nonce, aad, bytes);
        Ok(())
    })?;
    let (commitment, tag) = sealed?;
    let mut out = [0; WRAPPED];
    let mut rest = out.as_mut_slice();
    for part in [&[VERSION][..], nonce, &commitment, body.expose()?, &tag] {
        let (front, back) = rest.split_at_mut(part.len());
        front.copy_from_slice(part);
        rest = back;
    }
    Ok(out)
}

/// Unwraps what [`wrap32`] made. The length is checked before anything is read.
///
/// # Errors
/// [`Error::Unopenable`], whatever is wrong; [`Error::Unavailable`] without locked memory.
pub(crate) fn unwrap32(wrapping: &KcKey, aad: &[u8], wrapped: &[u8]) -> Result<Key32, Error> {
    let wrapped: &[u8; WRAPPED] = wrapped.try_into().map_err(|_| Error::Unopenable)?;
    let (version, rest) = wrapped.split_first().ok_or(Error::Unopenable)?;
    if *version != VERSION {
        return Err(Error::Unopenable);
    }
    let (nonce, rest) = rest.split_first_chunk().ok_or(Error::Unopenable)?;
    let (commitment, rest) = rest.split_first_chunk().ok_or(Error::Unopenable)?;
    let (ciphertext, tag) = rest.split_first_chunk::<32>().ok_or(Error::Unopenable)?;
    let tag = tag.first_chunk().ok_or(Error::Unopenable)?;
    Key32::init_with(|bytes| {
        bytes.copy_from_slice(ciphertext);
        wrapping.open_once(nonce, commitment, aad, bytes, tag)
    })
}

/// Seals bytes under `key`, bound to `aad`, with a fresh random nonce: `N(24) ‖ C(32) ‖ ciphertext ‖ tag(16)`.
///
/// # Errors
/// [`Error::Unavailable`] without entropy.
pub(crate) fn seal_bytes(key: &KcKey, aad: &[u8], mut body: Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE];
    random_bytes(&mut nonce)?;
    let (commitment, tag) = key.seal_once(&nonce, aad, &mut body)?;
    Ok([&nonce[..], &commitment, &body, &tag].concat())
}

/// Opens what [`seal_bytes`] made.
///
/// # Errors
/// [`Error::Unopenable`], whatever is wrong.
pub(crate) fn open_bytes(key: &KcKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let (nonce, rest) = sealed.split_first_chunk().ok_or(Error::Unopenable)?;
    let (commitment, rest) = rest.split_first_chunk().ok_or(Error::Unopenable)?;
    let (body, tag) = rest.split_last_chunk().ok_or(Error::Unopenable)?;
    let mut body = body.to_vec();
    key.open_once(nonce, commitment, aad, &mut body, tag)?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wrapping with the nonce of a vector gives its bytes.
    #[test]
    fn wrapping_reproduces_the_vectors() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/wrapped_key_v1.json")).unwrap();
        let bytes = |test: &serde_json::Value, field: &str| hex::decode(test[field].as_str().unwrap()).unwrap();
        let mut checked = 0;
        for test in file["tests"].as_array().unwrap().iter().filter(|test| test["expected"] == "ok") {
            let key = |field| Key32::copy_of(&bytes(test, field).try_into().unwrap()).unwrap();
            let wrapping = KcKey::new(&key("wrapping_key")).unwrap();
            let nonce = bytes(test, "nonce").try_into().unwrap();
            let wrapped = wrap32_with(&wrapping, &nonce, &bytes(test, "aad"), &key("data_key")).unwrap();
            assert_eq!(wrapped[..], bytes(test, "wrapped"), "test {}", test["id"]);
            checked += 1;
        }
        assert!(checked >= 3, "only {checked} vectors");
    }

    #[test]
    fn only_the_same_key_and_aad_unwrap() {
        let wrapping = KcKey::new(&Key32::copy_of(&[1; 32]).unwrap()).unwrap();
        let other = KcKey::new(&Key32::copy_of(&[2; 32]).unwrap()).unwrap();
        let key = Key32::copy_of(&[7; 32]).unwrap();
        let wrapped = wrap32(&wrapping, b"row 1", &key).unwrap();
        assert!(unwrap32(&wrapping, b"row 1", &wrapped).unwrap() == key);
        assert!(unwrap32(&wrapping, b"row 2", &wrapped).is_err());
        assert!(unwrap32(&other, b"row 1", &wrapped).is_err());
        for at in 0..WRAPPED * 8 {
            let mut bad = wrapped;
            bad[at / 8] ^= 1 << (at % 8);
            assert!(unwrap32(&wrapping, b"row 1", &bad).is_err(), "bit {at}");
        }
        for len in 0..WRAPPED {
            assert!(unwrap32(&wrapping, b"row 1", &wrapped[..len]).is_err());
        }
        assert_ne!(wrapped, wrap32(&wrapping, b"row 1", &key).unwrap());
    }
}
