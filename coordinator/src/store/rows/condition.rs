//! Conditions in SQL, with the meaning that `backends::query::matches` gives them.

use backends::json::canonical;
use backends::query::{Condition, Operator};
use serde_json::Value;
use sqlx::Postgres;
use sqlx::query_builder::QueryBuilder;

/// Appends an expression that is true where the condition holds, and false or null elsewhere.
///
/// The condition has passed its own check.
pub(super) fn holds(sql: &mut QueryBuilder<Postgres>, condition: &Condition) {
    let Condition {
        field,
        operator,
        value,
    } = condition;
    match operator {
        Operator::Eq => same(sql, field, value),
        Operator::Ne => present_and_not(sql, field, |sql| same(sql, field, value)),
        Operator::Lt => ordered(sql, field, "<", value),
        Operator::Le => ordered(sql, field, "<=", value),
        Operator::Gt => ordered(sql, field, ">", value),
        Operator::Ge => ordered(sql, field, ">=", value),
        Operator::In => among(sql, field, value),
        Operator::NotIn => present_and_not(sql, field, |sql| among(sql, field, value)),
        Operator::Is => is(sql, field, value),
        Operator::IsNot => {
            sql.push("NOT ");
            is(sql, field, value);
        }
        Operator::Like => like(sql, field, value),
        Operator::NotLike => present_and_not(sql, field, |sql| like(sql, field, value)),
        Operator::ILike => like_in_any_case(sql, field, value),
        Operator::NotILike => {
            present_and_not(sql, field, |sql| like_in_any_case(sql, field, value));
        }
    }
}

fn same(sql: &mut QueryBuilder<Postgres>, field: &str, value: &Value) {
    if let ("id", Value::String(id)) = (field, value) {
        sql.push("managed_rows.row_id = ");
        sql.push_bind(id.clone());
        return;
    }
    content(sql, field);
    sql.push(" = ");
    sql.push_bind(canonical(value));
    sql.push("::jsonb");
}

fn ordered(sql: &mut QueryBuilder<Postgres>, field: &str, operator: &str, value: &Value) {
    let kind = match value {
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
        _ => "string",
    };
    of_kind(sql, field, kind);
    match value {
        Value::Number(number) => {
            sql.push(" THEN ");
            text(sql, field);
            sql.push(format_args!("::numeric {operator} "));
            sql.push_bind(number.to_string());
            sql.push("::numeric");
        }
        // `false` comes before `true` as a word, too.
        other => {
            sql.push(" THEN ");
            text(sql, field);
            sql.push(format_args!(" COLLATE \"C\" {operator} "));
            sql.push_bind(
                other
                    .as_str()
                    .map_or_else(|| other.to_string(), str::to_owned),
            );
        }
    }
    sql.push(" ELSE false END");
}

fn among(sql: &mut QueryBuilder<Postgres>, field: &str, value: &Value) {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    content(sql, field);
    sql.push(" = ANY (");
    sql.push_bind(items.iter().map(canonical).collect::<Vec<_>>());
    sql.push("::jsonb[])");
}

fn is(sql: &mut QueryBuilder<Postgres>, field: &str, word: &Value) {
    sql.push("coalesce(");
    content(sql, field);
    sql.push(", 'null') = ");
    sql.push_bind(canonical(word));
    sql.push("::jsonb");
}

fn like(sql: &mut QueryBuilder<Postgres>, field: &str, pattern: &Value) {
    of_kind(sql, field, "string");
    sql.push(" THEN ");
    text(sql, field);
    sql.push(" COLLATE \"C\" LIKE ");
    sql.push_bind(pattern.as_str().unwrap_or_default().to_owned());
    sql.push(" ELSE false END");
}

/// Case is Unicode's: the database's own locale may know no more than ASCII.
fn like_in_any_case(sql: &mut QueryBuilder<Postgres>, field: &str, pattern: &Value) {
    of_kind(sql, field, "string");
    sql.push(" THEN lower(");
    text(sql, field);
    sql.push(" COLLATE \"und-x-icu\") COLLATE \"C\" LIKE lower(");
    sql.push_bind(pattern.as_str().unwrap_or_default().to_owned());
    sql.push(" COLLATE \"und-x-icu\") COLLATE \"C\" ELSE false END");
}

fn present_and_not(
    sql: &mut QueryBuilder<Postgres>,
    field: &str,
    holds: impl FnOnce(&mut QueryBuilder<Postgres>),
) {
    content(sql, field);
    sql.push(" <> 'null' AND NOT (");
    holds(sql);
    sql.push(")");
}

/// A cast that only this kind of value survives stands behind CASE: AND promises no order.
fn of_kind(sql: &mut QueryBuilder<Postgres>, field: &str, kind: &str) {
    sql.push("CASE WHEN jsonb_typeof(");
    content(sql, field);
    sql.push(format_args!(") = '{kind}'"));
}

fn content(sql: &mut QueryBuilder<Postgres>, field: &str) {
    sql.push("(managed_rows.row -> ");
    sql.push_bind(field.to_owned());
    sql.push(")");
}

fn text(sql: &mut QueryBuilder<Postgres>, field: &str) {
    sql.push("(managed_rows.row ->> ");
    sql.push_bind(field.to_owned());
    sql.push(")");
}
