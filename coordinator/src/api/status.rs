//! The only file that writes a [`tonic::Status`]: refusals become codes with machine-readable
//! details, and no answer leaves without a reason.

#![warn(clippy::wildcard_enum_match_arm)]

use std::collections::HashMap;

use bytes::Bytes;
use proto::v1;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Response};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::refusal::{Class, Refusal};

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "coordinator.ablo";

/// Details travel in the trailers, and clients refuse long ones: texts are cut at this many
/// characters.
const LONGEST_TEXT: usize = 500;

/// More violations than this are not listed.
const MOST_VIOLATIONS: usize = 10;

/// What a handler answers.
pub(super) type Answer<T> = Result<tonic::Response<T>, Status>;

/// What the caller is told of a refusal.
pub(super) fn status(refusal: Refusal) -> Status {
    let Refusal {
        class,
        reason,
        message,
        metadata,
        violations,
        retry_after,
    } = refusal;
    let mut details = ErrorDetails::new();
    let metadata = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), cut(&value)));
    details.set_error_info(reason, DOMAIN, metadata.collect::<HashMap<_, _>>());
    for violation in violations.into_iter().take(MOST_VIOLATIONS) {
        details.add_bad_request_violation(cut(&violation.field), cut(&violation.description));
    }
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code(class), cut(&message), details)
}

fn code(class: Class) -> Code {
    match class {
        Class::Invalid => Code::InvalidArgument,
        Class::NotFound => Code::NotFound,
        Class::Exists => Code::AlreadyExists,
        Class::Aborted => Code::Aborted,
        Class::Precondition => Code::FailedPrecondition,
        Class::OutOfRange => Code::OutOfRange,
        Class::Exhausted => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::Deadline => Code::DeadlineExceeded,
        Class::Internal => Code::Internal,
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The answer that a refusal is.
pub(super) fn response(refusal: Refusal) -> Response<Body> {
    status(refusal).into_http()
}

/// The end of an answer that has begun.
pub(super) fn trailers(refusal: Refusal) -> HeaderMap {
    response(refusal).into_parts().0.headers
}

/// The answer to a call of a method that does not exist.
pub(super) fn unimplemented() -> Response<Body> {
    completed(Status::new(Code::Unimplemented, "").into_http())
}

/// Gives an error of the transport's own (an unknown method, a message that is too large or does not
/// decode) its reason; every other answer stays as it is.
pub(super) fn completed(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(bare) if bare.code() != Code::Ok && bare.details().is_empty() => {
            reasoned(&bare).into_http()
        }
        _ => response,
    }
}

/// An error of the transport's own, with its reason.
pub(super) fn reasoned(bare: &Status) -> Status {
    let (code, reason) = transport_fault(bare.code());
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, cut(bare.message()), details)
}

/// A refusal as a message on a stream that goes on.
pub(super) fn message(refusal: Refusal) -> v1::CallError {
    let status = status(refusal);
    v1::CallError {
        code: status.code().into(),
        message: status.message().to_owned(),
        status: Bytes::copy_from_slice(status.details()),
    }
}

/// UNKNOWN is never answered.
fn transport_fault(code: Code) -> (Code, &'static str) {
    match code {
        Code::Unimplemented => (code, "unimplemented"),
        Code::OutOfRange | Code::ResourceExhausted => (code, "message_too_large"),
        Code::Internal | Code::InvalidArgument => (code, "message_malformed"),
        Code::Unknown | Code::DataLoss => (Code::Internal, "internal"),
        Code::Cancelled => (code, "cancelled"),
        Code::NotFound => (code, "not_found"),
        Code::Ok
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unavailable
        | Code::Unauthenticated => (code, "refused"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_carries_its_reason_its_metadata_and_its_fields() {
        let refusal = Refusal::field(
            "field_type",
            "operations[2].input_json.t",
            "is not a number",
        )
        .at_operation(2);
        let status = status(refusal);
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("field_type", DOMAIN)
        );
        assert_eq!(info.metadata["operation"], "2");
        let fields = &details.bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, "operations[2].input_json.t");
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn a_refusal_that_may_pass_says_when() {
        let refusal = Refusal::new(Class::Exhausted, "overloaded", "too much")
            .retry_after(Duration::from_secs(1));
        let details = status(refusal).get_error_details();
        assert_eq!(
            details.retry_info().unwrap().retry_delay,
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn long_texts_and_many_violations_still_fit_into_trailers() {
        let mut refusal = Refusal::field("field_invalid", "é".repeat(10_000), "x".repeat(10_000));
        refusal.violations = vec![refusal.violations[0].clone(); 1_000];
        let refusal = refusal.with("model", "m".repeat(10_000));
        assert!(status(refusal).details().len() < 24 * 1024);
    }

    #[test]
    fn an_unknown_error_of_the_transport_becomes_internal_with_a_reason() {
        let bare = Status::new(Code::Unknown, "what").into_http();
        let status = Status::from_header_map(completed(bare).headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "internal"
        );
    }

    #[test]
    fn an_answer_with_details_stays_as_it_is() {
        let refusal = Refusal::new(Class::Aborted, "stale_context", "stale");
        let status = Status::from_header_map(completed(response(refusal)).headers()).unwrap();
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "stale_context"
        );
    }
}
