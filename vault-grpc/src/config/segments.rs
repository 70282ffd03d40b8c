//! `[audit]`: how large and how old a segment of the log becomes, and where it is archived.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::read::{Reader, Text};
use super::{ConfigError, NamedFile};

/// Bounds of the audit log's segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// The length in bytes at which a segment is sealed.
    pub size: u64,
    /// The age at which it is; `None` for any.
    pub age: Option<Duration>,
    /// Where sealed segments are archived; `None` for `archive` in the log's directory.
    pub archive: Option<NamedFile>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSegments {
    size_kib: Option<Spanned<u64>>,
    age_s: Option<Spanned<u64>>,
    archive: Option<Text>,
}

pub(super) fn segments(reader: &Reader<'_>, raw: Option<&RawSegments>) -> Result<Segments, ConfigError> {
    let (mut size_kib, mut age_s, mut archive) = (&None, &None, &None);
    if let Some(raw) = raw {
        (size_kib, age_s, archive) = (&raw.size_kib, &raw.age_s, &raw.archive);
    }
    let size = reader.within(size_kib, "audit.segments.size_kib", 256 << 10, 64, 16 << 20)? * 1024;
    let age = reader.within(age_s, "audit.segments.age_s", 0, 0, 10 * 366 * 86_400)?;
    let archive = archive.as_ref().map(|text| reader.file(text, "audit.segments.archive")).transpose()?;
    Ok(Segments { size, age: (age > 0).then(|| Duration::from_secs(age)), archive })
}
