//! One request and what came back, before anybody says what it means.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::clock::Skew;

/// What one request came to. Either `status` or `failure` is set, or both: a status line may come
/// and the body fail.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The answer's status, if a status line came.
    pub status: Option<u16>,
    /// The whole body, or as much of it as had come when it failed; never more than 1 MiB.
    pub body: Bytes,
    /// What the answer asks for, capped at an hour.
    pub retry_after: Option<Duration>,
    /// Why there is no whole answer.
    pub failure: Option<Failure>,
    /// When it began, by the client's clock; what the signature's timestamp says.
    pub started: SystemTime,
    /// How long it took, body included.
    pub elapsed: Duration,
    /// The address that it was sent to.
    pub peer: Option<SocketAddr>,
    /// The endpoint's clock, by its `Date` header.
    pub server_date: Option<SystemTime>,
    /// When the certificate that the endpoint showed ends, also when it was not trusted.
    pub certificate_expires_at: Option<SystemTime>,
}

/// Why a request has no whole answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The kind of failure.
    pub class: FailureClass,
    /// For a person; names no secret and nothing of the coordinator's network.
    pub message: String,
}

/// Kinds of failure, by how far the request got.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FailureClass {
    /// The request could not be put together.
    RequestInvalid,
    /// The name has no address.
    Dns,
    /// Nobody told the name's address in time.
    DnsTimeout,
    /// The address is one that requests must not go to.
    AddressForbidden,
    /// No connection.
    Connect,
    /// No trust in the endpoint's certificate, or no common language.
    Tls,
    /// No connection in time.
    TimeoutConnect,
    /// No status line in time. Sent, as far as anyone knows.
    TimeoutAfterSend,
    /// No whole body in time.
    TimeoutBody,
    /// The body is longer than 1 MiB, or says that it is.
    BodyTooLarge,
    /// The body is compressed, which nobody asked for.
    ContentEncoded,
    /// The answer is not HTTP.
    Protocol,
    /// The connection ended before the answer did.
    Closed,
}

impl FailureClass {
    /// The class's name on the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestInvalid => "request_invalid",
            Self::Dns => "dns",
            Self::DnsTimeout => "dns_timeout",
            Self::AddressForbidden => "address_forbidden",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::TimeoutConnect => "timeout_connect",
            Self::TimeoutAfterSend => "timeout_after_send",
            Self::TimeoutBody => "timeout_body",
            Self::BodyTooLarge => "body_too_large",
            Self::ContentEncoded => "content_encoded",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }

    /// Whether no byte of the request has left, so that it can never be applied.
    pub fn not_sent(self) -> bool {
        match self {
            Self::RequestInvalid
            | Self::Dns
            | Self::DnsTimeout
            | Self::AddressForbidden
            | Self::Connect
            | Self::Tls
            | Self::TimeoutConnect => true,
            Self::TimeoutAfterSend
            | Self::TimeoutBody
            | Self::BodyTooLarge
            | Self::ContentEncoded
            | Self::Protocol
            | Self::Closed => false,
        }
    }
}

impl Exchange {
    /// An answer that came whole, at once, as tests and in-memory endpoints give it.
    pub fn answered(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status: Some(status),
            body: body.into(),
            ..Self::empty(SystemTime::UNIX_EPOCH)
        }
    }

    /// A request that failed before any status line.
    pub fn failed(class: FailureClass, message: impl Into<String>) -> Self {
        let failure = Some(Failure {
            class,
            message: message.into(),
        });
        Self {
            failure,
            ..Self::empty(SystemTime::UNIX_EPOCH)
        }
    }

    pub(super) fn empty(started: SystemTime) -> Self {
        Self {
            status: None,
            body: Bytes::new(),
            retry_after: None,
            failure: None,
            started,
            elapsed: Duration::ZERO,
            peer: None,
            server_date: None,
            certificate_expires_at: None,
        }
    }

    /// How far the endpoint's clock is from ours, by its `Date`.
    pub fn clock_skew(&self) -> Option<Skew> {
        let date = self.server_date?;
        Some(Skew::between(
            date,
            (self.started, self.started + self.elapsed),
        ))
    }

    /// Whether no byte of the request has left.
    pub fn not_sent(&self) -> bool {
        self.status.is_none() && self.failure.as_ref().is_some_and(|f| f.class.not_sent())
    }

    /// Whether this request will certainly never be applied: it was not sent, or the endpoint
    /// answered that it did not take it (3xx, and 4xx but for 408, which a gateway may say while
    /// the application still works).
    pub fn cannot_apply(&self) -> bool {
        self.not_sent()
            || self
                .status
                .is_some_and(|s| (300..500).contains(&s) && s != 408)
    }
}
