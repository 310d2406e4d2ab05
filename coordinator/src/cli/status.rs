//! How sources and their attempts look.

use prost_types::Timestamp;
use proto::v1;
use serde_json::{Value, json};

use super::output::Output;
use crate::duration;
use crate::failure::Failure;

/// A time as RFC 3339; empty when absent.
pub(super) fn moment(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// One source.
pub(super) fn source(source: &v1::DataSource, output: &mut Output) -> Result<(), Failure> {
    output.record(
        || source_json(source),
        &[
            ("id", id(&source.name).to_owned()),
            ("url", source.url.clone()),
            ("state", state_word(source.state()).to_owned()),
            ("reason", source.state_reason.clone()),
            ("timeout", span(source.request_timeout)),
            ("in flight", source.max_in_flight.to_string()),
            ("per second", per_second(source)),
            ("may wait", source.max_pending.to_string()),
            ("retry", retry(source).join(" ")),
            ("feed lag", span(source.feed_lag)),
            ("created", moment(source.create_time)),
            ("updated", moment(source.update_time)),
        ],
    )
}

/// Many sources.
pub(super) fn sources(all: &[v1::DataSource], output: &mut Output) -> Result<(), Failure> {
    output.rows(
        all,
        source_json,
        &["id", "state", "url", "reason"],
        |source| {
            vec![
                id(&source.name).to_owned(),
                state_word(source.state()).to_owned(),
                source.url.clone(),
                source.state_reason.clone(),
            ]
        },
    )
}

/// How a source does.
pub(super) fn status(status: &v1::DataSourceStatus, output: &mut Output) -> Result<(), Failure> {
    let counts = |counts: &std::collections::HashMap<String, i64>| {
        let mut sorted: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
        sorted.sort_unstable();
        let texts: Vec<_> = sorted
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        texts.join(", ")
    };
    let overall = status.overall.clone().unwrap_or_default();
    let mut fields = vec![
        ("source", id(&status.name).to_owned()),
        ("state", state_word(status.state()).to_owned()),
        ("reason", status.state_reason.clone()),
        ("last success", moment(overall.last_success_time)),
        ("last error", error_text(overall.last_error.as_ref())),
    ];
    for kind in &status.kinds {
        let name = kind_word(kind.kind());
        let error = error_text(kind.last_error.as_ref());
        let separator = if error.is_empty() { "" } else { "; error " };
        fields.push((
            name,
            format!("{}{separator}{error}", moment(kind.last_success_time)),
        ));
    }
    fields.extend([
        ("attempts", counts(&status.attempts_by_outcome)),
        ("retries", counts(&status.retries_by_outcome)),
        ("pending", status.pending_count.to_string()),
        ("oldest", span(status.oldest_pending_age)),
        ("dead", status.dead_count.to_string()),
        ("failing since", moment(status.failing_since)),
        ("next probe", moment(status.next_probe_time)),
        ("certificate", moment(status.certificate_expire_time)),
    ]);
    fields.extend(status.warnings.iter().map(|line| ("warning", line.clone())));
    fields.extend(status.feed.as_ref().map(feed_fields).unwrap_or_default());
    output.record(|| status_json(status), &fields)
}

fn feed_fields(feed: &v1::FeedStatus) -> Vec<(&'static str, String)> {
    let cursor = |cursor: &str, durable: &str| match (cursor, durable) {
        ("", _) => String::new(),
        (cursor, "") => format!("{cursor} (swept from the start)"),
        (cursor, durable) if cursor == durable => cursor.to_owned(),
        (cursor, durable) => format!("{cursor} (swept from {durable})"),
    };
    vec![
        ("feed", feed_word(feed.state()).to_owned()),
        ("feed cursor", cursor(&feed.cursor, &feed.durable_cursor)),
        ("feed lag", span(feed.lag)),
        ("last event", moment(feed.last_event_time)),
        ("lateness", span(feed.largest_lateness)),
        (
            "events",
            format!(
                "taken {}, duplicates {}, echoes {}, quarantined {}, waiting {}",
                feed.taken_count,
                feed.duplicate_count,
                feed.echo_count,
                feed.quarantined_count,
                feed.pushed_count
            ),
        ),
    ]
}

fn feed_word(state: v1::FeedState) -> &'static str {
    match state {
        v1::FeedState::Polling => "polling",
        v1::FeedState::None => "none",
        v1::FeedState::Refused => "refused",
        v1::FeedState::Unspecified => "not read yet",
    }
}

fn feed_json(feed: &v1::FeedStatus) -> Value {
    json!({
        "state": feed_word(feed.state()),
        "cursor": feed.cursor,
        "durableCursor": feed.durable_cursor,
        "lag": feed.lag.map(|lag| span(Some(lag))),
        "lastEventTime": time_json(feed.last_event_time),
        "largestLateness": span(feed.largest_lateness),
        "takenCount": feed.taken_count,
        "duplicateCount": feed.duplicate_count,
        "echoCount": feed.echo_count,
        "quarantinedCount": feed.quarantined_count,
        "pushedCount": feed.pushed_count,
    })
}

/// Events that could not be taken in.
pub(super) fn quarantined(
    all: &[v1::QuarantinedEvent],
    output: &mut Output,
) -> Result<(), Failure> {
    let json = |event: &v1::QuarantinedEvent| {
        json!({
            "eventId": event.event_id,
            "time": time_json(event.time),
            "reason": event.reason,
            "message": event.message,
            "event": event.event,
        })
    };
    output.rows(
        all,
        json,
        &["came", "event", "reason", "message"],
        |event| {
            vec![
                moment(event.time),
                event.event_id.clone(),
                event.reason.clone(),
                event.message.clone(),
            ]
        },
    )
}

