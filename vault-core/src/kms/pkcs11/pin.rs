//! The file with the PIN.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::Trouble;

/// Longest PIN in bytes.
const MAX_PIN: u64 = 255;

/// What tells one state of the file from another, without telling the PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    changed: (i64, i64),
    len: u64,
}

/// Reads the PIN: the file's text without one newline at its end.
pub(super) fn read(path: &Path) -> Result<(AuthPin, Stamp), Trouble> {
    let wrong = |why| Trouble::Wrong("pin_file", why);
    let mut file = File::open(path).map_err(|_| wrong("cannot be opened"))?;
    let meta = file.metadata().map_err(|_| wrong("cannot be read"))?;
    if !meta.is_file() {
        return Err(wrong("is not a file"));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(wrong("others may read it; its mode must be 0600"));
    }
    if meta.len() > MAX_PIN + 1 {
        return Err(wrong("is longer than a PIN: 255 bytes"));
    }
    // Room for all of it, so that no copy is left behind by growing; one byte more shows a file that grew.
    let mut bytes = Zeroizing::new([0; MAX_PIN as usize + 2]);
    let mut len = 0;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(|_| wrong("cannot be read"))? {
            0 => break,
            n => len += n,
        }
    }
    let text = bytes.get(..len).unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.len() as u64 > MAX_PIN {
        return Err(wrong("is longer than a PIN: 255 bytes"));
    }
    if text.is_empty() {
        return Err(wrong("is empty"));
    }
    let pin = std::str::from_utf8(text).map_err(|_| wrong("is not text"))?;
    // One allocation of exactly its size, wiped when it is dropped.
    let pin = AuthPin::new(pin.into());
    let changed = (meta.ctime(), meta.ctime_nsec());
    Ok((pin, Stamp { inode: meta.ino(), changed, len: meta.len() }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_small_private_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        let write = |text: &[u8], mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map(|(_, stamp)| stamp)
        };
        let why = |result: Result<Stamp, Trouble>| match result {
            Err(Trouble::Wrong("pin_file", why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(read(&path).map(|(_, stamp)| stamp)).contains("cannot be opened"));
        let first = write(b"1234\n", 0o600).unwrap();
        assert_eq!(first, read(&path).unwrap().1);
        assert_ne!(first, write(b"12345", 0o600).unwrap(), "another file");
        assert!(write(&[b'1'; 255], 0o600).is_ok());
        for mode in [0o640, 0o604, 0o644, 0o620] {
            assert!(why(write(b"1234", mode)).contains("0600"), "{mode:o}");
        }
        for (text, part) in
            [(&[b'1'; 256][..], "255"), (&[b'1'; 300], "255"), (b"", "empty"), (b"\n", "empty"), (b"\xff", "text")]
        {
            assert!(why(write(text, 0o600)).contains(part));
        }
        assert!(why(read(dir.path()).map(|(_, stamp)| stamp)).contains("not a file"));
    }
}
