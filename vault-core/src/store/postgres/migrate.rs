//! The schema, brought up to date under a lock; each step is recorded with the hash of its text.

use ring::digest;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::fault::{Fault, of_commit};
use crate::error::Error;

/// The steps, oldest first; the first is version 1. A step that was released never changes.
const STEPS: [&str; 2] = [include_str!("migrations/0001_rows.sql"), include_str!("migrations/0002_gateways.sql")];

/// How often to start over when another gateway makes the same table at the same moment.
const ATTEMPTS: u32 = 5;

fn hash(step: &str) -> String {
    let sum = digest::digest(&digest::SHA256, step.as_bytes());
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Brings the schema up to date. One that is needs no right but to read.
///
/// # Errors
/// [`Error::FailedPrecondition`] for a schema of a newer program; [`Error::Corrupt`] if a step was another one when it
/// was applied.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        match applied(client).await {
            Ok(done) if check(&done)? == STEPS.len() => return Ok(()),
            Ok(_) => match advance(client).await {
                Err(Step::Failed(Fault::Again)) => continue,
                Err(Step::Failed(fault)) => return Err(fault.into()),
                Err(Step::Refused(error)) => return Err(error),
                Ok(()) => return Ok(()),
            },
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                // Two that make one table at the same moment meet in the catalog: one of them is told so.
                let table = "CREATE TABLE IF NOT EXISTS blindvault_schema \
                             (version INTEGER NOT NULL PRIMARY KEY, sha256 TEXT NOT NULL); \
                             INSERT INTO blindvault_schema VALUES (0, '') ON CONFLICT DO NOTHING";
                match client.batch_execute(table).await {
                    Ok(()) => {}
                    Err(error)
                        if [Some(&SqlState::UNIQUE_VIOLATION), Some(&SqlState::DUPLICATE_TABLE)]
                            .contains(&error.code()) => {}
                    Err(error) => return Err(Fault::from(error).into()),
                }
            }
            Err(error) => return Err(Fault::from(error).into()),
        }
    }
    Err(Fault::Again.into())
}

enum Step {
    Failed(Fault),
    Refused(Error),
}

impl From<tokio_postgres::Error> for Step {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

async fn applied(client: &Client) -> Result<Vec<(i32, String)>, tokio_postgres::Error> {
    let sql = "SELECT version, sha256 FROM blindvault_schema WHERE version > 0 ORDER BY version";
    client.query_typed(sql, &[]).await?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// How many steps are done.
fn check(done: &[(i32, String)]) -> Result<usize, Error> {
    if done.len() > STEPS.len() {
        return Err(Error::FailedPrecondition("the database's schema is of a newer version of this program"));
    }
    for (at, ((version, sum), step)) in done.iter().zip(STEPS).enumerate() {
        if usize::try_from(*version) != Ok(at + 1) || *sum != hash(step) {
            return Err(Error::corrupt("database", format!("schema version {}: another step was applied", at + 1)));
        }
    }
    Ok(done.len())
}

async fn advance(client: &mut Client) -> Result<(), Step> {
    let work = client.transaction().await?;
    // The lock of all who would change the schema: a row, since advisory locks are PostgreSQL's own.
    work.query_typed("SELECT version FROM blindvault_schema WHERE version = 0 FOR UPDATE", &[]).await?;
    let done = applied(work.client()).await?;
    let done = check(&done).map_err(Step::Refused)?;
    for (at, step) in STEPS.iter().enumerate().skip(done) {
        work.batch_execute(step).await?;
        let version = i32::try_from(at + 1).unwrap_or(i32::MAX);
        let sql = "INSERT INTO blindvault_schema (version, sha256) VALUES ($1, $2)";
        work.execute_typed(sql, &[(&version, Type::INT4), (&hash(step), Type::TEXT)]).await?;
    }
    work.commit().await.map_err(|error| Step::Refused(of_commit(Some(&error))))
}
