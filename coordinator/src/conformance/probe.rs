//! Sends what the coordinator sends, and reads what comes back as the coordinator reads it.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use backends::data_source::classify::{
    ListPage, Outcome, ReadFault, ReadFaultKind, commit_outcome, events_outcome, list_outcome,
    load_outcome,
};
use backends::data_source::client::{EndpointClient, Request};
use backends::data_source::clock::{Clock, SystemClock};
use backends::data_source::egress::EgressPolicy;
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::exchange::Exchange;
use backends::data_source::sign::SigningKey;
use backends::data_source::wire::{
    EventsPage, RequestKind, Row, Scope, commit_body, events_body, list_body, load_body,
};
use backends::operation::{Change, OnStale, Operation, OperationKind};
use backends::query::Query;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::finding::{Finding, describe, wrong};
use super::sample::Sample;
use super::{Target, WriteOutside};
use crate::keys::unknown_key;

/// The longest that one request may take: the longest that a source may be given.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many rows one commit may delete.
const MOST_OPERATIONS: usize = crate::admit::commit::MAX_OPERATIONS;

/// One endpoint under check.
pub(super) struct Probe {
    client: EndpointClient,
    url: EndpointUrl,
    key: SigningKey,
    scope: Scope,
    pub(super) model: String,
    pub(super) sample: Sample,
    pub(super) write_outside: Option<WriteOutside>,
    /// Ids of rows that may have been written.
    made: Mutex<Vec<String>>,
}

/// A commit, which can be sent more than once.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) client_tx_id: String,
    pub(super) operations: Vec<Operation>,
    /// The request's name, the same at every repetition.
    pub(super) webhook_id: String,
    pub(super) body: Vec<u8>,
}

/// A clock that is wrong by so many seconds.
#[derive(Debug)]
struct WrongClock {
    ahead: bool,
    by: Duration,
}

impl Clock for WrongClock {
    fn now(&self) -> SystemTime {
        let now = SystemClock.now();
        if self.ahead {
            now + self.by
        } else {
            now - self.by
        }
    }
}

impl Probe {
    pub(super) fn new(client: EndpointClient, url: EndpointUrl, target: Target) -> Self {
        let key = target.key.expose().to_owned();
        let mode = if key.starts_with("sk_live_") {
            "live"
        } else {
            "test"
        };
        Self {
            client,
            url,
            key: key.into(),
            scope: Scope {
                participant_id: Some("conformance".to_owned()),
                participant_kind: Some("system".to_owned()),
                mode: Some(mode.to_owned()),
                ..Scope::default()
            },
            model: target.model,
            sample: Sample::new(target.rows),
            write_outside: target.write_outside,
            made: Mutex::new(Vec::new()),
        }
    }

    /// Sees that anything answers at all. The error is for a person.
    pub(super) async fn reach(&self) -> Result<(), String> {
        let body = load_body(&self.model, "conformance", &self.scope);
        let exchange = self.read(RequestKind::Load, body).await;
        match (exchange.status, exchange.failure) {
            (None, Some(failure)) => Err(failure.message),
            _ => Ok(()),
        }
    }

