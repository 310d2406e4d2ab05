//! Requests of one source in flight, as its limit counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::shares::Share;

/// How many requests of one source are in flight.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: AtomicUsize,
    /// The courier waits for one to come free.
    wanted: AtomicBool,
    freed: Notify,
}

/// One request in flight, or about to be. Dropping it lets another begin.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    /// Of the node's requests in flight.
    _share: Share,
}

impl Slots {
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    pub(super) fn take(slots: &Arc<Self>, share: Share) -> Slot {
        slots.taken.fetch_add(1, Ordering::AcqRel);
        Slot {
            slots: Arc::clone(slots),
            _share: share,
        }
    }

    /// Whether [`Self::freed`] is to return when one comes free. Say so before looking at
    /// [`Self::taken`].
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Returns when one came free that was wanted.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken.fetch_sub(1, Ordering::SeqCst);
        if self.slots.wanted.load(Ordering::SeqCst) {
            self.slots.freed.notify_one();
        }
    }
}
