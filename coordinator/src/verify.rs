//! Verification of a Data Source: signed round trips of every kind, each in the coordinator's own
//! words, and what they show. Nothing is written at the endpoint.
//!
//! [`Verifier`] asks, [`judgement`] says what the answers mean. An empty commit is refused by every
//! handler that serves commits, and changes nothing at one that takes it.

mod judgement;
mod question;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use backends::data_source::client::EndpointClient;
use backends::data_source::clock::{Clock, Skew};
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::sign::SigningKey;
use futures_util::{StreamExt, stream};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::judgement::{Alone, Answers};
use self::question::Questions;
use crate::admit::Backing;
use crate::broken::WallClock;
use crate::domain::{Caller, RequestKind};
use crate::keys::{KeyRing, overloaded, unknown_key};
use crate::refusal::Refusal;
use crate::schemas::SchemaCache;
use crate::store::source_keys::{self, KeySeen};
use crate::store::source_requests::{self, LastRequests, source_endpoint};
use crate::store::{self, Store};

pub use self::judgement::certificate_ending;

/// Verifications at once on this node; each makes a dozen requests at most.
const AT_ONCE: usize = 16;

/// Requests of one verification at once.
const REQUESTS_AT_ONCE: usize = 4;

/// Verifies endpoints.
#[derive(Debug)]
pub struct Verifier {
    store: Store,
    client: EndpointClient,
    keys: Arc<KeyRing>,
    schemas: Arc<SchemaCache>,
    room: Semaphore,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// In order.
    pub checks: Vec<Check>,
    /// The organization's live keys, newest first.
    pub keys: Vec<KeyCheck>,
    /// The endpoint's clock against ours; `None` when it does not tell.
    pub skew: Option<Skew>,
    /// When the certificate that the endpoint showed ends.
    pub certificate_expires_at: Option<OffsetDateTime>,
    /// What to put on the source's record.
    requests: Vec<(RequestKind, LastRequests)>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen and, unless `ok`, what to mend.
    pub message: String,
    /// How long the request took.
    pub latency: Option<Duration>,
}

/// Whether an endpoint takes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCheck {
    /// The key.
    pub id: Uuid,
    /// `None` when the answer says neither.
    pub accepted: Option<bool>,
}

impl Verification {
    /// Whether every check passed.
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// The checks that did not pass, for a person.
    pub fn faults(&self) -> String {
        let faults = self.checks.iter().filter(|check| !check.ok);
        let faults: Vec<_> = faults
            .map(|check| format!("{}: {}", check.name, check.message))
            .collect();
        faults.join("; ")
    }
}

impl Verifier {
    /// A verifier that asks through this client, with the organizations' own keys.
    pub fn new(
        store: Store,
        client: EndpointClient,
        keys: Arc<KeyRing>,
        schemas: Arc<SchemaCache>,
    ) -> Self {
        Self {
            store,
            client,
            keys,
            schemas,
            room: Semaphore::new(AT_ONCE),
        }
    }

    /// Verifies a source, whatever its state, and puts on its record what the requests came to and
    /// which keys its endpoint takes. Takes at most twice the source's request timeout.
    ///
    /// # Errors
    /// `source_not_found`; `overloaded`; what the store answers when it fails.
    pub async fn source(&self, caller: &Caller, source: &str) -> Result<Verification, Refusal> {
        let organization = caller.organization.clone();
        let endpoint = source_endpoint(&self.store, organization, source.to_owned()).await?;
        let endpoint = endpoint.ok_or_else(|| Refusal::no_source(source))?;
        let model = self.model(caller, source).await?;
        let found = self
            .endpoint(caller, &endpoint.url, endpoint.timeout, model)
            .await?;
        for (kind, last) in &found.requests {
            let organization = caller.organization.clone();
            let (source, last) = (source.to_owned(), last.clone());
            source_requests::record(&self.store, organization, source, *kind, last).await?;
        }
        self.record_keys(caller, source, &found).await?;
        Ok(found)
    }

    /// Verifies an endpoint that may become a source, and puts nothing on record.
    ///
    /// # Errors
    /// `overloaded`; what the store answers when it fails.
    pub async fn candidate(
        &self,
        caller: &Caller,
        url: &str,
        timeout: Duration,
    ) -> Result<Verification, Refusal> {
        self.endpoint(caller, url, timeout, None).await
    }

    /// Puts on record which keys the source's endpoint takes, as far as that was seen.
    ///
    /// # Errors
    /// What the store answers when it fails.
    pub async fn record_keys(
        &self,
        caller: &Caller,
        source: &str,
        found: &Verification,
    ) -> Result<(), store::Error> {
        let seen = found.keys.iter().filter_map(|key| {
            let accepted = key.accepted?;
            Some(KeySeen {
                key: key.id,
                accepted,
            })
        });
        let organization = caller.organization.clone();
        source_keys::record(&self.store, organization, source.to_owned(), seen.collect()).await
    }

    /// A model that lives in the source.
    async fn model(&self, caller: &Caller, source: &str) -> Result<Option<String>, Refusal> {
        let schema = self.schemas.latest(&caller.organization).await?;
        let held = Backing::Source(source.to_owned());
        Ok(schema.and_then(|schema| {
            let mut models = schema.models.iter();
            let found = models.find(|(_, model)| model.backing == held);
            found.map(|(name, _)| name.clone())
        }))
    }

    async fn endpoint(
        &self,
        caller: &Caller,
        url: &str,
        timeout: Duration,
        model: Option<String>,
    ) -> Result<Verification, Refusal> {
        let _room = self.room.try_acquire().map_err(|_| overloaded())?;
        let keys = self.keys.live_keys(&caller.organization).await?;
        let url = match EndpointUrl::parse(url, self.client.policy()) {
            Ok(url) => url,
            Err(fault) => return Ok(Verification::of_forbidden(fault)),
        };
        let questions = Questions::new(&self.client, &url, timeout, (caller, model));
        let signing: Vec<SigningKey> = keys.iter().map(|key| key.key.clone()).collect();
        let (events, load, list, commit) = tokio::join!(
            questions.events(&signing),
            questions.load(&signing),
            questions.list(&signing),
            questions.commit(&signing),
        );
        let mut answers = Answers {
            https: url.as_str().starts_with("https://"),
            model_known: questions.model_known(),
            row: questions.row().to_owned(),
            now: WallClock.now().into(),
            events,
            load,
            list,
            commit,
            stranger: None,
            alone: Vec::new(),
        };
        if answers.any_came() {
            let mut signers = vec![unknown_key()];
            signers.extend(signing);
            let singly = (0..signers.len()).map(|place| questions.events(&signers[place..=place]));
            let mut singly: Vec<_> = stream::iter(singly)
                .buffered(REQUESTS_AT_ONCE)
                .collect()
                .await;
            answers.stranger = Some(singly.remove(0));
            answers.alone = keys
                .iter()
                .zip(singly)
                .map(|(key, answer)| Alone {
                    id: key.id,
                    shown: key.shown.clone(),
                    answer,
                })
                .collect();
        }
        Ok(answers.judged())
    }
}
