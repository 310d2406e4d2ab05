//! How far a failed request got, read from the HTTP client's error.

use std::error::Error;
use std::io;

use super::certificate;
use crate::data_source::egress::ResolveFault;
use crate::data_source::excerpt::shortened;
use crate::data_source::exchange::{Failure, FailureClass};

/// What was being waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// The status line and headers, and all before them.
    Head,
    /// The body.
    Body,
}

/// In doubt a request counts as sent.
pub(super) fn of(error: &reqwest::Error, stage: Stage) -> Failure {
    let (class, message) = if let Some(fault) = find::<ResolveFault>(error) {
        (resolve_class(*fault), fault.to_string())
    } else if error.is_builder() {
        (
            FailureClass::RequestInvalid,
            "the request could not be put together".to_owned(),
        )
    } else if error.is_connect() {
        unconnected(error)
    } else if error.is_timeout() {
        timed_out(stage)
    } else if ended(error) {
        (
            FailureClass::Closed,
            "the endpoint closed the connection before its answer was whole".to_owned(),
        )
    } else {
        (
            FailureClass::Protocol,
            "the endpoint's answer is not valid HTTP".to_owned(),
        )
    };
    Failure { class, message }
}

fn resolve_class(fault: ResolveFault) -> FailureClass {
    match fault {
        ResolveFault::NoAnswer => FailureClass::Dns,
        ResolveFault::Timeout => FailureClass::DnsTimeout,
        ResolveFault::Forbidden => FailureClass::AddressForbidden,
    }
}

fn unconnected(error: &reqwest::Error) -> (FailureClass, String) {
    if let Some(tls) = find::<rustls::Error>(error) {
        let reason = match certificate::distrust(tls) {
            Some(distrust) => distrust.to_string(),
            None => shortened(&tls.to_string(), 300),
        };
        return (
            FailureClass::Tls,
            format!("no TLS connection to the endpoint: {reason}"),
        );
    }
    if error.is_timeout() {
        let message = "no connection to the endpoint within 3 seconds".to_owned();
        return (FailureClass::TimeoutConnect, message);
    }
    let reason = find::<io::Error>(error).map_or_else(String::new, |io| format!(": {}", io.kind()));
    (
        FailureClass::Connect,
        format!("no connection to the endpoint{reason}"),
    )
}

fn timed_out(stage: Stage) -> (FailureClass, String) {
    match stage {
        Stage::Head => (
            FailureClass::TimeoutAfterSend,
            "the endpoint did not answer within the request's timeout".to_owned(),
        ),
        Stage::Body => (
            FailureClass::TimeoutBody,
            "the endpoint's answer was not whole within the request's timeout".to_owned(),
        ),
    }
}

fn ended(error: &reqwest::Error) -> bool {
    let http = find::<hyper::Error>(error).is_some_and(|error| {
        error.is_incomplete_message() || error.is_closed() || error.is_canceled()
    });
    let connection = find::<io::Error>(error).is_some_and(|io| {
        matches!(
            io.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        )
    });
    http || connection
}

/// The first error of that type among an error and its causes.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(link) = next {
        if let Some(found) = link.downcast_ref::<T>() {
            return Some(found);
        }
        // An I/O error that wraps another names that one's causes as its own, and so hides it.
        let wrapped = link
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => link.source(),
        };
    }
    None
}
