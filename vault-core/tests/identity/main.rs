//! From certificate to identity: every rule of `docs/identity.md`, each with a certificate that breaks only it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod chain;
mod leaf;
#[path = "../common/pki.rs"]
mod pki;
mod planes;
mod revocation;

use std::sync::LazyLock;

use pki::{Ca, Leaf, NOW_MILLIS};
use rustls_pki_types::CertificateDer;
use vault_core::principal::{IdentityError, Operator, OperatorBundle, TrustDomain, Workload, WorkloadBundle};
use vault_core::time::Timestamp;

const NOW: Timestamp = Timestamp(NOW_MILLIS);
const BILLING: &str = "spiffe://prod.example/ns/shop/sa/billing";
const ALICE: &str = "spiffe://operators.example/operator/alice";

/// One root and one intermediate of the workloads' trust domain.
static WORKLOADS: LazyLock<(Ca, Ca)> = LazyLock::new(|| {
    let root = Ca::root("prod.example");
    let intermediate = root.intermediate();
    (root, intermediate)
});

static OPERATORS: LazyLock<Ca> = LazyLock::new(|| Ca::root("operators.example"));

fn workload_bundle(roots: &[&Ca]) -> WorkloadBundle {
    WorkloadBundle::new(TrustDomain::parse("prod.example").unwrap(), &certificates(roots)).unwrap()
}

fn operator_bundle(roots: &[&Ca]) -> OperatorBundle {
    OperatorBundle::new(TrustDomain::parse("operators.example").unwrap(), &certificates(roots)).unwrap()
}

fn certificates(cas: &[&Ca]) -> Vec<CertificateDer<'static>> {
    cas.iter().map(|ca| ca.certificate.clone()).collect()
}

/// The leaf as a workload under the usual root.
fn workload(leaf: &Leaf) -> Result<Workload, IdentityError> {
    Workload::verify(&leaf.chain, &workload_bundle(&[&WORKLOADS.0]), NOW)
}

/// The leaf as an operator under the usual root.
fn operator(leaf: &Leaf) -> Result<Operator, IdentityError> {
    Operator::verify(&leaf.chain, &operator_bundle(&[&OPERATORS]), NOW)
}

/// One DER value; contents up to 65,535 bytes.
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    let header = match contents.len() {
        0..=0x7f => vec![tag, length[1]],
        0x80..=0xff => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [header.as_slice(), contents].concat()
}
