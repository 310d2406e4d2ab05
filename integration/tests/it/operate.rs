//! An operator's verbs: what was given up is taken up again, or settled by hand, and it is on record
//! who did it.

use std::time::Duration;

use axum::http::StatusCode;
use integration::app::{Flags, Source, Tenant, TestApp, eventually, intent, reason};
use integration::endpoint::{Answer, Arrival, Endpoint, Gate, Kind, Reply};
use nix::sys::signal::Signal;
use proto::v1;
use proto::v1::resolve_commit_request::Resolution;
use proto::v1::{AttemptTrigger, CommitState, DataSourceState, PendingFilter};
use serde_json::{Value, json};
use tonic::Status;

mod command_line;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");
const SOURCE: &str = "dataSources/crm";
const ACTOR: &str = "ann";

fn create(id: &str) -> v1::CommitRequest {
    let create = intent::create("airports", id, &json!({"text": "first"}));
    intent::commit(&format!("create-{id}"), vec![create])
}

/// Writes its own name to a row.
fn update(name: &str, id: &str) -> v1::CommitRequest {
    let update = intent::update("airports", id, &json!({"text": name}));
    intent::queued(name, vec![update])
}

/// Asks to come back, says that nothing was applied, and spends an attempt.
fn busy() -> Answer {
    Answer::json(
        StatusCode::CONFLICT,
        &json!({"error": "still_running", "retryable": true}),
    )
}

/// Asks the coordinator to leave the whole source alone for an hour.
fn busy_for_an_hour() -> Answer {
    Answer::status(StatusCode::SERVICE_UNAVAILABLE).with_header("retry-after", "3600")
}

/// A desk at one node: an operator's calls about the tests' source.
struct Desk(Tenant);

impl Desk {
    async fn retry(&self, names: &[&str]) -> Result<Vec<String>, Status> {
        let request = v1::RetryCommitsRequest {
            name: SOURCE.to_owned(),
            client_tx_ids: names.iter().map(ToString::to_string).collect(),
            actor: ACTOR.to_owned(),
        };
        let answer = self.0.sources().retry_commits(request).await?;
        Ok(answer.into_inner().reentered)
    }

    async fn recover(&self, since: Option<prost_types::Timestamp>) -> i64 {
        let request = v1::RecoverCommitsRequest {
            name: SOURCE.to_owned(),
            since,
            actor: ACTOR.to_owned(),
        };
        let answer = self.0.sources().recover_commits(request).await;
        answer.unwrap().into_inner().recovered_count
    }

    async fn resolve(&self, name: &str, resolution: Resolution) -> Result<v1::Receipt, Status> {
        let request = v1::ResolveCommitRequest {
            name: SOURCE.to_owned(),
            client_tx_id: name.to_owned(),
            resolution: Some(resolution),
            force: false,
            actor: ACTOR.to_owned(),
        };
        let receipt = self.0.sources().resolve_commit(request).await?;
        Ok(receipt.into_inner())
    }

    async fn discard(&self, names: &[&str], force: bool) -> Result<(), Status> {
        let request = v1::DiscardCommitsRequest {
            name: SOURCE.to_owned(),
            client_tx_ids: names.iter().map(ToString::to_string).collect(),
            reason: "nobody needs it".to_owned(),
            force,
            actor: ACTOR.to_owned(),
        };
        self.0.sources().discard_commits(request).await.map(drop)
    }

    async fn pause(&self) -> v1::DataSource {
        let request = v1::PauseDataSourceRequest {
            name: SOURCE.to_owned(),
            reason: "upgrade".to_owned(),
            actor: ACTOR.to_owned(),
        };
        self.0.sources().pause(request).await.unwrap().into_inner()
    }

    async fn resume(&self) -> v1::DataSource {
        let request = v1::ResumeDataSourceRequest {
            name: SOURCE.to_owned(),
            actor: ACTOR.to_owned(),
        };
        self.0.sources().resume(request).await.unwrap().into_inner()
    }

    async fn pending(&self, filter: PendingFilter) -> Vec<String> {
        let request = v1::ListPendingRequest {
            name: SOURCE.to_owned(),
            filter: filter.into(),
            ..v1::ListPendingRequest::default()
        };
        let page = self.0.sources().list_pending(request).await.unwrap();
        let commits = page.into_inner().commits.into_iter();
        commits.map(|it| it.client_tx_id).collect()
    }

