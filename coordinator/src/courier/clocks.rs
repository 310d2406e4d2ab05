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
