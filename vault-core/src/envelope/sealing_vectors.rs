//! Sealing, byte for byte: with a vector's nonce a data key gives the vector's envelope. Opening is in
//! `tests/vectors.rs`, through the public interface, in which nobody can choose a nonce.

use serde_json::Value;

use super::{Context, DataKey, Scope};
use crate::crypto::sha256;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::secret::Key32;

fn bytes(test: &Value, field: &str) -> Vec<u8> {
    hex::decode(test[field].as_str().unwrap()).unwrap()
}

fn sealed(test: &Value, plaintext: &[u8]) -> Vec<u8> {
    let scope = Scope {
        tenant: TenantId::parse(test["tenant"].as_str().unwrap()).unwrap(),
        dataset: DatasetId::parse(test["dataset"].as_str().unwrap()).unwrap(),
        subject: test["subject"].as_str().map(|s| Subject::parse(s).unwrap()),
    };
    let pairs = test["context"].as_array().unwrap();
    let context = Context::from_ascending(pairs.iter().map(|p| (p[0].as_str().unwrap(), p[1].as_str().unwrap())));
    let key = Key32::copy_of(&bytes(test, "data_key").try_into().unwrap()).unwrap();
    let version = KeyVersion(u32::try_from(test["key_version"].as_u64().unwrap()).unwrap());
    let key = DataKey::new(&key, KeyId(bytes(test, "key_id").try_into().unwrap()), version, scope).unwrap();
    key.force_nonce(&bytes(test, "nonce").try_into().unwrap()).unwrap();
    key.seal(&context.unwrap(), plaintext).unwrap()
}

#[test]
fn sealing_reproduces_the_vectors() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/envelope_v1.json")).unwrap();
    let opens = |test: &&Value| test["expected"] == "ok";
    let mut checked = 0;
    for test in file["tests"].as_array().unwrap().iter().filter(opens) {
        assert_eq!(sealed(test, &bytes(test, "plaintext")), bytes(test, "envelope"), "test {}", test["id"]);
        checked += 1;
    }
    for test in file["large"].as_array().unwrap().iter().filter(opens) {
        let len = usize::try_from(test["plaintext_len"].as_u64().unwrap()).unwrap();
        let envelope = sealed(test, &vec![bytes(test, "plaintext_byte")[0]; len]);
        assert_eq!(sha256(&[&envelope])[..], bytes(test, "envelope_sha256"), "large {}", test["id"]);
        checked += 1;
    }
    assert!(checked >= 40, "only {checked} vectors");
}
