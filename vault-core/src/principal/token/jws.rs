//! A token's outer form and signature: JSON Web Signature in compact serialization (RFC 7515 section 7.1), with the
//! algorithms of RFC 7518 and RFC 8037 that have a public key, by `ring`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use zeroize::Zeroizing;

use super::error::TokenError;
use super::json::Map;
use super::jwk::Material;

/// A signature algorithm that an issuer may be allowed. There is no other: not `none`, and none with a shared key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// ECDSA on P-384 with SHA-384 (RFC 7518 section 3.4).
    Es384,
    /// Ed25519 (RFC 8037 section 3.1).
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256,
    /// RSASSA-PSS with SHA-256 (RFC 7518 section 3.5).
    Ps256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Es256, Self::Es384, Self::EdDsa, Self::Rs256, Self::Ps256];

    /// As headers and keys name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// By its name, by exact bytes.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A token taken apart. Nothing of it is proven yet.
pub(super) struct Compact<'a> {
    pub(super) header: Map,
    pub(super) claims: Map,
    /// What is signed: the first two parts with the dot between them.
    signed: &'a str,
    signature: Vec<u8>,
}

fn base64url(part: &str) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).map_err(|_| TokenError::Malformed)
}

impl<'a> Compact<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        // Of a token with more dots, base64url refuses the part that has one in it.
        let (header, claims, signature) = (base64url(header)?, base64url(claims)?, base64url(signature)?);
        let object = |bytes: &[u8]| Map::parse(bytes).ok_or(TokenError::Json);
        Ok(Self { header: object(&header)?, claims: object(&claims)?, signed, signature: signature.to_vec() })
    }

    /// Checks the signature with exactly this key.
    pub(super) fn verify(&self, algorithm: Algorithm, key: &Material) -> Result<(), TokenError> {
        let (message, signature) = (self.signed.as_bytes(), self.signature.as_slice());
        let with = |by: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(by, key).verify(message, signature).map_err(|_| TokenError::Signature)
        };
        let rsa = |by: &'static RsaParameters, n: &[u8], e: &[u8]| {
            RsaPublicKeyComponents { n, e }.verify(by, message, signature).map_err(|_| TokenError::Signature)
        };
        match (algorithm, key) {
            (Algorithm::Es256, Material::P256(point)) => with(&ECDSA_P256_SHA256_FIXED, point),
            (Algorithm::Es384, Material::P384(point)) => with(&ECDSA_P384_SHA384_FIXED, point),
            (Algorithm::EdDsa, Material::Ed25519(point)) => with(&ED25519, point),
            (Algorithm::Rs256, Material::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
            (Algorithm::Ps256, Material::Rsa { n, e }) => rsa(&RSA_PSS_2048_8192_SHA256, n, e),
            _ => Err(TokenError::KeyMismatch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::jwk::KeySet;
    use super::*;

    /// Key and token of RFC 7515 appendix A.3 and of RFC 8037 appendix A.4, whose payload is no JSON.
    const EC: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a3",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const OKP: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a4",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[test]
    fn the_examples_of_the_rfcs_verify_and_no_byte_of_them_can_change() {
        let set = KeySet::parse(EC.as_bytes()).unwrap();
        let key = &set.find("a3").unwrap().material;
        assert_eq!(Compact::parse(ES256).unwrap().verify(Algorithm::Es256, key), Ok(()));
        assert_eq!(Compact::parse(ES256).unwrap().verify(Algorithm::EdDsa, key), Err(TokenError::KeyMismatch));
        for at in 0..ES256.len() {
            let mut other = ES256.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            let verified = Compact::parse(&other).and_then(|token| token.verify(Algorithm::Es256, key));
            assert!(verified.is_err(), "byte {at}");
        }
        let set = KeySet::parse(OKP.as_bytes()).unwrap();
        let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let empty = || Map::parse(b"{}").unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let token = Compact { header: empty(), claims: empty(), signed, signature };
        assert_eq!(token.verify(Algorithm::EdDsa, &set.find("a4").unwrap().material), Ok(()));
    }
}
