//! The database's clock, which all state goes by.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

/// The database's clock, as far as it can be told here: behind by the time from when an answer told it
/// until that was heard, and never ahead, so that what holds a lane until some time is never over early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatabaseClock {
    told: OffsetDateTime,
    heard: Instant,
    behind: Duration,
}

impl DatabaseClock {
    /// By the time that an answer tells which has just come.
    pub(crate) fn heard(told: OffsetDateTime) -> Self {
        Self {
            told,
            heard: Instant::now(),
            behind: Duration::MAX,
        }
    }

    /// The same, if it is known since when somebody waits for the answer.
    pub(crate) fn heard_since(asked: Instant, told: OffsetDateTime) -> Self {
        let heard = Self::heard(told);
        Self {
            behind: heard.heard - asked,
            ..heard
        }
    }

    /// By how much it is behind at most.
    pub(crate) fn behind(&self) -> Duration {
        self.behind
    }

    /// The time there, or some time before, in whole microseconds: as the database gives it back once it
    /// is written down.
    pub(crate) fn now(&self) -> OffsetDateTime {
        let micros = u64::try_from(self.heard.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.told + Duration::from_micros(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_databases_clock_is_behind_by_the_way_back_and_never_ahead() {
        let begun = Instant::now();
        let there = || OffsetDateTime::UNIX_EPOCH + begun.elapsed();
        let pass = |milliseconds| tokio::time::advance(Duration::from_millis(milliseconds));
        for (way_there, way_back, later) in [(0, 0, 5), (70, 0, 1), (0, 70, 0), (9_000, 3_000, 9)] {
            pass(way_there).await;
            let (asked, told) = (Instant::now(), there());
            pass(way_back).await;
            let clock = DatabaseClock::heard_since(asked, told);
            pass(later).await;
            tokio::time::advance(Duration::from_nanos(700)).await;
            let behind = there() - Duration::from_nanos(700) - clock.now();
            assert_eq!(behind, Duration::from_millis(way_back));
            assert_eq!(behind, clock.behind());
            tokio::time::advance(Duration::from_nanos(300)).await;
        }
    }
}
