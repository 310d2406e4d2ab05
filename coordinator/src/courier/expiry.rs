//! Commits that have an end: when each is to be rejected, and having them rejected then. They need
//! not be first in their lanes, nor does it matter whether their source backs off, is paused or
//! disabled: nothing is sent.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::attempt::End;
use super::run::{Courier, PAUSE};
use crate::decide::{InboxEntry, NotStartable};

/// Rejections under way at most.
const AT_ONCE: usize = 64;

/// Commits by the time when something of theirs is over.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    order: BTreeSet<(OffsetDateTime, i64)>,
    ends: HashMap<i64, OffsetDateTime>,
}

impl Expiry {
    /// A commit is over then.
    pub(super) fn set(&mut self, sequence: i64, at: OffsetDateTime) {
        self.forget(sequence);
        self.order.insert((at, sequence));
        self.ends.insert(sequence, at);
    }

    /// Whether a commit is here.
    pub(super) fn contains(&self, sequence: i64) -> bool {
        self.ends.contains_key(&sequence)
    }

    /// A commit has no end any more, or is finished.
    pub(super) fn forget(&mut self, sequence: i64) {
        if let Some(at) = self.ends.remove(&sequence) {
            self.order.remove(&(at, sequence));
        }
    }

    /// Takes out a commit that is over.
    pub(super) fn pop(&mut self, now: OffsetDateTime) -> Option<i64> {
        let (_, sequence) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.forget(sequence);
        Some(sequence)
    }

    /// When the next one is.
    pub(super) fn next(&self) -> Option<OffsetDateTime> {
        self.order.first().map(|(at, _)| *at)
    }
}

impl Courier {
    /// Has commits rejected whose time is over.
    pub(super) fn expire_what_is_over(&mut self, ends: &mpsc::UnboundedSender<(i64, End)>) {
        let now = self.now();
        while self.expiring < AT_ONCE {
            let Some(sequence) = self.window.pop_expired(now) else {
                return;
            };
            self.expiring += 1;
            let expiry = self.attempt(sequence).expire();
            let ends = ends.clone();
            self.tools.tasks.spawn(async move {
                let run = AssertUnwindSafe(expiry).catch_unwind();
                let end = run.await.unwrap_or(End::Expired(None));
                // A courier that is gone has nothing to do with the end: it is durable.
                drop(ends.send((sequence, end)));
            });
        }
    }

    /// When to look for such commits again.
    pub(super) fn next_expiry(&self) -> Option<OffsetDateTime> {
        let next = self.window.next_expiry();
        next.filter(|_| self.expiring < AT_ONCE)
    }

    /// Moves on after such a commit was looked at; none when nobody could.
    pub(super) fn expired(&mut self, sequence: i64, end: Option<NotStartable>) {
        self.expiring -= 1;
        let now = self.now();
        match end {
            Some(NotStartable::Finished) => self.finish(sequence),
            Some(NotStartable::Until(until)) => self.window.expires(sequence, until),
            Some(NotStartable::Disabled | NotStartable::Reread) => {
                self.stale = true;
                self.window.expires(sequence, now);
            }
            None => self.window.expires(sequence, now + PAUSE),
        }
    }

    /// A commit waits for its next attempt: what its last one left behind may put off its end.
    pub(super) fn put_off(&mut self, entry: &InboxEntry) {
        if let Some(at) = entry.ends_at() {
            let at = entry.may_apply_until.map_or(at, |until| until.max(at));
            self.window.expires(entry.sequence, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn commits_end_in_the_order_of_their_times_and_once() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut expiry = Expiry::default();
        for (sequence, seconds) in [(1, 9), (2, 3), (3, 5), (4, 1)] {
            expiry.set(sequence, at(seconds));
        }
        expiry.set(2, at(7));
        expiry.forget(4);
        assert_eq!(expiry.next(), Some(at(5)));
        assert_eq!(expiry.pop(at(4)), None);
        let over: Vec<_> = std::iter::from_fn(|| expiry.pop(at(8))).collect();
        assert_eq!(over, [3, 2]);
        assert_eq!((expiry.pop(at(9)), expiry.pop(at(9))), (Some(1), None));
    }
}
