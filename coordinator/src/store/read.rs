//! Reads what a batch of commands touches, in one snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backends::data_source::schedule::RetrySchedule;
use backends::json::{self, Document};
use backends::managed::ManagedRow;
use backends::operation::RowKey;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Error;
use super::feeds::FeedColumns;
use crate::decide::{
    Feed, Head, InboxEntry, LedgerEntry, RowVersion, Source, State, StoredRow, Touched,
};
use crate::domain::{
    CommitId, CommitState, OrganizationId, Participant, ParticipantKind, RequestError,
    SourceSettings, SourceState, Trigger,
};

/// What the batch touches, as one snapshot shows it; `None` when the organization has no head.
pub(super) async fn read(
    connection: &mut PgConnection,
    organization: &OrganizationId,
    touched: &Touched,
) -> Result<Option<State>, Error> {
    let (row_models, row_ids) = columns(&touched.rows);
    let (version_models, version_ids) = columns(&touched.versions);
    let (group_models, group_ids) = columns(&touched.groups);
    let mut entry_sources = Vec::new();
    let mut entry_sequences = Vec::new();
    let mut entry_bodies = Vec::new();
    for ((source, sequence), with_body) in &touched.entries {
        entry_sources.push(source.as_str());
        entry_sequences.push(*sequence);
        entry_bodies.push(*with_body);
    }
    let (event_sources, event_ids): (Vec<&str>, Vec<&str>) = touched
        .events
        .iter()
        .map(|(source, id)| (source.as_str(), id.as_str()))
        .unzip();
    let rows = sqlx::query(AssertSqlSafe(statement(touched)))
        .bind(organization.as_str())
        .bind(&touched.commits)
        .bind(row_models)
        .bind(row_ids)
        .bind(version_models)
        .bind(version_ids)
        .bind(&touched.sources)
        .bind(entry_sources)
        .bind(entry_sequences)
        .bind(entry_bodies)
        .bind(&touched.models)
        .bind(event_sources)
        .bind(event_ids)
        .bind(&touched.feeds)
        .bind(group_models)
        .bind(group_ids)
        .fetch_all(&mut *connection)
        .await?;
    let Some(mut state) = state(rows.iter().collect())? else {
        return Ok(None);
    };
    let gone = touched.viewed.iter();
    let gone: Vec<RowKey> = gone
        .filter(|key| !state.rows.contains_key(key))
        .cloned()
        .collect();
    if !gone.is_empty() {
        state.removed = removed(connection, organization, &gone).await?;
    }
    Ok(Some(state))
}

