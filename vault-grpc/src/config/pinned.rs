//! A host that the gateway asks, at a URL, and the roots that may vouch for its name.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;

use super::read::{Reader, Text};
use super::{ConfigError, Environment, NamedFile};

/// Where something is asked for over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedUrl {
    /// Host, as the URL has it; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// The roots that may vouch for the host; `None` for plain HTTP to this machine, in a development build.
    pub roots: Option<NamedFile>,
    /// How long a call may take.
    pub timeout: Duration,
}

/// A text of the configuration, and its key in messages.
pub(super) type Keyed<'a, T> = (T, &'a str);

impl Reader<'_> {
    /// Reads a URL and its roots.
    pub(super) fn pinned(
        &self,
        (url, url_key): Keyed<'_, &Text>,
        (roots, roots_key): Keyed<'_, Option<&Text>>,
        timeout: Duration,
        environment: Environment,
    ) -> Result<PinnedUrl, ConfigError> {
        let refuse = |why: &str| self.refuse(url.span().start, url_key, why);
        let text = url.get_ref();
        let parsed: Uri = text.parse().map_err(|_| refuse("must be a URL such as https://host.example/path"))?;
        let host = parsed.host().filter(|host| !host.is_empty()).ok_or_else(|| refuse("must name a host"))?;
        if text.contains(['@', '#']) {
            return Err(refuse("must have no user and no fragment"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let roots = roots.map(|file| self.file(file, roots_key)).transpose()?;
        let name = roots_key.rsplit('.').next().unwrap_or(roots_key);
        let port = match (parsed.scheme_str(), &roots) {
            (Some("https"), Some(_)) => 443,
            (Some("https"), None) => {
                return Err(refuse(&format!("needs {name}, the certificates that may vouch for the host")));
            }
            (Some("http"), None) => {
                let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
                if !(cfg!(feature = "dev") && environment == Environment::Dev && loopback) {
                    return Err(refuse("must begin with https://"));
                }
                80
            }
            (Some("http"), Some(_)) => {
                return Err(refuse(&format!("must begin with https:// where {name} is given")));
            }
            _ => return Err(refuse("must begin with https://")),
        };
        let path = parsed.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        Ok(PinnedUrl { host, port: parsed.port_u16().unwrap_or(port), path, roots, timeout })
    }
}
