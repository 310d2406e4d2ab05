//! Which rows of a source are under way, shared by its courier and the reader of its feed, which run
//! on one node under one epoch.
//!
//! An event on a row waits for an attempt at that row, and an attempt waits for an event that is
//! being taken in. So the log never gets a change of one kind in the middle of the other, and a row
//! that is loaded meanwhile is the row as of the log's end.
//!
//! A commit whose answer was lost may have taken effect long before it is settled. If an event came
//! on one of its rows in between, or nobody knows, its rows are read again once it is settled.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The rows of one source that are under way, by lane.
#[derive(Debug)]
pub struct Flight {
    inner: Mutex<Inner>,
    /// An attempt has ended.
    landed: Notify,
    /// The courier has seen its inbox.
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Lanes of attempts, from before they are recorded until they are settled, and how many there
    /// are: a commit that was given up by force may still be in flight beside its row's next one.
    attempts: HashMap<i64, usize>,
    /// Lanes of attempts of an owner before: until when they may be in flight.
    lingering: HashMap<i64, Instant>,
    /// Lanes of events that are being taken in, or wait for an attempt to be.
    events: HashSet<i64>,
    /// Lanes of commits that wait after their first attempt, on which no event came since.
    quiet: HashMap<i64, i64>,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            landed: Notify::new(),
            open: watch::Sender::new(false),
        }
    }
}

/// An attempt under way. Dropping it gives its rows free.
#[derive(Debug)]
pub struct Flying {
    flight: Arc<Flight>,
    sequence: i64,
    lanes: Vec<i64>,
}

/// Rows that events are about. Dropping it gives them free.
#[derive(Debug)]
pub struct Claim<'a> {
    flight: &'a Flight,
    lanes: Vec<i64>,
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt at these rows begins; `None` while an event of one of them is taken in.
    pub fn depart(flight: &Arc<Self>, sequence: i64, lanes: Vec<i64>) -> Option<Flying> {
        let mut inner = flight.lock();
        if lanes.iter().any(|lane| inner.events.contains(lane)) {
            return None;
        }
        for lane in &lanes {
            *inner.attempts.entry(*lane).or_default() += 1;
        }
        drop(inner);
        Some(Flying {
            flight: Arc::clone(flight),
            sequence,
            lanes,
        })
    }

    /// An owner before may have an attempt at these rows in flight until this instant.
    pub fn linger(&self, lanes: &[i64], until: Instant) {
        let mut inner = self.lock();
        for lane in lanes {
            inner.lingering.insert(*lane, until);
        }
    }

    /// The courier has seen its inbox, and what lingers there.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Returns once [`Self::open`] was called.
    pub async fn opened(&self) {
        // The flight itself holds the sender, so this does not end without it.
        drop(self.open.subscribe().wait_for(|open| *open).await);
    }

    /// Claims rows for events: no attempt at them begins until the claim is dropped.
    pub fn claim(&self, lanes: Vec<i64>) -> Claim<'_> {
        self.lock().events.extend(&lanes);
        Claim {
            flight: self,
            lanes,
        }
    }

    /// An event on this row was taken in.
    pub fn moved(&self, lane: i64) {
        self.lock().quiet.remove(&lane);
    }

    /// A commit is not sent any more: nothing of it is in doubt.
    pub fn forget(&self, sequence: i64, lanes: &[i64]) {
        let mut inner = self.lock();
        for lane in lanes {
            if inner.quiet.get(lane) == Some(&sequence) {
                inner.quiet.remove(lane);
            }
        }
    }

    /// The inbox was read anew: other commits are not sent any more.
    pub fn remember(&self, waits: impl Fn(i64) -> bool) {
        self.lock().quiet.retain(|_, sequence| waits(*sequence));
    }

    /// Returns when an attempt has ended that events wait for.
    pub async fn landed(&self) {
        self.landed.notified().await;
    }
}

impl Flying {
    /// The lanes of the commit's rows that an event may have come to since its first attempt, as far as
    /// is known after this one: how many-eth it is.
    pub fn unclear(&self, number: i32) -> HashSet<i64> {
        let inner = self.flight.lock();
        let lanes = self.lanes.iter().copied().filter(|_| number > 1);
        lanes
            .filter(|lane| inner.quiet.get(lane) != Some(&self.sequence))
            .collect()
    }

