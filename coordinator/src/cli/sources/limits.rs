//! What an operator sets on a source, as flags.

use std::time::Duration;

use clap::{ArgGroup, Args};
use proto::v1;

use crate::duration;
use crate::failure::Failure;

/// What may be set on a source beside its URL.
#[derive(Args, Debug)]
pub(in crate::cli) struct Limits {
    /// The longest that one request may take: 1s to 30s.
    #[arg(long, value_parser = duration::parse, value_name = "SPAN")]
    timeout: Option<Duration>,
    /// Commit requests in flight at most: 1 to 1024.
    #[arg(long, value_name = "N")]
    max_in_flight: Option<i32>,
    /// Commit requests started per second at most: 1 to 100000; 0 for no limit.
    #[arg(long, value_name = "N")]
    max_per_second: Option<i32>,
    /// Commits that may wait: 1 to 10000000; beyond, new ones are refused.
    #[arg(long, value_name = "N")]
    max_pending: Option<i64>,
    /// How late an event of the feed may become visible and still be found: 1s to 1h.
    #[arg(long, value_parser = duration::parse, value_name = "SPAN")]
    feed_lag: Option<Duration>,
    /// Pauses before the second attempt, the third, …: `5s,5m,30m`.
    #[arg(long, value_delimiter = ',', value_parser = duration::parse, value_name = "SPANS")]
    retry: Vec<Duration>,
}

/// What `source update` may change, of which it must be given something.
pub(super) fn changes() -> ArgGroup {
    let flags = [
        "url",
        "timeout",
        "max_in_flight",
        "max_per_second",
        "max_pending",
        "feed_lag",
        "retry",
    ];
    ArgGroup::new("changes")
        .args(flags)
        .required(true)
        .multiple(true)
}

/// A source with what was given, and the paths that name it.
pub(super) fn settings(
    url: Option<&String>,
    limits: &Limits,
) -> Result<(v1::DataSource, Vec<String>), Failure> {
    let mut source = v1::DataSource::default();
    let mut paths = Vec::new();
    if let Some(url) = url {
        source.url.clone_from(url);
        paths.push("url".to_owned());
    }
    if let Some(timeout) = limits.timeout {
        source.request_timeout = Some(proto_duration(timeout)?);
        paths.push("request_timeout".to_owned());
    }
    if let Some(max_in_flight) = limits.max_in_flight {
        source.max_in_flight = max_in_flight;
        paths.push("max_in_flight".to_owned());
    }
    if let Some(max_per_second) = limits.max_per_second {
        source.max_per_second = max_per_second;
        paths.push("max_per_second".to_owned());
    }
    if let Some(max_pending) = limits.max_pending {
        source.max_pending = max_pending;
        paths.push("max_pending".to_owned());
    }
    if let Some(feed_lag) = limits.feed_lag {
        source.feed_lag = Some(proto_duration(feed_lag)?);
        paths.push("feed_lag".to_owned());
    }
    if !limits.retry.is_empty() {
        let delays = limits.retry.iter().map(|delay| proto_duration(*delay));
        let delays = delays.collect::<Result<_, _>>()?;
        source.retry_policy = Some(v1::RetryPolicy { delays });
        paths.push("retry_policy".to_owned());
    }
    Ok((source, paths))
}

fn proto_duration(span: Duration) -> Result<prost_types::Duration, Failure> {
    span.try_into()
        .map_err(|_| Failure::input("the span of time is too long"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: Limits,
    }

    fn given(flags: &[&str]) -> (v1::DataSource, Vec<String>) {
        let line = Line::try_parse_from([&["update"], flags].concat()).unwrap();
        settings(None, &line.limits).unwrap()
    }

    #[test]
    fn what_is_given_is_named_and_nothing_else() {
        assert_eq!(given(&[]), (v1::DataSource::default(), Vec::new()));
        let flags = ["--max-per-second=0", "--max-pending=7", "--feed-lag=2s"];
        let (source, paths) = given(&flags);
        assert_eq!(paths, ["max_per_second", "max_pending", "feed_lag"]);
        assert_eq!((source.max_per_second, source.max_pending), (0, 7));
        assert_eq!(source.feed_lag.unwrap().seconds, 2);
        let (source, paths) = given(&["--timeout=3s", "--max-in-flight=4", "--retry=5s,1m"]);
        assert_eq!(paths, ["request_timeout", "max_in_flight", "retry_policy"]);
        assert_eq!(source.retry_policy.unwrap().delays.len(), 2);
    }
}
