//! What the log's subscribers are measured by.

use opentelemetry::metrics::{Counter, Meter, UpDownCounter};

/// The instruments of the log.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    streams: UpDownCounter<i64>,
    slow_consumers: Counter<u64>,
    pages: Counter<u64>,
    gaps: Counter<u64>,
}

impl LogMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            streams: meter
                .i64_up_down_counter("coordinator.log.streams")
                .with_description("Subscribers of logs")
                .build(),
            slow_consumers: meter
                .u64_counter("coordinator.log.slow_consumers")
                .with_description("Streams closed because their callers took nothing")
                .build(),
            pages: meter
                .u64_counter("coordinator.log.pages")
                .with_description("Pages of logs read for subscribers behind the ring")
                .build(),
            gaps: meter
                .u64_counter("coordinator.log.gaps")
                .with_description("Positions that a log should have had and had not")
                .build(),
        }
    }

    /// A subscriber came or went. Bad: thousands that come and go; callers cannot keep a stream.
    pub fn streams(&self, change: i64) {
        self.streams.add(change, &[]);
    }

    /// A stream was closed because its caller took nothing. Bad: more than a few; callers do not keep
    /// up with what they subscribed to.
    pub fn slow_consumer(&self) {
        self.slow_consumers.add(1, &[]);
    }

    /// A page of a log was read for subscribers that are behind. Bad: a rate near that of appends for
    /// long; many subscribers never catch up.
    pub fn page(&self) {
        self.pages.add(1, &[]);
    }

    /// A position was missing in a log. Bad: any; the database lost or hid what was committed.
    pub fn gap(&self) {
        self.gaps.add(1, &[]);
    }
}
