//! How one source's commits stand: pure bookkeeping of what was read, accepted and settled.

use time::OffsetDateTime;
use tokio::time::Instant;

use super::attempt::End;
use super::desk::PAUSE;
use super::pace::Pace;
use super::window::Window;
use crate::decide::{InboxEntry, NotStartable, Recovery, Source};
use crate::domain::SourceState;

/// How the source's commits stand.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) window: Window,
    pub(super) standing: Standing,
    pub(super) pace: Pace,
    /// Commits that are being rejected because their time is over.
    pub(super) expiring: usize,
    /// The database's clock at an instant of ours.
    pub(super) clock: (OffsetDateTime, Instant),
    /// The inbox may hold commits that the window has not seen.
    pub(super) stale: bool,
    /// The source is another's.
    pub(super) fenced: bool,
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

impl Default for Board {
    fn default() -> Self {
        Self {
            window: Window::default(),
            standing: Standing::default(),
            pace: Pace::new(),
            expiring: 0,
            clock: (OffsetDateTime::UNIX_EPOCH, Instant::now()),
            stale: true,
            fenced: false,
        }
    }
}

impl Board {
    /// The time of the database.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.0 + self.clock.1.elapsed()
    }

    /// Moves on after an attempt, or after a commit's time was said to be over.
    pub(super) fn take(&mut self, sequence: i64, end: End) {
        match end {
            End::Settled(entry, source) => {
                let revision = source.inbox_revision;
                self.stand(&source);
                self.settled(sequence, entry.as_deref());
                if revision < self.window.revision {
                    // It was decided before what the window shows: the inbox is read anew.
                    self.window.revision = revision;
                    self.stale = true;
                }
            }
            End::NotStarted(NotStartable::Finished) => self.window.finish(sequence),
            End::NotStarted(NotStartable::Until(until)) => {
                self.window.wait(sequence, until);
                self.stale = true;
            }
            End::NotStarted(NotStartable::Disabled | NotStartable::Reread) => {
                self.stale = true;
                let now = self.now();
                self.window.wait(sequence, now);
            }
            End::Expired(end) => self.expired(sequence, end),
            End::Fenced => self.fenced = true,
            End::Unavailable => {
                let later = self.now() + PAUSE;
                self.window.wait(sequence, later);
            }
        }
    }

    fn settled(&mut self, sequence: i64, entry: Option<&InboxEntry>) {
        match entry {
            None => self.window.finish(sequence),
            Some(entry) if entry.dead => match entry.may_apply_until {
                Some(until) if until > self.now() => self.window.hold(sequence, until),
                _ => self.window.finish(sequence),
            },
            Some(entry) => {
                let failed = (entry.due_at, entry.failed_at);
                self.window.ask(sequence, entry.next_cause.is_some());
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

    /// What failed in the spell that the source came out of is due at once.
    pub(super) fn recovered(&mut self, recovery: Option<Recovery>) {
        let at = |recovery: Option<Recovery>| recovery.map(|it| it.at);
        if at(recovery) > at(self.standing.recovery) {
            self.standing.recovery = recovery;
            if let Some(recovery) = recovery {
                self.window.recover(recovery);
            }
        }
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
