//! Promise 8: every attempt is on the record, and how a source does is true at any moment.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::StatusCode;
use integration::app::{Source, TestApp, eventually, intent, reason};
use integration::endpoint::{Answer, Endpoint, Kind, Reply};
use proto::v1;
use proto::v1::{AttemptTrigger, DataSourceState, RequestKind};
use serde_json::json;

fn create(id: &str) -> v1::CommitRequest {
    let create = intent::create("airports", id, &json!({"text": "one"}));
    intent::commit(&format!("create-{id}"), vec![create])
}

fn fixed(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer::unapplied(Reply::Fixed(status, Vec::new(), body.into()))
}

#[tokio::test]
async fn an_attempt_tells_what_was_sent_why_and_what_came_back() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let long = [&b"a\r\n\0\x1b[31m\xff\""[..], &[b'x'; 4_000]].concat();
    endpoint.script(Kind::Commit, fixed(503, long));
    endpoint.script(Kind::Commit, Answer::unapplied(Reply::Close));
    let receipt = tenant.confirm(create("1")).await;
    let attempts = tenant.attempts("create-1").await;
    for (number, attempt) in (1..).zip(&attempts) {
        assert_eq!(attempt.number, number);
        assert_eq!(attempt.client_tx_id, receipt.client_tx_id);
        assert_eq!(attempt.commit_id, receipt.commit_id);
        assert!(attempt.start_time.is_some() && attempt.duration.is_some());
    }
    let triggers: Vec<_> = attempts.iter().map(v1::Attempt::trigger).collect();
    assert_eq!(
        triggers,
        [
            AttemptTrigger::Accept,
            AttemptTrigger::Schedule,
            AttemptTrigger::Schedule,
        ]
    );
    let told: Vec<_> = attempts
        .iter()
        .map(|it| (it.http_status, it.outcome.as_str(), it.error_class.as_str()))
        .collect();
    let wanted = [
        (503, "retry", "http_status"),
        (0, "unknown", "closed"),
        (200, "applied", ""),
    ];
    assert_eq!(told, wanted);
    assert_eq!(
        attempts[0].message,
        "the endpoint answered 503 Service Unavailable"
    );
    let excerpt = &attempts[0].response_excerpt;
    assert!(excerpt.starts_with(r"a\r\n\u{0}\u{1b}[31m"), "{excerpt:?}");
    assert!(excerpt.ends_with(&"x".repeat(2_000)) && !excerpt.contains(&"x".repeat(2_048)));
    assert!(excerpt.chars().all(|it| !it.is_control()));
    let empty = (
        attempts[1].response_excerpt.as_str(),
        attempts[2].message.as_str(),
    );
    assert_eq!(empty, ("", ""));
    for two in attempts.windows(2) {
        let (due, begun) = (
            two[0].next_attempt_time.unwrap(),
            two[1].start_time.unwrap(),
        );
        assert!((due.seconds, due.nanos) <= (begun.seconds, begun.nanos));
    }
    assert_eq!(attempts[2].next_attempt_time, None);
}

#[tokio::test]
async fn an_attempt_is_on_record_before_its_first_byte_arrives() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.hold(Kind::Commit);
    let mut request = create("1");
    request.set_wait(v1::Wait::Queued);
    tenant.commit(request.clone()).await.unwrap();
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    let attempts = tenant.attempts("create-1").await;
    assert_eq!((attempts.len(), attempts[0].outcome.as_str()), (1, ""));
    assert_eq!(attempts[0].duration, None);
    assert_eq!(tenant.receipt("create-1").await.unwrap().attempt_count, 1);
    endpoint.release(Kind::Commit);
    tenant.confirm(request).await;
}

#[tokio::test]
async fn there_is_one_attempt_on_record_for_every_arrival() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for _ in 0..100 {
        endpoint.script(
            Kind::Commit,
            match rand::random_range(0..12) {
                0 => fixed(500, ""),
                1 => fixed(429, ""),
                2 => Answer::applied_but(Reply::Reset),
                _ => Answer::honest(),
            },
        );
    }
    let mut calls = tokio::task::JoinSet::new();
    for id in 0..60 {
        let tenant = tenant.clone();
        calls.spawn(async move { tenant.confirm(create(&id.to_string())).await });
    }
    let receipts = calls.join_all().await;
    let mut arrived: HashMap<String, i32> = HashMap::new();
    for arrival in endpoint.arrivals_of(Kind::Commit) {
        *arrived.entry(arrival.webhook_id().to_owned()).or_default() += 1;
    }
    let mut recorded: HashMap<String, Vec<i32>> = HashMap::new();
    let attempts = tenant.attempts("").await;
    for attempt in &attempts {
        recorded
            .entry(attempt.commit_id.clone())
            .or_default()
            .push(attempt.number);
    }
    assert_eq!(recorded.len(), receipts.len());
    for receipt in &receipts {
        let count = arrived[&receipt.commit_id];
        assert_eq!(
            recorded[&receipt.commit_id],
            (1..=count).collect::<Vec<_>>()
        );
        assert_eq!(receipt.attempt_count, count);
    }
    let status = tenant.status().await;
    for (outcome, count) in &status.attempts_by_outcome {
        let of_it = attempts.iter().filter(|it| it.outcome == *outcome);
        assert_eq!(
            i64::try_from(of_it.clone().count()).unwrap(),
            *count,
            "{outcome}"
        );
        let again = of_it.filter(|it| it.number > 1).count();
        assert_eq!(
            status.retries_by_outcome[outcome],
            i64::try_from(again).unwrap(),
            "{outcome}"
        );
    }
    assert_eq!(status.attempts_by_outcome["applied"], 60);
    assert!(status.retries_by_outcome["applied"] > 0);
}

