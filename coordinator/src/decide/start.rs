//! Recording an attempt before its first byte leaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::append::{Append, AttemptClose, AttemptOpen, Departed};
use super::settle::SIGNATURE_TOLERANCE;
use super::state::{InboxEntry, Source, State, Touched};
use super::terms::{Guard, Terms};
use super::{NotStartable, Reply, over, terms};
use crate::domain::{Commit, CommitId, RequestError, RequestKind, SourceState, Trigger};

/// Attempts after which a 5xx answer makes the next one look first: a handler that fails on a row
/// that exists answers no better.
const LOOKS_AFTER: i32 = 2;

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
    /// What the attempt rests on, as the inbox said; nothing, for most commits.
    pub terms: Option<Arc<Terms>>,
    /// The [`Source::inbox_revision`] that it knows the order of the commits by.
    pub revision: i64,
    /// Bytes of the commit's body, for the size of a batch.
    pub weight: usize,
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
    /// The schema that the commit was admitted under, if that is known.
    pub schema_version: Option<i32>,
    /// The endpoint failed at it before, and nobody has looked yet what it then held: rows that it
    /// creates are read before it is sent again.
    pub looks_first: bool,
}

pub(super) fn touch(start: &Start, touched: &mut Touched) {
    touched.entry(&start.source, start.sequence, true);
    if let Some(terms) = &start.terms {
        touched.commits.push(terms.client_tx_id.clone());
        touched.versions.extend(terms.guards.iter().map(Guard::key));
    }
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
    if source.inbox_revision != start.revision {
        return Reply::NotStartable(NotStartable::Reread);
    }
    let Some(entry) = state.inbox.get_mut(&key) else {
        return Reply::NotStartable(NotStartable::Finished);
    };
    if entry.dead {
        // Who asks took over from a courier that was told so.
        return Reply::NotStartable(over::of_dead(entry, now));
    }
    if matches!(source.state, SourceState::Disabled | SourceState::Paused) {
        return Reply::NotStartable(NotStartable::Disabled);
    }
    if over::is_over(entry, now) {
        return Reply::NotStartable(over::end(state, append, &key));
    }
    if let Some(until) = wait(source, entry, now) {
        return Reply::NotStartable(NotStartable::Until(until));
    }
    if let (Some(terms), 0) = (&start.terms, entry.attempts) {
        match terms::judge(&state.versions, &terms.guards) {
            Ok(flagged) => flag(entry, flagged),
            Err(rule) => {
                over::reject(state, append, &key, ("stale_context", &rule));
                return Reply::NotStartable(NotStartable::Finished);
            }
        }
    }
    let early = entry.due_at > now;
    let lost = entry.open.take();
    if let Some(open) = lost {
        close_lost(append, source, entry, (open, now));
    }
    let trigger = cause(entry, lost.is_some(), early);
    let started = open(
        append,
        source,
        entry,
        (trigger, start.node, (now, state.behind)),
    );
    append.inbox_changed.insert(key, entry.clone());
    Reply::Started(Box::new(started))
}

/// Why the attempt is made.
fn cause(entry: &mut InboxEntry, lost: bool, early: bool) -> Trigger {
    match (entry.next_cause.take(), entry.attempts, lost, early) {
        (Some(asked), ..) => asked,
        (None, 0, ..) => Trigger::Accept,
        (None, _, true, _) => Trigger::Takeover,
        (None, _, _, true) => Trigger::Recovery,
        (None, ..) => Trigger::Schedule,
    }
}

fn flag(entry: &mut InboxEntry, stale: Vec<i16>) {
    entry.flagged.extend(stale);
    entry.flagged.sort_unstable();
    entry.flagged.dedup();
}

/// Leave for commits to depart with their accept, as a source's courier gives it on the node that
/// owns the source: nothing that is known of keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// The node.
    pub node: Uuid,
    /// The epoch that it owns the source under.
    pub epoch: i64,
    /// The [`Source::inbox_revision`] that the courier knows the order of the commits by.
    pub revision: i64,
    /// The commits, by their callers' names.
    pub commits: HashSet<String>,
}

impl Leave {
    /// Whether the source, as it stands in the batch by now, still lets this commit depart.
    pub(super) fn allows(&self, source: &Source, client_tx_id: &str, now: OffsetDateTime) -> bool {
        self.commits.contains(client_tx_id)
            && source.owner == Some(self.node)
            && source.epoch == self.epoch
            && source.inbox_revision == self.revision
            && source.state == SourceState::Enabled
            && source.backoff_until.is_none_or(|until| until <= now)
    }
}

/// Records the first attempt of a commit that is just being accepted, if it has leave.
pub(super) fn depart(
    state: &State,
    append: &mut Append,
    (commit, entry): (&Arc<Commit>, &mut InboxEntry),
) {
    let leave = state.leaves.get(&entry.source);
    let Some((leave, source)) = leave.zip(state.sources.get(&entry.source)) else {
        return;
    };
    if !leave.allows(source, &entry.client_tx_id, state.now) {
        return;
    }
    let opening = (Trigger::Accept, leave.node, (state.now, state.behind));
    let started = open(append, source, entry, opening);
    append.departed.push(Departed {
        source: entry.source.clone(),
        sequence: entry.sequence,
        started: Arc::new(started),
        commit: Arc::clone(commit),
    });
}

fn open(
    append: &mut Append,
    source: &Source,
    entry: &mut InboxEntry,
    (trigger, node, (now, behind)): (Trigger, Uuid, (OffsetDateTime, Duration)),
) -> Started {
    let timeout = source.settings.request_timeout;
    // It counts from some moment after the request for the attempt.
    let deadline = now + behind + timeout;
    let failed = entry.last_error.as_ref();
    let looks_first = entry.attempts >= LOOKS_AFTER
        && entry.read_back.is_none()
        && failed.is_some_and(|error| error.http_status >= 500);
    entry.attempts += 1;
    entry.open = Some((now, deadline));
    append.attempts_opened.push(AttemptOpen {
        source: entry.source.clone(),
        id: entry.id,
        client_tx_id: entry.client_tx_id.clone(),
        number: entry.attempts,
        trigger,
        node,
        deadline,
    });
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
        schema_version: entry.schema_version,
        looks_first,
    }
}

/// What the entry must wait for: the end of an attempt that may still be in flight and, unless
/// somebody asked for this one, the source's back-off, and its own schedule unless the source
/// recovered since it failed.
fn wait(source: &Source, entry: &InboxEntry, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let open = entry.open.map(|(_, deadline)| deadline);
    let due = (!entry.recovered_by(source)).then_some(entry.due_at);
    let waits = [source.backoff_until, due];
    let asked = entry.is_asked();
    [open]
        .into_iter()
        .chain(waits.into_iter().filter(|_| !asked))
        .flatten()
        .filter(|until| *until > now)
        .max()
}

/// The node that made the attempt is gone: nobody knows what became of it. It spends nothing.
pub(super) fn close_lost(
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
