//! The breaker: when a source as a whole is left alone, for how long, and when it is trusted again.
//!
//! Commits fail for two reasons, and an endpoint does not say which: it is down, or it cannot take
//! this row. A source is left alone when nothing that it is sent has a definite answer any more:
//! three attempts in a row failed, and the row of failures either is all that the source's recent
//! attempts came to or has lasted for a while. Rows that always fail beside rows that do not are thus
//! never the source's trouble: there is an answer between their failures. A share of failures would
//! not tell the two apart: where half the rows fail, three quarters of twenty attempts do so every
//! now and then.

use std::time::Duration;

use backends::data_source::schedule::jittered;
use time::OffsetDateTime;

use super::state::Source;
use crate::domain::SourceState;

/// Fewer failed attempts in a row are no failing spell, whatever else is known.
const IN_A_ROW: i32 = 3;

/// Attempts that a source remembers; when all of them failed, it is failing.
const REMEMBERED: u32 = 20;

/// A row of failures that has lasted so long is a failing spell, however few they are.
const LASTING: Duration = Duration::from_secs(5);

/// A spell that begins so soon after another one is the same outage, interrupted.
const INTERRUPTION: Duration = Duration::from_mins(1);

/// A source that fails is left alone for this long, then tried with one request; each probe that
/// fails doubles the pause, up to [`PAUSE_CAP`].
pub(super) const PAUSE_FAILING: Duration = Duration::from_secs(1);

/// The same for a source that a person must mend.
pub(super) const PAUSE_MISCONFIGURED: Duration = Duration::from_secs(5);

/// See [`PAUSE_FAILING`].
pub(super) const PAUSE_CAP: Duration = Duration::from_mins(5);

/// The end of a failing spell: commits that failed in it are due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// When the spell began; `None` when everything that failed before its end counts.
    pub from: Option<OffsetDateTime>,
    /// When it ended.
    pub at: OffsetDateTime,
}

impl Recovery {
    /// Whether a failure of that time belongs to the spell.
    pub fn covers(self, failed_at: OffsetDateTime) -> bool {
        failed_at <= self.at && self.from.is_none_or(|from| failed_at >= from)
    }
}

impl Source {
    /// The end of the last failing spell.
    pub fn recovery(&self) -> Option<Recovery> {
        self.recovered_at.map(|at| Recovery {
            from: self.recovered_from,
            at,
        })
    }

    /// Whether more than half of the remembered attempts failed: fewer at a time may help it.
    pub fn struggles(&self) -> bool {
        2 * self.remembered_failures() > self.remembered()
    }

    /// Whether one of the remembered attempts had a definite answer.
    pub(super) fn answers(&self) -> bool {
        self.remembered_failures() < self.remembered()
    }

    /// The endpoint gave a definite answer: a failing spell is over.
    pub(super) fn note_answer(&mut self, now: OffsetDateTime) {
        self.remember(false);
        let began = self.failing_since.take();
        self.consecutive_failures = 0;
        self.backoff_step = 0;
        // A pause that the endpoint asked for while it answered holds, whatever it answers others.
        if self.state == SourceState::Failing {
            self.backoff_until = None;
            self.state = SourceState::Enabled;
            self.state_reason.clear();
            let interrupted = self.recovered_at.zip(began);
            if interrupted.is_none_or(|(before, began)| began - before > INTERRUPTION) {
                self.recovered_from = began;
            }
            self.recovered_at = Some(now);
        }
    }

    /// An attempt came to nothing; whether the source is to be left alone as a whole.
    pub(super) fn note_failure(&mut self, now: OffsetDateTime) -> bool {
        self.remember(true);
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        let began = *self.failing_since.get_or_insert(now);
        self.state == SourceState::Failing
            || self.consecutive_failures >= IN_A_ROW && (!self.answers() || now - began >= LASTING)
    }

    /// The source as a whole waits, then is probed. Requests that were already in flight when it
    /// began to wait do not lengthen the pause.
    pub(super) fn leave_alone(
        &mut self,
        base: Duration,
        reason: String,
        (now, jitter): (OffsetDateTime, f64),
    ) {
        if self.state == SourceState::Enabled {
            self.state = SourceState::Failing;
        }
        if self.state == SourceState::Failing {
            self.state_reason = reason;
        }
        if self.backoff_until.is_some_and(|until| until > now) {
            return;
        }
        let doublings = u32::try_from(self.backoff_step).unwrap_or(0).min(16);
        let pause = base.saturating_mul(2_u32.pow(doublings)).min(PAUSE_CAP);
        self.backoff_step += 1;
        self.backoff_until = Some(now + jittered(pause, jitter));
    }

    /// What failed at an endpoint that was left, or before an operator mended it, is no reason to
    /// wait.
    pub(super) fn start_afresh(&mut self, now: OffsetDateTime) {
        if self.state == SourceState::Failing {
            self.state = SourceState::Enabled;
            self.state_reason.clear();
        }
        self.consecutive_failures = 0;
        self.recent_outcomes = 1;
        self.failing_since = None;
        self.backoff_step = 0;
        self.backoff_until = None;
        self.recovered_from = None;
        self.recovered_at = Some(now);
    }

