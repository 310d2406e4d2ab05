//! What a subscriber is sent, and the same by page.

use integration::app::follower::from_oldest;
use integration::app::{Follower, Tenant, TestApp, intent, reason};
use integration::endpoint::Endpoint;
use proto::v1::subscribe_response::Frame;
use proto::v1::{
    ListChangesRequest, ListChangesResponse, OperationType, Origin, SubscribeRequest,
    list_changes_request,
};
use serde_json::{Value, json};
use tonic::Code;

use super::{change, note, of_groups};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_says_what_was_done_by_whom_and_where_to_resume() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut follower = Follower::from_now(&tenant).await;
    let mut request = note("a", "one");
    request.operations[0].transaction_id = "op-7".to_owned();
    tenant.confirm(request).await;
    let create = intent::create("airports", "sea", &json!({"text": "two"}));
    tenant.confirm(intent::commit("source", vec![create])).await;
    let delete = intent::delete("notes", "a");
    tenant
        .confirm(intent::commit("delete-a", vec![delete]))
        .await;

    let changes = follower.changes(3).await;
    let ids: Vec<_> = changes.iter().map(|it| it.sync_id).collect();
    assert_eq!(ids, [1, 2, 3]);
    let first = &changes[0];
    assert_eq!(first.r#type(), OperationType::Create);
    assert_eq!((first.model.as_str(), first.id.as_str()), ("notes", "a"));
    assert_eq!(
        serde_json::from_slice::<Value>(&first.row_json).unwrap(),
        json!({"id": "a", "text": "one"})
    );
    assert_eq!(first.client_tx_id, "create-a");
    assert_eq!(first.transaction_id, "op-7");
    assert_eq!(first.participant, Some(intent::participant()));
    assert_eq!(first.origin(), Origin::Sdk);
    assert_eq!(first.operation_index, Some(0));
    assert!(first.time.is_some() && !first.left && !first.stale);
    assert_eq!(changes[1].model, "airports");
    assert_eq!(changes[2].r#type(), OperationType::Delete);
    assert!(changes[2].row_json.is_empty());
    // Nothing names the organization.
    assert!(!format!("{changes:?}").contains("acme"));

    let mut again = Follower::resume(&tenant, &first.cursor).await.unwrap();
    assert_eq!(again.changes(2).await, changes[1..]);
    let mut all = Follower::start(&tenant, from_oldest()).await.unwrap();
    assert_eq!(all.changes(3).await, changes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_made_outside_names_nobody_and_says_so() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut follower = Follower::from_now(&tenant).await;
    let append = "WITH head AS (UPDATE heads SET last_sync_id = 1, version = version + 1 RETURNING org_id)
        INSERT INTO deltas (org_id, sync_id, created_at, kind, model, row_id, row)
        SELECT org_id, 1, clock_timestamp(), 'UPDATE', 'airports', 'sea', '{\"id\":\"sea\"}' FROM head";
    sqlx::query(append).execute(&app.pool()).await.unwrap();
    let change = follower.change().await;
    assert_eq!(change.origin(), Origin::External);
    assert_eq!(
        (change.participant, change.client_tx_id),
        (None, String::new())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_lets_nothing_through_still_hears_how_far_the_log_is() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut idle = Follower::start(&tenant, of_groups(&["nobody"]))
        .await
        .unwrap();
    for number in 0..20 {
        tenant.confirm(note(&format!("n{number}"), "text")).await;
    }
    let heartbeat = loop {
        let Frame::Heartbeat(heartbeat) = idle.frame().await.unwrap() else {
            panic!("nothing passes the filter")
        };
        if heartbeat.caught_up_to == 20 {
            break heartbeat;
        }
    };
    // Resumed from the heartbeat, nothing is looked at twice.
    let mut resumed = Follower::resume(&tenant, &heartbeat.cursor).await.unwrap();
    tenant.confirm(change("c", "n0", "new")).await;
    assert_eq!(resumed.change().await.sync_id, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_filtered_and_an_unknown_one_is_refused() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let of = |model: &str| SubscribeRequest {
        models: vec![model.to_owned()],
        ..SubscribeRequest::default()
    };
    let mut airports = Follower::start(&tenant, of("airports")).await.unwrap();
    tenant.confirm(note("a", "one")).await;
    let create = intent::create("airports", "sea", &json!({"text": "two"}));
    tenant.confirm(intent::commit("source", vec![create])).await;
    assert_eq!(airports.change().await.sync_id, 2);
    let refused = Follower::start(&tenant, of("airprots")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused), "model_unknown");
}

/// Every page from a start on, until there is no more.
async fn pages(tenant: &Tenant, mut request: ListChangesRequest) -> Vec<ListChangesResponse> {
    let mut pages = Vec::new();
    loop {
        let page = tenant.log().list_changes(request.clone()).await;
        let page = page.unwrap().into_inner();
        let (more, cursor) = (page.more, page.cursor.clone());
        pages.push(page);
        if !more {
            return pages;
        }
        request.start = Some(list_changes_request::Start::Cursor(cursor));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_the_stream_cut_into_pieces() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let now = pages(&tenant, ListChangesRequest::default()).await;
    assert_eq!((now.len(), now[0].caught_up_to), (1, 0));
    for number in 0..7 {
        tenant.confirm(note(&format!("n{number}"), "text")).await;
    }
    let from = |start, page_size| ListChangesRequest {
        start: Some(start),
        page_size,
        ..ListChangesRequest::default()
    };
    let cursor = list_changes_request::Start::Cursor(now[0].cursor.clone());
    let listed = pages(&tenant, from(cursor, 3)).await;
    let sizes: Vec<_> = listed.iter().map(|page| page.changes.len()).collect();
    assert_eq!(sizes, [3, 3, 1]);
    let listed: Vec<_> = listed.into_iter().flat_map(|page| page.changes).collect();
    let mut follower = Follower::start(&tenant, from_oldest()).await.unwrap();
    assert_eq!(follower.changes(7).await, listed);
    let oldest = list_changes_request::Start::Oldest(true);
    assert_eq!(
        pages(&tenant, from(oldest.clone(), 0)).await[0].changes,
        listed
    );
    let filtered = ListChangesRequest {
        models: vec!["airports".to_owned()],
        ..from(oldest, 0)
    };
    let filtered = pages(&tenant, filtered).await;
    assert!(filtered[0].changes.is_empty());
    assert_eq!(filtered[0].caught_up_to, 7);
    let negative = from(list_changes_request::Start::Oldest(true), -1);
    let refused = tenant.log().list_changes(negative).await.unwrap_err();
    assert_eq!(reason(&refused), "page_size_invalid");
}
