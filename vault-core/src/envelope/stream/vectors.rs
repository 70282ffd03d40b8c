//! The committed vectors of streams (`docs/format.md` §17.7), each with the outcome it states; sealed again under their
//! salts, byte for byte. They were made by the second implementation.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::Error;
use crate::crypto::{TAG, sha256};
use crate::envelope::{Context, DataKey, Scope};
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::secret::Key32;

fn bytes(test: &Value, field: &str) -> Vec<u8> {
    hex::decode(test[field].as_str().unwrap()).unwrap()
}

fn key(test: &Value) -> Result<DataKey, Error> {
    let scope = Scope {
        tenant: TenantId::parse(test["tenant"].as_str().unwrap())?,
        dataset: DatasetId::parse(test["dataset"].as_str().unwrap())?,
        subject: test["subject"].as_str().map(Subject::parse).transpose()?,
    };
    let raw = Key32::copy_of(&bytes(test, "data_key").try_into().unwrap())?;
    let version = KeyVersion(u32::try_from(test["key_version"].as_u64().unwrap()).unwrap());
    DataKey::new(&raw, KeyId(bytes(test, "key_id").try_into().unwrap()), version, scope)
}

fn context(test: &Value) -> Result<Context, Error> {
    let pairs = test["context"].as_array().unwrap();
    Context::from_ascending(pairs.iter().map(|p| (p[0].as_str().unwrap(), p[1].as_str().unwrap())))
}

fn sealed(test: &Value, plaintext: &[u8]) -> Vec<u8> {
    let salt = bytes(test, "salt").try_into().unwrap();
    let mut sealer = StreamSealer::with_salt(&key(test).unwrap(), &context(test).unwrap(), &salt).unwrap();
    let mut envelope = sealer.front().to_vec();
    let mut chunks = plaintext.chunks_exact(STREAM_CHUNK);
    for chunk in &mut chunks {
        let mut buffer = [chunk, &[0; TAG]].concat();
        sealer.seal_chunk(&mut buffer).unwrap();
        envelope.extend(buffer);
    }
    let mut buffer = [chunks.remainder(), &[0; TAG]].concat();
    sealer.seal_last(&mut buffer).unwrap();
    envelope.extend(buffer);
    envelope
}

fn open(test: &Value, envelope: &[u8]) -> Result<Vec<u8>, Error> {
    let (key, context) = (key(test)?, context(test)?);
    let (front, chunks) = envelope.split_first_chunk().ok_or(Error::Unopenable)?;
    let mut opener = key.open_stream(&context, front)?;
    let (mut plaintext, mut chunks) = (Vec::new(), chunks.chunks_exact(SEALED_CHUNK));
    for chunk in &mut chunks {
        plaintext.extend_from_slice(opener.open_chunk(&mut chunk.to_vec())?);
    }
    plaintext.extend_from_slice(opener.open_last(&mut chunks.remainder().to_vec())?);
    Ok(plaintext)
}

fn file() -> Value {
    serde_json::from_str(include_str!("../../../tests/vectors/stream_v1.json")).unwrap()
}

#[test]
fn committed_outcomes() {
    let mut counts = BTreeMap::new();
    for test in file()["tests"].as_array().unwrap() {
        let (name, expected) = (format!("{}: {}", test["id"], test["reason"]), test["expected"].as_str().unwrap());
        let envelope = bytes(test, "envelope");
        match (expected, open(test, &envelope)) {
            ("ok", Ok(plaintext)) => {
                assert_eq!(plaintext, bytes(test, "plaintext"), "{name}");
                assert_eq!(sealed(test, &plaintext), envelope, "{name}");
            }
            ("unopenable", Err(Error::Unopenable)) => {}
            ("invalid_context", Err(Error::Invalid { field, .. })) => assert_eq!(field, "context", "{name}"),
            ("invalid_identifier", Err(Error::Invalid { field, .. })) => assert_ne!(field, "context", "{name}"),
            (_, other) => panic!("{name}: {other:?}"),
        }
        *counts.entry(expected.to_owned()).or_insert(0) += 1;
    }
    assert!(counts["ok"] >= 4 && counts["unopenable"] >= 200, "{counts:?}");
}

#[test]
fn committed_digests_of_long_ones() {
    let file = file();
    let tests = file["large"].as_array().unwrap();
    assert!(tests.len() >= 6);
    for test in tests {
        let len = usize::try_from(test["plaintext_len"].as_u64().unwrap()).unwrap();
        let plaintext: Vec<u8> = (0..len).map(|at| (at / STREAM_CHUNK % 251) as u8).collect();
        let envelope = sealed(test, &plaintext);
        assert_eq!(sha256(&[&envelope])[..], bytes(test, "envelope_sha256"), "large {}", test["id"]);
        assert!(open(test, &envelope).unwrap() == plaintext, "large {}", test["id"]);
    }
}
