//! Feeds of changes made outside: one reader per Data Source, beside its courier, under its epoch.
//!
//! **Two loops.** The fast one polls from the newest cursor, often while events come and ever more
//! seldom when none do. The sweep reads again from the durable cursor, which trails the newest by the
//! source's lag, and finds what became visible late ([`trail`]). Both take in what they find by the
//! same command, which knows each event by its id, so that none is taken in twice. A page's cursor
//! moves when all of its events are taken in, and not before.
//!
//! **Pushed events** wait in a table of their own for the same command, which takes them out.
//!
//! **Beside commits.** An event waits for attempts at its row and they for it
//! ([`crate::courier::flight`]). If nobody can tell which of an event and a commit came first, the row
//! is loaded, and the log ends on what the source holds. An event that is a commit come back changes
//! nothing, or, if the commit's answer was lost, has it sent again at once.

mod drain;
mod history;
mod judge;
mod load;
mod pace;
mod poll;
mod record;
#[cfg(test)]
mod simulation;
mod take;
pub mod trail;

pub(crate) use poll::{LARGE_ANSWERS, TOO_LARGE};

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::history::{History, Recent};
use self::pace::Pace;
use self::record::Noted;
use self::trail::{Sweep, Trail};
use crate::broken::{self, Control};
use crate::courier::Tools;
use crate::courier::flight::Flight;
use crate::decide::Feed;
use crate::domain::{FeedState, OrganizationId, SourceState};
use crate::refusal::Refusal;
use crate::store::Error;
use crate::store::feeds::{Look, Waits};
use crate::telemetry::metrics::Metrics;

/// How long a reader waits after the database was away or an append was lost.
const PAUSE: Duration = Duration::from_millis(500);

/// How long one waits that was ended by a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(5);

/// Events that one request asks for.
const PAGE: u32 = 500;

/// Reads one source's feed.
pub(crate) struct FeedReader {
    tools: Tools,
    organization: OrganizationId,
    source: String,
    epoch: i64,
    node: Uuid,
    flight: Arc<Flight>,
    /// The source as it was last looked at; `None` before that, and when it has to be again.
    look: Option<Look>,
    stale: bool,
    /// The feed as it stands; `None` before it was first read.
    feed: Option<Feed>,
    /// The database's clock at an instant of ours, no later than it really was.
    clock: (OffsetDateTime, Instant),
    /// Nothing is done before this.
    held: Instant,
    waits: Waits,
    /// The schema says that rows live in the source, as far as is known.
    named: bool,
    pace: Pace,
    sweep: Option<Sweep>,
    history: History,
    recent: Recent,
    /// Of these, what the sweep found: polls bring it again.
    swept: Recent,
    /// When the sweep began, by either clock.
    swept_from: (Instant, OffsetDateTime),
    /// Events to ask for; fewer while pages are too large.
    limit: u32,
    /// Polls in a row whose cursor was refused.
    refused: u32,
    /// Polls in a row that brought the same events again, and the cursors since the last new one.
    same: u32,
    visited: HashSet<String>,
    /// Times in a row that a row could not be loaded.
    unloaded: u32,
    noted: Noted,
}

/// An endpoint refused what it did: a person must see it.
pub(crate) fn tell_denied(
    metrics: &Metrics,
    (organization, source): (&OrganizationId, &str),
    client_tx_id: &str,
) {
    tracing::error!(
        %organization,
        source.id = source,
        client_tx_id,
        "the feed shows the effect of a commit that was rejected"
    );
    metrics.feed_alarm("rejected_commit_applied");
}

/// Why a turn was not finished.
#[derive(Debug)]
enum Trouble {
    /// The source is another's, or gone.
    Fenced,
    /// The database was away, or the schema moved on and on.
    Database,
    /// The endpoint did not answer; what it asked for.
    Endpoint(Option<Duration>),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        tracing::warn!(%error, "a feed was not taken in");
        Self::Database
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        tracing::warn!(error = refusal.message, "a feed was not taken in");
        Self::Database
    }
}

impl FeedReader {
    /// The reader of a source's feed, for its owner: the epoch, and the node.
    pub(crate) fn new(
        tools: Tools,
        (organization, source): (OrganizationId, String),
        (epoch, node): (i64, Uuid),
        flight: &Arc<Flight>,
    ) -> Self {
        let now = Instant::now();
        Self {
            tools,
            organization,
            source,
            epoch,
            node,
            flight: Arc::clone(flight),
            look: None,
            stale: true,
            feed: None,
            clock: (OffsetDateTime::UNIX_EPOCH, now),
            held: now,
            waits: Waits::default(),
            named: false,
            pace: Pace::new(now),
            sweep: None,
            history: History::default(),
            recent: Recent::default(),
            swept: Recent::default(),
            swept_from: (now, OffsetDateTime::UNIX_EPOCH),
            limit: PAGE,
            refused: 0,
            same: 0,
            visited: HashSet::new(),
            unloaded: 0,
            noted: Noted::default(),
        }
    }

