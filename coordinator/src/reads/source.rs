//! Rows that live behind a Data Source, asked for at its endpoint.

mod cut;
mod failure;

use std::sync::Arc;
use std::time::Duration;

use backends::data_source::classify::{ListPage, ReadFault, list_outcome, load_outcome};
use backends::data_source::client::{EndpointClient, Request};
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::exchange::Exchange;
use backends::data_source::wire::{self, list_body, load_body};
use backends::json::canonical;
use backends::query::Query;
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;

pub(super) use self::cut::SourcePosition;
use self::cut::{cut, is_cut_off};
use self::failure::Failure;
use super::gate::Gates;
use super::scope;
use crate::admit::query::Reader;
use crate::domain::{Caller, OrganizationId, RequestKind, SourceState};
use crate::keys::KeyRing;
use crate::pages::LARGEST;
use crate::refusal::{Class, Refusal};
use crate::store::Store;
use crate::store::source_requests::{self, LastRequests, SourceEndpoint, source_endpoint};

/// When a caller may ask again, if the endpoint does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Asks endpoints for rows.
#[derive(Debug)]
pub(super) struct SourceReader {
    store: Store,
    client: EndpointClient,
    keys: Arc<KeyRing>,
    gates: Gates,
}

/// What is read, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) caller: &'a Caller,
    pub(super) source: &'a str,
    pub(super) model: &'a str,
    pub(super) reader: &'a Reader,
}

/// A page of rows, and the log's position from before they were asked for.
#[derive(Debug)]
pub(super) struct SourcePage {
    pub(super) rows: Vec<String>,
    pub(super) next: Option<SourcePosition>,
    pub(super) read_at: i64,
    /// There may be rows that the endpoint gives nobody a way to ask for, or that should have come
    /// before.
    pub(super) incomplete: bool,
}

/// One request, free of what it was made from.
struct Question {
    organization: OrganizationId,
    source: String,
    kind: RequestKind,
    body: Bytes,
}

impl SourceReader {
    pub(super) fn new(store: Store, client: EndpointClient, keys: Arc<KeyRing>) -> Self {
        Self {
            store,
            client,
            keys,
            gates: Gates::default(),
        }
    }

    /// The row, as JSON, and the log's position from before it was asked for.
    pub(super) async fn load(
        self: &Arc<Self>,
        asked: Asked<'_>,
        id: &str,
    ) -> Result<(i64, Option<String>), Refusal> {
        let body = load_body(asked.model, id, &scope(asked.caller, asked.reader));
        let question = Question::new(asked, RequestKind::Load, body);
        let id = id.to_owned();
        let (read_at, row) = self
            .ask(question, move |exchange| load_outcome(exchange, &id))
            .await?;
        Ok((read_at, row.map(|row| canonical(&Value::Object(row)))))
    }

    /// A page of the rows that meet the query's conditions: the endpoint may ignore everything but
    /// the limit, so conditions and limit are applied to its answer again. Rows that come all at
    /// once are put in order here, and so is each page of longer lists; that no row of a later page
    /// belongs before them is the endpoint's to see to, and where it does not, the answer says so.
    /// One that fills the limit and gives no cursor is asked again, for as many rows as it may give:
    /// what it holds beyond them is out of reach, and the answer says so.
    pub(super) async fn list(
        self: &Arc<Self>,
        asked: Asked<'_>,
        query: &Query,
        mut from: SourcePosition,
    ) -> Result<SourcePage, Refusal> {
        let mut limit = query.limit.saturating_add(from.answered).min(LARGEST);
        if from.at_once {
            limit = LARGEST;
        }
        let (mut read_at, mut page) = self.page(asked, query, (&from, limit)).await?;
        if limit < LARGEST && is_cut_off(&page, &from, limit) {
            from.at_once = true;
            limit = LARGEST;
            (read_at, page) = self.page(asked, query, (&from, limit)).await?;
        }
        let cut_off = is_cut_off(&page, &from, limit);
        let (rows, next, in_order) = cut(page.rows, page.next_cursor, query, from);
        let rows = rows
            .into_iter()
            .map(|row| canonical(&Value::Object(row)))
            .collect();
        Ok(SourcePage {
            rows,
            next,
            read_at,
            incomplete: cut_off || !in_order,
        })
    }

