//! Carries wake-ups between nodes, by Postgres' notifications, on connections of their own.
//!
//! They are hints: when they are lost, everyone who waits still looks by itself, a little later.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Wake;
use crate::store::Store;

/// What is told within this time is told together.
const GATHER: Duration = Duration::from_millis(20);

/// Where nothing was heard for so long, it is looked whether anybody is there: a connection that
/// vanished without a word says nothing either.
const QUIET: Duration = Duration::from_secs(5);

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
                let error = loop {
                    match timeout(QUIET, listener.heard()).await {
                        Ok(Ok(Some(telling))) => wake.hear(&telling, node),
                        // The connection was lost, and made again: so may tellings have been.
                        Ok(Ok(None)) => wake.ring_all(),
                        Ok(Err(error)) => break error,
                        Err(_quiet) => {
                            if let Err(error) = listener.sign_of_life().await {
                                break error;
                            }
                        }
                    }
                };
                tracing::warn!(%error, "other nodes are not heard");
            }
            Err(error) => tracing::warn!(%error, "other nodes are not heard"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
