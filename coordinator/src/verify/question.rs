//! The requests of a verification.

use std::time::Duration;

use backends::data_source::client::{EndpointClient, Request};
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::exchange::{Exchange, FailureClass};
use backends::data_source::sign::SigningKey;
use backends::data_source::wire::{
    RequestKind, Scope, commit_body, events_body, list_body, load_body,
};
use backends::query::Query;
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::Caller;

/// A model that no schema has.
const NO_MODEL: &str = "verification";

/// Asks one endpoint, all within twice the time of one request.
pub(super) struct Questions<'a> {
    client: &'a EndpointClient,
    url: &'a EndpointUrl,
    timeout: Duration,
    end: Instant,
    scope: Scope,
    model: Option<String>,
    /// No row has this id, no commit this name.
    made_up: String,
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        client: &'a EndpointClient,
        url: &'a EndpointUrl,
        timeout: Duration,
        (caller, model): (&Caller, Option<String>),
    ) -> Self {
        Self {
            client,
            url,
            timeout,
            end: Instant::now() + timeout * 2,
            scope: Scope {
                participant_id: Some("verification".to_owned()),
                participant_kind: Some("system".to_owned()),
                organization_id: Some(caller.organization.to_string()),
                mode: Some(caller.mode.as_str().to_owned()),
                ..Scope::default()
            },
            model,
            made_up: format!("verification-{}", Uuid::now_v7()),
        }
    }

    /// Whether the schema names a model of the source.
    pub(super) fn model_known(&self) -> bool {
        self.model.is_some()
    }

    /// The row that is asked for.
    pub(super) fn row(&self) -> &str {
        &self.made_up
    }

    pub(super) async fn events(&self, keys: &[SigningKey]) -> Exchange {
        let body = events_body(None, 1, &self.scope);
        self.post(RequestKind::Events, body, keys).await
    }

    pub(super) async fn load(&self, keys: &[SigningKey]) -> Exchange {
        let body = load_body(self.model(), &self.made_up, &self.scope);
        self.post(RequestKind::Load, body, keys).await
    }

    pub(super) async fn list(&self, keys: &[SigningKey]) -> Exchange {
        let query = Query {
            conditions: Vec::new(),
            order: None,
            limit: 1,
            cursor: None,
        };
        let body = list_body(self.model(), &query, &self.scope);
        self.post(RequestKind::List, body, keys).await
    }

    /// A commit of nothing.
    pub(super) async fn commit(&self, keys: &[SigningKey]) -> Exchange {
        let body = commit_body(&self.made_up, &"0".repeat(64), &[], &self.scope);
        self.post(RequestKind::Commit, body, keys).await
    }

    fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(NO_MODEL)
    }

    async fn post(&self, kind: RequestKind, body: Vec<u8>, keys: &[SigningKey]) -> Exchange {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = "the time was over before the request could be made";
            return Exchange::failed(FailureClass::TimeoutConnect, message);
        }
        let request = Request {
            url: self.url,
            webhook_id: &Uuid::now_v7().simple().to_string(),
            body: body.into(),
            keys,
            timeout: self.timeout.min(left),
            traceparent: None,
            kind,
        };
        self.client.send(request).await
    }
}
