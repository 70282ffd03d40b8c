//! `CharterService`: what of the configuration nobody changes alone.

use tonic::{Request, Response, Status};
use vault_core::charter::Charter;
use vault_proto::v1;
use vault_proto::v1::charter_service_server::CharterService;

use super::operator_of;
use super::tenants::{Control, answer, call};
use crate::convert;

#[tonic::async_trait]
impl CharterService for Control {
    async fn get_charter(
        &self,
        request: Request<v1::GetCharterRequest>,
    ) -> Result<Response<v1::GetCharterResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            let reason = convert::reason(&request.reason)?;
            let found = self.vault.get_charter(&call(&who, reason.as_ref())?).await?;
            Ok(v1::GetCharterResponse {
                number: found.number,
                text: found.charter.text(),
                sha256: found.charter.digest().to_string(),
                since: Some(convert::timestamp(found.since)),
                approval: found.approval.map(|id| id.to_string()).unwrap_or_default(),
            })
        };
        answer(done.await)
    }

    async fn propose_charter(
        &self,
        request: Request<v1::ProposeCharterRequest>,
    ) -> Result<Response<v1::ProposeCharterResponse>, Status> {
        let who = operator_of(&request)?;
        let request = request.get_ref();
        let done = async {
            // The field's name is that of the request.
            let charter = Charter::parse(&request.text).map_err(|error| match error {
                vault_core::Error::Invalid { why, .. } => vault_core::Error::invalid("text", why),
                other => other,
            })?;
            let reason = convert::required_reason(&request.reason)?;
            let asked = self.vault.propose_charter(&call(&who, Some(&reason))?, &charter).await?;
            Ok(v1::ProposeCharterResponse { approval: Some(convert::approval::show(&asked)) })
        };
        answer(done.await)
    }
}
