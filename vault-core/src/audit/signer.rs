//! Who signs checkpoints, and who checks them: C2SP signed-note with Ed25519 (RFC 8032). Keys of the same kind sign policy
//! bundles.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::merkle::sha256;
use crate::error::{Dependency, Error};
use crate::fs::{Fs, Open};
use crate::secret::{Locked, scrub_stack};

/// The signature type byte of plain Ed25519 in C2SP signed-note.
const ED25519_TYPE: u8 = 1;
const MAX_ORIGIN: usize = 200;
const MAX_KEY_FILE: u64 = 4096;

fn check_origin(origin: &str) -> Result<(), Error> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/' | b'-' | b'_' | b':');
    if (1..=MAX_ORIGIN).contains(&origin.len()) && origin.bytes().all(is_good) {
        Ok(())
    } else {
        Err(Error::invalid("origin", "must be 1 to 200 of the characters a-z A-Z 0-9 . / - _ :"))
    }
}

/// The public half: checks notes of one log. Its text form is the verifier key of signed-note,
/// `name+hash+base64(type ‖ public key)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerifier {
    origin: String,
    public: [u8; 32],
}

impl LogVerifier {
    pub(super) fn new(origin: &str, public: &[u8]) -> Result<Self, Error> {
        check_origin(origin)?;
        let public = public.try_into().map_err(|_| Error::invalid("vkey", "an Ed25519 public key has 32 bytes"))?;
        Ok(Self { origin: origin.to_owned(), public })
    }

    /// Reads a verifier key, with or without the newline at its end.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `vkey`, also if the hash in it is not the key's.
    pub fn parse(vkey: &str) -> Result<Self, Error> {
        let refuse = || Error::invalid("vkey", "must be name+hash+base64 of an Ed25519 key, as C2SP signed-note says");
        let vkey = vkey.strip_suffix('\n').unwrap_or(vkey);
        let mut parts = vkey.splitn(3, '+');
        let (Some(origin), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let bytes = STANDARD.decode(key).map_err(|_| refuse())?;
        let Some((&ED25519_TYPE, public)) = bytes.split_first() else { return Err(refuse()) };
        let verifier = Self::new(origin, public)?;
        if verifier.vkey() == vkey && hash.len() == 8 { Ok(verifier) } else { Err(refuse()) }
    }

    /// The verifier key's text, without a newline.
    pub fn vkey(&self) -> String {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        format!("{}+{:08x}+{}", self.origin, u32::from_be_bytes(self.key_id()), STANDARD.encode(key))
    }

    /// Checks this key's signature on a signed note and gives the note's text.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming what is wrong.
    pub fn note<'a>(&self, note: &'a str) -> Result<&'a str, Error> {
        super::note::verify(note, self).map_err(|why| Error::corrupt("signed note", why))
    }

    /// Whether this key has signed a note; signatures of other keys are passed over.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is no signed note, or a signature names this key and is not its.
    pub fn has_signed(&self, note: &str) -> Result<bool, Error> {
        let found = super::note::find(note, self).map_err(|why| Error::corrupt("signed note", why))?;
        Ok(found.1)
    }

    /// Whether another verifier, whatever its name, is for the same key.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.public == other.public
    }

    /// The key's id, eight hexadecimal digits, as its text has it behind the name.
    pub fn short(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.key_id()))
    }

    /// The log's name, which is also its key's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// SHA-256(name ‖ 0A ‖ 01 ‖ public key), the first four bytes.
    pub(super) fn key_id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.origin.as_bytes(), &[b'\n', ED25519_TYPE], &self.public]);
        [a, b, c, d]
    }

    pub(super) fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text, signature).is_ok()
    }
}

/// The secret half, in locked memory.
pub struct LogSigner {
    key: Locked<Ed25519KeyPair>,
    verifier: LogVerifier,
}

impl std::fmt::Debug for LogSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSigner").field("origin", &self.verifier.origin).finish_non_exhaustive()
    }
}

const NO_KEY: Error = Error::unavailable(Dependency::Audit, "the signing key cannot be read or written");

