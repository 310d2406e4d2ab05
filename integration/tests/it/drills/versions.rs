//! Programs and databases of different ages.

use integration::app::follower::from_oldest;
use integration::app::{Flags, Follower, TestApp, intent, reason};
use integration::endpoint::Endpoint;
use serde_json::json;

use super::{Drill, delivered, managed};
use crate::command::{run, told};

/// What a newer program's migration may do while older programs run: it adds.
const ADDITIVE: &str = "
ALTER TABLE commits ADD COLUMN newer text;
ALTER TABLE inbox ADD COLUMN newer bigint NOT NULL DEFAULT 0;
ALTER TABLE data_sources ADD COLUMN newer jsonb;
ALTER TABLE deltas ADD COLUMN newer text;
ALTER TABLE managed_rows ADD COLUMN newer text DEFAULT 'newer';
CREATE TABLE newer (org_id text PRIMARY KEY);
CREATE INDEX commits_newer ON commits (newer) WHERE newer IS NOT NULL;
INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
VALUES (9999, 'newer', true, 'x', 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_ahead_is_served_by_older_programs_that_run_and_that_start() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut follower = Follower::from_now(&tenant).await;
    tenant.confirm(managed("before")).await;
    tenant.confirm(delivered("before-too")).await;
    sqlx::raw_sql(ADDITIVE).execute(&app.pool()).await.unwrap();
    let started = tenant.at(&app.add_node().await);
    for (number, node) in [&tenant, &started].into_iter().enumerate() {
        node.confirm(managed(&format!("m-{number}"))).await;
        node.confirm(delivered(&format!("d-{number}"))).await;
        let update = intent::update("notes", "before", &json!({"text": number.to_string()}));
        node.confirm(intent::commit(&format!("u-{number}"), vec![update]))
            .await;
        assert_eq!(
            node.row("notes", "before").await.unwrap()["text"],
            number.to_string()
        );
        assert_eq!(node.receipt("before-too").await.unwrap().attempt_count, 1);
        assert!(!node.list("notes").await.unwrap().rows_json.is_empty());
        assert!(!node.attempts("").await.is_empty());
    }
    assert_eq!(follower.changes(8).await.last().unwrap().sync_id, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_restored_is_noticed_by_whoever_saw_more() {
    let mut drill = Drill::start(&[]).await;
    drill.tenant.confirm(managed("kept")).await;
    drill.app.stop().await;
    drill
        .cluster
        .copy_database("backup", "ledger")
        .await
        .unwrap();
    let tenant = drill.tenant.at(&drill.app.add_node().await);
    let mut follower = Follower::start(&tenant, from_oldest()).await.unwrap();
    tenant.confirm(managed("seen")).await;
    let seen = follower.changes(2).await.remove(1);
    assert_eq!((seen.sync_id, seen.client_tx_id.as_str()), (2, "seen"));
    drill.app.stop().await;

    let url = drill.cluster.url("backup");
    let options = drill.cluster.connect_options("backup");
    let mut restored = TestApp::over(url.clone(), options, Flags::default());
    let tenant = tenant.at(&restored.add_node().await);
    assert_eq!(
        reason(&tenant.receipt("seen").await.unwrap_err()),
        "commit_not_found"
    );
    let refused = Follower::resume(&tenant, &seen.cursor).await.unwrap_err();
    assert_eq!(reason(&refused), "cursor_diverged");
    // Once as much was written again, the position would not tell; so an operator begins an epoch.
    let (code, said) = told(&run(&["log", "new-epoch", "--database-url", &url]).await);
    assert_eq!(code, 0, "{said}");
    tenant.confirm(managed("another")).await;
    let refused = Follower::resume(&tenant, &seen.cursor).await.unwrap_err();
    assert_eq!(reason(&refused), "cursor_diverged");
    // Whoever reads anew sees what there is.
    let mut anew = Follower::start(&tenant, from_oldest()).await.unwrap();
    let names = anew.changes(2).await.into_iter().map(|it| it.client_tx_id);
    assert_eq!(names.collect::<Vec<_>>(), ["kept", "another"]);
    restored.stop().await;
    drop(restored);
    drill.end_stopped().await;
}