    async fn pending_commit(&self, name: &str) -> Option<v1::PendingCommit> {
        let request = v1::ListPendingRequest {
            name: SOURCE.to_owned(),
            client_tx_id: name.to_owned(),
            ..v1::ListPendingRequest::default()
        };
        let page = self.0.sources().list_pending(request).await.unwrap();
        page.into_inner().commits.pop()
    }

    async fn actions(&self, page_size: i32) -> Vec<v1::Action> {
        let mut request = v1::ListActionsRequest {
            name: SOURCE.to_owned(),
            page_size,
            page_token: String::new(),
        };
        let mut actions = Vec::new();
        loop {
            let page = self.0.sources().list_actions(request.clone()).await;
            let page = page.unwrap().into_inner();
            actions.extend(page.actions);
            if page.next_page_token.is_empty() {
                return actions;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Accepts a commit that the endpoint will not take until it is dead.
    async fn dead(&self, endpoint: &Endpoint, request: v1::CommitRequest) -> v1::PendingCommit {
        let name = request.client_tx_id.clone();
        endpoint.script(Kind::Commit, busy());
        endpoint.script(Kind::Commit, busy());
        assert!(self.0.settle(request).await.dead);
        self.pending_commit(&name).await.unwrap()
    }

    async fn settled(&self, name: &str) -> v1::Receipt {
        eventually(&format!("{name} to be settled"), async || {
            let receipt = self.0.receipt(name).await.unwrap();
            (receipt.state() != CommitState::Queued).then_some(receipt)
        })
        .await
    }
}

/// An organization whose source gives a commit two attempts.
async fn desk(app: &TestApp) -> (Desk, Endpoint) {
    desk_with(app, vec![Duration::from_millis(1)]).await
}

/// A source whose requests do not time out because the machine is busy.
fn source(endpoint: &Endpoint, retry_delays: Vec<Duration>) -> Source {
    Source {
        retry_delays,
        request_timeout: Duration::from_secs(20),
        ..Source::at(endpoint)
    }
}

async fn desk_with(app: &TestApp, retry_delays: Vec<Duration>) -> (Desk, Endpoint) {
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&source(&endpoint, retry_delays)).await;
    tenant.confirm(create("1")).await;
    (Desk(tenant), endpoint)
}

fn applied(row: &Value) -> Resolution {
    Resolution::Applied(v1::ResolvedApplied {
        rows_json: vec![row.to_string().into_bytes().into()],
    })
}

fn rejected() -> Resolution {
    Resolution::Rejected(v1::ResolvedRejected {
        code: "sold_out".to_owned(),
        message: "there is none left".to_owned(),
    })
}

fn names(endpoint: &Endpoint) -> Vec<String> {
    let executions = endpoint.executions().into_iter();
    executions.map(|it| it.client_tx_id).collect()
}

#[tokio::test]
async fn a_dead_commit_that_is_retried_reenters_at_the_end_and_is_applied_once() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    let dead = desk.dead(&endpoint, update("a", "1")).await;
    assert!(dead.dead && dead.failing_since.is_some() && dead.next_attempt_time.is_none());
    let later = desk.0.confirm(update("b", "1")).await;
    assert_eq!(desk.retry(&["a"]).await.unwrap(), ["a"]);
    let receipt = desk.settled("a").await;
    assert_eq!(receipt.state(), CommitState::Confirmed);
    assert!(receipt.reenter_time.is_some() && !receipt.dead);
    assert_eq!(receipt.attempt_count, 3);
    assert!(receipt.changes[0].sync_id > later.changes[0].sync_id);
    assert_eq!(later.reenter_time, None);
    assert_eq!(names(&endpoint), ["create-1", "b", "a"]);
    assert_eq!(desk.0.row("airports", "1").await.unwrap()["text"], "a");
    // The same request each time, made for real.
    let arrivals = endpoint.arrivals_of(Kind::Commit);
    let of_it: Vec<&Arrival> = arrivals
        .iter()
        .filter(|it| it.client_tx_id() == "a")
        .collect();
    assert_eq!(of_it.len(), 3);
    assert!(of_it.iter().all(|it| it.webhook_id() == receipt.commit_id));
    assert!(of_it.iter().all(|it| it.bytes == of_it[0].bytes));
    let attempts = desk.0.attempts("a").await;
    let triggers: Vec<_> = attempts.iter().map(v1::Attempt::trigger).collect();
    assert_eq!(triggers[2], AttemptTrigger::Manual);
    assert_eq!(attempts[2].number, 3);
    let status = desk.0.status().await;
    assert_eq!((status.pending_count, status.dead_count), (0, 0));
    let again = desk.retry(&["a"]).await.unwrap_err();
    assert_eq!(reason(&again), "pending_not_found");
}

/// A commit that was applied and is dead all the same, since nobody was told; and a later one of its
/// row.
async fn overtaken(desk: &Desk, endpoint: &Endpoint) {
    let body = json!({"error": "still_running", "retryable": true}).to_string();
    for _ in 0..2 {
        let reply = Reply::Fixed(StatusCode::CONFLICT, Vec::new(), body.clone().into_bytes());
        endpoint.script(Kind::Commit, Answer::applied_but(reply));
    }
    assert!(desk.0.settle(update("a", "1")).await.dead);
    desk.0.confirm(update("b", "1")).await;
}

#[tokio::test]
async fn the_log_ends_on_what_the_source_holds_after_a_commit_that_was_overtaken_is_retried() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    overtaken(&desk, &endpoint).await;
    desk.retry(&["a"]).await.unwrap();
    // The endpoint answers what it answered first: what the row was then.
    let receipt = desk.settled("a").await;
    assert!(String::from_utf8_lossy(&receipt.changes[0].row_json).contains("\"a\""));
    let last = "SELECT row FROM deltas WHERE row_id = '1' ORDER BY sync_id DESC LIMIT 1";
    eventually("the log to end on what the source holds", async || {
        let row: String = sqlx::query_scalar(last)
            .fetch_one(&app.pool())
            .await
            .unwrap();
        (serde_json::from_str::<Value>(&row).unwrap()["text"] == "b").then_some(())
    })
    .await;
    assert_eq!(names(&endpoint), ["create-1", "a", "b"]);
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 1);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_again_holds_nothing_up() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    overtaken(&desk, &endpoint).await;
    let none = Answer::error(StatusCode::NOT_FOUND, "source_load_not_configured");
    endpoint.always(Kind::Load, none);
    desk.retry(&["a"]).await.unwrap();
    desk.settled("a").await;
    endpoint.wait_for_arrivals(Kind::Load, 1).await;
    desk.0.confirm(update("c", "1")).await;
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 1);
    assert_eq!(names(&endpoint), ["create-1", "a", "b", "c"]);
}

