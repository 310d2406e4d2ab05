//! How one source's commits stand: bookkeeping of what was read, accepted and settled.

use std::sync::Arc;

use time::OffsetDateTime;

use super::attempt::End;
use super::desk::PAUSE;
use super::flight::Flight;
use super::pace::Pace;
use super::window::Window;
use crate::broken::crash_point;
use crate::decide::{InboxEntry, NotStartable, Recovery, Source};
use crate::domain::SourceState;
use crate::store::clock::DatabaseClock;

/// How the source's commits stand.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) window: Window,
    pub(super) standing: Standing,
    pub(super) pace: Pace,
    /// Commits that are being rejected because their time is over.
    pub(super) expiring: usize,
    pub(super) clock: DatabaseClock,
    /// The inbox may hold commits that the window has not seen.
    pub(super) stale: bool,
    /// The source is another's.
    pub(super) fenced: bool,
    flight: Arc<Flight>,
}

/// How the source stands, as far as is known here.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) state: SourceState,
    pub(super) cap: usize,
    /// Below the cap: halved by a failure of a source that struggles, doubled by a success, one while
    /// the source fails.
    pub(super) ramp: usize,
    pub(super) backoff_until: Option<OffsetDateTime>,
    recovery: Option<Recovery>,
    /// Attempts that were settled when the source stood so.
    pub(super) settled: i64,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            state: SourceState::Disabled,
            cap: 1,
            ramp: usize::MAX,
            backoff_until: None,
            recovery: None,
            settled: -1,
        }
    }
}

impl Standing {
    /// From when on commits may leave; never while the source is disabled.
    pub(super) fn opens(&self) -> Option<OffsetDateTime> {
        let open = !matches!(self.state, SourceState::Disabled | SourceState::Paused);
        open.then(|| self.backoff_until.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    /// Requests in flight at most, right now.
    pub(super) fn allowed(&self) -> usize {
        match self.state {
            SourceState::Failing => 1,
            SourceState::Enabled | SourceState::Paused | SourceState::Disabled => {
                self.cap.min(self.ramp)
            }
        }
    }
}

impl Board {
    pub(super) fn new(flight: Arc<Flight>) -> Self {
        Self {
            window: Window::default(),
            standing: Standing::default(),
            pace: Pace::new(),
            expiring: 0,
            clock: DatabaseClock::heard(OffsetDateTime::UNIX_EPOCH),
            stale: true,
            fenced: false,
            flight,
        }
    }

    /// The time of the database.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Whether attempts may be recorded that have to wait for others' answers: not where a request that
    /// comes later than it was recorded is one too many.
    pub(super) fn lets_stand_by(&self) -> bool {
        let standing = &self.standing;
        standing.state == SourceState::Enabled
            && standing.opens().is_some_and(|opens| opens <= self.now())
            && !self.pace.is_limited()
            && !self.fenced
    }

    /// Moves on after an attempt, or after a commit's time was said to be over.
    pub(super) fn take(&mut self, sequence: i64, end: End) {
        match end {
            End::Settled(entry, source) => {
                self.stand(&source);
                crash_point!("courier.moved");
                self.settled(sequence, entry.as_deref());
                self.decided_of(source.inbox_revision);
            }
            End::NeverLeft(entry, revision) => {
                self.settled(sequence, Some(&entry));
                self.decided_of(revision);
            }
            End::NotStarted(why, revision) => {
                match why {
                    NotStartable::Finished => self.finish(sequence),
                    NotStartable::Until(until) => {
                        self.window.wait(sequence, until);
                        self.stale = true;
                    }
                    NotStartable::Disabled | NotStartable::Reread => {
                        self.stale = true;
                        let now = self.now();
                        self.window.wait(sequence, now);
                    }
                }
                self.decided_of(revision);
            }
            End::Expired(end) => self.expired(sequence, end),
            End::Fenced => self.fenced = true,
            End::Unavailable => {
                let later = self.now() + PAUSE;
                self.window.wait(sequence, later);
            }
        }
    }

    /// What was decided before what the window shows may say the contrary of it: the inbox is then
    /// read anew.
    fn decided_of(&mut self, revision: i64) {
        if revision < self.window.revision {
            self.window.revision = revision;
            self.stale = true;
        }
    }

    /// A commit is not sent any more, and holds its rows no longer.
    pub(super) fn finish(&mut self, sequence: i64) {
        self.flight.forget(sequence, self.window.lanes(sequence));
        self.window.finish(sequence);
    }

    /// Gives lanes free that are not to be held any more.
    pub(super) fn release(&mut self, now: OffsetDateTime) {
        while let Some(sequence) = self.window.pop_over(now) {
            self.finish(sequence);
        }
    }

    /// When something is to be done next although nothing happens, as far as the source goes.
    pub(super) fn next(&self) -> Option<OffsetDateTime> {
        let due = self.next_due().into_iter();
        let asked = self.window.next_asked();
        due.chain(asked).chain(self.next_expiry()).min()
    }

    /// When the next commit is due that waits for the source; never while the source is disabled.
    pub(super) fn next_due(&self) -> Option<OffsetDateTime> {
        let (due, opens) = self.window.next().zip(self.standing.opens())?;
        Some(due.max(opens))
    }

    fn settled(&mut self, sequence: i64, entry: Option<&InboxEntry>) {
        match entry {
            None => self.finish(sequence),
            Some(entry) if entry.dead => match entry.may_apply_until {
                Some(until) if until > self.now() => self.window.hold(sequence, until),
                _ => self.finish(sequence),
            },
            Some(entry) => {
                let failed = (entry.due_at, entry.failed_at);
                self.window.ask(sequence, entry.is_asked());
                self.window
                    .wait_again(sequence, failed, self.standing.recovery);
                self.put_off(entry);
            }
        }
        if !self.window.has_room() {
            self.stale = true;
        }
    }

    /// Ends come in any order: what an older settle saw is not believed.
    fn stand(&mut self, source: &Source) {
        let settled = source.attempts.iter().sum();
        if settled <= self.standing.settled {
            return;
        }
        self.standing.settled = settled;
        self.standing.state = source.state;
        self.standing.backoff_until = source.backoff_until;
        let allowed = self.standing.allowed();
        self.standing.ramp = match source.state {
            SourceState::Failing => 1,
            _ if source.consecutive_failures == 0 => allowed.saturating_mul(2),
            _ if source.struggles() => (allowed / 2).max(1),
            _ => self.standing.ramp,
        };
        self.recovered(source.recovery());
    }

    /// What failed in the spell that the source came out of is due at once; whether that is news.
    pub(super) fn recovered(&mut self, recovery: Option<Recovery>) -> bool {
        let at = |recovery: Option<Recovery>| recovery.map(|it| it.at);
        let Some(news) = recovery.filter(|_| at(recovery) > at(self.standing.recovery)) else {
            return false;
        };
        self.standing.recovery = recovery;
        self.window.recover(news);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_disabled_source_opens_never_and_one_that_backs_off_afterwards() {
        let until = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1);
        let standing = |state, backoff_until| Standing {
            state,
            cap: 1,
            ramp: 1,
            backoff_until,
            recovery: None,
            settled: 0,
        };
        let failing = SourceState::Failing;
        assert_eq!(standing(failing, Some(until)).opens(), Some(until));
        assert!(standing(failing, None).opens().unwrap() < until);
        // Not "at once" either: a courier that holds due commits would look again without a pause.
        assert_eq!(standing(SourceState::Disabled, None).opens(), None);
        assert_eq!(standing(SourceState::Disabled, Some(until)).opens(), None);
    }
}
