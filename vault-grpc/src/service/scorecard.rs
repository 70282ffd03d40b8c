//! `ScorecardService`: figures about the whole vault, without data or subjects.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_core::Vault;
use vault_core::time::{Clock, SystemClock};
use vault_proto::v1;
use vault_proto::v1::scorecard_service_server::ScorecardService;

use super::operator_of;
use super::tenants::{answer, call};
use crate::convert::{self, instant};
use crate::scorecard::{Period, Source, to_wire};

/// The service.
#[derive(Debug)]
pub(crate) struct Scorecards {
    vault: Arc<Vault>,
    source: Arc<Source>,
}

impl Scorecards {
    pub(crate) const fn new(vault: Arc<Vault>, source: Arc<Source>) -> Self {
        Self { vault, source }
    }
}

#[tonic::async_trait]
impl ScorecardService for Scorecards {
    async fn get_scorecard(
        &self,
        request: Request<v1::GetScorecardRequest>,
    ) -> Result<Response<v1::GetScorecardResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let from = instant("from_time", request.from_time.as_ref())?;
            let until = instant("until_time", request.until_time.as_ref())?;
            let reason = convert::reason(&request.reason)?;
            let period = Period::new(from, until, SystemClock.now()).map_err(of_the_request)?;
            let call = call(&who, reason.as_ref())?;
            let made = self.vault.scorecard(&call, self.source.make(&self.vault, period)).await?;
            Ok(v1::GetScorecardResponse { scorecard: Some(to_wire(&made)) })
        };
        answer(done.await)
    }
}

/// The period's fields as the request names them.
fn of_the_request(error: vault_core::Error) -> vault_core::Error {
    match error {
        vault_core::Error::Invalid { field, why } => vault_core::Error::Invalid { field: format!("{field}_time"), why },
        other => other,
    }
}
