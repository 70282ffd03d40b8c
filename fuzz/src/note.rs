//! Signed notes (C2SP signed-note, tlog-checkpoint, tlog-cosignature), made by a second implementation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// A key that signs notes.
pub struct Signer {
    name: &'static str,
    kind: u8,
    key: Ed25519KeyPair,
}

impl Signer {
    /// Of a log, a policy signer or a prover.
    pub fn new(name: &'static str, seed: u8) -> Self {
        Self { name, kind: 1, key: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    /// Of a witness.
    pub fn witness(name: &'static str, seed: u8) -> Self {
        Self { kind: 4, ..Self::new(name, seed) }
    }

    fn id(&self) -> [u8; 4] {
        let named = [self.name.as_bytes(), &[b'\n', self.kind], self.key.public_key().as_ref()].concat();
        digest(&SHA256, &named).as_ref()[..4].try_into().unwrap()
    }

    /// The verifier key.
    pub fn vkey(&self) -> String {
        let key = [&[self.kind][..], self.key.public_key().as_ref()].concat();
        format!("{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id()), STANDARD.encode(key))
    }

    /// The signature line of a text, with its newline.
    pub fn line(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes());
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode([&self.id()[..], signature.as_ref()].concat()))
    }

    /// The cosignature line of a checkpoint's text, with its newline.
    pub fn cosignature(&self, text: &str, seconds: u64) -> String {
        let signature = self.key.sign(format!("cosignature/v1\ntime {seconds}\n{text}").as_bytes());
        let blob = [&self.id()[..], &seconds.to_be_bytes(), signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(blob))
    }

    /// The signed note.
    pub fn note(&self, text: &str) -> String {
        format!("{text}\n{}", self.line(text))
    }

    /// The text of a checkpoint of the log that has this key.
    pub fn checkpoint(&self, size: u64, root: &[u8; 32]) -> String {
        format!("{}\n{size}\n{}\n", self.name, STANDARD.encode(root))
    }
}
