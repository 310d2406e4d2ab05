//! How sources, their attempts and their pending commits look.

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
            ("retry", retry(source).join(" ")),
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
        ("next probe", moment(status.next_probe_time)),
    ]);
    output.record(|| status_json(status), &fields)
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

/// Commits that are not settled.
pub(super) fn pending(all: &[v1::PendingCommit], output: &mut Output) -> Result<(), Failure> {
    let header = [
        "seq",
        "commit",
        "by",
        "accepted",
        "attempts",
        "next",
        "last error",
        "dead",
    ];
    output.rows(all, pending_json, &header, |commit| {
        vec![
            commit.sequence.to_string(),
            commit.client_tx_id.clone(),
            commit
                .participant
                .as_ref()
                .map(|one| one.id.clone())
                .unwrap_or_default(),
            moment(commit.accept_time),
            commit.attempt_count.to_string(),
            moment(commit.next_attempt_time),
            error_text(commit.last_error.as_ref()),
            if commit.dead {
                "dead".to_owned()
            } else {
                String::new()
            },
        ]
    })
}

fn id(name: &str) -> &str {
    name.strip_prefix("dataSources/").unwrap_or(name)
}

fn span(span: Option<prost_types::Duration>) -> String {
    let span = span.and_then(|span| std::time::Duration::try_from(span).ok());
    span.map(duration::format).unwrap_or_default()
}

fn retry(source: &v1::DataSource) -> Vec<String> {
    let policy = source.retry_policy.as_ref();
    policy.map_or_else(Vec::new, |policy| {
        policy.delays.iter().map(|one| span(Some(*one))).collect()
    })
}

fn error_text(error: Option<&v1::RequestError>) -> String {
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
        v1::AttemptTrigger::Unspecified => "unknown",
    }
}

fn time_json(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

fn error_json(error: Option<&v1::RequestError>) -> Value {
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
        "retryDelays": retry(source),
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

fn pending_json(commit: &v1::PendingCommit) -> Value {
    json!({
        "sequence": commit.sequence,
        "clientTxId": commit.client_tx_id,
        "commitId": commit.commit_id,
        "participant": commit.participant.as_ref().map(|one| one.id.clone()),
        "acceptTime": time_json(commit.accept_time),
        "attemptCount": commit.attempt_count,
        "nextAttemptTime": time_json(commit.next_attempt_time),
        "lastError": error_json(commit.last_error.as_ref()),
        "dead": commit.dead,
    })
}
