//! Promise 3: a commit's operations apply together or not at all.

use axum::http::StatusCode;
use integration::app::{Tenant, TestApp, intent, reason};
use integration::endpoint::{Answer, Endpoint, Kind};
use proto::v1::CommitState;
use serde_json::{Value, json};
use tokio::task::JoinSet;

async fn positions(app: &TestApp) -> (i64, i64) {
    let query = "SELECT (SELECT last_sync_id FROM heads), (SELECT count(*) FROM deltas)";
    sqlx::query_as(query).fetch_one(&app.pool()).await.unwrap()
}

#[tokio::test]
async fn one_bad_operation_keeps_all_others_from_applying() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let row = json!({"text": "one"});
    tenant
        .confirm(intent::commit(
            "first",
            vec![intent::create("notes", "5", &row)],
        ))
        .await;
    let before = positions(&app).await;
    let mut operations: Vec<_> = (0..9)
        .map(|id| intent::create("notes", &id.to_string(), &row))
        .collect();
    let status = tenant
        .commit(intent::commit("bad", operations.clone()))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "entity_exists");
    assert_eq!(positions(&app).await, before);
    assert_eq!(tenant.list("notes").await.unwrap().rows_json.len(), 1);
    operations.remove(5);
    let receipt = tenant.confirm(intent::commit("good", operations)).await;
    let sync_ids: Vec<i64> = receipt.changes.iter().map(|it| it.sync_id).collect();
    assert_eq!(sync_ids, (before.0 + 1..=before.0 + 8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bad_commit_does_not_fail_its_neighbours_in_the_same_batch() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let row = json!({"text": "one"});
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let tenant = tenant.clone();
        let id = if number % 10 == 9 {
            "missing".to_owned()
        } else {
            format!("{number}")
        };
        let operations = if id == "missing" {
            let one = intent::create("notes", &format!("with-{number}"), &row);
            vec![one, intent::update("notes", &id, &row)]
        } else {
            vec![intent::create("notes", &id, &row)]
        };
        calls.spawn(async move {
            let commit = intent::commit(&format!("tx-{number}"), operations);
            (number, tenant.commit(commit).await)
        });
    }
    for (number, answer) in calls.join_all().await {
        match answer {
            Ok(receipt) => assert_eq!(receipt.state(), CommitState::Confirmed),
            Err(status) => {
                assert_eq!(number % 10, 9, "{status:?}");
                assert_eq!(reason(&status), "entity_not_found");
            }
        }
    }
    assert_eq!(tenant.list("notes").await.unwrap().rows_json.len(), 90);
    assert_eq!(positions(&app).await, (90, 90));
}

#[tokio::test]
async fn what_the_endpoint_refuses_leaves_no_row_and_no_delta() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let row = json!({"text": "one"});
    endpoint.script(
        Kind::Commit,
        Answer::error(StatusCode::UNPROCESSABLE_ENTITY, "out_of_range"),
    );
    let operations = |ids: [&str; 2]| ids.map(|id| intent::create("airports", id, &row)).to_vec();
    let refused = tenant
        .settle(intent::commit("refused", operations(["1", "2"])))
        .await;
    assert_eq!(refused.state(), CommitState::Rejected);
    assert_eq!(refused.changes, []);
    assert_eq!(refused.error.unwrap().code, "out_of_range");
    assert_eq!(positions(&app).await, (0, 0));
    // The endpoint's own rule, applied by its own database.
    tenant
        .confirm(intent::commit("one", operations(["2", "3"])))
        .await;
    let exists = tenant
        .settle(intent::commit("two", operations(["1", "2"])))
        .await;
    assert_eq!(exists.error.unwrap().code, "entity_exists");
    assert_eq!(endpoint.rows("airports").len(), 2);
    assert_eq!(positions(&app).await, (2, 2));
}

async fn numbers(tenant: &Tenant) -> Vec<Value> {
    let rows = tenant.list("notes").await.unwrap().rows_json;
    let row = |row: &[u8]| serde_json::from_slice::<Value>(row).unwrap();
    rows.iter().map(|it| row(it)["number"].clone()).collect()
}

#[tokio::test]
async fn no_reader_ever_sees_half_a_commit() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let ids = ["1", "2", "3"];
    let creates = ids.map(|id| intent::create("notes", id, &json!({"number": 0})));
    tenant
        .confirm(intent::commit("create", creates.to_vec()))
        .await;
    let mut writers = JoinSet::new();
    for number in 1..=60 {
        let tenant = tenant.clone();
        writers.spawn(async move {
            let updates = ids.map(|id| intent::update("notes", id, &json!({"number": number})));
            let commit = intent::commit(&format!("tx-{number}"), updates.to_vec());
            tenant.confirm(commit).await;
        });
    }
    let mut seen = 0;
    while !writers.is_empty() {
        while let Some(written) = writers.try_join_next() {
            written.unwrap();
        }
        let numbers = numbers(&tenant).await;
        assert_eq!(numbers.len(), 3);
        assert!(numbers.iter().all(|it| *it == numbers[0]), "{numbers:?}");
        seen += 1;
    }
    assert!(seen > 0);
    assert_eq!(positions(&app).await, (183, 183));
}
