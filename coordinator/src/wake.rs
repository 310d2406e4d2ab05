//! Wakes those who wait for something that an append brought: hints, never facts.
//!
//! Whoever is woken looks in the database, and looks now and then without being woken. Two things are handed
//! over with the ring, since they tell what has just become durable: the receipt of a commit that this node
//! settled, and the changes that it added to a log.

mod news;
pub mod signals;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::decide::Append;
use crate::domain::{CommitState, OrganizationId, Receipt};
use crate::store::log::Growth;
use news::News;

/// Who waits on this node, and for what.
#[derive(Debug, Default)]
pub struct Wake {
    commits: Waiting<Option<Arc<Receipt>>>,
    sources: Waiting<()>,
    feeds: Waiting<()>,
    logs: Waiting<()>,
    growths: Waiting<Option<Arc<Growth>>>,
    news: News,
}

impl Wake {
    /// Waits for a commit to be settled. Listen first, then look.
    pub fn commit(
        &self,
        organization: &OrganizationId,
        client_tx_id: &str,
    ) -> Waiter<'_, Option<Arc<Receipt>>> {
        self.commits.join(organization, client_tx_id)
    }

    /// Waits for a source's inbox or settings to change.
    pub fn source(&self, organization: &OrganizationId, source: &str) -> Waiter<'_, ()> {
        self.sources.join(organization, source)
    }

    /// Wakes whoever waits for a source.
    pub fn ring_source(&self, organization: &OrganizationId, source: &str) {
        self.sources.ring(organization, source);
    }

    /// Waits for something to do for the reader of a source's feed: settings that changed, pushed
    /// events.
    pub fn feed(&self, organization: &OrganizationId, source: &str) -> Waiter<'_, ()> {
        self.feeds.join(organization, source)
    }

    /// Wakes the reader of a source's feed.
    pub fn ring_feed(&self, organization: &OrganizationId, source: &str) {
        self.feeds.ring(organization, source);
    }

    /// Waits for an organization's log to grow.
    pub fn log(&self, organization: &OrganizationId) -> Waiter<'_, ()> {
        self.logs.join(organization, "")
    }

    /// Waits for this node to append to an organization's log.
    pub fn growth(&self, organization: &OrganizationId) -> Waiter<'_, Option<Arc<Growth>>> {
        self.growths.join(organization, "")
    }

    /// Whether somebody waits for this node to append to the log.
    #[cfg(test)]
    pub(crate) fn is_followed(&self, organization: &OrganizationId) -> bool {
        let key = (organization.clone(), String::new());
        self.growths.bells().contains_key(&key)
    }

    /// Wakes whoever follows a log.
    pub fn ring_log(&self, organization: &OrganizationId) {
        self.logs.ring(organization, "");
    }

    /// Wakes everybody: nobody knows what they missed.
    pub fn ring_all(&self) {
        for bell in self.commits.bells().values() {
            ring(bell);
        }
        for waiting in [&self.sources, &self.feeds, &self.logs] {
            waiting.bells().values().for_each(ring);
        }
    }

    /// Wakes whoever waits for what this append brought, and lets other nodes hear of it. The couriers
    /// of the sources in `told` know of new commits already. `written` is the time of the append, and the
    /// epoch of its log.
    pub fn appended(
        &self,
        organization: &OrganizationId,
        append: &Append,
        (written, told): ((OffsetDateTime, Uuid), &HashSet<String>),
    ) {
        if !append.deltas.is_empty() {
            let growth = || Growth::of(append, written).map(Arc::new);
            self.growths.tell(organization, "", growth);
        }
        self.news.gather(organization, append, told);
        for (client_tx_id, entry) in &append.settled {
            let receipt = || {
                let settled = entry.state != CommitState::Queued;
                settled.then(|| Arc::new(append.receipt(entry)))
            };
            self.commits.tell(organization, client_tx_id, receipt);
        }
        let mut rung = None;
        for entry in append.inbox.iter().filter(|it| !told.contains(&it.source)) {
            if rung != Some(&entry.source) {
                self.sources.ring(organization, &entry.source);
                rung = Some(&entry.source);
            }
        }
        for (source, (_, settings_changed)) in &append.sources {
            if *settings_changed {
                self.sources.ring(organization, source);
                self.feeds.ring(organization, source);
            }
        }
        for action in &append.actions {
            self.sources.ring(organization, &action.source);
        }
        for (source, _) in &append.rereads {
            self.feeds.ring(organization, source);
        }
        for source in &append.sources_removed {
            self.sources.ring(organization, source);
            self.feeds.ring(organization, source);
        }
        if append.schema.is_some() {
            self.feeds.ring_all(organization);
        }
    }
}

