//! The log as subscribers see it: every change once, in order, from any position that is kept.
//!
//! One *tail* per organization and node takes each change once, from an append of this node or by a
//! read, encodes it once and puts it on a bounded *ring* that all subscribers of the organization
//! share. Whoever is behind the ring reads pages from Postgres, at their own pace, and shares those
//! too. Positions are dense, so every step shows whether something is missing; what is missing is
//! told, never skipped.
//!
//! The tail is woken by appends of this node, by other nodes' notifications, and by a look at the
//! heads of all followed logs at once, every half second, behind both.

pub mod cursor;
mod entry;
mod list;
mod pages;
mod ring;
mod slot;
mod snapshot;
mod stream;
mod tail;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use proto::v1;
use proto::v1::subscribe_request::Start;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::{Filter, Schema};
use crate::courier::Tools;
use crate::domain::OrganizationId;
use crate::keys::KeyRing;
use crate::refusal::{Class, Refusal};
use crate::schemas::SchemaCache;
use crate::store::log::LogHead;
use crate::store::{Error, Store};
use crate::telemetry::metrics::Metrics;
use crate::wake::Wake;
use cursor::Cursors;
use ring::After;
use slot::Streams;
pub use slot::Subscription;
use snapshot::Scan;
use stream::Subscriber;
use tail::{Era, Log};

/// How often the heads of all followed logs are looked at, whoever wakes the tails or not.
const LOOK: Duration = Duration::from_millis(500);

/// Reads for those who are behind that run at once: they must not slow those who write.
const TURNS: usize = 3;

/// How long a tail may take to reach a position that the log has.
const REACH: Duration = Duration::from_secs(5);

/// Something that is held for as long as a stream lasts.
pub type Permit = Box<dyn Any + Send>;

/// The logs that somebody on this node follows.
#[derive(Debug)]
pub struct Logs {
    reader: Arc<Reader>,
    wake: Arc<Wake>,
    schemas: Arc<SchemaCache>,
    streams: Arc<Streams>,
    followed: Mutex<HashMap<OrganizationId, Weak<Log>>>,
}

/// What logs are read with.
#[derive(Debug)]
struct Reader {
    store: Store,
    cursors: Cursors,
    metrics: Metrics,
    tasks: TaskTracker,
    turns: Semaphore,
}

/// Why a position cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// What follows it is older than the retention.
    Expired,
    /// The log is another one than it was taken from.
    Diverged,
    /// What follows it should be there, and is not.
    Gap,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    era: Era,
    position: i64,
}

impl Logs {
    /// Logs of the store that these tools work on; nobody follows one yet.
    pub fn new(tools: &Tools) -> Self {
        let reader = Reader {
            store: tools.store.clone(),
            cursors: Cursors::new(tools.keys.master()),
            metrics: tools.metrics.clone(),
            tasks: tools.tasks.clone(),
            turns: Semaphore::new(TURNS),
        };
        Self {
            reader: Arc::new(reader),
            wake: Arc::clone(&tools.wake),
            schemas: Arc::clone(&tools.schemas),
            streams: Arc::new(Streams::new(tools.metrics.clone())),
            followed: Mutex::default(),
        }
    }

    /// Looks after streams and tails until `stop`; then every stream ends, to be resumed elsewhere.
    pub async fn keep(&self, keys: &KeyRing, stop: &CancellationToken) {
        let look = stop.run_until_cancelled(self.look());
        tokio::join!(self.streams.keep(keys, stop), look);
    }

    /// Follows a log. The stream holds `permit`, and ends when `token` is not a live key any more.
    ///
    /// # Errors
    /// Those of the `Log` service.
    pub async fn subscribe(
        &self,
        organization: &OrganizationId,
        request: v1::SubscribeRequest,
        (token, permit): (SecretString, Permit),
    ) -> Result<Subscription, Refusal> {
        let filter = self
            .filter(organization, &request.models, &request.sync_groups)
            .await?;
        let log = self.join(organization).await?;
        let (place, scan) = match request.start {
            None | Some(Start::Snapshot(false) | Start::Oldest(false)) => {
                (self.newest(&log).await?, None)
            }
            Some(Start::Oldest(true)) => (self.oldest(&log).await?, None),
            Some(Start::Cursor(text)) => (self.resumed(&log, &text).await?, None),
            Some(Start::Snapshot(true)) => {
                let schema = self.schemas.latest(organization).await?;
                let place = self.newest(&log).await?;
                (place, Some(Scan::new(schema, &filter)?))
            }
        };
        let subscriber =
            Subscriber::new(log, place, (filter, scan), Arc::clone(&self.reader), permit);
        let resume = subscriber.resume();
        Ok(self.streams.enter(subscriber.frames(), token, resume))
    }

