use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    Outcome, ReadFaultKind, change_from_load, commit_outcome, events_outcome, list_outcome,
    load_outcome,
};
use crate::data_source::exchange::{Exchange, Failure, FailureClass};
use crate::json::parse_object;
use crate::operation::{Change, OnStale, Operation, OperationKind};

mod bodies;
mod table;

fn operation(kind: OperationKind, id: &str, input: &str) -> Operation {
    Operation {
        kind,
        model: "tasks".to_owned(),
        id: id.to_owned(),
        input: parse_object(input.as_bytes()).unwrap(),
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    }
}

fn outcome(exchange: &Exchange) -> Outcome {
    let operations = [operation(OperationKind::Create, "a", r#"{"n":1}"#)];
    commit_outcome(exchange, &operations, &["tasks".to_owned()])
}

fn answer(status: u16, body: &str) -> Outcome {
    outcome(&Exchange::answered(status, body.to_owned()))
}

/// The class of the recorded error, or the code of the refusal.
fn class(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Applied(_) => "",
        Outcome::Refused { code, .. } => code,
        Outcome::Retry { error, .. }
        | Outcome::Unknown { error }
        | Outcome::Misconfigured { error }
        | Outcome::Gone { error } => &error.class,
    }
}

const TAKEN: &str = r#"{"error":"taken","message":"by another"}"#;
const LATER: &str = r#"{"error":"busy","retryable":true}"#;
const FORBIDDEN: &str = r#"{"error":"source_forbidden"}"#;
const NOT_CONFIGURED: &str = r#"{"error":"source_commit_not_configured"}"#;
const HTML: &str = "<html>";

/// Status, body, outcome, and the error's class or the refusal's code.
const ANSWERS: &[(u16, &str, &str, &str)] = &[
    (200, r#"{"rows":[{"id":"a"}]}"#, "applied", ""),
    (200, HTML, "unknown", "response_invalid"),
    (200, TAKEN, "unknown", "response_invalid"),
    (
        201,
        r#"{"rows":[{"id":"a"}]}"#,
        "unknown",
        "response_invalid",
    ),
    (204, "", "unknown", "response_invalid"),
    (301, "", "misconfigured", "redirect_refused"),
    (302, TAKEN, "misconfigured", "redirect_refused"),
    (308, "", "misconfigured", "redirect_refused"),
    (400, TAKEN, "refused", "taken"),
    (
        400,
        r#"{"error":"source_commit_invalid"}"#,
        "refused",
        "source_commit_invalid",
    ),
    (400, LATER, "retry", "http_status"),
    (400, HTML, "misconfigured", "http_status"),
    (401, TAKEN, "misconfigured", "http_status"),
    (
        401,
        r#"{"error":"source_signature_invalid"}"#,
        "misconfigured",
        "http_status",
    ),
    (402, TAKEN, "refused", "taken"),
    (402, HTML, "misconfigured", "http_status"),
    (403, TAKEN, "refused", "taken"),
    (403, FORBIDDEN, "misconfigured", "http_status"),
    (403, LATER, "retry", "http_status"),
    (403, HTML, "misconfigured", "http_status"),
    (404, TAKEN, "refused", "taken"),
    (404, NOT_CONFIGURED, "misconfigured", "http_status"),
    (404, HTML, "misconfigured", "http_status"),
    (405, TAKEN, "misconfigured", "http_status"),
    (408, TAKEN, "retry", "http_status"),
    (409, TAKEN, "refused", "taken"),
    (409, LATER, "retry", "http_status"),
    (409, HTML, "misconfigured", "http_status"),
    (410, TAKEN, "gone", "http_status"),
    (410, "", "gone", "http_status"),
    (412, TAKEN, "refused", "taken"),
    (413, TAKEN, "refused", "taken"),
    (413, HTML, "misconfigured", "http_status"),
    (418, TAKEN, "refused", "taken"),
    (422, TAKEN, "refused", "taken"),
    (422, r#"{"error":1}"#, "misconfigured", "http_status"),
    (422, r#"{"error":""}"#, "refused", "refused"),
    (
        422,
        r#"{"error":"sold_out","message":"bad byte \u0000"}"#,
        "refused",
        "sold_out",
    ),
    (
        422,
        r#"{"error":"too_big","limit":1e400}"#,
        "refused",
        "too_big",
    ),
    (
        409,
        r#"{"error":"taken","by":"a","by":"\ud800"}"#,
        "refused",
        "taken",
    ),
    (
        403,
        r#"{"error":"a\u0000b","limit":1e400}"#,
        "refused",
        r"a\u{0}b",
    ),
    (
        403,
        r#"{"error":"source_forbidden","limit":1e400}"#,
        "misconfigured",
        "http_status",
    ),
    (
        422,
        r#"{"error":"busy","retryable":true,"limit":1e400}"#,
        "retry",
        "http_status",
    ),
    (425, TAKEN, "retry", "http_status"),
    (429, TAKEN, "retry", "http_status"),
    (500, TAKEN, "retry", "http_status"),
    (503, HTML, "retry", "http_status"),
    (599, "", "retry", "http_status"),
    (999, "", "unknown", "response_invalid"),
];

#[test]
fn every_answer_has_its_meaning() {
    for &(status, body, expected, expected_class) in ANSWERS {
        let outcome = answer(status, body);
        assert_eq!(
            (outcome.as_str(), class(&outcome)),
            (expected, expected_class),
            "{status} {body}"
        );
    }
}

#[test]
fn a_failure_means_what_may_have_happened_by_then() {
    use FailureClass::*;
    let table = [
        (RequestInvalid, "retry", true),
        (Dns, "retry", true),
        (DnsTimeout, "retry", true),
        (AddressForbidden, "misconfigured", true),
        (Connect, "retry", true),
        (Tls, "retry", true),
        (TimeoutConnect, "retry", true),
        (TimeoutAfterSend, "unknown", false),
        (Protocol, "unknown", false),
        (Closed, "unknown", false),
    ];
    for (failure, expected, cannot_apply) in table {
        let exchange = Exchange::failed(failure, "m");
        let outcome = outcome(&exchange);
        assert_eq!(
            (outcome.as_str(), class(&outcome)),
            (expected, failure.as_str())
        );
        assert_eq!(
            (exchange.not_sent(), exchange.cannot_apply()),
            (cannot_apply, cannot_apply)
        );
    }
}

#[test]
fn a_body_that_did_not_come_whole_leaves_the_status_to_speak() {
    let broken = |status, class| Exchange {
        failure: Some(Failure {
            class,
            message: "m".to_owned(),
        }),
        ..Exchange::answered(status, r#"{"error":"taken"}"#)
    };
    let table = [
        (
            200,
            FailureClass::BodyTooLarge,
            "unknown",
            "response_invalid",
        ),
        (
            200,
            FailureClass::ContentEncoded,
            "unknown",
            "response_invalid",
        ),
        (200, FailureClass::TimeoutBody, "unknown", "timeout_body"),
        (200, FailureClass::Closed, "unknown", "closed"),
        (409, FailureClass::TimeoutBody, "unknown", "timeout_body"),
        (
            302,
            FailureClass::BodyTooLarge,
            "misconfigured",
            "redirect_refused",
        ),
        (401, FailureClass::Closed, "misconfigured", "http_status"),
        (410, FailureClass::Closed, "gone", "http_status"),
        (500, FailureClass::TimeoutBody, "retry", "http_status"),
    ];
    for (status, failure, expected, expected_class) in table {
        let outcome = outcome(&broken(status, failure));
        assert_eq!(
            (outcome.as_str(), class(&outcome)),
            (expected, expected_class),
            "{status}"
        );
    }
}

#[test]
fn only_an_answer_that_declines_shows_that_nothing_can_apply() {
    let declined = [301, 400, 401, 404, 409, 410, 422, 425, 429];
    let open = [200, 204, 408, 500, 502, 503, 504];
    for status in declined {
        assert!(Exchange::answered(status, "").cannot_apply(), "{status}");
    }
    for status in open {
        assert!(!Exchange::answered(status, "").cannot_apply(), "{status}");
    }
}

#[test]
fn a_pause_that_was_asked_for_is_passed_on() {
    let pause = Some(Duration::from_secs(7));
    let exchange = Exchange {
        retry_after: pause,
        ..Exchange::answered(503, "")
    };
    assert!(
        matches!(outcome(&exchange), Outcome::Retry { retry_after, .. } if retry_after == pause)
    );
}

#[test]
fn messages_are_for_people_and_short() {
    let refused = answer(
        409,
        &json!({"error": "x\u{1b}", "message": "y".repeat(5_000)}).to_string(),
    );
    let Outcome::Refused { code, message } = refused else {
        panic!("409 refuses")
    };
    assert_eq!(code, r"x\u{1b}");
    assert_eq!(message.chars().count(), 1_001);

    let Outcome::Retry { error, .. } = answer(503, r#"{"error":"busy","message":"later"}"#) else {
        panic!("503 is tried again")
    };
    assert_eq!(
        error.message,
        "the endpoint answered 503 Service Unavailable: busy: later"
    );

    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
    let skewed = |seconds: u64| {
        let server_date = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let exchange = Exchange {
            started,
            server_date,
            ..Exchange::answered(401, "")
        };
        match outcome(&exchange) {
            Outcome::Misconfigured { error } => error.message,
            other => panic!("401 is {}", other.as_str()),
        }
    };
    assert!(skewed(10_600).ends_with("; the endpoint's clock is 10 min ahead of ours"));
    assert!(skewed(9_400).ends_with("; the endpoint's clock is 10 min behind ours"));
    assert_eq!(skewed(10_030), "the endpoint answered 401 Unauthorized");
}

#[test]
fn a_read_answers_or_says_what_to_do() {
    use ReadFaultKind::*;
    let load = |status, body: &str| load_outcome(&Exchange::answered(status, body.to_owned()), "a");
    assert_eq!(load(200, r#"{"row":null}"#), Ok(None));
    assert_eq!(
        load(200, r#"{"row":{"id":"a"}}"#).unwrap().unwrap()["id"],
        "a"
    );
    let table = [
        (
            200,
            r#"{"row":{"id":"b"}}"#,
            Unavailable,
            "response_invalid",
        ),
        (200, "{}", Unavailable, "response_invalid"),
        (302, "", Misconfigured, "redirect_refused"),
        (400, r#"{"error":"x"}"#, Refused, "http_status"),
        (403, r#"{"error":"x","n":1e400}"#, Refused, "http_status"),
        (
            403,
            r#"{"error":"source_forbidden"}"#,
            Misconfigured,
            "http_status",
        ),
        (403, "", Misconfigured, "http_status"),
        (401, r#"{"error":"x"}"#, Misconfigured, "http_status"),
        (
            400,
            r#"{"error":"x","retryable":true}"#,
            Unavailable,
            "http_status",
        ),
        (401, "", Misconfigured, "http_status"),
        (404, "", Misconfigured, "http_status"),
        (
            404,
            r#"{"error":"source_load_not_configured"}"#,
            NotConfigured,
            "http_status",
        ),
        (410, "", Gone, "http_status"),
        (429, "", Unavailable, "http_status"),
        (500, "", Unavailable, "http_status"),
    ];
    for (status, body, kind, class) in table {
        let fault = load(status, body).unwrap_err();
        assert_eq!(
            (fault.kind, fault.class.as_str()),
            (kind, class),
            "{status} {body}"
        );
    }
}

#[test]
fn each_kind_of_read_has_its_answer() {
    use ReadFaultKind::*;
    let forbidden = Exchange::failed(FailureClass::AddressForbidden, "m");
    assert_eq!(list_outcome(&forbidden).unwrap_err().kind, Misconfigured);
    let slow = Exchange::failed(FailureClass::TimeoutAfterSend, "m");
    assert_eq!(list_outcome(&slow).unwrap_err().class, "timeout_after_send");
    let page = list_outcome(&Exchange::answered(
        200,
        r#"{"rows":[{"id":1}],"nextCursor":"c"}"#,
    ));
    assert_eq!(page.unwrap().next_cursor.as_deref(), Some("c"));
    let no_feed = Exchange::answered(404, r#"{"error":"source_events_not_configured"}"#);
    assert_eq!(events_outcome(&no_feed).unwrap_err().kind, NotConfigured);
}

#[test]
fn a_loaded_row_proves_only_what_it_carries() {
    let proved = |operation: &Operation, row: Option<Value>| {
        let row = row.map(|row| parse_object(row.to_string().as_bytes()).unwrap());
        change_from_load(3, operation, row.as_ref())
    };
    let update = operation(
        OperationKind::Update,
        "a",
        r#"{"n":1.0,"id":"x","gone":null}"#,
    );
    let change = proved(&update, Some(json!({"id": "a", "n": 1, "more": true}))).unwrap();
    assert_eq!(
        (change.operation, change.kind),
        (Some(3), OperationKind::Update)
    );
    assert_eq!(proved(&update, Some(json!({"id": "a", "n": 2}))), None);
    assert_eq!(proved(&update, None), None);
    let delete = operation(OperationKind::Delete, "a", "{}");
    assert_eq!(proved(&delete, None).unwrap().row, None);
    assert_eq!(proved(&delete, Some(json!({"id": "a"}))), None);
    let archive = operation(OperationKind::Archive, "a", "{}");
    assert_eq!(proved(&archive, Some(json!({"id": "a"}))), None);
}

fn summary(changes: &[Change]) -> Vec<String> {
    let shown = |change: &Change| {
        let index = change
            .operation
            .map_or("-".to_owned(), |index| index.to_string());
        let row = change.row.as_ref().map_or("gone", |row| row.text());
        format!(
            "{index} {} {}/{} {row}",
            change.kind.as_str(),
            change.model,
            change.id
        )
    };
    changes.iter().map(shown).collect()
}
