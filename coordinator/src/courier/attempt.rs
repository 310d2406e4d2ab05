//! One attempt: recorded, sent, classified, settled.

use std::time::Duration;

use backends::data_source::classify;
use backends::data_source::client::Request;
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::excerpt::excerpt;
use backends::data_source::exchange::{Exchange, FailureClass};
use backends::data_source::sign::SigningKey;
use backends::data_source::wire::{self, RequestKind};
use tokio::time::Instant;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::Tools;
use crate::admit::Backing;
use crate::decide::{Command, InboxEntry, NotStartable, Reply, Settle, Source, Start, Started};
use crate::domain::OrganizationId;
use crate::refusal::Refusal;
use crate::store::Error;
use crate::telemetry::trace;

/// A settle that the database does not take is tried again after this long: the answer is known,
/// and only we know it.
const SETTLE_AGAIN: Duration = Duration::from_millis(250);

/// An attempt to be made.
pub(super) struct Attempt {
    pub(super) tools: Tools,
    pub(super) organization: OrganizationId,
    pub(super) source: String,
    pub(super) epoch: i64,
    pub(super) node: Uuid,
    pub(super) sequence: i64,
}

/// What became of it.
pub(super) enum End {
    /// Recorded: the commit as it stands, or `None` when it is finished.
    Settled(Option<Box<InboxEntry>>, Box<Source>),
    /// It was not to be made now.
    NotStarted(NotStartable),
    /// The source has another owner.
    Fenced,
    /// The database was away, or no key was there, before anything left.
    Unavailable,
}

impl Attempt {
    /// Makes the attempt. Ends only when its outcome is durable, or another node's business.
    pub(super) async fn run(self) -> End {
        let keys = match self.tools.keys.signing_keys(&self.organization).await {
            Ok(keys) if keys.is_empty() => {
                tracing::warn!(
                    source.id = self.source,
                    "no live key signs: nothing is sent"
                );
                return End::Unavailable;
            }
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%error, "the signing keys could not be read");
                return End::Unavailable;
            }
        };
        let Ok(models) = self.models().await else {
            return End::Unavailable;
        };
        let asked = Instant::now();
        let started = match self.start().await {
            Ok(Reply::Started(started)) => started,
            Ok(Reply::NotStartable(why)) => return End::NotStarted(why),
            Ok(Reply::Fenced) => return End::Fenced,
            Ok(_) | Err(_) => return End::Unavailable,
        };
        let span = self.span(&started);
        // The recorded deadline counts from some moment after we asked: no byte leaves after it, even
        // if this process was frozen in between.
        let left = started.timeout.saturating_sub(asked.elapsed());
        self.deliver(&started, (&keys, &models), left)
            .instrument(span)
            .await
    }

    /// An attempt's span: the first belongs to the trace of the call that brought the commit; later
    /// ones, which may run hours after it, are roots of their own, linked to it.
    fn span(&self, started: &Started) -> Span {
        let span = tracing::info_span!(
            parent: None,
            "attempt",
            commit.id = %started.id,
            source.id = self.source,
            attempt = started.number,
            otel.kind = "client",
        );
        match (&started.traceparent, started.number) {
            (Some(caller), 1) => trace::adopt(&span, caller),
            (Some(caller), _) => trace::link(&span, caller),
            (None, _) => {}
        }
        span
    }

    /// Sends, and settles until the outcome is durable: only this node knows the answer.
    async fn deliver(
        &self,
        started: &Started,
        (keys, models): (&[SigningKey], &[String]),
        left: Duration,
    ) -> End {
        let exchange = self.send(started, keys, left).await;
        let settle = Settle {
            never_left: left.is_zero(),
            ..self.verdict(started, &exchange, models)
        };
        let outcome = settle.outcome.as_str();
        self.tools.metrics.attempt(outcome, exchange.elapsed);
        tracing::debug!(
            outcome,
            http.status = exchange.status,
            "attempt ended: {outcome}"
        );
        loop {
            let settle = Command::Settle(settle.clone());
            match self.tools.flushers.submit(&self.organization, settle).await {
                Ok(Reply::Settled(entry, source)) => return End::Settled(entry, source),
                Ok(_) => {
                    tracing::warn!("fenced: an answer came after the source had changed hands");
                    return End::Fenced;
                }
                Err(error) => {
                    tracing::warn!(%error, "an answer is not recorded yet");
                    tokio::time::sleep(SETTLE_AGAIN).await;
                }
            }
        }
    }

    /// The models whose rows the source holds.
    async fn models(&self) -> Result<Vec<String>, Refusal> {
        let schema = self.tools.schemas.latest(&self.organization).await?;
        let held = Backing::Source(self.source.clone());
        Ok(schema.map_or_else(Vec::new, |schema| {
            let models = schema
                .models
                .iter()
                .filter(|(_, model)| model.backing == held);
            models.map(|(name, _)| name.clone()).collect()
        }))
    }

    async fn start(&self) -> Result<Reply, Error> {
        let start = Start {
            source: self.source.clone(),
            epoch: self.epoch,
            sequence: self.sequence,
            node: self.node,
        };
        self.tools
            .flushers
            .submit(&self.organization, Command::Start(start))
            .await
    }

    async fn send(&self, started: &Started, keys: &[SigningKey], left: Duration) -> Exchange {
        if left.is_zero() {
            let message = "the time for this attempt was over before it could be sent";
            return Exchange::failed(FailureClass::TimeoutConnect, message);
        }
        let url = match EndpointUrl::parse(&started.url, self.tools.endpoints.policy()) {
            Ok(url) => url,
            Err(fault) => {
                return Exchange::failed(FailureClass::AddressForbidden, fault.to_string());
            }
        };
        // Without tracing of our own the endpoint still sees the caller's trace, on the first attempt.
        let submitted = started
            .traceparent
            .as_deref()
            .filter(|_| started.number == 1);
        let request = Request {
            url: &url,
            webhook_id: &started.id.to_string(),
            body: started.body.clone(),
            keys,
            timeout: left,
            traceparent: Some(&trace::outgoing(submitted)),
            kind: RequestKind::Commit,
        };
        self.tools.endpoints.send(request).await
    }

    fn verdict(&self, started: &Started, exchange: &Exchange, models: &[String]) -> Settle {
        let operations =
            wire::operations(&started.body).expect("the inbox holds bodies that we wrote");
        let outcome = classify::commit_outcome(exchange, &operations, models);
        Settle {
            source: self.source.clone(),
            epoch: self.epoch,
            sequence: self.sequence,
            client_tx_id: started.client_tx_id.clone(),
            started_at: started.started_at,
            duration: exchange.elapsed,
            http_status: exchange.status,
            url: started.url.clone(),
            outcome,
            may_still_apply: !exchange.cannot_apply(),
            excerpt: exchange
                .status
                .filter(|status| *status != 200)
                .map(|_| excerpt(&exchange.body)),
            never_left: false,
            jitter: rand::random(),
        }
    }
}
