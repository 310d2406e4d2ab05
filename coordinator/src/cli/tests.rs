//! Commands against a coordinator that answers from a script.

use std::io::Write;
use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use proto::v1;
use proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::lifecycle::Lifecycle;

/// Confirms every commit but those that a test names.
#[derive(Clone, Debug, Default)]
struct Scripted {
    seen: Arc<Mutex<Vec<v1::CommitRequest>>>,
}

#[tonic::async_trait]
impl Coordinator for Scripted {
    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::Receipt>, Status> {
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer sk_test_1"
        );
        let request = request.into_inner();
        let times = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(request.clone());
            seen.iter()
                .filter(|one| one.client_tx_id == request.client_tx_id)
                .count()
        };
        let mut receipt = v1::Receipt {
            client_tx_id: request.client_tx_id.clone(),
            commit_id: "c1".to_owned(),
            accept_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ..v1::Receipt::default()
        };
        receipt.set_state(v1::CommitState::Confirmed);
        match request.client_tx_id.as_str() {
            "stale" => return Err(stale()),
            "busy" if times == 1 => return Err(Status::unavailable("come back")),
            "no" => {
                receipt.set_state(v1::CommitState::Rejected);
                receipt.error = Some(v1::CommitError {
                    code: "too_hot".to_owned(),
                    message: "no row is that hot".to_owned(),
                });
            }
            _ => receipt.changes = request.operations.iter().map(change).collect(),
        }
        Ok(Response::new(receipt))
    }

    type CommitStreamStream = tokio_stream::Empty<Result<v1::CommitStreamResponse, Status>>;

    async fn commit_stream(
        &self,
        _: Request<tonic::Streaming<v1::CommitStreamRequest>>,
    ) -> Result<Response<Self::CommitStreamStream>, Status> {
        Err(Status::unimplemented("no command opens a stream"))
    }

    async fn get_commit(
        &self,
        _: Request<v1::GetCommitRequest>,
    ) -> Result<Response<v1::Receipt>, Status> {
        Err(Status::not_found("there is no such commit"))
    }

    async fn load(
        &self,
        request: Request<v1::LoadRequest>,
    ) -> Result<Response<v1::LoadResponse>, Status> {
        let row = (request.get_ref().id == "n1").then(|| br#"{"id":"n1","n":1.10}"#.as_slice());
        Ok(Response::new(v1::LoadResponse {
            row_json: row.map(Into::into),
            read_at: 7,
            archived: false,
        }))
    }

    /// Five rows in pages of at most two.
    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let first: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let wanted = usize::try_from(request.get_ref().page_size).unwrap().min(2);
        let last = (first + wanted).min(5);
        let rows = (first..last).map(|row| format!(r#"{{"id":"n{row}","text":"hi"}}"#).into());
        Ok(Response::new(v1::ListResponse {
            incomplete: false,
            rows_json: rows.collect(),
            next_page_token: if last < 5 {
                last.to_string()
            } else {
                String::new()
            },
            read_at: 7,
        }))
    }
}

fn change(operation: &v1::Operation) -> v1::RowChange {
    v1::RowChange {
        operation_index: Some(0),
        r#type: operation.r#type,
        model: operation.model.clone(),
        id: operation.id.clone(),
        row_json: operation.input_json.clone(),
        sync_id: 7,
        stale: false,
    }
}

fn stale() -> Status {
    let mut details = ErrorDetails::with_error_info(
        "stale_context",
        "coordinator.ablo",
        [
            ("sync_id", "9"),
            ("operation", "1"),
            ("model", "notes"),
            ("id", "n1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    details.set_retry_info(Some(std::time::Duration::from_secs(2)));
    Status::with_error_details(Code::Aborted, "the row has changed", details)
}

/// What a command wrote.
#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A scripted coordinator that serves until the test ends.
struct Running {
    url: String,
    scripted: Scripted,
    lifecycle: Lifecycle,
}

impl Running {
    async fn start() -> Self {
        let scripted = Scripted::default();
        let lifecycle = Lifecycle::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (service, soft) = (
            CoordinatorServer::new(scripted.clone()),
            lifecycle.soft().clone(),
        );
        lifecycle.spawn("scripted", async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), soft.cancelled())
                .await
                .unwrap();
        });
        Self {
            url,
            scripted,
            lifecycle,
        }
    }

    /// Runs a command line: what it wrote, and how it ended.
    async fn run(&self, line: &[&str]) -> (String, Result<(), Failure>) {
        let server = ["--server", &self.url, "--key", "sk_test_1"];
        let arguments = ["coordinator"].iter().chain(line).chain(&server);
        let Command::Ask(ask) = Cli::try_parse_from(arguments).unwrap().command else {
            panic!("{line:?} asks nothing");
        };
        let written = Written::default();
        let mut output = Output::new(ask.connection().json, Box::new(written.clone()));
        let outcome = Box::pin(ask.run(&mut output)).await;
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        (text, outcome)
    }

    async fn stop(self) {
        self.lifecycle
            .drain(std::time::Duration::from_secs(5))
            .await;
    }
}

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_commit_says_exactly_one_thing() {
    for line in [
        &["commit"][..],
        &["commit", "--create", "notes", "--delete", "notes"],
        &["commit", "--update", "notes"],
        &["commit", "--create", "notes", "--on-stale", "flag"],
        &["commit", "--file", "f", "--input", "{}"],
        &["commit", "--create", "notes", "--as", "ada"],
        &["list", "notes", "--all", "--limit", "3"],
        &["list", "notes", "--where", "name ~ x"],
    ] {
        let error = Cli::try_parse_from(["coordinator"].iter().chain(line)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
}

#[test]
fn an_update_of_a_source_changes_something() {
    let line = ["coordinator", "source", "update", "crm"];
    let error = Cli::try_parse_from(line).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--feed-lag"), "{error}");
    let feed_lag = ["--feed-lag", "2s"];
    assert!(Cli::try_parse_from(line.iter().chain(&feed_lag)).is_ok());
}

#[tokio::test]
async fn a_commit_is_sent_and_its_receipt_shown() {
    let running = Running::start().await;
    let line = [
        "commit",
        "--create",
        "notes",
        "--row",
        "n1",
        "--input",
        r#"{"n":1.10}"#,
    ];
    let (text, outcome) = running
        .run(&[&line[..], &["--id", "t1", "--as", "user:ada"]].concat())
        .await;
    outcome.unwrap();
    let words = words(&text);
    assert_eq!(words[0], ["commit", "t1"]);
    assert_eq!(words[1], ["state", "confirmed"]);
    assert_eq!(words[2], ["accepted", "2023-11-14T22:13:20Z"]);
    assert_eq!(words[4], ["CREATE", "notes", "n1", "7", r#"{"n":1.10}"#]);

    let (text, outcome) = running.run(&[&line[..], &["--json"]].concat()).await;
    outcome.unwrap();
    assert!(text.contains(r#""row":{"n":1.10}"#), "{text}");
    let seen = std::mem::take(&mut *running.scripted.seen.lock().unwrap());
    assert_eq!(seen[0].participant.as_ref().unwrap().id, "ada");
    assert_eq!(seen[0].wait(), v1::Wait::Confirmed);
    assert_eq!(seen[1].client_tx_id.len(), 36, "an id is generated");
    running.stop().await;
}

#[tokio::test]
async fn a_refusal_says_why_where_and_when_to_return() {
    let running = Running::start().await;
    let delete = ["commit", "--delete", "notes", "--row", "n1", "--id"];
    let (_, outcome) = running.run(&[&delete[..], &["stale"]].concat()).await;
    let failure = outcome.unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    assert_eq!(
        failure.text(),
        "error: the row has changed (stale_context)\n  operations[1]: notes/n1\n  the same call may \
         succeed after 2s"
    );
    assert_eq!(failure.json()["error"]["metadata"]["sync_id"], "9");

    let (text, outcome) = running.run(&[&delete[..], &["no"]].concat()).await;
    assert!(text.contains("rejected"), "{text}");
    assert_eq!(
        outcome.unwrap_err().text(),
        "error: no was rejected: no row is that hot (too_hot)"
    );
    assert_eq!(
        running
            .run(&["receipt", "t0"])
            .await
            .1
            .unwrap_err()
            .exit_code(),
        1
    );
    running.stop().await;
}

#[tokio::test]
async fn every_line_of_a_file_is_a_commit_and_is_sent_until_it_is_answered() {
    let running = Running::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("commits.jsonl");
    let operation = r#"{"type":"DELETE","model":"notes","id":"n1"}"#;
    let lines = [
        operation.to_owned(),
        format!(r#"{{"clientTxId":"busy","operations":[{operation}]}}"#),
        String::new(),
        format!(r#"{{"clientTxId":"no","operations":[{operation}]}}"#),
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let each = ["commit", "--each", path.to_str().unwrap(), "--id", "load"];
    let (text, outcome) = running.run(&each).await;
    assert_eq!(text, "2 confirmed, 0 queued, 1 failed\n");
    assert_eq!(outcome.unwrap_err().exit_code(), 1);
    let mut ids: Vec<_> = {
        let seen = running.scripted.seen.lock().unwrap();
        seen.iter().map(|one| one.client_tx_id.clone()).collect()
    };
    ids.sort_unstable();
    assert_eq!(ids, ["busy", "busy", "load-1", "no"]);

    std::fs::write(&path, "{}\n[").unwrap();
    let failure = running.run(&each).await.1.unwrap_err();
    assert_eq!(failure.exit_code(), 65);
    assert!(
        failure
            .text()
            .contains("commits.jsonl:1: operation 0: missing field")
    );
    running.stop().await;
}

#[tokio::test]
async fn rows_are_read_and_their_pages_followed() {
    let running = Running::start().await;
    let (text, outcome) = running.run(&["load", "notes", "n1"]).await;
    outcome.unwrap();
    assert!(text.contains("\"n\": 1.10"), "{text}");
    let failure = running.run(&["load", "notes", "n9"]).await.1.unwrap_err();
    assert!(failure.text().ends_with("(entity_not_found)"));

    let (text, _) = running.run(&["list", "notes", "--limit", "3"]).await;
    assert_eq!(
        words(&text),
        [["ID", "TEXT"], ["n0", "hi"], ["n1", "hi"], ["n2", "hi"]]
    );
    let (text, _) = running.run(&["list", "notes", "--all", "--json"]).await;
    assert_eq!(text.lines().count(), 5);
    running.stop().await;
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let running = Running::start().await;
    let url = running.url.clone();
    running.stop().await;
    let nobody = Running {
        url,
        scripted: Scripted::default(),
        lifecycle: Lifecycle::new(),
    };
    let failure = nobody.run(&["load", "notes", "n1"]).await.1.unwrap_err();
    assert_eq!(failure.exit_code(), 69);
    assert!(
        failure.text().contains("does not answer"),
        "{}",
        failure.text()
    );
}
