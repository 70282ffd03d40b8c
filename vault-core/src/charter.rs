//! The charter: what of a deployment's configuration nobody changes alone.
//!
//! Who may vouch for callers, under which roots keys are wrapped, where the audit log goes, who operates and how many
//! have to agree: all of that stands in configuration files, and whoever can write those could widen what the vault
//! lets through. So a gateway writes these settings down as text, one a line, and the store says which text is in force.
//! A gateway whose own differs does not serve. The text in force changes as anything does that widens: one operator
//! proposes another, others approve exactly that.
//!
//! A text is `blindvault/charter/v1`, then lines `name value`, each once, ascending by bytes. It holds names, keys'
//! fingerprints and bounds, and never a secret.

use std::collections::BTreeSet;
use std::fmt;

use ring::digest;

use crate::error::Error;
use crate::id::Fingerprint;

/// The first line.
const FIRST: &str = "blindvault/charter/v1";
/// Longest text, in bytes.
pub const MAX_CHARTER: usize = 48 * 1024;
/// Longest line, in bytes.
const MAX_LINE: usize = 1024;

/// The settings that nobody changes alone, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charter {
    lines: BTreeSet<String>,
}

impl Charter {
    /// A charter of these settings, each a name and what it is set to. A name may come more than once, with other values.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `charter` if a name or a value has other characters than printable ones of ASCII, a name
    /// has a space, or it is all too long.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(settings: impl IntoIterator<Item = (N, V)>) -> Result<Self, Error> {
        let mut lines = BTreeSet::new();
        for (name, value) in settings {
            let (name, value) = (name.as_ref(), value.as_ref());
            if name.contains(' ') {
                return Err(Error::invalid("charter", "a setting's name holds a space"));
            }
            lines.insert(format!("{name} {value}"));
        }
        let charter = Self { lines };
        charter.lines.iter().try_for_each(|line| checked(line))?;
        if charter.text().len() > MAX_CHARTER {
            return Err(Error::invalid("charter", "is longer than 48 KiB"));
        }
        Ok(charter)
    }

    /// Reads a charter from its text.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `charter`: it is not the one text that a charter has.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |why: &'static str| Error::invalid("charter", why);
        if text.len() > MAX_CHARTER {
            return Err(refuse("is longer than 48 KiB"));
        }
        let rest = text
            .strip_prefix(FIRST)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or_else(|| refuse("must begin with the line blindvault/charter/v1"))?;
        let mut lines = BTreeSet::new();
        let mut last = "";
        for line in rest.split_terminator('\n') {
            checked(line)?;
            if line <= last {
                return Err(refuse("lines must ascend, each once"));
            }
            last = line;
            lines.insert(line.to_owned());
        }
        let charter = Self { lines };
        // No second text says the same.
        if charter.text() != text { Err(refuse("must end with a line's end")) } else { Ok(charter) }
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut text = format!("{FIRST}\n");
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// SHA-256 of its text.
    pub fn digest(&self) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, self.text().as_bytes()).as_ref());
        Fingerprint(bytes)
    }

    /// What another one would change: its lines that are gone behind `- `, and new ones behind `+ `, ascending by name.
    pub fn changes(&self, to: &Self) -> Vec<String> {
        let gone = self.lines.difference(&to.lines).map(|line| (line, '-'));
        let new = to.lines.difference(&self.lines).map(|line| (line, '+'));
        let mut changes: Vec<(&String, char)> = gone.chain(new).collect();
        // Where a setting changes, what it was comes first.
        changes.sort_by_key(|(line, sign)| (line.split(' ').next().unwrap_or_default(), *sign == '+', *line));
        changes.into_iter().map(|(line, sign)| format!("{sign} {line}")).collect()
    }
}

impl fmt::Display for Charter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

fn checked(line: &str) -> Result<(), Error> {
    let refuse = |why: &'static str| Err(Error::invalid("charter", why));
    if line.len() > MAX_LINE {
        return refuse("a line is longer than 1024 bytes");
    }
    if !line.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return refuse("holds other characters than printable ones of ASCII");
    }
    match line.split_once(' ') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(()),
        _ => refuse("each line must be a name, a space and a value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charter(settings: &[(&str, &str)]) -> Charter {
        Charter::new(settings.iter().copied()).unwrap()
    }

    #[test]
    fn a_charter_has_one_text() {
        let one = charter(&[("roots.root", "local"), ("control.trust_domain", "ops.example"), ("roots.b", "pkcs11")]);
        let text = "blindvault/charter/v1\ncontrol.trust_domain ops.example\nroots.b pkcs11\nroots.root local\n";
        assert_eq!(one.text(), text);
        assert_eq!(Charter::parse(text).unwrap(), one);
        for other in [
            "",
            "blindvault/charter/v1",
            "blindvault/charter/v2\na b\n",
            "blindvault/charter/v1\na b",
            "blindvault/charter/v1\n\na b\n",
            "blindvault/charter/v1\na b\n\n",
            "blindvault/charter/v1\nb b\na b\n",
            "blindvault/charter/v1\na b\na b\n",
            "blindvault/charter/v1\na\n",
            "blindvault/charter/v1\na \n",
            "blindvault/charter/v1\n b\n",
            "blindvault/charter/v1\r\na b\r\n",
            "blindvault/charter/v1\na b\u{e4}\n",
            "blindvault/charter/v1\na b\tc\n",
        ] {
            assert!(
                matches!(Charter::parse(other), Err(Error::Invalid { field, .. }) if field == "charter"),
                "{other:?}"
            );
        }
        let long = format!("blindvault/charter/v1\na {}\n", "b".repeat(MAX_LINE));
        assert!(Charter::parse(&long).is_err());
    }

    #[test]
    fn no_setting_can_pass_for_two() {
        for (name, value) in [("a", "b\nc d"), ("a\nb", "c"), ("a b", "c"), ("", "c"), ("a", "")] {
            assert!(Charter::new([(name, value)]).is_err(), "{name:?} {value:?}");
        }
    }

    #[test]
    fn every_change_shows_and_changes_the_digest() {
        let before = charter(&[("approvals.shred", "2"), ("audit.sink.siem", "syslog"), ("control.ca", "aa")]);
        let after = charter(&[("approvals.shred", "1"), ("control.ca", "aa"), ("control.ca", "bb")]);
        assert_eq!(
            before.changes(&after),
            ["- approvals.shred 2", "+ approvals.shred 1", "- audit.sink.siem syslog", "+ control.ca bb"]
        );
        assert!(before.changes(&before).is_empty());
        assert_ne!(before.digest(), after.digest());
    }
}
