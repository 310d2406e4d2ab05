//! Reads the log: its heads, its changes by position, and the rows that it stands for.

use backends::operation::{OperationKind, RowKey};
use sqlx::postgres::{PgListener, PgRow};
use sqlx::{Acquire, Connection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, detached, in_time, pool, sign_of_life};
use crate::decide::{Append, DeltaRow};
use crate::domain::{OrganizationId, Participant, ParticipantKind};

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Position of its newest change.
    pub position: i64,
    /// Its epoch.
    pub epoch: Uuid,
}

/// A change as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Logged {
    /// Its position.
    pub sync_id: i64,
    /// When it was appended.
    pub created_at: OffsetDateTime,
    /// The commit that made it; `None` for a change made outside.
    pub client_tx_id: Option<String>,
    /// Position of the operation in its commit.
    pub operation: Option<i16>,
    kind: String,
    /// The row's model.
    pub model: String,
    /// The row's id.
    pub row_id: String,
    /// The row after the change, JSON.
    pub row: Option<String>,
    /// What the caller named the operation.
    pub transaction_id: Option<String>,
    participant_id: Option<String>,
    participant_kind: Option<String>,
    /// The row had changed after the operation's `read_at`, and it said FLAG.
    pub stale: bool,
    /// Sync groups of the row afterwards.
    pub groups: Vec<String>,
    /// Sync groups that it left.
    pub left_groups: Vec<String>,
}

/// What an append added to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The epoch of the log that it was written to.
    pub epoch: Uuid,
    /// In order.
    pub changes: Vec<Logged>,
}

/// Some changes, and the head of the same snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// The head.
    pub head: LogHead,
    /// In order.
    pub changes: Vec<Logged>,
}

/// Which part of a log to read.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Behind this position.
    pub after: i64,
    /// At most so many changes.
    pub count: i64,
    /// Rows of about so many bytes at most; one change always fits.
    pub bytes: i64,
    /// Changes older than this need not be looked for; saves looking at old partitions.
    pub since: Option<OffsetDateTime>,
}

/// A managed row, as a snapshot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRow {
    /// The row's id.
    pub id: String,
    /// JSON.
    pub row: String,
    /// Whether it is archived.
    pub archived: bool,
    /// Position of its last change.
    pub sync_id: i64,
}

impl Logged {
    /// What was done.
    pub fn kind(&self) -> Result<OperationKind, Error> {
        OperationKind::parse(&self.kind).ok_or_else(|| self.corrupt("kind"))
    }

    /// Who wrote, if it was made by a commit.
    pub fn participant(&self) -> Result<Option<Participant>, Error> {
        let (Some(id), Some(kind)) = (&self.participant_id, &self.participant_kind) else {
            return Ok(None);
        };
        let kind = ParticipantKind::parse(kind).ok_or_else(|| self.corrupt("participant_kind"))?;
        Ok(Some(Participant {
            id: id.clone(),
            kind,
        }))
    }

    /// The change that an append of this time wrote down: as it would be read.
    fn of(row: &DeltaRow, created_at: OffsetDateTime) -> Self {
        let DeltaRow {
            delta,
            client_tx_id,
            participant,
            membership,
        } = row;
        let change = &delta.change;
        let participant = participant.as_ref();
        Self {
            sync_id: delta.sync_id,
            created_at,
            client_tx_id: client_tx_id.clone(),
            operation: change.operation.and_then(|at| i16::try_from(at).ok()),
            kind: change.kind.as_str().to_owned(),
            model: change.model.clone(),
            row_id: change.id.clone(),
            row: change.row.as_ref().map(|row| row.text().to_owned()),
            transaction_id: change.transaction_id.clone(),
            participant_id: participant.map(|who| who.id.clone()),
            participant_kind: participant.map(|who| who.kind.as_str().to_owned()),
            stale: delta.stale,
            groups: membership.groups.clone(),
            left_groups: membership.left.clone(),
        }
    }