#[tokio::test]
async fn a_view_of_a_row_that_a_revived_commit_will_change_is_refused_at_the_call() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    desk.dead(&endpoint, update("a", "1")).await;
    let read_at = desk.0.confirm(update("b", "1")).await.changes[0].sync_id;
    endpoint.hold(Kind::Commit);
    assert_eq!(desk.retry(&["a"]).await.unwrap(), ["a"]);
    let mut guarded = update("c", "1");
    guarded.operations[0].read_at = Some(read_at);
    let refused = desk.0.commit(guarded).await.unwrap_err();
    assert_eq!(reason(&refused), "stale_context");
    endpoint.release(Kind::Commit);
    assert_eq!(desk.settled("a").await.state(), CommitState::Confirmed);
}

#[tokio::test]
async fn a_dead_commit_that_may_still_be_applied_keeps_its_place_when_it_is_retried() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    for _ in 0..2 {
        // As far as anybody knows, a gateway said so while the app went on.
        endpoint.script(Kind::Commit, Answer::status(StatusCode::BAD_GATEWAY));
    }
    assert!(desk.0.settle(update("a", "1")).await.dead);
    desk.0.commit(update("b", "1")).await.unwrap();
    let blocked = desk.pending_commit("b").await.unwrap();
    assert_eq!((blocked.blocked_by.as_str(), blocked.dead), ("a", false));
    assert_eq!(desk.retry(&["a"]).await.unwrap(), Vec::<String>::new());
    let receipts = (desk.settled("a").await, desk.settled("b").await);
    assert_eq!(receipts.0.reenter_time, None);
    assert!(receipts.0.changes[0].sync_id < receipts.1.changes[0].sync_id);
    assert_eq!(names(&endpoint), ["create-1", "a", "b"]);
}

