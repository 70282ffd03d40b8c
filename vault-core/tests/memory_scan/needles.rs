//! What to look for: everything from which a key follows, in the forms in which code is known to hold it, cut into
//! pieces of eight bytes, so that what was spilled from one register is found too.

use std::collections::HashMap;

use super::reference::{aes, block, k1, record_key, suite_key, xor};

/// Eight bytes, to where they come from.
pub(super) type Needles = HashMap<[u8; 8], &'static str>;

/// Adds `bytes` from piece to piece, but for what is no random bytes (counts, pointers) and found anywhere.
pub(super) fn add(needles: &mut Needles, name: &'static str, bytes: &[u8]) {
    for piece in bytes.chunks_exact(8) {
        let piece: [u8; 8] = piece.try_into().unwrap();
        if piece.iter().filter(|b| **b == 0).count() < 2 {
            needles.entry(piece).or_insert(name);
        }
    }
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// A key that only HKDF-Expand uses: itself, and what HMAC makes of it.
pub(super) fn hkdf_key(needles: &mut Needles, name: &'static str, key: &[u8; 32]) {
    add(needles, name, key);
    for pad in [0x36, 0x5c] {
        let mut padded = [pad; 64];
        padded.iter_mut().zip(key).for_each(|(p, k)| *p ^= k);
        add(needles, "HMAC pad", &padded[..32]);
        // The words of the state after the pad, as the machine has them in memory.
        let state = sha256_block(sha256_start(), &padded);
        add(needles, "HMAC state", &state.map(u32::to_ne_bytes).concat());
        add(needles, "HMAC state", &state.map(u32::to_be_bytes).concat());
    }
}

/// A data key and its suite key.
pub(super) fn data_key(needles: &mut Needles, key: &[u8; 32]) {
    hkdf_key(needles, "data key", key);
    kc_key(needles, &suite_key(key));
}

/// The key of suite 0x02, which only HKDF-Expand uses, with SHA-512: its pads; and what a stream's front gives.
pub(super) fn stream_key(needles: &mut Needles, key: &[u8; 32]) {
    add(needles, "suite key of streams", key);
    for pad in [0x36, 0x5c] {
        add(needles, "HMAC pad of streams", &key.map(|byte| byte ^ pad));
    }
}

/// The key of a stream: the round keys of its AES key, and GCM's H. Not the base nonce: no key follows from it, and ring
/// leaves nonces on the stack.
pub(super) fn stream(needles: &mut Needles, key: &[u8; 32]) {
    add(needles, "round key of a stream", &round_keys(key));
    let h = aes(key, [0; 16]);
    add(needles, "H of a stream", &h);
    add(needles, "H of a stream", &reversed(&h));
    add(needles, "H of a stream doubled", &doubled(h).to_ne_bytes());
}

/// A key of KC-XAES: its round keys, L and K1.
pub(super) fn kc_key(needles: &mut Needles, key: &[u8; 32]) {
    add(needles, "round key of the suite or wrapping key", &round_keys(key));
    add(needles, "L", &aes(key, [0; 16]));
    add(needles, "K1", &k1(key));
    add(needles, "K1", &reversed(&k1(key)));
}

/// What a nonce prefix gives: the round keys of Kx, GCM's H, and X.
pub(super) fn run(needles: &mut Needles, key: &[u8; 32], prefix: &[u8]) {
    let kx = record_key(key, prefix);
    add(needles, "round key of a record key", &round_keys(&kx));
    let h = aes(&kx, [0; 16]);
    add(needles, "H", &h);
    add(needles, "H", &reversed(&h));
    add(needles, "H doubled", &doubled(h).to_ne_bytes());
    let x = aes(key, block(b"XCMT", prefix));
    add(needles, "X", &x);
    add(needles, "X + K1", &xor(x, k1(key)));
}

/// H times x in the field of GCM (SP 800-38D section 6.3), in the bit order in which carry-less multiplication wants it:
/// the first entry of the tables of the fast implementations.
pub(super) fn doubled(h: [u8; 16]) -> u128 {
    let h = u128::from_be_bytes(h);
    h << 1 ^ if h >> 127 == 1 { 0xc200_0000_0000_0000_0000_0000_0000_0001 } else { 0 }
}

/// FIPS 197 section 5.2, for 256-bit keys: 15 round keys.
pub(super) fn round_keys(key: &[u8; 32]) -> Vec<u8> {
    let sbox = sbox();
    let mut words: Vec<[u8; 4]> = key.chunks_exact(4).map(|w| w.try_into().unwrap()).collect();
    let mut constant = 1;
    for i in 8..60 {
        let mut word = words[i - 1];
        if i % 8 == 0 {
            word.rotate_left(1);
        }
        if i % 4 == 0 {
            word = word.map(|b| sbox[usize::from(b)]);
        }
        if i % 8 == 0 {
            word[0] ^= constant;
            constant <<= 1;
        }
        words.push(std::array::from_fn(|b| word[b] ^ words[i - 8][b]));
    }
    words.concat()
}

fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    product
}

/// FIPS 197 section 5.1.1: inversion in GF(2^8), then the affine transformation.
fn sbox() -> [u8; 256] {
    std::array::from_fn(|value| {
        let value = u8::try_from(value).unwrap();
        let inverse = (1..=255).find(|x| times(value, *x) == 1).unwrap_or(0);
        (0..5).fold(0x63, |sum, n| sum ^ inverse.rotate_left(n))
    })
}

fn primes() -> impl Iterator<Item = f64> {
    (2u32..).filter(|n| (2..*n).all(|d| n % d != 0)).map(f64::from)
}

/// The first 32 bits of the fraction, as FIPS 180-4 defines its constants.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^32 and positive")]
fn fraction(x: f64) -> u32 {
    (x.fract() * 4_294_967_296.0) as u32
}

fn sha256_start() -> [u32; 8] {
    let mut primes = primes();
    std::array::from_fn(|_| fraction(primes.next().unwrap().sqrt()))
}

/// FIPS 180-4 section 6.2.2: the state after one more block.
fn sha256_block(state: [u32; 8], block: &[u8; 64]) -> [u32; 8] {
    let mut w: Vec<u32> = block.chunks_exact(4).map(|b| u32::from_be_bytes(b.try_into().unwrap())).collect();
    for t in 16..64 {
        let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ w[t - 15] >> 3;
        let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ w[t - 2] >> 10;
        w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    for (word, prime) in w.into_iter().zip(primes()) {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = e & f ^ !e & g;
        let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(fraction(prime.cbrt())).wrapping_add(word);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t2 = s0.wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    let sums = [a, b, c, d, e, f, g, h];
    std::array::from_fn(|i| state[i].wrapping_add(sums[i]))
}

/// The two primitives above, of which nothing else tells whether they are right, against published values.
#[test]
fn the_needles_are_computed_right() {
    // FIPS 197, appendix A.3.
    let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    let words = round_keys(&key.try_into().unwrap());
    assert_eq!(words.len(), 240);
    assert_eq!(hex::encode(&words[236..]), "706c631e");
    let mut padded = [0; 64];
    padded[..4].copy_from_slice(b"abc\x80");
    padded[63] = 24;
    let digest = sha256_block(sha256_start(), &padded).map(u32::to_be_bytes).concat();
    assert_eq!(digest, ring::digest::digest(&ring::digest::SHA256, b"abc").as_ref());
}
