//! What an operator does to commits that wait: make the next attempt now, or settle them by hand.
//! Whatever changes goes on record in the same append.

use std::time::Duration;

use backends::data_source::wire;
use backends::operation::{Change, Operation, RowKey};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Reply;
use super::append::{Action, Append};
use super::control::disabled;
use super::settle::{Ending, SIGNATURE_TOLERANCE, weight_of};
use super::start::close_lost;
use super::state::{InboxEntry, Source, State, Touched};
use crate::domain::{CommitState, SourceState, Trigger};
use crate::refusal::{Class, Refusal};

/// The code of receipts of discarded commits.
const DISCARDED: &str = "discarded";

/// A dead commit that holds its lanes for no longer than this is taken for one that has let go:
/// couriers go by their own clocks.
const LANE_MARGIN: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The API key that the call carried.
    pub key_id: Uuid,
    /// Who asks, as the caller says; may be empty.
    pub actor: String,
}

/// Something to be done to commits of one source.
#[derive(Clone, Debug)]
pub struct Operate {
    /// The source.
    pub source: String,
    /// The commits, each once.
    pub targets: Vec<Target>,
    /// What is to be done.
    pub verb: Verb,
    /// Who asks.
    pub by: Operator,
}

/// A commit that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its caller's name for it.
    pub client_tx_id: String,
    /// Where it was seen in the source's inbox.
    pub sequence: i64,
}

/// What is done to commits. All of them or none, unless said otherwise.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Make the next attempt now. A dead commit re-enters at the end, or where it stands if it still
    /// holds its lanes.
    Retry,
    /// The same for all that failed since a time, as far as the source's back-off and its ramp allow;
    /// those that do not wait any more are left out.
    Recover(Option<OffsetDateTime>),
    /// The endpoint applied it, with these changes.
    Apply(Vec<Change>),
    /// The endpoint did not apply it, and shall not.
    Reject {
        /// The receipt's code.
        code: String,
        /// For a person.
        message: String,
        /// Although an earlier attempt may still be applied.
        force: bool,
    },
    /// Give it up.
    Discard {
        /// For a person.
        reason: String,
        /// Although an earlier attempt may still be applied.
        force: bool,
    },
}

impl Operate {
    /// About how many bytes it adds to a batch.
    pub(super) fn weight(&self) -> usize {
        let given = match &self.verb {
            Verb::Apply(changes) => weight_of(changes),
            _ => 0,
        };
        given + 1_024 * (1 + self.targets.len())
    }
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Recover(_) => "recover",
            Self::Apply(_) | Self::Reject { .. } => "resolve",
            Self::Discard { .. } => "discard",
        }
    }

    fn retries(&self) -> bool {
        matches!(self, Self::Retry | Self::Recover(_))
    }
}

pub(super) fn touch(operate: &Operate, touched: &mut Touched) {
    touched.sources.push(operate.source.clone());
    for target in &operate.targets {
        let with_body = !operate.verb.retries();
        touched.entry(&operate.source, target.sequence, with_body);
        touched.commits.push(target.client_tx_id.clone());
        if let Verb::Apply(changes) = &operate.verb {
            touched.groups.extend(changes.iter().map(|change| RowKey {
                model: change.model.clone(),
                id: change.id.clone(),
            }));
        }
    }
}

pub(super) fn operate(state: &mut State, append: &mut Append, operate: &Operate) -> Reply {
    match checked(state, operate) {
        Ok(Some((source, entries))) if !entries.is_empty() => Hand {
            state,
            append,
            operate,
            source,
            reentered: Vec::new(),
        }
        .work(entries),
        Ok(Some(_)) => Reply::Operated(0, Vec::new()),
        Ok(None) => Reply::Moved,
        Err(refusal) => Reply::Refused(Box::new(refusal)),
    }
}

