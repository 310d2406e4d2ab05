//! Domain types as the messages of the wire.

mod warnings;

use std::time::Duration;

use backends::operation::OperationKind;
use prost::Message;
use proto::v1;
use time::OffsetDateTime;

use super::names;
use super::server::LARGEST_MESSAGE;
use crate::decide::OUTCOMES;
use crate::domain::{
    CommitState, Delta, FeedState, Participant, ParticipantKind, Receipt, RequestError,
    RequestKind, SourceState, Trigger,
};
use crate::service::SchemaVersion;
use crate::store::attempts::Attempt;
use crate::store::feeds::QuarantinedEvent;
use crate::store::pending::Pending;
use crate::store::sources::{FeedStanding, Requests, Source, Status};

/// What a receipt leaves of a message to what it may stand in.
const ENVELOPE: usize = 2 << 10;

pub(super) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.nanosecond()).expect("less than 10^9");
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos,
    }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(duration.subsec_nanos()).expect("less than 10^9");
    prost_types::Duration { seconds, nanos }
}

/// A receipt, with the rows that it confirms, unless they are too large for one message: then, as for
/// rows that the log no longer holds, without them.
pub(super) fn receipt(receipt: Receipt) -> v1::Receipt {
    let mut encoded = whole_receipt(receipt);
    if encoded.encoded_len() > LARGEST_MESSAGE - ENVELOPE {
        encoded.changes.clear();
        encoded.changes_expired = true;
    }
    encoded
}

fn whole_receipt(receipt: Receipt) -> v1::Receipt {
    let assigned_ids = receipt.assigned.iter().map(|position| v1::AssignedId {
        operation_index: i32::from(*position),
        id: receipt
            .id
            .assigned_id(usize::try_from(*position).unwrap_or_default()),
    });
    v1::Receipt {
        commit_id: receipt.id.to_string(),
        state: commit_state(receipt.state).into(),
        changes_expired: receipt.changes_expired,
        data_source: receipt
            .source
            .as_deref()
            .map(names::source)
            .unwrap_or_default(),
        accept_time: Some(timestamp(receipt.accepted_at)),
        settle_time: receipt.settled_at.map(timestamp),
        attempt_count: receipt.attempts,
        assigned_ids: assigned_ids.collect(),
        dead: receipt.dead,
        reenter_time: receipt.reentered_at.map(timestamp),
        feed_read_time: receipt.feed_read_at.map(timestamp),
        changes: receipt.deltas.into_iter().map(row_change).collect(),
        error: receipt
            .error
            .map(|(code, message)| v1::CommitError { code, message }),
        client_tx_id: receipt.client_tx_id,
    }
}

fn row_change(delta: Delta) -> v1::RowChange {
    let Delta {
        sync_id,
        change,
        stale,
    } = delta;
    let row = change.row.map(|row| row.bytes());
    v1::RowChange {
        operation_index: change.operation.and_then(|index| i32::try_from(index).ok()),
        r#type: operation_type(change.kind).into(),
        model: change.model,
        id: change.id,
        row_json: row.unwrap_or_default(),
        sync_id,
        stale,
    }
}

fn commit_state(state: CommitState) -> v1::CommitState {
    match state {
        CommitState::Queued => v1::CommitState::Queued,
        CommitState::Confirmed => v1::CommitState::Confirmed,
        CommitState::Rejected => v1::CommitState::Rejected,
    }
}

fn operation_type(kind: OperationKind) -> v1::OperationType {
    match kind {
        OperationKind::Create => v1::OperationType::Create,
        OperationKind::Update => v1::OperationType::Update,
        OperationKind::Delete => v1::OperationType::Delete,
        OperationKind::Archive => v1::OperationType::Archive,
        OperationKind::Unarchive => v1::OperationType::Unarchive,
    }
}

/// A version of a schema.
pub(super) fn schema(version: SchemaVersion) -> v1::Schema {
    v1::Schema {
        version: version.version,
        document_json: version.document.into(),
        create_time: Some(timestamp(version.created_at)),
        active: version.active,
    }
}