fn of(status: &v1::DataSourceStatus, kind: RequestKind) -> &v1::RequestStatus {
    status.kinds.iter().find(|it| it.kind() == kind).unwrap()
}

#[tokio::test]
async fn the_last_success_and_the_last_error_are_told_for_each_kind_of_request() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.without_feed();
    let tenant = app.tenant(&endpoint).await;
    assert_eq!(tenant.status().await.kinds, []);
    endpoint.script(Kind::Commit, fixed(502, ""));
    tenant.confirm(create("1")).await;
    endpoint.script(Kind::Load, fixed(503, ""));
    let refused = tenant.load("airports", "1").await.unwrap_err();
    assert_eq!(reason(&refused), "source_unavailable");
    let status = tenant.status().await;
    let (commit, load) = (
        of(&status, RequestKind::Commit),
        of(&status, RequestKind::Load),
    );
    assert!(commit.last_success_time.is_some() && load.last_success_time.is_none());
    assert_eq!(commit.last_error.as_ref().unwrap().http_status, 502);
    let error = load.last_error.clone().unwrap();
    assert_eq!(
        (error.http_status, error.error_class.as_str()),
        (503, "http_status")
    );
    let overall = status.overall.clone().unwrap();
    assert_eq!(overall.last_error, Some(error.clone()));
    assert_eq!(overall.last_success_time, commit.last_success_time);

    tenant.load("airports", "1").await.unwrap();
    endpoint.script(
        Kind::List,
        Answer::unapplied(Reply::Fixed(StatusCode::OK, Vec::new(), b"{}".to_vec())),
    );
    tenant.list("airports").await.unwrap_err();
    tenant.list("airports").await.unwrap();
    let status = tenant.status().await;
    let (load, list) = (
        of(&status, RequestKind::Load),
        of(&status, RequestKind::List),
    );
    // A success leaves the last error standing.
    assert_eq!(load.last_error, Some(error));
    assert!(load.last_success_time.is_some() && list.last_success_time.is_some());
    assert_eq!(
        list.last_error.as_ref().unwrap().error_class,
        "response_invalid"
    );
    let overall = status.overall.clone().unwrap();
    assert_eq!(overall.last_success_time, list.last_success_time);
    assert_eq!(overall.last_error, list.last_error);
    assert_eq!(status.state(), DataSourceState::Enabled);
}

#[tokio::test]
async fn what_waits_is_counted_and_listed_and_everything_outlives_a_restart() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.without_feed();
    let tenant = app.tenant(&endpoint).await;
    tenant
        .update_source(&Source {
            retry_delays: vec![Duration::from_hours(1)],
            ..Source::at(&endpoint)
        })
        .await;
    eventually("the feed to be known as none", async || {
        let feed = tenant.status().await.feed.unwrap();
        (feed.state() == v1::FeedState::None).then_some(())
    })
    .await;
    let idle = tenant.status().await;
    assert_eq!((idle.pending_count, idle.oldest_pending_age), (0, None));
    for id in ["1", "2"] {
        endpoint.script(Kind::Commit, fixed(429, ""));
        let mut request = create(id);
        request.set_wait(v1::Wait::Queued);
        tenant.commit(request).await.unwrap();
        tenant.ended_attempts(&format!("create-{id}"), 1).await;
    }
    tenant.load("airports", "1").await.unwrap();
    let before = tenant.status().await;
    assert_eq!((before.pending_count, before.dead_count), (2, 0));
    assert_eq!(before.attempts_by_outcome["retry"], 2);
    let pending = tenant.pending().await;
    let told: Vec<_> = pending
        .iter()
        .map(|it| {
            (
                it.client_tx_id.as_str(),
                it.sequence,
                it.attempt_count,
                it.dead,
            )
        })
        .collect();
    assert_eq!(told, [("create-1", 1, 1, false), ("create-2", 2, 1, false)]);
    assert_eq!(pending[0].participant, Some(intent::participant()));
    assert_eq!(pending[0].last_error.as_ref().unwrap().http_status, 429);
    assert!(
        pending[0].next_attempt_time.unwrap().seconds
            > pending[0].accept_time.unwrap().seconds + 2_000
    );
    let attempts = tenant.attempts("").await;

    let tenant = tenant.at(&app.restart().await);
    let mut after = tenant.status().await;
    let age = |status: &v1::DataSourceStatus| {
        Duration::try_from(status.oldest_pending_age.unwrap()).unwrap()
    };
    assert!(age(&after) >= age(&before));
    after.oldest_pending_age = before.oldest_pending_age;
    assert_eq!(after, before);
    assert_eq!(tenant.attempts("").await, attempts);
    assert_eq!(tenant.pending().await, pending);
    app.leaves_pending("they are due in an hour");
}
