//! The commits of one source that its courier knows of: which stand in which lane, which may start,
//! and when. Pure bookkeeping; times are those of the database.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use super::expiry::Expiry;
use super::lanes::Lanes;
use crate::broken::{self, Control};
use crate::decide::{Recovery, Terms};
use crate::store::inbox::Waiting;

/// Places in lanes remembered at most; beyond, reading ahead stops until some are free. A commit
/// has one for each row that it touches.
pub(super) const CAPACITY: usize = 100_000;

/// What a courier remembers of its source's inbox.
#[derive(Debug, Default)]
pub(super) struct Window {
    lanes: Lanes,
    waiting: HashMap<i64, Place>,
    /// Runnable commits by the time when they are due.
    ready: BTreeSet<(OffsetDateTime, i64)>,
    /// The same of those that somebody asked for: they do not wait for the source.
    asked: BTreeSet<(OffsetDateTime, i64)>,
    /// Commits that were taken out, and whose attempt has not ended.
    out: HashSet<i64>,
    /// Commits that are not sent any more and hold their lanes until a time.
    holding: Expiry,
    expiry: Expiry,
    /// Every commit up to this sequence is here or finished.
    pub(super) seen: i64,
    /// What the inbox's order is known by.
    pub(super) revision: i64,
    /// The next probe is the newest commit that may be one, not the oldest.
    newest: bool,
}

/// How a commit waits.
#[derive(Debug)]
struct Place {
    due_at: OffsetDateTime,
    failed_at: Option<OffsetDateTime>,
    weight: u32,
    tried: bool,
    terms: Option<Arc<Terms>>,
    asked: bool,
}

impl Window {
    /// Forgets all but what is under way: an operator changed the inbox, which is read anew.
    pub(super) fn renew(&mut self, revision: i64) {
        *self = Self {
            out: std::mem::take(&mut self.out),
            revision,
            ..Self::default()
        };
    }

    /// Takes in the next commits, in order.
    pub(super) fn extend(&mut self, entries: Vec<Waiting>, recovery: Option<Recovery>) {
        for entry in entries {
            if entry.sequence <= self.seen {
                continue;
            }
            self.seen = entry.sequence;
            let sequence = entry.sequence;
            let due_at = due(entry.due_at, entry.failed_at, recovery);
            if let Some(until) = entry.holds_until {
                self.holding.set(sequence, until);
            } else if let Some(at) = entry.terms.as_ref().and_then(|it| it.expires_at) {
                self.expiry.set(sequence, at);
            }
            let lanes = if broken::is(Control::NoLanes) {
                Vec::new()
            } else {
                entry.lanes
            };
            self.lanes.join(sequence, lanes);
            let place = Place {
                due_at,
                failed_at: entry.failed_at,
                weight: entry.weight,
                tried: entry.tried,
                terms: entry.terms,
                asked: entry.asked,
            };
            self.waiting.insert(sequence, place);
            self.offer(sequence);
        }
    }

    /// Makes a commit ready, if it is runnable and not under way.
    fn offer(&mut self, sequence: i64) {
        let Some(place) = self.waiting.get(&sequence) else {
            return;
        };
        let held = self.holding.contains(sequence) || self.out.contains(&sequence);
        if held || !self.lanes.is_runnable(sequence) {
            return;
        }
        let ready = if place.asked {
            &mut self.asked
        } else {
            &mut self.ready
        };
        ready.insert((place.due_at, sequence));
    }

