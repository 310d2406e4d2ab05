//! What the answers to load, list and events mean.

use super::{failure_error, redirect_error, response_invalid, status_error};
use crate::data_source::exchange::{Exchange, FailureClass};
use crate::data_source::wire::{
    AnswerFault, EventsPage, FeedPage, Row, id_text, parse_error, parse_events, parse_feed,
    parse_list, parse_load,
};

/// A read that gave no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ReadFault {
    /// What can be done about it.
    pub kind: ReadFaultKind,
    /// As an attempt's error class.
    pub class: String,
    /// For a person.
    pub message: String,
}

/// What can be done about a failed read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReadFaultKind {
    /// The same read may succeed later.
    Unavailable,
    /// A person has to set the source right.
    Misconfigured,
    /// The endpoint will not answer this read, with a code of its own: nothing is wrong with the source.
    Refused,
    /// The endpoint does not do this kind of request; for events: it has no feed.
    NotConfigured,
    /// The endpoint is gone.
    Gone,
}

/// A page of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct ListPage {
    /// Each has an `id`.
    pub rows: Vec<Row>,
    /// Asks for the next page.
    pub next_cursor: Option<String>,
}

/// The row that a load of `id` found, if there is one.
///
/// # Errors
/// A [`ReadFault`], also when the answer is another row.
pub fn load_outcome(exchange: &Exchange, id: &str) -> Result<Option<Row>, ReadFault> {
    let row = read(exchange, parse_load)?;
    match &row {
        Some(row) if row.get("id").and_then(id_text) != Some(id) => Err(invalid(
            "the endpoint answered with another row than the one asked for",
        )),
        Some(_) | None => Ok(row),
    }
}

/// The rows that a list found.
///
/// # Errors
/// A [`ReadFault`].
pub fn list_outcome(exchange: &Exchange) -> Result<ListPage, ReadFault> {
    let (rows, next_cursor) = read(exchange, parse_list)?;
    Ok(ListPage { rows, next_cursor })
}

/// The events that a poll found.
///
/// # Errors
/// A [`ReadFault`]; [`ReadFaultKind::NotConfigured`] when the endpoint has no feed.
pub fn events_outcome(exchange: &Exchange) -> Result<EventsPage, ReadFault> {
    read(exchange, parse_events)
}

/// As [`events_outcome`], with the events left as they came.
///
/// # Errors
/// As [`events_outcome`], but for events at fault.
pub fn feed_outcome(exchange: &Exchange) -> Result<FeedPage, ReadFault> {
    read(exchange, parse_feed)
}

/// Whether the endpoint refused an events request that carried a cursor because of the cursor: it
/// answered 400 with a code that is none of the wire's own, and not for now only.
pub fn refuses_cursor(exchange: &Exchange) -> bool {
    let body = parse_error(&exchange.body).filter(|_| exchange.status == Some(400));
    body.is_some_and(|body| !body.retryable && !super::SOURCE_CODES.contains(&body.error.as_str()))
}

fn read<T>(
    exchange: &Exchange,
    parse: impl FnOnce(&[u8]) -> Result<T, AnswerFault>,
) -> Result<T, ReadFault> {
    if exchange.status == Some(200) && exchange.failure.is_none() {
        return parse(&exchange.body).map_err(|fault| invalid(&fault.to_string()));
    }
    let (kind, error) = match (exchange.status, &exchange.failure) {
        (None | Some(200), failure) => {
            let forbidden = failure
                .as_ref()
                .is_some_and(|f| f.class == FailureClass::AddressForbidden);
            let kind = if forbidden {
                ReadFaultKind::Misconfigured
            } else {
                ReadFaultKind::Unavailable
            };
            (kind, failure_error(exchange))
        }
        (Some(status), _) => (
            status_kind(exchange, status),
            match status {
                300..=399 => redirect_error(status),
                _ => status_error(exchange, status),
            },
        ),
    };
    Err(ReadFault {
        kind,
        class: error.class,
        message: error.message,
    })
}

/// As of a commit (`declined`): a 4xx with a code of the handler's own is about what was asked for, one
/// with a code of the wire's, or without, about the source.
fn status_kind(exchange: &Exchange, status: u16) -> ReadFaultKind {
    let body = parse_error(&exchange.body);
    let not_configured = |code: &str| {
        [
            "source_load_not_configured",
            "source_list_not_configured",
            "source_events_not_configured",
        ]
        .contains(&code)
    };
    match status {
        410 => ReadFaultKind::Gone,
        404 if body
            .as_ref()
            .is_some_and(|body| not_configured(&body.error)) =>
        {
            ReadFaultKind::NotConfigured
        }
        408 | 425 | 429 => ReadFaultKind::Unavailable,
        401 | 405 => ReadFaultKind::Misconfigured,
        400..=499 if body.as_ref().is_some_and(|body| body.retryable) => ReadFaultKind::Unavailable,
        400..=499
            if body.is_some_and(|body| !super::SOURCE_CODES.contains(&body.error.as_str())) =>
        {
            ReadFaultKind::Refused
        }
        300..=499 => ReadFaultKind::Misconfigured,
        _ => ReadFaultKind::Unavailable,
    }
}

fn invalid(rule: &str) -> ReadFault {
    let error = response_invalid(rule.to_owned());
    ReadFault {
        kind: ReadFaultKind::Unavailable,
        class: error.class,
        message: error.message,
    }
}
