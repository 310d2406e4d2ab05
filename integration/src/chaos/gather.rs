//! Puts together what was done, seen and left: a history for each organization.

use std::collections::BTreeMap;
use std::time::SystemTime;

use backends::data_source::clock::{Clock, SystemClock};
use tokio::time::Instant;

use super::client::Seen;
use super::world::{MANAGED, Organization, World, row_ids};
use crate::endpoint::Kind;
use crate::history::{
    Aftermath, Answer, Arrival, Attempt, Event, Execution, History, Position, Reader, Row,
    Standing, Write,
};

/// Moments in microseconds since 1970, as the database tells them.
const LOG: &str = "
SELECT sync_id, coalesce(client_tx_id, ''),
       CASE WHEN client_tx_id IS NULL THEN coalesce(transaction_id, '') ELSE '' END,
       model, row_id, coalesce(row::json->>'token', '')
FROM deltas WHERE org_id = $1 ORDER BY sync_id";
const ATTEMPTS: &str = "
SELECT client_tx_id, replace(commit_id::text, '-', ''), source_id,
       number, deadline > started_at,
       (extract(epoch FROM started_at) * 1000000)::bigint, outcome, http_status, error_class
FROM attempts WHERE org_id = $1 ORDER BY started_at";
const STANDINGS: &str = "
SELECT source_id, (extract(epoch FROM last_success_at) * 1000000)::bigint,
       (extract(epoch FROM last_error_at) * 1000000)::bigint, last_error_class
FROM source_requests WHERE org_id = $1 AND kind = 'commit' ORDER BY source_id";
const MANAGED_ROWS: &str = "
SELECT row_id, row->>'token' FROM managed_rows WHERE org_id = $1";
const UNSETTLED: &str = "
SELECT client_tx_id FROM commits WHERE org_id = $1 AND state = 'queued'";

pub(super) async fn histories(
    world: &World,
    seen: Vec<Seen>,
    outside: Vec<(usize, Vec<Event>)>,
    readers: Vec<(usize, Reader)>,
    (resident, aftermath): (Vec<u64>, Aftermath),
) -> anyhow::Result<Vec<History>> {
    let resident: Vec<_> = resident.into_iter().zip(world.resident().await).collect();
    let mut histories = Vec::new();
    for organization in &world.organizations {
        let mut history = recorded(world, organization).await?;
        let others = world.organizations.iter().map(|it| it.name);
        let others = others.filter(|it| *it != organization.name);
        history.strangers = others.map(|it| format!("{it}~")).collect();
        history.writes = prepared(organization).await?;
        observed(organization, &mut history);
        history.aftermath = Aftermath {
            resident: resident.clone(),
            ..aftermath.clone()
        };
        histories.push(history);
    }
    for one in seen {
        let history = &mut histories[one.organization];
        history.writes.extend(one.writes);
        history.texts.extend(one.texts);
        history.unknown += one.unknown;
    }
    for (organization, events) in outside {
        histories[organization].events.extend(events);
    }
    for (organization, reader) in readers {
        histories[organization].readers.push(reader);
    }
    Ok(histories)
}

/// The commits that made the rows.
async fn prepared(organization: &Organization) -> anyhow::Result<Vec<Write>> {
    let models = organization
        .sinks
        .iter()
        .map(|it| it.model)
        .chain([MANAGED]);
    let mut writes = Vec::new();
    for model in models {
        let token = format!("{}~rows-{model}", organization.name);
        let receipt = organization.doors[0].receipt(&token).await?;
        writes.push(Write {
            token,
            rows: row_ids().map(|id| row(model, &id)).collect(),
            delivered: model != MANAGED,
            acknowledged: Some(0),
            answers: Answer::of(&receipt).into_iter().collect(),
            ..Write::default()
        });
    }
    Ok(writes)
}

/// Token, id, source, number, whether it was begun, start, outcome, status, error.
type AttemptRow = (
    String,
    String,
    String,
    i32,
    bool,
    i64,
    Option<String>,
    Option<i32>,
    Option<String>,
);
/// Source, last success, last error, its class.
type StandingRow = (String, Option<i64>, Option<i64>, Option<String>);