#[tokio::test]
async fn what_failed_since_a_time_is_recovered_in_order_and_once() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    let mut failed = Vec::new();
    for name in ["early", "a", "b", "c"] {
        failed.push(desk.dead(&endpoint, update(name, "1")).await);
    }
    let dead = desk.pending(PendingFilter::Dead).await;
    assert_eq!(dead, ["early", "a", "b", "c"]);
    let since = failed[1].last_error.as_ref().unwrap().time;
    assert_eq!(desk.recover(since).await, 3);
    for name in ["a", "b", "c"] {
        assert!(desk.settled(name).await.reenter_time.is_some());
    }
    assert_eq!(desk.recover(since).await, 0);
    assert_eq!(desk.pending(PendingFilter::Unspecified).await, ["early"]);
    assert_eq!(desk.recover(None).await, 1);
    desk.settled("early").await;
    assert_eq!(names(&endpoint), ["create-1", "a", "b", "c", "early"]);
}

#[tokio::test]
async fn what_is_recovered_in_bulk_waits_for_the_source_and_what_is_retried_by_name_does_not() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    for row in ["2", "3", "4"] {
        desk.dead(&endpoint, create(row)).await;
    }
    endpoint.script(Kind::Commit, busy_for_an_hour());
    desk.0.commit(update("a", "1")).await.unwrap();
    desk.0.ended_attempts("a", 1).await;
    let gate = Gate::closed();
    endpoint.always(Kind::Commit, Answer::honest().replied_once_open(&gate));
    let before = endpoint.arrivals_of(Kind::Commit).len();
    assert_eq!(desk.recover(None).await, 4);
    desk.retry(&["create-4"]).await.unwrap();
    endpoint.wait_for_arrivals(Kind::Commit, before + 1).await;
    let arrived = endpoint.arrivals_of(Kind::Commit).split_off(before);
    let arrived: Vec<_> = arrived.iter().map(Arrival::client_tx_id).collect();
    assert_eq!(arrived, ["create-4"]);
    // Its answer ends the back-off.
    gate.open();
    for (name, number, trigger) in [
        ("a", 1, AttemptTrigger::Recovery),
        ("create-2", 2, AttemptTrigger::Recovery),
        ("create-3", 2, AttemptTrigger::Recovery),
        ("create-4", 2, AttemptTrigger::Manual),
    ] {
        assert_eq!(desk.settled(name).await.state(), CommitState::Confirmed);
        assert_eq!(desk.0.attempts(name).await[number].trigger(), trigger);
    }
}

#[tokio::test]
async fn a_commit_that_is_resolved_as_applied_is_confirmed_with_the_rows_given() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    desk.dead(&endpoint, update("a", "1")).await;
    desk.0.disable("the endpoint moves").await;
    for row in [
        json!({"id": "2", "text": "a"}),
        json!({"id": "1", "text": 7}),
    ] {
        let refused = desk.resolve("a", applied(&row)).await.unwrap_err();
        assert_eq!(reason(&refused), "rows_mismatched");
    }
    let row = json!({"id": "1", "text": "by hand"});
    let receipt = desk.resolve("a", applied(&row)).await.unwrap();
    assert_eq!(receipt.state(), CommitState::Confirmed);
    let change = &receipt.changes[0];
    let told: Value = serde_json::from_slice(&change.row_json).unwrap();
    assert_eq!((told, change.operation_index), (row, Some(0)));
    assert_eq!(desk.0.receipt("a").await.unwrap(), receipt);
    assert_eq!(desk.0.commit(update("a", "1")).await.unwrap(), receipt);
    let who: String =
        sqlx::query_scalar("SELECT participant_id FROM deltas WHERE client_tx_id = 'a'")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    assert_eq!(who, intent::participant().id);
    let status = desk.0.status().await;
    assert_eq!((status.pending_count, status.dead_count), (0, 0));
    assert_eq!(names(&endpoint), ["create-1"]);
}

