use ring::signature::{ED25519, UnparsedPublicKey};

use super::*;
use crate::audit::test_support::{ORIGIN, Place};

/// A second reading of C2SP signed-note and tlog-checkpoint, sharing no code with the first.
fn read_note(note: &str, vkey: &str) -> Option<(String, u64, Vec<u8>)> {
    let parts: Vec<&str> = vkey.splitn(3, '+').collect();
    let (name, id) = (parts[0], u32::from_str_radix(parts[1], 16).ok()?);
    let key = STANDARD.decode(parts[2]).ok()?;
    let mut hashed = format!("{name}\n").into_bytes();
    hashed.extend_from_slice(&key);
    let digest = ring::digest::digest(&ring::digest::SHA256, &hashed);
    if key[0] != 1 || id.to_be_bytes() != digest.as_ref()[..4] {
        return None;
    }
    let (body, signatures) = note.rsplit_once("\n\n")?;
    let body = format!("{body}\n");
    let line = signatures.lines().find(|line| line.starts_with(&format!("— {name} ")))?;
    let signature = STANDARD.decode(line.rsplit_once(' ')?.1).ok()?;
    if signature[..4] != id.to_be_bytes() || signature.len() != 68 {
        return None;
    }
    UnparsedPublicKey::new(&ED25519, &key[1..]).verify(body.as_bytes(), &signature[4..]).ok()?;
    let mut lines = body.lines();
    Some((lines.next()?.to_owned(), lines.next()?.parse().ok()?, STANDARD.decode(lines.next()?).ok()?))
}

#[test]
fn a_second_implementation_reads_what_we_sign() {
    let signer = Place::new().signer();
    let checkpoint = Checkpoint { size: 20_852_163, root: [7; 32] };
    let note = checkpoint.sign(&signer).unwrap();
    let (origin, size, root) = read_note(&note, &signer.verifier().vkey()).unwrap();
    assert_eq!((origin.as_str(), size, root.as_slice()), (ORIGIN, 20_852_163, &[7; 32][..]));
    assert_eq!(Checkpoint::verify(&note, signer.verifier()).unwrap(), checkpoint);
}

#[test]
fn published_examples_are_read() {
    // From the Go implementation of signed-note (golang.org/x/mod/sumdb/note): key and id rule.
    let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let verifier = LogVerifier::parse(vkey).unwrap();
    assert_eq!(verifier.origin(), "PeterNeumann");
    assert_eq!(verifier.key_id(), [0xc7, 0x4f, 0x20, 0xa3]);
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    let blob = STANDARD.decode(signature).unwrap();
    assert_eq!(blob[..4], verifier.key_id());
    assert!(verifier.verify(text.as_bytes(), &blob[4..]));
    let note = format!("{text}\n— PeterNeumann {signature}\n");
    assert!(Checkpoint::verify(&note, &verifier).is_err(), "signed, but no checkpoint");
}

#[test]
fn altered_notes_are_refused() {
    let signer = Place::new().signer();
    let verifier = signer.verifier();
    let note = Checkpoint { size: 3, root: [7; 32] }.sign(&signer).unwrap();
    for at in 0..note.len() {
        let mut bytes = note.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(altered) = String::from_utf8(bytes) else { continue };
        assert!(Checkpoint::verify(&altered, verifier).is_err(), "byte {at}");
    }
    for len in 0..note.len() {
        if let Some(cut) = note.get(..len) {
            assert!(Checkpoint::verify(cut, verifier).is_err());
        }
    }
    // A witness's signature beside ours is passed over; alone it is not enough.
    let witness = "— witness.example AAAAAAAA\n";
    assert!(Checkpoint::verify(&format!("{note}{witness}"), verifier).is_ok());
    let text = &note[..note.find("\n\n").unwrap() + 2];
    assert!(Checkpoint::verify(&format!("{text}{witness}"), verifier).is_err());
}

#[test]
fn verifier_keys_are_exact() {
    let verifier = Place::new().verifier();
    let vkey = verifier.vkey();
    assert_eq!(LogVerifier::parse(&vkey).unwrap(), verifier);
    for at in 0..vkey.len() {
        let mut bytes = vkey.clone().into_bytes();
        bytes[at] ^= 1;
        let altered = String::from_utf8(bytes).unwrap();
        assert!(LogVerifier::parse(&altered).is_err(), "{altered}");
    }
    for bad in ["", "a+b", "a+00000000+", "a+00000000+AQ=="] {
        assert!(LogVerifier::parse(bad).is_err());
    }
    for origin in ["", "with space", "with+plus", "line\nbreak", &"x".repeat(201)] {
        assert!(LogVerifier::new(origin, &[0; 32]).is_err());
    }
}

#[test]
fn a_damaged_or_present_key_file_is_not_replaced() {
    let place = Place::new();
    let path = place.temp.path().join("signing.key");
    std::fs::write(&path, b"not a key").unwrap();
    let fs = crate::fs::OsFs;
    let mode = |mode| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o640);
    assert!(matches!(LogSigner::load(&fs, &path, ORIGIN), Err(Error::FailedPrecondition(_))));
    mode(0o600);
    assert!(matches!(LogSigner::load_or_create(&fs, &path, ORIGIN), Err(Error::Corrupt { .. })));
    assert!(matches!(LogSigner::create(&fs, &path, ORIGIN), Err(Error::AlreadyExists(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"not a key");
}
