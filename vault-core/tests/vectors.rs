//! The committed vectors (`docs/format.md` §13), each with the outcome it states, through the public interface: the
//! failing ones too. A second implementation (`reference`) seals the positive ones again, byte for byte.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[expect(dead_code, unreachable_pub, reason = "shared by several tests, each of which uses a part")]
mod reference;

use std::collections::BTreeMap;

use serde_json::Value;
use vault_core::Error;
use vault_core::envelope::{Context, DataKey, Header, MAX_PLAINTEXT, OVERHEAD, Scope, Suite};
use vault_core::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use vault_core::keys::WrappingKey;
use vault_core::secret::Key32;

fn load(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'t>(test: &'t Value, field: &str) -> &'t str {
    test[field].as_str().unwrap_or_else(|| panic!("no {field}"))
}

fn bytes(test: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(test, field)).unwrap()
}

fn array<const N: usize>(test: &Value, field: &str) -> [u8; N] {
    bytes(test, field).try_into().unwrap()
}

fn version(test: &Value, field: &str) -> KeyVersion {
    KeyVersion(test[field].as_u64().unwrap().try_into().unwrap())
}

fn key(test: &Value, field: &str) -> Result<Key32, Error> {
    Key32::copy_of(&array(test, field))
}

fn scope(test: &Value) -> Result<Scope, Error> {
    Ok(Scope {
        tenant: TenantId::parse(text(test, "tenant"))?,
        dataset: DatasetId::parse(text(test, "dataset"))?,
        subject: test["subject"].as_str().map(Subject::parse).transpose()?,
    })
}

fn pairs(test: &Value) -> Vec<(&str, &str)> {
    test["context"].as_array().unwrap().iter().map(|p| (p[0].as_str().unwrap(), p[1].as_str().unwrap())).collect()
}

fn data_key(test: &Value) -> Result<DataKey, Error> {
    DataKey::new(&key(test, "data_key")?, KeyId(array(test, "key_id")), version(test, "key_version"), scope(test)?)
}

/// The word of §13 for what happened.
fn outcome<T>(result: &Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(Error::Unopenable) => "unopenable",
        Err(Error::Invalid { field, .. }) => match field.as_str() {
            "context" => "invalid_context",
            "tenant" | "dataset" | "subject" | "key_version" => "invalid_identifier",
            other => panic!("unexpected field {other}"),
        },
        Err(other) => panic!("unexpected error {other}"),
    }
}

fn open(test: &Value, envelope: &[u8]) -> Result<Vec<u8>, Error> {
    let key = data_key(test)?;
    let context = Context::from_ascending(pairs(test))?;
    let opened = key.open(&context, envelope).map(|plaintext| plaintext.expose().to_vec());
    let mut in_place = envelope.to_vec();
    assert_eq!(key.open_in_place(&context, &mut in_place).map(|plaintext| plaintext.to_vec()), opened);
    opened
}

fn seal(test: &Value, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
    data_key(test)?.seal(&Context::from_ascending(pairs(test))?, plaintext)
}

/// A as the second implementation forms it.
fn reference_context(test: &Value) -> Vec<u8> {
    let subject = test["subject"].as_str();
    let header = reference::header(&array(test, "key_id"));
    let version = version(test, "key_version").0;
    reference::context(&header, text(test, "tenant"), text(test, "dataset"), subject, version, &pairs(test))
}

fn reference_seal(test: &Value, plaintext: &[u8]) -> Vec<u8> {
    let header = reference::header(&array(test, "key_id"));
    let a = reference_context(test);
    reference::seal(&array(test, "data_key"), &header, &array(test, "nonce"), &a, plaintext)
}

#[test]
fn envelopes() {
    let file = load("envelope_v1.json");
    let mut counts = BTreeMap::new();
    for test in file["tests"].as_array().unwrap() {
        let (expected, name) = (text(test, "expected"), format!("{}: {}", test["id"], text(test, "reason")));
        let envelope = bytes(test, "envelope");
        let opened = open(test, &envelope);
        assert_eq!(outcome(&opened), expected, "test {name}");
        match expected {
            "ok" => {
                let plaintext = bytes(test, "plaintext");
                assert_eq!(opened.unwrap(), plaintext, "test {name}");
                let a = Context::from_ascending(pairs(test)).unwrap().canonical(&data_key(test).unwrap()).unwrap();
                assert_eq!(a, bytes(test, "aad"), "test {name}");
                assert_eq!(Header::parse(&envelope).unwrap(), Header::new(Suite::Record, KeyId(array(test, "key_id"))));
                assert_eq!(reference_seal(test, &plaintext), envelope, "test {name}");
                assert_eq!(open(test, &seal(test, &plaintext).unwrap()).unwrap(), plaintext, "test {name}");
            }
            "unopenable" => {}
            _ => assert_eq!(outcome(&seal(test, b"")), expected, "sealing, test {name}"),
        }
        *counts.entry(expected).or_insert(0) += 1;
    }
    let least = [("ok", 37), ("unopenable", 184), ("invalid_context", 10), ("invalid_identifier", 21)];
    for (expected, least) in least {
        assert!(counts[expected] >= least, "{expected}: only {} tests", counts[expected]);
    }
}

