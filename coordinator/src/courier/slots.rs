//! Requests of one source in flight, as its limit counts them.
//!
//! An attempt holds a slot from when it is chosen until it has its answer. So that slots do not idle
//! while attempts are recorded, some more are chosen than there are slots: as many as are likely to
//! come free in that time, by the answers that came lately. They *stand by*, and leave one for each
//! definite answer; after a failure it is for the courier to say who may leave.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::shares::Share;

/// How long an attempt stands by at most. Only answers that took less say how many may, and only if all
/// slots came free in this time, so that it passes only when an endpoint stops answering.
const PATIENCE: Duration = Duration::from_millis(250);

/// As many attempts stand by as answers come while one is recorded, which takes about this part of
/// [`PATIENCE`].
const RECORDING: usize = 10;

/// But no more than one for so many slots.
const SLOTS_EACH: usize = 4;

/// How many requests of one source are in flight.
#[derive(Debug, Default)]
pub(super) struct Slots {
    inner: Mutex<Inner>,
    /// The courier waits for one to come free.
    wanted: AtomicBool,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Those who stand by leave while fewer are taken.
    limit: usize,
    taken: usize,
    standing_by: usize,
    /// Of those, the recorded ones, in the order in which they were.
    ready: VecDeque<oneshot::Sender<()>>,
    /// When answers came, as many as say how many may stand by; none while nobody is to.
    answers: Option<VecDeque<Instant>>,
}

/// How long an attempt stands by at most whose request may take so long: the time is the request's.
fn patience(request: Duration) -> Duration {
    PATIENCE.min(request / 20)
}

/// One request in flight, or about to be. Dropping it lets the courier begin another.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    held: Held,
    answer: Option<Answer>,
    /// Of the node's requests in flight.
    _share: Share,
}

/// A definite answer of the endpoint's.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Quick,
    Slow,
}

#[derive(Debug)]
enum Held {
    Slot,
    /// The attempt stands by; once it is recorded, it is told here that a slot is its own.
    Place(Option<oneshot::Receiver<()>>),
}

impl Slots {
    /// Attempts that hold a slot or stand by.
    pub(super) fn begun(&self) -> usize {
        let inner = self.lock();
        inner.taken + inner.standing_by
    }

    /// How many may stand by.
    pub(super) fn places(&self) -> usize {
        let inner = self.lock();
        let since = Instant::now() - PATIENCE;
        let lately = inner.answers.as_ref().map_or(0, |answers| {
            answers.len() - answers.partition_point(|at| *at < since)
        });
        if lately < inner.limit {
            return 0;
        }
        (lately / RECORDING).min(inner.limit / SLOTS_EACH)
    }

    /// How many requests there may be for those who stand by to leave, and whether they are to leave at
    /// all.
    pub(super) fn allow(&self, limit: usize, well: bool) {
        let mut inner = self.lock();
        inner.limit = limit;
        if well {
            inner.answers.get_or_insert_default();
            inner.call();
        } else {
            inner.answers = None;
            inner.ready.clear();
        }
    }

    /// A slot.
    pub(super) fn take(slots: &Arc<Self>, share: Share) -> Slot {
        slots.lock().taken += 1;
        Slot {
            slots: Arc::clone(slots),
            held: Held::Slot,
            answer: None,
            _share: share,
        }
    }

    /// A place to stand by at.
    pub(super) fn stand_by(slots: &Arc<Self>, share: Share) -> Slot {
        slots.lock().standing_by += 1;
        Slot {
            slots: Arc::clone(slots),
            held: Held::Place(None),
            answer: None,
            _share: share,
        }
    }

    /// Whether [`Self::freed`] is to return when one comes free. Say so before looking at
    /// [`Self::begun`].
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Returns when one came free that was wanted.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives slots that are free to those who stand by.
    fn call(&mut self) {
        while self.taken < self.limit
            && let Some(ready) = self.ready.pop_front()
        {
            if ready.send(()).is_ok() {
                self.standing_by -= 1;
                self.taken += 1;
            }
        }
    }

