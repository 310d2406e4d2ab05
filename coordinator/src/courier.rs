//! Couriers: one per Data Source, on the node that owns it.
//!
//! **Ownership.** Owner and epoch stand in the source's row; a lease is a node's, one row that it
//! renews by the clock of the database. A source whose owner's lease is over is an orphan; a node
//! claims it by a command that moves the epoch on. Every start and every settle states the epoch
//! that it acts under and is refused under a later one, so a node that was frozen and wakes up can
//! harm nothing: it finds itself fenced.
//!
//! **Order.** A courier reads its source's inbox in order, without gaps, and starts a commit when it
//! is first in the lane of every row that it touches ([`lanes`]). An attempt is recorded before its
//! first byte leaves ([`attempt`]), and a commit is finished when its settle is durable, not when the
//! answer has arrived.
//!
//! **Recovery is the ordinary path**: a courier that starts reads the same window, whether its source
//! is new or was left behind by a crash. An attempt that was open then is re-sent after its deadline.

mod attempt;
mod clocks;
mod expiry;
pub mod flight;
pub mod lanes;
mod pace;
mod run;
pub mod shares;
#[cfg(test)]
mod simulation;
mod window;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backends::data_source::client::EndpointClient;
use backends::data_source::clock::Clock;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::clocks::Clocks;
use crate::broken::{WallClock, crash_point};
use crate::decide::{Command, Control, Reply, Source};
use crate::domain::OrganizationId;
use crate::feed::FeedReader;
use crate::flush::Flushers;
use crate::keys::KeyRing;
use crate::schemas::SchemaCache;
use crate::store::nodes::{Orphan, Owned};
use crate::store::{Error, Store};
use crate::telemetry::metrics::Metrics;
use crate::wake::Wake;

use self::flight::Flight;
use self::shares::Shares;

/// Rows that waiting commits of one source may touch before its courier reads on no further: commits
/// behind them wait, also when their own rows are free.
pub const READ_AHEAD: usize = window::CAPACITY;

/// Orphans looked up at a time.
const CLAIM: i64 = 256;

/// Of these, claimed at once: an organization that is stuck holds up few others.
const CLAIMS_AT_ONCE: usize = 16;

/// What couriers work with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The database.
    pub store: Store,
    /// Decides starts and settles.
    pub flushers: Flushers,
    /// Says which models a source holds.
    pub schemas: Arc<SchemaCache>,
    /// Signs.
    pub keys: Arc<KeyRing>,
    /// Sends.
    pub endpoints: EndpointClient,
    /// Says when there is news.
    pub wake: Arc<Wake>,
    /// Shared out between the node's organizations: commit requests in flight.
    pub attempts: Shares,
    /// The same for connections that look into inboxes.
    pub looks: Shares,
    /// Answers of feeds that are longer than others may be, read at a time.
    pub large_answers: Arc<Semaphore>,
    /// Counts.
    pub metrics: Metrics,
    /// Every task is on it.
    pub tasks: TaskTracker,
}

/// How long a node's lease lasts, and how often it is renewed.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// From a renewal on.
    pub length: Duration,
    /// Well below the length.
    pub renewal: Duration,
}

/// The couriers of this node.
#[derive(Clone, Debug)]
pub struct Couriers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tools: Tools,
    node: Uuid,
    lease: Lease,
    /// A source may be unclaimed: look now.
    look: Notify,
    /// The lease was renewed.
    leased: Notify,
    /// The lease is over, since the database was not reached for so long.
    lapsed: watch::Sender<bool>,
    running: Mutex<HashMap<(OrganizationId, String), Seen>>,
}

/// What a running courier was last told of.
#[derive(Debug)]
struct Seen {
    epoch: i64,
    stop: CancellationToken,
    news: Option<Owned>,
}

