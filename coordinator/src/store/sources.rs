//! Data Sources as their operator sees them: settings and status.

use std::time::Duration;

use backends::data_source::schedule::RetrySchedule;
use time::OffsetDateTime;

use super::{Error, Store, detached};
use crate::domain::{
    FeedState, OrganizationId, RequestError, RequestKind, SourceSettings, SourceState,
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
    /// Commits that may be pending.
    pub max_pending: i64,
    /// Commits whose attempts are exhausted.
    pub dead: i64,
    /// Since the oldest pending commit was accepted.
    pub oldest_pending: Option<Duration>,
    /// Nothing is sent before this.
    pub backoff_until: Option<OffsetDateTime>,
    /// When the certificate that the endpoint last showed ends.
    pub certificate_expires_at: Option<OffsetDateTime>,
    /// That moment, by the clock of the database.
    pub seen_at: OffsetDateTime,
    /// When the row of failures began that goes on.
    pub failing_since: Option<OffsetDateTime>,
    /// By kind, those that were ever sent.
    pub requests: Vec<Requests>,
    /// How its feed does; `None` before it was first read.
    pub feed: Option<FeedStanding>,
    /// Pushed events that wait.
    pub pushed: i64,
}

/// How a source's feed does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedStanding {
    /// Whether it is polled.
    pub state: FeedState,
    /// The endpoint's newest cursor.
    pub newest_cursor: Option<String>,
    /// Where the sweep begins.
    pub durable_cursor: Option<String>,
    /// Since it was last read to its end.
    pub lag: Option<Duration>,
    /// When an event was last taken in.
    pub last_event_at: Option<OffsetDateTime>,
    /// The longest that an event became visible behind a newer cursor.
    pub largest_lateness: Duration,
    /// External events appended to the log.
    pub taken: i64,
    /// Events that came again.
    pub duplicates: i64,
    /// Events that were our own commits come back.
    pub echoes: i64,
    /// Events that did not fit.
    pub quarantined: i64,
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

#[derive(sqlx::FromRow)]
struct SourceRow {
    source_id: String,
    url: String,
    retry_delays_ms: Vec<i64>,
    request_timeout_ms: i64,
    max_in_flight: i32,
    max_per_second: i32,
    max_pending: i64,
    feed_lag_ms: i64,
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
    max_pending: i64,
    dead_count: i64,
    backoff_until: Option<OffsetDateTime>,
    failing_since: Option<OffsetDateTime>,
    oldest_pending_ms: Option<i64>,
    certificate_expires_at: Option<OffsetDateTime>,
    seen_at: OffsetDateTime,
    kind: Option<String>,
    last_success_at: Option<OffsetDateTime>,
    #[sqlx(flatten)]
    error: ErrorColumns,
    last_error_at: Option<OffsetDateTime>,
    #[sqlx(flatten)]
    feed: FeedColumns,
    pushed_count: i64,
}

#[derive(sqlx::FromRow)]
struct FeedColumns {
    feed_state: Option<String>,
    newest_cursor: Option<String>,
    durable_cursor: Option<String>,
    feed_lag_ms: Option<i64>,
    last_event_at: Option<OffsetDateTime>,
    largest_lateness_ms: Option<i64>,
    taken_count: Option<i64>,
    duplicate_count: Option<i64>,
    echo_count: Option<i64>,
    quarantined_count: Option<i64>,
}

#[derive(sqlx::FromRow)]
#[expect(
    clippy::struct_field_names,
    reason = "they are the names of the columns"
)]
pub(super) struct ErrorColumns {
    last_error_class: Option<String>,
    last_error_message: Option<String>,
    last_error_status: Option<i32>,
}

impl ErrorColumns {
    pub(super) fn at(self, at: Option<OffsetDateTime>) -> Option<RequestError> {
        Some(RequestError {
            at: at?,
            class: self.last_error_class?,
            message: self.last_error_message.unwrap_or_default(),
            http_status: self.last_error_status.unwrap_or_default(),
        })
    }
}

impl FeedColumns {
    fn standing(self, id: &str) -> Result<Option<FeedStanding>, Error> {
        let Some(word) = self.feed_state else {
            return Ok(None);
        };
        Ok(Some(FeedStanding {
            state: FeedState::parse(&word).ok_or_else(|| corrupt("feeds", "state", id))?,
            newest_cursor: self.newest_cursor,
            durable_cursor: self.durable_cursor,
            lag: self.feed_lag_ms.map(duration),
            last_event_at: self.last_event_at,
            largest_lateness: duration(self.largest_lateness_ms.unwrap_or_default()),
            taken: self.taken_count.unwrap_or_default(),
            duplicates: self.duplicate_count.unwrap_or_default(),
            echoes: self.echo_count.unwrap_or_default(),
            quarantined: self.quarantined_count.unwrap_or_default(),
        }))
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
                max_per_second: self.max_per_second,
                max_pending: self.max_pending,
                feed_lag: duration(self.feed_lag_ms),
            },
            id: self.source_id,
            state_reason: self.state_reason,
            created_at: self.created_at,
            updated_at: self.updated_at,
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
                max_pending: row.max_pending,
                dead: row.dead_count,
                oldest_pending: row.oldest_pending_ms.map(duration),
                backoff_until: row.backoff_until,
                certificate_expires_at: row.certificate_expires_at,
                seen_at: row.seen_at,
                failing_since: row.failing_since,
                requests: Vec::new(),
                feed: row.feed.standing(id)?,
                pushed: row.pushed_count,
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
