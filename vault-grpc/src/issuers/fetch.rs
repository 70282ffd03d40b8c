//! An issuer's key set: fetched, or read.

use http::{Method, Request, StatusCode, header};
use vault_core::principal::{KeySet, MAX_KEY_SET};

use crate::config::{ConfigError, KeysUrl, NamedFile};
use crate::pinned::Pinned;
use crate::tls::files::read;

/// Where and how.
#[derive(Debug)]
pub(super) struct Fetch {
    url: KeysUrl,
    host: Pinned,
}

impl Fetch {
    /// Reads the roots.
    pub(super) fn new(url: &KeysUrl) -> Result<Self, ConfigError> {
        Ok(Self { url: url.clone(), host: Pinned::new(&url.at)? })
    }

    pub(super) const fn url(&self) -> &KeysUrl {
        &self.url
    }

    /// The keys, within the timeout; or why not, without anything that the other side said.
    pub(super) async fn get(&self) -> Result<KeySet, &'static str> {
        let request = Request::builder().method(Method::GET);
        let request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        let answer = self.host.call(request, String::new()).await?;
        if answer.status() != StatusCode::OK {
            return Err("the answer is not 200");
        }
        KeySet::parse(answer.body()).map_err(|_| "the answer is not a key set that can be used")
    }
}

/// The keys in a file.
pub(super) fn from_file(file: &NamedFile) -> Result<KeySet, ConfigError> {
    let bytes = read(file, MAX_KEY_SET as u64, false)?;
    KeySet::parse(&bytes).map_err(|error| file.error(error))
}