#[tokio::test]
async fn who_waits_for_a_commit_is_told_when_it_is_rejected_by_hand() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk_with(&app, vec![Duration::from_hours(1)]).await;
    endpoint.script(Kind::Commit, busy());
    let waiter = desk.0.clone();
    let mut request = update("a", "1");
    request.set_wait(v1::Wait::Confirmed);
    desk.0.commit(update("a", "1")).await.unwrap();
    desk.0.ended_attempts("a", 1).await;
    let by_hand = async {
        assert_eq!(desk.pending(PendingFilter::Failing).await, ["a"]);
        assert!(desk.pending(PendingFilter::Waiting).await.is_empty());
        desk.resolve("a", rejected()).await.unwrap();
    };
    let (receipt, ()) = tokio::join!(waiter.commit(request), by_hand);
    let receipt = receipt.unwrap();
    assert_eq!(receipt.state(), CommitState::Rejected);
    let error = receipt.error.unwrap();
    let told = (error.code.as_str(), error.message.as_str());
    assert_eq!(told, ("sold_out", "there is none left"));
}

#[tokio::test]
async fn a_discarded_commit_lets_the_next_one_of_its_row_go() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk_with(&app, vec![Duration::from_hours(1)]).await;
    endpoint.script(Kind::Commit, busy());
    desk.0.commit(update("poison", "1")).await.unwrap();
    desk.0.ended_attempts("poison", 1).await;
    desk.0.commit(update("behind", "1")).await.unwrap();
    // Its own row waits, others do not.
    desk.0.confirm(create("2")).await;
    let behind = desk.pending_commit("behind").await.unwrap();
    assert_eq!(behind.blocked_by, "poison");
    assert_eq!(behind.attempt_count, 0);
    // Order holds, also when the one behind is asked for; then it leaves at once.
    desk.retry(&["behind"]).await.unwrap();
    desk.0.confirm(create("3")).await;
    assert!(desk.0.attempts("behind").await.is_empty());
    desk.discard(&["poison"], false).await.unwrap();
    assert_eq!(desk.settled("behind").await.state(), CommitState::Confirmed);
    let attempts = desk.0.attempts("behind").await;
    assert_eq!(attempts[0].trigger(), AttemptTrigger::Manual);
    let receipt = desk.settled("poison").await;
    assert_eq!(receipt.state(), CommitState::Rejected);
    let error = receipt.error.unwrap();
    let told = (error.code.as_str(), error.message.as_str());
    assert_eq!(told, ("discarded", "nobody needs it"));
}

#[tokio::test]
async fn nobody_gives_a_commit_up_while_it_may_be_applied() {
    let app = TestApp::start().await;
    let patient = vec![Duration::from_hours(1)];
    let (desk, endpoint) = desk_with(&app, patient.clone()).await;
    let source = source(&endpoint, patient);
    desk.0
        .update_source(&Source {
            request_timeout: Duration::from_secs(4),
            ..source.clone()
        })
        .await;
    endpoint.hold(Kind::Commit);
    desk.0.commit(update("a", "1")).await.unwrap();
    let mut other = create("2");
    other.set_wait(v1::Wait::Queued);
    desk.0.commit(other).await.unwrap();
    endpoint.wait_for_arrivals(Kind::Commit, 2).await;
    let refused = desk.discard(&["a"], true).await.unwrap_err();
    assert_eq!(reason(&refused), "attempt_in_flight");
    let refused = desk.resolve("a", rejected()).await.unwrap_err();
    assert_eq!(reason(&refused), "attempt_in_flight");
    // Nobody answers in time: it may have been applied, or may yet be.
    desk.0.ended_attempts("a", 1).await;
    let refused = desk.discard(&["a"], false).await.unwrap_err();
    assert_eq!(reason(&refused), "may_still_apply");
    desk.discard(&["a"], true).await.unwrap();
    endpoint.release(Kind::Commit);
    desk.0.update_source(&source).await;
    // Its late copy may come back in the feed first, and settle it.
    if let Err(refused) = desk.retry(&["create-2"]).await {
        assert_eq!(reason(&refused), "pending_not_found");
    }
    desk.settled("create-2").await;
    assert_eq!(desk.settled("a").await.state(), CommitState::Rejected);
}

