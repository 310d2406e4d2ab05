//! Commits that are not to be sent after a time.

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use integration::app::{Source, Tenant, TestApp, eventually, intent, reason};
use integration::endpoint::{Answer, Endpoint, Gate, Kind};
use proto::v1;
use proto::v1::CommitState;
use serde_json::json;
use tonic::Code;

/// Long enough to be accepted on a busy machine, and short enough to wait for.
const SOON: Duration = Duration::from_secs(3);

#[expect(
    clippy::disallowed_methods,
    reason = "a caller's clock, which says when its commit is over"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn create(model: &str, id: &str) -> v1::CommitRequest {
    let create = intent::create(model, id, &json!({"text": "one"}));
    intent::queued(&format!("{model}-{id}"), vec![create])
}

fn ending_in(span: Duration, request: v1::CommitRequest) -> v1::CommitRequest {
    v1::CommitRequest {
        expire_time: Some((now() + span).into()),
        ..request
    }
}

async fn expired(tenant: &Tenant, name: &str) -> v1::Receipt {
    let receipt = eventually(&format!("{name} to be settled"), async || {
        let receipt = tenant.receipt(name).await.unwrap();
        (receipt.state() != CommitState::Queued).then_some(receipt)
    })
    .await;
    assert_eq!(receipt.state(), CommitState::Rejected, "{receipt:?}");
    let error = receipt.error.clone().unwrap();
    assert_eq!(error.code, "commit_expired");
    receipt
}

/// A source that tries once, and again in an hour.
fn patient(endpoint: &Endpoint) -> Source {
    Source {
        retry_delays: vec![Duration::from_hours(1); 3],
        ..Source::at(endpoint)
    }
}

#[tokio::test]
async fn a_commit_that_is_over_is_not_accepted_whichever_backing_holds_its_rows() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for model in ["notes", "airports"] {
        let past = v1::CommitRequest {
            expire_time: Some((now() - Duration::from_secs(1)).into()),
            ..create(model, "1")
        };
        let refused = tenant.commit(past.clone()).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "commit_expired")
        );
        let nonsense = v1::CommitRequest {
            expire_time: Some(prost_types::Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            }),
            ..create(model, "1")
        };
        let refused = tenant.commit(nonsense).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "expire_time_invalid")
        );
        // Nothing was recorded, and the time is no part of the intent.
        let in_time = ending_in(Duration::from_hours(1), create(model, "1"));
        let receipt = tenant.confirm(in_time).await;
        assert_eq!(tenant.commit(past).await.unwrap(), receipt);
    }
    assert_eq!(endpoint.executions().len(), 1);
}

#[tokio::test]
async fn a_commit_expires_in_time_although_its_source_backs_off_and_others_stand_before_it() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.update_source(&patient(&endpoint)).await;
    let asked = Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_header("retry-after", "3600");
    endpoint.script(Kind::Commit, asked);
    tenant.commit(create("airports", "1")).await.unwrap();
    tenant.ended_attempts("airports-1", 1).await;
    let other = ending_in(SOON, create("airports", "2"));
    let behind = intent::update("airports", "1", &json!({"text": "two"}));
    let behind = ending_in(SOON, intent::queued("behind", vec![behind]));
    for request in [other.clone(), behind] {
        let receipt = tenant.commit(request).await.unwrap();
        assert_eq!(receipt.state(), CommitState::Queued);
    }
    for name in ["airports-2", "behind"] {
        let receipt = expired(&tenant, name).await;
        assert_eq!(receipt.attempt_count, 0);
        assert_eq!(tenant.attempts(name).await, []);
        let (settled, accepted) = (receipt.settle_time.unwrap(), receipt.accept_time.unwrap());
        assert!(settled.seconds - accepted.seconds >= 2);
    }
    assert_eq!(
        tenant.commit(other).await.unwrap().state(),
        CommitState::Rejected
    );
    assert_eq!(tenant.status().await.pending_count, 1);
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1);
    app.leaves_pending("its endpoint asked for an hour");
}

#[tokio::test]
async fn a_commit_that_waits_for_its_next_attempt_expires_before_it() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.update_source(&patient(&endpoint)).await;
    // An answer that says that nothing was applied.
    let busy = json!({"error": "busy", "retryable": true});
    endpoint.script(Kind::Commit, Answer::json(StatusCode::CONFLICT, &busy));
    let request = ending_in(SOON, create("airports", "1"));
    tenant.commit(request).await.unwrap();
    assert_eq!(expired(&tenant, "airports-1").await.attempt_count, 1);
    // Its row moves on.
    let next = intent::commit("next", create("airports", "1").operations);
    tenant.confirm(next).await;
}

#[tokio::test]
async fn a_commit_that_may_have_been_applied_is_neither_sent_again_nor_rejected_until_it_cannot_be()
{
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let after = |pause| Source {
        retry_delays: vec![pause; 9],
        ..Source::at(&endpoint)
    };
    tenant.update_source(&after(2 * SOON)).await;
    endpoint.script(
        Kind::Commit,
        Answer::status(StatusCode::INTERNAL_SERVER_ERROR),
    );
    let request = ending_in(SOON, create("airports", "1"));
    tenant.commit(request).await.unwrap();
    tenant.ended_attempts("airports-1", 1).await;
    // Another commit comes to its second attempt after the first one would have: pauses are a fifth
    // longer or shorter than was asked for.
    tenant.update_source(&after(3 * SOON)).await;
    endpoint.script(Kind::Commit, Answer::status(StatusCode::TOO_MANY_REQUESTS));
    let other = tenant.confirm(create("airports", "2")).await;
    assert_eq!(other.attempt_count, 2);
    let receipt = tenant.receipt("airports-1").await.unwrap();
    assert_eq!(
        (receipt.state(), receipt.attempt_count),
        (CommitState::Queued, 1)
    );
    sqlx::query("UPDATE inbox SET may_apply_until = now()")
        .execute(&app.pool())
        .await
        .unwrap();
    let tenant = tenant.at(&app.restart().await);
    assert_eq!(expired(&tenant, "airports-1").await.attempt_count, 1);
}

#[tokio::test]
async fn a_source_that_is_disabled_or_paused_keeps_no_commit_past_its_end() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let gate = Gate::closed();
    let gone = Answer::status(StatusCode::GONE).once_open(&gate);
    endpoint.script(Kind::Commit, gone);
    tenant.commit(create("airports", "1")).await.unwrap();
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    let behind = intent::update("airports", "1", &json!({"text": "two"}));
    let behind = ending_in(SOON, intent::queued("behind", vec![behind]));
    tenant.commit(behind).await.unwrap();
    gate.open();
    expired(&tenant, "behind").await;
    tenant.enable().await;
    let name = "dataSources/crm".to_owned();
    let pause = v1::PauseDataSourceRequest {
        name: name.clone(),
        ..v1::PauseDataSourceRequest::default()
    };
    tenant.sources().pause(pause).await.unwrap();
    let other = ending_in(SOON, create("airports", "2"));
    tenant.commit(other).await.unwrap();
    expired(&tenant, "airports-2").await;
    let resume = v1::ResumeDataSourceRequest {
        name,
        ..v1::ResumeDataSourceRequest::default()
    };
    tenant.sources().resume(resume).await.unwrap();
    tenant.confirm(create("airports", "1")).await;
    assert_eq!(endpoint.row("airports", "1").unwrap()["text"], "one");
}