    /// The endpoint is well.
    fn answered(&mut self, answer: Answer) {
        let most = self.limit.max(self.limit / SLOTS_EACH * RECORDING);
        if let (Some(answers), Answer::Quick) = (&mut self.answers, answer) {
            answers.push_back(Instant::now());
            while answers.len() > most {
                answers.pop_front();
            }
        }
        self.call();
    }
}

impl Slot {
    /// Waits until the attempt, which is recorded now, may leave; `false` if it is not to, or nobody makes
    /// room for it. Its request may take so long.
    pub(super) async fn turn(&mut self, request: Duration) -> bool {
        let Held::Place(place) = &mut self.held else {
            return true;
        };
        let (ready, called) = oneshot::channel();
        {
            let mut inner = self.slots.lock();
            if inner.answers.is_none() {
                return false;
            }
            inner.ready.push_back(ready);
            inner.call();
        }
        let called = place.insert(called);
        let came = match timeout(patience(request), &mut *called).await {
            Ok(came) => came.is_ok(),
            Err(_) => was_called(called),
        };
        if came {
            self.held = Held::Slot;
        }
        came
    }

    /// The endpoint gave a definite answer after so long, of the time that it had: the next may leave.
    pub(super) fn answered(mut self, after: Duration, of: Duration) {
        let quick = after < patience(of);
        self.answer = Some(if quick { Answer::Quick } else { Answer::Slow });
    }
}

