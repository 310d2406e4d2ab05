//! One organization's log on this node, while somebody follows it: a tail that reads each change
//! once, and the ring that all subscribers share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::cursor::{Cursor, Seal};
use super::entry::Entry;
use super::pages::{Page, Pages};
use super::ring::{After, Ring};
use super::{Break, Reader};
use crate::domain::OrganizationId;
use crate::store::Error;
use crate::store::log::{Growth, LogHead, LogPage, Span};
use crate::wake::Wake;

/// What the tail reads at a time.
const COUNT: i64 = 512;
const BYTES: i64 = 2 << 20;

/// How far the database's clock may step back without making the tail look twice.
const CLOCK_STEP: time::Duration = time::Duration::hours(1);

/// A read that failed is tried again after this long.
const AGAIN: Duration = Duration::from_millis(250);

/// A log that is followed.
#[derive(Debug)]
pub(super) struct Log {
    /// Whose log it is.
    pub(super) organization: OrganizationId,
    reader: Arc<Reader>,
    seal: Seal,
    tail: RwLock<Tail>,
    /// The last position that anybody was shown; the ring may not have got there yet.
    furthest: AtomicI64,
    /// Changes whenever the ring does.
    moved: watch::Sender<()>,
    pages: Pages,
    /// The head as it was last looked up for somebody, and when that look began.
    looked: tokio::sync::Mutex<Option<(Instant, LogHead)>>,
    started: OnceCell<DropGuard>,
}

/// What is known of a log's end.
#[derive(Debug)]
struct Tail {
    /// Counts how often the log was found to be another than it was: positions of different
    /// generations do not compare.
    generation: u64,
    epoch: Uuid,
    ring: Ring,
}

/// A log's state that positions are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era {
    generation: u64,
    /// The log's epoch.
    pub(super) epoch: Uuid,
}

impl Log {
    /// A log that is not read yet.
    pub(super) fn new(organization: OrganizationId, reader: Arc<Reader>) -> Self {
        let tail = Tail {
            generation: 0,
            epoch: Uuid::nil(),
            ring: Ring::at(0),
        };
        Self {
            seal: reader.cursors.seal(&organization),
            organization,
            reader,
            tail: RwLock::new(tail),
            furthest: AtomicI64::new(0),
            moved: watch::Sender::new(()),
            pages: Pages::default(),
            looked: tokio::sync::Mutex::new(None),
            started: OnceCell::new(),
        }
    }

    /// Starts to read, once: from the head on. `false` when there is no such organization.
    pub(super) async fn start(self: &Arc<Self>, wake: &Arc<Wake>) -> Result<bool, Error> {
        let started = self.started.get_or_try_init(|| async {
            let head = self.head().await?.ok_or(None)?;
            {
                let mut tail = self.write();
                tail.epoch = head.epoch;
                tail.ring = Ring::at(head.position);
            }
            let stop = CancellationToken::new();
            let follow = follow(Arc::downgrade(self), Arc::clone(wake), stop.clone());
            self.reader.tasks.spawn(follow);
            Ok(stop.drop_guard())
        });
        match started.await {
            Ok(_) => Ok(true),
            Err(None) => Ok(false),
            Err(Some(error)) => Err(error),
        }
    }

    /// Where the log stands, looked up after this was called; callers at the same time share a look.
    pub(super) async fn head(&self) -> Result<Option<LogHead>, Error> {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some((begun, head)) = *looked
            && begun >= asked
        {
            return Ok(Some(head));
        }
        let begun = Instant::now();
        let own = std::slice::from_ref(&self.organization);
        let heads = self.reader.store.log_heads(own).await?;
        let head = heads.first().map(|(_, head)| *head);
        *looked = head.map(|head| (begun, head));
        Ok(head)
    }

    /// Wakes whenever there may be more.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// What positions are measured by now.
    pub(super) fn era(&self) -> Era {
        let tail = self.read();
        Era {
            generation: tail.generation,
            epoch: tail.epoch,
        }
    }

    /// How far the ring reaches.
    pub(super) fn reached(&self) -> LogHead {
        let tail = self.read();
        LogHead {
            position: tail.ring.end(),
            epoch: tail.epoch,
        }
    }

    /// What the ring has behind a position of an era.
    ///
    /// # Errors
    /// [`Break::Diverged`] when the log has become another since.
    pub(super) fn after(
        &self,
        era: Era,
        position: i64,
        (count, bytes): (usize, usize),
    ) -> Result<After, Break> {
        let tail = self.read();
        if era.generation != tail.generation {
            return Err(Break::Diverged);
        }
        Ok(tail.ring.after(position, count, bytes))
    }

    /// The changes behind a position that the ring does not hold.
    pub(super) async fn page(
        &self,
        era: Era,
        position: i64,
    ) -> Result<Result<Arc<Page>, Break>, Error> {
        let from = (era.epoch, position);
        let page = self
            .pages
            .after(&self.reader, &self.organization, from)
            .await?;
        if let Ok(page) = &page
            && let Some(last) = page.entries.last()
        {
            self.saw(last.sync_id);
        }
        Ok(page)
    }

    /// Notes that somebody read past the ring: a head before that position is another log's.
    pub(super) fn saw(&self, position: i64) {
        self.furthest.fetch_max(position, Ordering::Relaxed);
    }

    /// The text that stands for a position.
    pub(super) fn cursor(&self, era: Era, position: i64) -> String {
        let epoch = era.epoch;
        self.seal.cursor(Cursor { epoch, position })
    }

