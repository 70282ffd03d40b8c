//! An issuer's public keys: a JSON Web Key Set (RFC 7517 section 5).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{Json, Map};
use super::jws::Algorithm;
use crate::error::Error;

/// Longest key set in bytes.
pub const MAX_KEY_SET: usize = 64 * 1024;
/// Most keys in a set, those that are of no use here included.
pub const MAX_KEYS: usize = 32;
/// Longest `kid` in bytes.
pub(super) const MAX_KEY_ID: usize = 256;

/// A public key.
#[derive(PartialEq, Eq)]
pub(super) enum Material {
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    /// Modulus and exponent, big-endian.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// A key of a set.
#[derive(PartialEq, Eq)]
pub(super) struct Key {
    kid: String,
    /// The one algorithm it is for, if it says so.
    alg: Option<Algorithm>,
    pub(super) material: Material,
}

impl Key {
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.alg.is_none_or(|own| own == algorithm)
            && matches!(
                (&self.material, algorithm),
                (Material::P256(_), Algorithm::Es256)
                    | (Material::P384(_), Algorithm::Es384)
                    | (Material::Ed25519(_), Algorithm::EdDsa)
                    | (Material::Rsa { .. }, Algorithm::Rs256 | Algorithm::Ps256)
            )
    }
}

/// The public keys with which an issuer signs, by their `kid`.
#[derive(PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Reads a key set of at most 64 KiB and 32 keys.
    ///
    /// A key that cannot be used here is passed over, as RFC 7517 section 5 wants it: of another type or curve, not for
    /// signatures, with an RSA modulus that is not of 2048 to 8192 bits or an exponent other than 65537, without a `kid`.
    /// What is left may be nothing: then no token of the issuer verifies.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `keys` or `keys[i]`: no key set, too large, a `kid` twice (exactly one key may be tried
    /// for a token), or a private key, which is nobody's secret any more.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_KEY_SET {
            return Err(Error::invalid("keys", "the key set is longer than 64 KiB"));
        }
        let set = Map::parse(bytes).ok_or_else(|| Error::invalid("keys", "is not a JSON Web Key Set"))?;
        let Some(Json::List(listed)) = set.get("keys") else {
            return Err(Error::invalid("keys", "must be a list of JSON Web Keys"));
        };
        if listed.len() > MAX_KEYS {
            return Err(Error::invalid("keys", "must be at most 32 keys"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (i, value) in listed.iter().enumerate() {
            let refuse = |why| Err(Error::invalid(format!("keys[{i}]"), why));
            let Json::Map(jwk) = value else { return refuse("must be a JSON Web Key") };
            if ["d", "p", "q", "dp", "dq", "qi", "oth"].iter().any(|member| jwk.has(member)) {
                return refuse("holds a private key; it must be replaced, and only the public part be given");
            }
            let Some(key) = read(jwk) else { continue };
            if keys.iter().any(|other| other.kid == key.kid) {
                return refuse("has the kid of an earlier key");
            }
            keys.push(key);
        }
        Ok(Self { keys })
    }

    /// How many keys can be used.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of a name, by exact bytes.
    pub(super) fn find(&self, kid: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.kid == kid)
    }
}

/// Public keys are no secret, but long.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys.len()).finish()
    }
}