    /// Checks a filter, by the newest schema if need be.
    async fn filter(
        &self,
        organization: &OrganizationId,
        models: &[String],
        groups: &[String],
    ) -> Result<Filter, Refusal> {
        if models.is_empty() {
            return Filter::of(models, groups, None);
        }
        let of = |schema: &Schema| Filter::of(models, groups, Some(schema));
        let (_, filter) = self.schemas.checked(organization, of).await?;
        Ok(filter)
    }

    /// The organization's log, followed from now on if it was not yet.
    async fn join(&self, organization: &OrganizationId) -> Result<Arc<Log>, Refusal> {
        let log = {
            let mut followed = self.lock();
            followed.retain(|_, log| log.strong_count() > 0);
            let log = followed.get(organization).and_then(Weak::upgrade);
            log.unwrap_or_else(|| {
                let log = Log::new(organization.clone(), Arc::clone(&self.reader));
                let log = Arc::new(log);
                followed.insert(organization.clone(), Arc::downgrade(&log));
                log
            })
        };
        if log.start(&self.wake).await? {
            Ok(log)
        } else {
            Err(Refusal::internal())
        }
    }

    /// Behind everything that was confirmed before the call.
    async fn newest(&self, log: &Arc<Log>) -> Result<Place, Refusal> {
        let head = head(log).await?;
        self.reach(log, head).await
    }

    /// Before the oldest change that is kept.
    async fn oldest(&self, log: &Arc<Log>) -> Result<Place, Refusal> {
        let newest = self.newest(log).await?;
        let floor = self.reader.store.log_floor(&log.organization).await?;
        Ok(Place {
            position: (floor - 1).min(newest.position),
            ..newest
        })
    }

    /// Behind what a cursor stands for, if the log still has what follows.
    async fn resumed(&self, log: &Arc<Log>, text: &str) -> Result<Place, Refusal> {
        let cursor = self.reader.cursors.open(&log.organization, text)?;
        let mut reached = log.reached();
        if cursor.epoch != reached.epoch || cursor.position > reached.position {
            reached = head(log).await?;
        }
        if cursor.epoch != reached.epoch || !(0..=reached.position).contains(&cursor.position) {
            return Err(Break::Diverged.refusal());
        }
        let end = self.reach(log, reached).await?;
        let place = Place {
            position: cursor.position,
            ..end
        };
        if let Ok(After::Behind) = log.after(place.era, place.position, (1, 1)) {
            let page = log.page(place.era, place.position).await?;
            page.map_err(Break::refusal)?;
        }
        Ok(place)
    }

    /// Waits until the tail has read up to a head, and says where that is.
    async fn reach(&self, log: &Arc<Log>, head: LogHead) -> Result<Place, Refusal> {
        let deadline = Instant::now() + REACH;
        let mut moved = log.watch();
        loop {
            moved.mark_unchanged();
            let (era, reached) = (log.era(), log.reached());
            if reached.epoch == head.epoch && reached.position >= head.position {
                let position = head.position;
                return Ok(Place { era, position });
            }
            self.wake.ring_log(&log.organization);
            if tokio::time::timeout_at(deadline, moved.changed())
                .await
                .is_err()
            {
                return Err(Error::Unavailable(sqlx::Error::PoolTimedOut).into());
            }
        }
    }

    /// Wakes the tails of logs that have moved.
    async fn look(&self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let logs: Vec<Arc<Log>> = self.lock().values().filter_map(Weak::upgrade).collect();
            let names: Vec<_> = logs.iter().map(|log| log.organization.clone()).collect();
            if names.is_empty() {
                continue;
            }
            match self.reader.store.log_heads(&names).await {
                Ok(heads) => {
                    let heads: HashMap<_, _> = heads.into_iter().collect();
                    for log in logs {
                        if heads.get(&log.organization) != Some(&log.reached()) {
                            self.wake.ring_log(&log.organization);
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "the heads of logs were not looked at"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrganizationId, Weak<Log>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn head(log: &Arc<Log>) -> Result<LogHead, Refusal> {
    log.head().await?.ok_or_else(Refusal::internal)
}

impl Reader {
    /// A position is missing: that is a fault, of the database or of ours.
    fn gap(&self, organization: &OrganizationId, after: i64) {
        tracing::error!(%organization, after, "the log has a gap");
        self.metrics.log().gap();
    }
}

impl Break {
    /// How a call is refused for it, and a stream ended.
    fn refusal(self) -> Refusal {
        let (class, message) = match self {
            Self::Expired => {
                let message = "what follows is older than the log's retention: start anew";
                (Class::OutOfRange, message)
            }
            Self::Diverged => {
                let message = "the log was restored to an earlier state: start anew";
                (Class::Precondition, message)
            }
            Self::Gap => return Refusal::internal(),
        };
        Refusal::new(class, self.reason(), message)
    }

    /// As `Reset.reason` has it.
    fn reason(self) -> &'static str {
        match self {
            Self::Expired => "cursor_expired",
            Self::Diverged => "cursor_diverged",
            Self::Gap => "internal",
        }
    }
}
