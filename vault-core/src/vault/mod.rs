//! The façade.

/// The vault.
#[derive(Debug)]
pub struct Vault;
