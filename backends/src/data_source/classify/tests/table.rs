//! The table of what an endpoint's answer means, written down once more, by what is promised: rows of
//! which the first that fits decides.

use proptest::prelude::*;
use serde_json::json;

use super::{Outcome, outcome};
use crate::data_source::exchange::{Exchange, Failure, FailureClass};

/// What a body tells, as it was made.
#[derive(Clone, Debug)]
enum Told {
    /// Rows or deltas that fit the commit.
    Rows,
    /// A refusal: its code, and whether the commit may be sent again.
    Error(String, bool),
    /// Neither.
    Nothing,
}

/// What an answer means for its commit.
#[derive(Debug, Eq, PartialEq)]
enum Meaning {
    Applied,
    Refused(String),
    NotNow,
    Unknown,
    Misconfigured,
    Gone,
}

/// Codes that speak of the source.
const WIRE: [&str; 9] = [
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

fn meaning(status: u16, whole: bool, told: &Told) -> Meaning {
    let told = if whole { told } else { &Told::Nothing };
    let (code, again) = match told {
        Told::Error(code, again) => (Some(code), *again),
        Told::Rows | Told::Nothing => (None, false),
    };
    let of_the_wire = code.is_some_and(|code| WIRE.contains(&code.as_str()));
    let of_the_commit = [400, 409, 412, 413, 422].contains(&status);
    let other = (400..500).contains(&status) && ![401, 405].contains(&status);
    // What it says is believed of the commit itself, else only in words that are not the wire's.
    let believed = code.filter(|_| of_the_commit || (other && !of_the_wire));
    let rows = [
        (
            status == 200 && matches!(told, Told::Rows),
            Meaning::Applied,
        ),
        (status == 200, Meaning::Unknown),
        (status == 410, Meaning::Gone),
        (
            [408, 425, 429].contains(&status) || (500..600).contains(&status),
            Meaning::NotNow,
        ),
        (believed.is_some() && again, Meaning::NotNow),
        (
            believed.is_some(),
            Meaning::Refused(match believed.map(String::as_str) {
                None | Some("") => "refused".to_owned(),
                Some(code) => code.to_owned(),
            }),
        ),
        // It said more than came.
        (other && !whole, Meaning::Unknown),
        ((300..500).contains(&status), Meaning::Misconfigured),
    ];
    let fits = rows.into_iter().find(|(fits, _)| *fits);
    fits.map_or(Meaning::Unknown, |(_, meaning)| meaning)
}

/// Without a status, all that is known is how far the request came.
fn unanswered(class: FailureClass) -> Meaning {
    match class {
        FailureClass::AddressForbidden => Meaning::Misconfigured,
        FailureClass::RequestInvalid
        | FailureClass::Dns
        | FailureClass::DnsTimeout
        | FailureClass::Connect
        | FailureClass::Tls
        | FailureClass::TimeoutConnect => Meaning::NotNow,
        FailureClass::TimeoutAfterSend
        | FailureClass::TimeoutBody
        | FailureClass::BodyTooLarge
        | FailureClass::ContentEncoded
        | FailureClass::Protocol
        | FailureClass::Closed => Meaning::Unknown,
    }
}

fn any_failure() -> impl Strategy<Value = FailureClass> {
    prop::sample::select(vec![
        FailureClass::RequestInvalid,
        FailureClass::Dns,
        FailureClass::DnsTimeout,
        FailureClass::AddressForbidden,
        FailureClass::Connect,
        FailureClass::Tls,
        FailureClass::TimeoutConnect,
        FailureClass::TimeoutAfterSend,
        FailureClass::TimeoutBody,
        FailureClass::BodyTooLarge,
        FailureClass::ContentEncoded,
        FailureClass::Protocol,
        FailureClass::Closed,
    ])
}

fn any_status() -> impl Strategy<Value = u16> {
    let named = [
        200, 201, 204, 301, 308, 400, 401, 402, 403, 404, 405, 408, 409, 410, 412, 413, 418, 422,
        425, 429, 499, 500, 503, 599, 600,
    ];
    prop_oneof![3 => prop::sample::select(named.to_vec()), 1 => 100_u16..1_000]
}

fn any_body() -> impl Strategy<Value = (String, Told)> {
    let rows = [
        r#"{"rows":[{"id":"a","n":1}]}"#,
        r#"{"deltas":[{"model":"tasks","id":"a","type":"CREATE","data":{"id":"a"}}]}"#,
    ];
    let nothing = [
        "",
        "<html>",
        "{}",
        "[]",
        "null",
        r#""taken""#,
        r#"{"rows":[]}"#,
        r#"{"rows":[{"id":"b"}]}"#,
        r#"{"error":1}"#,
        r#"{"error":null,"message":"no"}"#,
        r#"{"error":["taken"]}"#,
        r#"{"message":"no","retryable":true}"#,
        r#"{"error":"taken""#,
        r#"[{"error":"taken"}]"#,
    ];
    let code = prop_oneof![
        2 => prop::sample::select(WIRE.to_vec()).prop_map(str::to_owned),
        3 => "[a-z_]{0,20}",
    ];
    let again = prop::sample::select(vec![json!(true), json!(false), json!(null), json!("true")]);
    let error = (code, again, any::<bool>()).prop_map(|(code, again, talks)| {
        let mut body = json!({"error": code, "retryable": again});
        if talks {
            body["message"] = json!("no");
            body["rows"] = json!([{"id": "a"}]);
        }
        let again = again == json!(true);
        (body.to_string(), Told::Error(code, again))
    });
    let fixed = |all: &[&'static str], told: Told| {
        let all = all.to_vec();
        prop::sample::select(all).prop_map(move |it| (it.to_owned(), told.clone()))
    };
    prop_oneof![
        1 => fixed(&rows, Told::Rows),
        2 => fixed(&nothing, Told::Nothing),
        3 => error,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// An answer means what the table says, whatever else is wrong with it.
    #[test]
    fn an_answer_means_what_the_first_row_that_fits_it_says(
        status in prop::option::weighted(0.9, any_status()),
        failure in any_failure(),
        breaks in prop::bool::weighted(0.2),
        (body, told) in any_body(),
    ) {
        let whole = status.is_some() && !breaks;
        let mut exchange = Exchange::answered(status.unwrap_or(0), body);
        exchange.status = status;
        exchange.failure = (!whole).then(|| Failure {
            class: failure,
            message: "it broke".to_owned(),
        });
        let wanted = match (status, &told) {
            (None, _) => unanswered(failure),
            (Some(status), told) => meaning(status, whole, told),
        };
        let found = match outcome(&exchange) {
            Outcome::Applied(changes) => {
                prop_assert_eq!(changes.len(), 1);
                Meaning::Applied
            }
            Outcome::Refused { code, .. } => Meaning::Refused(code),
            Outcome::Retry { .. } => Meaning::NotNow,
            Outcome::Unknown { .. } => Meaning::Unknown,
            Outcome::Misconfigured { .. } => Meaning::Misconfigured,
            Outcome::Gone { .. } => Meaning::Gone,
        };
        prop_assert_eq!(&found, &wanted);
        // What is final, or nobody's fault but the source's, was certainly not applied.
        if matches!(found, Meaning::Refused(_) | Meaning::Misconfigured | Meaning::Gone) {
            prop_assert!(exchange.cannot_apply());
        }
    }
}