    /// Reads until it is stopped or the source is another's. `running` readers on this node spread
    /// their first requests.
    pub(crate) async fn run(mut self, stop: &CancellationToken, running: usize) {
        self.pace.spread(running);
        loop {
            let live = AssertUnwindSafe(Box::pin(self.live())).catch_unwind();
            match stop.run_until_cancelled(live).await {
                None | Some(Ok(())) => return,
                Some(Err(_)) => {
                    tracing::error!(source.id = self.source, "reading a feed panicked");
                    self.held = Instant::now() + PANIC_PAUSE;
                    self.stale = true;
                    self.sweep = None;
                }
            }
        }
    }

    async fn live(&mut self) {
        let wake = Arc::clone(&self.tools.wake);
        let mut waiter = wake.feed(&self.organization, &self.source);
        self.flight.opened().await;
        loop {
            tokio::select! {
                () = waiter.rung() => self.stale = true,
                () = tokio::time::sleep_until(self.next()) => {}
            }
            if self.held > Instant::now() {
                continue;
            }
            match self.turn().await {
                Ok(()) => {}
                Err(Trouble::Fenced) => {
                    tracing::info!(source.id = self.source, epoch = self.epoch, "fenced");
                    return;
                }
                Err(Trouble::Database) => {
                    self.held = Instant::now() + PAUSE;
                    self.stale = true;
                    self.sweep = None;
                }
                Err(Trouble::Endpoint(at_least)) => {
                    self.sweep = None;
                    self.pace.failed(at_least.unwrap_or_default());
                    self.held = self.held.max(Instant::now() + PAUSE);
                }
            }
        }
    }

    /// Does what there is to do: looks, takes in pushed events, reads rows again, polls once.
    async fn turn(&mut self) -> Result<(), Trouble> {
        if self.stale || self.look.is_none() {
            self.see().await?;
        }
        if self.waits.pushed {
            self.drain().await?;
        }
        if self.waits.rereads {
            self.reread().await?;
        }
        if !self.polls() {
            return Ok(());
        }
        let now = Instant::now();
        let sweep_at = self.sweeps().then(|| self.pace.sweep_at());
        match sweep_at {
            Some(at) if at <= now && at <= self.pace.next() => self.sweep_on().await,
            _ if self.pace.next() <= now => self.poll().await,
            _ => Ok(()),
        }
    }

    /// Looks how the source stands.
    async fn see(&mut self) -> Result<(), Trouble> {
        let look = self
            .tools
            .store
            .feed(&self.organization, &self.source)
            .await?;
        let look = look.ok_or(Trouble::Fenced)?;
        if look.epoch != self.epoch || look.owner != Some(self.node) {
            return Err(Trouble::Fenced);
        }
        self.stale = false;
        self.waits = look.waits;
        self.observe(look.now, look.last_sync_id);
        let stood = self.look.as_ref();
        let moved = stood
            .is_some_and(|stood| stood.url != look.url || stood.source_state != look.source_state);
        let reset =
            stood.is_some() && self.cursors() != look.feed.as_ref().map(|it| (it.state, &it.trail));
        if moved || reset {
            self.history.forget_all();
        }
        if moved || reset || !self.named {
            self.sweep = None;
            self.refused = 0;
            if self.look.is_some() {
                self.pace.at_once();
            }
        }
        self.feed.clone_from(&look.feed);
        self.look = Some(look);
        Ok(())
    }

    fn cursors(&self) -> Option<(FeedState, &Trail)> {
        self.feed.as_ref().map(|feed| (feed.state, &feed.trail))
    }

    /// Takes note of the time of the database and the log's position then.
    fn observe(&mut self, now: OffsetDateTime, last_sync_id: i64) {
        self.clock = (now, Instant::now());
        self.history.position(now, last_sync_id);
    }

    /// The time of the database, or a moment before.
    fn now(&self) -> OffsetDateTime {
        self.clock.0 + self.clock.1.elapsed()
    }

    fn polls(&self) -> bool {
        let enabled = self
            .look
            .as_ref()
            .is_some_and(|look| look.source_state != SourceState::Disabled);
        enabled
            && self
                .feed
                .as_ref()
                .is_none_or(|feed| feed.state == FeedState::Polling)
    }

    fn sweeps(&self) -> bool {
        if broken::is(Control::NoSweep) {
            return false;
        }
        self.feed
            .as_ref()
            .is_some_and(|feed| !feed.trail.is_settled())
    }

    /// Whether an event came so lately that another may be late.
    fn lately(&self) -> bool {
        let lag = self.look.as_ref().map(|look| look.lag).unwrap_or_default();
        let last = self.feed.as_ref().and_then(|feed| feed.last_event_at);
        last.is_some_and(|last| last + lag + 2 * pace::WATCHFUL > self.now())
    }

    /// When to take the next turn although nothing happened.
    fn next(&self) -> Instant {
        let now = Instant::now();
        if self.stale || self.waits.anything() || self.look.is_none() {
            return self.held.max(now);
        }
        if !self.polls() {
            return now + Duration::from_hours(1);
        }
        let sweep_at = self.sweeps().then(|| self.pace.sweep_at());
        let next = sweep_at.map_or(self.pace.next(), |at| at.min(self.pace.next()));
        self.held.max(next)
    }
}
