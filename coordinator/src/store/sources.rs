//! Data Sources as their operator sees them: settings, status, what is pending.

use std::time::Duration;

use backends::data_source::schedule::RetrySchedule;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, detached};
use crate::domain::{
    CommitId, OrganizationId, Participant, ParticipantKind, RequestError, RequestKind,
    SourceSettings, SourceState,
};

/// A source and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What a schema's backing names.
    pub id: String,
    /// What an operator set.
    pub settings: SourceSettings,
    /// What it does with commits.
    pub state: SourceState,
    /// Why it is failing or disabled.
    pub state_reason: String,
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// When an operator last changed it.
    pub updated_at: OffsetDateTime,
}

/// How a source does, all of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it does with commits.
    pub state: SourceState,
    /// Why it is failing or disabled.
    pub state_reason: String,
    /// Finished attempts, in the order of [`crate::decide::OUTCOMES`].
    pub attempts_by_outcome: Vec<i64>,
    /// The same, without the first attempt of each commit.
    pub retries_by_outcome: Vec<i64>,
    /// Commits neither settled nor dead.
    pub pending: i64,
    /// Commits whose attempts are exhausted.
    pub dead: i64,
    /// Since the oldest pending commit was accepted.
    pub oldest_pending: Option<Duration>,
    /// Nothing is sent before this.
    pub backoff_until: Option<OffsetDateTime>,
    /// By kind, those that were ever sent.
    pub requests: Vec<Requests>,
}

/// The last success and the last error of one kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// The kind.
    pub kind: RequestKind,
    /// When one last succeeded.
    pub last_success: Option<OffsetDateTime>,
    /// How one last failed.
    pub last_error: Option<RequestError>,
}

/// A commit that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its place among the source's commits.
    pub sequence: i64,
    /// The caller's name for it.
    pub client_tx_id: String,
    /// Ours.
    pub id: CommitId,
    /// Who wrote.
    pub participant: Participant,
    /// When it was accepted.
    pub accepted_at: OffsetDateTime,
    /// Attempts made so far.
    pub attempts: i32,
    /// When the next one may start; `None` when it is dead.
    pub due_at: Option<OffsetDateTime>,
    /// Why the last one failed.
    pub last_error: Option<RequestError>,
    /// Attempts are exhausted.
    pub dead: bool,
}

#[derive(sqlx::FromRow)]
struct SourceRow {
    source_id: String,
    url: String,
    retry_delays_ms: Vec<i64>,
    request_timeout_ms: i64,
    max_in_flight: i32,
    state: String,
    state_reason: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct StatusRow {
    state: String,
    state_reason: String,
    attempts_by_outcome: Vec<i64>,
    retries_by_outcome: Vec<i64>,
    pending_count: i64,
    dead_count: i64,
    backoff_until: Option<OffsetDateTime>,
    oldest_pending_ms: Option<i64>,
    kind: Option<String>,
    last_success_at: Option<OffsetDateTime>,
    #[sqlx(flatten)]
    error: ErrorColumns,
    last_error_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct PendingRow {
    sequence: i64,
    client_tx_id: String,
    commit_id: Uuid,
    dead: bool,
    attempts: i32,
    due_at: OffsetDateTime,
    last_error_at: Option<OffsetDateTime>,
    #[sqlx(flatten)]
    error: ErrorColumns,
    accepted_at: OffsetDateTime,
    participant_id: String,
    participant_kind: String,
}

#[derive(sqlx::FromRow)]
#[expect(
    clippy::struct_field_names,
    reason = "they are the names of the columns"
)]
struct ErrorColumns {
    last_error_class: Option<String>,
    last_error_message: Option<String>,
    last_error_status: Option<i32>,
}

impl ErrorColumns {
    fn at(self, at: Option<OffsetDateTime>) -> Option<RequestError> {
        Some(RequestError {
            at: at?,
            class: self.last_error_class?,
            message: self.last_error_message.unwrap_or_default(),
            http_status: self.last_error_status.unwrap_or_default(),
        })
    }
}

