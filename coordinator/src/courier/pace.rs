//! How many requests a source may be sent per second.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of tokens, one for each request: it fills at the rate, and holds a tenth of a second's
/// worth, at least one. Written as the time when it would be full again (GCRA), so that it needs no
/// tick.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two requests; zero when there is no limit.
    interval: Duration,
    /// How far requests may be ahead of the interval.
    tolerance: Duration,
    full_at: Instant,
}

impl Pace {
    /// No limit yet.
    pub(super) fn new() -> Self {
        Self {
            interval: Duration::ZERO,
            tolerance: Duration::ZERO,
            full_at: Instant::now(),
        }
    }

    /// So many requests per second from now on; 0 for no limit.
    pub(super) fn limit(&mut self, per_second: u32) {
        let interval = Duration::from_secs(1).checked_div(per_second);
        self.interval = interval.unwrap_or_default();
        self.tolerance = self.interval * (per_second / 10).saturating_sub(1);
    }

    /// Whether there is a limit.
    pub(super) fn is_limited(&self) -> bool {
        !self.interval.is_zero()
    }

    /// How long the next request must wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if !self.is_limited() {
            return Duration::ZERO;
        }
        let ahead = self.full_at.saturating_duration_since(now);
        ahead.saturating_sub(self.tolerance)
    }

    /// A request is made.
    pub(super) fn spend(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_limit_nothing_waits() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        for _ in 0..1_000 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.spend(now);
        }
        pace.limit(10);
        pace.limit(0);
        assert_eq!(pace.wait(now), Duration::ZERO);
    }

    proptest! {
        /// However requests come, no second holds more than its rate and one burst; and whoever
        /// waits as long as it is told may go.
        #[test]
        fn no_second_holds_more_than_the_rate_and_one_burst(
            per_second in 1_u32..2_000,
            pauses in prop::collection::vec(0_u64..3_000, 1..300),
        ) {
            let mut pace = Pace::new();
            pace.limit(per_second);
            let mut now = Instant::now();
            let mut made = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                now += pace.wait(now);
                prop_assert_eq!(pace.wait(now), Duration::ZERO);
                pace.spend(now);
                made.push(now);
            }
            let burst = (per_second / 10).max(1);
            for (first, begun) in made.iter().enumerate() {
                let second = made[first..].iter().take_while(|at| **at - *begun < Duration::from_secs(1));
                prop_assert!(second.count() <= (per_second + burst) as usize + 1);
            }
        }
    }
}
