//! A source's settings as the caller gives them: checked, with defaults for what is absent.

use std::time::Duration;

use backends::data_source::egress::EgressPolicy;
use backends::data_source::endpoint::EndpointUrl;
use backends::data_source::schedule::RetrySchedule;
use proto::v1;

use crate::domain::{SettingsPatch, SourceSettings};
use crate::refusal::Refusal;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

const MAX_IN_FLIGHT: i32 = 16;
const LARGEST_IN_FLIGHT: i32 = 1_024;

const LARGEST_PER_SECOND: i32 = 100_000;

const MAX_PENDING: i64 = 1_000_000;
const LARGEST_PENDING: i64 = 10_000_000;

const FEED_LAG: Duration = Duration::from_mins(1);
const SHORTEST_LAG: Duration = Duration::from_secs(1);
const LONGEST_LAG: Duration = Duration::from_hours(1);

const MOST_DELAYS: usize = 30;
const SHORTEST_DELAY: Duration = Duration::from_millis(1);

/// Well inside the 30 days that a customer's ledger may keep ids.
const LONGEST_SCHEDULE: Duration = Duration::from_hours(24 * 24);

/// The fields that a mask may name, as paths from the source.
const FIELDS: [&str; 7] = [
    "url",
    "retry_policy",
    "request_timeout",
    "max_in_flight",
    "max_per_second",
    "max_pending",
    "feed_lag",
];

/// Every setting from the message.
pub(super) fn all(
    given: &v1::DataSource,
    egress: &EgressPolicy,
) -> Result<SourceSettings, Refusal> {
    Ok(SourceSettings {
        url: url(given, egress)?,
        retry: retry(given)?,
        request_timeout: request_timeout(given)?,
        max_in_flight: max_in_flight(given)?,
        max_per_second: max_per_second(given)?,
        max_pending: max_pending(given)?,
        feed_lag: feed_lag(given)?,
    })
}

/// The settings that the mask's paths name from the message. No path, or `*`, names all.
pub(super) fn masked(
    given: &v1::DataSource,
    paths: &[String],
    egress: &EgressPolicy,
) -> Result<SettingsPatch, Refusal> {
    if paths.is_empty() || paths == ["*"] {
        return all(given, egress).map(SettingsPatch::from);
    }
    let mut patch = SettingsPatch::default();
    for path in paths {
        match path.as_str() {
            "url" => patch.url = Some(url(given, egress)?),
            "retry_policy" | "retry_policy.delays" => patch.retry = Some(retry(given)?),
            "request_timeout" => patch.request_timeout = Some(request_timeout(given)?),
            "max_in_flight" => patch.max_in_flight = Some(max_in_flight(given)?),
            "max_per_second" => patch.max_per_second = Some(max_per_second(given)?),
            "max_pending" => patch.max_pending = Some(max_pending(given)?),
            "feed_lag" => patch.feed_lag = Some(feed_lag(given)?),
            _ => {
                let rule = format!("names some of `{}`", FIELDS.join("`, `"));
                return Err(
                    Refusal::field("field_mask_invalid", "update_mask", rule).with("path", path)
                );
            }
        }
    }
    Ok(patch)
}

fn url(given: &v1::DataSource, egress: &EgressPolicy) -> Result<String, Refusal> {
    let parsed = EndpointUrl::parse(&given.url, egress);
    let url = parsed
        .map_err(|fault| Refusal::field(fault.code(), "data_source.url", fault.to_string()))?;
    Ok(url.as_str().to_owned())
}

fn retry(given: &v1::DataSource) -> Result<RetrySchedule, Refusal> {
    let delays = given
        .retry_policy
        .as_ref()
        .map_or(&[][..], |policy| &policy.delays);
    if delays.is_empty() {
        return Ok(RetrySchedule::default());
    }
    let field = "data_source.retry_policy.delays";
    let refused = |rule: &str| Refusal::field("retry_policy_invalid", field, rule);
    if delays.len() > MOST_DELAYS {
        return Err(refused("has at most 30 pauses"));
    }
    let mut read = Vec::with_capacity(delays.len());
    for (index, delay) in delays.iter().enumerate() {
        let delay = Duration::try_from(*delay)
            .ok()
            .filter(|delay| *delay >= SHORTEST_DELAY);
        read.push(delay.ok_or_else(|| {
            let field = format!("{field}[{index}]");
            Refusal::field("retry_policy_invalid", field, "must be at least 1 ms")
        })?);
    }
    let total = read
        .iter()
        .try_fold(Duration::ZERO, |sum, delay| sum.checked_add(*delay));
    if total.is_none_or(|total| total > LONGEST_SCHEDULE) {
        return Err(refused("must be at most 24 days together"));
    }
    Ok(RetrySchedule { delays: read })
}

