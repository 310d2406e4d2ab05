//! What other nodes should hear of: gathered here, told in a few notifications.
//!
//! A notification is JSON: `{"node": …, "logs": [ORG], "commits": [[ORG, ID]], "sources": [[ORG,
//! ID]]}`. It is a hint. What does not fit is left out: whoever waits looks by itself.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Key, Wake};
use crate::decide::Append;
use crate::domain::OrganizationId;

/// Postgres takes notifications below 8,000 bytes.
const LONGEST: usize = 7_900;

/// Notifications of one telling at most.
const MOST: usize = 64;

/// Names that are gathered at most, while nobody tells them.
const GATHERED: usize = 16_384;

/// What was not told yet.
#[derive(Debug, Default)]
pub(super) struct News {
    gathered: Mutex<Gathered>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Gathered {
    logs: BTreeSet<OrganizationId>,
    commits: BTreeSet<Key>,
    sources: BTreeSet<Key>,
}

/// One notification.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Telling {
    node: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logs: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    commits: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<(String, String)>,
}

impl News {
    /// Gathers what an append brought.
    pub(super) fn gather(
        &self,
        organization: &OrganizationId,
        append: &Append,
        told: &HashSet<String>,
    ) {
        let mut gathered = self.lock();
        if !append.deltas.is_empty() {
            gathered.logs.insert(organization.clone());
        }
        let room = GATHERED.saturating_sub(gathered.commits.len() + gathered.sources.len());
        let key = |name: &String| (organization.clone(), name.clone());
        gathered
            .commits
            .extend(append.settled.keys().take(room).map(key));
        let inbox = append.inbox.iter().map(|entry| &entry.source);
        let inbox = inbox.filter(|source| !told.contains(*source));
        let changed = append.sources.iter().filter(|(_, (_, changed))| *changed);
        let sources = inbox
            .chain(changed.map(|(source, _)| source))
            .chain(&append.sources_removed)
            .chain(append.actions.iter().map(|action| &action.source));
        gathered.sources.extend(sources.take(room).map(key));
        let some = !gathered.is_empty();
        drop(gathered);
        if some {
            self.some.notify_one();
        }
    }

    /// Waits until there is something to tell.
    async fn some(&self) {
        self.some.notified().await;
    }

    /// The notifications that tell it, in the name of a node.
    fn take(&self, node: &str) -> Vec<String> {
        let Gathered {
            logs,
            commits,
            sources,
        } = std::mem::take(&mut *self.lock());
        let mut tellings = Tellings::new(node);
        for organization in logs {
            tellings.add(organization.as_str().len(), |it| {
                it.logs.push(organization.to_string());
            });
        }
        for (organization, name) in commits {
            tellings.add(weight(&organization, &name), |it| {
                it.commits.push((organization.to_string(), name));
            });
        }
        for (organization, name) in sources {
            tellings.add(weight(&organization, &name), |it| {
                it.sources.push((organization.to_string(), name));
            });
        }
        tellings.payloads()
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.logs.is_empty() && self.commits.is_empty() && self.sources.is_empty()
    }
}

/// Notifications being filled.
struct Tellings {
    node: String,
    full: Vec<Telling>,
    open: Telling,
    weight: usize,
}

/// At most what a name takes up in JSON, where each of its bytes may need six.
fn weight(organization: &OrganizationId, name: &str) -> usize {
    organization.as_str().len() + 6 * name.len()
}

impl Telling {
    fn of(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            ..Self::default()
        }
    }
}

impl Tellings {
    fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            full: Vec::new(),
            open: Telling::of(node),
            weight: 0,
        }
    }

    fn add(&mut self, weight: usize, put: impl FnOnce(&mut Telling)) {
        // The frame of the message, then quotes, brackets and commas of the name.
        const FRAME: usize = 100;
        let weight = weight + 8;
        if self.weight + weight > LONGEST - FRAME && self.weight > 0 {
            let next = Telling::of(&self.node);
            self.full.push(std::mem::replace(&mut self.open, next));
            self.weight = 0;
        }
        put(&mut self.open);
        self.weight += weight;
    }

    fn payloads(mut self) -> Vec<String> {
        if self.weight > 0 {
            self.full.push(self.open);
        }
        let texts = self.full.iter().take(MOST);
        texts
            .map(|telling| serde_json::to_string(telling).expect("names are texts"))
            .collect()
    }
}

impl Wake {
    /// Waits until other nodes should hear of something.
    pub async fn news(&self) {
        self.news.some().await;
    }

    /// What they should hear, in the name of this node; nothing of it is said twice.
    pub fn take_news(&self, node: &str) -> Vec<String> {
        self.news.take(node)
    }

    /// Wakes whoever waits for what another node told. What `node` told itself is known.
    pub fn hear(&self, payload: &str, node: &str) {
        let Ok(telling) = serde_json::from_str::<Telling>(payload) else {
            tracing::debug!("a notification was not understood");
            return;
        };
        if telling.node == node {
            return;
        }
        for organization in &telling.logs {
            self.ring_log(&OrganizationId::new(organization));
        }
        for (organization, name) in &telling.commits {
            self.commits.ring(&OrganizationId::new(organization), name);
        }
        for (organization, name) in &telling.sources {
            self.ring_source(&OrganizationId::new(organization), name);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::decide::Append;

    /// An append that made a source's settings known, and nothing else.
    fn removed(source: &str) -> Append {
        Append {
            sources_removed: BTreeSet::from([source.to_owned()]),
            ..Append::default()
        }
    }

    fn appended(wake: &Wake, append: &Append) {
        let written = (OffsetDateTime::UNIX_EPOCH, Uuid::nil());
        wake.appended(
            &OrganizationId::new("acme"),
            append,
            (written, &HashSet::new()),
        );
    }

    #[tokio::test]
    async fn news_wake_other_nodes_once_and_never_the_one_that_tells() {
        let (here, there) = (Wake::default(), Wake::default());
        let organization = OrganizationId::new("acme");
        appended(&here, &removed("crm"));
        appended(&here, &removed("crm"));
        here.news().await;
        let payloads = here.take_news("here");
        assert_eq!(payloads.len(), 1);
        assert!(here.take_news("here").is_empty());
        let mut told = there.source(&organization, "crm");
        let mut own = here.source(&organization, "crm");
        there.hear(&payloads[0], "there");
        here.hear(&payloads[0], "here");
        told.rung().await;
        let never = tokio::time::timeout(std::time::Duration::from_millis(1), own.rung());
        assert!(never.await.is_err());
        there.hear("what?", "there");
    }

    #[test]
    fn many_and_long_names_are_told_in_notifications_that_fit() {
        let wake = Wake::default();
        for number in 0..200 {
            let name = format!("{number}-{}", "\u{1}\"é".repeat(80));
            appended(&wake, &removed(&name));
        }
        let payloads = wake.take_news("here");
        assert!(payloads.len() > 1);
        assert!(payloads.iter().all(|payload| payload.len() < 8_000));
        assert!(payloads.len() <= MOST);
    }

    #[test]
    fn what_nobody_tells_does_not_pile_up() {
        let wake = Wake::default();
        for number in 0..GATHERED + 10 {
            appended(&wake, &removed(&number.to_string()));
        }
        assert_eq!(wake.news.lock().sources.len(), GATHERED);
    }
}
