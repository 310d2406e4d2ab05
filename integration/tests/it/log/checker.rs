//! Readers that are known to be wrong, caught by the checker that the other tests use.

use std::collections::BTreeMap;

use integration::log_check::{Seen, dense, ends_on};
use integration::postgres::TestDatabase;
use sqlx::postgres::PgPool;
use sqlx::{Executor, PgConnection, Row};

/// A log whose positions come from a plain sequence.
const TABLES: &str = "
CREATE TABLE plain_log (id bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
                        row_name text NOT NULL, token text NOT NULL);
CREATE TABLE plain_rows (row_name text PRIMARY KEY, token text NOT NULL);
INSERT INTO plain_rows VALUES ('a', ''), ('b', '')";

/// Changes a row and logs it, within whatever transaction the connection is in.
async fn write(connection: &mut PgConnection, row: &str, token: &str) {
    let write = "WITH changed AS (UPDATE plain_rows SET token = $2 WHERE row_name = $1)
                 INSERT INTO plain_log (row_name, token) VALUES ($1, $2)";
    let write = sqlx::query(write).bind(row).bind(token);
    write.execute(connection).await.unwrap();
}

async fn read(pool: &PgPool, sql: &'static str, after: i64) -> Vec<Seen> {
    let rows = sqlx::query(sql).bind(after).fetch_all(pool).await.unwrap();
    let seen = rows.iter().map(|row| Seen {
        position: row.get("id"),
        row: row.get("row_name"),
        token: row.get("token"),
    });
    seen.collect()
}

#[tokio::test]
async fn a_reader_behind_a_plain_sequence_misses_a_change_and_is_caught() {
    let database = TestDatabase::empty().await;
    let pool = database.pool(4);
    pool.execute(sqlx::raw_sql(TABLES)).await.unwrap();
    let behind = "SELECT id, row_name, token FROM plain_log WHERE id > $1 ORDER BY id";
    let mut slow = pool.begin().await.unwrap();
    write(&mut slow, "a", "first").await;
    let mut quick = pool.acquire().await.unwrap();
    write(&mut quick, "b", "second").await;
    let mut seen = read(&pool, behind, 0).await;
    let cursor = seen.last().unwrap().position;
    slow.commit().await.unwrap();
    seen.extend(read(&pool, behind, cursor).await);
    let caught = dense(&seen, 1, 2).unwrap_err();
    assert!(caught.contains("position 2 came where 1"), "{caught}");
}

#[tokio::test]
async fn a_reader_in_the_order_of_transactions_turns_a_row_around_and_is_caught() {
    let database = TestDatabase::empty().await;
    let pool = database.pool(4);
    pool.execute(sqlx::raw_sql(TABLES)).await.unwrap();
    // The transaction that began first changes `b` last.
    let mut first = pool.begin().await.unwrap();
    write(&mut first, "a", "one").await;
    let mut second = pool.acquire().await.unwrap();
    write(&mut second, "b", "two").await;
    write(&mut first, "b", "three").await;
    first.commit().await.unwrap();
    let by_transaction = "SELECT id, row_name, token FROM plain_log WHERE id > $1 ORDER BY xid, id";
    let seen = read(&pool, by_transaction, 0).await;
    let rows = sqlx::query("SELECT row_name, token FROM plain_rows");
    let rows = rows.fetch_all(&pool).await.unwrap();
    let rows: BTreeMap<String, String> = rows
        .iter()
        .map(|row| (row.get("row_name"), row.get("token")))
        .collect();
    assert_eq!(rows["b"], "three");
    let caught = ends_on(&seen, &rows).unwrap_err();
    assert!(caught.starts_with("b holds three"), "{caught}");
    assert!(dense(&seen, 1, 3).is_err());
}
