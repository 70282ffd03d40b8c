//! Who is calling: [`Workload`] and [`Operator`], two unrelated types that only the verification of a certificate chain
//! makes.

use crate::time::Timestamp;

macro_rules! principal {
    ($(#[$doc:meta])* $name:ident, $example:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            spiffe_id: String,
            not_after: Timestamp,
        }

        impl $name {
            #[doc = concat!("The SPIFFE ID, for example `", $example, "`.")]
            pub fn spiffe_id(&self) -> &str {
                &self.spiffe_id
            }

            /// The first instant at which the certificate no longer holds.
            pub const fn not_after(&self) -> Timestamp {
                self.not_after
            }

            /// Whether the certificate is valid at `now`.
            pub fn valid_at(&self, now: Timestamp) -> bool {
                now < self.not_after
            }

            /// A principal that no certificate proves, valid until 2100-01-01.
            #[cfg(test)]
            pub(crate) fn for_test(spiffe_id: &str) -> Self {
                Self { spiffe_id: spiffe_id.to_owned(), not_after: Timestamp(4_102_444_800_000) }
            }
        }
    };
}

principal!(
    /// A service, proven by an X.509-SVID of the workload trust domain.
    Workload,
    "spiffe://prod.example/ns/shop/sa/billing"
);
principal!(
    /// A person who operates the vault, proven by a certificate of the operator trust domain.
    Operator,
    "spiffe://operators.example/operator/alice"
);