impl LogSigner {
    /// Makes a key and keeps it in a new file (PKCS#8, mode 0600), durably.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if there is a file; [`Error::Invalid`] for the origin; [`Error::Unavailable`] without
    /// entropy, locked memory or a working disk.
    pub fn create(fs: &dyn Fs, path: &Path, origin: &str) -> Result<Self, Error> {
        check_origin(origin)?;
        if fs.exists(path) {
            return Err(Error::AlreadyExists("signing key's file"));
        }
        let made = generate(fs, path);
        scrub_stack();
        made?;
        Self::load(fs, path, origin)
    }

    /// Loads the key from its file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file is no Ed25519 key in PKCS#8 version 2; [`Error::FailedPrecondition`] if others may
    /// read it; [`Error::Invalid`] for the origin;
    /// [`Error::Unavailable`] if the file cannot be read or there is no locked memory.
    pub fn load(fs: &dyn Fs, path: &Path, origin: &str) -> Result<Self, Error> {
        check_origin(origin)?;
        let key = read_key(fs, path);
        scrub_stack();
        let key = key?;
        let verifier = LogVerifier::new(origin, key.get()?.public_key().as_ref())?;
        Ok(Self { key, verifier })
    }

    /// [`Self::load`], or [`Self::create`] where there is no file.
    ///
    /// # Errors
    /// As they do.
    pub fn load_or_create(fs: &dyn Fs, path: &Path, origin: &str) -> Result<Self, Error> {
        if fs.exists(path) { Self::load(fs, path, origin) } else { Self::create(fs, path, origin) }
    }

    /// The public half.
    pub const fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// A text as a note signed with this key alone. The key of a log signs its notes through the log.
    ///
    /// # Errors
    /// As [`Self::signature_line`].
    pub fn note(&self, text: &str) -> Result<String, Error> {
        Ok(format!("{text}\n{}\n", self.signature_line(text)?))
    }

    /// This key's signature line for the text of a note, without a newline: for notes that several keys sign.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `text` if it does not end with a newline, or its first line is this key's name: that is
    /// a checkpoint's. [`Error::Unavailable`] without the key.
    pub fn signature_line(&self, text: &str) -> Result<String, Error> {
        if text.split('\n').next() == Some(self.verifier.origin()) {
            return Err(Error::invalid("text", "its first line is that of a checkpoint"));
        }
        if !text.ends_with('\n') {
            return Err(Error::invalid("text", "must end with a newline"));
        }
        super::note::line(text, self)
    }

    pub(super) fn sign(&self, text: &[u8]) -> Result<[u8; 64], Error> {
        let signature = sign(self.key.get()?, text);
        scrub_stack();
        signature
    }
}

// The functions below leave key material on their stack, which their callers then scrub.

#[inline(never)]
fn generate(fs: &dyn Fs, path: &Path) -> Result<(), Error> {
    let no_entropy = |_| Error::unavailable(Dependency::Entropy, "the operating system gave no random bytes");
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(no_entropy)?;
    fs.replace(path, pkcs8.as_ref()).map_err(|_| NO_KEY)
}

#[inline(never)]
fn read_key(fs: &dyn Fs, path: &Path) -> Result<Locked<Ed25519KeyPair>, Error> {
    let mode = fs.open(path, Open::Read).and_then(|file| file.mode()).map_err(|_| NO_KEY)?;
    if mode & 0o077 != 0 {
        return Err(Error::FailedPrecondition("others may read the signing key; set its file's mode to 0600"));
    }
    let bytes = Zeroizing::new(fs.read(path, MAX_KEY_FILE).map_err(|_| NO_KEY)?);
    let key = Ed25519KeyPair::from_pkcs8(&bytes)
        .map_err(|_| Error::corrupt("signing key", "not an Ed25519 key in PKCS#8 version 2"))?;
    Locked::new(key)
}

#[inline(never)]
fn sign(key: &Ed25519KeyPair, text: &[u8]) -> Result<[u8; 64], Error> {
    key.sign(text).as_ref().try_into().map_err(|_| NO_KEY)
}
