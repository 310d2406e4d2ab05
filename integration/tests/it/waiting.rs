//! When a call answers, and what becomes of a call that nobody waits for.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use integration::app::{Flags, TestApp, intent};
use integration::endpoint::{Endpoint, Kind};
use proto::v1::{CommitRequest, CommitState};
use serde_json::json;

fn request(name: &str) -> CommitRequest {
    intent::commit(
        name,
        vec![intent::create("airports", name, &json!({"text": "one"}))],
    )
}

#[tokio::test]
async fn queued_answers_when_the_commit_is_durable_and_before_it_is_delivered() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.hold(Kind::Commit);
    let mut queued = request("queued");
    queued.set_wait(proto::v1::Wait::Queued);
    let receipt = tenant.commit(queued).await.unwrap();
    assert_eq!(receipt.state(), CommitState::Queued);
    assert!(receipt.accept_time.is_some() && receipt.settle_time.is_none());
    assert!(receipt.changes.is_empty() && endpoint.executions().is_empty());
    assert_eq!(receipt.data_source, "dataSources/crm");
    let state: String =
        sqlx::query_scalar("SELECT state FROM commits WHERE client_tx_id = 'queued'")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    assert_eq!(state, "queued");
    assert_eq!(
        tenant.receipt("queued").await.unwrap().commit_id,
        receipt.commit_id
    );
    endpoint.release(Kind::Commit);
    let confirmed = tenant.confirm(request("queued")).await;
    assert_eq!(confirmed.accept_time, receipt.accept_time);
}

#[tokio::test]
async fn confirmed_answers_with_the_queued_receipt_at_the_calls_deadline() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.hold(Kind::Commit);
    // A tenth of it is left for the answer's way back.
    let timeout = Duration::from_secs(2);
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = tenant.commit_within(request("deadline"), timeout).await;
        assert_eq!(answer.unwrap().state(), CommitState::Queued);
        assert!(begun.elapsed() >= timeout / 2);
    }
    endpoint.release(Kind::Commit);
    tenant.confirm(request("deadline")).await;
}

#[tokio::test]
async fn confirmed_answers_with_the_queued_receipt_at_the_servers_wait_cap() {
    let app = TestApp::start_with(Flags::default().with("wait-cap", "1s")).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.hold(Kind::Commit);
    let begun = Instant::now();
    let receipt = tenant.commit(request("cap")).await.unwrap();
    assert_eq!(receipt.state(), CommitState::Queued);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    endpoint.release(Kind::Commit);
    tenant.confirm(request("cap")).await;
}

#[tokio::test]
async fn who_waits_on_another_node_hears_of_the_settling_too() {
    let mut app = TestApp::start().await;
    let second = app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for address in [app.address(), second] {
        let name = format!("at-{address}");
        let receipt = tenant.at(&address).commit(request(&name)).await.unwrap();
        assert_eq!(receipt.state(), CommitState::Confirmed);
    }
}

/// A dropped call must neither lose its commit nor leave a transaction open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_dropped_calls_are_decided_all_the_same() {
    let calls = 2_000;
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let request = |number: usize| {
        let model = if number.is_multiple_of(2) {
            "notes"
        } else {
            "airports"
        };
        let id = format!("drop-{number}");
        let create = intent::create(model, &id, &json!({"number": number}));
        intent::commit(&id, vec![create])
    };
    let cut = stream::iter(0..calls)
        .map(|number| {
            let patience = Duration::from_micros(rand::random_range(0..20_000));
            let call = tenant.commit(request(number));
            async move { tokio::time::timeout(patience, call).await.is_err() }
        })
        .buffer_unordered(32)
        .filter(|cut| std::future::ready(*cut))
        .count()
        .await;
    assert!(cut >= 100, "{cut} calls were cut off");
    let confirmed = stream::iter(0..calls)
        .map(|number| tenant.confirm(request(number)))
        .buffer_unordered(64)
        .count()
        .await;
    assert_eq!(confirmed, calls);
    let deltas: (i64, i64) = sqlx::query_as("SELECT count(*), max(sync_id) FROM deltas")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    assert_eq!(deltas, (2_000, 2_000));
    assert_eq!(endpoint.executions().len(), calls / 2);
}
