//! Wakes those who wait for something that an append brought: hints, never facts. Whoever is woken
//! looks in the database, and looks now and then without being woken.

mod news;
pub mod signals;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::decide::Append;
use crate::domain::OrganizationId;
use news::News;

/// Who waits on this node, and for what.
#[derive(Debug, Default)]
pub struct Wake {
    commits: Waiting,
    sources: Waiting,
    feeds: Waiting,
    logs: Waiting,
    news: News,
}

impl Wake {
    /// Waits for a commit to be settled. Listen first, then look.
    pub fn commit(&self, organization: &OrganizationId, client_tx_id: &str) -> Waiter<'_> {
        self.commits.join(organization, client_tx_id)
    }

    /// Waits for a source's inbox or settings to change.
    pub fn source(&self, organization: &OrganizationId, source: &str) -> Waiter<'_> {
        self.sources.join(organization, source)
    }

    /// Wakes whoever waits for a source.
    pub fn ring_source(&self, organization: &OrganizationId, source: &str) {
        self.sources.ring(organization, source);
    }

    /// Waits for something to do for the reader of a source's feed: settings that changed, pushed
    /// events.
    pub fn feed(&self, organization: &OrganizationId, source: &str) -> Waiter<'_> {
        self.feeds.join(organization, source)
    }

    /// Wakes the reader of a source's feed.
    pub fn ring_feed(&self, organization: &OrganizationId, source: &str) {
        self.feeds.ring(organization, source);
    }

    /// Waits for an organization's log to grow.
    pub fn log(&self, organization: &OrganizationId) -> Waiter<'_> {
        self.logs.join(organization, "")
    }

    /// Wakes whoever follows a log.
    pub fn ring_log(&self, organization: &OrganizationId) {
        self.logs.ring(organization, "");
    }

    /// Wakes everybody: nobody knows what they missed.
    pub fn ring_all(&self) {
        for waiting in [&self.commits, &self.sources, &self.feeds, &self.logs] {
            for bell in waiting.bells().values() {
                bell.send_replace(());
            }
        }
    }

    /// Wakes whoever waits for what this append brought, and lets other nodes hear of it.
    pub fn appended(&self, organization: &OrganizationId, append: &Append) {
        if !append.deltas.is_empty() {
            self.ring_log(organization);
        }
        self.news.gather(organization, append);
        for client_tx_id in append.settled.keys() {
            self.commits.ring(organization, client_tx_id);
        }
        let mut rung = None;
        for entry in &append.inbox {
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
#[derive(Debug, Default)]
struct Waiting {
    bells: Mutex<HashMap<Key, watch::Sender<()>>>,
}

impl Waiting {
    fn bells(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<()>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, organization: &OrganizationId, name: &str) -> Waiter<'_> {
        let key = (organization.clone(), name.to_owned());
        let mut bells = self.bells();
        let bell = bells.entry(key.clone()).or_default().subscribe();
        Waiter {
            waiting: self,
            key,
            bell,
        }
    }

    fn ring(&self, organization: &OrganizationId, name: &str) {
        let key = (organization.clone(), name.to_owned());
        let bells = self.bells();
        if let Some(bell) = bells.get(&key) {
            bell.send_replace(());
        }
    }

    fn ring_all(&self, organization: &OrganizationId) {
        let bells = self.bells();
        let theirs = bells.iter().filter(|((whose, _), _)| whose == organization);
        for (_, bell) in theirs {
            bell.send_replace(());
        }
    }
}

/// One who waits. Dropping it takes the bell away when nobody else waits for it.
#[derive(Debug)]
pub struct Waiter<'a> {
    waiting: &'a Waiting,
    key: Key,
    bell: watch::Receiver<()>,
}

impl Waiter<'_> {
    /// Returns when the bell rings, or rang since the last call.
    pub async fn rung(&mut self) {
        if self.bell.changed().await.is_err() {
            // The bell outlives its waiters; without one nobody would ever ring.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter<'_> {
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
