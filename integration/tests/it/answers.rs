//! What an endpoint's answer to a commit means (`examples/WIRE.md`), row by row, through the whole
//! system. Each case has an organization of its own, so that none waits for another's back-off.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use integration::app::{Source, Tenant, TestApp, eventually, intent, reason};
use integration::endpoint::{Answer, Endpoint, Gate, Kind, Reply};
use proto::v1;
use proto::v1::{AttemptTrigger, CommitState, DataSourceState};
use serde_json::{Value, json};

fn body(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    Answer::unapplied(Reply::Fixed(status, Vec::new(), body.into()))
}

fn error(status: u16, code: &str) -> Answer {
    Answer::error(StatusCode::from_u16(status).unwrap(), code)
}

fn create(id: &str) -> v1::CommitRequest {
    let create = intent::create("airports", id, &json!({"text": "one"}));
    intent::commit(&format!("create-{id}"), vec![create])
}

fn update(name: &str, id: &str) -> v1::CommitRequest {
    let update = intent::update("airports", id, &json!({"text": name}));
    intent::commit(name, vec![update])
}

async fn tenant(
    app: &TestApp,
    name: &str,
    source: impl FnOnce(Source) -> Source,
) -> (Tenant, Endpoint) {
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization(name).await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&source(Source::at(&endpoint))).await;
    (tenant, endpoint)
}

/// An answer that asks to come back, says that nothing was applied, and spends an attempt.
fn busy(status: u16) -> Answer {
    body(
        status,
        json!({"error": "busy", "retryable": true}).to_string(),
    )
}

/// An answer, its outcome, and the class of the error on record.
type Case = (Answer, &'static str, &'static str);

/// Answers that ask to come back.
fn not_now() -> Vec<Case> {
    let bare = [408, 425, 429, 500, 502, 503, 504, 599].map(|it| body(it, "<html>"));
    let retryable = json!({"error": "busy", "retryable": true}).to_string();
    let retryable = [400, 409, 422].map(|it| body(it, retryable.clone()));
    let answers = bare
        .into_iter()
        .chain(retryable)
        .chain([error(500, "entity_exists")]);
    answers.map(|it| (it, "retry", "http_status")).collect()
}

