//! Reads a source's inbox for its courier.

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store};
use crate::decide::{Recovery, Terms};
use crate::domain::{OrganizationId, SourceState, Trigger};

/// A source and the next commits of its inbox, as one snapshot shows them.
#[derive(Clone, Debug)]
pub struct Window {
    /// When, by the clock of the database.
    pub now: OffsetDateTime,
    /// The node that delivers to it.
    pub owner: Option<Uuid>,
    /// Counts owners.
    pub epoch: i64,
    /// What it does with commits.
    pub state: SourceState,
    /// Commit requests in flight at most.
    pub max_in_flight: usize,
    /// Commit requests started per second at most; 0 for no limit.
    pub max_per_second: u32,
    /// Sequence of its newest commit.
    pub inbox_sequence: i64,
    /// Counts what operators did to its commits: those that were read before are to be read anew.
    pub inbox_revision: i64,
    /// Nothing is sent before this.
    pub backoff_until: Option<OffsetDateTime>,
    /// The end of its last failing spell.
    pub recovery: Option<Recovery>,
    /// Attempts that were settled by then.
    pub settled: i64,
    /// The commits, by sequence.
    pub entries: Vec<Waiting>,
}

/// A commit that waits, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its place.
    pub sequence: i64,
    /// Hashes of the rows that it touches.
    pub lanes: Vec<i64>,
    /// Bytes of its body.
    pub weight: u32,
    /// It will not be sent, and only holds its lanes until this time.
    pub holds_until: Option<OffsetDateTime>,
    /// An attempt was made before.
    pub tried: bool,
    /// When the next attempt may start.
    pub due_at: OffsetDateTime,
    /// When the last one failed.
    pub failed_at: Option<OffsetDateTime>,
    /// What its attempts rest on; most rest on nothing.
    pub terms: Option<Arc<Terms>>,
    /// An attempt is open until this time.
    pub open_until: Option<OffsetDateTime>,
    /// Somebody asked for the next attempt: it does not wait for the source.
    pub asked: bool,
}

impl Store {
    /// The source and at most `limit` commits after `after`; `None` when the source is gone.
    pub async fn window(
        &self,
        organization: &OrganizationId,
        source: &str,
        after: i64,
        limit: i64,
    ) -> Result<Option<Window>, Error> {
        let rows = sqlx::query(include_str!("sql/window.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(after)
            .bind(limit)
            .fetch_all(&self.ledger)
            .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let state: String = first.try_get("state")?;
        let cap: i32 = first.try_get("max_in_flight")?;
        let rate: i32 = first.try_get("max_per_second")?;
        let recovered_at: Option<OffsetDateTime> = first.try_get("recovered_at")?;
        let from = first.try_get("recovered_from")?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            entries.extend(waiting(row)?);
        }
        Ok(Some(Window {
            now: first.try_get("now")?,
            owner: first.try_get("owner")?,
            epoch: first.try_get("epoch")?,
            state: SourceState::parse(&state).ok_or_else(|| Error::Corrupt {
                table: "data_sources",
                column: "state",
                row: format!("{organization}/{source}"),
            })?,
            max_in_flight: usize::try_from(cap).unwrap_or(1),
            max_per_second: u32::try_from(rate).unwrap_or(0),
            inbox_sequence: first.try_get("inbox_sequence")?,
            inbox_revision: first.try_get("inbox_revision")?,
            backoff_until: first.try_get("backoff_until")?,
            recovery: recovered_at.map(|at| Recovery { from, at }),
            settled: first.try_get("settled")?,
            entries,
        }))
    }
}

fn waiting(row: &PgRow) -> Result<Option<Waiting>, Error> {
    let Some(sequence) = row.try_get::<Option<i64>, _>("sequence")? else {
        return Ok(None);
    };
    let dead: bool = row.try_get("dead")?;
    let may_apply_until: Option<OffsetDateTime> = row.try_get("may_apply_until")?;
    let due_at: OffsetDateTime = row.try_get("due_at")?;
    let open_deadline: Option<OffsetDateTime> = row.try_get("open_deadline")?;
    let client_tx_id: Option<String> = row.try_get("client_tx_id")?;
    let cause: Option<String> = row.try_get("next_cause")?;
    let terms = client_tx_id.map(|client_tx_id| terms(row, client_tx_id));
    Ok(Some(Waiting {
        sequence,
        lanes: row.try_get("lanes")?,
        weight: row.try_get::<i32, _>("weight")?.unsigned_abs(),
        holds_until: may_apply_until.filter(|_| dead),
        tried: row.try_get("tried")?,
        due_at: due_at.max(open_deadline.unwrap_or(due_at)),
        failed_at: row.try_get("failed_at")?,
        terms: terms.transpose()?.map(Arc::new),
        asked: cause
            .and_then(|cause| Trigger::parse(&cause))
            .is_some_and(Trigger::is_asked),
        open_until: open_deadline,
    }))
}

fn terms(row: &PgRow, client_tx_id: String) -> Result<Terms, Error> {
    let guards: Option<String> = row.try_get("guards")?;
    let guards = guards.map_or(Ok(Vec::new()), |guards| serde_json::from_str(&guards));
    Ok(Terms {
        guards: guards.map_err(|_| Error::Corrupt {
            table: "inbox",
            column: "guards",
            row: client_tx_id.clone(),
        })?,
        expires_at: row.try_get("expires_at")?,
        client_tx_id,
    })
}
