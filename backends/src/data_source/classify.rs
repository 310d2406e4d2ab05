//! What an endpoint's answer means (`integration/examples/WIRE.md`). Pure: exchange in, meaning out.

use std::time::Duration;

use reqwest::StatusCode;

use super::excerpt::shortened;
use super::exchange::{Exchange, FailureClass};
use super::wire::{ErrorBody, parse_error};
use crate::operation::{Change, Operation};

mod effect;
mod fit;
mod read;

pub use effect::change_from_load;
pub use read::{
    ListPage, ReadFault, ReadFaultKind, events_outcome, feed_outcome, list_outcome, load_outcome,
    refuses_cursor,
};

/// The class of an answer that came and cannot be used.
pub const RESPONSE_INVALID: &str = "response_invalid";

/// How much of an endpoint's message is kept, in characters.
const MESSAGE_CHARACTERS: usize = 1_000;

/// The code of a refusal whose own is empty.
const NO_CODE: &str = "refused";

/// How much of an endpoint's error code is kept, in characters.
const CODE_CHARACTERS: usize = 128;

/// From here on a difference of clocks is worth telling; receivers refuse at five minutes.
pub const SKEW_TOLD: Duration = Duration::from_secs(30);

/// Codes of the wire itself: they speak of the source, not of one row.
const SOURCE_CODES: [&str; 9] = [
    "source_commit_invalid",
    "source_signature_invalid",
    "source_timestamp_expired",
    "source_forbidden",
    "source_commit_not_configured",
    "source_load_not_configured",
    "source_list_not_configured",
    "source_events_not_configured",
    "method_not_allowed",
];

/// What one attempt came to, for its commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done. The changes are in the order of the answer's deltas, then of the operations; an
    /// operation that was not sent has none.
    Applied(Vec<Change>),
    /// The endpoint will not do it: final, once no earlier attempt can still apply.
    Refused {
        /// The endpoint's code.
        code: String,
        /// For a person.
        message: String,
    },
    /// Not now. Whether this attempt may still apply, [`Exchange::cannot_apply`] says.
    Retry {
        /// What the endpoint asks for.
        retry_after: Option<Duration>,
        /// What to record.
        error: AttemptError,
    },
    /// It may have been applied, or not, or may yet be.
    Unknown {
        /// What to record.
        error: AttemptError,
    },
    /// The source as a whole needs a person; no attempt is spent.
    Misconfigured {
        /// What to record.
        error: AttemptError,
    },
    /// The endpoint is gone: the source is to be disabled, its commits kept.
    Gone {
        /// What to record.
        error: AttemptError,
    },
}

/// What is recorded of an attempt that did not succeed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttemptError {
    /// A failure's class, `http_status`, `redirect_refused` or `response_invalid`.
    pub class: String,
    /// For a person.
    pub message: String,
}

impl Outcome {
    /// The outcome's name on the record.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Refused { .. } => "refused",
            Self::Retry { .. } => "retry",
            Self::Unknown { .. } => "unknown",
            Self::Misconfigured { .. } => "misconfigured",
            Self::Gone { .. } => "gone",
        }
    }

    /// What to record of it, unless it was applied.
    pub fn error(&self) -> Option<AttemptError> {
        match self {
            Self::Applied(_) => None,
            Self::Refused { code, message } => Some(AttemptError {
                class: "refused".to_owned(),
                message: format!("{code}: {message}"),
            }),
            Self::Retry { error, .. }
            | Self::Unknown { error }
            | Self::Misconfigured { error }
            | Self::Gone { error } => Some(error.clone()),
        }
    }
}

/// What the answer to a commit means.
///
/// `operations` are the commit's, also those that were not sent. `known_models` are the models
/// whose rows the source holds: deltas of their other rows are accepted. The body decides, not its
/// `Content-Type`: handlers that send JSON as text are common.
pub fn commit_outcome(
    exchange: &Exchange,
    operations: &[Operation],
    known_models: &[String],
) -> Outcome {
    let Some(status) = exchange.status else {
        return unanswered(exchange);
    };
    match status {
        200 => answered(exchange, operations, known_models),
        410 => Outcome::Gone {
            error: status_error(exchange, status),
        },
        300..=399 => Outcome::Misconfigured {
            error: redirect_error(status),
        },
        401 | 405 => Outcome::Misconfigured {
            error: status_error(exchange, status),
        },
        408 | 425 | 429 | 500..=599 => Outcome::Retry {
            retry_after: exchange.retry_after,
            error: status_error(exchange, status),
        },
        400..=499 => declined(exchange, status),
        _ => Outcome::Unknown {
            error: response_invalid(format!("the endpoint answered {status}, not 200")),
        },
    }
}

