//! What a batch of commands touches, and what one snapshot showed of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use backends::managed::ManagedRow;
use backends::operation::RowKey;
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::start::Leave;
use super::terms::Guard;
use crate::admit::schema::Schema;
use crate::domain::{
    CommitId, CommitState, FeedState, Participant, Receipt, RequestError, SourceSettings,
    SourceState, Trigger,
};
use crate::feed::trail::Trail;

/// The keys that a batch reads.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Names of commits.
    pub commits: Vec<String>,
    /// Rows of managed models.
    pub rows: Vec<RowKey>,
    /// Those of them that an operation's view is judged by, which may be gone.
    pub viewed: Vec<RowKey>,
    /// Rows that live in Data Sources.
    pub versions: Vec<RowKey>,
    /// Rows in Data Sources that changes are about to be appended of: their sync groups are read.
    pub groups: Vec<RowKey>,
    /// Ids of sources.
    pub sources: Vec<String>,
    /// Inbox entries, and whether their body is needed.
    pub entries: BTreeMap<(String, i64), bool>,
    /// Models whose having rows matters.
    pub models: Vec<String>,
    /// Events by source and id.
    pub events: Vec<(String, String)>,
    /// Sources whose feed matters.
    pub feeds: Vec<String>,
}

impl Touched {
    /// An inbox entry and its source.
    pub fn entry(&mut self, source: &str, sequence: i64, with_body: bool) {
        self.sources.push(source.to_owned());
        *self
            .entries
            .entry((source.to_owned(), sequence))
            .or_default() |= with_body;
    }

    /// Leaves each key once.
    pub fn dedup(&mut self) {
        for names in [
            &mut self.commits,
            &mut self.sources,
            &mut self.models,
            &mut self.feeds,
        ] {
            names.sort_unstable();
            names.dedup();
        }
        self.events.sort_unstable();
        self.events.dedup();
        for keys in [
            &mut self.rows,
            &mut self.viewed,
            &mut self.versions,
            &mut self.groups,
        ] {
            keys.sort_unstable();
            keys.dedup();
        }
    }
}

/// What one snapshot showed, moved on by each decision of the batch.
#[derive(Clone, Debug)]
pub struct State {
    /// When the snapshot was taken, by the clock of the database: the time of the whole batch.
    pub now: OffsetDateTime,
    /// By how much `now` may be behind the time at which the batch was begun: not at all, unless its state
    /// was remembered.
    pub behind: Duration,
    /// The head.
    pub head: Head,
    /// Ledger entries by the caller's name.
    pub ledger: HashMap<String, LedgerEntry>,
    /// Managed rows.
    pub rows: HashMap<RowKey, StoredRow>,
    /// Where a view is judged by a managed row that is not there: the position of its removal, or
    /// that of the newest change that the log has dropped, behind which it was not there.
    pub removed: HashMap<RowKey, i64>,
    /// Rows in Data Sources.
    pub versions: HashMap<RowKey, RowVersion>,
    /// Sync groups of rows in Data Sources, as far as they are in any.
    pub groups: HashMap<RowKey, Vec<String>>,
    /// Whether any row in a Data Source may be in a sync group.
    pub grouped: bool,
    /// The active schema, where sync groups are read.
    pub schema: Option<Arc<Schema>>,
    /// Sources by id.
    pub sources: HashMap<String, Source>,
    /// Inbox entries by source and sequence.
    pub inbox: HashMap<(String, i64), InboxEntry>,
    /// Models that have rows.
    pub models_in_use: BTreeSet<String>,
    /// Events that were dealt with, by source and id: when.
    pub events: HashMap<(String, String), OffsetDateTime>,
    /// Feeds by source.
    pub feeds: HashMap<String, Feed>,
    /// Which commits may depart with their accept, by source; not read, but given by couriers.
    pub leaves: HashMap<String, Leave>,
}

impl State {
    /// Nothing but the head.
    pub fn empty(now: OffsetDateTime, head: Head) -> Self {
        Self {
            now,
            behind: Duration::ZERO,
            head,
            ledger: HashMap::new(),
            rows: HashMap::new(),
            removed: HashMap::new(),
            versions: HashMap::new(),
            groups: HashMap::new(),
            grouped: true,
            schema: None,
            sources: HashMap::new(),
            inbox: HashMap::new(),
            models_in_use: BTreeSet::new(),
            events: HashMap::new(),
            feeds: HashMap::new(),
            leaves: HashMap::new(),
        }
    }
}

/// An organization's head row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Counts appends.
    pub version: i64,
    /// Position of the newest delta.
    pub last_sync_id: i64,
    /// The active schema; 0 before the first.
    pub schema_version: i32,
}

/// A managed row as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// Its fields.
    pub row: ManagedRow,
    /// Position of its last change.
    pub sync_id: i64,
    /// Where the table held it when it was read (`ctid`), as a hint; `None` when it was not there.
    pub stood_at: Option<String>,
}

