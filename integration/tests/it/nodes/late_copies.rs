//! Copies of a request that leave, arrive or are executed later than anybody expects.

use std::time::Duration;

use axum::http::StatusCode;
use integration::app::{Flags, Source, Tenant, TestApp, eventually, intent};
use integration::endpoint::{Answer, Endpoint, Gate, Kind};
use nix::sys::signal::Signal;
use proto::v1::{self, CommitState};
use serde_json::json;

use super::crashes::Deaf;
use super::{Pair, create};
use crate::answers::move_time_past_the_signatures_tolerance;

fn update(name: &str, wait: v1::Wait) -> v1::CommitRequest {
    let update = intent::update("airports", "a", &json!({"text": name}));
    let mut request = intent::commit(name, vec![update]);
    request.set_wait(wait);
    request
}

/// What the endpoint executed, in order.
fn executed(endpoint: &Endpoint) -> Vec<String> {
    let executions = endpoint.executions().into_iter();
    executions.map(|it| it.client_tx_id).collect()
}

/// A node is frozen while it connects, and wakes up, connected, when its successor is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_frozen_before_the_first_byte_sends_none_after_its_deadline() {
    let mut pair = Pair::start(Flags::default()).await;
    pair.give_time(Duration::from_secs(4)).await;
    pair.endpoint.stop().await;
    let deaf = Deaf::at(pair.endpoint.address()).await;
    let tenant = pair.elsewhere();
    let mut request = create("a");
    request.set_wait(v1::Wait::Queued);
    tenant.commit(request.clone()).await.unwrap();
    eventually("the attempt to be on record", async || {
        (tenant.attempts("create-a").await.len() == 1).then_some(())
    })
    .await;
    pair.owner.signal(Signal::SIGSTOP);
    drop(deaf);
    pair.endpoint.restart().await.unwrap();
    let receipt = tenant.confirm(request.clone()).await;
    tenant.confirm(update("next", v1::Wait::Confirmed)).await;
    pair.owner.signal(Signal::SIGCONT);
    eventually("the frozen node to notice", async || {
        pair.owner
            .log()
            .contains("fenced: an answer came after")
            .then_some(())
    })
    .await;
    assert_eq!(pair.tenant.commit(request).await.unwrap(), receipt);
    assert_eq!(
        executed(&pair.endpoint),
        ["create-first", "create-a", "next"]
    );
    let arrivals = pair.endpoint.arrivals_of(Kind::Commit);
    assert_eq!(arrivals.len(), 3, "the frozen node's copy never left");
    assert_eq!(tenant.attempts("create-a").await.len(), 2);
    let row = pair.endpoint.row("airports", "a").unwrap();
    assert_eq!(row["text"], "next");
}

async fn attempts(tenant: &Tenant, name: &str) -> Vec<String> {
    let attempts = tenant.ended_attempts(name, 2).await.into_iter();
    attempts.map(|it| it.outcome).collect()
}

#[tokio::test]
async fn a_copy_that_is_executed_after_a_later_one_was_refused_still_comes_before_its_successor() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.confirm(create("a")).await;
    let source = Source {
        request_timeout: Duration::from_secs(4),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&source).await;
    let gate = Gate::closed();
    let late = Answer::honest().once_open(&gate);
    endpoint.script(Kind::Commit, late);
    endpoint.script(
        Kind::Commit,
        Answer::error(StatusCode::CONFLICT, "row_changed"),
    );
    let first = update("first", v1::Wait::Queued);
    tenant.commit(first.clone()).await.unwrap();
    assert_eq!(attempts(&tenant, "first").await, ["unknown", "refused"]);
    let second = update("second", v1::Wait::Queued);
    tenant.commit(second.clone()).await.unwrap();
    // Another row does not wait, and shows that the courier has seen all.
    tenant.confirm(create("b")).await;
    assert_eq!(tenant.attempts("second").await, []);
    let receipt = tenant.receipt("first").await.unwrap();
    assert_eq!(receipt.state(), CommitState::Queued, "it may still apply");
    gate.open();
    endpoint.wait_for_executions(3).await;
    move_time_past_the_signatures_tolerance(&mut app).await;
    let tenant = tenant.at(&app.address());
    assert_eq!(tenant.confirm(first).await.attempt_count, 3);
    tenant.confirm(second).await;
    let order = ["create-a", "create-b", "first", "second"];
    assert_eq!(executed(&endpoint), order);
}
