//! The order of a list in SQL, and how a page begins where another one ended.

use backends::query::OrderBy;
use serde::{Deserialize, Serialize};
use sqlx::Postgres;
use sqlx::query_builder::QueryBuilder;

/// The last row of a page, by what orders it. A page that begins after it is right whatever was
/// written in between: no row is skipped or shown twice unless it moved itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The rank of the value's type.
    pub(super) rank: i32,
    /// The value, if it is a number or a boolean; 0 otherwise.
    pub(super) number: String,
    /// The value, if it is a string; empty otherwise.
    pub(super) word: String,
    /// The row's id, which decides between equals, upwards.
    pub(super) id: String,
}

/// What a list is ordered by.
#[derive(Debug)]
pub(super) enum Order<'a> {
    /// By `id`.
    Id { descending: bool },
    /// By a field, as `backends::query::compare_rows` has it, then by `id`.
    Field { field: &'a str, descending: bool },
}

impl<'a> Order<'a> {
    pub(super) fn of(order: Option<&'a OrderBy>) -> Self {
        match order {
            None => Self::Id { descending: false },
            Some(OrderBy { field, descending }) if field == "id" => Self::Id {
                descending: *descending,
            },
            Some(OrderBy { field, descending }) => Self::Field {
                field,
                descending: *descending,
            },
        }
    }

    /// Appends the columns `rank`, `number` and `word`.
    pub(super) fn columns(&self, sql: &mut QueryBuilder<Postgres>) {
        let Self::Field { field, .. } = self else {
            sql.push("0 AS rank, 0::numeric AS number, '' AS word");
            return;
        };
        let mut value = |before: &str, operator: &str, after: &str| {
            sql.push(format_args!("{before}(managed_rows.row {operator} "));
            sql.push_bind((*field).to_owned());
            sql.push(format_args!("){after}"));
        };
        value(
            "CASE jsonb_typeof",
            "->",
            " WHEN 'string' THEN 0 WHEN 'number' THEN 1 \
             WHEN 'boolean' THEN 2 WHEN 'array' THEN 3 WHEN 'object' THEN 4 ELSE 5 END AS rank, ",
        );
        value("CASE jsonb_typeof", "->", " WHEN 'number' THEN ");
        value("", "->>", "::numeric WHEN 'boolean' THEN ");
        value("", "->>", "::boolean::int::numeric ELSE 0 END AS number, ");
        value("CASE jsonb_typeof", "->", " WHEN 'string' THEN ");
        value("", "->>", " ELSE '' END COLLATE \"C\" AS word");
    }

    /// What to put behind ORDER BY.
    pub(super) fn sequence(&self) -> &'static str {
        match self {
            Self::Id { descending: false } => "row_id",
            Self::Id { descending: true } => "row_id DESC",
            Self::Field {
                descending: false, ..
            } => "rank, number, word, row_id",
            Self::Field {
                descending: true, ..
            } => "rank DESC, number DESC, word DESC, row_id",
        }
    }

    /// Appends what holds for the rows behind another.
    pub(super) fn begins_after(&self, sql: &mut QueryBuilder<Postgres>, after: &After) {
        let (Self::Id { descending } | Self::Field { descending, .. }) = self;
        let behind = if *descending { "<" } else { ">" };
        if let Self::Id { .. } = self {
            sql.push(format_args!("row_id {behind} "));
            sql.push_bind(after.id.clone());
            return;
        }
        key(sql, behind, after);
        sql.push(" OR ");
        key(sql, "=", after);
        sql.push(" AND row_id > ");
        sql.push_bind(after.id.clone());
    }
}

fn key(sql: &mut QueryBuilder<Postgres>, operator: &str, after: &After) {
    sql.push(format_args!("(rank, number, word) {operator} ("));
    sql.push_bind(after.rank);
    sql.push(", ");
    sql.push_bind(after.number.clone());
    sql.push("::numeric, ");
    sql.push_bind(after.word.clone());
    sql.push(")");
}
