//! The newest changes of one log, in memory: always a contiguous suffix of what was read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::Entry;

/// The most entries that a ring holds, and the most bytes.
const ENTRIES: usize = 4_096;
const BYTES: usize = 4 << 20;

/// A bounded suffix of a log.
#[derive(Debug)]
pub(super) struct Ring {
    /// The position before the first entry.
    start: i64,
    entries: VecDeque<Arc<Entry>>,
    weight: usize,
}

/// What a ring has behind a position.
#[derive(Debug)]
pub(super) enum After {
    /// The next changes, without a gap.
    Entries(Vec<Arc<Entry>>),
    /// Nothing yet: the position is the end, or lies beyond it, as one does that was read from the
    /// database before the ring got there.
    Nothing,
    /// Changes that the ring does not hold any more.
    Behind,
}

/// The entry does not follow the last one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap;

impl Ring {
    /// A ring that begins behind this position.
    pub(super) fn at(position: i64) -> Self {
        Self {
            start: position,
            entries: VecDeque::new(),
            weight: 0,
        }
    }

    /// The position of the newest entry.
    pub(super) fn end(&self) -> i64 {
        self.start + i64::try_from(self.entries.len()).expect("it is bounded")
    }

    /// The newest entry.
    pub(super) fn last(&self) -> Option<&Arc<Entry>> {
        self.entries.back()
    }

    /// Adds the next change; the oldest ones make room.
    pub(super) fn push(&mut self, entry: Arc<Entry>) -> Result<(), Gap> {
        if entry.sync_id != self.end() + 1 {
            return Err(Gap);
        }
        self.weight += entry.weight();
        self.entries.push_back(entry);
        while self.entries.len() > ENTRIES || (self.weight > BYTES && self.entries.len() > 1) {
            let oldest = self.entries.pop_front().expect("there are several");
            self.weight -= oldest.weight();
            self.start += 1;
        }
        Ok(())
    }

    /// The changes behind a position, up to `count` and about `bytes`.
    pub(super) fn after(&self, position: i64, count: usize, bytes: usize) -> After {
        let Ok(skip) = usize::try_from(position - self.start) else {
            return After::Behind;
        };
        let mut weight = 0;
        let fit = self.entries.iter().skip(skip).take(count);
        let fit: Vec<_> = fit
            .take_while(|entry| {
                let first = weight == 0;
                weight += entry.weight();
                first || weight <= bytes
            })
            .map(Arc::clone)
            .collect();
        if fit.is_empty() {
            After::Nothing
        } else {
            After::Entries(fit)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::tests::entry;

    fn positions(after: &After) -> Vec<i64> {
        match after {
            After::Entries(entries) => entries.iter().map(|entry| entry.sync_id).collect(),
            _ => Vec::new(),
        }
    }

    proptest! {
        /// Whatever is offered, a ring holds a contiguous suffix, and gives out what follows a
        /// position or says that it cannot.
        #[test]
        fn a_ring_is_a_contiguous_suffix_and_a_gap_is_never_bridged(
            start in 0_i64..1_000,
            offered in prop::collection::vec((0_i64..3, 0_usize..200_000), 1..100),
            asked in 0_i64..1_200,
        ) {
            let mut ring = Ring::at(start);
            for (step, size) in offered {
                let end = ring.end();
                let pushed = ring.push(entry(end + step, size));
                prop_assert_eq!(pushed.is_ok(), step == 1);
                prop_assert_eq!(ring.end(), if step == 1 { end + 1 } else { end });
            }
            prop_assert!(ring.weight <= BYTES || ring.entries.len() == 1);
            let held: Vec<i64> = ring.entries.iter().map(|entry| entry.sync_id).collect();
            let wanted: Vec<i64> = (ring.start + 1..=ring.end()).collect();
            prop_assert_eq!(held, wanted);
            let after = ring.after(asked, 10, usize::MAX);
            match &after {
                After::Behind => prop_assert!(asked < ring.start),
                After::Nothing => prop_assert!(asked >= ring.end()),
                After::Entries(_) => {
                    let wanted: Vec<i64> = (asked + 1..=ring.end()).take(10).collect();
                    prop_assert_eq!(positions(&after), wanted);
                }
            }
        }
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let mut ring = Ring::at(0);
        for position in 1..=i64::try_from(ENTRIES).unwrap() + 5 {
            ring.push(entry(position, 10)).unwrap();
        }
        assert_eq!(ring.entries.len(), ENTRIES);
        assert!(matches!(ring.after(4, 1, 1), After::Behind));
        assert_eq!(positions(&ring.after(5, 1, 1)), [6]);
    }

    #[test]
    fn an_entry_that_is_too_large_still_passes() {
        let mut ring = Ring::at(0);
        ring.push(entry(1, 2 * BYTES)).unwrap();
        assert_eq!(positions(&ring.after(0, 10, 1)), [1]);
        ring.push(entry(2, 1)).unwrap();
        assert!(matches!(ring.after(0, 10, 1), After::Behind));
    }
}
