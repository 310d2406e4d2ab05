//! Feeds of changes made outside: how far each was taken in, and what waits or did not fit.

mod append;

use std::time::Duration;

use backends::operation::RowKey;
use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, detached};
use crate::decide::{EchoOf, Feed};
use crate::domain::{FeedState, Mode, OrganizationId, SourceState};
use crate::feed::trail::{Passed, Trail};

pub(super) use append::append;

/// Pushed events that may wait for one source; more are turned away.
const MOST_PUSHED: i64 = 100_000;

/// The columns of a feed, as statements give them.
#[derive(Debug)]
pub(super) struct FeedColumns {
    pub(super) state: String,
    pub(super) newest: Option<String>,
    pub(super) durable: Option<String>,
    /// A JSON array.
    pub(super) cursors: String,
    /// Microseconds since 1970.
    pub(super) seen_at: Vec<i64>,
    pub(super) last_event_at: Option<OffsetDateTime>,
    pub(super) caught_up_at: Option<OffsetDateTime>,
    pub(super) lateness_ms: i64,
    /// Taken, duplicates, echoes, quarantined.
    pub(super) counts: [i64; 4],
}

/// A feed from its columns.
pub(super) fn feed(source: &str, columns: FeedColumns) -> Result<Feed, Error> {
    let corrupt = |column| Error::Corrupt {
        table: "feeds",
        column,
        row: source.to_owned(),
    };
    let cursors: Vec<String> =
        serde_json::from_str(&columns.cursors).map_err(|_| corrupt("trail_cursors"))?;
    let moment = |micros: i64| {
        let nanos = i128::from(micros) * 1_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| corrupt("trail_seen_at"))
    };
    let passed = cursors.into_iter().zip(columns.seen_at);
    let passed = passed.map(|(cursor, micros)| {
        let seen_at = moment(micros)?;
        Ok(Passed { cursor, seen_at })
    });
    let passed = passed.collect::<Result<_, Error>>()?;
    let [taken, duplicates, echoes, quarantined] = columns.counts;
    Ok(Feed {
        state: FeedState::parse(&columns.state).ok_or_else(|| corrupt("state"))?,
        trail: Trail::kept(columns.newest, columns.durable, passed),
        last_event_at: columns.last_event_at,
        caught_up_at: columns.caught_up_at,
        largest_lateness: milliseconds(columns.lateness_ms),
        taken,
        duplicates,
        echoes,
        quarantined,
    })
}

fn milliseconds(count: i64) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or_default())
}

/// A source as the reader of its feed needs it, as one snapshot shows it.
#[derive(Clone, Debug)]
pub struct Look {
    /// When, by the clock of the database.
    pub now: OffsetDateTime,
    /// Position of the log's newest delta.
    pub last_sync_id: i64,
    /// Whether the organization's data is real.
    pub mode: Mode,
    /// The node that reads it.
    pub owner: Option<Uuid>,
    /// Counts owners.
    pub epoch: i64,
    /// What the source does with commits.
    pub source_state: SourceState,
    /// The endpoint.
    pub url: String,
    /// The longest that one request may take.
    pub timeout: Duration,
    /// How far the sweep trails.
    pub lag: Duration,
    /// The feed; `None` before it was first read.
    pub feed: Option<Feed>,
    /// What waits for its reader.
    pub waits: Waits,
}

/// What waits for the reader of a feed, beside the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Pushed events.
    pub pushed: bool,
    /// Rows to be read again.
    pub rereads: bool,
}

impl Waits {
    /// Whether anything does.
    pub fn anything(self) -> bool {
        self.pushed || self.rereads
    }
}

/// A pushed event that waits.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Pushed {
    /// Orders what one caller pushed.
    pub position: i64,
    /// JSON, as on the wire.
    pub event: String,
    /// When it became durable.
    pub received_at: OffsetDateTime,
    /// The time of the database.
    pub now: OffsetDateTime,
}

/// An event that could not be taken in.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct QuarantinedEvent {
    /// The source's name for it.
    pub event_id: String,
    /// When it came.
    pub seen_at: OffsetDateTime,
    /// Why.
    pub reason: String,
    /// Why, for a person.
    pub message: String,
    /// Its beginning, as it came.
    pub event: String,
}

