//! A second implementation of `docs/format.md` §4 to §8, on the RustCrypto crates alone and sharing nothing with the
//! library: what tests and fuzz targets compare it with. Slow and plain on purpose, and it wipes nothing.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

/// Bytes of the header.
pub const HEADER: usize = 22;

/// AES-256 of one block.
pub fn aes(key: &[u8; 32], block: [u8; 16]) -> [u8; 16] {
    let mut block = Array::from(block);
    Aes256::new(&Array::from(*key)).encrypt_block(&mut block);
    block.into()
}

/// x ⊕ y.
pub fn xor(x: [u8; 16], y: [u8; 16]) -> [u8; 16] {
    std::array::from_fn(|i| x[i] ^ y[i])
}

/// One block: `front ‖ back`.
pub fn block(front: &[u8], back: &[u8]) -> [u8; 16] {
    [front, back].concat().try_into().unwrap()
}

/// HKDF-Expand-SHA256 to 32 bytes (RFC 5869 section 2.3): a single HMAC.
pub fn expand(key: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    ring::hmac::sign(&key, &[info, &[1]].concat()).as_ref().try_into().unwrap()
}

/// §4.
pub fn suite_key(data_key: &[u8; 32]) -> [u8; 32] {
    expand(data_key, b"blindvault/suite/v1\0\x01")
}

/// §5.1.
pub fn k1(key: &[u8; 32]) -> [u8; 16] {
    let l = aes(key, [0; 16]);
    let mut k1: [u8; 16] = std::array::from_fn(|i| l[i] << 1 | l.get(i + 1).map_or(0, |next| next >> 7));
    if l[0] & 0x80 != 0 {
        k1[15] ^= 0x87;
    }
    k1
}

/// §5.2: Kx.
pub fn record_key(key: &[u8; 32], prefix: &[u8]) -> [u8; 32] {
    let half = |i| aes(key, xor(block(&[0, i, 0x58, 0], prefix), k1(key)));
    [half(1), half(2)].concat().try_into().unwrap()
}

/// §5.3: C.
pub fn commitment(key: &[u8; 32], nonce: &[u8]) -> [u8; 32] {
    let x = aes(key, block(b"XCMT", &nonce[..12]));
    let half = |i| aes(key, xor(xor(x, k1(key)), block(&nonce[12..], &[0, 1, 0, i])));
    [half(1), half(2)].concat().try_into().unwrap()
}

/// §5.4: `N ‖ C ‖ ciphertext ‖ tag`.
pub fn kc_seal(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let gcm = Aes256Gcm::new(&Array::from(record_key(key, &nonce[..12])));
    let suffix: [u8; 12] = nonce[12..].try_into().unwrap();
    let sealed = gcm.encrypt(&Nonce::from(suffix), Payload { msg: plaintext, aad }).unwrap();
    [&nonce[..], &commitment(key, nonce), &sealed].concat()
}

/// §5.5, of `N ‖ C ‖ ciphertext ‖ tag`; `None` for whatever does not open.
pub fn kc_open(key: &[u8; 32], sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_at_checked(24)?;
    let (c, body) = rest.split_at_checked(32)?;
    if commitment(key, nonce) != c {
        return None;
    }
    let suffix: [u8; 12] = nonce[12..].try_into().ok()?;
    let gcm = Aes256Gcm::new(&Array::from(record_key(key, &nonce[..12])));
    gcm.decrypt(&Nonce::from(suffix), Payload { msg: body, aad }).ok()
}

/// §3.
pub fn header(key_id: &[u8; 16]) -> [u8; HEADER] {
    [b"BLV\x01\x01\0", &key_id[..]].concat().try_into().unwrap()
}

fn lp(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// §6.1: A. Pairs as given, in any order.
pub fn context(
    header: &[u8; HEADER],
    tenant: &str,
    dataset: &str,
    subject: Option<&str>,
    version: u32,
    pairs: &[(&str, &str)],
) -> Vec<u8> {
    let mut a = [b"blindvault/ctx/v1\0", &header[..]].concat();
    for name in [tenant, dataset, subject.unwrap_or_default()] {
        a.extend(lp(name.as_bytes()));
    }
    a.extend(version.to_be_bytes());
    a.extend(u16::try_from(pairs.len()).unwrap().to_be_bytes());
    for (key, value) in pairs {
        a.extend(lp(key.as_bytes()));
        a.extend(lp(value.as_bytes()));
    }
    a
}

/// §7: an envelope.
pub fn seal(data_key: &[u8; 32], header: &[u8; HEADER], nonce: &[u8; 24], a: &[u8], plaintext: &[u8]) -> Vec<u8> {
    [&header[..], &kc_seal(&suite_key(data_key), nonce, a, plaintext)].concat()
}

/// §8: the plaintext of an envelope.
pub fn open(data_key: &[u8; 32], header: &[u8; HEADER], a: &[u8], envelope: &[u8]) -> Option<Vec<u8>> {
    kc_open(&suite_key(data_key), envelope.strip_prefix(header)?, a)
}
