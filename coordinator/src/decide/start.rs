//! Recording an attempt before its first byte leaves.

use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append::{Append, AttemptClose, AttemptOpen};
use super::settle::SIGNATURE_TOLERANCE;
use super::state::{InboxEntry, Source, State};
use super::{NotStartable, Reply};
use crate::domain::{CommitId, RequestError, RequestKind, SourceState, Trigger};

/// Asks for an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The source.
    pub source: String,
    /// The epoch that the asking node owns it under.
    pub epoch: i64,
    /// Which of its commits.
    pub sequence: i64,
    /// The asking node.
    pub node: Uuid,
}

/// An attempt that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The `webhook-id`.
    pub id: CommitId,
    /// The commit, by its caller's name.
    pub client_tx_id: String,
    /// The exact bytes to send.
    pub body: Bytes,
    /// 1 for the commit's first.
    pub number: i32,
    /// Why it is made.
    pub trigger: Trigger,
    /// When it was recorded.
    pub started_at: OffsetDateTime,
    /// The longest that the request may take.
    pub timeout: Duration,
    /// The endpoint.
    pub url: String,
    /// W3C trace context of the call that brought the commit.
    pub traceparent: Option<String>,
}

pub(super) fn start(state: &mut State, append: &mut Append, start: &Start) -> Reply {
    let now = state.now;
    let key = (start.source.clone(), start.sequence);
    let Some(source) = state
        .sources
        .get_mut(&start.source)
        .filter(|one| one.epoch == start.epoch)
    else {
        return Reply::Fenced;
    };
    let Some(entry) = state.inbox.get_mut(&key).filter(|entry| !entry.dead) else {
        return Reply::NotStartable(NotStartable::Finished);
    };
    if source.state == SourceState::Disabled {
        return Reply::NotStartable(NotStartable::Disabled);
    }
    if let Some(until) = wait(source, entry, now) {
        return Reply::NotStartable(NotStartable::Until(until));
    }
    let early = entry.due_at > now;
    let lost = entry.open.take();
    if let Some(open) = lost {
        close_lost(append, source, entry, (open, now));
    }
    let trigger = match (entry.attempts, lost.is_some(), early) {
        (0, ..) => Trigger::Accept,
        (_, true, _) => Trigger::Takeover,
        (_, _, true) => Trigger::Recovery,
        _ => Trigger::Schedule,
    };
    let started = open(source, entry, (trigger, now));
    append.attempts_opened.push(AttemptOpen {
        source: start.source.clone(),
        id: entry.id,
        client_tx_id: entry.client_tx_id.clone(),
        number: entry.attempts,
        trigger,
        node: start.node,
        deadline: now + started.timeout,
    });
    append.inbox_changed.insert(key, entry.clone());
    Reply::Started(Box::new(started))
}

fn open(
    source: &Source,
    entry: &mut InboxEntry,
    (trigger, now): (Trigger, OffsetDateTime),
) -> Started {
    let timeout = source.settings.request_timeout;
    entry.attempts += 1;
    entry.open = Some((now, now + timeout));
    Started {
        id: entry.id,
        client_tx_id: entry.client_tx_id.clone(),
        body: entry.body.clone(),
        number: entry.attempts,
        trigger,
        started_at: now,
        timeout,
        url: source.settings.url.clone(),
        traceparent: entry.traceparent.clone(),
    }
}

/// What the entry must wait for: the end of an attempt that may still be in flight, the source's
/// back-off, its own schedule unless the source recovered since it failed.
fn wait(source: &Source, entry: &InboxEntry, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let open = entry.open.map(|(_, deadline)| deadline);
    let due = (!entry.recovered_by(source)).then_some(entry.due_at);
    [open, source.backoff_until, due]
        .into_iter()
        .flatten()
        .filter(|until| *until > now)
        .max()
}

/// The node that made the attempt is gone: nobody knows what became of it. It spends nothing.
fn close_lost(
    append: &mut Append,
    source: &mut Source,
    entry: &mut InboxEntry,
    ((started_at, deadline), now): ((OffsetDateTime, OffsetDateTime), OffsetDateTime),
) {
    let outcome = "unknown";
    let message = "the node that made this attempt was lost before it recorded the answer";
    source.count(outcome, entry.attempts > 1);
    append.put_source(source, false);
    let may_apply_until = Some(deadline + SIGNATURE_TOLERANCE);
    entry.may_apply_until = entry.may_apply_until.max(may_apply_until);
    let error = RequestError {
        at: now,
        class: "owner_lost".to_owned(),
        message: message.to_owned(),
        http_status: 0,
    };
    entry.last_error = Some(error.clone());
    let kind = (entry.source.clone(), RequestKind::Commit);
    append.requests.entry(kind).or_default().error = Some(error);
    append.attempts_closed.push(AttemptClose {
        source: entry.source.clone(),
        client_tx_id: entry.client_tx_id.clone(),
        id: entry.id,
        number: entry.attempts,
        started_at,
        duration: None,
        http_status: None,
        outcome,
        error: Some(("owner_lost".to_owned(), message.to_owned())),
        excerpt: None,
        next_attempt_at: Some(now),
    });
}