#[tokio::test]
async fn a_paused_source_keeps_what_it_takes_and_drains_it_in_order_when_resumed() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    let paused = desk.pause().await;
    assert_eq!(paused.state(), DataSourceState::Paused);
    assert_eq!(paused.state_reason, "upgrade");
    let commits = ["a", "b", "c", "d"];
    for name in commits {
        desk.0.commit(update(name, "1")).await.unwrap();
    }
    desk.0.enable().await;
    let refused = desk.retry(&["a"]).await.unwrap_err();
    assert_eq!(reason(&refused), "source_paused");
    assert_eq!(desk.0.status().await.pending_count, 4);
    assert_eq!(desk.pending(PendingFilter::Waiting).await, commits);
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1);
    let resumed = desk.resume().await;
    assert_eq!(resumed.state(), DataSourceState::Enabled);
    desk.settled("d").await;
    assert_eq!(names(&endpoint), ["create-1", "a", "b", "c", "d"]);
    desk.0.disable("").await;
    let request = v1::PauseDataSourceRequest {
        name: SOURCE.to_owned(),
        ..v1::PauseDataSourceRequest::default()
    };
    let refused = desk.0.sources().pause(request).await.unwrap_err();
    assert_eq!(reason(&refused), "source_disabled");
}

#[tokio::test]
async fn a_manual_retry_leaves_at_once_while_the_source_backs_off() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk_with(&app, vec![Duration::from_hours(2); 3]).await;
    endpoint.script(Kind::Commit, busy_for_an_hour());
    desk.0.commit(update("a", "1")).await.unwrap();
    desk.0.ended_attempts("a", 1).await;
    assert!(desk.0.status().await.next_probe_time.is_some());
    // It fails again, and spends nothing: the schedule stands.
    endpoint.script(Kind::Commit, busy_for_an_hour());
    desk.retry(&["a"]).await.unwrap();
    desk.0.ended_attempts("a", 2).await;
    desk.retry(&["a"]).await.unwrap();
    let receipt = desk.settled("a").await;
    assert_eq!(receipt.state(), CommitState::Confirmed);
    let attempts = desk.0.attempts("a").await;
    let triggers: Vec<_> = attempts.iter().map(v1::Attempt::trigger).collect();
    let manual = AttemptTrigger::Manual;
    assert_eq!(triggers, [AttemptTrigger::Accept, manual, manual]);
}

#[tokio::test]
async fn every_action_is_on_record_with_who_and_when() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    desk.dead(&endpoint, update("a", "1")).await;
    desk.dead(&endpoint, update("b", "1")).await;
    desk.pause().await;
    desk.resume().await;
    desk.retry(&["a"]).await.unwrap();
    desk.settled("a").await;
    desk.discard(&["b"], false).await.unwrap();
    let actions = desk.actions(2).await;
    let told: Vec<_> = actions
        .iter()
        .map(|it| {
            (
                it.verb.as_str(),
                it.client_tx_id.as_str(),
                it.actor.as_str(),
            )
        })
        .collect();
    let wanted = [
        ("discard", "b", ACTOR),
        ("retry", "a", ACTOR),
        ("resume", "", ACTOR),
        ("pause", "", ACTOR),
        ("create", "", ""),
    ];
    assert_eq!(told, wanted);
    let key: uuid::Uuid = sqlx::query_scalar("SELECT key_id FROM api_keys")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    assert!(actions.iter().all(|it| it.api_key_id == key.to_string()));
    let times: Vec<_> = actions
        .iter()
        .map(|it| it.time.map(|time| (time.seconds, time.nanos)).unwrap())
        .collect();
    assert!(
        times.is_sorted_by(|newer, older| newer >= older),
        "{times:?}"
    );
    let details: Vec<_> = actions.iter().map(|it| it.detail.as_str()).collect();
    assert_eq!(details[3], "upgrade");
    assert!(details[1].starts_with("it was dead, and took the place"));

    let stranger = Desk(app.organization("other").await);
    let unknown = |status: Status| assert_eq!(reason(&status), "source_not_found");
    unknown(stranger.retry(&["a"]).await.unwrap_err());
    unknown(stranger.discard(&["b"], true).await.unwrap_err());
    unknown(stranger.resolve("a", rejected()).await.unwrap_err());
    let request = v1::ListActionsRequest {
        name: SOURCE.to_owned(),
        ..v1::ListActionsRequest::default()
    };
    let refused = stranger.0.sources().list_actions(request).await;
    unknown(refused.unwrap_err());
}