/// Delivery attempts.
pub(super) fn attempts(all: &[v1::Attempt], output: &mut Output) -> Result<(), Failure> {
    let header = [
        "started", "commit", "no", "trigger", "took", "http", "outcome", "error", "next",
    ];
    output.rows(all, attempt_json, &header, |attempt| {
        vec![
            moment(attempt.start_time),
            attempt.client_tx_id.clone(),
            attempt.number.to_string(),
            trigger_word(attempt.trigger()).to_owned(),
            span(attempt.duration),
            if attempt.http_status == 0 {
                String::new()
            } else {
                attempt.http_status.to_string()
            },
            attempt.outcome.clone(),
            attempt.error_class.clone(),
            moment(attempt.next_attempt_time),
        ]
    })
}

fn id(name: &str) -> &str {
    name.strip_prefix("dataSources/").unwrap_or(name)
}

pub(super) fn span(span: Option<prost_types::Duration>) -> String {
    let span = span.and_then(|span| std::time::Duration::try_from(span).ok());
    span.map(duration::format).unwrap_or_default()
}

/// Empty when there is no limit.
fn per_second(source: &v1::DataSource) -> String {
    match source.max_per_second {
        0 => String::new(),
        limit => limit.to_string(),
    }
}

fn retry(source: &v1::DataSource) -> Vec<String> {
    let policy = source.retry_policy.as_ref();
    policy.map_or_else(Vec::new, |policy| {
        policy.delays.iter().map(|one| span(Some(*one))).collect()
    })
}

pub(super) fn error_text(error: Option<&v1::RequestError>) -> String {
    let Some(error) = error else {
        return String::new();
    };
    let status = match error.http_status {
        0 => String::new(),
        status => format!(" {status}"),
    };
    format!(
        "{} {}{status}: {}",
        moment(error.time),
        error.error_class,
        error.message
    )
}

fn state_word(state: v1::DataSourceState) -> &'static str {
    match state {
        v1::DataSourceState::Enabled => "enabled",
        v1::DataSourceState::Failing => "failing",
        v1::DataSourceState::Disabled => "disabled",
        v1::DataSourceState::Paused => "paused",
        v1::DataSourceState::Unspecified => "unknown",
    }
}

fn kind_word(kind: v1::RequestKind) -> &'static str {
    match kind {
        v1::RequestKind::Commit => "commit",
        v1::RequestKind::Load => "load",
        v1::RequestKind::List => "list",
        v1::RequestKind::Events => "events",
        v1::RequestKind::Unspecified => "all",
    }
}

fn trigger_word(trigger: v1::AttemptTrigger) -> &'static str {
    match trigger {
        v1::AttemptTrigger::Accept => "accept",
        v1::AttemptTrigger::Schedule => "schedule",
        v1::AttemptTrigger::Recovery => "recovery",
        v1::AttemptTrigger::Takeover => "takeover",
        v1::AttemptTrigger::Manual => "manual",
        v1::AttemptTrigger::Echo => "echo",
        v1::AttemptTrigger::Unspecified => "unknown",
    }
}

pub(super) fn time_json(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

pub(super) fn error_json(error: Option<&v1::RequestError>) -> Value {
    error.map_or(Value::Null, |error| {
        json!({
            "time": time_json(error.time),
            "errorClass": error.error_class,
            "message": error.message,
            "httpStatus": error.http_status,
        })
    })
}

fn source_json(source: &v1::DataSource) -> Value {
    json!({
        "id": id(&source.name),
        "url": source.url,
        "state": state_word(source.state()),
        "stateReason": source.state_reason,
        "requestTimeout": span(source.request_timeout),
        "maxInFlight": source.max_in_flight,
        "maxPerSecond": source.max_per_second,
        "maxPending": source.max_pending,
        "feedLag": span(source.feed_lag),
        "retryDelays": retry(source),
        "feedLag": span(source.feed_lag),
        "createTime": time_json(source.create_time),
        "updateTime": time_json(source.update_time),
    })
}

fn status_json(status: &v1::DataSourceStatus) -> Value {
    let request = |one: &v1::RequestStatus| {
        json!({
            "kind": kind_word(one.kind()),
            "lastSuccessTime": time_json(one.last_success_time),
            "lastError": error_json(one.last_error.as_ref()),
        })
    };
    json!({
        "id": id(&status.name),
        "state": state_word(status.state()),
        "stateReason": status.state_reason,
        "overall": status.overall.as_ref().map(request),
        "kinds": status.kinds.iter().map(request).collect::<Vec<_>>(),
        "attemptsByOutcome": status.attempts_by_outcome,
        "retriesByOutcome": status.retries_by_outcome,
        "pendingCount": status.pending_count,
        "deadCount": status.dead_count,
        "oldestPendingAge": status.oldest_pending_age.map(|age| span(Some(age))),
        "nextProbeTime": time_json(status.next_probe_time),
        "certificateExpireTime": time_json(status.certificate_expire_time),
        "failingSince": time_json(status.failing_since),
        "warnings": status.warnings,
        "feed": status.feed.as_ref().map(feed_json),
    })
}

fn attempt_json(attempt: &v1::Attempt) -> Value {
    json!({
        "clientTxId": attempt.client_tx_id,
        "commitId": attempt.commit_id,
        "number": attempt.number,
        "trigger": trigger_word(attempt.trigger()),
        "startTime": time_json(attempt.start_time),
        "duration": attempt.duration.map(|took| span(Some(took))),
        "httpStatus": attempt.http_status,
        "outcome": attempt.outcome,
        "errorClass": attempt.error_class,
        "message": attempt.message,
        "responseExcerpt": attempt.response_excerpt,
        "nextAttemptTime": time_json(attempt.next_attempt_time),
    })
}
