//! Whether the running executable is one that was released: its SHA-256 is in a list of digests, and the list is signed
//! in the format of minisign (<https://jedisct1.github.io/minisign/>, prehashed signatures only).
//!
//! An executable that was altered can also say that it was not. This finds the wrong file, the damaged file and the
//! half-finished upgrade; who wants to know of the malicious one asks `minisign` and `sha256sum` before it is run
//! (docs/release.md).

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use minisign_verify::{PublicKey, Signature};
use ring::digest::{Context, SHA256};
use vault_core::id::Fingerprint;

use crate::config::cannot_read;

/// The version that this was built as.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The executable's name in the list.
const NAME: &str = "vault-grpc";
/// How the signature's comment begins, which is signed too: the project's name and the version.
const PROJECT: &str = "blindvault";
/// Longest list, signature and key file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Why the executable does not count as released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReleased {
    /// The key is not a public key of minisign.
    Key,
    /// The signature's file is not named as its list with `.minisig` behind it.
    Name,
    /// The list or the signature cannot be read, or is longer than 64 KiB.
    Unreadable(&'static str),
    /// The signature is not one in minisign's format.
    Malformed,
    /// The signature is not that key's over that list.
    Signature,
    /// The signed comment is for something else than this version.
    OtherVersion,
    /// The list does not name the executable exactly once, or is no list.
    NotListed,
    /// The executable's digest is another than the list's.
    OtherExecutable,
}

impl fmt::Display for NotReleased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the release key is not a public key as minisign prints it"),
            Self::Name => f.write_str("the signature must lie beside its list and be named LIST.minisig"),
            Self::Unreadable(what) => write!(f, "{what} cannot be read, or is longer than 64 KiB"),
            Self::Malformed => f.write_str("the signature is not one of minisign"),
            Self::Signature => f.write_str("the signature is not the release key's over this list"),
            Self::OtherVersion => f.write_str("the signature is for another version than this executable's"),
            Self::NotListed => f.write_str("the list must name vault-grpc once, as sha256sum writes it"),
            Self::OtherExecutable => f.write_str("this executable is not the one that was released"),
        }
    }
}

impl std::error::Error for NotReleased {}

/// The public key that releases are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseKey {
    key: PublicKey,
    /// As minisign prints it.
    line: String,
}

impl fmt::Display for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl ReleaseKey {
    /// A key from the one line that minisign prints, or from the text of its `.pub` file.
    ///
    /// # Errors
    /// [`NotReleased::Key`].
    pub fn parse(text: &str) -> Result<Self, NotReleased> {
        let text = text.trim();
        let key = if text.contains('\n') { PublicKey::decode(text) } else { PublicKey::from_base64(text) };
        // The comment above it says nothing.
        let line = text.lines().last().unwrap_or_default().trim().to_owned();
        key.map(|key| Self { key, line }).map_err(|_| NotReleased::Key)
    }

    /// A key, given as its text or as a file that holds it.
    ///
    /// # Errors
    /// [`NotReleased::Key`].
    pub fn parse_or_read(given: &str) -> Result<Self, NotReleased> {
        Self::parse(given).or_else(|_| Self::parse(&read(Path::new(given)).ok_or(NotReleased::Key)?))
    }
}

/// The digest of the running executable, read from the file that the process was started from, also when another has
/// taken its name since.
///
/// # Errors
/// Why it cannot be read, by kind only.
pub fn own_digest() -> Result<Fingerprint, String> {
    File::open("/proc/self/exe").and_then(digest).map_err(|error| cannot_read(&error))
}

fn digest(mut file: File) -> io::Result<Fingerprint> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(buffer.get(..read).unwrap_or_default());
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Ok(Fingerprint(out))
}

/// Checks an executable's digest against a signed list, whose path is the signature's without `.minisig`.
///
/// # Errors
/// [`NotReleased`]: the first thing that does not hold.
pub fn verify(signature: &Path, key: &ReleaseKey, executable: Fingerprint) -> Result<(), NotReleased> {
    if signature.extension() != Some(OsStr::new("minisig")) {
        return Err(NotReleased::Name);
    }
    let list = read(&signature.with_extension("")).ok_or(NotReleased::Unreadable("the list of digests"))?;
    let signature = read(signature).ok_or(NotReleased::Unreadable("the signature"))?;
    verify_texts(&list, &signature, key, executable, VERSION)
}

fn verify_texts(
    list: &str,
    signature: &str,
    key: &ReleaseKey,
    executable: Fingerprint,
    version: &str,
) -> Result<(), NotReleased> {
    let signature = Signature::decode(signature).map_err(|_| NotReleased::Malformed)?;
    key.key.verify(list.as_bytes(), &signature, false).map_err(|_| NotReleased::Signature)?;
    let mut comment = signature.trusted_comment().split(' ');
    if comment.next() != Some(PROJECT) || comment.next() != Some(version) {
        return Err(NotReleased::OtherVersion);
    }
    if listed(list)? == executable.to_string() { Ok(()) } else { Err(NotReleased::OtherExecutable) }
}

/// The executable's digest in a list: lines of 64 hexadecimal digits, two spaces, a name.
fn listed(list: &str) -> Result<&str, NotReleased> {
    let mut found = None;
    for line in list.lines() {
        let (digest, name) = line.split_once("  ").ok_or(NotReleased::NotListed)?;
        if name == NAME && found.replace(digest).is_some() {
            return Err(NotReleased::NotListed);
        }
    }
    found.ok_or(NotReleased::NotListed)
}

fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_FILE + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= MAX_FILE).then_some(text)
}

#[cfg(test)]
mod tests;
