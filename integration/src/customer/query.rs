//! Rows by condition, a page at a time.

use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::Refusal;
use super::airports::FIELDS;
use super::wire::Query;

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1_000;

/// Answers one page. The cursor counts the rows before it: rows that come or go between two pages
/// shift the second. A feed of changes is what `events` is for.
pub(super) async fn list(pool: &PgPool, query: &Query) -> Result<Value, Refusal> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let skip: i64 = match query.cursor.as_deref() {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .map_err(|_| invalid("the cursor is none of ours"))?,
    };
    let mut sql = QueryBuilder::new(
        "SELECT to_jsonb(airports) - 'archived_at' FROM airports WHERE archived_at IS NULL",
    );
    for condition in &query.conditions {
        push_condition(&mut sql, condition)?;
    }
    sql.push(" ORDER BY ");
    if let Some(field) = &query.order_by {
        sql.push(column(field)?);
        let descending = query
            .order
            .as_deref()
            .is_some_and(|it| it.eq_ignore_ascii_case("desc"));
        sql.push(if descending { " DESC, " } else { ", " });
    }
    // One row more than asked for tells whether there is a next page.
    sql.push("id LIMIT ")
        .push_bind(limit + 1)
        .push(" OFFSET ")
        .push_bind(skip);
    let rows: Vec<Json<Value>> = sql.build_query_scalar().fetch_all(pool).await?;
    let mut rows: Vec<Value> = rows.into_iter().map(|Json(row)| row).collect();
    let page = usize::try_from(limit).expect("1 to 1,000");
    let more = rows.len() > page;
    rows.truncate(page);
    let mut answer = json!({"rows": rows});
    if more {
        answer["nextCursor"] = (skip + limit).to_string().into();
    }
    Ok(answer)
}

fn push_condition(sql: &mut QueryBuilder<Postgres>, condition: &[Value]) -> Result<(), Refusal> {
    let (field, operator, value) = match condition {
        [Value::String(field), value] => (field, "=", value),
        [Value::String(field), Value::String(operator), value] => (field, operator.as_str(), value),
        _ => {
            return Err(invalid(
                "a condition is [field, value] or [field, operator, value]",
            ));
        }
    };
    let column = column(field)?;
    let cast = if matches!(column, "latitude" | "longitude") {
        "numeric"
    } else {
        "text"
    };
    sql.push(" AND ").push(column);
    match operator {
        "=" | "!=" | "<" | "<=" | ">" | ">=" | "LIKE" | "NOT LIKE" | "ILIKE" | "NOT ILIKE" => {
            // `#>> '{}'` is the value as text, without the quotes of a JSON string.
            let value = Json(value.clone());
            sql.push(format!(" {operator} ("))
                .push_bind(value)
                .push(" #>> '{}')::")
                .push(cast);
        }
        "IN" | "NOT IN" => {
            let values = Json(value.as_array().cloned().unwrap_or_default());
            sql.push(format!(
                " {operator} (SELECT value::{cast} FROM jsonb_array_elements_text("
            ));
            sql.push_bind(values).push(") AS value)");
        }
        "IS" | "IS NOT" if value.is_null() => {
            sql.push(format!(" {operator} NULL"));
        }
        _ => return Err(invalid("an operator that airports do not know")),
    }
    Ok(())
}

/// Names go into the statement as they are, so only known ones do.
fn column(field: &str) -> Result<&'static str, Refusal> {
    ["id"]
        .into_iter()
        .chain(FIELDS)
        .find(|column| *column == field)
        .ok_or_else(|| invalid("a field that airports do not have"))
}

fn invalid(message: &str) -> Refusal {
    Refusal::Final(StatusCode::BAD_REQUEST, "query_invalid", message.to_owned())
}
