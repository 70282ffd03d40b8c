//! Principals, and an issuer of tokens.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use vault_core::principal::{Binding, IssuerSettings, IssuerTenants, Issuers, KeySet, Operator, Workload};

use crate::fixture::People;

/// 2026-06-01T00:00:00Z.
pub const NOW: u64 = 1_780_272_000;
/// The workload that has every role on `acme` and `globex`.
pub const BILLING: &str = "/ns/shop/sa/billing";

static PEOPLE: LazyLock<People> = LazyLock::new(People::new);

/// The issuer's key.
pub static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

/// A workload that presents a token.
pub static WORKLOAD: LazyLock<Workload> = LazyLock::new(|| workload("/shop"));

/// A workload of `prod.example`.
pub fn workload(path: &str) -> Workload {
    PEOPLE.workload(path)
}

/// An operator.
pub fn operator(name: &str) -> Operator {
    PEOPLE.operator(name)
}

/// The public half of [`KEY`], as keys of a JSON Web Key Set have it.
pub fn public() -> String {
    URL_SAFE_NO_PAD.encode(KEY.public_key())
}

/// The issuer, with these keys.
pub fn issuers(keys: KeySet) -> Issuers {
    let settings = IssuerSettings::new("https://id.example", "vault", IssuerTenants::Any);
    let issuers = Issuers::new(vec![IssuerSettings { binding: Binding::IfPresent, ..settings }]).unwrap();
    issuers.put_keys(0, keys, None).unwrap();
    issuers
}

/// A token, signed with [`KEY`].
pub fn sign(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(KEY.sign(signed.as_bytes())))
}
