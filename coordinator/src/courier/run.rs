//! The life of one courier.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Tools;
use super::attempt::{self, End};
use super::window::Window;
use crate::decide::{InboxEntry, NotStartable, Source};
use crate::domain::{OrganizationId, SourceState};
use crate::store::Error;

/// Commits read ahead at a time.
const READ_AHEAD: i64 = 1_000;

/// How long a courier waits before it looks again after the database was away, or no key signs.
const PAUSE: Duration = Duration::from_millis(500);

/// Delivers one source's commits.
pub(super) struct Courier {
    tools: Tools,
    organization: OrganizationId,
    source: String,
    epoch: i64,
    node: Uuid,
    window: Window,
    standing: Standing,
    in_flight: usize,
    /// The database's clock at an instant of ours.
    clock: (OffsetDateTime, Instant),
    /// The inbox may hold commits that the window has not seen.
    stale: bool,
}

/// How the source stands, as far as this courier knows.
#[derive(Debug)]
struct Standing {
    state: SourceState,
    cap: usize,
    /// Below the cap: halved by a failure, doubled by a success, one while the source fails.
    ramp: usize,
    backoff_until: Option<OffsetDateTime>,
    recovered_at: Option<OffsetDateTime>,
    /// Attempts that were settled when the source stood so.
    settled: i64,
}

