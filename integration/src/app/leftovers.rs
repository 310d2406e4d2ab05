//! What a test must not leave in its database.

use std::thread;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

/// Queued commits that are not dead, sources and rows that miscount them, sessions that have sat in an
/// open transaction since before the test was over: what a node was just doing stands still with the
/// test.
const LEFTOVERS: &str = "
SELECT (SELECT count(*) FROM commits WHERE state = 'queued' AND NOT dead) AS unsettled,
       (SELECT count(*) FROM inbox WHERE NOT dead) AS undelivered,
       (SELECT coalesce(sum(pending_count), 0)::bigint FROM data_sources) AS counted,
       (SELECT count(*) FROM (
            SELECT org_id, model, row_id, unsettled FROM row_versions WHERE unsettled <> 0
            EXCEPT
            SELECT org_id, operation ->> 'model', operation ->> 'id', count(DISTINCT (source_id, sequence))
            FROM inbox, json_array_elements(convert_from(body, 'UTF8')::json -> 'operations') AS operation
            GROUP BY 1, 2, 3
        ) AS rows) AS miscounted,
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'
          AND state_change < (SELECT backend_start FROM pg_stat_activity
                              WHERE pid = pg_backend_pid()) - interval '1 second') AS open";

/// What is wrong with what is left, for a person.
pub(super) fn fault(options: PgConnectOptions, pending_allowed: bool) -> Option<String> {
    // A thread of its own: the test's runtime is busy dropping.
    let looked = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(look(options, pending_allowed))
    });
    match looked.join().expect("looking does not panic") {
        Ok(fault) => fault,
        Err(error) => Some(format!("nobody could look: {error:#}")),
    }
}

async fn look(options: PgConnectOptions, pending_allowed: bool) -> anyhow::Result<Option<String>> {
    let mut connection = PgConnection::connect_with(&options).await?;
    let row = sqlx::query(LEFTOVERS).fetch_one(&mut connection).await?;
    connection.close().await?;
    let count = |name| row.try_get::<i64, _>(name);
    let (unsettled, undelivered) = (count("unsettled")?, count("undelivered")?);
    let (counted, open) = (count("counted")?, count("open")?);
    let miscounted = count("miscounted")?;
    let fault = if open > 0 {
        Some(format!("{open} sessions are idle in a transaction"))
    } else if unsettled != undelivered || unsettled != counted {
        Some(format!(
            "{unsettled} commits are queued, {undelivered} are in an inbox, {counted} are counted"
        ))
    } else if miscounted > 0 {
        Some(format!("{miscounted} rows miscount their commits"))
    } else if unsettled > 0 && !pending_allowed {
        Some(format!("{unsettled} commits are not settled"))
    } else {
        None
    };
    Ok(fault)
}