/// A row in a Data Source, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowVersion {
    /// Position of its last change; 0 while none is confirmed.
    pub sync_id: i64,
    /// Commits on the row that are neither confirmed nor rejected, dead ones too.
    pub unsettled: i64,
}

/// A commit in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    /// The caller's name for it.
    pub client_tx_id: String,
    /// Ours.
    pub id: CommitId,
    /// SHA-256 of the intent.
    pub fingerprint: [u8; 32],
    /// Who wrote.
    pub participant: Participant,
    /// The Data Source; `None` for managed models.
    pub source: Option<String>,
    /// The schema that it was admitted under.
    pub schema_version: i32,
    /// Where it stands.
    pub state: CommitState,
    /// Attempts are exhausted.
    pub dead: bool,
    /// Positions of its first and last delta, if it changed anything.
    pub sync_ids: Option<(i64, i64)>,
    /// Code and message, when rejected.
    pub error: Option<(String, String)>,
    /// Positions of the operations whose ids were assigned.
    pub assigned: Vec<i16>,
    /// Requests made.
    pub attempts: i32,
    /// When it became durable.
    pub accepted_at: OffsetDateTime,
    /// When it was settled.
    pub settled_at: Option<OffsetDateTime>,
    /// When an operator recovered it after it was dead.
    pub reentered_at: Option<OffsetDateTime>,
    /// Its place in its source's inbox; `None` for managed models.
    pub sequence: Option<i64>,
    /// See [`Source::feed_read_at`], as it stood at the accept.
    pub feed_read_at: Option<OffsetDateTime>,
}

impl LedgerEntry {
    /// The receipt, its deltas left out.
    pub fn receipt(&self) -> Receipt {
        Receipt {
            client_tx_id: self.client_tx_id.clone(),
            id: self.id,
            state: self.state,
            deltas: Vec::new(),
            changes_expired: false,
            error: self.error.clone(),
            source: self.source.clone(),
            accepted_at: self.accepted_at,
            settled_at: self.settled_at,
            attempts: self.attempts,
            assigned: self.assigned.clone(),
            dead: self.dead,
            reentered_at: self.reentered_at,
            feed_read_at: self.feed_read_at,
        }
    }
}

/// A Data Source as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What a schema's backing names.
    pub id: String,
    /// What the operator set.
    pub settings: Arc<SourceSettings>,
    /// What it does with commits.
    pub state: SourceState,
    /// Why.
    pub state_reason: String,
    /// The node that delivers to it.
    pub owner: Option<Uuid>,
    /// Counts owners.
    pub epoch: i64,
    /// Sequence of its newest commit.
    pub inbox_sequence: i64,
    /// Commits neither settled nor dead.
    pub pending: i64,
    /// Commits whose attempts are exhausted.
    pub dead: i64,
    /// Failed attempts since the last definite answer.
    pub consecutive_failures: i32,
    /// Nothing is sent before this.
    pub backoff_until: Option<OffsetDateTime>,
    /// Probes that failed since the last definite answer.
    pub backoff_step: i32,
    /// When the last failing spell ended.
    pub recovered_at: Option<OffsetDateTime>,
    /// When it had begun; `None` when whatever failed before its end is due.
    pub recovered_from: Option<OffsetDateTime>,
    /// Finished attempts, in the order of [`OUTCOMES`].
    pub attempts: [i64; 6],
    /// The same, without the first attempt of each commit.
    pub retries: [i64; 6],
    /// When the row of failures began that goes on: since then nothing had a definite answer.
    pub failing_since: Option<OffsetDateTime>,
    /// The last attempts, a bit each below a leading one: 1 for a failure, newest lowest.
    pub recent_outcomes: i64,
    /// When the certificate that the endpoint last showed ends.
    pub certificate_expires_at: Option<OffsetDateTime>,
    /// Counts what operators did to its commits.
    pub inbox_revision: i64,
    /// When its feed was last read to its end; `None` when it has none, as far as is known.
    pub feed_read_at: Option<OffsetDateTime>,
    /// When that was looked up: it moves without the head.
    pub seen_at: OffsetDateTime,
}

/// The outcomes that a source counts, in the order of its counters.
pub const OUTCOMES: [&str; 6] = [
    "applied",
    "refused",
    "retry",
    "unknown",
    "misconfigured",
    "gone",
];

