//! What a batch of commands touches, and what one snapshot showed of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backends::managed::ManagedRow;
use backends::operation::RowKey;
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    CommitId, CommitState, Participant, Receipt, RequestError, SourceSettings, SourceState,
};

/// The keys that a batch reads.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Names of commits.
    pub commits: Vec<String>,
    /// Rows of managed models.
    pub rows: Vec<RowKey>,
    /// Rows that live in Data Sources.
    pub versions: Vec<RowKey>,
    /// Ids of sources.
    pub sources: Vec<String>,
    /// Inbox entries, and whether their body is needed.
    pub entries: BTreeMap<(String, i64), bool>,
    /// Models whose having rows matters.
    pub models: Vec<String>,
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
        for names in [&mut self.commits, &mut self.sources, &mut self.models] {
            names.sort_unstable();
            names.dedup();
        }
        for keys in [&mut self.rows, &mut self.versions] {
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
    /// The head.
    pub head: Head,
    /// Ledger entries by the caller's name.
    pub ledger: HashMap<String, LedgerEntry>,
    /// Managed rows.
    pub rows: HashMap<RowKey, StoredRow>,
    /// Sync ids of the last changes of rows in Data Sources.
    pub versions: HashMap<RowKey, i64>,
    /// Sources by id.
    pub sources: HashMap<String, Source>,
    /// Inbox entries by source and sequence.
    pub inbox: HashMap<(String, i64), InboxEntry>,
    /// Models that have rows.
    pub models_in_use: BTreeSet<String>,
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
        }
    }
}

/// A Data Source as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What a schema's backing names.
    pub id: String,
    /// What the operator set.
    pub settings: SourceSettings,
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
    /// Finished attempts, in the order of [`OUTCOMES`].
    pub attempts: [i64; 6],
    /// The same, without the first attempt of each commit.
    pub retries: [i64; 6],
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
            settings,
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
            attempts: [0; 6],
            retries: [0; 6],
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
    /// The exact bytes that are sent; empty where the batch did not need them.
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
}

impl InboxEntry {
    /// Whether the source came back after this entry's last failure: then it is due at once.
    pub fn recovered_by(&self, source: &Source) -> bool {
        self.failed_at
            .zip(source.recovered_at)
            .is_some_and(|(failed, back)| failed <= back)
    }
}
