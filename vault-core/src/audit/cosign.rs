//! Cosignatures: C2SP tlog-cosignature with Ed25519 (type 04). A witness says with one that, at a time, a checkpoint was
//! the largest it had seen of its log, and consistent with all before.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::sha256;
use super::note;
use super::signer::{LogSigner, LogVerifier};
use crate::error::Error;
use crate::fs::Fs;
use crate::time::Timestamp;

/// The signature type byte of timestamped Ed25519 cosignatures.
const COSIGNATURE_TYPE: u8 = 4;

fn message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// The public half of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessVerifier(LogVerifier);

impl WitnessVerifier {
    /// Reads a verifier key of type 04, with or without the newline at its end.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `vkey`.
    pub fn parse(vkey: &str) -> Result<Self, Error> {
        let refuse = || Error::invalid("vkey", "must be name+hash+base64 of an Ed25519 witness key (type 04)");
        let vkey = vkey.strip_suffix('\n').unwrap_or(vkey);
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let bytes = STANDARD.decode(key).map_err(|_| refuse())?;
        let Some((&COSIGNATURE_TYPE, public)) = bytes.split_first() else { return Err(refuse()) };
        let witness = Self(LogVerifier::new(name, public)?);
        if witness.vkey() == vkey { Ok(witness) } else { Err(refuse()) }
    }

    /// The verifier key's text, without a newline.
    pub fn vkey(&self) -> String {
        let mut key = vec![COSIGNATURE_TYPE];
        key.extend_from_slice(self.0.public());
        format!("{}+{:08x}+{}", self.name(), u32::from_be_bytes(self.key_id()), STANDARD.encode(key))
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        self.0.origin()
    }

    /// SHA-256(name ‖ 0A ‖ 04 ‖ public key), the first four bytes.
    fn key_id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.name().as_bytes(), &[b'\n', COSIGNATURE_TYPE], self.0.public()]);
        [a, b, c, d]
    }

    /// When this witness cosigned a note, the last time if it did more than once; `None` if it did not.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is no signed note, or a cosignature names this witness and is not its.
    pub fn cosigned(&self, note: &str) -> Result<Option<Timestamp>, Error> {
        let refuse = |why| Error::corrupt("signed note", why);
        let (text, lines) = note::lines(note).map_err(refuse)?;
        let mut last = None;
        for (name, id, signature) in lines {
            if name != self.name() || id != self.key_id() {
                continue;
            }
            let (time, signature) =
                signature.split_first_chunk::<8>().ok_or_else(|| refuse("the witness's cosignature is too short"))?;
            let seconds = u64::from_be_bytes(*time);
            if !self.0.verify(message(text, seconds).as_bytes(), signature) {
                return Err(refuse("the witness's cosignature does not verify"));
            }
            last = last.max(Some(Timestamp(seconds.saturating_mul(1000))));
        }
        Ok(last)
    }
}

/// The secret half of a witness, in locked memory. Its key signs nothing else.
#[derive(Debug)]
pub struct WitnessSigner {
    key: LogSigner,
    verifier: WitnessVerifier,
}

impl WitnessSigner {
    /// Makes a key and keeps it in a new file, as [`LogSigner::create`].
    ///
    /// # Errors
    /// As there.
    pub fn create(fs: &dyn Fs, path: &Path, name: &str) -> Result<Self, Error> {
        LogSigner::create(fs, path, name).map(Self::new)
    }

    /// Loads the key from its file, as [`LogSigner::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load(fs: &dyn Fs, path: &Path, name: &str) -> Result<Self, Error> {
        LogSigner::load(fs, path, name).map(Self::new)
    }

    fn new(key: LogSigner) -> Self {
        let verifier = WitnessVerifier(key.verifier().clone());
        Self { key, verifier }
    }

    /// The public half.
    pub const fn verifier(&self) -> &WitnessVerifier {
        &self.verifier
    }

    /// The cosignature line of a checkpoint's text, with its newline.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without the key.
    pub(super) fn cosign(&self, text: &str, now: Timestamp) -> Result<String, Error> {
        let seconds = now.secs();
        let mut blob = self.verifier.key_id().to_vec();
        blob.extend_from_slice(&seconds.to_be_bytes());
        blob.extend_from_slice(&self.key.sign(message(text, seconds).as_bytes())?);
        Ok(format!("\u{2014} {} {}\n", self.verifier.name(), STANDARD.encode(blob)))
    }
}
