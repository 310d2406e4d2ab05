//! Numbers by their exact decimal value, read from their JSON text.

use std::cmp::Ordering;

use super::{MAX_EXPONENT, MAX_NUMBER_BYTES};

/// A decimal: sign, `0.d₁d₂d₃…` with `d₁ ≠ 0`, times ten to the `exponent`. Zero has no digits.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Decimal {
    negative: bool,
    exponent: i64,
    digits: Vec<u8>,
}

impl Decimal {
    /// Reads the text of a JSON number. An exponent beyond 64 bits counts as the largest.
    pub(super) fn read(text: &str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, written) = parts(text);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Self {
                negative: false,
                exponent: 0,
                digits,
            };
        }
        let place = i64::try_from(whole.len()).unwrap_or(i64::MAX)
            - i64::try_from(leading).unwrap_or(i64::MAX);
        Self {
            negative,
            exponent: written.saturating_add(place),
            digits,
        }
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = || {
            self.exponent
                .cmp(&other.exponent)
                .then_with(|| self.digits.cmp(&other.digits))
        };
        match self.sign().cmp(&other.sign()) {
            Ordering::Equal if self.negative => magnitude().reverse(),
            Ordering::Equal => magnitude(),
            unequal => unequal,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Whether a JSON number has a value that a double reaches and Postgres' `numeric` holds.
pub(super) fn in_range(text: &str) -> bool {
    let (_, exponent) = parts(text);
    text.len() <= MAX_NUMBER_BYTES
        && exponent.unsigned_abs() <= u64::from(MAX_EXPONENT)
        && plain_length(text) <= MAX_NUMBER_BYTES
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// The length of a number's text without an exponent, all digits of its fraction kept.
pub(super) fn plain_length(text: &str) -> usize {
    let (mantissa, exponent) = parts(text);
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let sign = length(mantissa) - length(digits);
    let fraction = length(fraction).saturating_sub(exponent).max(0);
    let point = i64::from(fraction > 0);
    let whole = length(whole).saturating_add(exponent).max(1);
    let length = [sign, whole, point, fraction]
        .into_iter()
        .fold(0, i64::saturating_add);
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// What stands before the exponent, and the exponent; 0 when there is none.
fn parts(text: &str) -> (&str, i64) {
    match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, written_exponent(exponent)),
        None => (text, 0),
    }
}

fn written_exponent(text: &str) -> i64 {
    let limit = if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    text.parse().unwrap_or(limit)
}