    /// An id that no row has, and that a check may give to one.
    pub(super) fn new_id(&self) -> String {
        let id = Uuid::now_v7().to_string();
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.clone());
        id
    }

    /// Takes note that a check has removed its rows itself.
    pub(super) fn removed(&self, ids: &[String]) {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id| !ids.contains(id));
    }

    /// An operation on a row of the model.
    pub(super) fn operation(
        &self,
        kind: OperationKind,
        id: &str,
        input: Map<String, Value>,
    ) -> Operation {
        Operation {
            kind,
            model: self.model.clone(),
            id: id.to_owned(),
            input,
            transaction_id: None,
            read_at: None,
            on_stale: OnStale::default(),
        }
    }

    /// Creates the sample row.
    pub(super) fn create(&self, id: &str) -> Operation {
        self.operation(OperationKind::Create, id, self.sample.row())
    }

    /// Updates a row.
    pub(super) fn update(&self, id: &str, input: Map<String, Value>) -> Operation {
        self.operation(OperationKind::Update, id, input)
    }

    /// Deletes a row.
    pub(super) fn delete(&self, id: &str) -> Operation {
        self.operation(OperationKind::Delete, id, Map::new())
    }

    /// A commit under a fresh id.
    pub(super) fn commit(&self, operations: Vec<Operation>) -> Commit {
        self.commit_named(&format!("conformance-{}", Uuid::now_v7()), operations)
    }

    /// A commit under an id that may have been used.
    pub(super) fn commit_named(&self, client_tx_id: &str, operations: Vec<Operation>) -> Commit {
        // Stands for the fingerprint of the caller's intent: other operations, another hash.
        let intent = commit_body("", "", &operations, &self.scope);
        let hash = hex(&Sha256::digest(intent));
        Commit {
            client_tx_id: client_tx_id.to_owned(),
            body: commit_body(client_tx_id, &hash, &operations, &self.scope),
            operations,
            webhook_id: Uuid::now_v7().simple().to_string(),
        }
    }

    /// Sends a commit; says what the coordinator would make of the answer.
    pub(super) async fn send(&self, commit: &Commit) -> Outcome {
        commit_outcome(
            &self.exchange(commit).await,
            &commit.operations,
            std::slice::from_ref(&self.model),
        )
    }

    /// Sends a commit; gives the answer as it came.
    pub(super) async fn exchange(&self, commit: &Commit) -> Exchange {
        let body = commit.body.clone();
        self.post(RequestKind::Commit, &commit.webhook_id, body)
            .await
    }

    /// Sends a commit that must be applied.
    pub(super) async fn apply(&self, commit: &Commit) -> Result<Vec<Change>, Finding> {
        match self.send(commit).await {
            Outcome::Applied(changes) => Ok(changes),
            other => wrong(format!("the commit was not applied: {}", describe(&other))),
        }
    }

    /// Writes the sample row under a fresh id.
    pub(super) async fn created(&self) -> Result<String, Finding> {
        let id = self.new_id();
        self.apply(&self.commit(vec![self.create(&id)])).await?;
        Ok(id)
    }

    /// Loads a row.
    pub(super) async fn load(&self, id: &str) -> Result<Option<Row>, Finding> {
        let body = load_body(&self.model, id, &self.scope);
        let exchange = self.read(RequestKind::Load, body).await;
        load_outcome(&exchange, id).map_err(|fault| unread("load", &fault))
    }

    /// Whether load finds no row, in whatever words it says so.
    pub(super) async fn missing(&self, id: &str) -> Result<bool, Finding> {
        let body = load_body(&self.model, id, &self.scope);
        let exchange = self.read(RequestKind::Load, body).await;
        match load_outcome(&exchange, id) {
            Ok(row) => Ok(row.is_none()),
            Err(fault) if fault.kind == ReadFaultKind::NotConfigured => Err(unread("load", &fault)),
            Err(_) if exchange.status == Some(404) => Ok(true),
            Err(fault) => Err(unread("load", &fault)),
        }
    }

    /// Loads a row that must be there.
    pub(super) async fn found(&self, id: &str) -> Result<Row, Finding> {
        let missing = || Finding::Wrong("load does not find a row that was written".to_owned());
        self.load(id).await?.ok_or_else(missing)
    }

    /// Lists rows.
    pub(super) async fn list(&self, query: &Query) -> Result<ListPage, Finding> {
        let body = list_body(&self.model, query, &self.scope);
        let exchange = self.read(RequestKind::List, body).await;
        list_outcome(&exchange).map_err(|fault| unread("list", &fault))
    }

    /// Reads the feed.
    pub(super) async fn events(
        &self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<EventsPage, Finding> {
        let body = events_body(cursor, limit, &self.scope);
        let exchange = self.read(RequestKind::Events, body).await;
        events_outcome(&exchange).map_err(|fault| unread("events", &fault))
    }

    /// Sends a signed body that changes nothing.
    pub(super) async fn read(&self, kind: RequestKind, body: Vec<u8>) -> Exchange {
        let id = Uuid::now_v7().simple().to_string();
        self.post(kind, &id, body).await
    }

    /// Sends a commit that is signed with these keys.
    pub(super) async fn signed_with(&self, commit: &Commit, keys: &[SigningKey]) -> Exchange {
        let client = &self.client;
        let (id, body) = (&commit.webhook_id, commit.body.clone());
        client
            .send(self.request(RequestKind::Commit, id, body, keys))
            .await
    }

    /// The key, behind one that the endpoint does not know.
    pub(super) fn rotated_keys(&self) -> [SigningKey; 2] {
        [unknown_key(), self.key.clone()]
    }

    /// Sends a commit that was signed so long ago, or that long ahead.
    pub(super) async fn signed_off_by(
        &self,
        commit: &Commit,
        ahead: bool,
        by: Duration,
    ) -> Result<Exchange, Finding> {
        let policy: EgressPolicy = self.client.policy().clone();
        let client = EndpointClient::builder(policy)
            .clock(Arc::new(WrongClock { ahead, by }))
            .build()
            .map_err(|error| Finding::Untried(error.to_string()))?;
        let (id, body) = (&commit.webhook_id, commit.body.clone());
        let keys = std::slice::from_ref(&self.key);
        let request = self.request(RequestKind::Commit, id, body, keys);
        Ok(client.send(request).await)
    }

    /// Deletes what the checks wrote. Rows that cannot be deleted stay.
    pub(super) async fn remove_rows(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        for ids in made.chunks(MOST_OPERATIONS) {
            let deletes = ids.iter().map(|id| self.delete(id)).collect();
            let outcome = self.send(&self.commit(deletes)).await;
            tracing::debug!(outcome = outcome.as_str(), "rows of the checks removed");
        }
    }

    async fn post(&self, kind: RequestKind, id: &str, body: Vec<u8>) -> Exchange {
        let keys = std::slice::from_ref(&self.key);
        self.client.send(self.request(kind, id, body, keys)).await
    }

    fn request<'a>(
        &'a self,
        kind: RequestKind,
        webhook_id: &'a str,
        body: Vec<u8>,
        keys: &'a [SigningKey],
    ) -> Request<'a> {
        Request {
            url: &self.url,
            webhook_id,
            body: body.into(),
            keys,
            timeout: TIMEOUT,
            traceparent: None,
            kind,
        }
    }
}

/// A kind of read that the endpoint does not offer is no fault.
fn unread(kind: &str, fault: &ReadFault) -> Finding {
    if fault.kind == ReadFaultKind::NotConfigured {
        return Finding::Untried(format!("the endpoint does not do {kind} requests"));
    }
    Finding::Wrong(format!("{kind}: {}", fault.message))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}