/// The source and the commits in their order, if all of them can be operated on; `None` when one
/// does not stand where it was seen.
fn checked(state: &State, operate: &Operate) -> Result<Option<(Source, Vec<InboxEntry>)>, Refusal> {
    let source = state.sources.get(&operate.source);
    let source = source.ok_or_else(|| Refusal::no_source(&operate.source))?;
    if operate.verb.retries() {
        refuse_unless_delivering(source)?;
    }
    let mut entries = Vec::with_capacity(operate.targets.len());
    for target in &operate.targets {
        let key = (operate.source.clone(), target.sequence);
        let entry = state.inbox.get(&key);
        let entry = entry.filter(|entry| entry.client_tx_id == target.client_tx_id);
        match entry {
            Some(entry) => entries.push(entry.clone()),
            None if matches!(operate.verb, Verb::Recover(_)) => {}
            None if waits(state, operate, target) => return Ok(None),
            None => return Err(pending_not_found(&target.client_tx_id)),
        }
    }
    for entry in &entries {
        refuse_while_undecided(entry, &operate.verb, state.now)?;
    }
    entries.sort_by_key(|entry| entry.sequence);
    Ok(Some((source.clone(), entries)))
}

fn waits(state: &State, operate: &Operate, target: &Target) -> bool {
    state.ledger.get(&target.client_tx_id).is_some_and(|entry| {
        entry.state == CommitState::Queued && entry.source.as_ref() == Some(&operate.source)
    })
}

/// The refusal of a name that no unsettled commit of the source has.
pub fn pending_not_found(client_tx_id: &str) -> Refusal {
    let message = "the source has no unsettled commit of this name";
    Refusal::new(Class::NotFound, "pending_not_found", message).with("client_tx_id", client_tx_id)
}

fn refuse_unless_delivering(source: &Source) -> Result<(), Refusal> {
    match source.state {
        SourceState::Enabled | SourceState::Failing => Ok(()),
        SourceState::Disabled => Err(disabled(&source.id)),
        SourceState::Paused => {
            let message = "the Data Source is paused";
            let refusal = Refusal::new(Class::Precondition, "source_paused", message);
            Err(refusal.with("data_source", &source.id))
        }
    }
}

/// Nobody settles a commit by hand while a request for it is under way, or says that it was not
/// applied while it may yet be.
fn refuse_while_undecided(
    entry: &InboxEntry,
    verb: &Verb,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let force = match verb {
        Verb::Retry | Verb::Recover(_) => return Ok(()),
        Verb::Apply(_) => true,
        Verb::Reject { force, .. } | Verb::Discard { force, .. } => *force,
    };
    let refusal = |reason, message, until: OffsetDateTime| {
        Refusal::new(Class::Precondition, reason, message)
            .with("client_tx_id", &entry.client_tx_id)
            .retry_after(Duration::try_from(until - now).unwrap_or_default())
    };
    let deadline = entry.open.map(|(_, deadline)| deadline);
    if let Some(deadline) = deadline.filter(|deadline| *deadline > now) {
        let message = "an attempt is in flight";
        return Err(refusal("attempt_in_flight", message, deadline));
    }
    let lost = deadline.map(|deadline| deadline + SIGNATURE_TOLERANCE);
    match entry.may_apply_until.max(lost) {
        Some(until) if until > now && !force => {
            let message = "an earlier attempt may still be applied by the endpoint";
            Err(refusal("may_still_apply", message, until))
        }
        _ => Ok(()),
    }
}

/// An operator's hand on a source's commits.
struct Hand<'a> {
    state: &'a mut State,
    append: &'a mut Append,
    operate: &'a Operate,
    source: Source,
    reentered: Vec<String>,
}

