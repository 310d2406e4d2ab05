//! The Coordinator service: commits and rows.

use std::sync::Arc;

use proto::v1;
use proto::v1::coordinator_server::Coordinator;
use tonic::{Request, Response, Streaming};

use super::Rooms;
use super::auth::caller;
use super::commit_stream::{self, Answers};
use super::deadline::Deadline;
use super::encode;
use super::status::{Answer, status};
use crate::refusal::Refusal;
use crate::telemetry::trace;

/// The longest id of a commit.
const LONGEST_ID: usize = 255;

/// Commits and rows, for whoever has a live API key.
#[derive(Debug)]
pub(super) struct CoordinatorApi {
    pub(super) rooms: Arc<Rooms>,
}

#[tonic::async_trait]
impl Coordinator for CoordinatorApi {
    async fn commit(&self, request: Request<v1::CommitRequest>) -> Answer<v1::Receipt> {
        let caller = caller(&request)?;
        // The edge gives every call one.
        let deadline = request.extensions().get::<Deadline>();
        let deadline = deadline.ok_or_else(|| status(Refusal::internal()))?;
        let receipt_by = deadline.receipt_by;
        let traceparent = traceparent(&request);
        let commit = request.into_inner();
        let receipt = self
            .rooms
            .service
            .commit(&caller, commit, traceparent, receipt_by)
            .await;
        receipt
            .map(encode::receipt)
            .map(Response::new)
            .map_err(status)
    }

    type CommitStreamStream = Answers;

    async fn commit_stream(
        &self,
        request: Request<Streaming<v1::CommitStreamRequest>>,
    ) -> Answer<Answers> {
        let traceparent = traceparent(&request);
        let opened = commit_stream::open(Arc::clone(&self.rooms), request, traceparent);
        opened.map(Response::new)
    }

    async fn get_commit(&self, request: Request<v1::GetCommitRequest>) -> Answer<v1::Receipt> {
        let caller = caller(&request)?;
        let client_tx_id = request.into_inner().client_tx_id;
        check_id(&client_tx_id).map_err(status)?;
        let receipt = self.rooms.service.receipt(&caller, &client_tx_id).await;
        receipt
            .map(encode::receipt)
            .map(Response::new)
            .map_err(status)
    }

    async fn load(&self, request: Request<v1::LoadRequest>) -> Answer<v1::LoadResponse> {
        let caller = caller(&request)?;
        let loaded = self.rooms.reads.load(&caller, request.into_inner()).await;
        loaded.map(Response::new).map_err(status)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        let caller = caller(&request)?;
        let listed = self.rooms.reads.list(&caller, request.into_inner()).await;
        listed.map(Response::new).map_err(status)
    }
}

fn check_id(client_tx_id: &str) -> Result<(), Refusal> {
    let printable = !client_tx_id.chars().any(char::is_control);
    if printable && (1..=LONGEST_ID).contains(&client_tx_id.chars().count()) {
        Ok(())
    } else {
        let rule = "must be 1 to 255 printable characters";
        Err(Refusal::field("client_tx_id_invalid", "client_tx_id", rule))
    }
}

/// The W3C trace context of the call; one that is malformed is as if it was not sent.
fn traceparent<T>(request: &Request<T>) -> Option<String> {
    let text = request.metadata().get("traceparent")?.to_str().ok()?;
    trace::parse(text).map(|context| trace::format(&context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commits_id_is_checked() {
        assert!(check_id(&"é".repeat(255)).is_ok());
        for id in ["", &"a".repeat(256), "a\nb"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
