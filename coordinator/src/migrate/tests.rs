//! Migrations and partitions on a real Postgres.

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Row};

use super::*;
use crate::cluster::{Cluster, ClusterOptions, Durability};
use crate::config::Retention;

/// A cluster of this module's own, and an empty database in it.
struct Database {
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl Database {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Postgres may run as another account, which must be able to pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let options = ClusterOptions {
            folder: folder.path().join("cluster"),
            binaries: None,
            durability: Durability::Fast,
            settings: Vec::new(),
        };
        let cluster = Cluster::start(options).await.unwrap();
        cluster.create_database("coordinator").await.unwrap();
        Self {
            cluster,
            _folder: folder,
        }
    }

    fn options(&self) -> PgConnectOptions {
        self.cluster.connect_options("coordinator")
    }

    async fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .connect_with(self.options())
            .await
            .unwrap()
    }
}

async fn partitions(pool: &PgPool) -> Vec<String> {
    let sql = "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid \
               WHERE relkind = 'r' ORDER BY 1";
    let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_empty_database_is_behind_until_it_is_migrated_once() {
    let database = Database::start().await;
    let pool = database.pool().await;
    assert!(matches!(check(&pool).await, Err(SchemaError::Behind(versions)) if versions[0] == 1));
    let options = database.options();
    let (one, other) = tokio::join!(migrate(&options), migrate(&options));
    assert_eq!(one.unwrap()[0].version, 1);
    other.unwrap();
    check(&pool).await.unwrap();
    assert!(migrate(&database.options()).await.unwrap().is_empty());

    // A newer program has been here: its migrations are left alone.
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'newer', true, 'x', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    check(&pool).await.unwrap();
    assert!(migrate(&database.options()).await.unwrap().is_empty());

    // Somebody edited a migration that was released.
    let edited = "UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1";
    sqlx::query(edited).execute(&pool).await.unwrap();
    assert!(matches!(check(&pool).await, Err(SchemaError::Differs(1))));
    pool.close().await;
    database.cluster.stop().await.unwrap();
}

#[tokio::test]
async fn commits_that_waited_before_they_were_counted_are_counted() {
    let database = Database::start().await;
    let pool = database.pool().await;
    let mut before = Migrator {
        ..Migrator::DEFAULT
    };
    let older = MIGRATIONS.iter().filter(|one| one.version < 6).cloned();
    before.migrations = older.collect::<Vec<_>>().into();
    before.run(&pool).await.unwrap();
    let waiting = "INSERT INTO inbox (org_id, source_id, sequence, client_tx_id, commit_id, body, \
                                      lanes, due_at, accepted_at) \
                   SELECT 'o', 's', n, n::text, gen_random_uuid(), convert_to( \
                       '{\"operations\":[{\"model\":\"m\",\"id\":\"a\"},{\"model\":\"m\",\"id\":\"' \
                           || CASE n WHEN 1 THEN 'a' ELSE 'b' END || '\"}]}', 'UTF8'), \
                       '{}', now(), now() \
                   FROM generate_series(1, 3) AS n";
    sqlx::query(waiting).execute(&pool).await.unwrap();
    let known =
        "INSERT INTO row_versions (org_id, model, row_id, sync_id) VALUES ('o', 'm', 'a', 7)";
    sqlx::query(known).execute(&pool).await.unwrap();
    migrate(&database.options()).await.unwrap();
    let counted: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT row_id, sync_id, unsettled FROM row_versions ORDER BY row_id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(counted, [("a".to_owned(), 7, 3), ("b".to_owned(), 0, 2)]);
    pool.close().await;
    database.cluster.stop().await.unwrap();
}

#[tokio::test]
async fn partitions_are_made_ahead_by_several_nodes_and_dropped_when_expired() {
    let database = Database::start().await;
    migrate(&database.options()).await.unwrap();
    let pool = database.pool().await;
    let (one, other) = tokio::join!(partitions::ensure(&pool), partitions::ensure(&pool));
    one.unwrap();
    other.unwrap();
    let made = partitions(&pool).await;
    assert_eq!(made.len(), 32, "16 days of two tables: {made:?}");
    partitions::ensure(&pool).await.unwrap();
    assert_eq!(partitions(&pool).await, made);

    // A write finds its partition through both ends of the span.
    let insert = "INSERT INTO deltas (org_id, sync_id, created_at, kind, model, row_id) \
                  SELECT 'o', days, now() + days * interval '1 day', 'CREATE', 'm', 'r' \
                  FROM generate_series(0, 14) AS days";
    sqlx::query(insert).execute(&pool).await.unwrap();

    let old = "CREATE TABLE deltas_20200101 PARTITION OF deltas \
               FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z')";
    sqlx::query(AssertSqlSafe(old))
        .execute(&pool)
        .await
        .unwrap();
    let retention = Retention {
        delta_days: 30,
        attempt_days: 30,
        managed_commit_days: 30,
        source_commit_days: None,
        feed_event_days: 35,
        quarantined_event_days: 35,
        action_days: 400,
    };
    assert_eq!(
        partitions::drop_expired(&pool, retention).await.unwrap(),
        ["deltas_20200101"]
    );
    assert_eq!(partitions(&pool).await, made);
    pool.close().await;
    database.cluster.stop().await.unwrap();
}
