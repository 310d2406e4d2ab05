//! The feed of changes.

use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::types::Json;

use super::Refusal;

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1_000;

/// Answers the changes after a cursor, which is the number of the last event that was read.
///
/// Numbers are given out before transactions commit, so a lower one may appear late; the
/// coordinator reads again from an older cursor now and then, and knows events by their id.
pub(super) async fn read(
    pool: &PgPool,
    cursor: Option<&str>,
    limit: Option<i64>,
) -> Result<Value, Refusal> {
    let after: i64 = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let found: Vec<(i64, Json<Value>)> = sqlx::query_as(
        "SELECT id, jsonb_strip_nulls(jsonb_build_object(
             'id', id::text,
             'model', 'airports',
             'entityId', entity_id,
             'type', type,
             'clientTxId', client_tx_id,
             'correlationId', client_tx_id,
             'occurredAt', occurred_at
         )) || CASE WHEN data IS NULL THEN '{}' ELSE jsonb_build_object('data', data) END
         FROM outbox WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT))
    .fetch_all(pool)
    .await?;
    let last = found.last().map(|(id, _)| id.to_string());
    let events: Vec<Value> = found.into_iter().map(|(_, Json(event))| event).collect();
    let mut answer = json!({"events": events});
    if let Some(last) = last {
        answer["nextCursor"] = last.into();
    }
    Ok(answer)
}
