//! Commits that their Data Source has not settled: listed for people, looked up for operators.

use bytes::Bytes;
use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use uuid::Uuid;

use super::sources::ErrorColumns;
use super::{Error, Store, detached};
use crate::decide::Target;
use crate::domain::{CommitId, OrganizationId, Participant, ParticipantKind, RequestError};

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
    /// When an attempt first failed.
    pub first_failed_at: Option<OffsetDateTime>,
    /// No attempt starts after this.
    pub expires_at: Option<OffsetDateTime>,
    /// When the attempt in flight ends at the latest.
    pub open_deadline: Option<OffsetDateTime>,
    /// Until when an attempt of unknown fate may still be applied.
    pub may_apply_until: Option<OffsetDateTime>,
    /// When its rows were last read back from the endpoint, and what it then held.
    pub read_back: Option<(OffsetDateTime, String)>,
    /// The first commit before it on one of its rows; told when one commit is asked for.
    pub blocked_by: Option<String>,
}

/// Which unsettled commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of them.
    All,
    /// Those that have not failed yet.
    Waiting,
    /// Those that failed and are tried again.
    Failing,
    /// Those whose attempts are exhausted.
    Dead,
}

impl Filter {
    /// Whether a commit is one of them.
    pub fn takes(self, pending: &Pending) -> bool {
        let failed = pending.first_failed_at.is_some();
        match self {
            Self::All => true,
            Self::Waiting => !failed && !pending.dead,
            Self::Failing => failed && !pending.dead,
            Self::Dead => pending.dead,
        }
    }

    /// A condition on `inbox`; the last two find their rows in the index of those that failed.
    fn condition(self) -> &'static str {
        match self {
            Self::All => "true",
            Self::Waiting => "inbox.first_failed_at IS NULL AND NOT inbox.dead",
            Self::Failing => "inbox.first_failed_at IS NOT NULL AND NOT inbox.dead",
            Self::Dead => "inbox.dead",
        }
    }
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
    first_failed_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    open_deadline: Option<OffsetDateTime>,
    may_apply_until: Option<OffsetDateTime>,
    read_back_at: Option<OffsetDateTime>,
    read_back: Option<String>,
    accepted_at: OffsetDateTime,
    participant_id: String,
    participant_kind: String,
    blocked_by: Option<String>,
}

impl PendingRow {
    fn pending(self) -> Result<Pending, Error> {
        let kind =
            ParticipantKind::parse(&self.participant_kind).ok_or_else(|| Error::Corrupt {
                table: "commits",
                column: "participant_kind",
                row: self.client_tx_id.clone(),
            })?;
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
            first_failed_at: self.first_failed_at,
            expires_at: self.expires_at,
            open_deadline: self.open_deadline,
            may_apply_until: self.may_apply_until,
            read_back: self.read_back_at.zip(self.read_back),
            blocked_by: self.blocked_by,
        })
    }
}

/// At most `limit` unsettled commits after the sequence `after`, in the order of acceptance.
pub async fn list(
    store: &Store,
    (organization, source): (OrganizationId, String),
    filter: Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<Pending>, Error> {
    detached(&store.reads, |pool| async move {
        // Text of ours: as a parameter it would hide from the planner which index serves.
        let statement =
            include_str!("sql/list_pending.sql").replace("{filter}", filter.condition());
        let rows: Vec<PendingRow> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(organization.as_str())
            .bind(source)
            .bind(after)
            .bind(limit)
            .fetch_all(&pool)
            .await?;
        rows.into_iter().map(PendingRow::pending).collect()
    })
    .await
}

/// One unsettled commit, and what it waits for; `None` when the source has none of this name.
pub async fn get(
    store: &Store,
    (organization, source): (OrganizationId, String),
    client_tx_id: String,
) -> Result<Option<Pending>, Error> {
    detached(&store.reads, |pool| async move {
        let row: Option<PendingRow> = sqlx::query_as(include_str!("sql/get_pending.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(client_tx_id)
            .fetch_optional(&pool)
            .await?;
        row.map(PendingRow::pending).transpose()
    })
    .await
}

/// Where unsettled commits of a source stand in its inbox; names that none has are left out.
pub async fn places(
    store: &Store,
    (organization, source): (OrganizationId, String),
    client_tx_ids: Vec<String>,
) -> Result<Vec<Target>, Error> {
    detached(&store.ledger, |pool| async move {
        let rows: Vec<(String, i64)> = sqlx::query_as(include_str!("sql/pending_places.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(client_tx_ids)
            .fetch_all(&pool)
            .await?;
        Ok(rows.into_iter().map(target).collect())
    })
    .await
}

fn target((client_tx_id, sequence): (String, i64)) -> Target {
    Target {
        client_tx_id,
        sequence,
    }
}

/// What an unsettled commit asks of its endpoint.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Asked {
    /// The exact bytes that are sent.
    #[sqlx(try_from = "Vec<u8>")]
    pub body: Bytes,
    /// The schema that it was admitted under.
    pub schema_version: i32,
}

/// What an unsettled commit asks; `None` when the source has none of this name.
pub async fn asked(
    store: &Store,
    (organization, source): (OrganizationId, String),
    client_tx_id: String,
) -> Result<Option<Asked>, Error> {
    detached(&store.ledger, |pool| async move {
        Ok(sqlx::query_as(include_str!("sql/pending_asked.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(client_tx_id)
            .fetch_optional(&pool)
            .await?)
    })
    .await
}

/// A stretch of a source's inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// After this sequence.
    pub after: i64,
    /// Up to this one.
    pub last: i64,
    /// At most so many.
    pub limit: i64,
}

/// Commits in a stretch of the inbox that are dead or failing, that nobody asked to retry yet, and
/// whose last attempt failed at `since` or later.
pub async fn failed(
    store: &Store,
    (organization, source): (OrganizationId, String),
    since: Option<OffsetDateTime>,
    stretch: Stretch,
) -> Result<Vec<Target>, Error> {
    detached(&store.reads, |pool| async move {
        let rows: Vec<(String, i64)> = sqlx::query_as(include_str!("sql/pending_failed.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(since)
            .bind(stretch.after)
            .bind(stretch.last)
            .bind(stretch.limit)
            .fetch_all(&pool)
            .await?;
        Ok(rows.into_iter().map(target).collect())
    })
    .await
}

/// Sequence of a source's newest commit; `None` when there is no such source.
pub async fn newest(
    store: &Store,
    (organization, source): (OrganizationId, String),
) -> Result<Option<i64>, Error> {
    detached(&store.ledger, |pool| async move {
        Ok(sqlx::query_scalar(include_str!("sql/pending_newest.sql"))
            .bind(organization.as_str())
            .bind(source)
            .fetch_optional(&pool)
            .await?)
    })
    .await
}
