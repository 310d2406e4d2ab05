//! What a commit costs in exact terms: its statements, counted by Postgres.

use std::collections::BTreeMap;

use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use integration::app::{Flags, Tenant, TestApp, eventually, intent};
use integration::endpoint::Endpoint;
use integration::node::temporary_folder;
use proto::v1;
use proto::v1::CommitRequest;
use serde_json::json;
use sqlx::PgPool;
use tempfile::TempDir;

/// Each statement opens with its name. What nodes do by the clock is left out.
const COUNTS: &str = "
SELECT name, sum(calls)::bigint
FROM (SELECT split_part(split_part(substr(query, 4), E'\\n', 1), ':', 1) AS name, calls
      FROM pg_stat_statements AS statement
      JOIN pg_database AS database ON database.oid = statement.dbid
      WHERE datname = current_database()) AS counted
WHERE name = ANY ($1)
GROUP BY name";

/// The statements that calls and couriers run for a commit, but for those that look again and again.
const OF_COMMITS: [&str; 4] = ["read", "append", "receipt", "lock_head"];

/// A Postgres that counts, and a coordinator over it.
pub(crate) struct Counting {
    pub(crate) app: TestApp,
    cluster: Cluster,
    _folder: TempDir,
}

impl Counting {
    pub(crate) async fn start() -> Self {
        let folder = temporary_folder("coordinator-cost-").unwrap();
        let preload = ("shared_preload_libraries", "pg_stat_statements");
        let cluster = Cluster::start(ClusterOptions {
            folder: folder.path().to_owned(),
            binaries: None,
            durability: Durability::Fast,
            settings: vec![(preload.0.to_owned(), preload.1.to_owned())],
        })
        .await
        .unwrap();
        cluster.create_database("ledger").await.unwrap();
        let connect = cluster.connect_options("ledger");
        coordinator::migrate::migrate(&connect).await.unwrap();
        let mut app = TestApp::over(cluster.url("ledger"), connect, Flags::default());
        app.add_node().await;
        let counting = Self {
            app,
            cluster,
            _folder: folder,
        };
        sqlx::query("CREATE EXTENSION pg_stat_statements")
            .execute(&counting.pool())
            .await
            .unwrap();
        counting
    }

    fn pool(&self) -> PgPool {
        self.app.pool()
    }

    /// What a commit ran.
    async fn of(&self, tenant: &Tenant, commit: CommitRequest) -> BTreeMap<String, i64> {
        self.reset().await;
        tenant.confirm(commit).await;
        self.calls(&OF_COMMITS).await
    }

    /// Counts anew.
    pub(crate) async fn reset(&self) {
        let reset = sqlx::query("SELECT pg_stat_statements_reset()");
        reset.execute(&self.pool()).await.unwrap();
    }

    /// How often these statements ran.
    pub(crate) async fn calls(&self, names: &[&str]) -> BTreeMap<String, i64> {
        let counts: Vec<(String, i64)> = sqlx::query_as(COUNTS)
            .bind(names)
            .fetch_all(&self.pool())
            .await
            .unwrap();
        counts.into_iter().collect()
    }

    pub(crate) async fn stop(mut self) {
        self.app.stop().await;
        drop(self.app);
        self.cluster.stop().await.unwrap();
    }
}

fn counts<const N: usize>(counts: [(&str, i64); N]) -> BTreeMap<String, i64> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

#[tokio::test]
async fn a_commit_runs_the_statements_that_it_must_and_no_more() {
    let counting = Counting::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.without_feed();
    let tenant = counting.app.tenant(&endpoint).await;
    // That there is no feed is the last that its reader writes.
    eventually("the feed to be looked for", async || {
        let feed = tenant.status().await.feed?;
        (feed.state() == v1::FeedState::None).then_some(())
    })
    .await;
    let create = |model: &str, id: &str| intent::create(model, id, &json!({"text": "one"}));
    for model in ["notes", "airports"] {
        let first = intent::commit(model, vec![create(model, "first")]);
        tenant.confirm(first).await;
    }

    let single = intent::commit("single", vec![create("notes", "1")]);
    let expected = counts([("append", 1), ("read", 1)]);
    assert_eq!(counting.of(&tenant, single.clone()).await, expected);

    let update = intent::update("notes", "1", &json!({"text": "two"}));
    let update = intent::commit("update", vec![update]);
    assert_eq!(counting.of(&tenant, update).await, expected);

    let many = (0..100).map(|number| create("notes", &format!("many-{number}")));
    let many = intent::commit("many", many.collect());
    assert_eq!(counting.of(&tenant, many).await, expected);

    let replayed = counts([("read", 1), ("receipt", 1)]);
    assert_eq!(counting.of(&tenant, single).await, replayed);

    // Accepted, started, settled: each reads and appends; then the caller's receipt.
    let source = intent::commit("source", vec![create("airports", "1")]);
    let expected = counts([("append", 3), ("read", 3), ("receipt", 1)]);
    assert_eq!(counting.of(&tenant, source).await, expected);
    counting.stop().await;
}