/// What batches of commits on managed rows touch, for several organizations as one snapshot shows it;
/// in their order, `None` for one that must be read alone.
pub(super) async fn read_several(
    connection: &mut PgConnection,
    wanted: &[(&OrganizationId, &Touched)],
) -> Result<Vec<Option<State>>, Error> {
    let organizations: Vec<&str> = wanted.iter().map(|(whose, _)| whose.as_str()).collect();
    let commits = wanted.iter().flat_map(|(whose, touched)| {
        let names = touched.commits.iter();
        names.map(|name| (whose.as_str(), name.as_str()))
    });
    let (whose_commits, commits): (Vec<&str>, Vec<&str>) = commits.unzip();
    let (mut whose_rows, mut models, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (whose, touched) in wanted {
        for key in &touched.rows {
            whose_rows.push(whose.as_str());
            models.push(key.model.as_str());
            ids.push(key.id.as_str());
        }
    }
    let rows = sqlx::query(include_str!("sql/read_several.sql"))
        .bind(&organizations)
        .bind(whose_commits)
        .bind(commits)
        .bind(whose_rows)
        .bind(models)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    let mut each: HashMap<&str, Vec<&PgRow>> = HashMap::new();
    for row in &rows {
        each.entry(row.try_get("org_id")?).or_default().push(row);
    }
    let found = organizations.iter().map(|whose| each.remove(whose));
    // Whose rows contradict the code is read alone, and told so then.
    let states = found.map(|rows| state(rows.unwrap_or_default()).ok().flatten());
    Ok(states.collect())
}

/// When rows that are not there were removed. A later snapshot does: nothing is appended on it
/// unless the head stood still.
async fn removed(
    connection: &mut PgConnection,
    organization: &OrganizationId,
    gone: &[RowKey],
) -> Result<HashMap<RowKey, i64>, Error> {
    let (models, ids) = columns(gone);
    let rows: Vec<(String, String, i64)> = sqlx::query_as(include_str!("sql/removed.sql"))
        .bind(organization.as_str())
        .bind(models)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    let removed = rows
        .into_iter()
        .map(|(model, id, at)| (RowKey { model, id }, at));
    Ok(removed.collect())
}

/// The statement without the sections that would look for nothing: starting and ending each costs more
/// than a look-up does.
fn statement(touched: &Touched) -> String {
    const BETWEEN: &str = "\n\nUNION ALL\n";
    let wanted = [
        true,
        !touched.commits.is_empty(),
        !touched.rows.is_empty(),
        !touched.versions.is_empty(),
        !touched.sources.is_empty(),
        !touched.entries.is_empty(),
        !touched.models.is_empty(),
        !touched.events.is_empty(),
        !touched.feeds.is_empty(),
        !touched.groups.is_empty(),
    ];
    let sections = include_str!("sql/read.sql").split(BETWEEN).zip(wanted);
    let sections: Vec<_> = sections
        .filter_map(|(text, wanted)| wanted.then_some(text))
        .collect();
    sections.join(BETWEEN)
}

fn columns(keys: &[RowKey]) -> (Vec<&str>, Vec<&str>) {
    keys.iter()
        .map(|key| (key.model.as_str(), key.id.as_str()))
        .unzip()
}

fn state(rows: Vec<&PgRow>) -> Result<Option<State>, Error> {
    let mut state = None;
    for row in &rows {
        let section: i32 = row.try_get("section")?;
        if section == 1 {
            state = Some(empty(row)?);
        }
    }
    let Some(mut state) = state else {
        return Ok(None);
    };
    for row in rows {
        add(&mut state, row)?;
    }
    Ok(Some(state))
}

fn empty(row: &PgRow) -> Result<State, Error> {
    let schema_version: i64 = row.try_get("n3")?;
    let head = Head {
        version: row.try_get("n1")?,
        last_sync_id: row.try_get("n2")?,
        schema_version: narrow(schema_version, ("heads", "schema_version"))?,
    };
    let mut state = State::empty(row.try_get("ts1")?, head);
    state.grouped = row.try_get::<Option<bool>, _>("f1")?.unwrap_or(true);
    Ok(state)
}

fn add(state: &mut State, row: &PgRow) -> Result<(), Error> {
    match row.try_get::<i32, _>("section")? {
        2 => {
            let entry = ledger_entry(row)?;
            state.ledger.insert(entry.client_tx_id.clone(), entry);
        }
        3 => {
            let key = RowKey {
                model: row.try_get("k1")?,
                id: row.try_get("k2")?,
            };
            let stored = stored_row(row, &key)?;
            state.rows.insert(key, stored);
        }
        4 => {
            let key = RowKey {
                model: row.try_get("k1")?,
                id: row.try_get("k2")?,
            };
            let version = RowVersion {
                sync_id: row.try_get("n1")?,
                unsettled: row.try_get("n2")?,
            };
            state.versions.insert(key, version);
        }
        5 => {
            let mut source = source(row)?;
            source.seen_at = state.now;
            state.sources.insert(source.id.clone(), source);
        }
        6 => {
            let entry = inbox_entry(row)?;
            state
                .inbox
                .insert((entry.source.clone(), entry.sequence), entry);
        }
        7 if row.try_get("f1")? => {
            state.models_in_use.insert(row.try_get("k1")?);
        }
        8 => {
            let name = (row.try_get("k1")?, row.try_get("k2")?);
            state.events.insert(name, row.try_get("ts1")?);
        }
        9 => {
            state.feeds.insert(row.try_get("k1")?, feed(row)?);
        }
        10 => {
            let key = RowKey {
                model: row.try_get("k1")?,
                id: row.try_get("k2")?,
            };
            state.groups.insert(key.clone(), groups(row, &key)?);
        }
        _ => {}
    }
    Ok(())
}

fn groups(row: &PgRow, key: &RowKey) -> Result<Vec<String>, Error> {
    let text: String = row.try_get("t1")?;
    serde_json::from_str(&text).map_err(|_| Error::Corrupt {
        table: "row_groups",
        column: "groups",
        row: format!("{}/{}", key.model, key.id),
    })
}

fn narrow<T: TryFrom<i64>>(
    value: i64,
    (table, column): (&'static str, &'static str),
) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::Corrupt {
        table,
        column,
        row: value.to_string(),
    })
}

