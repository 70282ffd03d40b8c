//! An issuer of tokens with its key in memory, for the demo and for tests. A real one is an identity provider.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::vault::new_request_id;

/// The name of its only key.
const KEY_ID: &str = "one";

/// Signs tokens (RFC 9068) for one audience.
pub struct DevIssuer {
    issuer: String,
    audience: String,
    key: KeyPair,
}

impl std::fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevIssuer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

fn failed<E>(_: E) -> Error {
    Error::unavailable(Dependency::Entropy, "a token could not be made")
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl DevIssuer {
    /// An issuer with a fresh Ed25519 key.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without entropy.
    pub fn new(issuer: &str, audience: &str) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
        Ok(Self { issuer: issuer.to_owned(), audience: audience.to_owned(), key })
    }

    /// Its key set (RFC 7517), as `jwks_file` takes it.
    pub fn jwks(&self) -> String {
        let x = part(self.key.der_bytes());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": KEY_ID, "x": x}]}).to_string()
    }

    /// The table of a configuration for it, with its key set in a file beside the configuration.
    pub fn table(&self, section: &str, jwks_file: &str) -> String {
        let Self { issuer, audience, .. } = self;
        format!("\n[[{section}]]\nissuer = \"{issuer}\"\naudiences = [\"{audience}\"]\njwks_file = \"{jwks_file}\"\n")
    }

    /// The claims of somebody who has just signed in with a second factor, for five minutes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without entropy.
    pub fn claims(&self, subject: &str) -> Result<Value, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(failed)?.as_secs();
        Ok(json!({
            "iss": self.issuer, "aud": self.audience, "sub": subject, "client_id": "console",
            "jti": new_request_id()?.to_string(), "iat": now, "exp": now + 300, "auth_time": now, "amr": ["pwd", "mfa"],
        }))
    }

    /// Signs claims, whatever they say.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if they cannot be signed.
    pub fn sign(&self, claims: &Value) -> Result<String, Error> {
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": KEY_ID});
        let signed = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes()).map_err(failed)?;
        Ok(format!("{signed}.{}", part(signature)))
    }

    /// A token for somebody who has just signed in with a second factor.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it cannot be made.
    pub fn token(&self, subject: &str) -> Result<String, Error> {
        self.sign(&self.claims(subject)?)
    }
}
