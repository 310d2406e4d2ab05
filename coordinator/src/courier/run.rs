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
use super::attempt::{Attempt, End};
use super::flight::Flight;
use super::pace::Pace;
use super::shares::{Share, Turn};
use super::window::Window;
use crate::broken::crash_point;
use crate::decide::{InboxEntry, NotStartable, Recovery, Source};
use crate::domain::{OrganizationId, SourceState};
use crate::store::{Error, inbox};

/// Commits read at a time.
const PAGE: i64 = 1_000;

/// How long a courier waits before it looks again after the database was away, or no key signs.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// A courier looks again after so long although nothing happened.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// And not before.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// How long a commit waits before it is looked whether an event of its row was taken in.
const EVENT_PAUSE: Duration = Duration::from_millis(20);

/// Delivers one source's commits.
pub(super) struct Courier {
    pub(super) tools: Tools,
    organization: OrganizationId,
    source: String,
    epoch: i64,
    node: Uuid,
    pub(super) window: Window,
    flight: Arc<Flight>,
    standing: Standing,
    pace: Pace,
    /// This organization's shares of the node's requests in flight.
    turn: Turn,
    in_flight: usize,
    /// Commits that are being rejected because their time is over.
    pub(super) expiring: usize,
    /// The database's clock at an instant of ours.
    clock: (OffsetDateTime, Instant),
    /// The inbox may hold commits that the window has not seen.
    pub(super) stale: bool,
}

/// How the source stands, as far as this courier knows.
#[derive(Debug)]
struct Standing {
    state: SourceState,
    cap: usize,
    /// Below the cap: halved by a failure of a source that struggles, doubled by a success, one while
    /// the source fails.
    ramp: usize,
    backoff_until: Option<OffsetDateTime>,
    recovery: Option<Recovery>,
    /// Attempts that were settled when the source stood so.
    settled: i64,
}