impl Standing {
    /// From when on commits may leave; never while the source is disabled.
    fn opens(&self) -> Option<OffsetDateTime> {
        let open = self.state != SourceState::Disabled;
        open.then(|| self.backoff_until.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    /// Requests in flight at most, right now.
    fn allowed(&self) -> usize {
        match self.state {
            SourceState::Failing => 1,
            SourceState::Enabled | SourceState::Disabled => self.cap.min(self.ramp),
        }
    }
}

impl Courier {
    pub(super) fn new(
        tools: Tools,
        (organization, source): (OrganizationId, String),
        epoch: i64,
        node: Uuid,
    ) -> Self {
        Self {
            tools,
            organization,
            source,
            epoch,
            node,
            window: Window::default(),
            standing: Standing {
                state: SourceState::Disabled,
                cap: 1,
                ramp: usize::MAX,
                backoff_until: None,
                recovered_at: None,
                settled: -1,
            },
            in_flight: 0,
            clock: (OffsetDateTime::UNIX_EPOCH, Instant::now()),
            stale: true,
        }
    }

    /// Delivers until it is stopped or fenced, then waits for what is in flight.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let wake = Arc::clone(&self.tools.wake);
        let mut waiter = wake.source(&self.organization, &self.source);
        let (ends, mut ended) = mpsc::unbounded_channel();
        while !stop.is_cancelled() {
            if self.stale {
                match self.read().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(source.id = self.source, %error, "an inbox was not read");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            self.window.release(self.now());
            self.start_what_may(&ends);
            tokio::select! {
                () = stop.cancelled() => break,
                () = waiter.rung() => self.stale = true,
                Some((sequence, end)) = ended.recv() => {
                    if !self.take(sequence, end) {
                        break;
                    }
                }
                () = tokio::time::sleep_until(self.next()) => {}
            }
        }
        drop(ends);
        while self.in_flight > 0 && ended.recv().await.is_some() {
            self.in_flight -= 1;
        }
    }

    /// The time of the database.
    fn now(&self) -> OffsetDateTime {
        self.clock.0 + self.clock.1.elapsed()
    }

    /// Reads how the source stands and what the window has not seen; `false` when the source is
    /// gone or another's.
    async fn read(&mut self) -> Result<bool, Error> {
        loop {
            let after = self.window.seen;
            let limit = if self.window.has_room() {
                READ_AHEAD
            } else {
                0
            };
            let asked = Instant::now();
            let read = self
                .tools
                .store
                .window(&self.organization, &self.source, after, limit);
            let Some(read) = read.await? else {
                return Ok(false);
            };
            if read.epoch != self.epoch || read.owner != Some(self.node) {
                tracing::info!(source.id = self.source, epoch = self.epoch, "fenced");
                return Ok(false);
            }
            self.clock = (read.now, asked);
            self.standing.state = read.state;
            self.standing.cap = read.max_in_flight;
            self.standing.backoff_until = read.backoff_until;
            self.recovered(read.recovered_at);
            self.standing.settled = read.settled;
            let full = i64::try_from(read.entries.len()).is_ok_and(|count| count == limit);
            self.window.extend(read.entries, read.recovered_at);
            if limit == 0 {
                return Ok(true);
            }
            if !full {
                self.window.seen = self.window.seen.max(read.inbox_sequence);
                self.stale = false;
                return Ok(true);
            }
        }
    }

    fn start_what_may(&mut self, ends: &mpsc::UnboundedSender<(i64, End)>) {
        let now = self.now();
        let standing = &self.standing;
        if standing.opens().is_none_or(|opens| opens > now) {
            return;
        }
        let allowed = standing.allowed();
        while self.in_flight < allowed {
            let Some(sequence) = self.window.pop(now) else {
                return;
            };
            self.in_flight += 1;
            let attempt = attempt::Attempt {
                tools: self.tools.clone(),
                organization: self.organization.clone(),
                source: self.source.clone(),
                epoch: self.epoch,
                node: self.node,
                sequence,
            };
            let ends = ends.clone();
            self.tools.tasks.spawn(async move {
                let run = AssertUnwindSafe(attempt.run()).catch_unwind();
                let end = run.await.unwrap_or(End::Unavailable);
                // A courier that is gone has nothing to do with the end: it is durable.
                drop(ends.send((sequence, end)));
            });
        }
    }

    /// When to look again although nothing happened.
    fn next(&self) -> Instant {
        let now = self.now();
        let free = self.in_flight < self.standing.allowed();
        let due = self.window.next().filter(|_| free);
        let due = due.zip(self.standing.opens());
        let wait = due.map_or(Duration::from_mins(1), |(due, opens)| {
            Duration::try_from(due.max(opens) - now).unwrap_or_default()
        });
        // The window was read some time ago, so "due" may be a moment past: never spin on it.
        Instant::now()
            + wait
                .max(Duration::from_millis(1))
                .min(Duration::from_mins(1))
    }

    /// Moves on after an attempt; `false` when the source is another's.
    fn take(&mut self, sequence: i64, end: End) -> bool {
        self.in_flight -= 1;
        match end {
            End::Settled(entry, source) => {
                self.stand(&source);
                self.settled(sequence, entry.as_deref());
            }
            End::NotStarted(NotStartable::Finished) => self.window.finish(sequence),
            End::NotStarted(NotStartable::Until(until)) => {
                self.window.wait(sequence, until, None);
                self.stale = true;
            }
            End::NotStarted(NotStartable::Disabled) => {
                self.stale = true;
                let now = self.now();
                self.window.wait(sequence, now, None);
            }
            End::Fenced => return false,
            End::Unavailable => {
                let later = self.now() + PAUSE;
                self.window.wait(sequence, later, None);
            }
        }
        true
    }

    fn settled(&mut self, sequence: i64, entry: Option<&InboxEntry>) {
        match entry {
            None => self.window.finish(sequence),
            Some(entry) if entry.dead => match entry.may_apply_until {
                Some(until) if until > self.now() => self.window.hold(sequence, until),
                _ => self.window.finish(sequence),
            },
            Some(entry) => {
                let recovered_at = self.standing.recovered_at;
                let failed = entry.failed_at.map(|failed_at| (failed_at, recovered_at));
                self.window.wait(sequence, entry.due_at, failed);
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
            _ => (allowed / 2).max(1),
        };
        self.recovered(source.recovered_at);
    }

    /// What failed before the source came back is due at once.
    fn recovered(&mut self, recovered_at: Option<OffsetDateTime>) {
        if recovered_at > self.standing.recovered_at {
            self.standing.recovered_at = recovered_at;
            if let Some(recovered_at) = recovered_at {
                self.window.recover(recovered_at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disabled_source_opens_never_and_one_that_backs_off_afterwards() {
        let until = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1);
        let standing = |state, backoff_until| Standing {
            state,
            cap: 1,
            ramp: 1,
            backoff_until,
            recovered_at: None,
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
