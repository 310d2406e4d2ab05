//! The requests that were made to deliver commits.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, detached};
use crate::domain::{CommitId, OrganizationId, Trigger};

/// One request made to deliver one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The commit, by its caller's name.
    pub client_tx_id: String,
    /// The commit, by ours.
    pub commit: CommitId,
    /// 1 for the commit's first.
    pub number: i32,
    /// Why it was made.
    pub trigger: Trigger,
    /// When it was recorded.
    pub started_at: OffsetDateTime,
    /// How long it took, in milliseconds; `None` while in flight.
    pub duration_ms: Option<i32>,
    /// The answer's status, when a status line came.
    pub http_status: Option<i32>,
    /// What the answer meant; `None` while in flight.
    pub outcome: Option<String>,
    /// How it failed.
    pub error_class: Option<String>,
    /// How, for a person.
    pub message: Option<String>,
    /// The beginning of an answer other than 200.
    pub response_excerpt: Option<String>,
    /// When the next one is due, if any.
    pub next_attempt_at: Option<OffsetDateTime>,
}

/// Where a page of attempts ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last attempt's start.
    pub started_at: OffsetDateTime,
    /// Its commit.
    pub commit: Uuid,
    /// Its number.
    pub number: i32,
}

/// Which attempts are asked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose.
    pub organization: OrganizationId,
    /// The source.
    pub source: String,
    /// Only of this commit.
    pub client_tx_id: Option<String>,
    /// Only those made before.
    pub before: Option<Position>,
    /// At most this many.
    pub limit: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    client_tx_id: String,
    commit_id: Uuid,
    number: i32,
    cause: String,
    started_at: OffsetDateTime,
    duration_ms: Option<i32>,
    http_status: Option<i32>,
    outcome: Option<String>,
    error_class: Option<String>,
    message: Option<String>,
    response_excerpt: Option<String>,
    next_attempt_at: Option<OffsetDateTime>,
}

impl Row {
    fn attempt(self) -> Result<Attempt, Error> {
        let trigger = Trigger::parse(&self.cause).ok_or_else(|| Error::Corrupt {
            table: "attempts",
            column: "cause",
            row: format!("{}/{}", self.client_tx_id, self.number),
        })?;
        Ok(Attempt {
            client_tx_id: self.client_tx_id,
            commit: CommitId(self.commit_id),
            number: self.number,
            trigger,
            started_at: self.started_at,
            duration_ms: self.duration_ms,
            http_status: self.http_status,
            outcome: self.outcome,
            error_class: self.error_class,
            message: self.message,
            response_excerpt: self.response_excerpt,
            next_attempt_at: self.next_attempt_at,
        })
    }
}

/// The attempts that the query asks for, newest first.
pub async fn list(store: &Store, query: Query) -> Result<Vec<Attempt>, Error> {
    detached(&store.reads, |pool| async move {
        let statement = match query.client_tx_id {
            None => include_str!("sql/list_attempts.sql"),
            Some(_) => include_str!("sql/list_commit_attempts.sql"),
        };
        let mut prepared = sqlx::query_as::<_, Row>(statement)
            .bind(query.organization.as_str())
            .bind(&query.source)
            .bind(query.before.map(|position| position.started_at))
            .bind(query.before.map(|position| position.commit))
            .bind(query.before.map(|position| position.number))
            .bind(query.limit);
        if let Some(client_tx_id) = &query.client_tx_id {
            prepared = prepared.bind(client_tx_id);
        }
        prepared
            .fetch_all(&pool)
            .await?
            .into_iter()
            .map(Row::attempt)
            .collect()
    })
    .await
}
