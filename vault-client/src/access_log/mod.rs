//! What the audit log says of a tenant, checked by the tenant.
//!
//! Nothing that the gateway answers is believed: [`AccessLogVerifier`] checks signature, proofs and the tenant's own chain,
//! under keys that the tenant has pinned. Keep the [`Bookmark`]s, in a place that the vault's operators cannot write:
//! then a log that was rolled back or forked between two visits is found, too.
//!
//! ```no_run
//! use vault_client::{AccessBody, AccessLogClient, Bookmark, LogKey, read_all};
//!
//! # async fn example(first: AccessLogClient, second: AccessLogClient, pinned: &[&str], kept: &str)
//! #     -> Result<String, Box<dyn std::error::Error>> {
//! let keys = pinned.iter().map(|key| LogKey::parse(key)).collect::<Result<Vec<_>, _>>()?;
//! let mut bookmarks = kept.lines().map(Bookmark::parse).collect::<Result<Vec<_>, _>>()?;
//! // All gateways' logs, in the order of time.
//! for entry in read_all(&[first, second], "acme", None, &keys, &mut bookmarks).await? {
//!     if let AccessBody::Refused { decision, .. } = &entry.body {
//!         println!("{} {} was refused {}", entry.time_ms, decision.principal, decision.action);
//!     }
//! }
//! # Ok(
//! bookmarks.iter().map(|bookmark| format!("{bookmark}\n")).collect()
//! # )
//! # }
//! ```

mod entry;
mod proofs;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::fmt;

use tonic::transport::Channel;
use vault_proto::v1::access_log_service_client::AccessLogServiceClient;
use vault_proto::v1::{AccessLogName, ListAccessesRequest, ListAccessesResponse};

pub use entry::{AccessBody, AccessDecision, AccessEntry, AccessKey};
pub use proofs::LogKey;
pub use verify::{AccessLogFault, AccessLogVerifier, Bookmark, Selected};

use crate::call::Limits;
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::value::EndUserToken;

/// The largest answer: a page of entries with their proofs.
const MAX_ANSWER: usize = 4 << 20;
/// How many entries a page is asked for.
const PAGE: i32 = 1000;

/// Why a log could not be read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// The call failed.
    Call(Box<ClientError>),
    /// The answer does not hold: the log, or what the gateway says of it, is not as it should be.
    Fault(AccessLogFault),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<ClientError> for ReadError {
    fn from(error: ClientError) -> Self {
        Self::Call(Box::new(error))
    }
}

impl From<AccessLogFault> for ReadError {
    fn from(fault: AccessLogFault) -> Self {
        Self::Fault(fault)
    }
}

/// Calls `vault.v1.AccessLogService` with a workload's certificate. Clones share one connection.
///
/// # Errors
/// Every call fails with a [`ClientError`]: `Local` if the request is over a limit, `Transport` if the gateway was not
/// reached or did not answer in time, `Gateway` if it refused.
#[derive(Debug, Clone)]
pub struct AccessLogClient {
    inner: AccessLogServiceClient<Channel>,
    limits: Limits,
}

impl AccessLogClient {
    /// Connects to the data-plane listener of a gateway.
    ///
    /// # Errors
    /// Those of [`Endpoint::channel`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self::from_channel(endpoint.channel().await?))
    }

    /// Uses a channel that exists.
    pub fn from_channel(channel: Channel) -> Self {
        let inner = AccessLogServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        Self { inner, limits: Limits::default() }
    }

    /// Sets sizes and the deadline of calls from here on.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Reads one page, and verifies nothing of it.
    ///
    /// # Errors
    /// See the type.
    pub async fn page(&self, message: ListAccessesRequest) -> Result<ListAccessesResponse, ClientError> {
        let request = self.limits.request(message, self.limits.unary)?;
        self.limits.answer(self.inner.clone().list_accesses(request)).await
    }

    /// Reads what one log has new for the tenant, up to its end, and verifies all of it. The verifier then stands there.
    ///
    /// # Errors
    /// [`ReadError`]; what was verified before it is lost, and read again by a verifier of the same bookmark.
    pub async fn read(
        &self,
        verifier: &mut AccessLogVerifier,
        end_user: Option<&EndUserToken>,
    ) -> Result<Vec<AccessEntry>, ReadError> {
        let mut all = Vec::new();
        loop {
            let mut message = verifier.request(PAGE);
            message.end_user_token = end_user.map(EndUserToken::bytes).unwrap_or_default();
            let known = message.known_size;
            let answer = self.page(message).await.map_err(|error| rolled_back(error, known))?;
            all.extend(verifier.accept(&answer)?);
            if verifier.is_complete() {
                return Ok(all);
            }
        }
    }

    /// Reads a selection of one log, as `wanted` describes it: `tenant`, times, dataset, subject, purpose. Each entry is
    /// verified; that none is missing does not show.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn select(&self, keys: &[LogKey], wanted: &ListAccessesRequest) -> Result<Vec<AccessEntry>, ReadError> {
        let mut all = Vec::new();
        let mut after_sequence = wanted.after_sequence;
        loop {
            let message = ListAccessesRequest { after_sequence, page_size: PAGE, known_size: 0, ..wanted.clone() };
            let answer = self.page(message).await?;
            let selected = verify::selected(&wanted.tenant, keys, &answer)?;
            all.extend(selected.entries);
            if selected.seen >= selected.head {
                return Ok(all);
            }
            if selected.seen <= after_sequence {
                return Err(AccessLogFault::Truncated { sequence: selected.head }.into());
            }
            after_sequence = selected.seen;
        }
    }
}

