//! What a reader remembers: where the log stood when, which rows its events changed last, and which
//! events it saw lately. Forgetting any of it costs a load or a look-up, and nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use backends::operation::RowKey;
use time::OffsetDateTime;

/// Positions remembered at most.
const POSITIONS: usize = 4_096;

/// Between two positions that are remembered.
const SPACING: Duration = Duration::from_secs(1);

/// Rows remembered at most.
const ROWS: usize = 10_000;

/// Events remembered at most.
const EVENTS: usize = 20_000;

/// Where the log stood when, and which changes were the feed's own.
#[derive(Debug, Default)]
pub(super) struct History {
    positions: VecDeque<(OffsetDateTime, i64)>,
    /// By row: the position, and whether the event was pushed.
    own: HashMap<RowKey, (i64, bool)>,
    /// When the last poll began that reached the feed's end.
    polled_at: Option<OffsetDateTime>,
    /// When the last whole sweep began.
    swept_at: Option<OffsetDateTime>,
}

impl History {
    /// The log ended at this position at this time.
    pub(super) fn position(&mut self, now: OffsetDateTime, last_sync_id: i64) {
        let close = |(at, _): &(OffsetDateTime, i64)| now < *at + SPACING;
        if self.positions.back().is_some_and(close) {
            return;
        }
        if self.positions.len() >= POSITIONS {
            self.positions.pop_front();
        }
        self.positions.push_back((now, last_sync_id));
    }

    /// A position that the log had reached by this time; 0 when none is known.
    pub(super) fn floor(&self, by: OffsetDateTime) -> i64 {
        let known = self.positions.iter().rev().find(|(at, _)| *at <= by);
        known.map_or(0, |(_, position)| *position)
    }

    /// A poll that began then reached the feed's end.
    pub(super) fn polled(&mut self, began: OffsetDateTime) {
        self.polled_at = Some(began);
    }

    /// A sweep that began then reached its end.
    pub(super) fn swept(&mut self, began: OffsetDateTime) {
        self.swept_at = Some(began);
    }

    /// A position that the log had reached before any event could happen that a poll brings now, as
    /// late as this after it took effect.
    pub(super) fn floor_of_poll(&self, lag: Duration) -> i64 {
        self.floor_since(self.polled_at, lag)
    }

    /// The same of what a sweep brings: also what polls have not come to, beyond the newest cursor.
    pub(super) fn floor_of_sweep(&self, lag: Duration) -> i64 {
        self.floor_since(self.polled_at.min(self.swept_at), lag)
    }

    fn floor_since(&self, since: Option<OffsetDateTime>, lag: Duration) -> i64 {
        since.map_or(0, |since| self.floor(since - lag))
    }

    /// An event changed this row, at this position; it was `pushed`, or polled for.
    pub(super) fn changed(&mut self, row: RowKey, sync_id: i64, pushed: bool) {
        if self.own.len() >= ROWS {
            self.own.clear();
        }
        self.own.insert(row, (sync_id, pushed));
    }

    /// Nobody can tell whether the row's next event came after what changed it last.
    pub(super) fn forget(&mut self, row: &RowKey) {
        self.own.remove(row);
    }

    /// What is read from now on may be older than anything that was.
    pub(super) fn forget_all(&mut self) {
        self.own.clear();
        (self.polled_at, self.swept_at) = (None, None);
    }

    /// Position of the row's last change by an event that came the same way, if it is remembered: what
    /// is pushed may be ahead of what is polled for, or behind it.
    pub(super) fn own(&self, row: &RowKey, pushed: bool) -> Option<i64> {
        let own = self.own.get(row).filter(|own| own.1 == pushed);
        own.map(|own| own.0)
    }
}

/// Events that were dealt with lately: a page of nothing else needs no look in the database.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Recent {
    /// Whether this event is remembered.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// This event was dealt with.
    pub(super) fn note(&mut self, id: String) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > EVENTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_floor_is_a_position_that_had_been_reached() {
        let mut history = History::default();
        assert_eq!(history.floor(at(9)), 0);
        history.position(at(10), 5);
        history.position(at(10), 6);
        history.position(at(20), 8);
        assert_eq!(
            [9, 10, 19, 20, 99].map(|by| history.floor(at(by))),
            [0, 5, 5, 8, 8]
        );
        for second in 100..20_000 {
            history.position(at(second), 9);
        }
        assert_eq!(
            (history.positions.len(), history.floor(at(20))),
            (POSITIONS, 0)
        );
    }

    #[test]
    fn the_latest_events_are_remembered() {
        let mut recent = Recent::default();
        for event in 0..=EVENTS {
            recent.note(event.to_string());
            recent.note(event.to_string());
        }
        assert!(!recent.knows("0") && recent.knows("1") && recent.knows("20000"));
        assert_eq!(recent.ids.len(), EVENTS);
    }
}
