//! Spans of time as people write them: `500ms`, `3s`, `5m`, `2h`, `1d`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a whole number and its unit. The error is the rule, for a person.
pub fn parse(text: &str) -> Result<Duration, String> {
    let rule = || format!("`{text}` is not a span of time: write 500ms, 3s, 5m, 2h or 1d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| rule())?;
    let (_, scale) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(rule)?;
    number
        .checked_mul(*scale)
        .map(Duration::from_millis)
        .ok_or_else(rule)
}

/// Writes a span so that [`parse`] reads it back, to the millisecond, in the largest unit that fits.
pub fn format(span: Duration) -> String {
    let millis = span.as_millis();
    let fits = |scale: u64| millis.is_multiple_of(scale.into());
    let largest = UNITS.iter().rfind(|(_, scale)| fits(*scale));
    match largest {
        Some((unit, scale)) if millis > 0 => format!("{}{unit}", millis / u128::from(*scale)),
        _ => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_write_in_the_largest_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("3s", 3_000),
            ("5m", 300_000),
            ("36h", 129_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis));
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
        assert_eq!(format(Duration::from_hours(24)), "1d");
    }

    #[test]
    fn anything_else_is_refused_with_the_rule() {
        for text in [
            "",
            "s",
            "3",
            "-1s",
            "1.5s",
            "3 s",
            "3S",
            "3w",
            "99999999999999999999s",
        ] {
            assert!(parse(text).unwrap_err().contains("write 500ms"), "{text}");
        }
        assert!(parse("18446744073709551615d").is_err());
    }
}
