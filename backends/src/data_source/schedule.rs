//! When a failed attempt is made again.

use std::time::Duration;

/// The least and the most that jitter multiplies a delay with.
const JITTER: (f64, f64) = (0.8, 1.2);

/// The pauses before a commit's second attempt, its third, and so on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RetrySchedule {
    /// One fewer than the attempts that are made.
    pub delays: Vec<Duration>,
}

impl Default for RetrySchedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: ten attempts in a little over three
    /// days.
    fn default() -> Self {
        let delays = [
            Duration::from_secs(5),
            Duration::from_mins(5),
            Duration::from_mins(30),
        ];
        let delays = delays
            .into_iter()
            .chain([2, 5, 10, 14, 20, 24].map(Duration::from_hours));
        Self {
            delays: delays.collect(),
        }
    }
}

impl RetrySchedule {
    /// How long to wait after the attempt of that number (the first is 1) has failed; none when it
    /// was the last.
    ///
    /// `jitter` gives a number from 0 up to 1, uniformly; the delay is multiplied with 0.8 to 1.2,
    /// so that commits that failed together do not come back together.
    pub fn delay_after(&self, attempt: u32, jitter: impl FnOnce() -> f64) -> Option<Duration> {
        let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
        let delay = self.delays.get(index)?;
        Some(jittered(*delay, jitter()))
    }
}

/// A pause times 0.8 to 1.2, by a share from 0 to 1.
pub fn jittered(pause: Duration, share: f64) -> Duration {
    pause.mul_f64(JITTER.0 + (JITTER.1 - JITTER.0) * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::RetrySchedule;

    #[test]
    fn ten_attempts_are_made_and_no_more() {
        let schedule = RetrySchedule::default();
        let delays: Vec<_> = (1..=10).map(|n| schedule.delay_after(n, || 0.5)).collect();
        let hours = |hours| Some(Duration::from_hours(hours));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let expected = [
            seconds(5),
            seconds(300),
            seconds(1_800),
            hours(2),
            hours(5),
            hours(10),
            hours(14),
            hours(20),
            hours(24),
            None,
        ];
        assert_eq!(delays, expected);
        assert_eq!(schedule.delay_after(0, || 0.5), None);
        assert_eq!(schedule.delay_after(u32::MAX, || 0.5), None);
    }

    #[test]
    fn jitter_moves_a_delay_by_a_fifth_at_most() {
        let schedule = RetrySchedule {
            delays: vec![Duration::from_secs(100)],
        };
        for (jitter, seconds) in [
            (0.0, 80.0),
            (0.25, 90.0),
            (1.0, 120.0),
            (f64::INFINITY, 120.0),
        ] {
            let delay = schedule.delay_after(1, || jitter).unwrap();
            assert!(
                (delay.as_secs_f64() - seconds).abs() < 1e-6,
                "{jitter}: {delay:?}"
            );
        }
    }

    #[test]
    fn an_empty_schedule_has_one_attempt() {
        assert_eq!(
            RetrySchedule { delays: vec![] }.delay_after(1, || 0.5),
            None
        );
    }

    proptest! {
        /// Every attempt but the last is followed by its own pause, a fifth shorter or longer at most;
        /// more jitter never means sooner.
        #[test]
        fn every_attempt_but_the_last_is_followed_by_its_own_pause(
            delays in prop::collection::vec(0_u64..10_000_000, 0..20),
            attempt in 0_u32..25,
            (low, high) in (0.0..1.0_f64, 0.0..1.0_f64),
        ) {
            let delays: Vec<_> = delays.into_iter().map(Duration::from_millis).collect();
            let schedule = RetrySchedule { delays: delays.clone() };
            let pause = attempt.checked_sub(1).and_then(|it| delays.get(it as usize));
            let (sooner, later) = (low.min(high), low.max(high));
            let sooner = schedule.delay_after(attempt, || sooner);
            let later = schedule.delay_after(attempt, || later);
            prop_assert_eq!((sooner.is_some(), later.is_some()), (pause.is_some(), pause.is_some()));
            if let (Some(pause), Some(sooner), Some(later)) = (pause, sooner, later) {
                let least = *pause * 4 / 5;
                let most = *pause * 6 / 5;
                let rounding = Duration::from_micros(1);
                prop_assert!(least <= sooner + rounding && sooner <= later);
                prop_assert!(later <= most + rounding);
            }
        }
    }
}
