//! Sync groups: who sees a row, and who is told that it left.

use integration::app::follower::from_snapshot;
use integration::app::{Follower, TestApp, intent};
use integration::endpoint::Endpoint;
use proto::v1::subscribe_response::Frame;
use proto::v1::{OperationType, SubscribeRequest};
use serde_json::json;

use super::{change, note, of_groups};

/// Rows belong to the group that their text names, and to one that all rows of the model share.
fn document() -> String {
    let fields = json!({
        "type": "object",
        "properties": {"text": {"type": "string"}, "number": {"type": "number"}},
    });
    json!({"models": {
        "notes": {"schema": fields, "syncGroups": ["text:{text}", "all-notes"]},
        "airports": {
            "backing": {"dataSource": "crm"},
            "schema": fields,
            "syncGroups": ["text:{text}"],
        },
    }})
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_leaves_a_group_is_told_to_that_group_without_what_it_became() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.push(&document()).await;
    let mut old = Follower::start(&tenant, of_groups(&["text:old"]))
        .await
        .unwrap();
    let mut new = Follower::start(&tenant, of_groups(&["text:new"]))
        .await
        .unwrap();
    let mut other = Follower::start(&tenant, of_groups(&["text:other"]))
        .await
        .unwrap();
    let mut everything = Follower::from_now(&tenant).await;

    tenant.confirm(note("a", "old")).await;
    tenant.confirm(change("move", "a", "new")).await;
    let number = intent::update("notes", "a", &json!({"number": 7}));
    tenant.confirm(intent::commit("stay", vec![number])).await;
    let archive = intent::archive("notes", "a");
    tenant
        .confirm(intent::commit("archive", vec![archive]))
        .await;
    let delete = intent::delete("notes", "a");
    tenant.confirm(intent::commit("delete", vec![delete])).await;
    tenant.confirm(note("b", "other")).await;

    let seen = old.changes(2).await;
    assert_eq!(seen[0].sync_groups, ["all-notes", "text:old"]);
    assert!(!seen[0].left);
    let left = &seen[1];
    assert!(left.left && left.row_json.is_empty() && left.sync_groups.is_empty());
    assert_eq!((left.sync_id, left.id.as_str()), (2, "a"));
    assert_eq!(left.left_sync_groups, ["text:old"]);

    let seen = new.changes(4).await;
    let kinds: Vec<_> = seen.iter().map(|it| (it.sync_id, it.r#type())).collect();
    let wanted = [
        (2, OperationType::Update),
        (3, OperationType::Update),
        (4, OperationType::Archive),
        (5, OperationType::Delete),
    ];
    assert_eq!(kinds, wanted);
    assert!(seen.iter().all(|it| !it.left));
    assert_eq!(seen[3].sync_groups, ["all-notes", "text:new"]);

    assert_eq!(other.change().await.id, "b");
    let all = everything.changes(6).await;
    assert_eq!(all[1].left_sync_groups, ["text:old"]);
    assert!(!all[1].left && !all[1].row_json.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_in_a_data_source_enter_and_leave_groups_alike() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.push(&document()).await;
    let mut old = Follower::start(&tenant, of_groups(&["text:old"]))
        .await
        .unwrap();
    let mut new = Follower::start(&tenant, of_groups(&["text:new"]))
        .await
        .unwrap();
    let create = intent::create("airports", "sea", &json!({"text": "old"}));
    tenant.confirm(intent::commit("one", vec![create])).await;
    let update = intent::update("airports", "sea", &json!({"text": "new"}));
    tenant.confirm(intent::commit("two", vec![update])).await;
    let delete = intent::delete("airports", "sea");
    tenant.confirm(intent::commit("three", vec![delete])).await;
    let seen = old.changes(2).await;
    assert!(!seen[0].left && seen[1].left);
    let seen = new.changes(2).await;
    assert_eq!((seen[0].sync_id, seen[1].sync_id), (2, 3));
    assert_eq!(seen[1].r#type(), OperationType::Delete);
    let kept: Vec<String> = sqlx::query_scalar("SELECT groups FROM row_groups")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    assert!(kept.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_names_keep_their_quotes_and_backslashes() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.push(&document()).await;
    let name = r#"a "b" \c\ {d},NULL"#;
    let group = format!("text:{name}");
    let mut follower = Follower::start(&tenant, of_groups(&[&group]))
        .await
        .unwrap();
    tenant.confirm(note("a", name)).await;
    let create = intent::create("airports", "sea", &json!({"text": name}));
    tenant.confirm(intent::commit("one", vec![create])).await;
    let seen = follower.changes(2).await;
    assert_eq!(seen[0].sync_groups, ["all-notes".to_owned(), group.clone()]);
    assert_eq!(seen[1].sync_groups, [group]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shows_the_rows_of_its_groups_alone() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.push(&document()).await;
    tenant.confirm(note("a", "mine")).await;
    tenant.confirm(note("b", "yours")).await;
    let request = SubscribeRequest {
        start: from_snapshot().start,
        ..of_groups(&["text:mine"])
    };
    let mut stream = tenant.log().subscribe(request).await.unwrap().into_inner();
    let mut ids = Vec::new();
    loop {
        match stream.message().await.unwrap().unwrap().frame.unwrap() {
            Frame::SnapshotRow(row) => {
                assert_eq!(row.sync_groups, ["all-notes", "text:mine"]);
                ids.push(row.id);
            }
            Frame::SnapshotEnd(end) => {
                assert_eq!(end.sync_id, 2);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(ids, ["a"]);
}
