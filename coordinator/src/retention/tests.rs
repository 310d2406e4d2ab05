//! Rows of every age, and what is left of them.

use sqlx::{AssertSqlSafe, Executor};

use super::*;
use crate::migrate::partitions;
use crate::store::scratch::{Scratch, acme};
use crate::store::sources;

/// Every age, in days: on both sides of each retention below.
const AGES: &str = "(VALUES (0), (9), (11), (34), (36), (399), (401)) AS ages (days)";

const RETENTION: Retention = Retention {
    delta_days: 30,
    attempt_days: 30,
    managed_commit_days: 10,
    source_commit_days: Some(35),
    feed_event_days: 35,
    quarantined_event_days: 10,
    action_days: 400,
};

async fn aged(scratch: &Scratch) {
    let source = "INSERT INTO data_sources (org_id, source_id, url, retry_delays_ms,
            request_timeout_ms, max_in_flight, state, attempts_by_outcome, owner, created_at,
            updated_at)
        VALUES ('acme', 'crm', 'https://crm.example/', '{5}', 1000, 1, 'enabled', '{7,0,0,0,0,0}',
            '00000000-0000-0000-0000-000000000001', now(), now())";
    run(scratch, source).await;
    let moment = "now() - days * interval '1 day'";
    let commits = "INSERT INTO commits (org_id, client_tx_id, commit_id, fingerprint,
            participant_id, participant_kind, schema_version, source_id, state, accepted_at,
            settled_at)
        SELECT 'acme', name || days, gen_random_uuid(), sha256('x'), 'p', 'user', 1, source, state,";
    for statement in [
        format!(
            "{commits} {moment}, CASE WHEN state <> 'queued' THEN {moment} END
             FROM {AGES}, (VALUES ('m', NULL, 'confirmed'), ('s', 'crm', 'rejected'),
                 ('q', 'crm', 'queued')) AS kinds (name, source, state)"
        ),
        // Accepted long ago, settled lately: the id may be sent again.
        format!(
            "{commits} now() - interval '50 days', now()
             FROM (VALUES ('late', 50, 'crm', 'confirmed')) AS late (name, days, source, state)"
        ),
        format!("INSERT INTO feed_events SELECT 'acme', 'crm', days, {moment} FROM {AGES}"),
        format!(
            "INSERT INTO quarantined_events
             SELECT 'acme', 'crm', days, {moment}, 'r', 'm', '{{}}' FROM {AGES}"
        ),
        format!(
            "INSERT INTO operator_actions
             SELECT 'acme', {moment}, gen_random_uuid(), 'crm', 'pause', NULL, gen_random_uuid(),
                    days::text, '' FROM {AGES}"
        ),
        "INSERT INTO nodes (node_id, expires_at)
         SELECT lpad(n::text, 32, '0')::uuid, now() - days * interval '1 day'
         FROM (VALUES (1, 9), (2, 9), (3, 0)) AS nodes (n, days)"
            .to_owned(),
    ] {
        run(scratch, &statement).await;
    }
}

async fn run(scratch: &Scratch, sql: &str) {
    let statement = AssertSqlSafe(sql.to_owned());
    scratch
        .store
        .reads
        .execute(sqlx::raw_sql(statement))
        .await
        .unwrap();
}

/// A column's values, in order.
async fn all(scratch: &Scratch, column: &str, table: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(v, ' ' ORDER BY v COLLATE \"C\"), '') \
                       FROM (SELECT {column} AS v FROM {table}) AS t"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(&scratch.store.reads)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_retention_goes_and_nothing_else() {
    let scratch = Scratch::start().await;
    aged(&scratch).await;
    let forever = Retention {
        source_commit_days: None,
        ..RETENTION
    };
    let metrics = Metrics::noop();
    round(&scratch.store, forever, &metrics).await.unwrap();
    let queued = "q0 q11 q34 q36 q399 q401 q9";
    let commits = |settled: &str| format!("late50 m0 m9 {queued} {settled}");
    assert_eq!(
        all(&scratch, "client_tx_id", "commits").await,
        commits("s0 s11 s34 s36 s399 s401 s9")
    );
    round(&scratch.store, RETENTION, &metrics).await.unwrap();
    let left = all(&scratch, "client_tx_id", "commits").await;
    assert_eq!(left, commits("s0 s11 s34 s9"));
    let left = all(&scratch, "event_id", "feed_events").await;
    assert_eq!(left, "0 11 34 9");
    let left = all(&scratch, "event_id", "quarantined_events").await;
    assert_eq!(left, "0 9");
    let left = all(&scratch, "actor", "operator_actions").await;
    assert_eq!(left, "0 11 34 36 399 9");
    // The first one is gone, but owns a source still; the third is alive.
    let left = all(&scratch, "right(node_id::text, 1)", "nodes").await;
    assert_eq!(left, "1 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_goes_on_until_all_is_deleted_and_waits_for_no_other_node() {
    let scratch = Scratch::start().await;
    aged(&scratch).await;
    run(
        &scratch,
        "INSERT INTO feed_events SELECT 'acme', 'crm', 'old-' || n, now() - interval '1 year'
         FROM generate_series(1, 10002) AS n",
    )
    .await;
    let mut other = scratch.store.reads.begin().await.unwrap();
    other
        .execute(include_str!("../store/sql/prune_turn.sql"))
        .await
        .unwrap();
    assert_eq!(
        prune(&scratch.store, Aged::FeedEvents, 35).await.unwrap(),
        0
    );
    other.rollback().await.unwrap();

    let first = prune(&scratch.store, Aged::FeedEvents, 35).await.unwrap();
    assert_eq!(first, BATCH);
    round(&scratch.store, RETENTION, &Metrics::noop())
        .await
        .unwrap();
    let left = all(&scratch, "event_id", "feed_events").await;
    assert_eq!(left, "0 11 34 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sources_counters_outlive_its_attempts() {
    let scratch = Scratch::start().await;
    aged(&scratch).await;
    run(
        &scratch,
        "CREATE TABLE attempts_20200101 PARTITION OF attempts
             FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z');
         INSERT INTO attempts (org_id, source_id, started_at, commit_id, number, client_tx_id,
             cause, node, deadline, outcome)
         VALUES ('acme', 'crm', '2020-01-01 12:00Z', gen_random_uuid(), 1, 'c', 'accept',
             gen_random_uuid(), '2020-01-01 12:01Z', 'applied')",
    )
    .await;
    let status = async || {
        let status = sources::status(&scratch.store, acme(), "crm".to_owned()).await;
        status.unwrap().unwrap().attempts_by_outcome
    };
    let before = status().await;
    assert_eq!(before[0], 7);
    let dropped = partitions::drop_expired(&scratch.store.reads, RETENTION).await;
    assert_eq!(dropped.unwrap(), ["attempts_20200101"]);
    assert_eq!(all(&scratch, "client_tx_id", "attempts").await, "");
    assert_eq!(status().await, before);
}