impl Couriers {
    /// Couriers of a node of this name; none runs before [`Couriers::run`].
    pub fn new(tools: Tools, node: Uuid, lease: Lease) -> Self {
        let shared = Shared {
            tools,
            node,
            lease,
            look: Notify::new(),
            leased: Notify::new(),
            lapsed: watch::Sender::new(false),
            running: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A source may be unclaimed: claims it soon.
    pub fn look(&self) {
        self.shared.look.notify_one();
    }

    /// Whether the node's lease is over because the database was not reached, now and from now on.
    pub fn lapsed(&self) -> watch::Receiver<bool> {
        self.shared.lapsed.subscribe()
    }

    /// Renews the node's lease and runs a courier for every source that it can claim, until `stop`.
    /// Then the couriers finish what is in flight, the sources are released and the lease ends.
    pub async fn run(&self, stop: CancellationToken) {
        let left = CancellationToken::new();
        let work = async {
            self.shared.work(&stop).await;
            self.shared.leave().await;
            left.cancel();
        };
        tokio::join!(work, left.run_until_cancelled(self.shared.renew()));
        if let Err(error) = self.shared.tools.store.leave_node(self.shared.node).await {
            tracing::warn!(%error, "the node's lease was not ended");
        }
    }
}

impl Shared {
    /// Renews the lease, also while claims wait and while the node drains: its sources are its own
    /// until it gives them up.
    async fn renew(&self) {
        let mut ticks = tokio::time::interval(self.lease.renewal);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        let mut clocks = Clocks::new(self.tools.metrics.clone());
        loop {
            ticks.tick().await;
            let asked = WallClock.now();
            let store = &self.tools.store;
            let renewal = store.renew_node(self.node, self.lease.length);
            let silent = |_| Err(Error::Unavailable(sqlx::Error::PoolTimedOut));
            let renewal = timeout(self.lease.length, renewal).await;
            match renewal.unwrap_or_else(silent) {
                Ok(told) => {
                    renewed = Instant::now();
                    crash_point!("lease.renewed");
                    self.lapsed.send_if_modified(std::mem::take);
                    self.leased.notify_one();
                    clocks.compare(told, (asked, WallClock.now()));
                }
                Err(error) if renewed.elapsed() > self.lease.length => {
                    tracing::warn!(%error, "the node's lease is over: its couriers stop");
                    self.lapsed.send_replace(true);
                    self.stop_all();
                }
                Err(error) => tracing::warn!(%error, "the node's lease was not renewed"),
            }
        }
    }

    /// After each renewal, and when told to, sees what its sources have and claims orphans.
    async fn work(self: &Arc<Self>, stop: &CancellationToken) {
        stop.run_until_cancelled(self.leased.notified()).await;
        while !stop.is_cancelled() {
            if let Err(error) = self.tend().await {
                tracing::warn!(%error, "the node did not see what its sources have");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.leased.notified() => {}
                () = self.look.notified() => {}
            }
        }
    }

    /// Passes news on to couriers, claims orphans.
    async fn tend(self: &Arc<Self>) -> Result<(), Error> {
        for (pool, in_use) in self.tools.store.in_use() {
            self.tools.metrics.connections(pool, in_use);
        }
        for owned in self.tools.store.owned(self.node).await? {
            self.tell(owned);
        }
        for (organization, source) in self.tools.store.waiting_feeds(self.node).await? {
            self.tools.wake.ring_feed(&organization, &source);
        }
        let orphans = self.tools.store.orphans(self.node, CLAIM).await?;
        futures_util::stream::iter(orphans)
            .for_each_concurrent(CLAIMS_AT_ONCE, |orphan| self.claim(orphan))
            .await;
        Ok(())
    }

    /// Wakes the courier of a source that has news; starts one if it should run and does not.
    fn tell(self: &Arc<Self>, owned: Owned) {
        let (organization, source) = (owned.organization(), owned.source_id.clone());
        let epoch = owned.epoch;
        let mut running = self.lock();
        match running.get_mut(&(organization.clone(), source.clone())) {
            Some(seen) if seen.epoch == epoch => {
                if seen.news.as_ref() != Some(&owned) {
                    let known = seen.news.as_ref().map(|news| news.updated_at);
                    if known != Some(owned.updated_at) {
                        self.tools.wake.ring_feed(&organization, &source);
                    }
                    seen.news = Some(owned);
                    self.tools.wake.ring_source(&organization, &source);
                }
            }
            _ => {
                drop(running);
                self.start(&organization, &source, epoch);
            }
        }
    }

    async fn claim(self: &Arc<Self>, orphan: Orphan) {
        let organization = OrganizationId::new(&orphan.org_id);
        let claim = Control::ClaimSource {
            source: orphan.source_id.clone(),
            node: self.node,
            gone: orphan.owner,
        };
        match self
            .tools
            .flushers
            .submit(&organization, Command::Control(claim))
            .await
        {
            Ok(Reply::Claimed(source)) => {
                let Source { id, epoch, .. } = *source;
                crash_point!("courier.claimed");
                tracing::info!(%organization, source.id = id, epoch, "claimed a Data Source");
                self.start(&organization, &id, epoch);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%organization, %error, "a source was not claimed"),
        }
    }

    fn start(self: &Arc<Self>, organization: &OrganizationId, source: &str, epoch: i64) {
        let stop = CancellationToken::new();
        let key = (organization.clone(), source.to_owned());
        let seen = Seen {
            epoch,
            stop: stop.clone(),
            news: None,
        };
        let running = {
            let mut running = self.lock();
            if let Some(before) = running.insert(key.clone(), seen) {
                before.stop.cancel();
            }
            running.len()
        };
        let flight = Arc::new(Flight::default());
        let owner = (epoch, self.node);
        let feed = FeedReader::new(self.tools.clone(), key.clone(), owner, &flight);
        let courier = run::Courier::new(self.tools.clone(), key.clone(), owner, flight);
        let shared = Arc::clone(self);
        self.tools.tasks.spawn(async move {
            // Either ends when the source is another's, and then so does the other.
            let delivers = async {
                let run = AssertUnwindSafe(courier.run(stop.clone())).catch_unwind();
                let end = run.await;
                stop.cancel();
                end
            };
            let reads = async {
                feed.run(&stop, running).await;
                stop.cancel();
            };
            let (end, ()) = tokio::join!(delivers, reads);
            if end.is_err() {
                tracing::error!(
                    source.id = key.1,
                    "a courier was ended by a panic; it starts anew"
                );
            }
            let mut running = shared.lock();
            // Not the entry of a courier that has replaced this one.
            if running.get(&key).is_some_and(|seen| seen.epoch == epoch) {
                running.remove(&key);
            }
        });
    }

    fn stop_all(&self) {
        for seen in self.lock().values() {
            seen.stop.cancel();
        }
    }

    /// Waits for couriers to finish what is in flight, then gives everything up, so that others can
    /// take over at once.
    async fn leave(&self) {
        self.stop_all();
        while !self.lock().is_empty() {
            // Each courier ends within its requests' timeout; the caller has a deadline of its own.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let owned = self.tools.store.owned(self.node).await.unwrap_or_default();
        let releases = owned.into_iter().map(|owned| async move {
            let organization = owned.organization();
            let release = Control::ReleaseSource {
                source: owned.source_id.clone(),
                epoch: owned.epoch,
            };
            let released = self
                .tools
                .flushers
                .submit(&organization, Command::Control(release))
                .await;
            if let Err(error) = released {
                tracing::warn!(%organization, %error, "a source was not released");
            }
        });
        futures_util::future::join_all(releases).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(OrganizationId, String), Seen>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
