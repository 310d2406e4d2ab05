//! How long a call may take.
//!
//! The transport below applies `grpc-timeout` too, and answers CANCELLED when it expires: every
//! deadline here ends a little earlier, so that the answer is always ours.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::HeaderMap;

use crate::refusal::{Class, Refusal};

/// How much earlier than the transport we answer: twice the resolution of the timers.
const AHEAD: Duration = Duration::from_millis(2);

/// What a call that waits leaves of its time for the answer's way back: a tenth, within this.
const WAY_BACK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// What every call may take beyond the longest wait.
const BEYOND_WAIT: Duration = Duration::from_secs(15);

/// When a call must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    /// When Commit stops waiting and answers with the durable receipt.
    pub(super) receipt_by: Instant,
    /// When the call ends with `DEADLINE_EXCEEDED`, whatever it is doing.
    pub(super) answer_by: Instant,
}

impl Deadline {
    /// The deadline of a call that came in at `now` with these headers, or the refusal of one that
    /// leaves no time to begin.
    pub(super) fn of(headers: &HeaderMap, now: Instant, cap: Duration) -> Result<Self, Refusal> {
        Self::within(timeout(headers), now, cap)
    }

    /// The same of a message on a stream that came in at `now` and says itself how long it may take.
    pub(super) fn within(
        timeout: Option<Duration>,
        now: Instant,
        cap: Duration,
    ) -> Result<Self, Refusal> {
        let longest = Self {
            receipt_by: now + cap,
            answer_by: now + cap + BEYOND_WAIT,
        };
        let Some(timeout) = timeout else {
            return Ok(longest);
        };
        if timeout <= AHEAD {
            return Err(exceeded());
        }
        // Anything longer is capped, and might be more than an instant can be moved by.
        let timeout = timeout.min(cap + BEYOND_WAIT + AHEAD);
        let way_back = (timeout / 10).clamp(WAY_BACK.0, WAY_BACK.1);
        Ok(Self {
            receipt_by: longest
                .receipt_by
                .min(now + timeout.saturating_sub(way_back)),
            answer_by: longest.answer_by.min(now + timeout.saturating_sub(AHEAD)),
        })
    }
}

/// The refusal of a call whose deadline passed.
pub(super) fn exceeded() -> Refusal {
    let message = "the deadline passed; a commit may still be accepted: ask with the same id";
    Refusal::new(Class::Deadline, "deadline_exceeded", message)
}

/// The `grpc-timeout` header: one to eight digits and a unit. Anything else counts as no timeout, as
/// the protocol asks.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(30);

    fn headers(timeout: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", timeout.parse().unwrap());
        headers
    }

    #[test]
    fn every_unit_is_read() {
        for (text, expected) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_hours(99_999_999)),
        ] {
            assert_eq!(timeout(&headers(text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn bad_values_count_as_no_timeout() {
        for text in [
            "",
            "S",
            "abc",
            "-1S",
            "+1S",
            "1",
            "1s",
            "1.5S",
            "123456789S",
            "1 S",
        ] {
            assert_eq!(timeout(&headers(text)), None, "{text}");
        }
    }

    #[test]
    fn a_call_without_time_is_refused_before_it_begins() {
        let refused = Deadline::of(&headers("1n"), Instant::now(), CAP);
        assert_eq!(refused, Err(exceeded()));
    }

    #[test]
    fn the_receipt_leaves_before_the_answer_is_due_and_that_before_the_transports_timeout() {
        let now = Instant::now();
        for milliseconds in [3, 10, 100, 1_000, 20_000] {
            let wire = now + Duration::from_millis(milliseconds);
            let deadline = Deadline::of(&headers(&format!("{milliseconds}m")), now, CAP).unwrap();
            assert!(deadline.receipt_by <= deadline.answer_by);
            assert!(deadline.answer_by < wire);
        }
    }

    #[test]
    fn a_long_timeout_is_capped() {
        let now = Instant::now();
        let deadline = Deadline::of(&headers("99999999H"), now, CAP).unwrap();
        assert_eq!(deadline, Deadline::of(&HeaderMap::new(), now, CAP).unwrap());
        assert_eq!(deadline.receipt_by, now + CAP);
    }
}
