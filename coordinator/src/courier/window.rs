//! The commits of one source that its courier knows of: which stand in which lane, which may start,
//! and when. Pure bookkeeping; times are those of the database.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use time::OffsetDateTime;

use super::lanes::Lanes;
use crate::store::inbox::Waiting;

/// Places in lanes remembered at most; beyond, reading ahead stops until some are free. A commit
/// has one for each row that it touches.
const CAPACITY: usize = 100_000;

/// What a courier remembers of its source's inbox.
#[derive(Debug, Default)]
pub(super) struct Window {
    lanes: Lanes,
    waiting: HashMap<i64, Waiting>,
    /// Runnable commits by the time when they are due.
    ready: BTreeSet<(OffsetDateTime, i64)>,
    /// Commits that are not sent any more and hold their lanes until a time.
    holding: BTreeMap<i64, OffsetDateTime>,
    /// Every commit up to this sequence is here or finished.
    pub(super) seen: i64,
}

impl Window {
    /// Takes in the next commits, in order.
    pub(super) fn extend(&mut self, entries: Vec<Waiting>, recovered_at: Option<OffsetDateTime>) {
        for entry in entries {
            if entry.sequence <= self.seen {
                continue;
            }
            self.seen = entry.sequence;
            let sequence = entry.sequence;
            let due = due(&entry, recovered_at);
            if let Some(until) = entry.holds_until {
                self.holding.insert(sequence, until);
            }
            let runnable = self.lanes.join(sequence, entry.lanes.clone());
            if runnable && entry.holds_until.is_none() {
                self.ready.insert((due, sequence));
            }
            self.waiting.insert(
                sequence,
                Waiting {
                    due_at: due,
                    lanes: Vec::new(),
                    ..entry
                },
            );
        }
    }

    /// Whether there is room to read ahead.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.places() < CAPACITY
    }

    /// Takes out the commit that may start now, the longest due first.
    pub(super) fn pop(&mut self, now: OffsetDateTime) -> Option<i64> {
        let (due, sequence) = self.ready.first().copied()?;
        if due > now {
            return None;
        }
        self.ready.pop_first();
        Some(sequence)
    }

    /// When something is to be done next, if nothing happens before.
    pub(super) fn next(&self) -> Option<OffsetDateTime> {
        let due = self.ready.first().map(|(due, _)| *due);
        due.into_iter()
            .chain(self.holding.values().min().copied())
            .min()
    }

    /// A commit is finished: its lanes move on.
    pub(super) fn finish(&mut self, sequence: i64) {
        self.waiting.remove(&sequence);
        self.holding.remove(&sequence);
        for runnable in self.lanes.leave(sequence) {
            if self.holding.contains_key(&runnable) {
                continue;
            }
            if let Some(entry) = self.waiting.get(&runnable) {
                self.ready.insert((entry.due_at, runnable));
            }
        }
    }

    /// A commit that was taken out waits again; if it failed, when it did and when the source last
    /// recovered.
    pub(super) fn wait(
        &mut self,
        sequence: i64,
        due_at: OffsetDateTime,
        failed: Option<(OffsetDateTime, Option<OffsetDateTime>)>,
    ) {
        let Some(entry) = self.waiting.get_mut(&sequence) else {
            return;
        };
        entry.due_at = due_at;
        if let Some((failed_at, recovered_at)) = failed {
            entry.failed_at = Some(failed_at);
            entry.due_at = due(entry, recovered_at);
        }
        self.ready.insert((entry.due_at, sequence));
    }

    /// A commit is not sent any more, but an attempt may still apply: its lanes wait for that.
    pub(super) fn hold(&mut self, sequence: i64, until: OffsetDateTime) {
        self.holding.insert(sequence, until);
    }

    /// Lets go of lanes whose time has come.
    pub(super) fn release(&mut self, now: OffsetDateTime) {
        let over: Vec<i64> = self
            .holding
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in over {
            self.finish(sequence);
        }
    }

    /// The source came back: what failed before is due at once.
    pub(super) fn recover(&mut self, recovered_at: OffsetDateTime) {
        let ready = std::mem::take(&mut self.ready);
        for (_, sequence) in ready {
            let Some(entry) = self.waiting.get_mut(&sequence) else {
                continue;
            };
            entry.due_at = due(entry, Some(recovered_at));
            self.ready.insert((entry.due_at, sequence));
        }
    }
}

fn due(entry: &Waiting, recovered_at: Option<OffsetDateTime>) -> OffsetDateTime {
    match (entry.failed_at, recovered_at) {
        (Some(failed), Some(recovered)) if failed <= recovered => entry.due_at.min(recovered),
        _ => entry.due_at,
    }
}
