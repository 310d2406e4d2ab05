//! Everything breaks while clients write; and the coordinator itself, to see that this is noticed.

#[cfg(feature = "broken")]
mod controls;
#[cfg(feature = "broken")]
mod points;

use clap::Parser;
use integration::chaos::{Arguments, Report, run};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_chaos");

/// A run with these flags.
async fn chaos(flags: &[&str]) -> Report {
    let flags = ["chaos"].iter().chain(flags);
    let arguments = Arguments::try_parse_from(flags).unwrap();
    Box::pin(run(EXECUTABLE, &arguments)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_minute_of_chaos_breaks_no_promise() {
    let report = chaos(&["--seconds", "25", "--seed", "7", "--rate", "50"]).await;
    assert!(report.is_ok(), "{report}");
    // It was a bad time: else this shows nothing.
    assert!(report.harm() > 5 && report.writes() > 100, "{report}");
}

/// What the switches that break a node are called by, in its environment and on its command line.
const MARKS: [&str; 7] = [
    "COORDINATOR_BROKEN",
    "CRASHPOINT",
    "COORDINATOR_CLOCK_OFFSET",
    "acknowledge-early",
    "request-future",
    "attempt.judged",
    "courier.claimed",
];

#[test]
fn a_node_can_be_broken_only_if_it_was_built_for_that() {
    let node = std::fs::read(EXECUTABLE).unwrap();
    for mark in MARKS {
        let there = node.windows(mark.len()).any(|it| it == mark.as_bytes());
        assert_eq!(there, cfg!(feature = "broken"), "{mark}");
    }
}
