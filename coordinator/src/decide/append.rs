//! What a batch writes, as final states: a key written twice in a batch is written once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backends::operation::RowKey;
use time::OffsetDateTime;
use uuid::Uuid;

use super::events::Misfit;
use super::groups::Membership;
use super::operate::Operator;
use super::start::Started;
use super::state::{Feed, InboxEntry, LedgerEntry, Source, StoredRow};
use super::versions::VersionChange;
use crate::domain::{
    Commit, CommitId, Delta, Participant, Receipt, RequestError, RequestKind, Trigger,
};

/// Everything that one append writes. Maps are ordered, so that rows are locked in key order.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The head's log position afterwards.
    pub last_sync_id: i64,
    /// The head's schema version afterwards.
    pub schema_version: i32,
    /// New ledger entries.
    pub commits: Vec<LedgerEntry>,
    /// Ledger entries that changed: settled, or dead, or recovered.
    pub settled: BTreeMap<String, LedgerEntry>,
    /// Managed rows: as they stand afterwards, or `None` when removed.
    pub rows: BTreeMap<RowKey, Option<StoredRow>>,
    /// Those of them that were not there before.
    pub rows_added: BTreeSet<RowKey>,
    /// The log's new entries, in order.
    pub deltas: Vec<DeltaRow>,
    /// What it tells of rows in Data Sources.
    pub versions: BTreeMap<RowKey, VersionChange>,
    /// Sync groups of rows in Data Sources that moved.
    pub groups: BTreeMap<RowKey, Vec<String>>,
    /// New inbox entries.
    pub inbox: Vec<InboxEntry>,
    /// Inbox entries that changed, by the place where they stood.
    pub inbox_changed: BTreeMap<(String, i64), InboxEntry>,
    /// Inbox entries that are finished.
    pub inbox_done: BTreeSet<(String, i64)>,
    /// Attempts that may leave once this is durable.
    pub attempts_opened: Vec<AttemptOpen>,
    /// Of these, first attempts that were recorded with their accept.
    pub departed: Vec<Departed>,
    /// Attempts that ended.
    pub attempts_closed: Vec<AttemptClose>,
    /// Sources as they stand afterwards; `true` when an operator changed the settings.
    pub sources: BTreeMap<String, (Source, bool)>,
    /// Sources that are new, and sources that are gone.
    pub sources_added: BTreeSet<String>,
    /// See `sources_added`.
    pub sources_removed: BTreeSet<String>,
    /// Last success and last error of commit requests.
    pub requests: BTreeMap<(String, RequestKind), RequestNote>,
    /// A new schema: its version and document.
    pub schema: Option<(i32, String)>,
    /// How many more commits are dead afterwards than before.
    pub dead: i64,
    /// What operators did.
    pub actions: Vec<Action>,
    /// Feeds as they stand afterwards, by source.
    pub feeds: BTreeMap<String, Feed>,
    /// Events that were dealt with, by source and id.
    pub events: BTreeSet<(String, String)>,
    /// Events that did not fit.
    pub quarantined: Vec<Quarantined>,
    /// Pushed events that were dealt with, by source and position.
    pub pushed_done: BTreeSet<(String, i64)>,
    /// Rows to be read again, by source: the log may not end on what it holds of them.
    pub rereads: BTreeSet<(String, RowKey)>,
    /// Those that were, by source and position.
    pub rereads_done: BTreeSet<(String, i64)>,
}

/// Something that an operator did, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The source.
    pub source: String,
    /// What was done.
    pub verb: &'static str,
    /// The commit that it was done to, if one.
    pub client_tx_id: Option<String>,
    /// Who asked.
    pub by: Operator,
    /// Particulars, for a person; no row data.
    pub detail: String,
}

/// An event that did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The source.
    pub source: String,
    /// The source's name for it.
    pub id: String,
    /// Why.
    pub misfit: Misfit,
}

/// A change at its position in the log, with what it takes from its commit.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaRow {
    /// The change.
    pub delta: Delta,
    /// The commit that made it.
    pub client_tx_id: Option<String>,
    /// Who wrote.
    pub participant: Option<Participant>,
    /// Whom it concerns.
    pub membership: Membership,
}

