//! An organization's tables in memory, for simulations: what `store/sql/read.sql` shows of them, and
//! what the statements of an append make of them. A decision sees what it said that it touches, and
//! nothing of it stays but what it wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use backends::data_source::schedule::RetrySchedule;
use backends::data_source::wire;
use backends::operation::{Operation, RowKey};
use bytes::Bytes;
use time::OffsetDateTime;

use crate::decide::{
    Append, Command, DeltaRow, Head, InboxEntry, Reply, RowVersion, Source, State, Touched, decide,
};
use crate::domain::{CommitState, OrganizationId, SourceSettings};

/// The one source there is.
pub(crate) const CRM: &str = "crm";

/// An organization's tables.
pub(crate) struct Tables {
    all: State,
    versions: HashMap<RowKey, RowVersion>,
    /// The log.
    pub(crate) log: Vec<DeltaRow>,
    /// Attempts on record by commit and number: whether each has ended.
    attempts: BTreeMap<(String, i32), bool>,
}

pub(crate) fn organization() -> OrganizationId {
    OrganizationId::new("acme")
}

impl Tables {
    /// A schema, one source of few attempts, and no commit.
    pub(crate) fn new() -> Self {
        let settings = SourceSettings {
            url: "https://crm.example/".to_owned(),
            retry: RetrySchedule {
                delays: vec![Duration::from_secs(5)],
            },
            request_timeout: Duration::from_secs(15),
            max_in_flight: 16,
            max_per_second: 0,
            max_pending: 1_000_000,
            feed_lag: Duration::from_mins(1),
        };
        let mut all = empty(OffsetDateTime::UNIX_EPOCH);
        all.head.schema_version = 1;
        all.sources
            .insert(CRM.to_owned(), Source::new(CRM, settings));
        Self {
            all,
            versions: HashMap::new(),
            log: Vec::new(),
            attempts: BTreeMap::new(),
        }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.all.sources[CRM]
    }

    /// The feed, once something of it was taken in.
    pub(crate) fn feed(&self) -> Option<&crate::decide::Feed> {
        self.all.feeds.get(CRM)
    }

    /// Whether an event was dealt with.
    pub(crate) fn knows_event(&self, id: &str) -> bool {
        let name = (CRM.to_owned(), id.to_owned());
        self.all.events.contains_key(&name)
    }

    /// The inbox by place.
    pub(crate) fn inbox(&self) -> BTreeMap<i64, &InboxEntry> {
        let entries = self.all.inbox.values();
        entries.map(|entry| (entry.sequence, entry)).collect()
    }

    /// Where a commit stands, and its place in the inbox.
    pub(crate) fn standing(&self, name: &str) -> Option<(CommitState, Option<i64>)> {
        let entry = self.all.ledger.get(name)?;
        Some((entry.state, entry.sequence))
    }

    /// Whether it took a new place after it was dead.
    pub(crate) fn reentered(&self, name: &str) -> bool {
        let entry = self.all.ledger.get(name);
        entry.is_some_and(|entry| entry.reentered_at.is_some())
    }

    /// Decides a command at this time, and writes what it came to.
    pub(crate) fn run(&mut self, now: OffsetDateTime, command: Command) -> (Reply, Append) {
        let mut touched = Touched::default();
        command.touch(&mut touched);
        touched.dedup();
        let mut seen = self.read(&touched, now);
        let (mut replies, append) = decide(&organization(), &mut seen, &[command]);
        if !append.is_empty() {
            self.write(&append, now);
        }
        self.agrees(&touched, &seen);
        self.is_sound();
        (replies.remove(0), append)
    }

    fn read(&self, touched: &Touched, now: OffsetDateTime) -> State {
        let mut seen = empty(now);
        seen.head = self.all.head;
        seen.ledger = pick(&self.all.ledger, &touched.commits);
        seen.sources = pick(&self.all.sources, &touched.sources);
        seen.events = pick(&self.all.events, &touched.events);
        seen.feeds = pick(&self.all.feeds, &touched.feeds);
        for key in &touched.versions {
            if let Some(row) = self.versions.get(key) {
                seen.versions.insert(key.clone(), *row);
            }
        }
        for (key, with_body) in &touched.entries {
            if let Some(entry) = self.all.inbox.get(key) {
                let mut entry = entry.clone();
                entry.guards.clear();
                if !with_body && !entry.dead {
                    entry.body = Bytes::new();
                }
                seen.inbox.insert(key.clone(), entry);
            }
        }
        seen
    }

    fn write(&mut self, append: &Append, now: OffsetDateTime) {
        self.all.head.version += 1;
        self.all.head.last_sync_id = append.last_sync_id;
        for entry in &append.commits {
            let name = entry.client_tx_id.clone();
            assert!(self.all.ledger.insert(name, entry.clone()).is_none());
        }
        for (name, entry) in &append.settled {
            let before = self.all.ledger.insert(name.clone(), entry.clone());
            let before = before.expect("what is settled is in the ledger");
            assert_eq!(before.state, CommitState::Queued, "{name} was final");
            let settled = entry.state != CommitState::Queued;
            assert_eq!(entry.settled_at, settled.then_some(now));
        }
        self.write_inbox(append);
        self.write_attempts(append);
        self.write_versions(append);
        for (id, (source, _)) in &append.sources {
            self.all.sources.insert(id.clone(), source.clone());
        }
        for name in &append.events {
            let before = self.all.events.insert(name.clone(), now);
            assert_eq!(before, None, "an event is dealt with once");
        }
        self.all.feeds.extend(append.feeds.clone());
        for row in &append.deltas {
            self.log.push(row.clone());
            let end = i64::try_from(self.log.len()).expect("a log is short");
            assert_eq!(row.delta.sync_id, end, "a gap in the log");
        }
        assert_eq!(append.last_sync_id, self.all.head.last_sync_id);
    }