/// A log, as far as the database has it.
pub(super) async fn log(pool: &sqlx::PgPool, name: &str) -> anyhow::Result<Vec<Position>> {
    let log: Vec<(i64, String, String, String, String, String)> =
        sqlx::query_as(LOG).bind(name).fetch_all(pool).await?;
    let log = log
        .into_iter()
        .map(|(sync_id, token, event, model, id, value)| Position {
            sync_id,
            token,
            event,
            row: row(&model, &id),
            value,
        });
    Ok(log.collect())
}

/// A log, with what the retention has passed over.
pub(super) async fn whole_log(
    world: &World,
    organization: &Organization,
) -> anyhow::Result<Vec<Position>> {
    let left = log(&world.pool, organization.name).await?;
    let mut whole: BTreeMap<i64, Position> = BTreeMap::new();
    let kept = organization.kept.lock().await.iter().cloned().collect();
    for position in [left, kept].concat() {
        whole.insert(position.sync_id, position);
    }
    Ok(whole.into_values().collect())
}

/// What the database has.
async fn recorded(world: &World, organization: &Organization) -> anyhow::Result<History> {
    let (pool, name) = (&world.pool, organization.name);
    let attempts: Vec<AttemptRow> = sqlx::query_as(ATTEMPTS).bind(name).fetch_all(pool).await?;
    let standings: Vec<StandingRow> = sqlx::query_as(STANDINGS).bind(name).fetch_all(pool).await?;
    let managed: Vec<(String, String)> = sqlx::query_as(MANAGED_ROWS)
        .bind(name)
        .fetch_all(pool)
        .await?;
    let attempts = attempts.into_iter().map(
        |(token, webhook_id, source, number, begun, started, outcome, status, error)| Attempt {
            token,
            webhook_id,
            source,
            number,
            begun,
            started,
            outcome,
            status: status.and_then(|it| u16::try_from(it).ok()),
            error,
        },
    );
    let standings = standings
        .into_iter()
        .map(|(source, success, at, class)| Standing {
            source,
            success,
            error: at.zip(class),
        });
    let ends = managed
        .into_iter()
        .map(|(id, value)| (row(MANAGED, &id), value));
    Ok(History {
        log: whole_log(world, organization).await?,
        expired: organization
            .kept
            .lock()
            .await
            .last()
            .map_or(0, |it| it.sync_id),
        attempts: attempts.collect(),
        standings: standings.collect(),
        ends: ends.collect(),
        unsettled: sqlx::query_scalar(UNSETTLED)
            .bind(name)
            .fetch_all(pool)
            .await?,
        ..History::default()
    })
}

/// What the endpoints have.
fn observed(organization: &Organization, history: &mut History) {
    let (now, clock) = (Instant::now(), SystemClock.now());
    let at = |moment: Instant| {
        let then = clock.checked_sub(now.saturating_duration_since(moment))?;
        let since = then.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_micros()).ok()
    };
    for sink in &organization.sinks {
        for arrival in sink.endpoint.arrivals_of(Kind::Commit) {
            history.arrivals.push(Arrival {
                token: arrival.client_tx_id().to_owned(),
                webhook_id: arrival.webhook_id().to_owned(),
                // A node whose clock is off signs all the same.
                signed: arrival
                    .signature_error
                    .as_ref()
                    .is_none_or(|it| it.contains("timestamp")),
                at: at(arrival.at),
                replied: sink.endpoint.replied(&arrival),
                body: arrival.bytes,
            });
        }
        for execution in sink.endpoint.executions() {
            let text = |operation: &serde_json::Value, field: &str| {
                operation[field].as_str().unwrap_or_default().to_owned()
            };
            let operations = execution.operations.iter();
            history.executions.push(Execution {
                token: execution.client_tx_id,
                rows: operations
                    .map(|it| row(&text(it, "model"), &text(it, "id")))
                    .collect(),
            });
        }
    }
    history.ends.extend(held(organization));
}

/// The rows of its endpoints.
pub(super) fn held(organization: &Organization) -> BTreeMap<Row, String> {
    let mut rows = BTreeMap::new();
    for sink in &organization.sinks {
        for (id, held) in sink.endpoint.rows(sink.model) {
            let value = held["token"].as_str().unwrap_or_default().to_owned();
            rows.insert(row(sink.model, &id), value);
        }
    }
    rows
}

fn row(model: &str, id: &str) -> Row {
    Row {
        model: model.to_owned(),
        id: id.to_owned(),
    }
}
