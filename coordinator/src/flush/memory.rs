//! What a flusher remembers between two batches: commits that wait for their sources, which it would
//! read again for every attempt, and those sources. It holds for the head version that it was learned
//! at, and no other.
//!
//! Where that is all that a batch touches, it is decided without a read. Names of new commits are then
//! taken to be new: the ledger's key refuses the append of one that is not.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use time::OffsetDateTime;

use crate::decide::{Command, Head, InboxEntry, LedgerEntry, Source, State, Touched};
use crate::domain::Route;
use crate::store::clock::DatabaseClock;

/// Bytes of bodies that are remembered at most.
const WEIGHT: usize = 4 << 20;

/// About what an entry takes besides its body.
const ENTRY: usize = 1_024;

/// How long a source is remembered: how far its feed was read moves without the head.
pub(super) const FRESH: Duration = Duration::from_millis(250);

/// Entries by source and sequence.
type Inbox = HashMap<(String, i64), InboxEntry>;

/// As of one version of the head.
#[derive(Debug, Default)]
pub(super) struct Memory {
    stand: Option<Stand>,
    ledger: HashMap<String, LedgerEntry>,
    inbox: Inbox,
    sources: HashMap<String, Source>,
}

/// How the organization stands.
#[derive(Clone, Copy, Debug)]
struct Stand {
    head: Head,
    clock: DatabaseClock,
    /// See [`State::grouped`].
    grouped: bool,
}

impl Memory {
    /// What is left to be read of what a batch touches.
    pub(super) fn unknown(&self, touched: &Touched) -> Touched {
        let mut unknown = touched.clone();
        unknown.commits.retain(|id| !self.ledger.contains_key(id));
        unknown
            .entries
            .retain(|key, _| !self.inbox.contains_key(key));
        unknown
    }

    /// Adds what is remembered to what was read; `false` when the head has moved in between, so that
    /// nothing of it holds any more, and some of it was not read.
    pub(super) fn complete(self, state: &mut State) -> bool {
        let left_out = !(self.ledger.is_empty() && self.inbox.is_empty());
        let stand = self.stand.map(|stand| stand.head.version);
        if stand != Some(state.head.version) {
            return !left_out;
        }
        state.ledger = joined(self.ledger, std::mem::take(&mut state.ledger));
        state.inbox = joined(self.inbox, std::mem::take(&mut state.inbox));
        state.sources = joined(self.sources, std::mem::take(&mut state.sources));
        true
    }

    /// The state for a batch, if all that it touches is remembered: commits that are accepted for Data
    /// Sources without a view of their rows, their starts and settles.
    pub(super) fn recall(&mut self, commands: &[Command], touched: &Touched) -> Option<State> {
        let stand = self.stand?;
        let (now, behind) = (stand.clock.now(), stand.clock.behind());
        let known = |command: &Command| match command {
            Command::Accept(accept) => {
                let commit = &accept.commit;
                let mut operations = commit.operations.iter();
                matches!(commit.route, Route::Source(_))
                    && operations.all(|it| it.read_at.is_none())
            }
            Command::Settle(settle) => self.ledger.contains_key(&settle.client_tx_id),
            Command::Start(start) => start.terms.is_none(),
            _ => false,
        };
        let fresh = |id: &String| {
            let source = self.sources.get(id);
            source.is_some_and(|source| is_fresh(source, now))
        };
        let recalled = behind < FRESH
            && commands.iter().all(known)
            && touched
                .entries
                .keys()
                .all(|key| self.inbox.contains_key(key))
            && touched.sources.iter().all(fresh)
            && (touched.groups.is_empty() || !stand.grouped);
        recalled.then(|| {
            let known = std::mem::take(self);
            let mut state = State::empty(now, stand.head);
            state.behind = behind;
            state.grouped = stand.grouped;
            known.complete(&mut state);
            state
        })
    }

    /// Remembers what a batch left behind: attempts that are in flight first, since their answers are what
    /// comes next.
    pub(super) fn of(clock: DatabaseClock, state: State) -> Self {
        // Without its body an entry is of no use to a start.
        let mut inbox = state.inbox;
        inbox.retain(|_, entry| !entry.dead && !entry.body.is_empty());
        if inbox.values().map(weight).sum::<usize>() > WEIGHT {
            inbox = lightened(inbox);
        }
        let pending: HashSet<&str> = inbox.values().map(|it| it.client_tx_id.as_str()).collect();
        let mut ledger = state.ledger;
        ledger.retain(|name, _| pending.contains(name.as_str()));
        let mut sources = state.sources;
        let now = clock.now();
        sources.retain(|_, source| is_fresh(source, now));
        Self {
            stand: Some(Stand {
                head: state.head,
                clock,
                grouped: state.grouped,
            }),
            ledger,
            inbox,
            sources,
        }
    }
}

fn weight(entry: &InboxEntry) -> usize {
    ENTRY + entry.body.len()
}

/// As many as may be remembered; of those in flight, first.
fn lightened(inbox: Inbox) -> Inbox {
    let (flying, waiting): (Vec<_>, Vec<_>) = inbox
        .into_iter()
        .partition(|(_, entry)| entry.open.is_some());
    let mut weighed = 0;
    let light = flying.into_iter().chain(waiting).take_while(|(_, entry)| {
        weighed += weight(entry);
        weighed <= WEIGHT
    });
    light.collect()
}

/// What is remembered, and what was read: that counts where both are there.
fn joined<K: Eq + Hash, V>(remembered: HashMap<K, V>, read: HashMap<K, V>) -> HashMap<K, V> {
    let mut joined = remembered;
    joined.extend(read);
    joined
}

/// A clock that was set back makes nothing fresh.
fn is_fresh(source: &Source, now: OffsetDateTime) -> bool {
    let age = now - source.seen_at;
    !age.is_negative() && age < FRESH
}
