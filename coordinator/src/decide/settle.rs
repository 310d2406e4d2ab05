//! Recording what an attempt came to: outcome, attempt, deltas, the source's standing and the
//! ledger move together.

mod read_back;

use std::time::Duration;

use backends::data_source::classify::{AttemptError, Outcome};
use backends::data_source::schedule::jittered;
use backends::json::extent;
use backends::operation::{Change, RowKey};
use time::OffsetDateTime;

use super::append::{Append, AttemptClose, DeltaRow};
use super::breaker::{PAUSE_CAP, PAUSE_FAILING, PAUSE_MISCONFIGURED};
use super::state::{InboxEntry, LedgerEntry, Source, State, Touched};
use super::{Reply, groups, versions};
use crate::broken::{self, Control};
use crate::domain::{CommitState, Delta, RequestError, RequestKind, SourceState, Trigger};

pub use read_back::ReadBack;

/// How long after its deadline a request may still be taken by an endpoint that has it queued:
/// receivers refuse older timestamps (Standard Webhooks, five minutes).
pub const SIGNATURE_TOLERANCE: Duration = Duration::from_mins(5);

/// `Retry-After` is honoured up to this.
const RETRY_AFTER_CAP: Duration = Duration::from_hours(1);

/// What an attempt came to.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The source.
    pub source: String,
    /// The epoch that the sending node owned it under.
    pub epoch: i64,
    /// Which of its commits.
    pub sequence: i64,
    /// That commit, by its caller's name.
    pub client_tx_id: String,
    /// When the attempt was recorded.
    pub started_at: OffsetDateTime,
    /// How long it took.
    pub duration: Duration,
    /// `None` when no status line came.
    pub http_status: Option<u16>,
    /// Where it was sent.
    pub url: String,
    /// Why it was made.
    pub trigger: Trigger,
    /// What the answer means.
    pub outcome: Outcome,
    /// Whether the endpoint may still apply the request although it was not said to be applied.
    pub may_still_apply: bool,
    /// What the endpoint said, unless 200.
    pub excerpt: Option<String>,
    /// The rows that the commit's operations touch, of those that were sent.
    pub rows: Vec<RowKey>,
    /// Those of them that somebody else may have changed since it was first sent: once it is finished,
    /// they are read again.
    pub unclear: Vec<RowKey>,
    /// What loads of its rows showed, if any were made.
    pub read_back: Option<Box<ReadBack>>,
    /// The node did not send it at all: nobody is at fault but us, and nothing is spent.
    pub never_left: bool,
    /// 0 to 1: where in its range a retry falls.
    pub jitter: f64,
    /// When the certificate that the endpoint showed ends.
    pub certificate_expires_at: Option<OffsetDateTime>,
}

impl Settle {
    /// About how many bytes it adds to a batch.
    pub(super) fn weight(&self) -> usize {
        let answered = match &self.outcome {
            Outcome::Applied(changes) => weight_of(changes),
            _ => 0,
        };
        answered + 128 * self.rows.len()
    }
}

/// About how many bytes changes add to a batch.
pub(super) fn weight_of(changes: &[Change]) -> usize {
    let row = |change: &Change| change.row.as_ref().map_or(0, |row| extent(row.value()));
    changes.iter().map(|change| 256 + row(change)).sum()
}

pub(super) fn touch(settle: &Settle, touched: &mut Touched) {
    touched.entry(&settle.source, settle.sequence, false);
    touched.commits.push(settle.client_tx_id.clone());
    if let Outcome::Applied(changes) = &settle.outcome {
        touched.groups.extend(changes.iter().map(|change| RowKey {
            model: change.model.clone(),
            id: change.id.clone(),
        }));
    }
}