fn unanswered(exchange: &Exchange) -> Outcome {
    let Some(failure) = &exchange.failure else {
        let message = "the request ended without an answer".to_owned();
        return Outcome::Unknown {
            error: response_invalid(message),
        };
    };
    let error = failure_error(exchange);
    match failure.class {
        FailureClass::AddressForbidden => Outcome::Misconfigured { error },
        class if class.not_sent() => Outcome::Retry {
            retry_after: None,
            error,
        },
        _ => Outcome::Unknown { error },
    }
}

fn answered(exchange: &Exchange, operations: &[Operation], known_models: &[String]) -> Outcome {
    if exchange.failure.is_some() {
        return Outcome::Unknown {
            error: failure_error(exchange),
        };
    }
    match fit::changes(&exchange.body, operations, known_models) {
        Ok(changes) => Outcome::Applied(changes),
        Err(rule) => Outcome::Unknown {
            error: response_invalid(rule),
        },
    }
}

/// A 4xx of which the body says whether it is about the commit or about the source.
fn declined(exchange: &Exchange, status: u16) -> Outcome {
    if exchange.failure.is_some() {
        return Outcome::Unknown {
            error: failure_error(exchange),
        };
    }
    let about_the_commit = matches!(status, 400 | 409 | 412 | 413 | 422);
    let body = parse_error(&exchange.body)
        .filter(|body| about_the_commit || !SOURCE_CODES.contains(&body.error.as_str()));
    match body {
        None => Outcome::Misconfigured {
            error: status_error(exchange, status),
        },
        Some(body) if body.retryable => Outcome::Retry {
            retry_after: exchange.retry_after,
            error: status_error(exchange, status),
        },
        Some(ErrorBody { error, message, .. }) => Outcome::Refused {
            code: if error.is_empty() {
                NO_CODE.to_owned()
            } else {
                shortened(&error, CODE_CHARACTERS)
            },
            message: message.map_or_else(
                || "the endpoint refused the commit".to_owned(),
                |message| shortened(&message, MESSAGE_CHARACTERS),
            ),
        },
    }
}

fn failure_error(exchange: &Exchange) -> AttemptError {
    let Some(failure) = &exchange.failure else {
        return response_invalid("the answer is not whole".to_owned());
    };
    let answer_at_fault = matches!(
        failure.class,
        FailureClass::BodyTooLarge | FailureClass::ContentEncoded
    );
    let class = if answer_at_fault {
        RESPONSE_INVALID
    } else {
        failure.class.as_str()
    };
    AttemptError {
        class: class.to_owned(),
        message: failure.message.clone(),
    }
}

fn response_invalid(message: String) -> AttemptError {
    AttemptError {
        class: RESPONSE_INVALID.to_owned(),
        message,
    }
}

fn redirect_error(status: u16) -> AttemptError {
    AttemptError {
        class: "redirect_refused".to_owned(),
        message: format!("the endpoint answered {status}; redirects are not followed"),
    }
}

fn status_error(exchange: &Exchange, status: u16) -> AttemptError {
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let mut message = format!("the endpoint answered {status}");
    message.extend(reason.into_iter().flat_map(|reason| [" ", reason]));
    if let Some(body) = parse_error(&exchange.body) {
        message.extend([": ", &shortened(&body.error, CODE_CHARACTERS)]);
        if let Some(detail) = body.message {
            message.extend([": ", &shortened(&detail, MESSAGE_CHARACTERS)]);
        }
    }
    if status == 401 {
        message.extend(skew(exchange));
    }
    AttemptError {
        class: "http_status".to_owned(),
        message,
    }
}

/// A refused signature is often a clock that is wrong.
fn skew(exchange: &Exchange) -> Option<String> {
    let skew = exchange.clock_skew()?;
    (skew.by > SKEW_TOLD).then(|| format!("; the endpoint's clock is {skew} ours"))
}

#[cfg(test)]
mod tests;
