//! When a feed is read next.

use std::time::Duration;

use tokio::time::Instant;

/// Between polls while events come.
const BUSY: Duration = Duration::from_millis(250);

/// Between polls at most, and between sweeps, for as long as the lag after an event.
pub(super) const WATCHFUL: Duration = Duration::from_secs(5);

/// Between polls of a quiet feed at most.
const QUIET: Duration = Duration::from_mins(5);

/// After a request that failed at least.
const FAILED: Duration = Duration::from_secs(1);

/// First requests of the readers of a node follow each other like this.
const SPREAD: Duration = Duration::from_millis(1);

/// A sweep is followed by a pause so many times as long as itself at least.
const REST: u32 = 4;

/// When a feed is read next.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    pause: Duration,
    sweep_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            pause: BUSY / 2,
            sweep_at: now + WATCHFUL,
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn sweep_at(&self) -> Instant {
        self.sweep_at
    }

    /// The first request of one of so many readers: not all at one moment.
    pub(super) fn spread(&mut self, running: usize) {
        let width = SPREAD * u32::try_from(running).unwrap_or(u32::MAX);
        self.next = Instant::now() + width.mul_f64(rand::random());
    }

    pub(super) fn at_once(&mut self) {
        self.next = Instant::now();
        self.pause = BUSY / 2;
    }

    /// A poll brought events, and there may be more of them behind it.
    pub(super) fn busy(&mut self, more: bool) {
        self.pause = BUSY;
        self.next = Instant::now() + if more { Duration::ZERO } else { BUSY };
    }

    /// A poll brought nothing new; whether events came lately.
    pub(super) fn quiet(&mut self, lately: bool) {
        let cap = if lately { WATCHFUL } else { QUIET };
        self.wait((self.pause * 2).min(cap));
    }

    /// A request failed; the endpoint asked for this pause.
    pub(super) fn failed(&mut self, at_least: Duration) {
        let pause = (self.pause * 2).clamp(FAILED, QUIET);
        self.wait(pause);
        self.next = self.next.max(Instant::now() + at_least);
        self.sweep_at = self.sweep_at.max(self.next);
    }

    /// The next page of a sweep may follow.
    pub(super) fn sweep_on(&mut self) {
        self.sweep_at = Instant::now();
    }

    /// A sweep is over, which took so long; whether events came lately.
    pub(super) fn swept(&mut self, took: Duration, lately: bool) {
        let pause = if lately { WATCHFUL } else { self.pause };
        self.sweep_at = Instant::now() + pause.max(WATCHFUL).max(took * REST);
    }

    fn wait(&mut self, pause: Duration) {
        self.pause = pause;
        let jitter = 0.8 + 0.4 * rand::random::<f64>();
        self.next = Instant::now() + pause.mul_f64(jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(pace: &Pace) -> Duration {
        pace.next - Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn polls_are_close_while_events_come_and_ever_more_seldom_when_none_do() {
        let mut pace = Pace::new(Instant::now());
        pace.busy(false);
        assert_eq!(pause(&pace), BUSY);
        pace.busy(true);
        assert_eq!(pause(&pace), Duration::ZERO);
        for _ in 0..20 {
            pace.quiet(true);
            assert!(pause(&pace) <= WATCHFUL.mul_f64(1.2) && pause(&pace) >= BUSY.mul_f64(0.8));
        }
        for _ in 0..20 {
            let before = pace.pause;
            pace.quiet(false);
            assert!(pace.pause == (before * 2).min(QUIET));
        }
        assert!(pause(&pace) >= QUIET.mul_f64(0.8));
        pace.at_once();
        assert_eq!(pause(&pace), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_sweeps_wait() {
        let mut pace = Pace::new(Instant::now());
        pace.failed(Duration::ZERO);
        assert!(pause(&pace) >= FAILED.mul_f64(0.8));
        pace.failed(Duration::from_hours(1));
        assert!(pause(&pace) >= Duration::from_hours(1) && pace.sweep_at >= pace.next);
        let mut pace = Pace::new(Instant::now());
        pace.swept(Duration::from_secs(10), true);
        assert_eq!(pace.sweep_at - Instant::now(), Duration::from_secs(40));
        pace.swept(Duration::ZERO, true);
        assert_eq!(pace.sweep_at - Instant::now(), WATCHFUL);
        for _ in 0..20 {
            pace.quiet(false);
        }
        pace.swept(Duration::ZERO, false);
        assert_eq!(pace.sweep_at - Instant::now(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn first_requests_of_many_readers_spread() {
        let mut pace = Pace::new(Instant::now());
        pace.spread(10_000);
        assert!(pause(&pace) <= SPREAD * 10_000);
        pace.spread(0);
        assert_eq!(pause(&pace), Duration::ZERO);
    }
}