/// Whether it was called in the last moment. From now on it is not.
fn was_called(called: &mut oneshot::Receiver<()>) -> bool {
    called.close();
    called.try_recv().is_ok()
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.slots.lock();
        let taken = match &mut self.held {
            Held::Slot => true,
            Held::Place(called) => called.as_mut().is_some_and(was_called),
        };
        if taken {
            inner.taken -= 1;
        } else {
            inner.standing_by -= 1;
        }
        if let Some(answer) = self.answer {
            inner.answered(answer);
        }
        drop(inner);
        if self.slots.wanted.load(Ordering::SeqCst) {
            self.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::shares::Shares;
    use super::*;
    use crate::domain::OrganizationId;

    /// What a request may take.
    const REQUEST: Duration = Duration::from_secs(15);

    /// A tenth of the patience.
    const MOMENT: Duration = Duration::from_millis(25);

    fn share() -> Share {
        let shares = Shares::new(2);
        shares
            .take_now(&OrganizationId::new("acme"))
            .expect("one is free")
    }

    /// Slots that are all taken, of a source that is well.
    fn full(limit: usize) -> (Arc<Slots>, Vec<Slot>) {
        let slots = Arc::new(Slots::default());
        slots.allow(limit, true);
        let mut taken = Vec::new();
        refill(&slots, &mut taken, limit);
        (slots, taken)
    }

    fn refill(slots: &Arc<Slots>, taken: &mut Vec<Slot>, limit: usize) {
        while slots.begun() < limit {
            taken.push(Slots::take(slots, share()));
        }
    }

    /// So many of the endpoint's answers, which took so long.
    fn answer_after(took: Duration, taken: &mut Vec<Slot>, count: usize) {
        for slot in taken.drain(..count) {
            slot.answered(took, REQUEST);
        }
    }

    fn answer(taken: &mut Vec<Slot>, count: usize) {
        answer_after(PATIENCE / 2, taken, count);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_stand_by_as_are_answered_while_one_is_recorded_a_quarter_at_most() {
        // Each request takes 100 ms.
        let (slots, mut taken) = full(40);
        for _ in 0..4 {
            tokio::time::advance(MOMENT).await;
            assert_eq!(slots.places(), 0);
            answer(&mut taken, 10);
            refill(&slots, &mut taken, 40);
        }
        assert_eq!(slots.places(), 4);
        for _ in 0..20 {
            tokio::time::advance(MOMENT).await;
            answer(&mut taken, 10);
            refill(&slots, &mut taken, 40);
        }
        assert_eq!(slots.places(), 10);
        // It stops answering.
        tokio::time::advance(MOMENT * 9).await;
        assert_eq!(slots.places(), 0);
        // What was answered before a source was left alone says nothing.
        answer(&mut taken, 40);
        assert_ne!(slots.places(), 0);
        slots.allow(40, false);
        slots.allow(40, true);
        assert_eq!(slots.places(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_stands_by_at_an_endpoint_that_takes_longer_than_anybody_would_wait() {
        let (slots, mut taken) = full(16);
        for _ in 0..10 {
            // All at once, as they left.
            tokio::time::advance(PATIENCE * 2).await;
            answer_after(PATIENCE * 2, &mut taken, 16);
            assert_eq!(slots.places(), 0);
            refill(&slots, &mut taken, 16);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_recorded_first_leaves_first_one_for_each_answer() {
        let (slots, mut taken) = full(2);
        let in_turn = async |mut slot: Slot| slot.turn(REQUEST).await.then_some(slot);
        let mut chosen = [(); 3].map(|()| Slots::stand_by(&slots, share()));
        // Recorded in another order.
        chosen.reverse();
        let mut turns = chosen.map(|slot| Box::pin(in_turn(slot)));
        for turn in &mut turns {
            assert!(turn.now_or_never().is_none());
        }
        answer(&mut taken, 1);
        assert_eq!(slots.begun(), 4);
        let [mut first, second, last] = turns;
        let first = (&mut first).now_or_never().flatten();
        assert!(first.is_some());
        // Whoever stopped waiting is passed over.
        drop(second);
        answer(&mut taken, 1);
        let last = last.await;
        assert!(last.is_some());
        drop((first, last));
        assert_eq!(slots.begun(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_it_is_said_who_may_leave() {
        let (slots, mut taken) = full(2);
        let mut slot = Slots::stand_by(&slots, share());
        let mut turn = Box::pin(slot.turn(REQUEST));
        assert_eq!((&mut turn).now_or_never(), None);
        drop(taken.pop());
        assert_eq!((&mut turn).now_or_never(), None);
        slots.allow(1, true);
        assert_eq!((&mut turn).now_or_never(), None);
        slots.allow(2, true);
        assert!(turn.await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_leaves_when_the_source_is_not_well_or_no_answer_comes() {
        let (slots, taken) = full(1);
        let mut slot = Slots::stand_by(&slots, share());
        let mut turn = Box::pin(slot.turn(REQUEST));
        assert_eq!((&mut turn).now_or_never(), None);
        slots.allow(1, false);
        assert!(!turn.await);
        assert!(!slot.turn(REQUEST).await);
        slots.allow(1, true);
        for (request, waited) in [(15_000, 250), (1_000, 50)] {
            let begun = Instant::now();
            assert!(!slot.turn(Duration::from_millis(request)).await);
            assert_eq!(begun.elapsed(), Duration::from_millis(waited));
        }
        drop(slot);
        assert_eq!(slots.begun(), 1);
        drop(taken);
        assert_eq!(slots.begun(), 0);
    }

    /// A slot that was given away in the moment in which its taker gave up is not lost.
    #[tokio::test(start_paused = true)]
    async fn a_slot_that_nobody_came_for_is_free() {
        let (slots, mut taken) = full(1);
        let mut gone = Slots::stand_by(&slots, share());
        assert_eq!(gone.turn(REQUEST).now_or_never(), None);
        answer(&mut taken, 1);
        assert_eq!(slots.lock().standing_by, 0);
        assert_eq!(slots.begun(), 1);
        drop(gone);
        assert_eq!(slots.begun(), 0);
    }
}
