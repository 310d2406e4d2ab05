//! Cursors that cannot be served are refused, each for its reason.

use std::time::Duration;

use integration::app::follower::from_cursor;
use integration::app::{Follower, PATIENCE, Source, Tenant, TestApp, reason};
use integration::endpoint::Endpoint;
use proto::v1::subscribe_response::Frame;
use proto::v1::{ListChangesRequest, list_changes_request};
use tonic::{Code, Status};

use super::{note, table};

/// How both calls refuse a cursor; they must agree.
async fn refused(tenant: &Tenant, cursor: &str) -> Status {
    let stream = tenant.log().subscribe(from_cursor(cursor)).await;
    let request = ListChangesRequest {
        start: Some(list_changes_request::Start::Cursor(cursor.to_owned())),
        ..ListChangesRequest::default()
    };
    let page = tenant.log().list_changes(request).await.unwrap_err();
    let stream = stream.unwrap_err();
    assert_eq!(
        (page.code(), reason(&page)),
        (stream.code(), reason(&stream))
    );
    stream
}

fn assert_refused(status: &Status, code: Code, wanted: &str) {
    assert_eq!((status.code(), reason(status).as_str()), (code, wanted));
}

/// Forgets the changes behind a position, as a backup that was taken then would.
async fn restore(app: &TestApp, position: i64) {
    let restore = "WITH cut AS (DELETE FROM deltas WHERE sync_id > $1)
                   UPDATE heads SET last_sync_id = $1, version = version + 1";
    let restore = sqlx::query(restore).bind(position);
    restore.execute(&app.pool()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_not_ours_is_refused() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let stranger = app.organization("stranger").await;
    stranger.prepare(&Source::at(&endpoint)).await;
    let mut follower = Follower::from_now(&tenant).await;
    tenant.confirm(note("a", "one")).await;
    let cursor = follower.change().await.cursor;
    let status = refused(&stranger, &cursor).await;
    assert_refused(&status, Code::NotFound, "cursor_not_found");
    let tampered = format!("{}A", &cursor[..cursor.len() - 1]);
    let tampered = if tampered == cursor {
        format!("{}B", &cursor[..cursor.len() - 1])
    } else {
        tampered
    };
    for text in [
        "",
        "-1",
        "18446744073709551615",
        "é",
        &tampered,
        &"A".repeat(66),
    ] {
        let status = refused(&tenant, text).await;
        assert_refused(&status, Code::InvalidArgument, "cursor_invalid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_above_the_head_has_diverged_and_so_has_a_stream_that_runs() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut follower = Follower::from_now(&tenant).await;
    for id in ["a", "b", "c"] {
        tenant.confirm(note(id, "one")).await;
    }
    let cursors: Vec<_> = follower.changes(3).await;
    restore(&app, 1).await;
    let mut last = None;
    let end = loop {
        match follower.frame().await {
            Ok(frame) => last = Some(frame),
            Err(end) => break end,
        }
    };
    assert_refused(&end, Code::FailedPrecondition, "cursor_diverged");
    let Some(Frame::Reset(reset)) = last else {
        panic!("the last frame is a reset: {last:?}")
    };
    assert_eq!(reset.reason, "cursor_diverged");
    let status = refused(&tenant, &cursors[2].cursor).await;
    assert_refused(&status, Code::FailedPrecondition, "cursor_diverged");
    // What was not undone can be resumed from.
    assert!(Follower::resume(&tenant, &cursors[0].cursor).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_ends_every_stream_and_refuses_every_older_cursor() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut follower = Follower::from_now(&tenant).await;
    tenant.confirm(note("a", "one")).await;
    let cursor = follower.change().await.cursor;
    let options = app.database_url().parse().unwrap();
    let store = coordinator::store::Store::open(options, 1, 1);
    assert_eq!(store.new_log_epoch(None).await.unwrap(), 1);
    store.close().await;
    let end = follower.end(PATIENCE).await;
    assert_refused(&end, Code::FailedPrecondition, "cursor_diverged");
    let status = refused(&tenant, &cursor).await;
    assert_refused(&status, Code::FailedPrecondition, "cursor_diverged");
    let mut anew = Follower::from_now(&tenant).await;
    tenant.confirm(note("b", "two")).await;
    assert_eq!(anew.change().await.sync_id, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_below_the_retention_has_expired_and_is_never_skipped() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut follower = Follower::from_now(&tenant).await;
    tenant.confirm(note("a", "one")).await;
    tenant.confirm(note("b", "two")).await;
    let changes = follower.changes(2).await;
    let newest = follower.cursor().to_owned();
    drop(follower);
    app.expire_log(i64::MAX).await;
    // A node that never held them.
    let mut app = app;
    let other = tenant.at(&app.add_node().await);
    let status = refused(&other, &changes[0].cursor).await;
    assert_refused(&status, Code::OutOfRange, "cursor_expired");
    // Nothing is missing behind the newest.
    let mut resumed = Follower::resume(&other, &newest).await.unwrap();
    tenant.confirm(note("c", "three")).await;
    assert_eq!(resumed.change().await.sync_id, 3);
    assert_eq!(table(&app).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_next_change_is_dropped_is_reset() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    // More than the node keeps in memory, and than a connection takes unread.
    let text = "x".repeat(900_000);
    let mut unread = super::streams::narrow(&tenant).await;
    let mut stream = unread
        .subscribe(proto::v1::SubscribeRequest::default())
        .await
        .unwrap()
        .into_inner();
    for number in 0..7 {
        tenant.confirm(note(&format!("n{number}"), &text)).await;
    }
    app.expire_log(i64::MAX).await;
    let mut positions = Vec::new();
    let mut reset = None;
    let end = loop {
        let message = tokio::time::timeout(Duration::from_mins(1), stream.message());
        match message.await.unwrap() {
            Ok(message) => match message.unwrap().frame.unwrap() {
                Frame::Change(change) => {
                    assert!(reset.is_none());
                    positions.push(change.sync_id);
                }
                Frame::Reset(it) => reset = Some(it.reason),
                _ => {}
            },
            Err(end) => break end,
        }
    };
    assert_refused(&end, Code::OutOfRange, "cursor_expired");
    assert_eq!(reset.as_deref(), Some("cursor_expired"));
    let wanted: Vec<i64> = (1..).take(positions.len()).collect();
    assert_eq!(positions, wanted);
    assert!(positions.len() < 7, "{positions:?}");
}