impl Hand<'_> {
    fn work(mut self, entries: Vec<InboxEntry>) -> Reply {
        let count = entries.len();
        for entry in entries {
            let client_tx_id = entry.client_tx_id.clone();
            let detail = if self.operate.verb.retries() {
                self.retry(entry)
            } else {
                self.settle(entry)
            };
            if !matches!(self.operate.verb, Verb::Recover(_)) {
                self.note(Some(client_tx_id), detail);
            }
        }
        if let Verb::Recover(since) = self.operate.verb {
            let since =
                since.map_or_else(String::new, |since| format!(" that failed since {since}"));
            self.note(None, format!("{count} commits{since}"));
        }
        self.source.inbox_revision += 1;
        self.append.put_source(&self.source, false);
        self.state
            .sources
            .insert(self.source.id.clone(), self.source);
        Reply::Operated(count, self.reentered)
    }

    fn note(&mut self, client_tx_id: Option<String>, detail: String) {
        self.append.actions.push(Action {
            source: self.source.id.clone(),
            verb: self.operate.verb.name(),
            client_tx_id,
            by: self.operate.by.clone(),
            detail,
        });
    }

    /// The next attempt is due, whatever the schedule says; one that was asked for by name goes past
    /// the source's back-off, too.
    fn retry(&mut self, mut entry: InboxEntry) -> String {
        let now = self.state.now;
        let key = (entry.source.clone(), entry.sequence);
        entry.next_cause = match self.operate.verb {
            Verb::Recover(_) => entry.next_cause.or(Some(Trigger::Recovery)),
            _ => Some(Trigger::Manual),
        };
        entry.due_at = now;
        entry.failed_at = None;
        let detail = if entry.dead {
            self.revive(&mut entry)
        } else {
            String::new()
        };
        self.state.inbox.remove(&key);
        let place = (entry.source.clone(), entry.sequence);
        self.state.inbox.insert(place, entry.clone());
        self.append.inbox_changed.insert(key, entry);
        detail
    }

    /// A dead commit waits again: at the end, since its lanes have moved on; where it stands, if
    /// they are still held.
    fn revive(&mut self, entry: &mut InboxEntry) -> String {
        let now = self.state.now;
        entry.dead = false;
        entry.spent = 0;
        self.source.dead -= 1;
        self.source.pending += 1;
        self.append.dead -= 1;
        let held = entry.may_apply_until > Some(now + LANE_MARGIN);
        if !held {
            self.source.inbox_sequence += 1;
            entry.sequence = self.source.inbox_sequence;
            entry.first_failed_at = None;
            self.reentered.push(entry.client_tx_id.clone());
        }
        if let Some(ledger) = self.state.ledger.get_mut(&entry.client_tx_id) {
            ledger.dead = false;
            ledger.sequence = Some(entry.sequence);
            if !held {
                ledger.reentered_at = Some(now);
            }
            self.append
                .settled
                .insert(ledger.client_tx_id.clone(), ledger.clone());
        }
        if held {
            "it was dead, and kept its place".to_owned()
        } else {
            format!("it was dead, and took the place {}", entry.sequence)
        }
    }

    /// The commit ends here, payload and all. Nothing is counted: no endpoint has answered.
    fn settle(&mut self, mut entry: InboxEntry) -> String {
        if let Some(open) = entry.open.take() {
            let now = self.state.now;
            close_lost(self.append, &mut self.source, &mut entry, (open, now));
            if let Some(closed) = self.append.attempts_closed.last_mut() {
                closed.next_attempt_at = None;
            }
        }
        let rows = rows_of(&entry);
        let mut ending = Ending {
            state: self.state,
            append: self.append,
            source: &mut self.source,
            entry: &mut entry,
            rows: &rows,
        };
        let detail = match &self.operate.verb {
            Verb::Apply(changes) => {
                ending.confirm(changes);
                "as applied".to_owned()
            }
            Verb::Reject {
                code,
                message,
                force,
            } => {
                ending.reject(code, message);
                format!("as rejected: {code}{}", forced(*force))
            }
            Verb::Discard { reason, force } => {
                ending.reject(DISCARDED, reason);
                format!("{reason}{}", forced(*force))
            }
            Verb::Retry | Verb::Recover(_) => String::new(),
        };
        let key = (entry.source.clone(), entry.sequence);
        self.state.inbox.remove(&key);
        self.append.inbox_changed.remove(&key);
        self.append.inbox_done.insert(key);
        if entry.echoed && !matches!(self.operate.verb, Verb::Apply(_)) {
            // The event that showed its effect was passed over for its own change.
            self.append.read_again(&entry.source, &rows);
            return format!("{detail}, though the feed had shown that it was applied");
        }
        detail
    }
}

/// The rows that a commit touches whose body was read.
fn rows_of(entry: &InboxEntry) -> Vec<RowKey> {
    let operations = wire::operations(&entry.body).unwrap_or_default();
    operations.iter().map(Operation::key).collect()
}

fn forced(force: bool) -> &'static str {
    if force { " (forced)" } else { "" }
}

#[cfg(test)]
mod tests;