    /// Whether there is room to read ahead.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.places() < CAPACITY
    }

    /// Whether a commit may start now.
    pub(super) fn is_due(&self, now: OffsetDateTime) -> bool {
        self.ready.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Whether one may, or one that somebody asked for.
    pub(super) fn has_due(&self, now: OffsetDateTime) -> bool {
        self.is_due(now) || self.next_asked().is_some_and(|due| due <= now)
    }

    /// Takes out the commit that may start now, the longest due first.
    pub(super) fn pop(&mut self, now: OffsetDateTime) -> Option<i64> {
        let first = self.ready.first().copied()?;
        self.take_out(first, now)
    }

    /// Takes out the commit to probe a failing source with: one that was never tried if there is
    /// one, by turns the longest and the shortest due, so that no commit that always fails keeps the
    /// source from being found well. Else the longest due.
    pub(super) fn probe(&mut self, now: OffsetDateTime) -> Option<i64> {
        let mut untried = self
            .ready
            .range(..=(now, i64::MAX))
            .filter(|(_, sequence)| self.waiting.get(sequence).is_some_and(|one| !one.tried));
        let found = if self.newest {
            untried.next_back()
        } else {
            untried.next()
        };
        let found = found.copied().or_else(|| self.ready.first().copied())?;
        self.newest = !self.newest;
        self.take_out(found, now)
    }

    fn take_out(&mut self, found: (OffsetDateTime, i64), now: OffsetDateTime) -> Option<i64> {
        let (due, sequence) = found;
        (due <= now && self.ready.remove(&found)).then(|| {
            self.out.insert(sequence);
            sequence
        })
    }

    /// Takes out the longest due of those that somebody asked for.
    pub(super) fn pop_asked(&mut self, now: OffsetDateTime) -> Option<i64> {
        let (due, sequence) = self.asked.first().copied()?;
        if due > now {
            return None;
        }
        self.asked.pop_first();
        self.out.insert(sequence);
        Some(sequence)
    }

    /// Whether a commit waits here.
    pub(super) fn contains(&self, sequence: i64) -> bool {
        self.lanes.contains(sequence)
    }

    /// Takes out a commit that departed with its accept, whether it is here already or not.
    pub(super) fn depart(&mut self, sequence: i64) {
        self.out.insert(sequence);
        if let Some(place) = self.waiting.get(&sequence) {
            self.ready.remove(&(place.due_at, sequence));
        }
    }

    /// Whether nobody stands in these lanes.
    pub(super) fn are_free(&self, lanes: &[i64]) -> bool {
        lanes.iter().all(|lane| self.lanes.is_free(*lane))
    }

    /// The rows that a commit touches, by lane.
    pub(super) fn lanes(&self, sequence: i64) -> &[i64] {
        self.lanes.of(sequence)
    }

    /// When something is to be done next, if nothing happens before.
    pub(super) fn next(&self) -> Option<OffsetDateTime> {
        let due = self.ready.first().map(|(due, _)| *due);
        due.into_iter().chain(self.holding.next()).min()
    }

    /// When the next commit that somebody asked for is due.
    pub(super) fn next_asked(&self) -> Option<OffsetDateTime> {
        self.asked.first().map(|(due, _)| *due)
    }

    /// A commit is finished: its lanes move on.
    pub(super) fn finish(&mut self, sequence: i64) {
        self.out.remove(&sequence);
        if let Some(place) = self.waiting.remove(&sequence) {
            self.ready.remove(&(place.due_at, sequence));
            self.asked.remove(&(place.due_at, sequence));
        }
        self.expiry.forget(sequence);
        self.holding.forget(sequence);
        for runnable in self.lanes.leave(sequence) {
            self.offer(runnable);
        }
    }

    /// A commit that was taken out, and not tried, waits again.
    pub(super) fn wait(&mut self, sequence: i64, due_at: OffsetDateTime) {
        self.out.remove(&sequence);
        if let Some(place) = self.waiting.get_mut(&sequence) {
            place.due_at = due_at;
            self.offer(sequence);
        }
    }

    /// A commit that was tried waits again: until when, and when it failed.
    pub(super) fn wait_again(
        &mut self,
        sequence: i64,
        (due_at, failed_at): (OffsetDateTime, Option<OffsetDateTime>),
        recovery: Option<Recovery>,
    ) {
        self.out.remove(&sequence);
        let due_at = due(due_at, failed_at, recovery);
        if let Some(place) = self.waiting.get_mut(&sequence) {
            place.due_at = due_at;
            place.failed_at = failed_at;
            place.tried = true;
            self.offer(sequence);
        }
    }

    /// Whether an attempt of this commit is under way here.
    pub(super) fn is_out(&self, sequence: i64) -> bool {
        self.out.contains(&sequence)
    }

    /// What a commit's attempts rest on.
    pub(super) fn terms(&self, sequence: i64) -> Option<Arc<Terms>> {
        self.waiting.get(&sequence)?.terms.clone()
    }

    /// Bytes of a commit's body.
    pub(super) fn weight(&self, sequence: i64) -> usize {
        let place = self.waiting.get(&sequence);
        place.map_or(0, |place| place.weight as usize)
    }

    /// Takes out a commit whose time is over, wherever it stands.
    pub(super) fn pop_expired(&mut self, now: OffsetDateTime) -> Option<i64> {
        self.expiry.pop(now)
    }

    /// A commit's time is over then, if it is here and has an end.
    pub(super) fn expires(&mut self, sequence: i64, at: OffsetDateTime) {
        let ends = |place: &Place| {
            place
                .terms
                .as_ref()
                .is_some_and(|it| it.expires_at.is_some())
        };
        if self.waiting.get(&sequence).is_some_and(ends) {
            self.expiry.set(sequence, at);
        }
    }

    /// When the next commit's time is over.
    pub(super) fn next_expiry(&self) -> Option<OffsetDateTime> {
        self.expiry.next()
    }

    /// Somebody asked for the next attempt of a commit, or nobody does any more.
    pub(super) fn ask(&mut self, sequence: i64, asked: bool) {
        if let Some(place) = self.waiting.get_mut(&sequence) {
            place.asked = asked;
        }
    }

    /// A commit is not sent any more, but an attempt may still apply: its lanes wait for that.
    pub(super) fn hold(&mut self, sequence: i64, until: OffsetDateTime) {
        self.expiry.forget(sequence);
        self.out.remove(&sequence);
        self.holding.set(sequence, until);
    }

    /// Takes a commit that need not hold its lanes any more.
    pub(super) fn pop_over(&mut self, now: OffsetDateTime) -> Option<i64> {
        self.holding.pop(now)
    }

    /// The source came back: what failed in the spell is due at once, or when its turn comes.
    pub(super) fn recover(&mut self, recovery: Recovery) {
        for (sequence, place) in &mut self.waiting {
            let before = place.due_at;
            place.due_at = due(before, place.failed_at, Some(recovery));
            let ready = if place.asked {
                &mut self.asked
            } else {
                &mut self.ready
            };
            if ready.remove(&(before, *sequence)) {
                ready.insert((place.due_at, *sequence));
            }
        }
    }
}

fn due(
    due_at: OffsetDateTime,
    failed_at: Option<OffsetDateTime>,
    recovery: Option<Recovery>,
) -> OffsetDateTime {
    match failed_at.zip(recovery) {
        Some((failed_at, recovery)) if recovery.covers(failed_at) => due_at.min(recovery.at),
        _ => due_at,
    }
}

#[cfg(test)]
mod tests;
