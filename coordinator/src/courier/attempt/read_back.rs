//! Signed loads of a commit's rows: what its endpoint holds when its answers do not say.
//!
//! A load changes nothing, so it may run past the attempt's deadline: the attempt stays recorded as
//! in flight until it is settled, and a successor that closed it meanwhile fences the settle.

use std::time::Duration;

use backends::data_source::classify::{change_from_load, load_outcome};
use backends::data_source::client::{EndpointClient, Request};
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::sign::SigningKey;
use backends::data_source::wire::{self, RequestKind, Scope};
use backends::operation::{Change, Operation, OperationKind};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::canonical;
use crate::admit::Schema;
use crate::decide::ReadBack;

/// Rows of one commit that are read at most.
const ROWS: usize = 16;

/// Of these, at once.
const AT_ONCE: usize = 4;

/// Loads rows at the endpoint that the attempt goes to, on behalf of the commit's writer.
pub(super) struct Reader<'a> {
    pub(super) endpoints: &'a EndpointClient,
    pub(super) url: &'a EndpointUrl,
    pub(super) keys: &'a [SigningKey],
    pub(super) body: &'a [u8],
}

/// A row, none when there is no such row, or why nobody knows: class, message, status or 0.
type Loaded = Result<Option<Map<String, Value>>, (String, String, i32)>;

impl Reader<'_> {
    /// What the rows of a commit whose answer did not fit show, and its changes when every one of
    /// them carries its operation's effect. None for a commit of more rows than are read.
    pub(super) async fn effects(
        &self,
        operations: &[Operation],
        schema: Option<&Schema>,
        within: Duration,
    ) -> Option<(ReadBack, Option<Vec<Change>>)> {
        if operations.len() > ROWS {
            return None;
        }
        let all: Vec<&Operation> = operations.iter().collect();
        let loaded = self.load(&all, within).await;
        let changes = operations.iter().zip(&loaded).enumerate();
        let changes: Vec<Change> = changes
            .filter_map(|(index, (operation, loaded))| {
                let row = loaded.as_ref().ok()?;
                change_from_load(index, operation, row.as_ref())
            })
            .filter(|change| canonical::misfit(std::slice::from_ref(change), schema).is_none())
            .collect();
        let text = format!("{} of {} rows carry the effect", changes.len(), all.len());
        let complete = changes.len() == all.len();
        Some((noted(text, &loaded), complete.then_some(changes)))
    }

    /// How many of the rows that a commit creates are there already, for whoever has to decide
    /// about it. None when it creates no row.
    pub(super) async fn existing(
        &self,
        operations: &[Operation],
        within: Duration,
    ) -> Option<ReadBack> {
        let creates = operations
            .iter()
            .filter(|one| one.kind == OperationKind::Create);
        let creates: Vec<&Operation> = creates.take(ROWS).collect();
        if creates.is_empty() {
            return None;
        }
        let loaded = self.load(&creates, within).await;
        let there = loaded.iter().filter(|it| matches!(it, Ok(Some(_)))).count();
        let text = format!("{there} of {} rows to be created exist", creates.len());
        Some(noted(text, &loaded))
    }

    /// Each row, in order; all of it within that time.
    async fn load(&self, operations: &[&Operation], within: Duration) -> Vec<Loaded> {
        let scope = wire::scope(self.body).unwrap_or_default();
        let deadline = Instant::now() + within;
        let loads = operations
            .iter()
            .map(|operation| self.row(operation, &scope, deadline));
        // Collected first: the iterator borrows, and this future must be free to move.
        let loads: Vec<_> = loads.collect();
        stream::iter(loads).buffered(AT_ONCE).collect().await
    }

    async fn row(&self, operation: &Operation, scope: &Scope, deadline: Instant) -> Loaded {
        let timeout = deadline.saturating_duration_since(Instant::now());
        if timeout.is_zero() {
            let message = "there was no time left to ask for it".to_owned();
            return Err(("timeout_connect".to_owned(), message, 0));
        }
        let request = Request {
            url: self.url,
            webhook_id: &Uuid::new_v4().simple().to_string(),
            body: wire::load_body(&operation.model, &operation.id, scope).into(),
            keys: self.keys,
            timeout,
            traceparent: None,
            kind: RequestKind::Load,
        };
        let exchange = self.endpoints.send(request).await;
        load_outcome(&exchange, &operation.id).map_err(|fault| {
            let status = exchange.status.map_or(0, i32::from);
            (fault.class, fault.message, status)
        })
    }
}

fn noted(mut text: String, loaded: &[Loaded]) -> ReadBack {
    let mut failed = loaded.iter().filter_map(|it| it.as_ref().err());
    let count = failed.clone().count();
    let last = failed.next_back().cloned();
    if let Some((class, ..)) = &last {
        text = format!("{text}; {count} could not be read: {class}");
    }
    ReadBack {
        text,
        succeeded: count < loaded.len(),
        failed: last,
        misfit: None,
    }
}
