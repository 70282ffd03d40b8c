//! Operators: who they are by the signed list, and the token that each of their calls has to bring.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{HeaderMap, header};
use tokio::task::JoinHandle;
use tonic::Status;
use vault_core::audit::{LogSigner, LogVerifier};
use vault_core::principal::{MAX_LIST, Operator, OperatorList, OperatorToken, OperatorTokenError};

use crate::config::{Config, ConfigError};
use crate::issuers::{self, FileKeys, TokenKeys};
use crate::plane::{Admission, Caller, Principal as _};
use crate::refusals::Refusals;
use crate::status;
use crate::telemetry::{Event, log};
use crate::tls::files;

/// Longest signed list, in bytes: room for the signatures.
const MAX_NOTE: u64 = MAX_LIST as u64 + 4_000;

/// The operators of a gateway.
#[derive(Debug)]
pub(crate) struct Operators {
    list: ArcSwap<OperatorList>,
    keys: Arc<TokenKeys>,
    refusals: Arc<Refusals>,
}

/// The list of operators that a configuration names, of this instance and signed by its owner; the empty one if it names
/// none. `log` is the audit log's own key, which can be no owner's: the gateway holds it.
///
/// # Errors
/// [`ConfigError`] naming the file, and the line in it.
pub fn list(config: &Config, log: &LogVerifier) -> Result<OperatorList, ConfigError> {
    match &config.operators.list {
        Some(named) if named.owner.is_same_key(log) => {
            Err(ConfigError::new(&named.owner_place, "is the audit log's own key, which the gateway holds"))
        }
        _ => read(config),
    }
}

/// The same, whoever holds the owner's key.
pub(crate) fn read(config: &Config) -> Result<OperatorList, ConfigError> {
    let Some(named) = &config.operators.list else { return Ok(OperatorList::default()) };
    let bytes = files::read(&named.file, MAX_NOTE, false)?;
    let note = std::str::from_utf8(&bytes).map_err(|_| named.file.error("is not UTF-8"))?;
    let text = named.owner.note(note).map_err(|error| named.file.error(error))?;
    let list = OperatorList::parse(text).map_err(|error| named.file.error(error))?;
    if list.instance() == config.instance { Ok(list) } else { Err(named.file.error("is the list of another instance")) }
}

/// A list with its owner's signature: a signed note.
///
/// # Errors
/// [`Error::Unavailable`](vault_core::Error::Unavailable) without the key.
pub fn sign(list: &OperatorList, owner: &LogSigner) -> Result<String, vault_core::Error> {
    owner.note(&list.text())
}

/// Reads every key file that a configuration names for operators.
///
/// # Errors
/// The first that is not acceptable.
pub(crate) fn file_keys(config: &Config) -> Result<FileKeys, ConfigError> {
    issuers::file_keys(&config.operators.issuers)
}

/// The issuers of operators' tokens, with the keys that are in files.
///
/// # Errors
/// The first file that is not acceptable.
pub(crate) fn keys(config: &Config) -> Result<TokenKeys, ConfigError> {
    TokenKeys::load(&config.file.display().to_string(), &config.operators.issuers)
}

/// Says at the start and after a reload who operates the vault, and what they do not have to show.
pub(crate) fn tell(config: &Config, list: &OperatorList) {
    if config.operators.list.is_none() {
        return log(&Event::Notice("no list of operators is configured: every call of an operator is refused"));
    }
    log(&Event::Operators { list: list.reference(), people: list.people().len() });
    if config.operators.issuers.is_empty() {
        log(&Event::Notice(
            "no issuer of operators' tokens is configured: certificates alone make operators, in development only",
        ));
    }
}

impl Operators {
    pub(crate) fn new(list: OperatorList, keys: TokenKeys, refusals: Arc<Refusals>) -> Self {
        Self { list: ArcSwap::from_pointee(list), keys: Arc::new(keys), refusals }
    }

    /// The list in force.
    pub(crate) fn list(&self) -> Arc<OperatorList> {
        self.list.load_full()
    }

    /// Puts a list in force: the next call of anybody is judged by it.
    pub(crate) fn replace(&self, list: OperatorList) {
        self.list.store(Arc::new(list));
    }

    /// Puts keys from files in force.
    pub(crate) fn put(&self, keys: FileKeys) {
        self.keys.put(keys);
    }

    /// Begins to fetch issuers' keys, for as long as the tasks live.
    #[must_use]
    pub(crate) fn fetch(&self) -> Vec<JoinHandle<()>> {
        self.keys.fetch()
    }

    /// Who a call is from: the person of the certificate, who has to bring a token where there are issuers.
    async fn admitted(&self, who: &Operator, headers: &HeaderMap) -> Result<Operator, OperatorTokenError> {
        if self.keys.len() == 0 {
            return self.list().admit(who, None);
        }
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let value = given.next().ok_or(OperatorTokenError::Missing)?;
        if given.next().is_some() {
            return Err(OperatorTokenError::Several);
        }
        let token = bearer(value.as_bytes()).ok_or(OperatorTokenError::Scheme)?;
        let rule = |error| match error {
            OperatorTokenError::Token(rule) => Some(rule),
            _ => None,
        };
        let judge = |issuers: &_, now| OperatorToken::verify(token, issuers, who, now);
        let token = self.keys.judge(token, rule, judge).await?;
        self.list().admit(who, Some(&token))
    }
}

/// The token in `Bearer …` (RFC 6750 section 2.1); the scheme in any case (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

impl Admission<Operator> for Operators {
    fn admit<'a>(
        &'a self,
        caller: &'a Caller<Operator>,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Caller<Operator>, Status>> {
        Box::pin(async move {
            match self.admitted(&caller.principal, headers).await {
                Ok(operator) => Ok(Caller { principal: Arc::new(operator), address: caller.address }),
                Err(rule) => {
                    self.refusals.count(Operator::PLANE, rule.name());
                    Err(status::no_operator(rule))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_what_follows_the_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer abc"), Some(&b"abc"[..]));
        for none in [&b""[..], b"Bearer", b"Bearer ", b"Basic abc", b"abc", b"Bearerabc", "Bear\u{e9}r abc".as_bytes()]
        {
            assert_eq!(bearer(none), None);
        }
    }
}
