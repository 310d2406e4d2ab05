//! How commits that wait, and what was done to them, look.

use proto::v1;
use serde_json::{Value, json};

use crate::cli::output::Output;
use crate::cli::status::{error_json, error_text, moment, time_json};
use crate::failure::Failure;

/// Commits that are not settled. One alone is shown with all that is known of it.
pub(super) fn pending(all: &[v1::PendingCommit], output: &mut Output) -> Result<(), Failure> {
    let header = [
        "seq",
        "commit",
        "by",
        "accepted",
        "attempts",
        "failing since",
        "next",
        "last error",
        "state",
        "blocked by",
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
            moment(commit.failing_since),
            moment(commit.next_attempt_time),
            error_text(commit.last_error.as_ref()),
            state(commit).to_owned(),
            commit.blocked_by.clone(),
        ]
    })
}

/// Where a commit stands, in a word or two.
fn state(commit: &v1::PendingCommit) -> &'static str {
    if commit.dead {
        "dead"
    } else if commit.attempt_deadline.is_some() {
        "in flight"
    } else if commit.failing_since.is_some() {
        "failing"
    } else {
        "waiting"
    }
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
        "failingSince": time_json(commit.failing_since),
        "expireTime": time_json(commit.expire_time),
        "attemptDeadline": time_json(commit.attempt_deadline),
        "mayApplyUntil": time_json(commit.may_apply_until),
        "blockedBy": commit.blocked_by,
        "readBack": commit.read_back,
        "readBackTime": time_json(commit.read_back_time),
    })
}

/// What became of a retry.
pub(super) fn retried(
    count: usize,
    answer: &v1::RetryCommitsResponse,
    output: &mut Output,
) -> Result<(), Failure> {
    output.record(
        || json!({"retried": count, "reentered": answer.reentered}),
        &[
            ("retried", count.to_string()),
            ("at the end", answer.reentered.join(" ")),
        ],
    )
}

/// How many commits something was done to.
pub(super) fn count(what: &str, count: i64, output: &mut Output) -> Result<(), Failure> {
    output.record(|| json!({ what: count }), &[(what, count.to_string())])
}

/// What operators did.
pub(super) fn actions(all: &[v1::Action], output: &mut Output) -> Result<(), Failure> {
    let header = ["time", "verb", "commit", "actor", "key", "detail"];
    output.rows(all, action_json, &header, |action| {
        vec![
            moment(action.time),
            action.verb.clone(),
            action.client_tx_id.clone(),
            action.actor.clone(),
            action.api_key_id.clone(),
            action.detail.clone(),
        ]
    })
}

fn action_json(action: &v1::Action) -> Value {
    json!({
        "time": time_json(action.time),
        "verb": action.verb,
        "clientTxId": action.client_tx_id,
        "apiKeyId": action.api_key_id,
        "actor": action.actor,
        "detail": action.detail,
    })
}
