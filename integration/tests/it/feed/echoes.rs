//! Our own commits in the feed, and changes made outside at the same rows and the same time.

use std::collections::BTreeMap;

use integration::app::intent;
use integration::endpoint::{Answer, Reply};
use proto::v1::{AttemptTrigger, CommitState, Wait};

use super::*;

fn create(row: &str) -> v1::CommitRequest {
    let create = intent::create("airports", row, &json!({"text": "ours"}));
    intent::commit(&format!("create-{row}"), vec![create])
}

fn update(name: &str, row: &str, text: &str) -> v1::CommitRequest {
    let update = intent::update("airports", row, &json!({"text": text}));
    intent::commit(name, vec![update])
}

fn queued(mut request: v1::CommitRequest) -> v1::CommitRequest {
    request.set_wait(Wait::Queued);
    request
}

/// A source that does not send again by itself.
async fn patient(app: &TestApp, endpoint: &Endpoint) -> Tenant {
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        retry_delays: vec![Duration::from_hours(1); 3],
        request_timeout: Duration::from_secs(30),
        max_in_flight: 256,
        ..Source::at(endpoint)
    };
    tenant.prepare(&source).await;
    tenant
}

/// Of many commits, a part is answered before its event is polled, a part meanwhile, a part
/// afterwards, and a part never: each has one delta, of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_and_its_event_are_one_delta_whichever_comes_first() {
    const COMMITS: usize = 64;
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.echo_commits();
    endpoint.hold(Kind::Events);
    let tenant = patient(&app, &endpoint).await;
    let (meanwhile, afterwards) = (Gate::closed(), Gate::closed());
    for number in 0..COMMITS {
        let answer = match number % 8 {
            0 => Answer::honest().replied_once_open(&meanwhile),
            2 => Answer::honest().replied_once_open(&afterwards),
            4 => Answer::applied_but(Reply::Reset),
            _ => Answer::honest(),
        };
        endpoint.script(Kind::Commit, answer);
        tenant
            .commit(queued(create(&number.to_string())))
            .await
            .unwrap();
        endpoint.wait_for_arrivals(Kind::Commit, number + 1).await;
    }
    endpoint.wait_for_executions(COMMITS).await;
    let polls = endpoint.arrivals_of(Kind::Events).len();
    endpoint.release(Kind::Events);
    meanwhile.open();
    // What was lost is sent again although others still wait for their answers.
    endpoint
        .wait_for_arrivals(Kind::Commit, COMMITS + COMMITS / 8)
        .await;
    afterwards.open();
    assert!(polls > 0);
    for number in 0..COMMITS {
        let receipt = tenant.confirm(create(&number.to_string())).await;
        let wanted = if number % 8 == 4 { 2 } else { 1 };
        assert_eq!(receipt.attempt_count, wanted, "{receipt:?}");
    }
    let all = i64::try_from(COMMITS).unwrap();
    let feed = until(&tenant, "every echo", |feed| feed.echo_count == all).await;
    assert_eq!((feed.taken_count, feed.quarantined_count), (0, 0));
    let mut deltas: BTreeMap<String, usize> = BTreeMap::new();
    for delta in log(&app).await {
        assert!(delta.client_tx_id.is_some(), "{delta:?}");
        *deltas.entry(delta.row_id).or_default() += 1;
    }
    assert_eq!(deltas.len(), COMMITS);
    assert!(deltas.values().all(|count| *count == 1));
    let attempts = tenant.attempts("").await;
    let again: Vec<_> = attempts.iter().filter(|it| it.number == 2).collect();
    assert_eq!(again.len(), COMMITS / 8);
    assert!(
        again.iter().all(|it| it.trigger() == AttemptTrigger::Echo),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_commit_that_shows_up_in_the_feed_is_settled() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        retry_delays: vec![Duration::from_millis(50)],
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    for _ in 0..2 {
        endpoint.script(Kind::Commit, Answer::applied_but(Reply::Reset));
    }
    assert!(tenant.settle(create("a")).await.dead);
    endpoint.publish(json!({
        "id": "e", "model": "airports", "entityId": "a", "type": "CREATE",
        "data": {"id": "a", "text": "ours"}, "clientTxId": "create-a",
    }));
    let receipt = eventually("the commit to be settled", async || {
        let receipt = tenant.receipt("create-a").await.unwrap();
        (receipt.state() == CommitState::Confirmed).then_some(receipt)
    })
    .await;
    assert_eq!((receipt.attempt_count, receipt.dead), (3, false));
    let status = tenant.status().await;
    assert_eq!((status.dead_count, status.pending_count), (0, 0));
    assert_eq!(log(&app).await.len(), 1);
    assert_eq!(endpoint.executions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commits_name_on_another_row_makes_no_echo() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = patient(&app, &endpoint).await;
    tenant.confirm(create("a")).await;
    endpoint.script(Kind::Commit, Answer::unapplied(Reply::Reset));
    tenant.commit(queued(create("b"))).await.unwrap();
    tenant.ended_attempts("create-b", 1).await;
    let forged = |id: &str, row: &str, name: &str| {
        let mut event = event(id, row, "theirs");
        event["clientTxId"] = name.into();
        event["correlationId"] = name.into();
        event
    };
    endpoint.publish(forged("1", "x", "create-a"));
    endpoint.publish(forged("2", "y", "create-b"));
    endpoint.publish(forged("3", "z", "nobody"));
    let feed = taken(&tenant, 3).await;
    assert_eq!(feed.echo_count, 0);
    // Nobody asked for the commit that waits.
    assert_eq!(tenant.attempts("create-b").await.len(), 1);
    endpoint.publish(forged("4", "b", "create-b"));
    tenant.confirm(create("b")).await;
    let outside = log(&app)
        .await
        .into_iter()
        .filter(|it| it.client_tx_id.is_none());
    let rows: Vec<_> = outside.map(|it| it.row_id).collect();
    assert_eq!(rows, ["x", "y", "z"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effect_of_a_rejected_commit_is_taken_in() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let refusal = Answer::error(StatusCode::CONFLICT, "taken");
    endpoint.script(Kind::Commit, refusal);
    let rejected = tenant.settle(create("a")).await;
    assert_eq!(rejected.state(), CommitState::Rejected);
    let mut event = event("e", "a", "ours");
    event["clientTxId"] = "create-a".into();
    endpoint.publish(event);
    taken(&tenant, 1).await;
    assert_eq!(log(&app).await[0].client_tx_id, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effect_of_a_commit_that_is_refused_after_it_came_back_is_read_from_the_source() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = patient(&app, &endpoint).await;
    tenant.confirm(create("a")).await;
    endpoint.write_outside("airports", "a", text("ours too"));
    taken(&tenant, 1).await;
    // "Ask again" says that nothing is under way, so a refusal then is final.
    let busy = json!({"error": "still_running", "retryable": true}).to_string();
    let status = StatusCode::CONFLICT;
    let busy = Reply::Fixed(status, Vec::new(), busy.into_bytes());
    endpoint.script(Kind::Commit, Answer::applied_but(busy));
    endpoint.script(Kind::Commit, Answer::error(status, "taken"));
    tenant
        .commit(queued(update("u", "a", "ours")))
        .await
        .unwrap();
    tenant.ended_attempts("u", 1).await;
    let mut event = event("e", "a", "ours");
    event["clientTxId"] = "u".into();
    endpoint.publish(event);
    let refused = tenant.settle(update("u", "a", "ours")).await;
    assert_eq!(refused.state(), CommitState::Rejected);
    eventually("the log to end on what the source holds", async || {
        agrees(&app, &endpoint, "a").await.then_some(())
    })
    .await;
    let last = log(&app).await.pop().unwrap();
    assert_eq!(
        (last.client_tx_id.clone(), last.text()),
        (None, "ours".into())
    );
    assert_eq!(feed(&tenant).await.echo_count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effect_of_a_commit_that_came_back_and_is_rejected_by_hand_is_read_from_the_source() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = patient(&app, &endpoint).await;
    tenant.confirm(create("a")).await;
    let busy = json!({"error": "still_running", "retryable": true}).to_string();
    for _ in 0..2 {
        let status = StatusCode::CONFLICT;
        let busy = Reply::Fixed(status, Vec::new(), busy.clone().into_bytes());
        endpoint.script(Kind::Commit, Answer::applied_but(busy));
    }
    tenant
        .commit(queued(update("u", "a", "ours too")))
        .await
        .unwrap();
    tenant.ended_attempts("u", 1).await;
    let mut event = event("e", "a", "ours too");
    event["clientTxId"] = "u".into();
    endpoint.publish(event);
    // Sent again for the answer, which is none.
    tenant.ended_attempts("u", 2).await;
    let rejected = v1::ResolvedRejected {
        code: "not_there".to_owned(),
        message: "it cannot be found".to_owned(),
    };
    let request = v1::ResolveCommitRequest {
        name: "dataSources/crm".to_owned(),
        client_tx_id: "u".to_owned(),
        resolution: Some(v1::resolve_commit_request::Resolution::Rejected(rejected)),
        ..v1::ResolveCommitRequest::default()
    };
    tenant.sources().resolve_commit(request).await.unwrap();
    eventually("the log to end on what the source holds", async || {
        agrees(&app, &endpoint, "a").await.then_some(())
    })
    .await;
    let last = log(&app).await.pop().unwrap();
    assert_eq!(
        (last.client_tx_id.clone(), last.text()),
        (None, "ours too".into())
    );
}

/// What the log says last of a row is what the source holds.
async fn agrees(app: &TestApp, endpoint: &Endpoint, row: &str) -> bool {
    let deltas = log(app).await;
    let last = deltas.iter().rfind(|it| it.row_id == row);
    last.map(Delta::fields) == endpoint.row("airports", row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_waits_for_the_attempt_at_its_row_and_the_log_ends_on_what_the_source_holds() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = patient(&app, &endpoint).await;
    tenant.confirm(create("a")).await;
    // The change from outside is in the feed when ours is applied over it, and ours is answered last.
    let gate = Gate::closed();
    endpoint.script(Kind::Commit, Answer::honest().replied_once_open(&gate));
    endpoint.write_outside("airports", "b", text("theirs"));
    endpoint.hold(Kind::Events);
    endpoint.write_outside("airports", "a", text("theirs"));
    tenant
        .commit(queued(update("u", "a", "ours again")))
        .await
        .unwrap();
    endpoint.wait_for_executions(2).await;
    endpoint.release(Kind::Events);
    // Other rows' events do not wait.
    taken(&tenant, 1).await;
    assert_eq!(
        log(&app).await.iter().filter(|it| it.row_id == "a").count(),
        1
    );
    gate.open();
    tenant.confirm(update("u", "a", "ours again")).await;
    taken(&tenant, 2).await;
    assert!(agrees(&app, &endpoint, "a").await, "{:?}", log(&app).await);
    assert_eq!(log(&app).await.last().unwrap().text(), "ours again");
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_after_a_later_event_does_not_end_the_log() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        retry_delays: vec![Duration::from_secs(5); 3],
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    tenant.confirm(create("a")).await;
    endpoint.script(Kind::Commit, Answer::applied_but(Reply::Reset));
    tenant
        .commit(queued(update("u", "a", "ours")))
        .await
        .unwrap();
    tenant.ended_attempts("u", 1).await;
    endpoint.write_outside("airports", "a", text("theirs, later"));
    taken(&tenant, 1).await;
    // Sent again, the endpoint answers what it answered first.
    tenant.confirm(update("u", "a", "ours")).await;
    eventually("the log to end on what the source holds", async || {
        agrees(&app, &endpoint, "a").await.then_some(())
    })
    .await;
    let texts: Vec<_> = log(&app).await.iter().map(Delta::text).collect();
    assert_eq!(texts, ["ours", "theirs, later", "ours", "theirs, later"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_its_row_has_the_row_loaded() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.write_outside("airports", "a", text("one"));
    taken(&tenant, 1).await;
    endpoint.publish(json!({"id": "thin", "model": "airports", "entityId": "a", "type": "UPDATE"}));
    endpoint.publish(json!({"id": "gone", "model": "airports", "entityId": "b", "type": "UPDATE"}));
    taken(&tenant, 3).await;
    let told: Vec<_> = log(&app)
        .await
        .iter()
        .map(|it| (it.kind.clone(), it.text()))
        .collect();
    let wanted = [
        ("CREATE", json!("one")),
        ("UPDATE", json!("one")),
        ("DELETE", Value::Null),
    ];
    assert_eq!(told, wanted.map(|(kind, text)| (kind.to_owned(), text)));
}