/// The gateway refuses a size above its log's: the log has fewer entries than it had.
fn rolled_back(error: ClientError, known: u64) -> ReadError {
    let is_known = |violation: &crate::error::FieldViolation| {
        violation.field == "known_size" || (violation.field == "after_sequence" && known > 0)
    };
    if error.violations().iter().any(is_known) { AccessLogFault::RolledBack.into() } else { error.into() }
}

/// Reads what is new for the tenant in the logs of *all* gateways, each from its bookmark on, and verifies it: by time,
/// then by log and sequence. The bookmarks are brought up to date, and new logs get one.
///
/// Which logs there are, the gateways say from the store that they share, of which no gateway's entry can be left out. Each
/// log is read through a gateway that has it; through every one of `clients` its own.
///
/// # Errors
/// [`ReadError`], among others for a log that no pinned key verifies, or that none of the gateways can read; the bookmarks
/// are then as they were.
pub async fn read_all(
    clients: &[AccessLogClient],
    tenant: &str,
    end_user: Option<&EndUserToken>,
    keys: &[LogKey],
    bookmarks: &mut Vec<Bookmark>,
) -> Result<Vec<AccessEntry>, ReadError> {
    let mut standing: BTreeMap<String, AccessLogVerifier> = BTreeMap::new();
    for bookmark in bookmarks.iter() {
        let verifier = AccessLogVerifier::new(tenant, bookmark.log(), keys)?.resume(bookmark.clone());
        standing.insert(bookmark.log().to_owned(), verifier);
    }
    let mut all = Vec::new();
    let mut logs: BTreeMap<String, (AccessLogName, Option<&AccessLogClient>)> = BTreeMap::new();
    let mut read = Vec::new();
    for client in clients {
        // Its own log, whose name the first answer tells.
        let mut message = ListAccessesRequest { tenant: tenant.to_owned(), page_size: 1, ..Default::default() };
        message.end_user_token = end_user.map(EndUserToken::bytes).unwrap_or_default();
        let answer = client.page(message).await?;
        for log in answer.logs {
            let known = logs.entry(log.log.clone()).or_insert((log.clone(), None));
            if known.0.first_leaf_hash != log.first_leaf_hash {
                return Err(AccessLogFault::TwoLogs { log: log.log }.into());
            }
            if log.readable && known.1.is_none() {
                known.1 = Some(client);
            }
        }
        all.extend(one(client, tenant, end_user, keys, &answer.answered_by, &mut standing).await?);
        read.push(answer.answered_by);
    }
    for (log, (_, client)) in logs {
        if read.contains(&log) {
            continue;
        }
        let client = client.ok_or_else(|| AccessLogFault::MissingLog { log: log.clone() })?;
        all.extend(one(client, tenant, end_user, keys, &log, &mut standing).await?);
    }
    *bookmarks = standing.into_values().map(|verifier| verifier.bookmark()).collect();
    all.sort_by(|a, b| (a.time_ms, &a.log, a.sequence).cmp(&(b.time_ms, &b.log, b.sequence)));
    Ok(all)
}

async fn one(
    client: &AccessLogClient,
    tenant: &str,
    end_user: Option<&EndUserToken>,
    keys: &[LogKey],
    log: &str,
    standing: &mut BTreeMap<String, AccessLogVerifier>,
) -> Result<Vec<AccessEntry>, ReadError> {
    let mut verifier = match standing.remove(log) {
        Some(verifier) => verifier,
        None => AccessLogVerifier::new(tenant, log, keys)?,
    };
    let entries = client.read(&mut verifier, end_user).await?;
    standing.insert(log.to_owned(), verifier);
    Ok(entries)
}