pub(super) fn settle(state: &mut State, append: &mut Append, settle: &Settle) -> Reply {
    let key = (settle.source.clone(), settle.sequence);
    let source = state.sources.get(&settle.source);
    let Some(mut source) = source
        .filter(|one| one.epoch == settle.epoch || broken::is(Control::NoEpoch))
        .cloned()
    else {
        return Reply::Fenced;
    };
    let Some((key, mut entry)) = state.inbox.remove_entry(&key) else {
        // An operator settled the commit after the attempt's deadline: the answer came too late.
        return Reply::Settled(None, Box::new(source));
    };
    if entry.open.map(|(started_at, _)| started_at) != Some(settle.started_at)
        && !broken::is(Control::NoEpoch)
    {
        state.inbox.insert(key, entry);
        return Reply::Fenced;
    }
    let stood = source.state;
    let mut closing = Closing {
        state,
        append,
        settle,
        source: &mut source,
        entry: &mut entry,
    };
    closing.count();
    closing.note_read_back();
    let finished = closing.outcome();
    closing.close();
    if finished {
        append.inbox_changed.remove(&key);
        append.inbox_done.insert(key);
    } else {
        entry.open = None;
        // Somebody asked for the next attempt during this one.
        if entry.next_cause.is_some() && !settle.never_left {
            entry.due_at = state.now;
        }
        append.inbox_changed.insert(key.clone(), entry.clone());
        state.inbox.insert(key, entry.clone());
    }
    // Who reads its feed is told that it was disabled.
    let disabled = stood != SourceState::Disabled && source.state == SourceState::Disabled;
    append.put_source(&source, disabled);
    state.sources.insert(source.id.clone(), source.clone());
    if finished && entry.echoed && matches!(settle.outcome, Outcome::Refused { .. }) {
        // The event that showed its effect was passed over for its own change, which will not come.
        append.read_again(&settle.source, &settle.rows);
        return Reply::Denied(Box::new(source));
    }
    if finished {
        append.read_again(&settle.source, &settle.unclear);
    }
    Reply::Settled((!finished).then(|| Box::new(entry)), Box::new(source))
}

/// One attempt being closed.
struct Closing<'a> {
    state: &'a mut State,
    append: &'a mut Append,
    settle: &'a Settle,
    source: &'a mut Source,
    entry: &'a mut InboxEntry,
}

impl Closing<'_> {
    fn count(&mut self) {
        let again = self.entry.attempts > 1;
        self.source.count(self.settle.outcome.as_str(), again);
    }

    /// Moves commit and source on; whether the commit is finished.
    fn outcome(&mut self) -> bool {
        let moved = self.settle.url != self.source.settings.url;
        if let (Some(ends), false) = (self.settle.certificate_expires_at, moved) {
            self.source.certificate_expires_at = Some(ends);
        }
        match &self.settle.outcome {
            // What an endpoint said that the source has left says nothing of the one that it has.
            Outcome::Misconfigured { .. } | Outcome::Gone { .. } if moved => {
                self.note_unknown();
                self.entry.due_at = self.state.now;
                false
            }
            Outcome::Applied(changes) => {
                self.note_answer();
                self.ending().confirm(changes);
                true
            }
            Outcome::Refused { code, message } => {
                self.note_answer();
                self.refuse(code, message)
            }
            Outcome::Retry { retry_after, .. } => {
                self.fail(retry_after.map(|pause| pause.min(RETRY_AFTER_CAP)));
                false
            }
            Outcome::Unknown { .. } => {
                self.fail(None);
                false
            }
            Outcome::Misconfigured { .. } => {
                self.misconfigured();
                false
            }
            Outcome::Gone { .. } => {
                let reason = "the endpoint answered 410 Gone";
                self.source.state = SourceState::Disabled;
                reason.clone_into(&mut self.source.state_reason);
                self.entry.due_at = self.state.now;
                false
            }
        }
    }

    fn ending(&mut self) -> Ending<'_> {
        Ending {
            state: self.state,
            append: self.append,
            source: self.source,
            entry: self.entry,
            rows: &self.settle.rows,
        }
    }
}

/// A commit that ends, by its endpoint's word or by an operator's.
pub(super) struct Ending<'a> {
    pub(super) state: &'a mut State,
    pub(super) append: &'a mut Append,
    pub(super) source: &'a mut Source,
    pub(super) entry: &'a mut InboxEntry,
    /// What it touches.
    pub(super) rows: &'a [RowKey],
}

