//! Carries wake-ups between nodes, by Postgres' notifications, on connections of their own.
//!
//! They are hints: when they are lost, everyone who waits still looks by itself, a little later.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Wake;
use crate::store::Store;

/// What is told within this time is told together.
const GATHER: Duration = Duration::from_millis(20);

/// A connection that was lost is made again after this long.
const AGAIN: Duration = Duration::from_millis(500);

/// Tells and hears until `stop`, in the name of this node.
pub async fn carry(store: Store, wake: &Wake, stop: CancellationToken) {
    let node = Uuid::new_v4().simple().to_string();
    let both = async { tokio::join!(tell(&store, wake, &node), listen(&store, wake, &node)) };
    stop.run_until_cancelled(both).await;
}

async fn tell(store: &Store, wake: &Wake, node: &str) {
    let mut told = Instant::now();
    let mut failed = false;
    loop {
        wake.news().await;
        tokio::time::sleep_until(told + GATHER).await;
        told = Instant::now();
        let payloads = wake.take_news(node);
        if payloads.is_empty() {
            continue;
        }
        let answer = store.notify(payloads).await;
        if let Err(error) = &answer
            && !failed
        {
            tracing::warn!(%error, cause = ?error, "other nodes were not told; they look by themselves");
        }
        failed = answer.is_err();
    }
}

async fn listen(store: &Store, wake: &Wake, node: &str) {
    loop {
        match store.listener().await {
            Ok(mut listener) => {
                // Something may have been told before we listened.
                wake.ring_all();
                loop {
                    match listener.try_recv().await {
                        Ok(Some(telling)) => wake.hear(telling.payload(), node),
                        // The connection was lost, and made again: so may tellings have been.
                        Ok(None) => wake.ring_all(),
                        Err(error) => {
                            tracing::warn!(%error, "other nodes are not heard");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "other nodes are not heard"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
