//! One subscriber: where it stands, what it is sent next.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use proto::v1;
use proto::v1::subscribe_response::Frame;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::entry::{Entry, frame};
use super::pages::Page;
use super::ring::After;
use super::slot::{Frames, Resume};
use super::snapshot::{Scan, ScanPage};
use super::tail::Log;
use super::{Break, Permit, Place, Reader};
use crate::admit::Filter;
use crate::broken::{self, Control};
use crate::refusal::Refusal;

/// Changes that are taken up at a time, and their bytes: what a caller who does not read holds.
const TAKEN: (usize, usize) = (64, 1 << 20);

/// How long a stream may be silent.
const BEAT: Duration = Duration::from_secs(4);

/// Before anything that could be resumed from was sent.
const NOWHERE: i64 = -1;

/// What a stream is made from.
pub(super) struct Subscriber {
    log: Arc<Log>,
    reader: Arc<Reader>,
    filter: Filter,
    place: Place,
    /// What is left of the snapshot; away while a page of it is read.
    scan: Option<Box<Scan>>,
    /// A read that is under way, heartbeats or not.
    reading: Option<BoxFuture<'static, Result<Read, Refusal>>>,
    /// Where the snapshot is complete, once its rows are sent.
    complete_at: Option<i64>,
    ready: VecDeque<(i64, Bytes)>,
    /// Everything up to here was sent.
    sent: Arc<AtomicI64>,
    moved: watch::Receiver<()>,
    /// When the next heartbeat is due, if nothing is sent before.
    beat: Instant,
    /// Fires at a heartbeat or before: it is set anew when it fires, not whenever something is sent.
    timer: Pin<Box<Sleep>>,
    ending: Option<Refusal>,
    _permit: Permit,
}

/// What was read.
enum Read {
    Page(Result<Arc<Page>, Break>),
    Rows(Box<Scan>, Result<ScanPage, Break>),
}

impl Subscriber {
    /// A subscriber that stands at a place, perhaps with rows to be scanned first.
    pub(super) fn new(
        log: Arc<Log>,
        place: Place,
        (filter, scan): (Filter, Option<Scan>),
        reader: Arc<Reader>,
        permit: Permit,
    ) -> Self {
        let sent = if scan.is_some() {
            NOWHERE
        } else {
            place.position
        };
        Self {
            moved: log.watch(),
            log,
            reader,
            filter,
            place,
            scan: scan.map(Box::new),
            reading: None,
            complete_at: None,
            ready: VecDeque::new(),
            sent: Arc::new(AtomicI64::new(sent)),
            // The first frame says where the stream begins.
            beat: Instant::now(),
            timer: Box::pin(tokio::time::sleep(BEAT)),
            ending: None,
            _permit: permit,
        }
    }

    /// What tells where to resume; nothing while a snapshot is under way.
    pub(super) fn resume(&self) -> Resume {
        let (log, sent, era) = (
            Arc::clone(&self.log),
            Arc::clone(&self.sent),
            self.place.era,
        );
        Box::new(move || match sent.load(Ordering::Relaxed) {
            NOWHERE => String::new(),
            position => log.cursor(era, position),
        })
    }

    /// The stream.
    pub(super) fn frames(self) -> Frames {
        let frames = futures_util::stream::unfold(Some(self), |subscriber| async {
            let mut subscriber = subscriber?;
            match subscriber.next().await {
                Ok(frame) => Some((Ok(frame), Some(subscriber))),
                Err(refusal) => Some((Err(refusal), None)),
            }
        });
        frames.boxed()
    }

    async fn next(&mut self) -> Result<Bytes, Refusal> {
        loop {
            if let Some((position, frame)) = self.ready.pop_front() {
                self.sent.store(position, Ordering::Relaxed);
                self.beat = Instant::now() + BEAT;
                return Ok(frame);
            }
            if let Some(refusal) = self.ending.take() {
                return Err(refusal);
            }
            if self.sent.load(Ordering::Relaxed) != NOWHERE {
                // What the filter did not let through was dealt with, too.
                self.sent.store(self.place.position, Ordering::Relaxed);
            }
            if Instant::now() >= self.beat {
                self.heartbeat();
                continue;
            }
            // Whoever looks through much that it is not sent lets others go on meanwhile.
            tokio::task::coop::consume_budget().await;
            if let Err(broken) = self.step().await? {
                self.reset(broken);
            }
        }
    }