impl Ending<'_> {
    /// It was applied: its changes go to the log.
    pub(super) fn confirm(&mut self, changes: &[Change]) {
        let now = self.state.now;
        let Some(mut entry) = self.state.ledger.remove(&self.entry.client_tx_id) else {
            return;
        };
        let before = self.state.head.last_sync_id;
        for change in changes {
            self.state.head.last_sync_id += 1;
            let sync_id = self.state.head.last_sync_id;
            let key = RowKey {
                model: change.model.clone(),
                id: change.id.clone(),
            };
            self.state.models_in_use.insert(key.model.clone());
            versions::changed(self.state, self.append, key, sync_id);
            let membership = groups::of_source_change(self.state, self.append, change);
            let mut change = change.clone();
            change.operation = change.operation.map(|index| self.position(index));
            let place = change.operation.and_then(|index| i16::try_from(index).ok());
            let stale = place.is_some_and(|place| self.entry.flagged.contains(&place));
            self.append.deltas.push(DeltaRow {
                delta: Delta {
                    sync_id,
                    change,
                    stale,
                },
                client_tx_id: Some(entry.client_tx_id.clone()),
                participant: Some(entry.participant.clone()),
                membership,
            });
        }
        let after = self.state.head.last_sync_id;
        entry.state = CommitState::Confirmed;
        entry.sync_ids = (after > before).then_some((before + 1, after));
        self.finish(entry, now);
    }

    /// The position in the commit of an operation of the body.
    fn position(&self, index: usize) -> usize {
        self.entry
            .positions
            .get(index)
            .and_then(|position| usize::try_from(*position).ok())
            .unwrap_or(index)
    }

    /// It was not applied, and will not be.
    pub(super) fn reject(&mut self, code: &str, message: &str) {
        let now = self.state.now;
        if let Some(mut entry) = self.state.ledger.remove(&self.entry.client_tx_id) {
            entry.state = CommitState::Rejected;
            entry.error = Some((code.to_owned(), message.to_owned()));
            self.finish(entry, now);
        }
    }

    fn finish(&mut self, mut entry: LedgerEntry, now: OffsetDateTime) {
        entry.settled_at = Some(now);
        entry.attempts = self.entry.attempts;
        let rows = self.rows.iter().cloned();
        versions::settled(self.state, self.append, rows);
        if self.entry.dead {
            entry.dead = false;
            self.source.dead -= 1;
            self.append.dead -= 1;
        } else {
            self.source.pending -= 1;
        }
        self.append
            .settled
            .insert(entry.client_tx_id.clone(), entry.clone());
        self.state.ledger.insert(entry.client_tx_id.clone(), entry);
    }
}