    fn remember(&mut self, failed: bool) {
        let newest = REMEMBERED - 1;
        let kept = if self.remembered() < REMEMBERED {
            self.recent_outcomes.max(1)
        } else {
            self.recent_outcomes & ((1 << newest) - 1) | 1 << newest
        };
        self.recent_outcomes = kept << 1 | i64::from(failed);
    }

    /// How many attempts are remembered.
    fn remembered(&self) -> u32 {
        self.recent_outcomes.max(1).ilog2()
    }

    /// How many of them failed: all bits but the leading one.
    fn remembered_failures(&self) -> u32 {
        self.recent_outcomes.max(1).count_ones() - 1
    }
}

#[cfg(test)]
mod tests {
    use backends::data_source::schedule::RetrySchedule;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::SourceSettings;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn source() -> Source {
        let settings = SourceSettings {
            url: "https://crm.example/".to_owned(),
            retry: RetrySchedule::default(),
            request_timeout: Duration::from_secs(15),
            max_in_flight: 16,
            max_per_second: 0,
            max_pending: 1_000_000,
            feed_lag: Duration::from_mins(1),
        };
        Source::new("crm", settings)
    }

    /// A source that has answered so many times.
    fn proven(answers: usize) -> Source {
        let mut source = source();
        for _ in 0..answers {
            source.note_answer(START);
        }
        source
    }

    fn fail(source: &mut Source, now: OffsetDateTime) -> bool {
        let alone = source.note_failure(now);
        if alone {
            source.leave_alone(PAUSE_FAILING, "down".to_owned(), (now, 0.5));
        }
        alone
    }

    #[test]
    fn a_source_that_never_answered_is_left_alone_at_its_third_failure() {
        let mut source = source();
        let alone: Vec<_> = (0..4).map(|_| fail(&mut source, START)).collect();
        assert_eq!(alone, [false, false, true, true]);
        assert_eq!(source.failing_since, Some(START));
    }

    #[test]
    fn a_source_that_answered_before_is_left_alone_when_all_that_is_remembered_failed() {
        let mut source = proven(100);
        let alone = (1..=100).find(|_| fail(&mut source, START));
        assert_eq!(alone, Some(20));
    }

    #[test]
    fn three_failures_that_took_a_while_are_enough() {
        let mut source = proven(100);
        assert!(!fail(&mut source, START));
        assert!(!fail(&mut source, START + Duration::from_secs(5)));
        assert!(fail(&mut source, START + Duration::from_secs(5)));
        assert_eq!(source.failing_since, Some(START));
    }

    #[test]
    fn a_spell_that_begins_soon_after_another_belongs_to_the_same_outage() {
        let mut source = source();
        let mut spell = |from: u64, to: u64| {
            for _ in 0..20 {
                fail(&mut source, START + Duration::from_secs(from));
            }
            assert_eq!(source.state, SourceState::Failing);
            source.note_answer(START + Duration::from_secs(to));
            assert_eq!(
                (source.state, source.failing_since),
                (SourceState::Enabled, None)
            );
            source.recovery().unwrap()
        };
        let at = |seconds| START + Duration::from_secs(seconds);
        let first = spell(10, 20);
        assert!(first.covers(at(10)) && first.covers(at(20)));
        assert!(!first.covers(at(9)) && !first.covers(at(21)));
        assert_eq!(spell(30, 40).from, Some(at(10)));
        assert_eq!(spell(200, 210).from, Some(at(200)));
    }

    proptest! {
        /// Rows that always fail never stop a source whose other rows are answered in between.
        #[test]
        fn a_source_that_answers_in_between_is_never_left_alone(
            rows_of_failures in prop::collection::vec((0_usize..20, 0_u64..5_000), 1..200),
        ) {
            let mut source = proven(1);
            let mut now = START;
            for (failures, lasting) in rows_of_failures {
                for number in 0..failures {
                    let last = number + 1 == failures;
                    now += Duration::from_millis(if last { lasting } else { 0 });
                    prop_assert!(!fail(&mut source, now));
                }
                source.note_answer(now);
                prop_assert_eq!(source.state, SourceState::Enabled);
                prop_assert_eq!(source.recovered_at, None);
            }
        }

        /// Whatever was before, a dead endpoint is left alone after twenty attempts at the latest.
        #[test]
        fn a_dead_endpoint_is_noticed_after_twenty_attempts(
            history in prop::collection::vec(any::<bool>(), 0..100),
        ) {
            let mut source = source();
            for failed in history {
                if failed {
                    fail(&mut source, START);
                } else {
                    source.note_answer(START);
                }
                prop_assert!(source.remembered() <= REMEMBERED);
            }
            let alone = (0..20).any(|_| fail(&mut source, START));
            prop_assert!(alone && source.struggles());
            prop_assert_eq!(source.state, SourceState::Failing);
        }

        /// The mask says what happened, as far back as it goes.
        #[test]
        fn what_is_remembered_is_what_happened(
            outcomes in prop::collection::vec(any::<bool>(), 0..80),
        ) {
            let mut source = source();
            for failed in &outcomes {
                source.remember(*failed);
            }
            let last = &outcomes[outcomes.len().saturating_sub(20)..];
            let failures = last.iter().filter(|failed| **failed).count();
            prop_assert_eq!(source.remembered() as usize, last.len());
            prop_assert_eq!(source.remembered_failures() as usize, failures);
        }
    }
}