/// What became of events that were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// They are durable.
    Kept,
    /// There is no such source.
    NoSource,
    /// Too many wait already.
    TooDeep,
}

/// A commit that an event names, and the event's row.
#[derive(Clone, Debug)]
pub struct Named {
    /// The commit, by its caller's name.
    pub client_tx_id: String,
    /// The row's model.
    pub model: String,
    /// The row's id.
    pub id: String,
    /// The row's lane.
    pub lane: i64,
}

impl Store {
    /// The source and its feed; `None` when the source is gone.
    pub async fn feed(
        &self,
        organization: &OrganizationId,
        source: &str,
    ) -> Result<Option<Look>, Error> {
        let (organization, source) = (organization.clone(), source.to_owned());
        detached(&self.reads, |pool| async move {
            let row = sqlx::query(include_str!("sql/feed.sql"))
                .bind(organization.as_str())
                .bind(&source)
                .fetch_optional(&pool)
                .await?;
            row.map(|row| look(&row, &organization, &source))
                .transpose()
        })
        .await
    }

    /// Notes a poll that brought nothing; when, and the log's position then.
    pub async fn note_poll(
        &self,
        organization: &OrganizationId,
        source: &str,
        ended: bool,
    ) -> Result<(OffsetDateTime, i64), Error> {
        let (organization, source) = (organization.clone(), source.to_owned());
        detached(&self.reads, |pool| async move {
            let noted = sqlx::query_as(include_str!("sql/note_poll.sql"))
                .bind(organization.as_str())
                .bind(source)
                .bind(ended);
            Ok(noted.fetch_one(&pool).await?)
        })
        .await
    }

    /// The first pushed events that wait: at most `limit` of them, and few more bytes than `bytes`.
    pub async fn pushed_batch(
        &self,
        organization: &OrganizationId,
        source: &str,
        (limit, bytes): (i64, i64),
    ) -> Result<Vec<Pushed>, Error> {
        let (organization, source) = (organization.clone(), source.to_owned());
        detached(&self.reads, |pool| async move {
            let batch = sqlx::query_as(include_str!("sql/pushed_batch.sql"))
                .bind(organization.as_str())
                .bind(source)
                .bind(limit)
                .bind(bytes);
            Ok(batch.fetch_all(&pool).await?)
        })
        .await
    }

    /// The first rows that are to be read again, with what tells each time apart.
    pub async fn rereads(
        &self,
        organization: &OrganizationId,
        source: &str,
        limit: i64,
    ) -> Result<Vec<(i64, RowKey)>, Error> {
        let (organization, source) = (organization.clone(), source.to_owned());
        detached(&self.reads, |pool| async move {
            let rows: Vec<(i64, String, String)> = sqlx::query_as(include_str!("sql/rereads.sql"))
                .bind(organization.as_str())
                .bind(source)
                .bind(limit)
                .fetch_all(&pool)
                .await?;
            let rows = rows.into_iter();
            Ok(rows
                .map(|(position, model, id)| (position, RowKey { model, id }))
                .collect())
        })
        .await
    }

    /// The sources of a node that pushed events or rows to be read again wait for.
    pub async fn waiting_feeds(&self, node: Uuid) -> Result<Vec<(OrganizationId, String)>, Error> {
        let rows: Vec<(String, String)> = sqlx::query_as(include_str!("sql/waiting_feeds.sql"))
            .bind(node)
            .fetch_all(&self.leases)
            .await?;
        let key =
            |(organization, source): (String, String)| (OrganizationId::new(&organization), source);
        Ok(rows.into_iter().map(key).collect())
    }