    /// Reads on; whether there may be more to read at once. What can never be read is passed over:
    /// whoever follows finds out by reading behind the ring, and is told so.
    async fn advance(&self) -> Result<bool, Error> {
        match self.read_on().await {
            Err(error @ (Error::Corrupt { .. } | Error::Refused(_))) => {
                tracing::error!(organization = %self.organization, %error, "the log cannot be read");
                let Some(head) = self.head().await? else {
                    return Err(error);
                };
                self.reader.gap(&self.organization, self.end().0);
                self.begin_anew(head, false);
                Ok(false)
            }
            advanced => advanced,
        }
    }

    async fn read_on(&self) -> Result<bool, Error> {
        let (after, since) = self.end();
        // Before the head is read: what comes later may be further.
        let furthest = self.furthest.load(Ordering::Relaxed).max(after);
        let mut page = self.next_page(after, since).await?;
        let starts = |page: &LogPage| page.changes.first().map(|first| first.sync_id);
        if starts(&page) != Some(after + 1) && page.head.position > after && since.is_some() {
            // Perhaps the clock stepped back, and the next change is in an older partition.
            page = self.next_page(after, None).await?;
        }
        let LogPage { head, changes } = page;
        if head.epoch != self.era().epoch || head.position < furthest {
            tracing::warn!(organization = %self.organization, "the log is another than it was");
            self.begin_anew(head, true);
            return Ok(false);
        }
        let more = i64::try_from(changes.len()).is_ok_and(|count| count > 0) && {
            let last = changes.last().map_or(0, |last| last.sync_id);
            last < head.position
        };
        let missing = changes.is_empty() && head.position > after;
        let mut entries = Vec::with_capacity(changes.len());
        for change in changes {
            entries.push(Arc::new(Entry::new(change, head.epoch, &self.seal)?));
        }
        if missing || !self.push(entries) {
            // Whoever follows finds out by reading behind the ring what is missing, and why.
            self.reader.gap(&self.organization, after);
            self.begin_anew(head, false);
            return Ok(false);
        }
        Ok(more)
    }

    /// Takes in what this node added itself, without reading it back; `false` when it does not follow what
    /// is known of the log, which must then be read.
    fn take_in(&self, growth: &Growth) -> Result<bool, Error> {
        let first = growth.changes.first().map(|first| first.sync_id);
        let follows = growth.epoch == self.era().epoch && first == Some(self.end().0 + 1);
        if !follows {
            return Ok(false);
        }
        let mut entries = Vec::with_capacity(growth.changes.len());
        for change in &growth.changes {
            let entry = Entry::new(change.clone(), growth.epoch, &self.seal)?;
            entries.push(Arc::new(entry));
        }
        Ok(self.push(entries))
    }

    async fn next_page(&self, after: i64, since: Option<OffsetDateTime>) -> Result<LogPage, Error> {
        let span = Span {
            after,
            count: COUNT,
            bytes: BYTES,
            since,
        };
        let page = self.reader.store.log_page(&self.organization, span).await?;
        page.ok_or_else(|| Error::Corrupt {
            table: "heads",
            column: "org_id",
            row: self.organization.to_string(),
        })
    }

    fn end(&self) -> (i64, Option<OffsetDateTime>) {
        let tail = self.read();
        let last = tail.ring.last();
        let since = last.map(|last| last.created_at - CLOCK_STEP);
        (tail.ring.end(), since)
    }

    /// Adds what was read; `false` when it does not follow.
    fn push(&self, entries: Vec<Arc<Entry>>) -> bool {
        if entries.is_empty() {
            return true;
        }
        let mut tail = self.write();
        let follows = entries
            .into_iter()
            .all(|entry| tail.ring.push(entry).is_ok());
        drop(tail);
        self.moved.send_replace(());
        follows
    }

    /// Forgets what was read; with another log in its place, nobody can go on.
    fn begin_anew(&self, head: LogHead, another: bool) {
        let mut tail = self.write();
        tail.generation += u64::from(another);
        self.furthest.store(head.position, Ordering::Relaxed);
        tail.epoch = head.epoch;
        tail.ring = Ring::at(head.position);
        drop(tail);
        self.moved.send_replace(());
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes in what this node appends, and reads on whenever it is woken otherwise, until nobody follows the
/// log any more.
async fn follow(log: Weak<Log>, wake: Arc<Wake>, stop: CancellationToken) {
    let Some(organization) = log.upgrade().map(|log| log.organization.clone()) else {
        return;
    };
    let (mut bell, mut growths) = (wake.log(&organization), wake.growth(&organization));
    let mut growth: Option<Arc<Growth>> = None;
    let mut failed = false;
    loop {
        let Some(followed) = log.upgrade() else {
            return;
        };
        let taken = growth.take().map(|growth| followed.take_in(&growth));
        let advanced = match taken {
            Some(Ok(true)) => Ok(false),
            _ => followed.advance().await,
        };
        drop(followed);
        let pause = match advanced {
            Ok(true) => continue,
            Ok(false) => None,
            Err(error) => {
                if !failed {
                    tracing::warn!(%organization, %error, "the log was not read; trying again");
                }
                Some(AGAIN)
            }
        };
        failed = pause.is_some();
        let paused = async {
            if let Some(pause) = pause {
                return tokio::time::sleep(pause).await;
            }
            tokio::select! {
                () = bell.rung() => {}
                () = growths.rung() => growth = growths.growth(),
            }
        };
        if stop.run_until_cancelled(paused).await.is_none() {
            return;
        }
    }
}