    /// An UPDATE of a note, for tests.
    #[cfg(test)]
    pub(crate) fn scratch(sync_id: i64, row: String) -> Self {
        Self {
            sync_id,
            created_at: OffsetDateTime::UNIX_EPOCH,
            client_tx_id: Some(format!("tx-{sync_id}")),
            operation: Some(0),
            kind: "UPDATE".to_owned(),
            model: "notes".to_owned(),
            row_id: "a".to_owned(),
            row: Some(row),
            transaction_id: None,
            participant_id: Some("ann".to_owned()),
            participant_kind: Some("user".to_owned()),
            stale: false,
            groups: Vec::new(),
            left_groups: Vec::new(),
        }
    }

    fn corrupt(&self, column: &'static str) -> Error {
        Error::Corrupt {
            table: "deltas",
            column,
            row: self.sync_id.to_string(),
        }
    }
}

/// Changes of an append that need not be read back, and bytes of their rows, at most: for more than that a
/// read costs little, and this is kept in memory for as long as somebody follows the log.
const GROWTH: (usize, usize) = (64, 64 << 10);

impl Growth {
    /// What an append of this time added to the log of this epoch; `None` when it is so much that it
    /// had better be read.
    pub(crate) fn of(append: &Append, (now, epoch): (OffsetDateTime, Uuid)) -> Option<Self> {
        let rows = append
            .deltas
            .iter()
            .filter_map(|one| one.delta.change.row.as_ref());
        let bytes: usize = rows.map(|row| row.text().len()).sum();
        let (most, most_bytes) = GROWTH;
        let small = append.deltas.len() <= most && bytes <= most_bytes;
        small.then(|| Self {
            epoch,
            changes: append
                .deltas
                .iter()
                .map(|one| Logged::of(one, now))
                .collect(),
        })
    }
}

impl Store {
    /// Where these logs stand; those of unknown organizations are left out.
    pub async fn log_heads(
        &self,
        organizations: &[OrganizationId],
    ) -> Result<Vec<(OrganizationId, LogHead)>, Error> {
        let ids: Vec<String> = organizations.iter().map(ToString::to_string).collect();
        let rows = detached(&self.log, |pool| async move {
            let heads = sqlx::query(include_str!("sql/log_heads.sql"));
            Ok(heads.bind(ids).fetch_all(&pool).await?)
        })
        .await?;
        let heads = rows.iter().map(|row| {
            let id: String = row.try_get("org_id")?;
            Ok((OrganizationId::new(&id), head(row)?))
        });
        heads.collect()
    }

