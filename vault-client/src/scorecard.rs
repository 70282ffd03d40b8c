//! The scorecard, for operators.

use vault_proto::Timestamp;
use vault_proto::v1::{GetScorecardRequest, Scorecard};

use crate::call::ANSWER_ROOM;
use crate::control::OperatorClient;
use crate::error::ClientError;

impl OperatorClient {
    /// Reads the scorecard of the days from the one that `from` lies in to the one before `until`, in UTC. Without, of the
    /// 92 days that end today. The first one of a gateway reads its whole log: give it a long deadline.
    ///
    /// # Errors
    /// See the type.
    pub async fn get_scorecard(
        &self,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<Scorecard, ClientError> {
        let message = GetScorecardRequest { from_time: from, until_time: until, reason: reason.into() };
        let request = self.limits.request(message, self.limits.unary)?;
        let most = self.limits.batch.saturating_add(ANSWER_ROOM);
        let mut scorecards = self.scorecards.clone().max_decoding_message_size(most);
        let answer = self.limits.answer(scorecards.get_scorecard(request)).await?;
        answer.scorecard.ok_or_else(|| ClientError::malformed("the answer lacks its scorecard"))
    }
}