fn read(jwk: &Map) -> Option<Key> {
    let kid = jwk.text("kid").filter(|kid| (1..=MAX_KEY_ID).contains(&kid.len()))?;
    if jwk.has("use") && jwk.text("use") != Some("sig") {
        return None;
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Json::List(operations)) if operations.contains(&Json::Text("verify".to_owned())) => {}
        Some(_) => return None,
    }
    let alg = match jwk.get("alg") {
        None => None,
        Some(Json::Text(name)) => Some(Algorithm::named(name)?),
        Some(_) => return None,
    };
    let bytes = |member: &str| URL_SAFE_NO_PAD.decode(jwk.text(member)?).ok();
    // SEC 1 section 2.3.3: an uncompressed point; ring refuses what is not on the curve.
    let point = |size: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == size && y.len() == size).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
    };
    let material = match (jwk.text("kty")?, jwk.text("crv")) {
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
        ("RSA", None) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            if n.first() == Some(&0) || !(2048..=8192).contains(&bits) || e != [1, 0, 1] {
                return None;
            }
            Material::Rsa { n, e }
        }
        _ => return None,
    };
    let key = Key { kid: kid.to_owned(), alg, material };
    // A key that names an algorithm of another type of key is for nothing.
    key.alg.is_none_or(|own| key.is_for(own)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn set(keys: &[String]) -> Result<KeySet, Error> {
        KeySet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes())
    }

    fn ec(more: &str) -> String {
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"{more}}}"#)
    }

    #[test]
    fn a_key_serves_its_own_algorithm_only() {
        let set =
            set(&[ec(r#","kid":"a","use":"sig","alg":"ES256","key_ops":["verify"]"#), ec(r#","kid":"b""#)]).unwrap();
        for kid in ["a", "b"] {
            let key = set.find(kid).unwrap();
            let fits: Vec<_> = Algorithm::ALL.into_iter().filter(|algorithm| key.is_for(*algorithm)).collect();
            assert_eq!(fits, [Algorithm::Es256]);
        }
        assert!(set.find("A").is_none() && set.find("").is_none() && set.len() == 2);
    }

    #[test]
    fn keys_of_no_use_are_passed_over() {
        let rsa = |n: usize, e: &str| {
            let n = URL_SAFE_NO_PAD.encode(vec![0xff; n]);
            format!(r#"{{"kty":"RSA","kid":"r","n":"{n}","e":"{e}"}}"#)
        };
        for useless in [
            ec(""),
            ec(r#","kid":"""#),
            ec(&format!(r#","kid":"{}""#, "k".repeat(257))),
            ec(r#","kid":7"#),
            ec(r#","kid":"a","use":"enc""#),
            ec(r#","kid":"a","use":null"#),
            ec(r#","kid":"a","key_ops":["sign"]"#),
            ec(r#","kid":"a","key_ops":"verify""#),
            ec(r#","kid":"a","alg":"RS256""#),
            ec(r#","kid":"a","alg":"HS256""#),
            ec(r#","kid":"a","alg":null"#),
            format!(r#"{{"kty":"EC","crv":"P-521","kid":"a","x":"{X}","y":"{Y}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-384","kid":"a","x":"{X}","y":"{Y}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{}"}}"#, &X[..20]),
            format!(r#"{{"kty":"OKP","crv":"X25519","kid":"a","x":"{X}"}}"#),
            r#"{"kty":"oct","kid":"a","k":"c2VjcmV0"}"#.to_owned(),
            rsa(255, "AQAB"),
            rsa(1025, "AQAB"),
            rsa(256, "Aw"),
            rsa(256, "AAEAAQ"),
            rsa(0, "AQAB"),
        ] {
            let set = set(std::slice::from_ref(&useless)).unwrap();
            assert!(set.is_empty(), "{useless}");
        }
        assert_eq!(set(&[rsa(256, "AQAB")]).unwrap().len(), 1);
    }

    #[test]
    fn sets_that_are_none_or_ambiguous_are_refused() {
        let refused = |bytes: &[u8], field: &str| {
            let error = KeySet::parse(bytes).unwrap_err();
            assert!(matches!(&error, Error::Invalid { field: named, .. } if named == field), "{error}");
        };
        refused(b"", "keys");
        refused(b"{}", "keys");
        refused(br#"{"keys":{}}"#, "keys");
        refused(br#"{"keys":[],"keys":[]}"#, "keys");
        refused(br#"{"keys":["a"]}"#, "keys[0]");
        refused(&vec![b' '; MAX_KEY_SET + 1], "keys");
        let of = |keys: &[String]| format!("{{\"keys\":[{}]}}", keys.join(",")).into_bytes();
        let named = |kid: &str| ec(&format!(r#","kid":"{kid}""#));
        refused(&of(&[named("a"), named("b"), named("a")]), "keys[2]");
        refused(&of(&[named("a"), ec(r#","kid":"b","d":"AAAA""#)]), "keys[1]");
        let many: Vec<_> = (0..=MAX_KEYS).map(|n| named(&n.to_string())).collect();
        refused(&of(&many), "keys");
        assert_eq!(KeySet::parse(&of(&many[1..])).unwrap().len(), MAX_KEYS);
    }
}
