//! Every number that the process tells, named once. Each says what a bad value means.

mod log;

use std::time::Duration;

use backends::data_source::clock::Skew;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter};

pub use log::LogMetrics;

/// The instruments. Clones record to the same ones. No label grows with customers: which source or
/// organization is in trouble stands in the log lines, the spans and the status calls.
#[derive(Clone, Debug)]
pub struct Metrics {
    commits: Counter<u64>,
    attempts: Histogram<f64>,
    pending: UpDownCounter<i64>,
    batch: Histogram<u64>,
    append: Histogram<f64>,
    lost_races: Counter<u64>,
    head_locks: Counter<u64>,
    deltas: Counter<u64>,
    connections: Gauge<u64>,
    clock_skew: Gauge<f64>,
    pruned: Counter<u64>,
    feed_events: Counter<u64>,
    feed_alarms: Counter<u64>,
    log: LogMetrics,
}

/// Commits in one batch, from one to the largest.
const BATCH_BOUNDS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
/// Seconds, from a local append to the longest request.
const SECONDS_BOUNDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0,
];

impl Metrics {
    /// Makes the instruments.
    #[expect(clippy::too_many_lines, reason = "a line or three for each instrument")]
    pub fn new(meter: &Meter) -> Self {
        Self {
            commits: meter
                .u64_counter("coordinator.commits")
                .with_description("Commits by route and outcome")
                .build(),
            attempts: meter
                .f64_histogram("coordinator.attempt.duration")
                .with_unit("s")
                .with_boundaries(SECONDS_BOUNDS.to_vec())
                .with_description("Requests to Data Sources by outcome")
                .build(),
            pending: meter
                .i64_up_down_counter("coordinator.commits.pending")
                .with_description(
                    "Commits for Data Sources that this node accepted, less those that it settled",
                )
                .build(),
            batch: meter
                .u64_histogram("coordinator.append.commands")
                .with_boundaries(BATCH_BOUNDS.to_vec())
                .with_description("Commands in one append")
                .build(),
            append: meter
                .f64_histogram("coordinator.append.duration")
                .with_unit("s")
                .with_boundaries(SECONDS_BOUNDS.to_vec())
                .with_description("Time of one append's statements")
                .build(),
            lost_races: meter
                .u64_counter("coordinator.append.lost_races")
                .with_description("Appends that another node came before")
                .build(),
            head_locks: meter
                .u64_counter("coordinator.append.head_locks")
                .with_description(
                    "Appends made under the head's lock, where nodes contend for one organization",
                )
                .build(),
            deltas: meter
                .u64_counter("coordinator.deltas")
                .with_description("Deltas appended to logs")
                .build(),
            connections: meter
                .u64_gauge("coordinator.pool.connections")
                .with_description("Database connections in use, by pool")
                .build(),
            clock_skew: meter
                .f64_gauge("coordinator.clock.skew")
                .with_unit("s")
                .with_description("The database's clock less this machine's")
                .build(),
            pruned: meter
                .u64_counter("coordinator.pruned")
                .with_description("Rows past their retention that were deleted, by table")
                .build(),
            feed_events: meter
                .u64_counter("coordinator.feed.events")
                .with_description("Events of feeds that were dealt with, each once")
                .build(),
            feed_alarms: meter
                .u64_counter("coordinator.feed.alarms")
                .with_description("Things that feeds showed and a person must see")
                .build(),
            log: LogMetrics::new(meter),
        }
    }

    /// Instruments that record nothing.
    pub fn noop() -> Self {
        let provider = opentelemetry_sdk::metrics::SdkMeterProvider::default();
        Self::new(&provider.meter(super::SCOPE))
    }

    /// A commit was answered. `route` is `managed` or `source`; `outcome` a receipt's state, or the
    /// reason of a refusal. Bad: a share of `store_unavailable` or `overloaded` above zero.
    pub fn commit(&self, route: &'static str, outcome: &'static str) {
        self.commits.add(
            1,
            &[
                KeyValue::new("route", route),
                KeyValue::new("outcome", outcome),
            ],
        );
    }

    /// A request to a Data Source ended. Bad: `unknown` and `retry` growing against `applied` (an
    /// endpoint is failing), or times near the request timeout (it is about to).
    pub fn attempt(&self, outcome: &'static str, took: Duration) {
        self.attempts
            .record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    }

    /// Commits for Data Sources were accepted or settled here. Bad: growth over hours, summed over the
    /// nodes; an endpoint is down or slower than its writers.
    pub fn pending(&self, change: i64) {
        self.pending.add(change, &[]);
    }

    /// An append of so many commands was made. Bad: sizes at the largest bound with long times; the
    /// database is the bottleneck.
    pub fn append(&self, commands: u64, took: Duration) {
        self.batch.record(commands, &[]);
        self.append.record(took.as_secs_f64(), &[]);
    }

    /// An append found that another node had moved the head. Bad: more than a few a second; one
    /// organization is written through many nodes at once.
    pub fn lost_race(&self) {
        self.lost_races.add(1, &[]);
    }

    /// An append was made under the head's lock, after races were lost. Bad as above.
    pub fn head_lock(&self) {
        self.head_locks.add(1, &[]);
    }

    /// Deltas were appended. Bad: none, while commits are confirmed.
    pub fn deltas(&self, count: u64) {
        self.deltas.add(count, &[]);
    }

    /// So many of a pool's connections are in use. Bad: the pool's size for longer than a moment;
    /// calls wait for connections.
    pub fn connections(&self, pool: &'static str, in_use: u64) {
        self.connections
            .record(in_use, &[KeyValue::new("pool", pool)]);
    }

    /// The database's clock was found this far from ours. Bad: more than 30 s either way; endpoints
    /// refuse what is signed five minutes off.
    pub fn clock_skew(&self, skew: Skew) {
        let by = skew.by.as_secs_f64();
        self.clock_skew
            .record(if skew.ahead { by } else { -by }, &[]);
    }

    /// Rows past their retention were deleted. Bad: none for a day while writes go on.
    pub fn pruned(&self, table: &'static str, rows: u64) {
        self.pruned.add(rows, &[KeyValue::new("table", table)]);
    }

    /// Events of feeds were dealt with. Bad: none for long, from sources whose apps write.
    pub fn feed_events(&self, count: u64) {
        self.feed_events.add(count, &[]);
    }

    /// A feed showed what a person must see. Bad: any; `cursor_refused` (the feed is not read until it
    /// is reset), `rejected_commit_applied` (an endpoint refused what it did), `row_unread` (nobody knows
    /// what the source holds of a row that two changes came to).
    pub fn feed_alarm(&self, what: &'static str) {
        self.feed_alarms.add(1, &[KeyValue::new("what", what)]);
    }

    /// What the log's subscribers are measured by.
    pub fn log(&self) -> &LogMetrics {
        &self.log
    }
}
