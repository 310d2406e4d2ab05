//! `CommitStream`: the same commits as by calls of their own, many at once on one stream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use integration::app::{Tenant, TestApp, intent, reason};
use integration::endpoint::{Endpoint, Kind};
use prost_types::Duration as Span;
use proto::v1::commit_stream_response::Answer;
use proto::v1::{
    CallError, CommitRequest, CommitState, CommitStreamRequest, CommitStreamResponse, Receipt,
    RevokeApiKeyRequest, Wait,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

/// The answers that a stream may owe.
const IN_FLIGHT: usize = 256;

/// What is to happen comes long before this.
const SOON: Duration = Duration::from_secs(30);

/// Both directions of a stream.
struct Stream {
    send: mpsc::Sender<CommitStreamRequest>,
    answers: Streaming<CommitStreamResponse>,
}

impl Stream {
    async fn open(tenant: &Tenant) -> Self {
        let (send, messages) = mpsc::channel(1_024);
        let answers = tenant
            .coordinator()
            .commit_stream(ReceiverStream::new(messages))
            .await;
        let answers = answers.unwrap().into_inner();
        Self { send, answers }
    }

    async fn send(&self, commit: CommitRequest) {
        self.send_within(commit, None).await;
    }

    async fn send_within(&self, commit: CommitRequest, within: Option<Duration>) {
        let message = CommitStreamRequest {
            commit: Some(commit),
            timeout: within.map(|within| Span::try_from(within).unwrap()),
        };
        self.send.send(message).await.unwrap();
    }

    async fn answer(&mut self) -> Result<Option<CommitStreamResponse>, Status> {
        let answer = timeout(SOON, self.answers.message()).await;
        answer.expect("an answer comes")
    }

    /// The next answer, which is a receipt.
    async fn receipt(&mut self) -> Receipt {
        let answer = self.answer().await.unwrap().unwrap();
        match answer.answer.unwrap() {
            Answer::Receipt(receipt) => {
                assert_eq!(receipt.client_tx_id, answer.client_tx_id);
                receipt
            }
            Answer::Error(error) => panic!("{} was refused: {error:?}", answer.client_tx_id),
        }
    }

    /// The next answer, which is an error.
    async fn error(&mut self) -> (String, CallError) {
        let answer = self.answer().await.unwrap().unwrap();
        let Some(Answer::Error(error)) = answer.answer else {
            panic!("not refused: {answer:?}");
        };
        (answer.client_tx_id, error)
    }

    async fn end(mut self) -> Result<(), Status> {
        drop(self.send);
        match timeout(SOON, self.answers.message())
            .await
            .expect("it ends")
        {
            Ok(Some(answer)) => panic!("one more answer: {answer:?}"),
            Ok(None) => Ok(()),
            Err(status) => Err(status),
        }
    }
}

/// What a call of its own would have failed with.
fn status(error: &CallError) -> Status {
    Status::with_details(Code::from(error.code), &error.message, error.status.clone())
}

/// What an error says beside its reason.
fn particulars(status: &Status) -> (BTreeMap<String, String>, String) {
    let details = status.get_error_details();
    let metadata = details.error_info().map(|info| info.metadata.clone());
    let fields = format!("{:?} {:?}", details.bad_request(), details.retry_info());
    (metadata.unwrap_or_default().into_iter().collect(), fields)
}

fn create(model: &str, name: &str) -> CommitRequest {
    let operations = vec![intent::create(model, name, &json!({"text": "one"}))];
    intent::commit(name, operations)
}

async fn app_with_source() -> (TestApp, Endpoint, Tenant) {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    (app, endpoint, tenant)
}

#[tokio::test]
async fn answers_come_in_the_order_of_completion() {
    let (_app, endpoint, tenant) = app_with_source().await;
    endpoint.hold(Kind::Commit);
    let mut stream = Stream::open(&tenant).await;
    stream.send(create("airports", "slow")).await;
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    for name in ["a", "b", "c"] {
        stream.send(create("notes", name)).await;
        assert_eq!(stream.receipt().await.client_tx_id, name);
    }
    endpoint.release(Kind::Commit);
    let slow = stream.receipt().await;
    assert_eq!(
        (slow.client_tx_id.as_str(), slow.state()),
        ("slow", CommitState::Confirmed)
    );
    assert_eq!(slow, tenant.receipt("slow").await.unwrap());
    stream.end().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_is_refused_is_answered_as_its_own_call_would_be_and_the_stream_goes_on() {
    let (_app, _endpoint, tenant) = app_with_source().await;
    let mut stream = Stream::open(&tenant).await;
    stream.send(create("notes", "good")).await;
    stream.receipt().await;
    let mut nameless = create("notes", "x");
    nameless.client_tx_id = String::new();
    for bad in [
        create("nowhere", "unknown-model"),
        intent::commit("empty", Vec::new()),
        intent::commit("good", vec![intent::delete("notes", "other")]),
        intent::commit(
            "missing",
            vec![intent::update("notes", "missing", &json!({"text": "x"}))],
        ),
        nameless,
    ] {
        let single = tenant.commit(bad.clone()).await.unwrap_err();
        stream.send(bad.clone()).await;
        let (name, error) = stream.error().await;
        assert_eq!(name, bad.client_tx_id);
        let told = status(&error);
        assert_eq!(
            (told.code(), reason(&told)),
            (single.code(), reason(&single))
        );
        assert_eq!(told.message(), single.message());
        assert_eq!(particulars(&told), particulars(&single));
    }
    let no_commit = CommitStreamRequest::default();
    stream.send.send(no_commit).await.unwrap();
    assert_eq!(reason(&status(&stream.error().await.1)), "commit_required");
    stream.send(create("notes", "still")).await;
    assert_eq!(stream.receipt().await.client_tx_id, "still");
    stream.end().await.unwrap();
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_and_the_rest_waits_for_its_turn() {
    let (app, endpoint, tenant) = app_with_source().await;
    endpoint.hold(Kind::Commit);
    let mut stream = Stream::open(&tenant).await;
    let names: BTreeSet<_> = (0..IN_FLIGHT + 50).map(|it| format!("s{it}")).collect();
    for name in &names {
        stream.send(create("airports", name)).await;
    }
    let accepted = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM commits");
        count.fetch_one(&app.pool()).await.unwrap()
    };
    let bound = i64::try_from(IN_FLIGHT).unwrap();
    integration::app::eventually("the stream to be full", async || {
        (accepted().await == bound).then_some(())
    })
    .await;
    // A call that begins now is decided at once: the stream could go on if it wanted to.
    tenant.confirm(create("notes", "beside")).await;
    assert_eq!(accepted().await, bound + 1);
    endpoint.release(Kind::Commit);
    let mut answered = BTreeSet::new();
    for _ in &names {
        answered.insert(stream.receipt().await.client_tx_id);
    }
    assert_eq!(answered, names);
    stream.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_loses_nothing_that_was_accepted() {
    let (app, endpoint, tenant) = app_with_source().await;
    endpoint.hold(Kind::Commit);
    let elsewhere = tenant.connected_anew();
    let mut stream = Stream::open(&elsewhere).await;
    for number in 0..20 {
        stream.send(create("airports", &format!("s{number}"))).await;
    }
    stream.send(create("notes", "last")).await;
    stream.receipt().await;
    integration::app::eventually("all to be accepted", async || {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM commits")
            .fetch_one(&app.pool())
            .await
            .unwrap();
        (count == 21).then_some(())
    })
    .await;
    drop((stream, elsewhere));
    endpoint.release(Kind::Commit);
    for number in 0..20 {
        tenant
            .confirm(create("airports", &format!("s{number}")))
            .await;
    }
    assert_eq!(endpoint.executions().len(), 20);
}

#[tokio::test]
async fn a_sender_that_is_done_gets_every_answer_and_then_the_end() {
    let (_app, endpoint, tenant) = app_with_source().await;
    endpoint.hold(Kind::Commit);
    let mut stream = Stream::open(&tenant).await;
    stream.send(create("airports", "one")).await;
    let (send, _) = mpsc::channel(1);
    drop(std::mem::replace(&mut stream.send, send));
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    endpoint.release(Kind::Commit);
    assert_eq!(stream.receipt().await.state(), CommitState::Confirmed);
    stream.end().await.unwrap();
}

#[tokio::test]
async fn each_commit_has_a_deadline_of_its_own() {
    let (_app, endpoint, tenant) = app_with_source().await;
    endpoint.hold(Kind::Commit);
    let mut stream = Stream::open(&tenant).await;
    stream.send(create("airports", "patient")).await;
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    let hurried = create("airports", "hurried");
    stream
        .send_within(hurried, Some(Duration::from_secs(5)))
        .await;
    let receipt = stream.receipt().await;
    assert_eq!(
        (receipt.client_tx_id.as_str(), receipt.state()),
        ("hurried", CommitState::Queued)
    );
    let late = create("notes", "late");
    stream.send_within(late, Some(Duration::ZERO)).await;
    let (name, error) = stream.error().await;
    assert_eq!(
        (name.as_str(), reason(&status(&error)).as_str()),
        ("late", "deadline_exceeded")
    );
    let mut queued = create("airports", "queued");
    queued.set_wait(Wait::Queued);
    stream.send(queued).await;
    assert_eq!(stream.receipt().await.client_tx_id, "queued");
    endpoint.release(Kind::Commit);
    assert_eq!(stream.receipt().await.client_tx_id, "patient");
    stream.end().await.unwrap();
    for name in ["hurried", "queued"] {
        tenant.confirm(create("airports", name)).await;
    }
}

#[tokio::test]
async fn a_node_that_stops_answers_what_is_in_flight_and_ends_the_stream() {
    let (mut app, endpoint, tenant) = app_with_source().await;
    endpoint.hold(Kind::Commit);
    let mut stream = Stream::open(&tenant).await;
    stream.send(create("airports", "waits")).await;
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    let answered = async {
        assert_eq!(stream.receipt().await.state(), CommitState::Queued);
        let ended = stream.answer().await.unwrap_err();
        assert_eq!(
            (ended.code(), reason(&ended).as_str()),
            (Code::Unavailable, "draining")
        );
        endpoint.release(Kind::Commit);
    };
    let (ending, ()) = tokio::join!(app.stop(), answered);
    assert_eq!(ending.exit_code(), 0);
    let address = app.add_node().await;
    tenant
        .at(&address)
        .confirm(create("airports", "waits"))
        .await;
}

#[tokio::test]
async fn a_revoked_key_ends_the_stream() {
    let app = TestApp::start().await;
    let tenant = app.organization("acme").await;
    let mut stream = Stream::open(&tenant).await;
    let listed = tenant
        .admin()
        .list_api_keys(proto::v1::ListApiKeysRequest {
            parent: "organizations/acme".to_owned(),
            ..proto::v1::ListApiKeysRequest::default()
        })
        .await
        .unwrap();
    let name = listed.into_inner().api_keys.remove(0).name;
    let revoke = RevokeApiKeyRequest { name };
    tenant.admin().revoke_api_key(revoke).await.unwrap();
    let ended = stream.answer().await.unwrap_err();
    assert_eq!(reason(&ended), "unauthenticated");
}

#[tokio::test]
async fn who_has_no_key_opens_no_stream() {
    let app = TestApp::start().await;
    let tenant = app.organization("acme").await;
    let (_send, messages) = mpsc::channel::<CommitStreamRequest>(1);
    let stranger = tenant.with_another_key("sk_test_unknown");
    let refused = stranger
        .coordinator()
        .commit_stream(ReceiverStream::new(messages))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "unauthenticated");
}