    /// All parts of an append see the tables as they were before it.
    fn write_inbox(&mut self, append: &Append) {
        let inbox = &mut self.all.inbox;
        let mut moved = Vec::new();
        for (place, changed) in &append.inbox_changed {
            let stored = inbox.remove(place);
            let stored = stored.expect("what changed stands where it was read");
            moved.push(InboxEntry {
                body: stored.body,
                lanes: stored.lanes,
                positions: stored.positions,
                traceparent: stored.traceparent,
                guards: stored.guards,
                last_error: changed.last_error.clone().or(stored.last_error),
                ..changed.clone()
            });
        }
        for place in &append.inbox_done {
            assert!(inbox.remove(place).is_some(), "what is done was there");
        }
        for entry in moved.into_iter().chain(append.inbox.iter().cloned()) {
            let place = (entry.source.clone(), entry.sequence);
            assert!(inbox.insert(place, entry).is_none(), "a place is taken");
        }
    }

    fn write_attempts(&mut self, append: &Append) {
        for closed in &append.attempts_closed {
            let name = (closed.client_tx_id.clone(), closed.number);
            let before = self.attempts.insert(name, true);
            assert_eq!(before, Some(false), "an attempt ends once, after it began");
        }
        for opened in &append.attempts_opened {
            let name = (opened.client_tx_id.clone(), opened.number);
            let before = self.attempts.insert(name, false);
            assert_eq!(before, None, "an attempt has a number of its own");
        }
    }

    fn write_versions(&mut self, append: &Append) {
        for (key, change) in &append.versions {
            if change.tells() || self.versions.contains_key(key) {
                let row = self.versions.entry(key.clone()).or_default();
                row.sync_id = row.sync_id.max(change.sync_id);
                row.unsettled += change.unsettled;
            }
        }
        self.versions.retain(|_, row| *row != RowVersion::default());
    }

    /// What the decision left in memory, which the next one of its batch would see, is what is stored.
    fn agrees(&self, touched: &Touched, seen: &State) {
        for name in &touched.commits {
            assert_eq!(self.all.ledger.get(name), seen.ledger.get(name));
        }
        for id in &touched.sources {
            assert_eq!(self.all.sources.get(id), seen.sources.get(id));
        }
        for id in &touched.feeds {
            assert_eq!(self.all.feeds.get(id), seen.feeds.get(id));
        }
        for key in &touched.versions {
            let stored = self.versions.get(key).copied();
            let seen = seen.versions.get(key).copied();
            assert_eq!(stored.unwrap_or_default(), seen.unwrap_or_default());
        }
        let places = touched.entries.keys().chain(seen.inbox.keys());
        for place in places {
            let plain = |entry: &InboxEntry| InboxEntry {
                body: Bytes::new(),
                guards: Vec::new(),
                ..entry.clone()
            };
            let stored = self.all.inbox.get(place).map(plain);
            assert_eq!(stored, seen.inbox.get(place).map(plain));
        }
        assert_eq!(self.all.head.last_sync_id, seen.head.last_sync_id);
    }

    /// The ledger, the inbox, the source's counts and the attempts on record tell one story.
    fn is_sound(&self) {
        let count = |dead| {
            let entries = self.all.inbox.values();
            i64::try_from(entries.filter(|entry| entry.dead == dead).count())
        };
        assert_eq!(Ok(self.source().pending), count(false));
        assert_eq!(Ok(self.source().dead), count(true));
        let mut open = BTreeSet::new();
        for entry in self.all.inbox.values() {
            let ledger = &self.all.ledger[&entry.client_tx_id];
            assert_eq!(
                (ledger.state, ledger.dead, ledger.sequence),
                (CommitState::Queued, entry.dead, Some(entry.sequence))
            );
            if entry.open.is_some() {
                open.insert((entry.client_tx_id.clone(), entry.attempts));
            }
        }
        let mut unsettled = HashMap::<_, i64>::new();
        for entry in self.all.inbox.values() {
            let operations = wire::operations(&entry.body).unwrap_or_default();
            for key in operations.iter().map(Operation::key) {
                *unsettled.entry(key).or_default() += 1;
            }
        }
        let counted = self.versions.iter().filter(|(_, row)| row.unsettled != 0);
        let counted: HashMap<_, _> = counted
            .map(|(key, row)| (key.clone(), row.unsettled))
            .collect();
        assert_eq!(counted, unsettled, "unsettled commits by row");
        let ledger = self.all.ledger.values();
        let queued = ledger.filter(|entry| entry.state == CommitState::Queued);
        assert_eq!(queued.count(), self.all.inbox.len());
        let on_record = self.attempts.iter().filter(|(_, ended)| !**ended);
        let on_record: BTreeSet<_> = on_record.map(|(name, _)| name.clone()).collect();
        assert_eq!(open, on_record, "attempts that have not ended");
    }
}

fn pick<K: Clone + Eq + std::hash::Hash, V: Clone>(
    all: &HashMap<K, V>,
    wanted: &[K],
) -> HashMap<K, V> {
    let found = wanted.iter().filter_map(|key| all.get_key_value(key));
    found
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn empty(now: OffsetDateTime) -> State {
    let head = Head {
        version: 0,
        last_sync_id: 0,
        schema_version: 0,
    };
    State::empty(now, head)
}