/// A source and its settings.
pub(super) fn source(source: Source) -> v1::DataSource {
    let delays = source
        .settings
        .retry
        .delays
        .iter()
        .copied()
        .map(duration)
        .collect();
    v1::DataSource {
        name: names::source(&source.id),
        url: source.settings.url,
        state: source_state(source.state).into(),
        state_reason: source.state_reason,
        retry_policy: Some(v1::RetryPolicy { delays }),
        request_timeout: Some(duration(source.settings.request_timeout)),
        max_in_flight: source.settings.max_in_flight,
        max_per_second: source.settings.max_per_second,
        max_pending: source.settings.max_pending,
        feed_lag: Some(duration(source.settings.feed_lag)),
        create_time: Some(timestamp(source.created_at)),
        update_time: Some(timestamp(source.updated_at)),
    }
}

fn source_state(state: SourceState) -> v1::DataSourceState {
    match state {
        SourceState::Enabled => v1::DataSourceState::Enabled,
        SourceState::Failing => v1::DataSourceState::Failing,
        SourceState::Disabled => v1::DataSourceState::Disabled,
        SourceState::Paused => v1::DataSourceState::Paused,
    }
}

/// How a source does.
pub(super) fn source_status(id: &str, status: Status) -> v1::DataSourceStatus {
    let by_outcome = |counts: &[i64]| {
        OUTCOMES
            .iter()
            .map(|outcome| (*outcome).to_owned())
            .zip(counts.iter().copied())
            .collect()
    };
    let failing = status.state == SourceState::Failing;
    v1::DataSourceStatus {
        warnings: warnings::of(&status),
        failing_since: status.failing_since.filter(|_| failing).map(timestamp),
        name: names::source(id),
        state: source_state(status.state).into(),
        state_reason: status.state_reason,
        overall: Some(overall(&status.requests)),
        attempts_by_outcome: by_outcome(&status.attempts_by_outcome),
        retries_by_outcome: by_outcome(&status.retries_by_outcome),
        pending_count: status.pending,
        dead_count: status.dead,
        oldest_pending_age: status.oldest_pending.map(duration),
        next_probe_time: status.backoff_until.map(timestamp),
        certificate_expire_time: status.certificate_expires_at.map(timestamp),
        kinds: status.requests.into_iter().map(requests).collect(),
        feed: Some(feed(status.feed, status.pushed)),
    }
}

fn feed(standing: Option<FeedStanding>, pushed: i64) -> v1::FeedStatus {
    let Some(feed) = standing else {
        return v1::FeedStatus {
            pushed_count: pushed,
            ..v1::FeedStatus::default()
        };
    };
    let state = match feed.state {
        FeedState::Polling => v1::FeedState::Polling,
        FeedState::None => v1::FeedState::None,
        FeedState::Refused => v1::FeedState::Refused,
    };
    v1::FeedStatus {
        state: state.into(),
        cursor: feed.newest_cursor.unwrap_or_default(),
        durable_cursor: feed.durable_cursor.unwrap_or_default(),
        lag: feed.lag.map(duration),
        last_event_time: feed.last_event_at.map(timestamp),
        largest_lateness: Some(duration(feed.largest_lateness)),
        taken_count: feed.taken,
        duplicate_count: feed.duplicates,
        echo_count: feed.echoes,
        quarantined_count: feed.quarantined,
        pushed_count: pushed,
    }
}

/// An event that could not be taken in.
pub(super) fn quarantined(event: QuarantinedEvent) -> v1::QuarantinedEvent {
    v1::QuarantinedEvent {
        event_id: event.event_id,
        time: Some(timestamp(event.seen_at)),
        reason: event.reason,
        message: event.message,
        event: event.event,
    }
}