impl Standing {
    /// From when on commits may leave; never while the source is disabled.
    fn opens(&self) -> Option<OffsetDateTime> {
        let open = !matches!(self.state, SourceState::Disabled | SourceState::Paused);
        open.then(|| self.backoff_until.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    /// Requests in flight at most, right now.
    fn allowed(&self) -> usize {
        match self.state {
            SourceState::Failing => 1,
            SourceState::Enabled | SourceState::Paused | SourceState::Disabled => {
                self.cap.min(self.ramp)
            }
        }
    }
}

impl Courier {
    pub(super) fn new(
        tools: Tools,
        (organization, source): (OrganizationId, String),
        (epoch, node): (i64, Uuid),
        flight: Arc<Flight>,
    ) -> Self {
        Self {
            turn: Turn::new(tools.attempts.clone(), organization.clone()),
            pace: Pace::new(),
            tools,
            organization,
            source,
            epoch,
            node,
            window: Window::default(),
            flight,
            standing: Standing {
                state: SourceState::Disabled,
                cap: 1,
                ramp: usize::MAX,
                backoff_until: None,
                recovery: None,
                settled: -1,
            },
            in_flight: 0,
            expiring: 0,
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
            crash_point!("courier.read");
            while let Some(sequence) = self.window.pop_over(self.now()) {
                self.finish(sequence);
            }
            self.expire_what_is_over(&ends);
            self.start_what_may(&ends);
            let next = self.next();
            tokio::select! {
                () = stop.cancelled() => break,
                () = waiter.rung() => self.stale = true,
                () = self.turn.come() => {}
                Some((sequence, end)) = ended.recv() => {
                    if !self.take(sequence, end) {
                        break;
                    }
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
        drop(ends);
        self.turn.pass();
        while ended.recv().await.is_some() {}
    }

    /// The time of the database.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.0 + self.clock.1.elapsed()
    }

    /// Reads how the source stands and what the window has not seen; `false` when the source is
    /// gone or another's.
    async fn read(&mut self) -> Result<bool, Error> {
        let mut anew = false;
        loop {
            let after = self.window.seen;
            let limit = if self.window.has_room() { PAGE } else { 0 };
            let _look = self.tools.looks.take(&self.organization).await;
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
            // Behind the database's by as much as the answer took: what holds a lane never ends early.
            self.clock = (read.now, Instant::now());
            if self.window.revision != read.inbox_revision {
                self.window.renew(read.inbox_revision);
                anew = true;
                if after > 0 {
                    continue;
                }
            }
            self.see(&read);
            for entry in &read.entries {
                let until = entry.open_until;
                if let Some(until) = until.filter(|_| !self.window.is_out(entry.sequence)) {
                    let left = Duration::try_from(until - read.now).unwrap_or_default();
                    self.flight.linger(&entry.lanes, Instant::now() + left);
                }
            }
            let full = i64::try_from(read.entries.len()).is_ok_and(|count| count == limit);
            self.window.extend(read.entries, read.recovery);
            if limit > 0 && full {
                continue;
            }
            if limit > 0 {
                self.window.seen = self.window.seen.max(read.inbox_sequence);
                self.stale = false;
            }
            if anew {
                let window = &self.window;
                self.flight.remember(|sequence| window.contains(sequence));
            }
            self.flight.open();
            return Ok(true);
        }
    }

    /// Takes in how the source stands.
    fn see(&mut self, read: &inbox::Window) {
        self.standing.state = read.state;
        if read.state == SourceState::Failing {
            self.standing.ramp = 1;
        }
        self.standing.cap = read.max_in_flight;
        self.pace.limit(read.max_per_second);
        self.standing.backoff_until = read.backoff_until;
        self.recovered(read.recovery);
        self.standing.settled = read.settled;
    }

    fn start_what_may(&mut self, ends: &mpsc::UnboundedSender<(i64, End)>) {
        let now = self.now();
        let mut kept = Vec::new();
        loop {
            let asked = self.may_start_asked(now);
            if !asked && !self.may_start(now) {
                break;
            }
            let Some(share) = self.turn.take() else {
                break;
            };
            let sequence = match self.standing.state {
                _ if asked => self.window.pop_asked(now),
                SourceState::Failing => self.window.probe(now),
                _ => self.window.pop(now),
            };
            let Some(sequence) = sequence else {
                break;
            };
            if self.start(sequence, share, ends.clone()) {
                self.pace.spend(Instant::now());
            } else {
                kept.push(sequence);
            }
        }
        for sequence in kept {
            self.window.wait(sequence, now + EVENT_PAUSE);
        }
        if !self.may_start(now) && !self.may_start_asked(now) {
            self.turn.pass();
        }
    }

    /// Whether a commit is due, and nothing but a share of the node's requests is in its way.
    fn may_start(&self, now: OffsetDateTime) -> bool {
        self.in_flight < self.standing.allowed()
            && self.standing.opens().is_some_and(|opens| opens <= now)
            && self.window.is_due(now)
            && self.pace.wait(Instant::now()).is_zero()
    }

    /// The same of one that somebody asked for: it waits for no back-off.
    fn may_start_asked(&self, now: OffsetDateTime) -> bool {
        self.has_room_for_asked()
            && self.window.next_asked().is_some_and(|due| due <= now)
            && self.pace.wait(Instant::now()).is_zero()
    }

    fn has_room_for_asked(&self) -> bool {
        self.standing.opens().is_some() && self.in_flight < self.standing.cap
    }

    /// Makes an attempt; `false` while an event of one of the commit's rows is taken in.
    fn start(
        &mut self,
        sequence: i64,
        share: Share,
        ends: mpsc::UnboundedSender<(i64, End)>,
    ) -> bool {
        let lanes = self.window.lanes(sequence).to_vec();
        let flying = Flight::depart(&self.flight, sequence, lanes);
        if flying.is_none() {
            return false;
        }
        self.in_flight += 1;
        let attempt = Attempt {
            flying,
            ..self.attempt(sequence)
        };
        self.tools.tasks.spawn(async move {
            let run = AssertUnwindSafe(attempt.run()).catch_unwind();
            let end = run.await.unwrap_or(End::Unavailable);
            drop(share);
            // A courier that is gone has nothing to do with the end: it is durable.
            drop(ends.send((sequence, end)));
        });
        true
    }

    pub(super) fn attempt(&self, sequence: i64) -> Attempt {
        Attempt {
            tools: self.tools.clone(),
            organization: self.organization.clone(),
            source: self.source.clone(),
            epoch: self.epoch,
            node: self.node,
            sequence,
            terms: self.window.terms(sequence),
            weight: self.window.weight(sequence),
            revision: self.window.revision,
            flying: None,
        }
    }

    /// When to look again although nothing happened.
    fn next(&self) -> Instant {
        let now = self.now();
        let free = self.in_flight < self.standing.allowed() && !self.turn.waits();
        let due = self.window.next().filter(|_| free);
        let due = due.zip(self.standing.opens());
        let due = due.map(|(due, opens)| due.max(opens));
        let asked = self.window.next_asked();
        let asked = asked.filter(|_| self.has_room_for_asked() && !self.turn.waits());
        let next = due.into_iter().chain(asked).chain(self.next_expiry()).min();
        let wait = next.map_or(LONGEST_SLEEP, |next| {
            Duration::try_from(next - now).unwrap_or_default()
        });
        let soonest = Instant::now();
        // The window was read some time ago, so "due" may be a moment past: never spin on it.
        let wait = wait.max(self.pace.wait(soonest)).max(SHORTEST_SLEEP);
        soonest + wait.min(LONGEST_SLEEP)
    }

    /// Moves on after an attempt; `false` when the source is another's.
    fn take(&mut self, sequence: i64, end: End) -> bool {
        if !matches!(end, End::Expired(_)) {
            self.in_flight -= 1;
        }
        match end {
            End::Settled(entry, source) => {
                self.stand(&source);
                crash_point!("courier.moved");
                self.settled(sequence, entry.as_deref());
                self.decided_of(source.inbox_revision);
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
            End::Fenced => return false,
            End::Unavailable => {
                let later = self.now() + PAUSE;
                self.window.wait(sequence, later);
            }
        }
        true
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

    /// What failed in the spell that the source came out of is due at once.
    fn recovered(&mut self, recovery: Option<Recovery>) {
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
