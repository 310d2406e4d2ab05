//! What a flusher remembers between two batches: commits that wait for their sources, which it would
//! read again for every attempt. It holds for the head version that it was learned at, and no other.

use std::collections::{HashMap, HashSet};

use crate::decide::{InboxEntry, LedgerEntry, State, Touched};

/// Bytes of bodies that are remembered at most.
const WEIGHT: usize = 4 << 20;

/// About what an entry takes besides its body.
const ENTRY: usize = 1_024;

/// Commits in inboxes, as of one version of the head. Not their sources: how far a feed was read moves
/// without the head.
#[derive(Debug, Default)]
pub(super) struct Memory {
    version: i64,
    ledger: HashMap<String, LedgerEntry>,
    inbox: HashMap<(String, i64), InboxEntry>,
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
    /// nothing of it holds any more.
    pub(super) fn complete(self, state: &mut State) -> bool {
        let holds = self.is_empty() || self.version == state.head.version;
        if holds {
            state.ledger.extend(self.ledger);
            state.inbox.extend(self.inbox);
        }
        holds
    }

    fn is_empty(&self) -> bool {
        self.ledger.is_empty() && self.inbox.is_empty()
    }

    /// Remembers what a batch left behind, at this version of the head: attempts that are in flight
    /// first, since their answers are what comes next.
    pub(super) fn of(state: State, version: i64) -> Self {
        // Without its body an entry is of no use to a start.
        let whole = |entry: &InboxEntry| !entry.dead && !entry.body.is_empty();
        let entries = state.inbox.into_iter().filter(|(_, entry)| whole(entry));
        let (flying, waiting): (Vec<_>, Vec<_>) =
            entries.partition(|(_, entry)| entry.open.is_some());
        let mut weight = 0;
        let inbox: HashMap<_, _> = flying
            .into_iter()
            .chain(waiting)
            .take_while(|(_, entry)| {
                weight += ENTRY + entry.body.len();
                weight <= WEIGHT
            })
            .collect();
        let pending: HashSet<&str> = inbox.values().map(|it| it.client_tx_id.as_str()).collect();
        let mut ledger = state.ledger;
        ledger.retain(|name, _| pending.contains(name.as_str()));
        Self {
            version,
            ledger,
            inbox,
        }
    }
}
