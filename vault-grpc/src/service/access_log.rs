//! `AccessLogService`: on the data plane, what the audit log says of a tenant. No operator reaches it.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Response, Status};
use vault_core::audit::Proven;
use vault_core::id::{DatasetId, Purpose, Subject, TenantId};
use vault_core::principal::Workload;
use vault_core::vault::{AccessCall, AccessPage, AccessQuery, new_request_id};
use vault_core::{Error, Vault};
use vault_proto::v1;
use vault_proto::v1::access_log_service_server::AccessLogService;

use super::workload_of;
use crate::end_users::EndUsers;
use crate::{convert, status};

/// The service.
#[derive(Debug, Clone)]
pub struct AccessLog {
    vault: Arc<Vault>,
    end_users: Arc<EndUsers>,
}

impl AccessLog {
    /// The access log of a vault's tenants, also for the end users of these issuers.
    pub const fn new(vault: Arc<Vault>, end_users: Arc<EndUsers>) -> Self {
        Self { vault, end_users }
    }

    /// For whom a call is made: a refusal of their token is in the log before it is told.
    async fn call<'a>(&self, who: &'a Workload, tenant: &'a TenantId, token: &Bytes) -> Result<AccessCall<'a>, Error> {
        let request = new_request_id()?;
        if token.is_empty() {
            return Ok(AccessCall { who, end_user: None, tenant, request });
        }
        match self.end_users.verify(token, who).await {
            Ok(end_user) => Ok(AccessCall { who, end_user: Some(end_user), tenant, request }),
            Err(rule) => Err(self.vault.refuse_history_token(who, (tenant, request), rule).await),
        }
    }
}

fn query(request: &v1::ListAccessesRequest) -> Result<AccessQuery, Error> {
    let given = |text: &'_ str| if text.is_empty() { None } else { Some(text.to_owned()) };
    let log = given(&request.log);
    if log.as_ref().is_some_and(|log| log.len() > 200) {
        return Err(Error::invalid("log", "must be empty or the name of a log, as an answer gave it"));
    }
    Ok(AccessQuery {
        log,
        after: request.after_sequence,
        limit: convert::page_size(request.page_size)?,
        known: request.known_size,
        from: convert::instant("start_time", request.start_time.as_ref())?,
        until: convert::instant("end_time", request.end_time.as_ref())?,
        dataset: given(&request.dataset).map(|dataset| DatasetId::parse(&dataset)).transpose()?,
        subject: request.subject.as_deref().map(Subject::parse).transpose()?,
        purpose: given(&request.purpose).map(|purpose| Purpose::parse(&purpose)).transpose()?,
    })
}

fn entry(proven: Proven) -> v1::AccessLogEntry {
    v1::AccessLogEntry {
        index: proven.index,
        sequence: proven.entry.link.map_or(0, |link| link.sequence),
        entry: proven.bytes.into(),
        inclusion_path: proven.path.concat().into(),
    }
}

fn page(page: AccessPage, answered_by: String) -> v1::ListAccessesResponse {
    let AccessPage { readable, logs, .. } = page;
    let name = |log: vault_core::store::LogName| v1::AccessLogName {
        readable: readable.contains(&log.origin),
        log: log.origin,
        verifier_keys: log.keys,
        first_leaf_hash: log.first.to_vec().into(),
    };
    v1::ListAccessesResponse {
        log: page.log,
        checkpoint: page.checkpoint,
        consistency_proof: page.consistency.concat().into(),
        entries: page.entries.into_iter().map(entry).collect(),
        head: page.head.map(entry),
        seen_sequence: page.seen,
        selection: page.is_selection,
        logs: logs.into_iter().map(name).collect(),
        audit_entry: page.audit_entry,
        answered_by,
    }
}

#[tonic::async_trait]
impl AccessLogService for AccessLog {
    async fn list_accesses(
        &self,
        request: Request<v1::ListAccessesRequest>,
    ) -> Result<Response<v1::ListAccessesResponse>, Status> {
        let who = workload_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let tenant = TenantId::parse(&request.tenant)?;
            let query = query(request)?;
            let call = self.call(&who, &tenant, &request.end_user_token).await?;
            let found = self.vault.list_accesses(&call, query).await?;
            Ok(page(found, self.vault.audit().verifier().origin().to_owned()))
        };
        done.await.map(Response::new).map_err(|error| status::status(&error))
    }
}
