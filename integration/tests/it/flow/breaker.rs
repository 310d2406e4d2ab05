//! Failures of some rows, and of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use integration::app::{Source, TestApp, eventually};
use integration::endpoint::{Answer, Endpoint, Gate, Kind};
use proto::v1::{AttemptTrigger, DataSourceState};

use super::{confirm_all, create, drained, numbered, pass_the_time, queue, queued, source_at};

fn down() -> Answer {
    Answer::status(StatusCode::SERVICE_UNAVAILABLE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_always_fails_costs_a_thousand_others_nothing() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        retry_delays: vec![Duration::from_millis(20); 30],
        ..source_at(&endpoint)
    };
    tenant.update_source(&source).await;
    endpoint.always_for("poison", down());
    queue(&tenant, ["poison".to_owned()]).await;
    tenant.ended_attempts("create-poison", 1).await;
    for receipt in confirm_all(&tenant, numbered("row-", 1_000)).await {
        assert_eq!(receipt.attempt_count, 1, "{receipt:?}");
    }
    let attempts = tenant.attempts("").await;
    let others = attempts
        .iter()
        .filter(|it| it.client_tx_id != "create-poison");
    assert!(others.clone().count() == 1_000 && others.clone().all(|it| it.outcome == "applied"));
    let tried = attempts.len() - others.count();
    assert!(tried > 1, "it was tried again meanwhile: {tried}");
    app.leaves_pending("a row that always fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_the_rows_failing_never_stop_the_other_half() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        retry_delays: vec![Duration::from_hours(1)],
        ..source_at(&endpoint)
    };
    tenant.update_source(&source).await;
    let (bad, good) = (numbered("bad-", 300), numbered("good-", 300));
    for row in &bad {
        endpoint.always_for(row, down());
    }
    // Three of each by turns, behind one that is answered.
    queue(&tenant, ["first".to_owned()]).await;
    for (bad, good) in bad.chunks(3).zip(good.chunks(3)) {
        queue(&tenant, bad.iter().chain(good).cloned()).await;
    }
    for receipt in confirm_all(&tenant, good).await {
        assert_eq!(receipt.attempt_count, 1, "{receipt:?}");
    }
    let attempts = tenant.attempts("").await;
    // Had the source been left alone and found well again, what failed would have been sent again.
    let first = |it: &proto::v1::Attempt| it.trigger() == AttemptTrigger::Accept;
    assert!(attempts.iter().all(first), "{attempts:#?}");
    app.leaves_pending("rows that always fail");
}

#[tokio::test]
async fn commits_that_always_fail_do_not_keep_their_source_failing() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        retry_delays: vec![Duration::from_millis(200); 30],
        ..source_at(&endpoint)
    };
    tenant.update_source(&source).await;
    let poison = numbered("poison-", 3);
    for row in &poison {
        endpoint.always_for(row, down());
    }
    queue(&tenant, poison.clone()).await;
    for row in poison {
        tenant.ended_attempts(&format!("create-{row}"), 1).await;
    }
    eventually("the source to fail", async || {
        let status = tenant.status().await;
        (status.state() == DataSourceState::Failing && status.failing_since.is_some()).then_some(())
    })
    .await;
    queue(&tenant, ["fresh".to_owned()]).await;
    let before = endpoint.arrivals_of(Kind::Commit).len();
    assert_eq!(tenant.confirm(create("fresh")).await.attempt_count, 1);
    let arrivals = endpoint.arrivals_of(Kind::Commit);
    let probe = arrivals
        .iter()
        .position(|it| it.client_tx_id() == "create-fresh");
    // One may have been on its way; the others have been due for longer.
    assert!(probe.unwrap() <= before + 1, "{probe:?} after {before}");
    app.leaves_pending("a row that always fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_an_endpoint_is_ramped_up_when_it_is_back() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        retry_delays: vec![Duration::from_hours(1); 2],
        ..source_at(&endpoint)
    };
    tenant.update_source(&source).await;
    // Down; once it is up, the first is answered, and the others when the gate opens.
    let (up, gate) = (Arc::new(AtomicBool::new(false)), Gate::closed());
    let (is_up, shut) = (Arc::clone(&up), gate.clone());
    let answered = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&answered);
    endpoint.behave(move |_| {
        if !is_up.load(Ordering::SeqCst) {
            return down();
        }
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::honest(),
            _ => Answer::honest().once_open(&shut),
        }
    });
    let rows = numbered("row-", 500);
    join_all(rows.iter().map(|id| tenant.commit(queued(id)))).await;
    eventually("the source to fail", async || {
        (tenant.status().await.state() == DataSourceState::Failing).then_some(())
    })
    .await;
    // Nothing but probes is on its way any more.
    let probed = endpoint.arrivals_of(Kind::Commit).len() + 1;
    endpoint.wait_for_arrivals(Kind::Commit, probed).await;
    up.store(true, Ordering::SeqCst);
    let since_up = || answered.load(Ordering::SeqCst);
    // The probe is answered: that allows for two.
    eventually("the probe and two more", async || {
        (since_up() >= 3).then_some(())
    })
    .await;
    let storm = endpoint.arrivals_of(Kind::Commit).len() - since_up();
    pass_the_time(&tenant).await;
    assert_eq!(since_up(), 3);
    gate.open();
    drained(&tenant).await;
    assert!(storm < 60, "few find out for all: {storm}");
    assert!(endpoint.most_at_once() <= 16);
    let status = tenant.status().await;
    let applied = status.attempts_by_outcome["applied"];
    assert_eq!((applied, status.dead_count), (500, 0));
    assert_eq!(
        (status.state(), status.failing_since),
        (DataSourceState::Enabled, None)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_an_operator_is_ramped_up_when_its_source_is_enabled() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.update_source(&source_at(&endpoint)).await;
    endpoint.hold(Kind::Commit);
    queue(&tenant, numbered("row-", 60)).await;
    endpoint.wait_for_arrivals(Kind::Commit, 16).await;
    tenant.disable("maintenance").await;
    endpoint.release(Kind::Commit);
    eventually("what was in flight to be settled", async || {
        (tenant.status().await.pending_count == 44).then_some(())
    })
    .await;
    endpoint.hold(Kind::Commit);
    tenant.enable().await;
    endpoint.wait_for_arrivals(Kind::Commit, 17).await;
    pass_the_time(&tenant).await;
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 17);
    endpoint.release(Kind::Commit);
    drained(&tenant).await;
    assert!(endpoint.most_at_once() <= 16);
}