    /// The attempt was settled: the commit's how many-eth it was, and whether that finished the commit.
    pub fn landed(&self, number: i32, finished: bool) {
        let mut inner = self.flight.lock();
        if !finished {
            if number == 1 {
                let lanes = self.lanes.iter().map(|lane| (*lane, self.sequence));
                inner.quiet.extend(lanes);
            }
            return;
        }
        // Whoever finishes on a row ends the quiet of those before it, too.
        for lane in &self.lanes {
            inner.quiet.remove(lane);
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        let mut inner = self.flight.lock();
        for lane in &self.lanes {
            if let Entry::Occupied(mut attempts) = inner.attempts.entry(*lane) {
                *attempts.get_mut() -= 1;
                if *attempts.get() == 0 {
                    attempts.remove();
                }
            }
        }
        if !inner.events.is_empty() {
            self.flight.landed.notify_one();
        }
    }
}

impl Claim<'_> {
    /// Whether no attempt is under way to this row; if one of an owner before may be, until when.
    pub fn is_free(&self, lane: i64) -> Result<(), Option<Instant>> {
        let mut inner = self.flight.lock();
        if inner.attempts.contains_key(&lane) {
            return Err(None);
        }
        match inner.lingering.get(&lane) {
            Some(until) if *until > Instant::now() => Err(Some(*until)),
            _ => {
                inner.lingering.remove(&lane);
                Ok(())
            }
        }
    }
}

impl Claim<'_> {
    /// Gives some of the rows free.
    pub fn release(&mut self, lanes: &HashSet<i64>) {
        self.lanes.retain(|lane| !lanes.contains(lane));
        let mut inner = self.flight.lock();
        for lane in lanes {
            inner.events.remove(lane);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.flight.lock();
        for lane in &self.lanes {
            inner.events.remove(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn attempts_and_events_at_one_row_wait_for_each_other() {
        let flight = Arc::new(Flight::default());
        let flying = Flight::depart(&flight, 1, vec![1, 2]).unwrap();
        let claim = flight.claim(vec![2, 3]);
        assert_eq!((claim.is_free(2), claim.is_free(3)), (Err(None), Ok(())));
        // The event comes next, whatever else waits for the row.
        drop(flying);
        flight.landed().await;
        assert!(Flight::depart(&flight, 2, vec![2]).is_none());
        assert_eq!(claim.is_free(2), Ok(()));
        drop(claim);
        assert!(Flight::depart(&flight, 2, vec![2, 3]).is_some());
    }

    #[test]
    fn a_row_is_free_when_the_last_of_its_attempts_has_ended() {
        let flight = Arc::new(Flight::default());
        let given_up = Flight::depart(&flight, 1, vec![1]).unwrap();
        let next = Flight::depart(&flight, 2, vec![1]).unwrap();
        let claim = flight.claim(vec![1]);
        drop(given_up);
        assert_eq!(claim.is_free(1), Err(None));
        drop(next);
        assert_eq!(claim.is_free(1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_of_an_owner_before_holds_its_rows_until_its_deadline() {
        let flight = Flight::default();
        let until = Instant::now() + Duration::from_secs(5);
        flight.linger(&[1], until);
        let claim = flight.claim(vec![1]);
        assert_eq!(claim.is_free(1), Err(Some(until)));
        tokio::time::sleep_until(until).await;
        assert_eq!(claim.is_free(1), Ok(()));
    }

    #[test]
    fn rows_are_unclear_when_an_event_came_while_their_commit_was_in_doubt() {
        let flight = Arc::new(Flight::default());
        let attempt = |number, finished| {
            let flying = Flight::depart(&flight, 7, vec![1, 2]).unwrap();
            let unclear = flying.unclear(number);
            flying.landed(number, finished);
            unclear
        };
        attempt(1, false);
        assert_eq!(attempt(2, true), HashSet::new());
        attempt(1, false);
        flight.moved(2);
        attempt(2, false);
        assert_eq!(attempt(3, true), HashSet::from([2]));
        // First sent by an owner before: nobody knows what came in between.
        assert_eq!(attempt(2, true), HashSet::from([1, 2]));
        assert_eq!(attempt(1, true), HashSet::new());
    }

    #[test]
    fn a_commit_that_ends_without_an_attempt_leaves_nothing_behind() {
        let flight = Arc::new(Flight::default());
        let quiet = |flight: &Flight| flight.lock().quiet.len();
        let failed = |sequence, lanes| {
            let flying = Flight::depart(&flight, sequence, lanes).unwrap();
            flying.landed(1, false);
        };
        failed(7, vec![1, 2]);
        failed(8, vec![2, 3]);
        flight.forget(7, &[1, 2]);
        assert_eq!(quiet(&flight), 2);
        failed(9, vec![4]);
        flight.remember(|sequence| sequence == 9);
        assert_eq!(quiet(&flight), 1);
    }
}