impl Closing<'_> {
    /// Final, unless an earlier attempt may still apply: then one more send, afterwards, decides.
    fn refuse(&mut self, code: &str, message: &str) -> bool {
        let now = self.state.now;
        let may_apply = self.entry.may_apply_until.filter(|until| *until > now);
        if let Some(until) = may_apply.filter(|_| !broken::is(Control::RefuseEarly)) {
            self.entry.due_at = until;
            self.entry.failed_at = None;
            return false;
        }
        self.ending().reject(code, message);
        true
    }

    /// The endpoint decided. Of those that ask for patience it was only asked what waits for nothing:
    /// then the pause is over, too.
    fn note_answer(&mut self) {
        self.source.note_answer(self.state.now);
        if matches!(self.settle.trigger, Trigger::Manual | Trigger::Echo) {
            self.source.backoff_until = None;
        }
    }

    /// The next attempt is due on the schedule, or the commit is dead. An answer that only asks for
    /// patience (429) spends nothing, nor does an attempt that an operator asked for or a recovery
    /// brought forward: what it would have had by the schedule it still has.
    fn fail(&mut self, retry_after: Option<Duration>) {
        let now = self.state.now;
        if self.settle.never_left {
            self.entry.due_at = now + PAUSE_FAILING;
            if self.settle.trigger.is_asked() {
                self.entry.next_cause = Some(self.settle.trigger);
            }
            return;
        }
        let brought_forward =
            self.entry.recovered_by(self.source) && self.entry.due_at > self.settle.started_at;
        if self.source.note_failure(now) {
            self.leave_source_alone(PAUSE_FAILING);
        }
        if let Some(pause) = retry_after {
            self.source.backoff_until = self.source.backoff_until.max(Some(now + pause));
        }
        self.note_unknown();
        // Asked for patience, it is not pulled forward when the source answers another commit.
        self.entry.failed_at = retry_after.is_none().then_some(now);
        if !brought_forward {
            self.spend();
        }
        let asked = now + retry_after.unwrap_or_default();
        self.entry.due_at = self.entry.due_at.max(asked);
    }

    /// One attempt of the schedule is gone.
    fn spend(&mut self) {
        let now = self.state.now;
        let patience = self.settle.http_status == Some(429);
        let extra = self.settle.trigger.is_asked() || self.settle.trigger == Trigger::Recovery;
        if !patience && !extra {
            self.entry.spent += 1;
        }
        let spent = u32::try_from(self.entry.spent.max(1)).unwrap_or(1);
        let retry = &self.source.settings.retry;
        match retry.delay_after(spent, || self.settle.jitter) {
            Some(delay) => self.entry.due_at = now + delay,
            None if patience => self.entry.due_at = now + PAUSE_CAP,
            None if self.entry.next_cause.is_some() => {}
            None => self.bury(),
        }
    }

    /// Nobody's commit is at fault: no attempt is spent. A commit that is answered so although others
    /// were answered since it last was, is one that something on the way refuses: it waits for
    /// itself, and no recovery brings it forward.
    fn misconfigured(&mut self) {
        let now = self.state.now;
        let alone = self.entry.recovered_by(self.source) && self.source.answers();
        self.source.note_failure(now);
        self.leave_source_alone(PAUSE_MISCONFIGURED);
        self.note_unknown();
        let pause = alone.then_some(now + jittered(PAUSE_CAP, self.settle.jitter));
        self.entry.due_at = pause.or(self.source.backoff_until).unwrap_or(now);
        self.entry.failed_at = (!alone).then_some(now);
    }

    fn leave_source_alone(&mut self, base: Duration) {
        let reason = self.message();
        let moment = (self.state.now, self.settle.jitter);
        self.source.leave_alone(base, reason, moment);
    }

    fn bury(&mut self) {
        self.entry.dead = true;
        self.source.pending -= 1;
        self.source.dead += 1;
        self.append.dead += 1;
        if let Some(mut entry) = self.state.ledger.get(&self.settle.client_tx_id).cloned() {
            entry.dead = true;
            entry.attempts = self.entry.attempts;
            self.append
                .settled
                .insert(entry.client_tx_id.clone(), entry.clone());
            self.state.ledger.insert(entry.client_tx_id.clone(), entry);
        }
    }

    fn message(&self) -> String {
        self.settle
            .outcome
            .error()
            .map(|error| error.message)
            .unwrap_or_default()
    }

    fn note_unknown(&mut self) {
        if self.settle.may_still_apply {
            let deadline = self
                .entry
                .open
                .map(|(_, deadline)| deadline + SIGNATURE_TOLERANCE);
            self.entry.may_apply_until = self.entry.may_apply_until.max(deadline);
        }
    }

    /// Closes the attempt's record and notes the request as the kind's last success or error.
    fn close(&mut self) {
        let now = self.state.now;
        let settle = self.settle;
        let http_status = settle.http_status.map(i32::from);
        let error = settle.outcome.error();
        let note = self
            .append
            .requests
            .entry((settle.source.clone(), RequestKind::Commit));
        match &error {
            None => note.or_default().success_at = Some(now),
            // No request was made.
            Some(_) if settle.never_left => {}
            Some(AttemptError { class, message }) => {
                let error = RequestError {
                    at: now,
                    class: class.clone(),
                    message: message.clone(),
                    http_status: http_status.unwrap_or(0),
                };
                self.entry.last_error = Some(error.clone());
                self.entry.first_failed_at.get_or_insert(now);
                note.or_default().error = Some(error);
            }
        }
        let finished = self.append.settled.contains_key(&settle.client_tx_id);
        self.append.attempts_closed.push(AttemptClose {
            source: settle.source.clone(),
            client_tx_id: settle.client_tx_id.clone(),
            id: self.entry.id,
            number: self.entry.attempts,
            started_at: settle.started_at,
            duration: Some(settle.duration),
            http_status,
            outcome: settle.outcome.as_str(),
            error: error
                .or_else(|| settle.read_back.as_ref()?.misfit.clone())
                .map(|error| (error.class, error.message)),
            excerpt: settle.excerpt.clone(),
            next_attempt_at: (!finished).then_some(self.entry.due_at),
        });
    }
}