fn ledger_entry(row: &PgRow) -> Result<LedgerEntry, Error> {
    let client_tx_id: String = row.try_get("k1")?;
    let corrupt = |column| Error::Corrupt {
        table: "commits",
        column,
        row: client_tx_id.clone(),
    };
    let state: String = row.try_get("t1")?;
    let kind: String = row.try_get("t6")?;
    let fingerprint: Vec<u8> = row.try_get("b1")?;
    let sync_ids: (Option<i64>, Option<i64>) = (row.try_get("n1")?, row.try_get("n2")?);
    let error: (Option<String>, Option<String>) = (row.try_get("t3")?, row.try_get("t4")?);
    let assigned: Vec<i64> = row.try_get("a1")?;
    Ok(LedgerEntry {
        id: CommitId(row.try_get("u1")?),
        fingerprint: fingerprint.try_into().map_err(|_| corrupt("fingerprint"))?,
        participant: Participant {
            id: row.try_get("t5")?,
            kind: ParticipantKind::parse(&kind).ok_or_else(|| corrupt("participant_kind"))?,
        },
        source: row.try_get("t2")?,
        schema_version: narrow(row.try_get("n4")?, ("commits", "schema_version"))?,
        state: CommitState::parse(&state).ok_or_else(|| corrupt("state"))?,
        dead: row.try_get("f1")?,
        sync_ids: sync_ids.0.zip(sync_ids.1),
        error: error.0.zip(error.1),
        assigned: assigned
            .into_iter()
            .filter_map(|index| i16::try_from(index).ok())
            .collect(),
        attempts: narrow(row.try_get("n3")?, ("commits", "attempts"))?,
        accepted_at: row.try_get("ts1")?,
        settled_at: row.try_get("ts2")?,
        reentered_at: row.try_get("ts3")?,
        sequence: row.try_get("n5")?,
        feed_read_at: row.try_get("ts4")?,
        client_tx_id,
    })
}

fn stored_row(row: &PgRow, key: &RowKey) -> Result<StoredRow, Error> {
    let text: String = row.try_get("t1")?;
    let fields = stored_object(&text).ok_or_else(|| Error::Corrupt {
        table: "managed_rows",
        column: "row",
        row: format!("{}/{}", key.model, key.id),
    })?;
    Ok(StoredRow {
        row: ManagedRow {
            row: fields,
            archived: row.try_get("f1")?,
        },
        sync_id: row.try_get("n1")?,
        stood_at: row.try_get("t2")?,
    })
}

/// A row that was checked when it came in: no limits apply any more.
pub(super) fn stored_object(text: &str) -> Option<Document> {
    json::parse_stored(text).ok()?.try_into().ok()
}

fn source(row: &PgRow) -> Result<Source, Error> {
    let id: String = row.try_get("k1")?;
    let corrupt = |column| Error::Corrupt {
        table: "data_sources",
        column,
        row: id.clone(),
    };
    let state: String = row.try_get("t1")?;
    let delays: Vec<i64> = row.try_get("a3")?;
    let millis = |value: i64| u64::try_from(value).map(Duration::from_millis).ok();
    let attempts: Vec<i64> = row.try_get("a1")?;
    let retries: Vec<i64> = row.try_get("a2")?;
    Ok(Source {
        settings: Arc::new(SourceSettings {
            url: row.try_get("t3")?,
            retry: RetrySchedule {
                delays: delays.into_iter().filter_map(millis).collect(),
            },
            request_timeout: millis(row.try_get("n6")?)
                .ok_or_else(|| corrupt("request_timeout_ms"))?,
            max_in_flight: narrow(row.try_get("n7")?, ("data_sources", "max_in_flight"))?,
            max_per_second: narrow(row.try_get("n9")?, ("data_sources", "max_per_second"))?,
            max_pending: row.try_get("n10")?,
            feed_lag: millis(row.try_get("n11")?).ok_or_else(|| corrupt("feed_lag_ms"))?,
        }),
        state: SourceState::parse(&state).ok_or_else(|| corrupt("state"))?,
        state_reason: row.try_get("t2")?,
        owner: row.try_get::<Option<Uuid>, _>("u1")?,
        epoch: row.try_get("n1")?,
        inbox_sequence: row.try_get("n2")?,
        pending: row.try_get("n3")?,
        dead: row.try_get("n4")?,
        consecutive_failures: narrow(row.try_get("n5")?, ("data_sources", "consecutive_failures"))?,
        backoff_until: row.try_get("ts1")?,
        backoff_step: narrow(row.try_get("n8")?, ("data_sources", "backoff_step"))?,
        recovered_at: row.try_get("ts2")?,
        recovered_from: row.try_get("ts5")?,
        attempts: attempts
            .try_into()
            .map_err(|_| corrupt("attempts_by_outcome"))?,
        retries: retries
            .try_into()
            .map_err(|_| corrupt("retries_by_outcome"))?,
        failing_since: row.try_get("ts3")?,
        recent_outcomes: row.try_get("n12")?,
        certificate_expires_at: row.try_get("ts4")?,
        inbox_revision: row.try_get("n13")?,
        feed_read_at: row.try_get("ts6")?,
        seen_at: OffsetDateTime::UNIX_EPOCH,
        id,
    })
}

