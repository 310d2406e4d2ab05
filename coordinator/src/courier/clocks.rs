//! Whether this machine's clock and the database's agree. State goes by the database's, signatures by
//! this machine's; an endpoint refuses those that are five minutes off.

use std::time::{Duration, SystemTime};

use backends::data_source::classify::SKEW_TOLD;
use backends::data_source::clock::Skew;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;

/// A clock that is off is warned of this often.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The database's clock, as far as it can be told here: behind by as long as its answer was on the way,
/// and never ahead, so that what holds a lane until some time is never over early.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatabaseClock {
    told: OffsetDateTime,
    heard: Instant,
}

impl DatabaseClock {
    /// By the time that an answer tells which has just come.
    pub(super) fn heard(told: OffsetDateTime) -> Self {
        Self {
            told,
            heard: Instant::now(),
        }
    }

    /// The time there, or some time before.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.told + self.heard.elapsed()
    }
}

/// Compares the clocks and says when they do not agree.
#[derive(Debug)]
pub(super) struct Clocks {
    metrics: Metrics,
    warned: Option<Instant>,
}

impl Clocks {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            warned: None,
        }
    }

    /// Takes the time that the database told, by some moment between two of ours.
    pub(super) fn compare(&mut self, told: OffsetDateTime, between: (SystemTime, SystemTime)) {
        let skew = Skew::between(told.into(), between);
        self.metrics.clock_skew(skew);
        if skew.by <= SKEW_TOLD {
            self.warned = None;
            return;
        }
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                seconds = skew.by.as_secs(),
                "the database's clock is {skew} this machine's, which signs requests: set them by \
                 a time server"
            );
        }
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
            let told = there();
            pass(way_back).await;
            let clock = DatabaseClock::heard(told);
            pass(later).await;
            assert_eq!(there() - clock.now(), Duration::from_millis(way_back));
        }
    }
}
