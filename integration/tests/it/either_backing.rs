//! Promise 6: the same call means the same, whichever backing holds the row.

use integration::app::{Tenant, TestApp, intent, reason};
use integration::endpoint::Endpoint;
use proto::v1;
use proto::v1::{CommitState, OperationType, RowChange};
use serde_json::{Value, json};
use tonic::Code;

fn row(change: &RowChange) -> Value {
    serde_json::from_slice(&change.row_json).unwrap()
}

/// A row's life, as a caller sees it.
async fn exercise(tenant: &Tenant, model: &str) {
    let name = |step: &str| format!("{model}-{step}");
    let first = json!({"text": "one", "number": 1.50});
    let created = tenant
        .confirm(intent::commit(
            &name("create"),
            vec![intent::create(model, "a", &first)],
        ))
        .await;
    let [change] = &created.changes[..] else {
        panic!("one operation, one change: {created:?}");
    };
    assert_eq!(change.operation_index, Some(0));
    assert_eq!(change.r#type(), OperationType::Create);
    assert_eq!((change.model.as_str(), change.id.as_str()), (model, "a"));
    assert_eq!(
        row(change),
        json!({"id": "a", "text": "one", "number": 1.50})
    );
    assert!(created.settle_time.is_some() && !created.changes_expired);
    let sync_id = change.sync_id;

    let update = intent::update(model, "a", &json!({"text": "two"}));
    let updated = tenant
        .confirm(intent::commit(&name("update"), vec![update]))
        .await;
    let merged = json!({"id": "a", "text": "two", "number": 1.50});
    assert_eq!(row(&updated.changes[0]), merged);
    assert_eq!(updated.changes[0].sync_id, sync_id + 1);
    let loaded = tenant.load(model, "a").await.unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&loaded.row_json.unwrap()).unwrap(),
        merged
    );
    assert_eq!(loaded.read_at, sync_id + 1);
    let listed = tenant.list(model).await.unwrap();
    assert_eq!(listed.rows_json.len(), 1);
    assert_eq!(
        serde_json::from_slice::<Value>(&listed.rows_json[0]).unwrap(),
        merged
    );
    assert_eq!(
        (listed.read_at, listed.next_page_token.as_str()),
        (sync_id + 1, "")
    );

    together(tenant, model, sync_id + 2).await;

    let delete = intent::delete(model, "a");
    let deleted = tenant
        .confirm(intent::commit(&name("delete"), vec![delete]))
        .await;
    assert_eq!(deleted.changes[0].r#type(), OperationType::Delete);
    assert_eq!(deleted.changes[0].row_json.len(), 0);
    assert_eq!(tenant.row(model, "a").await, None);
    assert_eq!(tenant.load(model, "never").await.unwrap().row_json, None);
}

/// Several operations, and an id that the coordinator gives.
async fn together(tenant: &Tenant, model: &str, sync_id: i64) {
    let operations = vec![
        intent::create(model, "", &json!({"text": "new"})),
        v1::Operation {
            transaction_id: "mine".to_owned(),
            ..intent::update(
                model,
                "a",
                &json!({"number": 12_345_678_901_234_567_890_u64}),
            )
        },
    ];
    let commit = intent::commit(&format!("{model}-together"), operations);
    let receipt = tenant.confirm(commit.clone()).await;
    let sync_ids: Vec<i64> = receipt.changes.iter().map(|it| it.sync_id).collect();
    assert_eq!(sync_ids, [sync_id, sync_id + 1]);
    let indices: Vec<_> = receipt
        .changes
        .iter()
        .map(|it| it.operation_index)
        .collect();
    assert_eq!(indices, [Some(0), Some(1)]);
    let assigned = &receipt.assigned_ids[0];
    assert_eq!(
        (assigned.operation_index, &assigned.id),
        (0, &receipt.changes[0].id)
    );
    let number = &row(&receipt.changes[1])["number"];
    assert_eq!(number.to_string(), "12345678901234567890");
    assert_eq!(tenant.commit(commit).await.unwrap(), receipt);
    let delete = intent::delete(model, &assigned.id);
    tenant
        .confirm(intent::commit(&format!("{model}-forget"), vec![delete]))
        .await;
}

/// What is refused before it is accepted.
async fn refusals(tenant: &Tenant, model: &str) {
    let input = json!({"text": "one"});
    let unsaid = v1::CommitRequest {
        participant: None,
        ..intent::commit("refused", vec![intent::create(model, "b", &input)])
    };
    let refused = [
        (
            intent::commit("", vec![intent::create(model, "b", &input)]),
            Code::InvalidArgument,
        ),
        (intent::commit("refused", Vec::new()), Code::InvalidArgument),
        (
            intent::commit("refused", vec![intent::update(model, "", &input)]),
            Code::InvalidArgument,
        ),
        (
            intent::commit(
                "refused",
                vec![intent::create(model, "b", &json!({"text": 1}))],
            ),
            Code::InvalidArgument,
        ),
        (
            intent::commit(
                "refused",
                vec![intent::create(model, "b", &json!({"colour": 1}))],
            ),
            Code::InvalidArgument,
        ),
        (unsaid, Code::InvalidArgument),
    ];
    for (request, code) in refused {
        let status = tenant.commit(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(!reason(&status).is_empty());
    }
    assert_eq!(
        reason(&tenant.receipt("refused").await.unwrap_err()),
        "commit_not_found"
    );
    let queued = intent::queued(
        &format!("{model}-queued"),
        vec![intent::create(model, "b", &input)],
    );
    tenant.commit(queued.clone()).await.unwrap();
    assert_eq!(tenant.settle(queued).await.state(), CommitState::Confirmed);
    assert_eq!(tenant.row(model, "b").await.unwrap()["text"], "one");
}

#[tokio::test]
async fn managed_rows_and_rows_in_a_data_source_answer_alike() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for model in ["notes", "airports"] {
        exercise(&tenant, model).await;
        refusals(&tenant, model).await;
    }
    assert!(
        endpoint
            .arrivals()
            .iter()
            .all(|it| it.signature_error.is_none())
    );
}

#[tokio::test]
async fn one_commit_cannot_span_both_backings() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let row = json!({"text": "one"});
    let operations = ["notes", "airports"].map(|model| intent::create(model, "1", &row));
    let status = tenant
        .commit(intent::commit("mixed", operations.to_vec()))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "commit_backing_mixed");
    assert_eq!(tenant.row("notes", "1").await, None);
    assert!(endpoint.executions().is_empty());
}

#[tokio::test]
async fn a_write_never_falls_over_to_the_other_store() {
    let app = TestApp::start().await;
    let mut endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.stop().await;
    let create = intent::create("airports", "1", &json!({"text": "one"}));
    let commit = intent::queued("away", vec![create]);
    tenant.commit(commit.clone()).await.unwrap();
    tenant.ended_attempts("away", 1).await;
    let managed: i64 = sqlx::query_scalar("SELECT count(*) FROM managed_rows")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    assert_eq!(managed, 0);
    let status = tenant.load("airports", "1").await.unwrap_err();
    assert_eq!(reason(&status), "source_unavailable");
    endpoint.restart().await.unwrap();
    tenant.confirm(commit).await;
    assert_eq!(tenant.row("airports", "1").await.unwrap()["text"], "one");
}