    /// Changes of a log, in order, and its head; `None` when there is no such organization.
    pub async fn log_page(
        &self,
        organization: &OrganizationId,
        span: Span,
    ) -> Result<Option<LogPage>, Error> {
        let key = organization.clone();
        let rows = detached(&self.log, |pool| async move {
            let page = sqlx::query(include_str!("sql/log_page.sql"))
                .bind(key.as_str())
                .bind(span.after)
                .bind(span.count)
                .bind(span.bytes)
                .bind(span.since);
            Ok(page.fetch_all(&pool).await?)
        })
        .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let head = head(first)?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get::<Option<i64>, _>("sync_id")?.is_some() {
                changes.push(sqlx::FromRow::from_row(row)?);
            }
        }
        Ok(Some(LogPage { head, changes }))
    }

    /// Position of the oldest change that is kept; one beyond the head when there is none.
    pub async fn log_floor(&self, organization: &OrganizationId) -> Result<i64, Error> {
        let key = organization.clone();
        detached(&self.log, |pool| async move {
            let floor = sqlx::query_scalar(include_str!("sql/log_floor.sql"));
            Ok(floor.bind(key.as_str()).fetch_one(&pool).await?)
        })
        .await
    }

    /// What the newest change of a row in a Data Source left of it, JSON, none after a DELETE; `None`
    /// when the log does not have that change.
    pub async fn row_in_log(
        &self,
        organization: &OrganizationId,
        row: &RowKey,
    ) -> Result<Option<Option<String>>, Error> {
        let (key, row) = (organization.clone(), row.clone());
        detached(&self.log, |pool| async move {
            let found = sqlx::query_scalar(include_str!("sql/row_in_log.sql"))
                .bind(key.as_str())
                .bind(row.model)
                .bind(row.id);
            Ok(found.fetch_optional(&pool).await?)
        })
        .await
    }

    /// Rows of a managed model behind an id, in order of their ids, at most `count` and about
    /// `bytes` of them, and the head of the same snapshot; `None` when there is no such organization.
    pub async fn snapshot_page(
        &self,
        organization: &OrganizationId,
        (model, after): (&str, &str),
        (count, bytes): (i64, i64),
    ) -> Result<Option<(LogHead, Vec<SnapshotRow>)>, Error> {
        let (key, model, after) = (organization.clone(), model.to_owned(), after.to_owned());
        let rows = detached(&self.log, |pool| async move {
            let page = sqlx::query(include_str!("sql/snapshot_page.sql"))
                .bind(key.as_str())
                .bind(model)
                .bind(after)
                .bind(count)
                .bind(bytes);
            Ok(page.fetch_all(&pool).await?)
        })
        .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let head = head(first)?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(id) = row.try_get::<Option<String>, _>("row_id")? {
                found.push(SnapshotRow {
                    id,
                    row: row.try_get("row")?,
                    archived: row.try_get("archived")?,
                    sync_id: row.try_get("sync_id")?,
                });
            }
        }
        Ok(Some((head, found)))
    }

    /// Gives an organization's log, or every log, a new epoch; says how many. Whoever follows them
    /// must start anew.
    pub async fn new_log_epoch(&self, organization: Option<&OrganizationId>) -> Result<u64, Error> {
        let key = organization.map(ToString::to_string);
        detached(&self.log, |pool| async move {
            let changed = sqlx::query(include_str!("sql/new_log_epoch.sql"));
            Ok(changed.bind(key).execute(&pool).await?.rows_affected())
        })
        .await
    }

    /// Tells the other nodes, in so many notifications.
    pub async fn notify(&self, payloads: Vec<String>) -> Result<(), Error> {
        detached(&self.signals, |pool| async move {
            sqlx::query(include_str!("sql/notify.sql"))
                .bind(payloads)
                .execute(&pool)
                .await?;
            Ok(())
        })
        .await
    }

    /// Hears what nodes tell each other, on a connection of its own.
    pub async fn listener(&self) -> Result<Listener, Error> {
        // Of a pool of its own: whatever is left of a connection that died is in nobody's way.
        let options = self.signals.connect_options().as_ref().clone();
        let listening = async {
            let mut listener = PgListener::connect_with(&pool(options, 1)).await?;
            listener.listen("coordinator").await?;
            Ok(Listener(listener))
        };
        in_time(Box::pin(listening)).await
    }
}

/// Hears what nodes tell each other.
#[derive(Debug)]
pub struct Listener(PgListener);

impl Listener {
    /// The next telling; `None` when the connection was lost and made again.
    pub async fn heard(&mut self) -> Result<Option<String>, Error> {
        let heard = self.0.try_recv().await?;
        Ok(heard.map(|telling| telling.payload().to_owned()))
    }

    /// Asks whether the database is still at the other end.
    pub async fn sign_of_life(&mut self) -> Result<(), Error> {
        let looking = async {
            let connection = self.0.acquire().await?;
            Ok(sign_of_life(connection.ping()).await?)
        };
        in_time(Box::pin(looking)).await
    }
}

fn head(row: &PgRow) -> Result<LogHead, Error> {
    Ok(LogHead {
        position: row.try_get("head_position")?,
        epoch: row.try_get("log_epoch")?,
    })
}