/// The last success and the last error over all kinds.
fn overall(requests: &[Requests]) -> v1::RequestStatus {
    let last_error = requests.iter().filter_map(|one| one.last_error.clone());
    v1::RequestStatus {
        kind: v1::RequestKind::Unspecified.into(),
        last_success_time: requests
            .iter()
            .filter_map(|one| one.last_success)
            .max()
            .map(timestamp),
        last_error: last_error.max_by_key(|error| error.at).map(request_error),
    }
}

fn requests(requests: Requests) -> v1::RequestStatus {
    let kind = match requests.kind {
        RequestKind::Commit => v1::RequestKind::Commit,
        RequestKind::Load => v1::RequestKind::Load,
        RequestKind::List => v1::RequestKind::List,
        RequestKind::Events => v1::RequestKind::Events,
    };
    v1::RequestStatus {
        kind: kind.into(),
        last_success_time: requests.last_success.map(timestamp),
        last_error: requests.last_error.map(request_error),
    }
}

fn request_error(error: RequestError) -> v1::RequestError {
    v1::RequestError {
        time: Some(timestamp(error.at)),
        error_class: error.class,
        message: error.message,
        http_status: error.http_status,
    }
}

/// One request made to deliver one commit.
pub(super) fn attempt(attempt: Attempt) -> v1::Attempt {
    let trigger = match attempt.trigger {
        Trigger::Accept => v1::AttemptTrigger::Accept,
        Trigger::Schedule => v1::AttemptTrigger::Schedule,
        Trigger::Recovery => v1::AttemptTrigger::Recovery,
        Trigger::Takeover => v1::AttemptTrigger::Takeover,
        Trigger::Manual => v1::AttemptTrigger::Manual,
        Trigger::Echo => v1::AttemptTrigger::Echo,
    };
    let took = attempt
        .duration_ms
        .and_then(|milliseconds| u64::try_from(milliseconds).ok());
    v1::Attempt {
        client_tx_id: attempt.client_tx_id,
        commit_id: attempt.commit.to_string(),
        number: attempt.number,
        trigger: trigger.into(),
        start_time: Some(timestamp(attempt.started_at)),
        duration: took.map(Duration::from_millis).map(duration),
        http_status: attempt.http_status.unwrap_or_default(),
        outcome: attempt.outcome.unwrap_or_default(),
        error_class: attempt.error_class.unwrap_or_default(),
        message: attempt.message.unwrap_or_default(),
        response_excerpt: attempt.response_excerpt.unwrap_or_default(),
        next_attempt_time: attempt.next_attempt_at.map(timestamp),
    }
}

/// A commit that is not settled.
pub(super) fn pending(pending: Pending) -> v1::PendingCommit {
    let (read_back_at, read_back) = pending.read_back.unzip();
    v1::PendingCommit {
        client_tx_id: pending.client_tx_id,
        commit_id: pending.id.to_string(),
        sequence: pending.sequence,
        participant: Some(participant(pending.participant)),
        accept_time: Some(timestamp(pending.accepted_at)),
        attempt_count: pending.attempts,
        next_attempt_time: pending.due_at.map(timestamp),
        last_error: pending.last_error.map(request_error),
        dead: pending.dead,
        failing_since: pending.first_failed_at.map(timestamp),
        expire_time: pending.expires_at.map(timestamp),
        attempt_deadline: pending.open_deadline.map(timestamp),
        may_apply_until: pending.may_apply_until.map(timestamp),
        blocked_by: pending.blocked_by.unwrap_or_default(),
        read_back: read_back.unwrap_or_default(),
        read_back_time: read_back_at.map(timestamp),
    }
}

fn participant(participant: Participant) -> v1::Participant {
    let kind = match participant.kind {
        ParticipantKind::User => v1::ParticipantKind::User,
        ParticipantKind::Agent => v1::ParticipantKind::Agent,
        ParticipantKind::System => v1::ParticipantKind::System,
    };
    v1::Participant {
        id: participant.id,
        kind: kind.into(),
    }
}

#[cfg(test)]
mod tests;