/// An attempt that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptOpen {
    /// The source.
    pub source: String,
    /// The commit.
    pub id: CommitId,
    /// By its caller's name.
    pub client_tx_id: String,
    /// 1 for the commit's first.
    pub number: i32,
    /// Why it is made.
    pub trigger: Trigger,
    /// Which node makes it.
    pub node: Uuid,
    /// When it ends at the latest.
    pub deadline: OffsetDateTime,
}

/// A commit whose first attempt was recorded with its accept.
#[derive(Clone, Debug)]
pub struct Departed {
    /// The source.
    pub source: String,
    /// Its place in the inbox.
    pub sequence: i64,
    /// What may leave once this is durable.
    pub started: Arc<Started>,
    /// What it asks for.
    pub commit: Arc<Commit>,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptClose {
    /// The source.
    pub source: String,
    /// The commit, by its caller's name.
    pub client_tx_id: String,
    /// The commit.
    pub id: CommitId,
    /// Which of its attempts.
    pub number: i32,
    /// When it was recorded.
    pub started_at: OffsetDateTime,
    /// How long it took; `None` when its node was lost.
    pub duration: Option<Duration>,
    /// `None` when no status line came.
    pub http_status: Option<i32>,
    /// One of [`super::state::OUTCOMES`].
    pub outcome: &'static str,
    /// Class and message, unless it was applied; also when only loads showed that it was.
    pub error: Option<(String, String)>,
    /// What the endpoint said, unless 200.
    pub excerpt: Option<String>,
    /// When the next attempt is due, if any.
    pub next_attempt_at: Option<OffsetDateTime>,
}

/// Last success or last error of one kind of request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestNote {
    /// When it last succeeded, if it did in this batch.
    pub success_at: Option<OffsetDateTime>,
    /// How it last failed, if it did in this batch.
    pub error: Option<RequestError>,
}

impl Append {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
            && self.settled.is_empty()
            && self.rows.is_empty()
            && self.deltas.is_empty()
            && self.inbox_changed.is_empty()
            && self.inbox_done.is_empty()
            && self.attempts_closed.is_empty()
            && self.sources.is_empty()
            && self.sources_removed.is_empty()
            && self.schema.is_none()
            && self.actions.is_empty()
            && self.feeds.is_empty()
            && self.events.is_empty()
            && self.pushed_done.is_empty()
            && self.rereads.is_empty()
            && self.rereads_done.is_empty()
    }

    /// How many more commits are pending afterwards than before.
    pub fn pending_change(&self) -> i64 {
        i64::try_from(self.inbox.len()).unwrap_or(0)
            - i64::try_from(self.inbox_done.len()).unwrap_or(0)
            - self.dead
    }

    /// The whole receipt of a commit that this settled.
    pub fn receipt(&self, entry: &LedgerEntry) -> Receipt {
        let mut receipt = entry.receipt();
        if let (Some((first, last)), Some(begun)) = (entry.sync_ids, self.deltas.first()) {
            let place = |sync_id| usize::try_from(sync_id - begun.delta.sync_id).ok();
            let own = place(first).zip(place(last));
            let own = own.and_then(|(first, last)| self.deltas.get(first..=last));
            let own = own.unwrap_or_default().iter();
            receipt.deltas = own.map(|row| row.delta.clone()).collect();
        }
        receipt
    }

    /// Notes rows of a source that are to be read again.
    pub(super) fn read_again<'a>(
        &mut self,
        source: &str,
        rows: impl IntoIterator<Item = &'a RowKey>,
    ) {
        let rows = rows.into_iter().cloned();
        self.rereads
            .extend(rows.map(|row| (source.to_owned(), row)));
    }

    /// Notes how a source stands after a decision.
    pub(super) fn put_source(&mut self, source: &Source, settings_changed: bool) {
        if let Some((stands, changed)) = self.sources.get_mut(&source.id) {
            stands.clone_from(source);
            *changed |= settings_changed;
        } else {
            let stands = (source.clone(), settings_changed);
            self.sources.insert(source.id.clone(), stands);
        }
    }
}
