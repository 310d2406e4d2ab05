//! A commit that ends without another attempt: its time is over, or the view that it rests on is.

use backends::data_source::wire;
use backends::operation::Operation;
use time::OffsetDateTime;

use super::append::Append;
use super::settle::{Ending, SIGNATURE_TOLERANCE};
use super::start::close_lost;
use super::state::{InboxEntry, State, Touched};
use super::{NotStartable, Reply};

/// Asks to reject a commit whose time is over. It may stand behind others: it is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expire {
    /// The source.
    pub source: String,
    /// The epoch that the asking node owns it under.
    pub epoch: i64,
    /// Which of its commits.
    pub sequence: i64,
    /// That commit, by its caller's name.
    pub client_tx_id: String,
    /// Bytes of its body, for the size of a batch.
    pub weight: usize,
}

pub(super) fn touch(expire: &Expire, touched: &mut Touched) {
    touched.entry(&expire.source, expire.sequence, true);
    touched.commits.push(expire.client_tx_id.clone());
}

/// As a start answers, though nothing is ever started.
pub(super) fn expire(state: &mut State, append: &mut Append, expire: &Expire) -> Reply {
    let source = state.sources.get(&expire.source);
    if source.is_none_or(|source| source.epoch != expire.epoch) {
        return Reply::Fenced;
    }
    let key = (expire.source.clone(), expire.sequence);
    let Some(entry) = state.inbox.get(&key) else {
        return Reply::NotStartable(NotStartable::Finished);
    };
    if entry.dead {
        return Reply::NotStartable(of_dead(entry, state.now));
    }
    match entry.ends_at() {
        Some(at) if at <= state.now => Reply::NotStartable(end(state, append, &key)),
        Some(at) => Reply::NotStartable(NotStartable::Until(at)),
        // Since the inbox was read, the feed showed that it was applied.
        None => Reply::NotStartable(NotStartable::Reread),
    }
}

/// What becomes of a dead commit an operator decides. Its rows are held until its last attempt cannot be
/// applied any more.
pub(super) fn of_dead(entry: &InboxEntry, now: OffsetDateTime) -> NotStartable {
    let held = entry.may_apply_until.filter(|until| *until > now);
    held.map_or(NotStartable::Finished, NotStartable::Until)
}

/// Whether no attempt may start any more.
pub(super) fn is_over(entry: &InboxEntry, now: OffsetDateTime) -> bool {
    entry.ends_at().is_some_and(|at| at <= now)
}

/// Rejects a commit whose time is over, once none of its attempts may still be applied.
pub(super) fn end(state: &mut State, append: &mut Append, key: &(String, i64)) -> NotStartable {
    let now = state.now;
    let (Some(source), Some(entry)) = (state.sources.get_mut(&key.0), state.inbox.get_mut(key))
    else {
        return NotStartable::Finished;
    };
    let in_flight = entry
        .open
        .map(|(_, deadline)| deadline + SIGNATURE_TOLERANCE);
    let until = in_flight.max(entry.may_apply_until);
    if let Some(until) = until.filter(|until| *until > now) {
        return NotStartable::Until(until);
    }
    if let Some(open) = entry.open.take() {
        close_lost(append, source, entry, (open, now));
        if let Some(closed) = append.attempts_closed.last_mut() {
            closed.next_attempt_at = None;
        }
    }
    let message = if until.is_some() {
        "it was not to be sent any more; what became of an earlier attempt is not known"
    } else {
        "it was not to be sent any more"
    };
    reject(state, append, key, ("commit_expired", message));
    NotStartable::Finished
}

/// Rejects a commit of which no attempt is in flight or may still be applied. Its body was read.
pub(super) fn reject(
    state: &mut State,
    append: &mut Append,
    key: &(String, i64),
    (code, message): (&str, &str),
) {
    let Some(mut source) = state.sources.get(&key.0).cloned() else {
        return;
    };
    let Some(mut entry) = state.inbox.remove(key) else {
        return;
    };
    append.inbox_changed.remove(key);
    append.inbox_done.insert(key.clone());
    let operations = wire::operations(&entry.body).unwrap_or_default();
    let rows: Vec<_> = operations.iter().map(Operation::key).collect();
    Ending {
        state,
        append,
        source: &mut source,
        entry: &mut entry,
        rows: &rows,
    }
    .reject(code, message);
    append.put_source(&source, false);
    state.sources.insert(source.id.clone(), source);
}
