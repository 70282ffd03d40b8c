//! Files of a release: their digests, and whether two builds of them are the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ring::digest::{SHA256, digest};

type Files = BTreeMap<String, Vec<u8>>;

fn files(dir: &Path) -> Result<Files, String> {
    let at = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut found = Files::new();
    for entry in fs::read_dir(dir).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry.file_name().into_string().map_err(|_| "a file's name is not UTF-8".to_owned())?;
        found.insert(name, fs::read(entry.path()).map_err(at)?);
    }
    Ok(found)
}

/// The first thing in which two folders of files differ: a name, or a byte of a file; `None` if there is none.
pub(super) fn first_difference(one: &Path, other: &Path) -> Result<Option<String>, String> {
    let (one, other) = (files(one)?, files(other)?);
    if one.is_empty() {
        return Err("there is nothing to compare".into());
    }
    for (name, bytes) in &one {
        let Some(others) = other.get(name) else {
            return Ok(Some(format!("{name} is in one of them")));
        };
        if let Some(at) = bytes.iter().zip(others).position(|(a, b)| a != b) {
            return Ok(Some(format!("{name} at byte {at}")));
        }
        if bytes.len() != others.len() {
            return Ok(Some(format!("{name} has {} and {} bytes", bytes.len(), others.len())));
        }
    }
    let only = other.keys().find(|name| !one.contains_key(*name));
    Ok(only.map(|name| format!("{name} is in one of them")))
}

/// A line for each file, in the order of their names, as `sha256sum` writes and checks them.
pub(super) fn digests(dir: &Path) -> Result<String, String> {
    let mut out = String::new();
    for (name, bytes) in files(dir)? {
        for byte in digest(&SHA256, &bytes).as_ref() {
            // Writing to a string does not fail.
            let _ = write!(out, "{byte:02x}");
        }
        let _ = writeln!(out, "  {name}");
    }
    Ok(out)
}

/// The first of these names that is somewhere in the bytes.
pub(super) fn names_of_the_machine<'a>(bytes: &[u8], names: &'a [String]) -> Option<&'a str> {
    names.iter().map(String::as_str).find(|name| bytes.windows(name.len().max(1)).any(|part| part == name.as_bytes()))
}

#[cfg(test)]
mod tests {

    use std::process::Command;

    use super::*;

    fn write(dir: &Path, contents: &[(&str, &[u8])]) {
        for (name, bytes) in contents {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }

    fn compared(one: &[(&str, &[u8])], other: &[(&str, &[u8])]) -> Result<Option<String>, String> {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(a.path(), one);
        write(b.path(), other);
        first_difference(a.path(), b.path())
    }

    #[test]
    fn the_same_files_do_not_differ() {
        let files: &[(&str, &[u8])] = &[("a", b"12345"), ("b", b"")];
        assert_eq!(compared(files, files), Ok(None));
    }

    #[test]
    fn every_difference_is_found_and_named() {
        let good: &[(&str, &[u8])] = &[("a", b"12345"), ("b", b"x")];
        let difference = |other: &[(&str, &[u8])]| compared(good, other).unwrap().unwrap();
        for at in 0..5 {
            let mut bytes = *b"12345";
            bytes[at] ^= 0x80;
            assert_eq!(difference(&[("a", &bytes), ("b", b"x")]), format!("a at byte {at}"));
        }
        assert_eq!(difference(&[("a", b"123456"), ("b", b"x")]), "a has 5 and 6 bytes");
        assert_eq!(difference(&[("a", b"1234"), ("b", b"x")]), "a has 5 and 4 bytes");
        assert_eq!(difference(&[("a", b"12345"), ("c", b"x")]), "b is in one of them");
        assert_eq!(difference(&[("a", b"12345"), ("b", b"x"), ("c", b"")]), "c is in one of them");
        // Nothing is not the same as nothing: a build that made no file is no build.
        assert!(compared(&[], &[]).is_err());
    }

    #[test]
    fn digests_are_what_sha256sum_checks() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("b", b"abc"), ("a", b"")]);
        let list = digests(dir.path()).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(list, format!("{empty}  a\n{abc}  b\n"));
        fs::write(dir.path().join("LIST"), &list).unwrap();
        let check =
            || Command::new("sha256sum").args(["--strict", "-c", "LIST"]).current_dir(dir.path()).output().unwrap();
        assert!(check().status.success());
        fs::write(dir.path().join("b"), "abd").unwrap();
        assert!(!check().status.success());
    }

    #[test]
    fn a_folder_of_the_machine_is_found_in_the_bytes() {
        let names = ["/build/".to_owned(), "/home/ann/".to_owned()];
        assert_eq!(names_of_the_machine(b"\0/home/ann/x\0", &names), Some("/home/ann/"));
        assert_eq!(names_of_the_machine(b"\0/home/annabel/x\0", &names), None);
    }
}