impl SourceRow {
    fn source(self) -> Result<Source, Error> {
        let retry = RetrySchedule {
            delays: self.retry_delays_ms.into_iter().map(duration).collect(),
        };
        Ok(Source {
            state: state(&self.state, &self.source_id)?,
            settings: SourceSettings {
                url: self.url,
                retry,
                request_timeout: duration(self.request_timeout_ms),
                max_in_flight: self.max_in_flight,
            },
            id: self.source_id,
            state_reason: self.state_reason,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl PendingRow {
    fn pending(self) -> Result<Pending, Error> {
        let kind = ParticipantKind::parse(&self.participant_kind)
            .ok_or_else(|| corrupt("commits", "participant_kind", &self.client_tx_id))?;
        Ok(Pending {
            sequence: self.sequence,
            client_tx_id: self.client_tx_id,
            id: CommitId(self.commit_id),
            participant: Participant {
                id: self.participant_id,
                kind,
            },
            accepted_at: self.accepted_at,
            attempts: self.attempts,
            due_at: (!self.dead).then_some(self.due_at),
            last_error: self.error.at(self.last_error_at),
            dead: self.dead,
        })
    }
}

/// A stored number of milliseconds; the table's checks keep it positive.
fn duration(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default())
}

fn state(word: &str, source: &str) -> Result<SourceState, Error> {
    SourceState::parse(word).ok_or_else(|| corrupt("data_sources", "state", source))
}

fn corrupt(table: &'static str, column: &'static str, row: &str) -> Error {
    Error::Corrupt {
        table,
        column,
        row: row.to_owned(),
    }
}

/// One source, if there is one with this id.
pub async fn get(
    store: &Store,
    organization: OrganizationId,
    id: String,
) -> Result<Option<Source>, Error> {
    detached(&store.reads, |pool| async move {
        let row: Option<SourceRow> = sqlx::query_as(include_str!("sql/get_source.sql"))
            .bind(organization.as_str())
            .bind(id)
            .fetch_optional(&pool)
            .await?;
        row.map(SourceRow::source).transpose()
    })
    .await
}

/// At most `limit` sources after the id `after`, by id.
pub async fn list(
    store: &Store,
    organization: OrganizationId,
    after: Option<String>,
    limit: i64,
) -> Result<Vec<Source>, Error> {
    detached(&store.reads, |pool| async move {
        let rows: Vec<SourceRow> = sqlx::query_as(include_str!("sql/list_sources.sql"))
            .bind(organization.as_str())
            .bind(after)
            .bind(limit)
            .fetch_all(&pool)
            .await?;
        rows.into_iter().map(SourceRow::source).collect()
    })
    .await
}

/// How the source does at this moment, read from one snapshot.
pub async fn status(
    store: &Store,
    organization: OrganizationId,
    id: String,
) -> Result<Option<Status>, Error> {
    detached(&store.reads, |pool| async move {
        let rows: Vec<StatusRow> = sqlx::query_as(include_str!("sql/source_status.sql"))
            .bind(organization.as_str())
            .bind(&id)
            .fetch_all(&pool)
            .await?;
        gathered(rows, &id)
    })
    .await
}

/// Rows that repeat the source for each kind of request become one status.
fn gathered(rows: Vec<StatusRow>, id: &str) -> Result<Option<Status>, Error> {
    let mut status: Option<Status> = None;
    for row in rows {
        let status = match &mut status {
            Some(status) => status,
            None => status.insert(Status {
                state: state(&row.state, id)?,
                state_reason: row.state_reason,
                attempts_by_outcome: row.attempts_by_outcome,
                retries_by_outcome: row.retries_by_outcome,
                pending: row.pending_count,
                dead: row.dead_count,
                oldest_pending: row.oldest_pending_ms.map(duration),
                backoff_until: row.backoff_until,
                requests: Vec::new(),
            }),
        };
        if let Some(word) = row.kind {
            status.requests.push(Requests {
                kind: RequestKind::parse(&word)
                    .ok_or_else(|| corrupt("source_requests", "kind", id))?,
                last_success: row.last_success_at,
                last_error: row.error.at(row.last_error_at),
            });
        }
    }
    Ok(status)
}

/// At most `limit` unsettled commits after the sequence `after`, in the order of acceptance.
pub async fn pending(
    store: &Store,
    organization: OrganizationId,
    id: String,
    after: i64,
    limit: i64,
) -> Result<Vec<Pending>, Error> {
    detached(&store.reads, |pool| async move {
        let rows: Vec<PendingRow> = sqlx::query_as(include_str!("sql/list_pending.sql"))
            .bind(organization.as_str())
            .bind(id)
            .bind(after)
            .bind(limit)
            .fetch_all(&pool)
            .await?;
        rows.into_iter().map(PendingRow::pending).collect()
    })
    .await
}