#[test]
fn large_envelopes() {
    let file = load("envelope_v1.json");
    let tests = file["large"].as_array().unwrap();
    assert!(tests.len() >= 4);
    for test in tests {
        let len = usize::try_from(test["plaintext_len"].as_u64().unwrap()).unwrap();
        let plaintext = vec![bytes(test, "plaintext_byte")[0]; len];
        let envelope = reference_seal(test, &plaintext);
        let digest = ring::digest::digest(&ring::digest::SHA256, &envelope);
        assert_eq!(hex::encode(digest), text(test, "envelope_sha256"), "large {}", test["id"]);
        let opened = open(test, &envelope);
        assert_eq!(outcome(&opened), text(test, "expected"), "large {}", test["id"]);
        match opened {
            Ok(opened) => assert!(opened == plaintext),
            Err(_) => {
                assert!(envelope.len() > MAX_PLAINTEXT + OVERHEAD);
                let refused = seal(test, &plaintext);
                assert!(matches!(refused, Err(Error::Invalid { field, .. }) if field == "plaintext"));
            }
        }
    }
}

/// Tenant key version and key version are both called `key_version` in errors: each is judged where it is given.
fn unwrap(test: &Value) -> Result<Vec<u8>, Error> {
    let tenant = TenantId::parse(text(test, "tenant"))?;
    let wrapping = WrappingKey::derive(&key(test, "tenant_key")?, &tenant, version(test, "tenant_key_version"))?;
    let (id, version) = (KeyId(array(test, "key_id")), version(test, "key_version"));
    let scope = scope(test)?;
    // What wraps must refuse what unwrapping refuses.
    let fresh = wrapping.wrap(&scope, id, version, &Key32::copy_of(&[7; 32])?)?;
    assert_eq!(wrapping.unwrap(&scope, id, version, &fresh)?.expose()?, &[7; 32]);
    wrapping.unwrap(&scope, id, version, &bytes(test, "wrapped"))?.expose().map(|key| key.to_vec())
}

#[test]
fn wrapped_keys() {
    let file = load("wrapped_key_v1.json");
    let mut counts = BTreeMap::new();
    for test in file["tests"].as_array().unwrap() {
        let (expected, name) = (text(test, "expected"), format!("{}: {}", test["id"], text(test, "reason")));
        let unwrapped = unwrap(test);
        assert_eq!(outcome(&unwrapped), expected, "test {name}");
        if let Ok(unwrapped) = unwrapped {
            assert_eq!(unwrapped, bytes(test, "data_key"), "test {name}");
            let (key, nonce, aad) = (array(test, "wrapping_key"), array(test, "nonce"), bytes(test, "aad"));
            let again = [&[1][..], &reference::kc_seal(&key, &nonce, &aad, &unwrapped)].concat();
            assert_eq!(again, bytes(test, "wrapped"), "test {name}");
        }
        *counts.entry(expected).or_insert(0) += 1;
    }
    for (expected, least) in [("ok", 3), ("unopenable", 129), ("invalid_identifier", 4)] {
        assert!(counts[expected] >= least, "{expected}: only {} tests", counts[expected]);
    }
}

#[test]
fn version_0_is_no_version() {
    let test = &load("envelope_v1.json")["tests"][0];
    let key = key(test, "data_key").unwrap();
    let (id, zero) = (KeyId(array(test, "key_id")), KeyVersion(0));
    let refused =
        |result: Option<Error>| matches!(result, Some(Error::Invalid { field, .. }) if field == "key_version");
    assert!(refused(DataKey::new(&key, id, zero, scope(test).unwrap()).err()));
    let scope = scope(test).unwrap();
    assert!(refused(WrappingKey::derive(&key, &scope.tenant, zero).err()));
    let wrapping = WrappingKey::derive(&key, &scope.tenant, KeyVersion::FIRST).unwrap();
    assert!(refused(wrapping.wrap(&scope, id, zero, &key).err()));
    assert!(refused(wrapping.unwrap(&scope, id, zero, &[0; 105]).err()));
}
