//! What a bundle says, and its one sequence of bytes.
//!
//! ```text
//! "blindvault/policy-bundle/v1" ‖ 00 ‖ LP(instance) ‖ u64 version ‖ opt(previous, 32) ‖ u64 created ‖ u64 not before
//!   ‖ LP(comment) ‖ LP4(schema) ‖ u16 n ‖ n × (LP(name) ‖ LP4(text)), ascending by name ‖ LP4(registry)
//! ```
//! Integers are big-endian; LP(x) is x behind its u16 length, LP4(x) behind its u32 length; opt(x) is 00, or 01 ‖ x.

use crate::crypto::sha256;
use crate::error::Error;
use crate::id::{Fingerprint, Purpose, Reason};
use crate::policy::{PolicySet, Registry, Source};
use crate::time::Timestamp;

/// Most files with policies.
const MAX_FILES: usize = 1_000;

/// Longest bundle in its canonical form, in bytes: all texts together. So it fits one message of the gateway, and its
/// rows one commit.
pub const MAX_BUNDLE: usize = 3_500_000;

const LABEL: &[u8] = b"blindvault/policy-bundle/v1\0";
/// What errors call the schema and the registry.
const SCHEMA: &str = "schema";

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name, `[a-z0-9][a-z0-9._-]{0,62}`; errors in the file name it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A schema, policies and a registry with their place in the order of all bundles of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The installation that it is for: a bundle signed for one is worth nothing in another.
    pub instance: String,
    /// Grows with each bundle; 1 or more.
    pub version: u64,
    /// The digest of the bundle that it follows; `None` for the first.
    pub previous: Option<Fingerprint>,
    /// When it was made.
    pub created: Timestamp,
    /// It comes into force at this time or later.
    pub not_before: Timestamp,
    /// Why there is a new one, 1 to 512 bytes without control characters.
    pub comment: String,
    /// The Cedar schema.
    pub schema: String,
    /// The policies, ascending by name.
    pub policies: Vec<PolicyFile>,
    /// The workload registry, in TOML.
    pub registry: String,
}

impl Bundle {
    /// Refuses what no bundle may be, whatever its texts say: they are judged by [`Self::load`].
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |field: &str, why| Err(Error::invalid(field, why));
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=63).contains(&self.instance.len()) || !self.instance.bytes().all(good) {
            return refuse("instance", "must be 1 to 63 of the characters a-z 0-9 . _ -");
        }
        if self.version == 0 {
            return refuse("version", "must be 1 or more");
        }
        if Reason::parse(&self.comment).is_err() {
            return refuse("comment", "must be 1 to 512 bytes of text without control characters");
        }
        if self.policies.len() > MAX_FILES {
            return refuse("policies", "more than 1,000 files");
        }
        for (at, file) in self.policies.iter().enumerate() {
            // The alphabet of all names.
            if Purpose::parse(&file.name).is_err() {
                return Err(Error::invalid(format!("policies[{at}].name"), "must match [a-z0-9][a-z0-9._-]{0,62}"));
            }
        }
        let mut names = self.policies.iter().map(|file| &file.name);
        if !names.clone().zip(names.by_ref().skip(1)).all(|(before, after)| before < after) {
            return refuse("policies", "must be in ascending order of their names, each name once");
        }
        let texts = self.policies.iter().map(|file| file.text.len());
        if texts.sum::<usize>() + self.schema.len() + self.registry.len() > MAX_BUNDLE {
            return refuse("bundle", "schema, policies and registry together are longer than 3,500,000 bytes");
        }
        Ok(())
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let mut out = Out(LABEL.to_vec());
        out.lp(&self.instance)?;
        out.0.extend_from_slice(&self.version.to_be_bytes());
        match &self.previous {
            Some(Fingerprint(digest)) => {
                out.0.push(1);
                out.0.extend_from_slice(digest);
            }
            None => out.0.push(0),
        }
        out.0.extend_from_slice(&self.created.0.to_be_bytes());
        out.0.extend_from_slice(&self.not_before.0.to_be_bytes());
        out.lp(&self.comment)?;
        out.lp4(&self.schema)?;
        let files = u16::try_from(self.policies.len()).map_err(|_| too_long())?;
        out.0.extend_from_slice(&files.to_be_bytes());
        for file in &self.policies {
            out.lp(&file.name)?;
            out.lp4(&file.text)?;
        }
        out.lp4(&self.registry)?;
        if out.0.len() > MAX_BUNDLE {
            return Err(too_long());
        }
        Ok(out.0)
    }

    /// Reads the canonical bytes, all of them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the byte; [`Error::Invalid`] as [`Self::check`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = In { rest: bytes, len: bytes.len() };
        if bytes.len() > MAX_BUNDLE {
            return Err(too_long());
        }
        if from.take(LABEL.len())? != LABEL {
            return Err(from.damaged());
        }
        let bundle = Self {
            instance: from.lp()?,
            version: from.u64()?,
            previous: match from.take(1)? {
                [0] => None,
                [1] => Some(Fingerprint(from.array()?)),
                _ => return Err(from.damaged()),
            },
            created: Timestamp(from.u64()?),
            not_before: Timestamp(from.u64()?),
            comment: from.lp()?,
            schema: from.lp4()?,
            policies: {
                let files = u16::from_be_bytes(from.array()?);
                (0..files)
                    .map(|_| Ok(PolicyFile { name: from.lp()?, text: from.lp4()? }))
                    .collect::<Result<_, Error>>()?
            },
            registry: from.lp4()?,
        };
        if !from.rest.is_empty() {
            return Err(from.damaged());
        }
        bundle.check()?;
        Ok(bundle)
    }

    /// SHA-256 of the canonical bytes.
    pub fn digest(encoded: &[u8]) -> Fingerprint {
        Fingerprint(sha256(&[encoded]))
    }

    /// Parses and validates schema, policies and registry, as from files of these names: `schema`, `registry`, and those
    /// of the policies.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the file and the line.
    pub fn load(&self, workload_domain: &str) -> Result<(PolicySet, Registry), Error> {
        let schema = Source { name: SCHEMA, text: &self.schema };
        let files: Vec<_> = self.policies.iter().map(|file| Source { name: &file.name, text: &file.text }).collect();
        Ok((PolicySet::load(schema, &files)?, Registry::parse(&self.registry, workload_domain)?))
    }
}

fn too_long() -> Error {
    Error::invalid("bundle", "longer than 3,500,000 bytes")
}

struct Out(Vec<u8>);

impl Out {
    fn lp(&mut self, text: &str) -> Result<(), Error> {
        self.0.extend_from_slice(&u16::try_from(text.len()).map_err(|_| too_long())?.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn lp4(&mut self, text: &str) -> Result<(), Error> {
        self.0.extend_from_slice(&u32::try_from(text.len()).map_err(|_| too_long())?.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

struct In<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> In<'a> {
    fn damaged(&self) -> Error {
        Error::corrupt("policy bundle", format!("byte {}: not as it was written", self.len - self.rest.len()))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (front, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| self.damaged())
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self, len: usize) -> Result<String, Error> {
        std::str::from_utf8(self.take(len)?).map(str::to_owned).map_err(|_| self.damaged())
    }

    fn lp(&mut self) -> Result<String, Error> {
        let len = u16::from_be_bytes(self.array()?);
        self.text(usize::from(len))
    }

    fn lp4(&mut self) -> Result<String, Error> {
        let len = u32::from_be_bytes(self.array()?);
        self.text(usize::try_from(len).map_err(|_| self.damaged())?)
    }
}