impl Source {
    /// A source that was just registered.
    pub fn new(id: &str, settings: SourceSettings) -> Self {
        Self {
            id: id.to_owned(),
            settings: Arc::new(settings),
            state: SourceState::Enabled,
            state_reason: String::new(),
            owner: None,
            epoch: 0,
            inbox_sequence: 0,
            pending: 0,
            dead: 0,
            consecutive_failures: 0,
            backoff_until: None,
            backoff_step: 0,
            recovered_at: None,
            recovered_from: None,
            attempts: [0; 6],
            retries: [0; 6],
            failing_since: None,
            recent_outcomes: 1,
            certificate_expires_at: None,
            inbox_revision: 0,
            feed_read_at: None,
            seen_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Counts a finished attempt; `again` when it was not the commit's first.
    pub(super) fn count(&mut self, outcome: &str, again: bool) {
        let Some(index) = OUTCOMES.iter().position(|one| *one == outcome) else {
            return;
        };
        self.attempts[index] += 1;
        self.retries[index] += i64::from(again);
    }
}

/// How far a source's feed of changes made outside was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Whether it is polled.
    pub state: FeedState,
    /// Its cursors.
    pub trail: Trail,
    /// When an event was last taken in.
    pub last_event_at: Option<OffsetDateTime>,
    /// When it was last read to its end.
    pub caught_up_at: Option<OffsetDateTime>,
    /// The longest that an event became visible behind a newer cursor.
    pub largest_lateness: Duration,
    /// External events appended to the log.
    pub taken: i64,
    /// Events that came again.
    pub duplicates: i64,
    /// Events that were our own commits come back.
    pub echoes: i64,
    /// Events that did not fit.
    pub quarantined: i64,
}

impl Feed {
    /// A feed that is read from this cursor on.
    pub fn from(cursor: Option<String>) -> Self {
        Self {
            state: FeedState::Polling,
            trail: Trail::at(cursor),
            last_event_at: None,
            caught_up_at: None,
            largest_lateness: Duration::ZERO,
            taken: 0,
            duplicates: 0,
            echoes: 0,
            quarantined: 0,
        }
    }
}

/// A commit that its Data Source has not settled.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxEntry {
    /// Where it goes.
    pub source: String,
    /// Its place among the source's commits.
    pub sequence: i64,
    /// Its entry in the ledger.
    pub client_tx_id: String,
    /// The `webhook-id` of its requests.
    pub id: CommitId,
    /// The exact bytes that are sent; empty where the batch did not need them, unless it is dead.
    pub body: Bytes,
    /// Hashes of the rows that it touches; empty where the batch did not need them.
    pub lanes: Vec<i64>,
    /// Positions of the body's operations in the commit; empty when all were sent.
    pub positions: Vec<i16>,
    /// Positions of operations that were stale when they were accepted, and said FLAG.
    pub flagged: Vec<i16>,
    /// Attempts are exhausted.
    pub dead: bool,
    /// Attempts made.
    pub attempts: i32,
    /// Attempts that count against the schedule.
    pub spent: i32,
    /// When the next may start.
    pub due_at: OffsetDateTime,
    /// When the last one failed.
    pub failed_at: Option<OffsetDateTime>,
    /// The attempt in flight: when it was recorded, and when it ends at the latest.
    pub open: Option<(OffsetDateTime, OffsetDateTime)>,
    /// Until when an attempt of unknown fate may still be applied.
    pub may_apply_until: Option<OffsetDateTime>,
    /// How the last attempt failed.
    pub last_error: Option<RequestError>,
    /// W3C trace context of the call that brought it.
    pub traceparent: Option<String>,
    /// When it became durable.
    pub accepted_at: OffsetDateTime,
    /// No attempt starts after this, unless it is known to be applied: see [`Self::ends_at`].
    pub expires_at: Option<OffsetDateTime>,
    /// Why the next attempt is made, if not by the schedule: for an operator, or an echo.
    pub next_cause: Option<Trigger>,
    /// The feed showed that it was applied.
    pub echoed: bool,
    /// When an attempt first failed.
    pub first_failed_at: Option<OffsetDateTime>,
    /// When its rows were last read back from the endpoint, and what it then held.
    pub read_back: Option<(OffsetDateTime, String)>,
    /// Its operations that rest on a view of their row; only of a new entry: couriers read them.
    pub guards: Vec<Guard>,
    /// The schema that it was admitted under, if that is known.
    pub schema_version: Option<i32>,
}

impl InboxEntry {
    /// When its time is over. Never, once it is known to be applied: then it is sent for its answer.
    pub fn ends_at(&self) -> Option<OffsetDateTime> {
        self.expires_at.filter(|_| !self.echoed)
    }

    /// Whether somebody asked for its next attempt, which then waits for nothing but one in flight.
    pub fn is_asked(&self) -> bool {
        self.next_cause.is_some_and(Trigger::is_asked)
    }

    /// Whether this entry's last failure belongs to a spell that the source has come out of: then
    /// it is due at once.
    pub fn recovered_by(&self, source: &Source) -> bool {
        self.failed_at
            .zip(source.recovery())
            .is_some_and(|(failed, recovery)| recovery.covers(failed))
    }
}
