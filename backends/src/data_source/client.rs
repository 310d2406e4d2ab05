//! Sends one signed request, once, and reads its answer within bounds.
//!
//! One call of [`EndpointClient::send`] is at most one HTTP request at the endpoint: nothing is
//! repeated, redirected or proxied. The deadline covers name look-up, connection, and the body to
//! its last byte; the body is never held beyond 1 MiB, unless the caller allows more, and never
//! decompressed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue,
    RETRY_AFTER,
};
use tokio::time::Instant;

use super::clock::{Clock, unix_seconds};
use super::egress::EgressPolicy;
use super::endpoint::{EndpointUrl, UrlFault};
use super::exchange::{Exchange, Failure, FailureClass};
use super::retry_after;
use super::sign::{SigningKey, signature_header};
use super::wire::{LONGEST_ANSWER, RequestKind};

mod builder;
mod certificate;
mod failure;

pub use builder::{BuildError, EndpointClientBuilder};

/// The longest pause that an endpoint can ask for.
const RETRY_AFTER_CAP: Duration = Duration::from_hours(1);

/// Sends requests to endpoints. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct EndpointClient {
    http: reqwest::Client,
    policy: Arc<EgressPolicy>,
    clock: Arc<dyn Clock>,
}

/// One request to one endpoint.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where to.
    pub url: &'a EndpointUrl,
    /// The same at every retry; also the idempotency key. Of `[A-Za-z0-9_-]`.
    pub webhook_id: &'a str,
    /// The same bytes at every retry.
    pub body: Bytes,
    /// Newest first; at most five sign.
    pub keys: &'a [SigningKey],
    /// How long it may take, from name look-up to the body's last byte.
    pub timeout: Duration,
    /// W3C trace context to send along.
    pub traceparent: Option<&'a str>,
    /// What the body asks for.
    pub kind: RequestKind,
}

impl EndpointClient {
    /// A client under this policy, with the machine's clock, name servers and root certificates.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(policy: EgressPolicy) -> Result<Self, BuildError> {
        Self::builder(policy).build()
    }

    /// To choose what [`EndpointClient::new`] takes from the machine.
    pub fn builder(policy: EgressPolicy) -> EndpointClientBuilder {
        EndpointClientBuilder::new(policy)
    }

    /// Where this client may send to.
    pub fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// Sends a request and reads the answer. Never fails: what went wrong is in the exchange.
    ///
    /// When the future is dropped the connection is closed; the request may have been taken.
    pub async fn send(&self, request: Request<'_>) -> Exchange {
        self.send_for(request, LONGEST_ANSWER).await
    }

    /// As [`EndpointClient::send`], with so many bytes of the answer's body at most.
    pub async fn send_for(&self, request: Request<'_>, longest: usize) -> Exchange {
        let begun = Instant::now();
        let mut exchange = Exchange::empty(self.clock.now());
        let sent = self.exchange(&request, longest, &mut exchange).await;
        exchange.failure = sent.err();
        exchange.elapsed = begun.elapsed();
        tracing::debug!(
            kind = request.kind.as_str(),
            webhook.id = request.webhook_id,
            status = exchange.status,
            failure = exchange.failure.as_ref().map(|failure| failure.class.as_str()),
            elapsed = ?exchange.elapsed,
            "request to an endpoint ended"
        );
        exchange
    }

    async fn exchange(
        &self,
        request: &Request<'_>,
        longest: usize,
        exchange: &mut Exchange,
    ) -> Result<(), Failure> {
        request
            .url
            .judge_literal(&self.policy)
            .map_err(|fault| Failure {
                class: FailureClass::AddressForbidden,
                message: fault.to_string(),
            })?;
        let headers = headers(request, unix_seconds(exchange.started)).map_err(|_| Failure {
            class: FailureClass::RequestInvalid,
            message: "the request's id or trace context cannot stand in a header".to_owned(),
        })?;
        let response = self
            .http
            .post(request.url.to_url())
            .headers(headers)
            .timeout(request.timeout)
            .body(request.body.clone())
            .send()
            .await
            .map_err(|error| {
                let shown = certificate::shown_in_vain(&error);
                exchange.certificate_expires_at = shown.map(|validity| validity.until);
                failure::of(&error, failure::Stage::Head)
            })?;
        exchange.certificate_expires_at =
            certificate::shown(&response).map(|validity| validity.until);
        exchange.status = Some(response.status().as_u16());
        exchange.peer = response.remote_addr();
        exchange.server_date = server_date(response.headers());
        let pauses = response
            .headers()
            .get_all(RETRY_AFTER)
            .iter()
            .map(HeaderValue::as_bytes);
        exchange.retry_after = retry_after::parse(pauses, exchange.started, RETRY_AFTER_CAP);
        if exchange
            .peer
            .is_some_and(|peer| self.policy.judge_socket(peer).is_err())
        {
            return Err(forbidden(UrlFault::AddressForbidden));
        }
        read_body(response, longest, &mut exchange.body).await
    }
}

fn forbidden(fault: UrlFault) -> Failure {
    Failure {
        class: FailureClass::AddressForbidden,
        message: fault.to_string(),
    }
}

fn headers(request: &Request<'_>, timestamp: i64) -> Result<HeaderMap, InvalidHeaderValue> {
    let id = HeaderValue::from_str(request.webhook_id)?;
    let signature = signature_header(request.keys, request.webhook_id, timestamp, &request.body);
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("idempotency-key"), id.clone());
    headers.insert(HeaderName::from_static("webhook-id"), id);
    headers.insert(
        HeaderName::from_static("webhook-timestamp"),
        HeaderValue::from(timestamp),
    );
    headers.insert(
        HeaderName::from_static("webhook-signature"),
        HeaderValue::from_str(&signature)?,
    );
    if let Some(traceparent) = request.traceparent {
        let traceparent = HeaderValue::from_str(traceparent)?;
        headers.insert(HeaderName::from_static("traceparent"), traceparent);
    }
    Ok(headers)
}

fn server_date(headers: &HeaderMap) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// Reads into `body` as long as it stays within bounds; what has come stays there on failure.
async fn read_body(mut response: Response, limit: usize, body: &mut Bytes) -> Result<(), Failure> {
    let encodings = response.headers().get_all(CONTENT_ENCODING);
    if encodings
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Failure {
            class: FailureClass::ContentEncoded,
            message: "the answer is compressed, although no encoding was asked for".to_owned(),
        });
    }
    let too_large = || Failure {
        class: FailureClass::BodyTooLarge,
        message: format!("the answer's body is longer than {limit} bytes"),
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit as u64)
    {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        let ended = match chunk {
            Ok(Some(chunk)) if read.len() + chunk.len() > limit => Err(too_large()),
            Ok(Some(chunk)) => {
                read.extend_from_slice(&chunk);
                continue;
            }
            Ok(None) => Ok(()),
            Err(error) => Err(failure::of(&error, failure::Stage::Body)),
        };
        *body = read.freeze();
        return ended;
    }
}

#[cfg(test)]
mod tests;