    /// Finds something to send, or waits for it, or for the next heartbeat.
    async fn step(&mut self) -> Result<Result<(), Break>, Refusal> {
        if self.timer.is_elapsed() {
            self.timer.as_mut().reset(self.beat);
        }
        if let Some(reading) = &mut self.reading {
            let read = tokio::select! {
                read = reading => read,
                () = &mut self.timer => return Ok(Ok(())),
            };
            self.reading = None;
            return Ok(self.took(read?));
        }
        if let Some(scan) = self.scan.take() {
            self.reading = Some(self.rows(scan));
            return Ok(Ok(()));
        }
        self.moved.mark_unchanged();
        let Place { era, position } = self.place;
        let after = match self.log.after(era, position, TAKEN) {
            Ok(after) => after,
            Err(broken) => return Ok(Err(broken)),
        };
        match after {
            After::Entries(entries) => self.take(&entries),
            After::Nothing => {
                tokio::select! {
                    // The sender lives as long as the log.
                    _ = self.moved.changed() => {}
                    () = &mut self.timer => {}
                }
            }
            After::Behind => {
                let log = Arc::clone(&self.log);
                let page = async move { Ok(Read::Page(log.page(era, position).await?)) };
                self.reading = Some(page.boxed());
            }
        }
        Ok(Ok(()))
    }

    /// Reads the next rows of the snapshot.
    fn rows(&self, mut scan: Box<Scan>) -> BoxFuture<'static, Result<Read, Refusal>> {
        let (reader, log) = (Arc::clone(&self.reader), Arc::clone(&self.log));
        let filter = self.filter.clone();
        let rows = async move {
            let page = scan.page(&reader, &log, &filter).await?;
            Ok(Read::Rows(scan, page))
        };
        rows.boxed()
    }

    /// Makes frames of what was read.
    fn took(&mut self, read: Read) -> Result<(), Break> {
        match read {
            Read::Page(page) => self.take(&page?.entries),
            Read::Rows(scan, page) => {
                let page = page?;
                let rows = page.frames.into_iter().map(|row| (NOWHERE, row));
                self.ready.extend(rows);
                match page.finished {
                    None => self.scan = Some(scan),
                    Some((began, complete_at)) => {
                        self.place.position = began;
                        self.complete_at = Some(complete_at);
                        self.complete();
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, entries: &[Arc<Entry>]) {
        let mut entries = entries;
        if broken::is(Control::SkipUnseen)
            && let [unseen, rest @ ..] = entries
            && !rest.is_empty()
        {
            (self.place.position, entries) = (unseen.sync_id, rest);
        }
        for entry in entries {
            assert_eq!(
                entry.sync_id,
                self.place.position + 1,
                "positions follow each other"
            );
            self.place.position = entry.sync_id;
            if let Some(frame) = entry.seen_by(&self.filter) {
                self.ready.push_back((entry.sync_id, frame.clone()));
            }
            self.complete();
        }
    }

    /// Says that the snapshot is complete when it is.
    fn complete(&mut self) {
        let Place { era, position } = self.place;
        if self.complete_at != Some(position) {
            return;
        }
        self.complete_at = None;
        let end = v1::SnapshotEnd {
            sync_id: position,
            cursor: self.log.cursor(era, position),
        };
        self.ready
            .push_back((position, frame(Frame::SnapshotEnd(end))));
    }

    fn heartbeat(&mut self) {
        let sent = self.sent.load(Ordering::Relaxed);
        let heartbeat = if sent == NOWHERE {
            v1::Heartbeat::default()
        } else {
            v1::Heartbeat {
                caught_up_to: sent,
                cursor: self.log.cursor(self.place.era, sent),
            }
        };
        self.ready
            .push_back((sent, frame(Frame::Heartbeat(heartbeat))));
    }

    fn reset(&mut self, broken: Break) {
        let sent = self.sent.load(Ordering::Relaxed);
        if broken != Break::Gap {
            let reset = v1::Reset {
                reason: broken.reason().to_owned(),
            };
            self.ready.push_back((sent, frame(Frame::Reset(reset))));
        }
        self.ending = Some(broken.refusal());
    }
}