    /// What is known of commits that events name, in the order of `named`; `None` for those that are
    /// none of this source's.
    pub async fn echoed_commits(
        &self,
        organization: &OrganizationId,
        source: &str,
        named: Vec<Named>,
    ) -> Result<Vec<Option<EchoOf>>, Error> {
        let (organization, source) = (organization.clone(), source.to_owned());
        detached(&self.ledger, |pool| async move {
            let column = |of: fn(&Named) -> &str| named.iter().map(of).collect::<Vec<_>>();
            let rows = sqlx::query(include_str!("sql/echoed_commits.sql"))
                .bind(organization.as_str())
                .bind(source)
                .bind(column(|one| &one.client_tx_id))
                .bind(column(|one| &one.model))
                .bind(column(|one| &one.id))
                .bind(named.iter().map(|one| one.lane).collect::<Vec<_>>())
                .fetch_all(&pool)
                .await?;
            let mut found = vec![None; named.len()];
            for row in rows {
                let place: i64 = row.try_get("place")?;
                let place = usize::try_from(place - 1).unwrap_or_default();
                if let (Some(slot), Some(named)) = (found.get_mut(place), named.get(place)) {
                    *slot = Some(EchoOf {
                        client_tx_id: named.client_tx_id.clone(),
                        sequence: row.try_get("sequence")?,
                        member: row.try_get("member")?,
                    });
                }
            }
            Ok(found)
        })
        .await
    }
}

fn look(row: &PgRow, organization: &OrganizationId, source: &str) -> Result<Look, Error> {
    let corrupt = || Error::Corrupt {
        table: "data_sources",
        column: "state",
        row: format!("{organization}/{source}"),
    };
    let source_state: String = row.try_get("source_state")?;
    let mode: String = row.try_get("mode")?;
    Ok(Look {
        now: row.try_get("now")?,
        last_sync_id: row.try_get("last_sync_id")?,
        mode: super::organizations::mode(&mode, organization.as_str())?,
        owner: row.try_get("owner")?,
        epoch: row.try_get("epoch")?,
        source_state: SourceState::parse(&source_state).ok_or_else(corrupt)?,
        url: row.try_get("url")?,
        timeout: milliseconds(row.try_get("request_timeout_ms")?),
        lag: milliseconds(row.try_get("feed_lag_ms")?),
        feed: kept(row, source)?,
        waits: Waits {
            pushed: row.try_get("pushed")?,
            rereads: row.try_get("rereads")?,
        },
    })
}

fn kept(row: &PgRow, source: &str) -> Result<Option<Feed>, Error> {
    let Some(state) = row.try_get::<Option<String>, _>("state")? else {
        return Ok(None);
    };
    let columns = FeedColumns {
        state,
        newest: row.try_get("newest_cursor")?,
        durable: row.try_get("durable_cursor")?,
        cursors: row.try_get("trail_cursors")?,
        seen_at: row.try_get("trail_seen_at")?,
        last_event_at: row.try_get("last_event_at")?,
        caught_up_at: row.try_get("caught_up_at")?,
        lateness_ms: row.try_get("largest_lateness_ms")?,
        counts: [
            row.try_get("taken_count")?,
            row.try_get("duplicate_count")?,
            row.try_get("echo_count")?,
            row.try_get("quarantined_count")?,
        ],
    };
    feed(source, columns).map(Some)
}

/// Keeps events that were pushed for a source, JSON as on the wire, until its owner takes them in.
pub async fn push(
    store: &Store,
    organization: OrganizationId,
    source: String,
    events: Vec<String>,
) -> Result<Push, Error> {
    detached(&store.reads, |pool| async move {
        let row = sqlx::query(include_str!("sql/push_events.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(events)
            .bind(MOST_PUSHED)
            .fetch_one(&pool)
            .await?;
        let (found, has): (bool, bool) = (row.try_get("found")?, row.try_get("has")?);
        Ok(match (found, has) {
            (false, _) => Push::NoSource,
            (true, false) => Push::TooDeep,
            (true, true) => Push::Kept,
        })
    })
    .await
}

/// At most `limit` events that could not be taken in, before this time and id, newest first.
pub async fn quarantined(
    store: &Store,
    organization: OrganizationId,
    source: String,
    before: Option<(OffsetDateTime, String)>,
    limit: i64,
) -> Result<Vec<QuarantinedEvent>, Error> {
    detached(&store.reads, |pool| async move {
        let (seen_at, event_id) = before.unzip();
        let page = sqlx::query_as(include_str!("sql/list_quarantined.sql"))
            .bind(organization.as_str())
            .bind(source)
            .bind(seen_at)
            .bind(event_id)
            .bind(limit);
        Ok(page.fetch_all(&pool).await?)
    })
    .await
}
