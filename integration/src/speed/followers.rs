//! Many subscribers, each on a connection of its own, and how long it takes until the last of them
//! has seen a commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use proto::v1;
use proto::v1::log_client::LogClient;
use proto::v1::subscribe_response::Frame;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::load::{Sample, open};
use super::wire::Calls;
use super::workload::Workload;

/// Who connects at the same moment.
const AT_ONCE: usize = 32;

/// Subscribers to everything that an organization changes. Dropping them ends their streams.
#[derive(Debug)]
pub(super) struct Followers {
    count: usize,
    awaited: Awaited,
    _streams: JoinSet<()>,
}

/// Commits that somebody has yet to see: how many, and whom to tell.
type Unseen = HashMap<String, (usize, oneshot::Sender<()>)>;

#[derive(Clone, Debug, Default)]
struct Awaited(Arc<Mutex<Unseen>>);

impl Followers {
    /// Subscribes so many times, with each of the keys in turn; each stream has begun.
    pub(super) async fn open(address: &str, keys: &[&str], count: usize) -> anyhow::Result<Self> {
        let awaited = Awaited::default();
        let mut streams = JoinSet::new();
        let mut numbers = (0..count).peekable();
        while numbers.peek().is_some() {
            let subscribing = numbers.by_ref().take(AT_ONCE);
            let subscribing = subscribing.map(|at| subscribe(address, keys[at % keys.len()]));
            for stream in futures_util::future::try_join_all(subscribing).await? {
                streams.spawn(follow(stream, awaited.clone()));
            }
        }
        Ok(Self {
            count,
            awaited,
            _streams: streams,
        })
    }

    /// So many commits a second; a commit's time ends when the last follower has seen it.
    pub(super) async fn spread(
        &self,
        (calls, key): (&Calls, &str),
        workload: Workload,
        (rate, length): (f64, Duration),
    ) -> anyhow::Result<Sample> {
        let (count, awaited) = (self.count, self.awaited.clone());
        let shared = Arc::new((calls.clone(), key.to_owned(), workload));
        open(rate, length, move |_| {
            let (shared, awaited) = (Arc::clone(&shared), awaited.clone());
            async move {
                let (calls, key, workload) = &*shared;
                let commit = workload.next();
                let (tell, seen) = oneshot::channel();
                let name = commit.client_tx_id.clone();
                awaited.lock().insert(name, (count, tell));
                calls.commit(key, &commit).await?;
                seen.await.context("a subscriber was lost")
            }
        })
        .await
    }
}

async fn subscribe(
    address: &str,
    key: &str,
) -> anyhow::Result<tonic::Streaming<v1::SubscribeResponse>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let mut client = LogClient::<Channel>::new(endpoint.connect().await?);
    let mut request = Request::new(v1::SubscribeRequest::default());
    let bearer = format!("Bearer {key}").parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let mut stream = client.subscribe(request).await?.into_inner();
    stream.message().await?.context("a stream begins")?;
    Ok(stream)
}

async fn follow(mut stream: tonic::Streaming<v1::SubscribeResponse>, awaited: Awaited) {
    while let Ok(Some(message)) = stream.message().await {
        if let Some(Frame::Change(change)) = message.frame {
            awaited.seen(&change.client_tx_id);
        }
    }
    // Whoever waits for this one need not wait any longer.
    awaited.lock().clear();
}

impl Awaited {
    fn seen(&self, name: &str) {
        let mut awaited = self.lock();
        let Some((left, _)) = awaited.get_mut(name) else {
            return;
        };
        *left -= 1;
        if *left == 0
            && let Some((_, tell)) = awaited.remove(name)
        {
            // Whoever measured may have given up.
            let _told = tell.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unseen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speed::broadcast::Broadcast;

    #[tokio::test]
    async fn a_commit_is_over_when_the_last_follower_has_seen_it() {
        let server = Broadcast::start().unwrap();
        let address = server.address();
        let followers = Followers::open(&address, &["key"], 3).await.unwrap();
        let calls = Calls::connect(&address, 8).await.unwrap();
        let workload = Workload::new("notes", 0, 1);
        let pace = (50.0, Duration::from_millis(300));
        let sample = followers
            .spread((&calls, "key"), workload, pace)
            .await
            .unwrap();
        assert!(sample.total > 0, "{sample:?}");
        assert!(followers.awaited.lock().is_empty());
    }
}