    /// What the endpoint answers, at most so many rows if it honours that.
    async fn page(
        self: &Arc<Self>,
        asked: Asked<'_>,
        query: &Query,
        (from, limit): (&SourcePosition, u32),
    ) -> Result<(i64, ListPage), Refusal> {
        let wire = Query {
            limit,
            cursor: from.cursor.clone(),
            ..query.clone()
        };
        let body = list_body(asked.model, &wire, &scope(asked.caller, asked.reader));
        let question = Question::new(asked, RequestKind::List, body);
        self.ask(question, list_outcome).await
    }

    /// Asks in a task of its own: whatever the caller does meanwhile, the request ends by its
    /// deadline, and what it came to is on record before anyone hears of it.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: Question,
        read: impl FnOnce(&Exchange) -> Result<T, ReadFault> + Send + 'static,
    ) -> Result<(i64, T), Refusal> {
        let reader = Arc::clone(self);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends by itself: requests have a deadline"
        )]
        let task = tokio::spawn(async move { reader.answer(&question, read).await });
        match task.await {
            Ok(answer) => answer,
            Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
            Err(_) => Err(Refusal::new(
                Class::Unavailable,
                "source_unavailable",
                "the node is stopping; send the same call again",
            )
            .retry_after(RETRY_AFTER)),
        }
    }

    async fn answer<T>(
        &self,
        question: &Question,
        read: impl FnOnce(&Exchange) -> Result<T, ReadFault>,
    ) -> Result<(i64, T), Refusal> {
        let Question {
            organization,
            source,
            kind,
            ..
        } = question;
        let endpoint = source_endpoint(&self.store, organization.clone(), source.clone()).await?;
        let endpoint = endpoint.ok_or_else(|| {
            let message = format!("the Data Source `{source}` does not exist");
            Refusal::new(Class::Precondition, "source_misconfigured", message)
                .with("data_source", source)
        })?;
        if endpoint.state == SourceState::Disabled {
            let message = format!("the Data Source `{source}` is disabled");
            return Err(
                Refusal::new(Class::Precondition, "source_disabled", message)
                    .with("data_source", source),
            );
        }
        let entered = self.gates.enter(organization, source).ok_or_else(|| {
            let message = format!("too many reads of the Data Source `{source}` are in flight");
            Refusal::new(Class::Exhausted, "overloaded", message)
                .with("data_source", source)
                .retry_after(RETRY_AFTER)
        })?;
        let answer = self.exchange(question, &endpoint, read).await?;
        let came_to = match &answer {
            Ok(_) => LastRequests {
                succeeded: true,
                failed: None,
            },
            Err(failure) => LastRequests {
                succeeded: false,
                failed: Some(failure.record()),
            },
        };
        let journal = match kind {
            RequestKind::List => &entered.gate().lists,
            _ => &entered.gate().loads,
        };
        let write = |last| {
            source_requests::record(
                &self.store,
                organization.clone(),
                source.clone(),
                *kind,
                last,
            )
        };
        journal.record(came_to, write).await?;
        answer
            .map(|answer| (endpoint.last_sync_id, answer))
            .map_err(|failure| failure.refusal(source))
    }

    async fn exchange<T>(
        &self,
        question: &Question,
        endpoint: &SourceEndpoint,
        read: impl FnOnce(&Exchange) -> Result<T, ReadFault>,
    ) -> Result<Result<T, Failure>, Refusal> {
        let keys = self.keys.signing_keys(&question.organization).await?;
        let url = match EndpointUrl::parse(&endpoint.url, self.client.policy()) {
            Ok(url) => url,
            Err(fault) => {
                return Ok(Err(Failure::before_sending(
                    fault.code(),
                    fault.to_string(),
                )));
            }
        };
        if keys.is_empty() {
            let message = "the organization has no key to sign with".to_owned();
            return Ok(Err(Failure::before_sending("no_signing_key", message)));
        }
        let request = Request {
            url: &url,
            webhook_id: &Uuid::new_v4().simple().to_string(),
            body: question.body.clone(),
            keys: &keys,
            timeout: endpoint.timeout,
            traceparent: None,
            kind: match question.kind {
                RequestKind::List => wire::RequestKind::List,
                _ => wire::RequestKind::Load,
            },
        };
        let exchange = self.client.send(request).await;
        Ok(read(&exchange).map_err(|fault| Failure {
            fault,
            http_status: exchange.status.map_or(0, i32::from),
            retry_after: exchange.retry_after,
        }))
    }
}

impl Question {
    fn new(asked: Asked<'_>, kind: RequestKind, body: Vec<u8>) -> Self {
        Self {
            organization: asked.caller.organization.clone(),
            source: asked.source.to_owned(),
            kind,
            body: body.into(),
        }
    }
}
