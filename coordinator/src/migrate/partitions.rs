//! Daily partitions of `deltas` and `attempts`: made ahead of time, dropped when their history is
//! older than it must be kept.

use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, FromRow};

use crate::config::Retention;
use crate::store::Error;

/// Partitions reach two weeks ahead, so that this may fail for days before anybody notices.
const EVERY: Duration = Duration::from_hours(24);

/// Makes the partitions from yesterday to two weeks ahead that are missing. Safe to run on several
/// nodes at once; writes go on meanwhile.
pub async fn ensure(pool: &PgPool) -> Result<(), Error> {
    sqlx::raw_sql(include_str!("../store/sql/ensure_partitions.sql"))
        .execute(pool)
        .await?;
    Ok(())
}

/// Drops the partitions whose last day is over for longer than the retention, and names them.
///
/// Dropping one waits a moment for running statements; if it cannot, it stays until the next time.
pub async fn drop_expired(pool: &PgPool, retention: Retention) -> Result<Vec<String>, Error> {
    let expired: Vec<Partition> =
        sqlx::query_as(include_str!("../store/sql/expired_partitions.sql"))
            .bind(i32::from(retention.delta_days))
            .bind(i32::from(retention.attempt_days))
            .fetch_all(pool)
            .await?;
    let mut dropped = Vec::new();
    for Partition { name } in expired {
        // The catalogue gave the name, quoted.
        let drop = AssertSqlSafe(format!("/* drop_partition */ DROP TABLE IF EXISTS {name}"));
        sqlx::query(drop).execute(pool).await?;
        dropped.push(name);
    }
    Ok(dropped)
}

/// Keeps partitions as they should be, once a day, for ever.
pub async fn keep(pool: PgPool, retention: Retention) {
    let mut days = tokio::time::interval(EVERY);
    loop {
        days.tick().await;
        if let Err(error) = ensure(&pool).await {
            tracing::error!(%error, "partitions could not be made: writes stop in two weeks");
        }
        match drop_expired(&pool, retention).await {
            Ok(dropped) if dropped.is_empty() => {}
            Ok(dropped) => tracing::info!(?dropped, "history past its retention was dropped"),
            Err(error) => tracing::warn!(%error, "history past its retention was kept"),
        }
    }
}

#[derive(FromRow)]
struct Partition {
    name: String,
}