fn inbox_entry(row: &PgRow) -> Result<InboxEntry, Error> {
    let body: Option<Vec<u8>> = row.try_get("b1")?;
    let open: (Option<OffsetDateTime>, Option<OffsetDateTime>) =
        (row.try_get("ts3")?, row.try_get("ts4")?);
    let (positions, flagged): (Vec<i64>, Vec<i64>) = (row.try_get("a1")?, row.try_get("a2")?);
    let cause: Option<String> = row.try_get("t2")?;
    let read_back: (Option<OffsetDateTime>, Option<String>) =
        (row.try_get("ts9")?, row.try_get("t3")?);
    let narrowed = |all: Vec<i64>| all.into_iter().filter_map(|one| i16::try_from(one).ok());
    Ok(InboxEntry {
        source: row.try_get("k1")?,
        sequence: row.try_get("n1")?,
        client_tx_id: row.try_get("k2")?,
        id: CommitId(row.try_get("u1")?),
        body: body.unwrap_or_default().into(),
        lanes: row.try_get("a3")?,
        positions: narrowed(positions).collect(),
        flagged: narrowed(flagged).collect(),
        dead: row.try_get("f1")?,
        attempts: narrow(row.try_get("n2")?, ("inbox", "attempts"))?,
        spent: narrow(row.try_get("n3")?, ("inbox", "spent"))?,
        due_at: row.try_get("ts1")?,
        failed_at: row.try_get("ts2")?,
        open: open.0.zip(open.1),
        may_apply_until: row.try_get("ts5")?,
        last_error: last_error(row)?,
        traceparent: row.try_get("t1")?,
        accepted_at: row.try_get("ts6")?,
        expires_at: row.try_get("ts7")?,
        next_cause: cause.as_deref().and_then(Trigger::parse),
        echoed: row.try_get::<Option<i64>, _>("n6")? == Some(1),
        first_failed_at: row.try_get("ts8")?,
        read_back: read_back.0.zip(read_back.1),
        guards: Vec::new(),
        schema_version: row
            .try_get::<Option<i64>, _>("n5")?
            .map(|version| narrow(version, ("inbox", "schema_version")))
            .transpose()?,
    })
}

fn feed(row: &PgRow) -> Result<Feed, Error> {
    let source: String = row.try_get("k1")?;
    super::feeds::feed(
        &source,
        FeedColumns {
            state: row.try_get("t1")?,
            newest: row.try_get("t2")?,
            durable: row.try_get("t3")?,
            cursors: row.try_get("t4")?,
            seen_at: row.try_get("a1")?,
            last_event_at: row.try_get("ts1")?,
            caught_up_at: row.try_get("ts2")?,
            lateness_ms: row.try_get("n1")?,
            counts: [
                row.try_get("n2")?,
                row.try_get("n3")?,
                row.try_get("n4")?,
                row.try_get("n5")?,
            ],
        },
    )
}

fn last_error(row: &PgRow) -> Result<Option<RequestError>, Error> {
    let at: Option<OffsetDateTime> = row.try_get("ts10")?;
    let class: Option<String> = row.try_get("t4")?;
    let Some((at, class)) = at.zip(class) else {
        return Ok(None);
    };
    Ok(Some(RequestError {
        at,
        class,
        message: row.try_get::<Option<String>, _>("t5")?.unwrap_or_default(),
        http_status: narrow(
            row.try_get::<Option<i64>, _>("n4")?.unwrap_or_default(),
            ("inbox", "last_error_status"),
        )?,
    }))
}