fn request_timeout(given: &v1::DataSource) -> Result<Duration, Refusal> {
    let Some(timeout) = given.request_timeout else {
        return Ok(REQUEST_TIMEOUT);
    };
    let timeout = Duration::try_from(timeout).ok();
    timeout
        .filter(|timeout| (SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(timeout))
        .ok_or_else(|| {
            let field = "data_source.request_timeout";
            Refusal::field("request_timeout_invalid", field, "is 1 s to 30 s")
        })
}

fn max_in_flight(given: &v1::DataSource) -> Result<i32, Refusal> {
    match given.max_in_flight {
        0 => Ok(MAX_IN_FLIGHT),
        1..=LARGEST_IN_FLIGHT => Ok(given.max_in_flight),
        _ => {
            let field = "data_source.max_in_flight";
            Err(Refusal::field(
                "max_in_flight_invalid",
                field,
                "is 1 to 1,024",
            ))
        }
    }
}

fn max_per_second(given: &v1::DataSource) -> Result<i32, Refusal> {
    if (0..=LARGEST_PER_SECOND).contains(&given.max_per_second) {
        return Ok(given.max_per_second);
    }
    let field = "data_source.max_per_second";
    Err(Refusal::field(
        "max_per_second_invalid",
        field,
        "is 0 to 100,000",
    ))
}

fn max_pending(given: &v1::DataSource) -> Result<i64, Refusal> {
    match given.max_pending {
        0 => Ok(MAX_PENDING),
        1..=LARGEST_PENDING => Ok(given.max_pending),
        _ => {
            let field = "data_source.max_pending";
            Err(Refusal::field(
                "max_pending_invalid",
                field,
                "is 1 to 10,000,000",
            ))
        }
    }
}

fn feed_lag(given: &v1::DataSource) -> Result<Duration, Refusal> {
    let Some(lag) = given.feed_lag else {
        return Ok(FEED_LAG);
    };
    let lag = Duration::try_from(lag).ok();
    lag.filter(|lag| (SHORTEST_LAG..=LONGEST_LAG).contains(lag))
        .ok_or_else(|| Refusal::field("feed_lag_invalid", "data_source.feed_lag", "is 1 s to 1 h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> v1::DataSource {
        v1::DataSource {
            url: "https://example.com/ablo".into(),
            ..v1::DataSource::default()
        }
    }

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn production() -> EgressPolicy {
        EgressPolicy::default()
    }

    fn with_delays(delays: Vec<prost_types::Duration>) -> v1::DataSource {
        v1::DataSource {
            retry_policy: Some(v1::RetryPolicy { delays }),
            ..given()
        }
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let settings = all(&given(), &production()).unwrap();
        assert_eq!(settings.retry, RetrySchedule::default());
        assert_eq!(settings.request_timeout, Duration::from_secs(15));
        assert_eq!(settings.max_in_flight, 16);
        assert_eq!(settings.url, "https://example.com/ablo");
    }

    #[test]
    fn a_forbidden_url_is_refused_with_its_own_reason() {
        for (url, reason) in [
            ("http://example.com/", "https_required"),
            ("https://127.0.0.1/", "address_forbidden"),
        ] {
            let refusal = all(
                &v1::DataSource {
                    url: url.into(),
                    ..given()
                },
                &production(),
            );
            let refusal = refusal.unwrap_err();
            assert_eq!(refusal.reason, reason);
            assert_eq!(refusal.violations[0].field, "data_source.url");
        }
    }

    #[test]
    fn limits_are_kept_at_both_ends() {
        for (timeout, ok) in [(0, false), (1, true), (30, true), (31, false), (-1, false)] {
            let given = v1::DataSource {
                request_timeout: Some(seconds(timeout)),
                ..given()
            };
            assert_eq!(all(&given, &production()).is_ok(), ok, "{timeout} s");
        }
        for (max_in_flight, ok) in [(1, true), (1_024, true), (1_025, false), (-1, false)] {
            let given = v1::DataSource {
                max_in_flight,
                ..given()
            };
            assert_eq!(all(&given, &production()).is_ok(), ok, "{max_in_flight}");
        }
    }

    #[test]
    fn schedules_are_bounded() {
        let day = 24 * 60 * 60;
        assert!(all(&with_delays(vec![seconds(day); 24]), &production()).is_ok());
        assert!(all(&with_delays(vec![seconds(1); 30]), &production()).is_ok());
        for delays in [
            vec![seconds(day); 25],
            vec![seconds(1); 31],
            vec![seconds(i64::MAX); 2],
            vec![seconds(5), seconds(0)],
            vec![seconds(-5)],
        ] {
            let refusal = all(&with_delays(delays), &production()).unwrap_err();
            assert_eq!(refusal.reason, "retry_policy_invalid");
        }
    }

    #[test]
    fn a_mask_changes_what_it_names_and_nothing_else() {
        let before = all(&given(), &production()).unwrap();
        let given = v1::DataSource {
            max_in_flight: 3,
            url: "https://other.example.com/".into(),
            ..with_delays(vec![seconds(1)])
        };
        let paths = ["max_in_flight".to_owned(), "retry_policy.delays".to_owned()];
        let mut after = before.clone();
        let patch = masked(&given, &paths, &production()).unwrap();
        patch.apply(&mut after);
        let expected = SourceSettings {
            max_in_flight: 3,
            retry: RetrySchedule {
                delays: vec![Duration::from_secs(1)],
            },
            ..before
        };
        assert_eq!(after, expected);
        let patch = masked(&given, &[], &production()).unwrap();
        patch.apply(&mut after);
        assert_eq!(after, all(&given, &production()).unwrap());
    }

    #[test]
    fn a_mask_with_an_unknown_or_output_only_path_is_refused() {
        for path in [
            "",
            "state",
            "name",
            "urls",
            "data_source.url",
            "retry_policy.delays.seconds",
        ] {
            let refused = masked(&given(), &[path.to_owned()], &production());
            let refusal = refused.unwrap_err();
            assert_eq!(refusal.reason, "field_mask_invalid", "{path}");
            assert_eq!(refusal.violations[0].field, "update_mask");
        }
    }
}