#[tokio::test]
async fn what_an_operator_asks_for_is_checked_before_anything_is_done() {
    let app = TestApp::start().await;
    let (desk, endpoint) = desk(&app).await;
    desk.dead(&endpoint, update("a", "1")).await;
    let many = vec!["a"; 101];
    let long = "x".repeat(256);
    for names in [&[][..], &many, &["a", ""], &[&long], &["a\n"]] {
        let refused = desk.retry(names).await.unwrap_err();
        assert!(reason(&refused).starts_with("field_"), "{names:?}");
        let refused = desk.discard(names, false).await.unwrap_err();
        assert!(reason(&refused).starts_with("field_"), "{names:?}");
    }
    // All or none: one unknown name keeps the others where they are.
    let refused = desk.discard(&["a", "nobody"], true).await.unwrap_err();
    assert_eq!(reason(&refused), "pending_not_found");
    let resolve = |resolution, actor: &str| v1::ResolveCommitRequest {
        name: SOURCE.to_owned(),
        client_tx_id: "a".to_owned(),
        resolution,
        force: false,
        actor: actor.to_owned(),
    };
    let code = Resolution::Rejected(v1::ResolvedRejected {
        code: "Sold out".to_owned(),
        message: String::new(),
    });
    for request in [
        resolve(None, ""),
        resolve(Some(code), ""),
        resolve(Some(rejected()), &long),
        resolve(Some(rejected()), "a\u{7}"),
    ] {
        let refused = desk.0.sources().resolve_commit(request.clone()).await;
        let reason = reason(&refused.unwrap_err());
        assert!(reason.starts_with("field_"), "{request:?}: {reason}");
    }
    let filter = v1::ListPendingRequest {
        name: SOURCE.to_owned(),
        filter: 99,
        ..v1::ListPendingRequest::default()
    };
    let refused = desk.0.sources().list_pending(filter).await.unwrap_err();
    assert_eq!(reason(&refused), "field_invalid");
    assert_eq!(desk.pending(PendingFilter::Dead).await, ["a"]);
    assert_eq!(desk.actions(100).await.len(), 1, "but the source's own");
    // Named twice, it is retried once.
    assert_eq!(desk.retry(&["a", "a"]).await.unwrap(), ["a"]);
    desk.settled("a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_outlives_the_owner_that_never_made_the_attempt() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut owner = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(owner.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let pauses = vec![Duration::from_hours(2); 3];
    tenant.prepare(&source(&endpoint, pauses)).await;
    tenant.confirm(create("1")).await;
    endpoint.script(Kind::Commit, busy_for_an_hour());
    for name in ["a", "b"] {
        tenant.commit(update(name, "1")).await.unwrap();
    }
    tenant.ended_attempts("a", 1).await;
    let other = app.spawn_node(EXECUTABLE).await;
    let desk = Desk(tenant.at(other.address()));
    // The owner hears of a verb at another node, too.
    desk.retry(&["a"]).await.unwrap();
    desk.settled("a").await;
    desk.settled("b").await;
    endpoint.script(Kind::Commit, busy_for_an_hour());
    desk.0.commit(update("c", "1")).await.unwrap();
    desk.0.ended_attempts("c", 1).await;
    owner.signal(Signal::SIGSTOP);
    desk.retry(&["c"]).await.unwrap();
    owner.kill();
    assert_eq!(desk.settled("c").await.state(), CommitState::Confirmed);
    let attempts = desk.0.attempts("c").await;
    assert_eq!(attempts[1].trigger(), AttemptTrigger::Manual);
    assert_eq!(names(&endpoint), ["create-1", "a", "b", "c"]);
}