/// Answers after which nobody knows whether the commit was applied.
fn unknown() -> Vec<Case> {
    let bodies = [
        "",
        "{}",
        "null",
        "[]",
        "<html>",
        "{\"rows\":",
        r#"{"rows":[]}"#,
        r#"{"error":"no"}"#,
        r#"{"rows":[{"id":"other","text":"one"}]}"#,
        r#"{"deltas":[{"model":"secrets","id":"1","type":"CREATE","data":{}}]}"#,
    ];
    let broken = [
        (Answer::unapplied(Reply::Close), "closed"),
        (Answer::unapplied(Reply::Reset), "closed"),
        (Answer::applied_but(Reply::Reset), "closed"),
        (Answer::unapplied(Reply::Silence), "timeout_after_send"),
        (Answer::unapplied(Reply::HeadOnly), "timeout_body"),
        (
            Answer::unapplied(Reply::Raw(b"no http\r\n\r\n".to_vec())),
            "protocol",
        ),
        (body(200, vec![b' '; 2 << 20]), "response_invalid"),
        (body(204, ""), "response_invalid"),
    ];
    let invalid = bodies.map(|it| (body(200, it), "response_invalid"));
    let answers = broken.into_iter().chain(invalid);
    answers
        .map(|(answer, class)| (answer, "unknown", class))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_decides_nothing_is_followed_by_the_same_commit_again() {
    let app = TestApp::start().await;
    let cases = not_now().into_iter().chain(unknown()).enumerate();
    join_all(cases.map(async |(number, (answer, outcome, class))| {
        // Long, so that a busy machine ends no attempt, except where its end is what is awaited.
        let seconds = if class.starts_with("timeout") { 2 } else { 20 };
        let in_time = |source| Source {
            request_timeout: Duration::from_secs(seconds),
            ..source
        };
        let (tenant, endpoint) = tenant(&app, &format!("org-{number}"), in_time).await;
        let case = format!("{outcome} {answer:?}");
        endpoint.script(Kind::Commit, answer);
        let receipt = tenant.confirm(create("1")).await;
        assert_eq!(receipt.attempt_count, 2, "{case}");
        let attempts = tenant.attempts("create-1").await;
        assert_eq!(attempts[0].outcome, outcome, "{case}: {attempts:?}");
        assert_eq!(attempts[0].error_class, class, "{case}: {attempts:?}");
        assert!(attempts[0].next_attempt_time.is_some(), "{case}");
        assert_eq!(attempts[1].outcome, "applied", "{case}");
        assert_eq!(endpoint.executions().len(), 1, "{case}");
        assert_eq!(tenant.row("airports", "1").await.unwrap()["text"], "one");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_commit_is_final_and_the_row_moves_on() {
    let app = TestApp::start().await;
    let refusals = [
        error(400, "source_commit_invalid"),
        error(409, "entity_exists"),
        error(412, "stale"),
        error(413, "too_large"),
        error(422, "out_of_range"),
        error(403, "row_is_locked"),
        error(404, "entity_not_found"),
        error(418, "teapot"),
        body(
            422,
            r#"{"error":"too_big","message":"refused: too_big","limit":1e400,"of":"\u0000"}"#,
        ),
    ];
    join_all(
        refusals
            .into_iter()
            .enumerate()
            .map(async |(number, answer)| {
                let (tenant, endpoint) = tenant(&app, &format!("org-{number}"), |it| it).await;
                let gate = Gate::closed();
                endpoint.script(Kind::Commit, answer.clone().once_open(&gate));
                let mut first = create("1");
                first.set_wait(v1::Wait::Queued);
                tenant.commit(first.clone()).await.unwrap();
                let mut next = intent::commit("next", create("1").operations);
                next.set_wait(v1::Wait::Queued);
                tenant.commit(next.clone()).await.unwrap();
                gate.open();
                let receipt = tenant.settle(first.clone()).await;
                assert_eq!(receipt.state(), CommitState::Rejected, "{answer:?}");
                assert_eq!((receipt.attempt_count, receipt.changes.len()), (1, 0));
                let refused = receipt.error.clone().unwrap();
                assert_eq!(refused.message, format!("refused: {}", refused.code));
                assert_eq!(tenant.attempts("create-1").await[0].outcome, "refused");
                assert_eq!(tenant.confirm(next).await.attempt_count, 1);
                // Final: the same call has the same answer, and nothing leaves for it.
                assert_eq!(tenant.commit(first).await.unwrap(), receipt);
                assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 2);
            }),
    )
    .await;
}

fn misconfigurations() -> Vec<Answer> {
    let moved = |status| body(status, "").with_header("location", "http://127.0.0.1:1/elsewhere");
    let mut answers: Vec<_> = [301, 302, 303, 307, 308].map(moved).into();
    answers.extend([400, 401, 403, 404, 405, 409, 418, 422].map(|it| body(it, "no JSON")));
    answers.extend([
        error(401, "source_signature_invalid"),
        error(401, "anything"),
        error(403, "source_forbidden"),
        error(404, "source_commit_not_configured"),
        error(405, "method_not_allowed"),
    ]);
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misconfigured_source_backs_off_as_a_whole_and_spends_no_attempt() {
    let app = TestApp::start().await;
    join_all(
        misconfigurations()
            .into_iter()
            .enumerate()
            .map(async |(number, answer)| {
                // Two attempts and no more: a third one shows that the first was not spent.
                let two_attempts = |source| Source {
                    retry_delays: vec![Duration::from_millis(10)],
                    ..source
                };
                let (tenant, endpoint) = tenant(&app, &format!("org-{number}"), two_attempts).await;
                endpoint.script(Kind::Commit, answer.clone());
                endpoint.script(Kind::Commit, busy(409));
                let mut first = create("1");
                first.set_wait(v1::Wait::Queued);
                tenant.commit(first.clone()).await.unwrap();
                tenant.ended_attempts("create-1", 1).await;
                let status = tenant.status().await;
                assert_eq!(status.state(), DataSourceState::Failing, "{answer:?}");
                assert!(status.next_probe_time.is_some() && !status.state_reason.is_empty());
                // The source takes commits, and sends none of them meanwhile.
                let mut second = update("second", "1");
                second.set_wait(v1::Wait::Queued);
                tenant.commit(second.clone()).await.unwrap();
                assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1, "{answer:?}");
                assert_eq!(tenant.confirm(first).await.attempt_count, 3, "{answer:?}");
                let attempts = tenant.attempts("create-1").await;
                let outcomes: Vec<_> = attempts.iter().map(|it| it.outcome.as_str()).collect();
                assert_eq!(
                    outcomes,
                    ["misconfigured", "retry", "applied"],
                    "{answer:?}"
                );
                tenant.confirm(second).await;
                let status = tenant.status().await;
                assert_eq!(status.state(), DataSourceState::Enabled, "{answer:?}");
                assert_eq!((status.next_probe_time, status.dead_count), (None, 0));
            }),
    )
    .await;
}

#[tokio::test]
async fn gone_disables_the_source_and_enabling_it_drains_what_was_kept_in_order() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let gate = Gate::closed();
    endpoint.script(Kind::Commit, body(410, "").once_open(&gate));
    let mut kept = vec![create("1")];
    kept.extend(["a", "b", "c"].map(|name| update(name, "1")));
    for request in &mut kept {
        request.set_wait(v1::Wait::Queued);
        tenant.commit(request.clone()).await.unwrap();
    }
    gate.open();
    eventually("the source to be disabled", async || {
        let state = tenant.status().await.state();
        (state == DataSourceState::Disabled).then_some(())
    })
    .await;
    let refused = tenant.commit(create("2")).await.unwrap_err();
    assert_eq!(reason(&refused), "source_disabled");
    assert_eq!(
        reason(&tenant.load("airports", "1").await.unwrap_err()),
        "source_disabled"
    );
    let status = tenant.status().await;
    assert_eq!((status.pending_count, status.dead_count), (4, 0));
    assert_eq!(status.attempts_by_outcome["gone"], 1);
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1);
    tenant.enable().await;
    for request in kept {
        tenant.confirm(request).await;
    }
    let names: Vec<_> = endpoint
        .executions()
        .into_iter()
        .map(|it| it.client_tx_id)
        .collect();
    assert_eq!(names, ["create-1", "a", "b", "c"]);
    assert_eq!(tenant.status().await.state(), DataSourceState::Enabled);
}

#[tokio::test]
async fn the_source_is_left_alone_for_as_long_as_the_endpoint_asks() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.script(Kind::Commit, body(429, "").with_header("retry-after", "2"));
    endpoint.script(
        Kind::Commit,
        body(503, "").with_header("retry-after", "nonsense"),
    );
    let mut first = create("1");
    first.set_wait(v1::Wait::Queued);
    tenant.commit(first.clone()).await.unwrap();
    tenant.ended_attempts("create-1", 1).await;
    tenant.confirm(create("2")).await;
    tenant.confirm(first).await;
    let at: Vec<_> = endpoint
        .arrivals_of(Kind::Commit)
        .iter()
        .map(|it| it.at)
        .collect();
    assert_eq!(at.len(), 4);
    assert!(
        at[1] - at[0] >= Duration::from_secs(2),
        "{:?}",
        at[1] - at[0]
    );
    assert!(
        at[3] - at[1] < Duration::from_secs(2),
        "{:?}",
        at[3] - at[1]
    );
}

pub(crate) async fn move_time_past_the_signatures_tolerance(app: &mut TestApp) {
    sqlx::query("UPDATE inbox SET due_at = least(due_at, now()), may_apply_until = now()")
        .execute(&app.pool())
        .await
        .unwrap();
    app.restart().await;
}

#[tokio::test]
async fn a_refusal_after_an_unknown_attempt_is_decided_when_that_can_no_longer_apply() {
    for last in [error(409, "entity_exists"), Answer::honest()] {
        let mut app = TestApp::start().await;
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = app.tenant(&endpoint).await;
        endpoint.script(Kind::Commit, body(500, ""));
        endpoint.script(Kind::Commit, error(409, "entity_exists"));
        endpoint.script(Kind::Commit, last.clone());
        let mut request = create("1");
        request.set_wait(v1::Wait::Queued);
        tenant.commit(request.clone()).await.unwrap();
        let attempts = tenant.ended_attempts("create-1", 2).await;
        assert_eq!(attempts[1].outcome, "refused");
        let started = |index: usize| attempts[index].start_time.unwrap().seconds;
        let again = attempts[1].next_attempt_time.unwrap().seconds;
        // Each may be sent for 20 s, and its signature is good for five minutes.
        let (first, last_moment) = (started(0) + 319, started(1) + 321);
        assert!(
            (first..=last_moment).contains(&again),
            "{again} is not from {first} to {last_moment}"
        );
        let receipt = tenant.receipt("create-1").await.unwrap();
        assert_eq!(
            (receipt.state(), receipt.error),
            (CommitState::Queued, None)
        );
        move_time_past_the_signatures_tolerance(&mut app).await;
        let receipt = tenant.at(&app.address()).settle(request).await;
        let wanted = if endpoint.executions().is_empty() {
            CommitState::Rejected
        } else {
            CommitState::Confirmed
        };
        assert_eq!(receipt.state(), wanted, "{last:?}");
        assert_eq!(receipt.attempt_count, 3);
    }
}

async fn dead(tenant: &Tenant, request: v1::CommitRequest) {
    let receipt = tenant.settle(request).await;
    assert!(
        receipt.dead && receipt.state() == CommitState::Queued,
        "{receipt:?}"
    );
    assert_eq!(receipt.attempt_count, 3);
    let pending = tenant.pending().await;
    let parked = pending
        .iter()
        .find(|it| it.client_tx_id == receipt.client_tx_id)
        .unwrap();
    assert!(parked.dead && parked.last_error.is_some());
    let status = tenant.status().await;
    assert_eq!(status.dead_count, 1);
    let last = tenant.attempts(&receipt.client_tx_id).await.pop().unwrap();
    assert_eq!(last.next_attempt_time, None);
}

fn three_attempts(endpoint: &Endpoint) -> Source {
    Source {
        retry_delays: vec![Duration::from_millis(10); 2],
        ..Source::at(endpoint)
    }
}

#[tokio::test]
async fn a_commit_whose_attempts_are_exhausted_is_parked_and_its_row_moves_on() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.update_source(&three_attempts(&endpoint)).await;
    for _ in 0..3 {
        endpoint.script(Kind::Commit, busy(409));
    }
    dead(&tenant, create("1")).await;
    let next = intent::commit("next", create("1").operations);
    assert_eq!(tenant.confirm(next).await.attempt_count, 1);
    assert_eq!(endpoint.executions().len(), 1);
}

