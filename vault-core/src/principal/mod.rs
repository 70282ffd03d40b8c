//! Who is calling: [`Workload`] and [`Operator`], two unrelated types that only the verification of a certificate chain
//! makes.

/// A service, proven by an X.509-SVID of the workload trust domain.
#[derive(Debug)]
pub struct Workload {
    spiffe_id: String,
}

impl Workload {
    /// The SPIFFE ID, for example `spiffe://prod.example/ns/shop/sa/billing`.
    pub fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }
}

/// A person who operates the vault, proven by a certificate of the operator trust domain.
#[derive(Debug)]
pub struct Operator {
    spiffe_id: String,
}

impl Operator {
    /// The SPIFFE ID, for example `spiffe://operators.example/operator/alice`.
    pub fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }
}
