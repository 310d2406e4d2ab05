//! What answers are taken for.

use std::time::{Duration, SystemTime};

use backends::data_source::exchange::{Exchange, FailureClass};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use super::judgement::{Alone, Answers, certificate_ending};
use super::{Check, Verification};

const NOW: OffsetDateTime = datetime!(2026-12-01 12:00 UTC);

fn error(status: u16, code: &str) -> Exchange {
    Exchange::answered(status, json!({"error": code}).to_string())
}

fn refused() -> Exchange {
    error(401, "source_signature_invalid")
}

/// The endpoint's clock, against a request that was made at noon and took no time.
fn told(skew: i64, mut answer: Exchange) -> Exchange {
    answer.started = NOW.into();
    answer.server_date = Some(SystemTime::from(NOW + time::Duration::seconds(skew)));
    answer
}

/// What an endpoint answers that does everything.
fn honest() -> Answers {
    let alone = |id, answer| Alone {
        id: Uuid::from_u128(id),
        shown: format!("sk_test_k{id}"),
        answer,
    };
    let events = || told(0, Exchange::answered(200, r#"{"events": []}"#));
    let mut tls = events();
    tls.certificate_expires_at = Some(SystemTime::from(datetime!(2027-06-01 0:00 UTC)));
    Answers {
        https: true,
        model_known: true,
        row: "made-up".to_owned(),
        now: NOW,
        events: tls,
        load: Exchange::answered(200, r#"{"row": null}"#),
        list: Exchange::answered(200, r#"{"rows": [{"id": "a"}]}"#),
        commit: error(400, "source_commit_invalid"),
        stranger: Some(refused()),
        alone: vec![alone(2, refused()), alone(1, events())],
    }
}

fn check<'a>(found: &'a Verification, name: &str) -> &'a Check {
    found.checks.iter().find(|it| it.name == name).unwrap()
}

/// The check fails, and the message has each of these.
fn fails(answers: &Answers, name: &str, words: &[&str]) {
    let found = answers.judged();
    let check = check(&found, name);
    assert!(!check.ok && !found.is_ok(), "{name}: {}", check.message);
    for word in words {
        assert!(check.message.contains(word), "{word}: {}", check.message);
    }
    assert!(found.faults().contains(&check.message));
}

/// The check passes, and the message has each of these.
fn passes(answers: &Answers, name: &str, words: &[&str]) {
    let found = answers.judged();
    let check = check(&found, name);
    assert!(check.ok, "{name}: {}", check.message);
    for word in words {
        assert!(check.message.contains(word), "{word}: {}", check.message);
    }
}

#[test]
fn an_honest_endpoint_passes_every_check() {
    let found = honest().judged();
    assert!(found.is_ok(), "{found:#?}");
    let names: Vec<_> = found.checks.iter().map(|check| check.name).collect();
    let expected = [
        "reachable",
        "tls",
        "signature",
        "clock",
        "commit",
        "load",
        "list",
        "events",
    ];
    assert_eq!(names, expected);
    let accepted: Vec<_> = found.keys.iter().map(|key| key.accepted).collect();
    assert_eq!(accepted, [Some(false), Some(true)]);
    passes(&honest(), "signature", &["1 of 2 live keys: sk_test_k1…"]);
    passes(&honest(), "tls", &["valid until 2027-06-01"]);
    assert_eq!(found.requests.len(), 3);
    assert!(found.requests.iter().all(|(_, last)| last.succeeded));
}

#[test]
fn what_an_endpoint_need_not_serve_it_need_not_serve() {
    let mut answers = honest();
    answers.load = error(404, "source_load_not_configured");
    answers.list = error(404, "source_list_not_configured");
    answers.events = error(404, "source_events_not_configured");
    for kind in ["load", "list", "events"] {
        passes(&answers, kind, &["need not be"]);
    }
    assert!(answers.judged().requests.is_empty());
    answers.commit = error(404, "source_commit_not_configured");
    fails(
        &answers,
        "commit",
        &["source_commit_not_configured", "serve commits"],
    );
}

#[test]
fn a_model_that_no_schema_has_may_be_refused() {
    let mut answers = honest();
    answers.load = error(422, "model_unknown");
    fails(&answers, "load", &["model_unknown", "answer 200"]);
    answers.model_known = false;
    passes(&answers, "load", &["422 model_unknown"]);
    answers.load = Exchange::answered(500, "oops");
    fails(&answers, "load", &["500"]);
}

#[test]
fn a_key_that_the_endpoint_does_not_know_is_named() {
    let mut answers = honest();
    for answer in [
        &mut answers.events,
        &mut answers.load,
        &mut answers.list,
        &mut answers.commit,
    ] {
        *answer = refused();
    }
    let words = [
        "answered 401 source_signature_invalid",
        "not one of this organization's: sk_test_k2…, sk_test_k1…",
    ];
    fails(&answers, "signature", &words);
    fails(&answers, "commit", &["see `signature`"]);
}

#[test]
fn an_endpoint_that_takes_any_key_fails() {
    let mut answers = honest();
    answers.stranger = Some(Exchange::answered(200, r#"{"events": []}"#));
    fails(
        &answers,
        "signature",
        &["a key that nobody has was answered 200", "401"],
    );
    answers.stranger = Some(Exchange::failed(FailureClass::TimeoutAfterSend, "too late"));
    fails(&answers, "signature", &["not known", "too late"]);
}

#[test]
fn clocks_may_be_half_a_minute_apart_and_not_five() {
    let mut answers = honest();
    for (skew, words) in [
        (29, "the clocks agree"),
        (-29, "the clocks agree"),
        (180, "3 min ahead of ours: at 5 min"),
        (-180, "3 min behind ours: at 5 min"),
    ] {
        answers.events = told(skew, answers.events.clone());
        passes(&answers, "clock", &[words]);
    }
    answers.events = told(-420, answers.events.clone());
    fails(&answers, "clock", &["7 min behind ours", "set the clocks"]);
    answers.events.server_date = None;
    passes(&answers, "clock", &["no Date"]);
}

#[test]
fn a_refused_timestamp_is_the_clocks_fault_not_the_keys() {
    let mut answers = honest();
    answers.load = told(600, error(401, "source_timestamp_expired"));
    answers.events.server_date = None;
    answers.alone[1].answer = answers.load.clone();
    let words = ["401 source_timestamp_expired", "10 min ahead of ours"];
    fails(&answers, "clock", &words);
    fails(&answers, "signature", &["see `clock`"]);
    assert_eq!(answers.judged().keys[1].accepted, None);
}

#[test]
fn what_keeps_a_request_from_arriving_is_said_with_what_to_mend() {
    for (class, check, mend) in [
        (FailureClass::Dns, "reachable", "the name's records"),
        (FailureClass::Connect, "reachable", "start the app"),
        (FailureClass::AddressForbidden, "reachable", "mend the URL"),
        (FailureClass::TimeoutAfterSend, "reachable", "answers POST"),
        (FailureClass::Tls, "tls", "a certificate for its name"),
    ] {
        let failed = || Exchange::failed(class, "as it was seen");
        let answers = Answers {
            events: failed(),
            load: failed(),
            list: failed(),
            commit: failed(),
            stranger: None,
            alone: Vec::new(),
            ..honest()
        };
        fails(&answers, check, &["as it was seen", mend]);
        let found = answers.judged();
        assert_eq!(
            found.checks.len(),
            2,
            "nothing is said of what was not seen"
        );
        assert!(found.requests.iter().all(|(_, last)| last.failed.is_some()));
    }
}

#[test]
fn a_certificate_is_warned_of_from_a_fortnight_on() {
    let day = |day| certificate_ending(NOW + time::Duration::days(day), NOW);
    assert_eq!(day(15), None);
    assert!(day(14).unwrap().contains("ends on 2026-12-15, in 14 days"));
    assert!(day(1).unwrap().contains("ends on 2026-12-02"));
    assert!(day(-1).unwrap().contains("ended on 2026-11-30"));
    let mut answers = honest();
    let soon = NOW + time::Duration::days(3);
    answers.events.certificate_expires_at = Some(soon.into());
    passes(&answers, "tls", &["in 3 days: renew it"]);
}

#[test]
fn a_check_tells_how_long_its_request_took() {
    let mut answers = honest();
    answers.load.elapsed = Duration::from_millis(70);
    let found = answers.judged();
    assert_eq!(
        check(&found, "load").latency,
        Some(Duration::from_millis(70))
    );
    assert_eq!(check(&found, "clock").latency, None);
}
