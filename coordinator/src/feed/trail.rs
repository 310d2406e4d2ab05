//! The cursors of a feed, and which of them a sweep has made safe to start from: pure bookkeeping,
//! no clock, no I/O. Times are those of the database; cursors are opaque.
//!
//! A feed numbers its events before their transactions commit, so an event may become visible
//! behind a cursor that was read already, up to the source's *lag* later. So there are two cursors.
//! The *newest* is where polling goes on. The *durable* one trails it: everything up to it was read
//! at a time when no event could become visible there any more. The *trail* between them says when
//! each cursor was first seen; a *sweep* reads from the durable cursor on and moves it.

use std::collections::HashSet;
use std::time::Duration;

use time::OffsetDateTime;

/// Cursors remembered at most.
const LONGEST: usize = 256;

/// Cursors of one lag remembered, about: more would make sweeps no shorter.
const PER_LAG: u32 = 64;

/// Pages of one sweep at most: beyond, the feed is taken to lead in circles.
const LONGEST_SWEEP: usize = 100_000;

/// A cursor between the durable and the newest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The cursor.
    pub cursor: String,
    /// When it was first seen.
    pub seen_at: OffsetDateTime,
}

/// The cursors of one feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    newest: Option<String>,
    durable: Option<String>,
    /// Oldest first; the last is the newest cursor, unless that is durable.
    passed: Vec<Passed>,
}

impl Trail {
    /// A feed that is read from this cursor on, from its start without one.
    pub fn at(cursor: Option<String>) -> Self {
        Self {
            newest: cursor.clone(),
            durable: cursor,
            passed: Vec::new(),
        }
    }

    /// A trail as it was kept.
    pub fn kept(newest: Option<String>, durable: Option<String>, passed: Vec<Passed>) -> Self {
        Self {
            newest,
            durable,
            passed,
        }
    }

    /// Where polling goes on; `None` for the feed's start.
    pub fn newest(&self) -> Option<&str> {
        self.newest.as_deref()
    }

    /// Where a sweep begins; `None` for the feed's start.
    pub fn durable(&self) -> Option<&str> {
        self.durable.as_deref()
    }

    /// The cursors in between, oldest first.
    pub fn passed(&self) -> &[Passed] {
        &self.passed
    }

    /// Whether no event can become visible behind the newest cursor any more.
    pub fn is_settled(&self) -> bool {
        self.passed.is_empty()
    }

    /// The newest cursor is this one now. Cursors that follow close on each other are left out: that
    /// makes the durable one trail a little longer, and nothing else.
    pub fn see(&mut self, cursor: String, now: OffsetDateTime, lag: Duration) {
        if let [.., before, last] = self.passed.as_slice()
            && last.seen_at - before.seen_at < lag / PER_LAG
        {
            self.passed.pop();
        }
        if self.passed.len() >= LONGEST {
            let mut keep = false;
            self.passed.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.newest = Some(cursor.clone());
        self.passed.push(Passed {
            cursor,
            seen_at: now,
        });
    }

    /// The newest cursor behind which nothing could become visible any more at this time.
    fn solid(&self, at: OffsetDateTime, lag: Duration) -> Option<&str> {
        let solid = self.passed.iter().rev().find(|one| one.seen_at + lag <= at);
        solid.map(|one| one.cursor.as_str())
    }

    /// Everything up to this cursor was read when nothing could become visible there any more;
    /// whether it is one of the trail's.
    pub fn reach(&mut self, cursor: &str) -> bool {
        let Some(place) = self.passed.iter().position(|one| one.cursor == cursor) else {
            return false;
        };
        self.passed.drain(..=place);
        self.durable = Some(cursor.to_owned());
        true
    }
}

/// A reading of everything from the durable cursor on.
#[derive(Debug)]
pub struct Sweep {
    cursor: Option<String>,
    /// When the first page was read of those that made no cursor durable yet.
    since: Option<OffsetDateTime>,
    visited: HashSet<String>,
}

/// What a page of a sweep came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// This cursor of the trail is durable now, once the page's events are taken in.
    pub durable: Option<String>,
    /// How the sweep goes on.
    pub next: Next,
}

/// How a sweep goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With another page.
    Page,
    /// It is over.
    End,
    /// It is over: the feed leads in circles.
    Circle,
}

impl Sweep {
    /// Begins at the durable cursor.
    pub fn begin(trail: &Trail) -> Self {
        Self {
            cursor: trail.durable.clone(),
            since: None,
            visited: HashSet::new(),
        }
    }

    /// Where its next page begins.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Takes note of a page: when its request began, and the cursor that it brought.
    pub fn page(
        &mut self,
        trail: &Trail,
        (began, lag): (OffsetDateTime, Duration),
        next: Option<&str>,
    ) -> Swept {
        let since = *self.since.get_or_insert(began);
        let next = next.filter(|next| self.cursor() != Some(next) && trail.newest() != Some(next));
        let Some(next) = next else {
            return Swept {
                durable: trail.solid(since, lag).map(str::to_owned),
                next: Next::End,
            };
        };
        if self.visited.len() >= LONGEST_SWEEP || !self.visited.insert(next.to_owned()) {
            return Swept {
                durable: None,
                next: Next::Circle,
            };
        }
        self.cursor = Some(next.to_owned());
        let old = |one: &Passed| one.cursor == next && one.seen_at + lag <= since;
        let durable = trail.passed.iter().any(old).then(|| next.to_owned());
        if durable.is_some() {
            self.since = None;
        }
        Swept {
            durable,
            next: Next::Page,
        }
    }
}

#[cfg(test)]
mod tests;