type Key = (OrganizationId, String);

/// Bells by name; a bell exists while someone waits for it.
#[derive(Debug)]
struct Waiting<T> {
    bells: Mutex<HashMap<Key, watch::Sender<T>>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            bells: Mutex::default(),
        }
    }
}

impl<T> Waiting<T> {
    fn bells(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<T>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings, and says what happened, if anybody listens.
    fn tell(&self, organization: &OrganizationId, name: &str, what: impl FnOnce() -> T) {
        let key = (organization.clone(), name.to_owned());
        if let Some(bell) = self.bells().get(&key) {
            bell.send_replace(what());
        }
    }

    fn ring(&self, organization: &OrganizationId, name: &str) {
        let key = (organization.clone(), name.to_owned());
        if let Some(bell) = self.bells().get(&key) {
            ring(bell);
        }
    }

    fn ring_all(&self, organization: &OrganizationId) {
        let bells = self.bells();
        let theirs = bells.iter().filter(|((whose, _), _)| whose == organization);
        theirs.for_each(|(_, bell)| ring(bell));
    }
}

impl<T: Default> Waiting<T> {
    fn join(&self, organization: &OrganizationId, name: &str) -> Waiter<'_, T> {
        let key = (organization.clone(), name.to_owned());
        let mut bells = self.bells();
        let bell = bells.entry(key.clone()).or_default().subscribe();
        Waiter {
            waiting: self,
            key,
            bell,
        }
    }
}

/// Wakes who waits; what was said to them stays said.
fn ring<T>(bell: &watch::Sender<T>) {
    bell.send_modify(|_| {});
}

/// One who waits. Dropping it takes the bell away when nobody else waits for it.
#[derive(Debug)]
pub struct Waiter<'a, T> {
    waiting: &'a Waiting<T>,
    key: Key,
    bell: watch::Receiver<T>,
}

impl Waiter<'_, Option<Arc<Receipt>>> {
    /// The receipt, if the commit was settled on this node since.
    pub fn receipt(&self) -> Option<Receipt> {
        self.bell.borrow().as_deref().cloned()
    }
}

impl Waiter<'_, Option<Arc<Growth>>> {
    /// What this node's last append added; `None` when it must be read.
    pub fn growth(&self) -> Option<Arc<Growth>> {
        self.bell.borrow().clone()
    }
}

impl<T> Waiter<'_, T> {
    /// Returns when the bell rings, or rang since the last call.
    pub async fn rung(&mut self) {
        if self.bell.changed().await.is_err() {
            // The bell outlives its waiters; without one nobody would ever ring.
            std::future::pending::<()>().await;
        }
    }
}

impl<T> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let mut bells = self.waiting.bells();
        if bells
            .get(&self.key)
            .is_some_and(|bell| bell.receiver_count() <= 1)
        {
            bells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_woken_also_for_a_ring_that_came_first() {
        let wake = Wake::default();
        let organization = OrganizationId::new("acme");
        let mut first = wake.source(&organization, "crm");
        let mut second = wake.source(&organization, "crm");
        wake.ring_source(&organization, "crm");
        first.rung().await;
        second.rung().await;
    }

    #[tokio::test]
    async fn nothing_is_kept_for_those_who_left() {
        let wake = Wake::default();
        let organization = OrganizationId::new("acme");
        drop(wake.commit(&organization, "a"));
        assert!(wake.commits.bells().is_empty());
    }
}
