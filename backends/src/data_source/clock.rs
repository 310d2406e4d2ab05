//! The time that requests are signed with.

use std::fmt;
use std::time::SystemTime;

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

/// Whole seconds since 1970, as signatures carry them.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}