#[tokio::test]
async fn the_row_of_a_dead_commit_waits_until_nothing_of_it_can_still_apply() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant.update_source(&three_attempts(&endpoint)).await;
    for _ in 0..3 {
        endpoint.script(Kind::Commit, body(500, ""));
    }
    dead(&tenant, create("1")).await;
    let mut next = intent::commit("next", create("1").operations);
    next.set_wait(v1::Wait::Queued);
    tenant.commit(next.clone()).await.unwrap();
    // Another row does not wait, and shows that the courier has seen both.
    tenant.confirm(create("2")).await;
    assert_eq!(tenant.attempts("next").await, []);
    assert_eq!(tenant.status().await.pending_count, 1);
    move_time_past_the_signatures_tolerance(&mut app).await;
    tenant.at(&app.address()).confirm(next).await;
}

#[tokio::test]
async fn the_first_success_after_a_failing_spell_makes_everything_due_at_once() {
    let app = TestApp::start().await;
    let mut endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        retry_delays: vec![Duration::from_hours(1)],
        ..Source::at(&endpoint)
    };
    tenant.update_source(&source).await;
    endpoint.stop().await;
    let failed = ["1", "2", "3"];
    for id in failed {
        let mut request = create(id);
        request.set_wait(v1::Wait::Queued);
        tenant.commit(request).await.unwrap();
        let attempts = tenant.ended_attempts(&format!("create-{id}"), 1).await;
        assert_eq!(
            (
                attempts[0].outcome.as_str(),
                attempts[0].error_class.as_str()
            ),
            ("retry", "connect")
        );
    }
    // It is probed now and then, not by each of its commits.
    let status = tenant.status().await;
    assert_eq!(status.state(), DataSourceState::Failing);
    assert!(status.next_probe_time.is_some());
    endpoint.restart().await.unwrap();
    tenant.confirm(create("probe")).await;
    for id in failed {
        tenant.confirm(create(id)).await;
        let attempts = tenant.attempts(&format!("create-{id}")).await;
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts[1].trigger(), AttemptTrigger::Recovery);
    }
    assert_eq!(tenant.status().await.state(), DataSourceState::Enabled);
}

#[tokio::test]
async fn what_the_endpoint_says_of_its_other_rows_is_in_the_receipt_too() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let deltas = json!({"deltas": [
        {"model": "airports", "id": "1", "type": "CREATE", "data": {"id": "1", "text": "canonical"}},
        {"model": "airports", "id": "2", "type": "UPDATE", "data": {"id": "2", "text": "touched"}},
    ]});
    let reply = Reply::Fixed(StatusCode::OK, Vec::new(), deltas.to_string().into_bytes());
    endpoint.script(Kind::Commit, Answer::applied_but(reply));
    let receipt = tenant.confirm(create("1")).await;
    let changes: Vec<_> = receipt
        .changes
        .iter()
        .map(|it| {
            let row: Value = serde_json::from_slice(&it.row_json).unwrap();
            (it.operation_index, it.id.as_str(), row["text"].clone())
        })
        .collect();
    assert_eq!(
        changes,
        [
            (Some(0), "1", json!("canonical")),
            (None, "2", json!("touched"))
        ]
    );
}
