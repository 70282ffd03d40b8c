//! `[release]`: the signed digests that this executable has to be in.

use serde::Deserialize;

use super::read::{Reader, Text};
use super::{ConfigError, NamedFile};
use crate::release::ReleaseKey;

/// A signed list of digests, and whose signature it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The signature, `SHA256SUMS.minisig`; the list lies beside it.
    pub signature: NamedFile,
    /// The key that releases are signed with.
    pub key: ReleaseKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRelease {
    signature: Text,
    key: Text,
}

impl Reader<'_> {
    pub(super) fn release(&self, raw: &RawRelease) -> Result<Release, ConfigError> {
        let key = ReleaseKey::parse(raw.key.get_ref()).map_err(|_| {
            let why = "must be a public key as minisign prints it, one line that begins with RW";
            self.refuse(raw.key.span().start, "release.key", why)
        })?;
        Ok(Release { signature: self.file(&raw.signature, "release.signature")?, key })
    }
}
