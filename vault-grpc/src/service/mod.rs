//! The gRPC services: what each plane's listener answers, and who calls.

pub mod approvals;
pub mod charters;
pub mod consents;
pub mod crypto;
pub mod grants;
pub mod policies;
mod receipt;
pub mod scorecard;
pub(crate) mod streams;
pub mod tenants;
pub(crate) mod undecodable;

use std::sync::Arc;

use tonic::service::Routes;
use tonic::{Request, Status};
use vault_core::error::Check;
use vault_core::principal::{Operator, Workload};
use vault_core::{Error, Vault};
use vault_proto::v1::approval_service_server::ApprovalServiceServer;
use vault_proto::v1::charter_service_server::CharterServiceServer;
use vault_proto::v1::consent_service_server::ConsentServiceServer;
use vault_proto::v1::crypto_service_server::CryptoServiceServer;
use vault_proto::v1::dataset_service_server::DatasetServiceServer;
use vault_proto::v1::grant_service_server::GrantServiceServer;
use vault_proto::v1::policy_service_server::PolicyServiceServer;
use vault_proto::v1::scorecard_service_server::ScorecardServiceServer;
use vault_proto::v1::tenant_service_server::TenantServiceServer;

use crate::config::Limits;
use crate::end_users::EndUsers;
use crate::plane::{Caller, Principal};
use crate::scorecard::Source;
use crate::status;

/// How much larger than the largest request a data answer may be: by the envelopes and the audit receipts of a batch.
const ANSWER_ROOM: usize = 512 << 10;

/// What the data plane answers.
pub(crate) fn data_routes(vault: &Arc<Vault>, end_users: &Arc<EndUsers>, limits: &Limits) -> Routes {
    let crypto = CryptoServiceServer::new(crypto::Crypto::new(Arc::clone(vault), Arc::clone(end_users), *limits))
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes.saturating_add(ANSWER_ROOM));
    let consents = ConsentServiceServer::new(consents::Consents::new(Arc::clone(vault), Arc::clone(end_users)))
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    Routes::new(crypto).add_service(consents)
}

/// What the control plane answers.
pub(crate) fn control_routes(vault: &Arc<Vault>, scorecards: &Arc<Source>, limits: &Limits) -> Routes {
    let control = tenants::Control::new(Arc::clone(vault));
    let tenants = TenantServiceServer::new(control.clone())
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    let datasets = DatasetServiceServer::new(control.clone())
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    let grants = GrantServiceServer::new(control.clone())
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    let approvals = ApprovalServiceServer::new(control.clone())
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    let charters = CharterServiceServer::new(control.clone())
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    let policies = PolicyServiceServer::new(control)
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    let scorecards = scorecard::Scorecards::new(Arc::clone(vault), Arc::clone(scorecards));
    let scorecards = ScorecardServiceServer::new(scorecards)
        .max_decoding_message_size(limits.max_message_bytes)
        .max_encoding_message_size(limits.max_message_bytes);
    Routes::new(tenants)
        .add_service(datasets)
        .add_service(grants)
        .add_service(approvals)
        .add_service(charters)
        .add_service(policies)
        .add_service(scorecards)
}

fn caller<P: Principal, T>(request: &Request<T>) -> Result<Arc<P>, Status> {
    let caller = request.extensions().get::<Caller<P>>();
    caller.map(|caller| Arc::clone(&caller.principal)).ok_or_else(|| status::status(&Error::Denied(Check::Identity)))
}

/// The workload that the connection of this request proved.
pub(crate) fn workload_of<T>(request: &Request<T>) -> Result<Arc<Workload>, Status> {
    caller(request)
}

/// The operator that the connection of this request proved.
pub(crate) fn operator_of<T>(request: &Request<T>) -> Result<Arc<Operator>, Status> {
    caller(request)
}
