//! The time that requests are signed with.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Says what time it is; tests hand in one that is wrong.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall clock's time.
    fn now(&self) -> SystemTime;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "a receiver compares the signed timestamp with its own wall clock"
        )]
        SystemTime::now()
    }
}

/// How far another clock is from ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skew {
    /// Whether the other clock is ahead of ours, not behind it.
    pub ahead: bool,
    /// How far at least.
    pub by: Duration,
}

impl Skew {
    /// How far a time that another clock told, by some moment between two of ours, is from ours at
    /// the least: nothing, when it could be right. It may have been cut to whole seconds.
    pub fn between(theirs: SystemTime, (from, to): (SystemTime, SystemTime)) -> Self {
        let before = |earlier: SystemTime, later: SystemTime| {
            later.duration_since(earlier).unwrap_or_default()
        };
        let ahead = before(to, theirs);
        let behind = before(theirs + Duration::from_secs(1), from);
        Self {
            ahead: !ahead.is_zero(),
            by: ahead.max(behind),
        }
    }
}

/// As a person says it: `7 min ahead of`, `40 s behind`.
impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.by.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s")?,
            120..7_200 => write!(f, "{} min", (seconds + 30) / 60)?,
            _ => write!(f, "{} h", (seconds + 1_800) / 3_600)?,
        }
        f.write_str(if self.ahead { " ahead of" } else { " behind" })
    }
}

/// Whole seconds since 1970, as signatures carry them.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_could_be_right_is_not_off() {
        for theirs in [99, 100, 103, 105] {
            let skew = Skew::between(at(theirs), (at(100), at(105)));
            assert_eq!(skew.by, Duration::ZERO, "{theirs}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_said_as_a_person_says_it() {
        let table = [
            (145, "40 s ahead of"),
            (525, "7 min ahead of"),
            (59, "40 s behind"),
            (105 + 7_200, "2 h ahead of"),
        ];
        for (theirs, said) in table {
            let skew = Skew::between(at(theirs), (at(100), at(105)));
            assert_eq!(skew.to_string(), said);
        }
    }
}
