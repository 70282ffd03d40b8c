//! Signed notes (C2SP signed-note): a text, an empty line, and signature lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::signer::{LogSigner, LogVerifier};
use crate::error::Error;

/// Longest note in bytes: room for 16 signatures, which signed-note demands, and more.
pub(super) const MAX_NOTE: usize = 64 * 1024;

/// A text with the signature of a key behind it. The text ends with a newline.
pub(super) fn sign(text: &str, signer: &LogSigner) -> Result<String, Error> {
    Ok(format!("{text}\n{}\n", line(text, signer)?))
}

/// A key's signature line for a text, without a newline.
pub(super) fn line(text: &str, signer: &LogSigner) -> Result<String, Error> {
    let mut signature = signer.verifier().key_id().to_vec();
    signature.extend_from_slice(&signer.sign(text.as_bytes())?);
    Ok(format!("\u{2014} {} {}", signer.verifier().origin(), STANDARD.encode(signature)))
}

/// Checks the signature of a key on a note and gives its text. Signatures of other keys (witnesses) are passed over.
///
/// # Errors
/// What is wrong.
pub(super) fn verify<'a>(note: &'a str, verifier: &LogVerifier) -> Result<&'a str, &'static str> {
    match find(note, verifier)? {
        (text, true) => Ok(text),
        _ => Err("not signed by the log's key"),
    }
}

/// What [`find`] says of a signature that names the key and is not its.
pub(super) const BAD_SIGNATURE: &str = "the log's signature does not verify";

/// The text of a note, and whether a key has signed it.
///
/// # Errors
/// What is wrong, also with a signature that names the key and is not its.
pub(super) fn find<'a>(note: &'a str, verifier: &LogVerifier) -> Result<(&'a str, bool), &'static str> {
    let (text, lines) = lines(note)?;
    let mut signed = false;
    for (name, id, signature) in lines {
        if name == verifier.origin() && id == verifier.key_id() {
            if !verifier.verify(text.as_bytes(), &signature) {
                return Err(BAD_SIGNATURE);
            }
            signed = true;
        }
    }
    Ok((text, signed))
}

/// A signature line: name, key id, and what follows it.
type Line<'a> = (&'a str, [u8; 4], Vec<u8>);

/// The text of a note, and its signature lines. No signature is checked.
pub(super) fn lines(note: &str) -> Result<(&str, Vec<Line<'_>>), &'static str> {
    if note.len() > MAX_NOTE || note.bytes().any(|b| b < 0x20 && b != b'\n') {
        return Err("not a signed note");
    }
    let split = note.rfind("\n\n").ok_or("not a signed note: no empty line")?;
    let (text, signatures) = note.split_at(split + 1);
    let signatures = signatures.strip_prefix('\n').unwrap_or_default();
    let signatures = signatures.strip_suffix('\n').ok_or("the last line is not ended")?;
    let mut lines = Vec::new();
    for line in signatures.split('\n') {
        let (name, blob) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or("a signature line is malformed")?;
        let blob = STANDARD.decode(blob).map_err(|_| "a signature is not base64")?;
        let (id, signature) = blob.split_first_chunk::<4>().ok_or("a signature is too short")?;
        lines.push((name, *id, signature.to_vec()));
    }
    Ok((text, lines))
}

/// The note with the signature lines of one key only.
pub(super) fn only(note: &str, verifier: &LogVerifier) -> Result<String, &'static str> {
    let (text, lines) = lines(note)?;
    let mut out = format!("{text}\n");
    for (name, id, signature) in lines {
        if name == verifier.origin() && id == verifier.key_id() {
            let blob = [&id[..], &signature].concat();
            out.push_str(&format!("\u{2014} {name} {}\n", STANDARD.encode(blob)));
        }
    }
    Ok(out)
}
