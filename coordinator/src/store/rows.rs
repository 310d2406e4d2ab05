//! Rows of managed models, read one at a time or a page at a time.

use backends::json;
use backends::query::Query;
use sqlx::Postgres;
use sqlx::postgres::PgPool;
use sqlx::query_builder::QueryBuilder;

use super::{Error, Store, detached};
use crate::domain::OrganizationId;

mod condition;
mod order;

pub use order::After;
use order::Order;

/// The longest page, in bytes of JSON: it must fit into one message with room to spare.
const PAGE_BYTES: i64 = 3 << 20;

/// A managed row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedRow {
    /// One JSON object that includes `id`.
    pub json: String,
    /// Whether List leaves it out.
    pub archived: bool,
}

/// A row, or its absence, at a position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The log's last sync id in the snapshot that was read.
    pub last_sync_id: i64,
    /// The row.
    pub row: Option<LoadedRow>,
}

/// Which page of which rows.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Whose rows.
    pub organization: OrganizationId,
    /// The model.
    pub model: String,
    /// Conditions, order and limit; its cursor is not looked at.
    pub query: Query,
    /// Archived rows too.
    pub include_archived: bool,
    /// The end of the page before.
    pub after: Option<After>,
}

/// A page of rows at a position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The log's last sync id in the snapshot that was read.
    pub last_sync_id: i64,
    /// Each one JSON object that includes `id`.
    pub rows: Vec<String>,
    /// Where the next page begins, if there is one.
    pub next: Option<After>,
}

#[derive(sqlx::FromRow)]
struct LoadColumns {
    last_sync_id: i64,
    row: Option<String>,
    archived: bool,
}

#[derive(sqlx::FromRow)]
struct PageColumns {
    last_sync_id: i64,
    row: Option<String>,
    row_id: Option<String>,
    rank: Option<i32>,
    number: Option<String>,
    word: Option<String>,
    found: Option<i64>,
}

/// The row with this id.
pub async fn load(
    store: &Store,
    organization: OrganizationId,
    model: String,
    id: String,
) -> Result<Loaded, Error> {
    detached(&store.reads, |pool| async move {
        let found: Option<LoadColumns> = sqlx::query_as(include_str!("sql/load_managed_row.sql"))
            .bind(organization.as_str())
            .bind(model)
            .bind(id)
            .fetch_optional(&pool)
            .await?;
        let found = found.ok_or_else(|| no_head(&organization))?;
        let row = found.row.map(|row| LoadedRow {
            json: compact(row),
            archived: found.archived,
        });
        Ok(Loaded {
            last_sync_id: found.last_sync_id,
            row,
        })
    })
    .await
}

/// A row's text as receipts have it, not as Postgres spaces it.
fn compact(row: String) -> String {
    json::parse_stored(&row).map_or(row, |row| row.to_string())
}

/// One page of the rows that meet every condition, as `backends::query::matches` has it, in the
/// order of `backends::query::compare_rows` (but arrays, and objects, are equal to each other).
///
/// A page is never empty while there are more rows, and ends early rather than grow beyond 3 MiB.
pub async fn list(store: &Store, request: PageRequest) -> Result<Page, Error> {
    detached(
        &store.reads,
        |pool| async move { page(&pool, &request).await },
    )
    .await
}

async fn page(pool: &PgPool, request: &PageRequest) -> Result<Page, Error> {
    let found: Vec<PageColumns> = statement(request)
        .build_query_as()
        .persistent(false)
        .fetch_all(pool)
        .await?;
    let Some(first) = found.first() else {
        return Err(no_head(&request.organization));
    };
    let mut page = Page {
        last_sync_id: first.last_sync_id,
        rows: Vec::new(),
        next: None,
    };
    let total = first.found.unwrap_or_default();
    let limit = usize::try_from(request.query.limit).unwrap_or(usize::MAX);
    for columns in found.into_iter().take(limit) {
        let (Some(row), Some(id)) = (columns.row, columns.row_id) else {
            return Ok(page);
        };
        page.rows.push(compact(row));
        page.next = Some(After {
            rank: columns.rank.unwrap_or_default(),
            number: columns.number.unwrap_or_default(),
            word: columns.word.unwrap_or_default(),
            id,
        });
    }
    if i64::try_from(page.rows.len()).is_ok_and(|rows| rows == total) {
        page.next = None;
    }
    Ok(page)
}

/// The page's statement. Whatever a caller chose, names of fields too, is a bound value.
///
/// It reads one row more than the page has, to know whether another page follows, and weighs the
/// rows in their order, so that a page of long rows is cut where it becomes too long.
fn statement(request: &PageRequest) -> QueryBuilder<Postgres> {
    let order = Order::of(request.query.order.as_ref());
    let mut sql = QueryBuilder::new(
        "-- list_managed_rows: a page of a managed model. Locks: none.\n\
         SELECT heads.last_sync_id, page.content::text AS row, page.row_id, page.rank, \
         page.number::text AS number, page.word, page.found FROM heads LEFT JOIN \
         (SELECT chosen.*, row_number() OVER by_order AS position, count(*) OVER () AS found, \
         sum(octet_length(chosen.content::text)) OVER by_order AS weight FROM \
         (SELECT candidates.* FROM \
         (SELECT managed_rows.row AS content, managed_rows.row_id, ",
    );
    order.columns(&mut sql);
    sql.push(" FROM managed_rows WHERE managed_rows.org_id = ");
    sql.push_bind(request.organization.as_str().to_owned());
    sql.push(" AND managed_rows.model = ");
    sql.push_bind(request.model.clone());
    if !request.include_archived {
        sql.push(" AND managed_rows.archived_at IS NULL");
    }
    for condition in &request.query.conditions {
        sql.push(" AND (");
        condition::holds(&mut sql, condition);
        sql.push(")");
    }
    sql.push(") candidates");
    if let Some(after) = &request.after {
        sql.push(" WHERE ");
        order.begins_after(&mut sql, after);
    }
    sql.push(format_args!(" ORDER BY {} LIMIT ", order.sequence()));
    sql.push_bind(i64::from(request.query.limit) + 1);
    sql.push(format_args!(
        ") chosen WINDOW by_order AS (ORDER BY {} ROWS UNBOUNDED PRECEDING)) page \
         ON page.weight <= {PAGE_BYTES} OR page.position = 1 WHERE heads.org_id = ",
        order.sequence()
    ));
    sql.push_bind(request.organization.as_str().to_owned());
    sql.push(" ORDER BY page.position");
    sql
}

fn no_head(organization: &OrganizationId) -> Error {
    Error::Corrupt {
        table: "heads",
        column: "org_id",
        row: organization.to_string(),
    }
}

#[cfg(test)]
mod tests;
