//! What a gateway denies to others of its user, and to itself.
#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

mod attack;
mod confined;
mod served;
mod serving;

#[cfg(feature = "pkcs11")]
#[path = "../../../vault-core/tests/common/softhsm.rs"]
mod softhsm;

/// Says that a test could not be made here; where everything is required, that is a failure.
fn skipped(test: &str, reason: &str) {
    assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none(), "required here: {reason}");
    println!("SKIPPED {test}: {reason}");
}
