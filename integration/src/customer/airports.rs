//! The one model of this app: its table, as JSON rows.
//!
//! Rows cross between JSON and columns inside Postgres, whose jsonb keeps every digit of a number.

use axum::http::StatusCode;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use super::Refusal;

/// The columns that callers may write, besides `id`.
pub(super) const FIELDS: [&str; 6] = ["name", "city", "state", "country", "latitude", "longitude"];

pub(super) fn check_model(model: &str) -> Result<(), Refusal> {
    if model == "airports" {
        return Ok(());
    }
    Err(refusal(
        StatusCode::UNPROCESSABLE_ENTITY,
        "model_unknown",
        format!("no model {model}"),
    ))
}

pub(super) async fn load(pool: &PgPool, id: &str) -> Result<Option<Value>, sqlx::Error> {
    let row = sqlx::query_scalar::<_, Json<Value>>(
        "SELECT to_jsonb(airports) - 'archived_at' FROM airports WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|Json(row)| row))
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    id: &str,
    input: &Map<String, Value>,
) -> Result<Value, Refusal> {
    check_fields(input)?;
    let row = sqlx::query_scalar::<_, Json<Value>>(
        "INSERT INTO airports (id, name, city, state, country, latitude, longitude)
         SELECT $1, name, city, state, country, latitude, longitude
         FROM jsonb_populate_record(NULL::airports, $2)
         ON CONFLICT DO NOTHING
         RETURNING to_jsonb(airports) - 'archived_at'",
    )
    .bind(id)
    .bind(Json(input))
    .fetch_optional(connection)
    .await
    .map_err(row_fault)?;
    let exists = || {
        refusal(
            StatusCode::CONFLICT,
            "entity_exists",
            format!("{id} exists"),
        )
    };
    row.map(|Json(row)| row).ok_or_else(exists)
}

pub(super) async fn update(
    connection: &mut PgConnection,
    id: &str,
    input: &Map<String, Value>,
) -> Result<Value, Refusal> {
    check_fields(input)?;
    let row = sqlx::query_scalar::<_, Json<Value>>(
        "UPDATE airports SET (name, city, state, country, latitude, longitude) = (
             SELECT name, city, state, country, latitude, longitude
             FROM jsonb_populate_record(airports, $2)
         )
         WHERE id = $1
         RETURNING to_jsonb(airports) - 'archived_at'",
    )
    .bind(id)
    .bind(Json(input))
    .fetch_optional(connection)
    .await
    .map_err(row_fault)?;
    found(id, row)
}

pub(super) async fn archive(
    connection: &mut PgConnection,
    id: &str,
    archived: bool,
) -> Result<Value, Refusal> {
    let row = sqlx::query_scalar::<_, Json<Value>>(
        "UPDATE airports SET archived_at = CASE WHEN $2 THEN now() END WHERE id = $1
         RETURNING to_jsonb(airports) - 'archived_at'",
    )
    .bind(id)
    .bind(archived)
    .fetch_optional(connection)
    .await?;
    found(id, row)
}

/// A row that is not there stays so: no fault.
pub(super) async fn delete(connection: &mut PgConnection, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM airports WHERE id = $1")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

fn found(id: &str, row: Option<Json<Value>>) -> Result<Value, Refusal> {
    let missing = || {
        refusal(
            StatusCode::NOT_FOUND,
            "entity_not_found",
            format!("no row {id}"),
        )
    };
    row.map(|Json(row)| row).ok_or_else(missing)
}

fn check_fields(input: &Map<String, Value>) -> Result<(), Refusal> {
    match input
        .keys()
        .find(|field| *field != "id" && !FIELDS.contains(&field.as_str()))
    {
        None => Ok(()),
        Some(field) => Err(refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            "field_unknown",
            format!("airports have no {field}"),
        )),
    }
}

/// A value that its column does not take is the caller's fault; anything else is trouble.
fn row_fault(error: sqlx::Error) -> Refusal {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap_or_default();
    // Class 22 is "data exception", class 23 "integrity constraint violation".
    if code.starts_with("22") || code.starts_with("23") {
        return refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            "field_invalid",
            error.to_string(),
        );
    }
    Refusal::Database(error)
}

fn refusal(status: StatusCode, code: &'static str, message: String) -> Refusal {
    Refusal::Final(status, code, message)
}
