//! When an endpoint says to come back: `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

/// The pause that an answer asks for, at most `cap`; none when it asks for nothing that makes
/// sense.
///
/// `values` are the answer's `Retry-After` headers. Whole seconds and dates count; a date that has
/// passed, anything else, and headers that differ from one another do not.
pub fn parse<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    now: SystemTime,
    cap: Duration,
) -> Option<Duration> {
    let mut values = values.into_iter();
    let value = values.next()?;
    if values.any(|other| other != value) {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let pause = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow are a very long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .ok()?
    };
    Some(pause.min(cap))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::parse;

    #[test]
    fn sense_is_honoured_and_nonsense_ignored() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let table: &[(&[&str], Option<Duration>)] = &[
            (&[], None),
            (&["0"], seconds(0)),
            (&["120"], seconds(120)),
            (&[" 7\t"], seconds(7)),
            (&["3601"], seconds(3_600)),
            (&["1000000000"], seconds(3_600)),
            (&["99999999999999999999999999"], seconds(3_600)),
            (&["1e9"], None),
            (&["-5"], None),
            (&["+5"], None),
            (&["1.5"], None),
            (&["NaN"], None),
            (&["inf"], None),
            (&[""], None),
            (&["soon"], None),
            (&["Sun, 06 Nov 1994 08:49:47 GMT"], seconds(10)),
            (&["Sunday, 06-Nov-94 08:49:47 GMT"], seconds(10)),
            (&["Sun, 06 Nov 1994 08:49:27 GMT"], None),
            (&["Fri, 31 Dec 9999 23:59:59 GMT"], seconds(3_600)),
            (&["Sun, 06 Nov 1994"], None),
            (&["5", "5"], seconds(5)),
            (&["5", "6"], None),
            (&["5, 6"], None),
        ];
        for (values, expected) in table {
            let values_bytes = values.iter().map(|value| value.as_bytes());
            let parsed = parse(values_bytes, now, Duration::from_hours(1));
            assert_eq!(parsed, *expected, "{values:?}");
        }
        assert_eq!(parse([&b"\xff"[..]], now, Duration::MAX), None);
    }
}
