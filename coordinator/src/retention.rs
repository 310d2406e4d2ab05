//! What must not be kept for ever and has no partitions to drop: once an hour it is deleted, in small
//! batches, by one node at a time. So is what a source left behind that was too much to go with it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Retention;
use crate::store::retention::{Aged, BATCH, prune};
use crate::store::{Error, Store};
use crate::telemetry::metrics::Metrics;

/// The pause between two rounds.
const EVERY: Duration = Duration::from_hours(1);

/// What one round may take; the next one goes on.
const ROUND: Duration = Duration::from_mins(5);

/// How long a node may have been gone before it is forgotten, in days.
const NODE_DAYS: u16 = 1;

/// Deletes what is past its retention, once an hour, for ever.
pub async fn keep(store: Store, retention: Retention, metrics: Metrics) {
    let mut hours = tokio::time::interval(EVERY);
    loop {
        hours.tick().await;
        if let Err(error) = round(&store, retention, &metrics).await {
            tracing::warn!(%error, "what is past its retention was kept until the next hour");
        }
    }
}

/// Deletes what is past its retention, as far as the time of a round allows.
pub async fn round(store: &Store, retention: Retention, metrics: &Metrics) -> Result<(), Error> {
    let end = Instant::now() + ROUND;
    for (aged, days) in spans(retention) {
        let mut deleted = 0;
        loop {
            let batch = prune(store, aged, days).await?;
            deleted += batch;
            if batch < BATCH || Instant::now() > end {
                break;
            }
        }
        if deleted > 0 {
            metrics.pruned(aged.as_str(), deleted);
            tracing::info!(
                rows = deleted,
                "deleted {} past their retention",
                aged.as_str()
            );
        }
    }
    Ok(())
}

fn spans(retention: Retention) -> impl Iterator<Item = (Aged, u16)> {
    let source = retention.source_commit_days;
    [
        Some((Aged::ManagedCommits, retention.managed_commit_days)),
        source.map(|days| (Aged::SourceCommits, days)),
        Some((Aged::FeedEvents, retention.feed_event_days)),
        Some((Aged::QuarantinedEvents, retention.quarantined_event_days)),
        Some((Aged::GoneFeedEvents, retention.feed_event_days)),
        Some((
            Aged::GoneQuarantinedEvents,
            retention.quarantined_event_days,
        )),
        Some((Aged::Actions, retention.action_days)),
        Some((Aged::Nodes, NODE_DAYS)),
    ]
    .into_iter()
    .flatten()
}
