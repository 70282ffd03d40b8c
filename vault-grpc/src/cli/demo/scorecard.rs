//! The scorecard: what the demo's operator tried is in it, and that nothing came of it.

use vault_client::Limits;
use vault_proto::v1::{Plane, Scorecard};

use super::Failed;
use super::report::Report;
use super::scene::Scene;

fn figure(card: &Scorecard, id: &str) -> Option<u64> {
    card.lines.iter().find(|line| line.id == id)?.value.parse().ok()
}

pub(super) async fn step(scene: &Scene, report: &mut Report) -> Result<(), Failed> {
    let operator = scene.operator().await?.with_limits(Limits::default());
    let card = report.time(operator.get_scorecard(None, None, "demo")).await?;
    let data_calls = vault_proto::rpcs().iter().filter(|rpc| rpc.plane == Plane::Data).count() as u64;
    let (tried, let_in) = (figure(&card, "operators.data_attempts"), figure(&card, "operators.data_allowed"));
    report.step(
        "the operator reads the scorecard, which tells on the operator",
        tried == Some(data_calls) && let_in == Some(0),
        format!(
            "{} data calls of operators, {} of them let in; {} lines (`vault-grpc scorecard` has them as a page)",
            tried.map_or_else(|| "?".to_owned(), |count| count.to_string()),
            let_in.map_or_else(|| "?".to_owned(), |count| count.to_string()),
            card.lines.len()
        ),
    );
    Ok(())
}
