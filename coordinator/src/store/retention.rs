//! Deletes what is older than it must be kept, a batch at a time.

use sqlx::{AssertSqlSafe, Executor};

use super::{Error, Store, detached};

/// Rows that one statement deletes at most.
pub const BATCH: u64 = 10_000;

/// A batch may have to look for its rows in all of a large table, behind an index that only knows
/// where they can be.
const PATIENCE: &str = "SET LOCAL statement_timeout = '60s'";

/// What grows and is not partitioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aged {
    /// Ledger entries of managed models.
    ManagedCommits,
    /// Ledger entries of Data Sources, settled ones.
    SourceCommits,
    /// Names of events that were taken in.
    FeedEvents,
    /// Events that could not be taken in.
    QuarantinedEvents,
    /// Names of events of sources that are gone, whatever their age.
    GoneFeedEvents,
    /// Events of such sources that could not be taken in.
    GoneQuarantinedEvents,
    /// What operators did.
    Actions,
    /// Leases of nodes that are gone and own nothing.
    Nodes,
}

impl Aged {
    /// What is told of in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ManagedCommits => "managed_commits",
            Self::SourceCommits => "source_commits",
            Self::FeedEvents => "feed_events",
            Self::QuarantinedEvents => "quarantined_events",
            Self::GoneFeedEvents => "gone_feed_events",
            Self::GoneQuarantinedEvents => "gone_quarantined_events",
            Self::Actions => "operator_actions",
            Self::Nodes => "nodes",
        }
    }

    fn statement(self) -> String {
        let statement = match self {
            Self::ManagedCommits => include_str!("sql/prune_managed_commits.sql"),
            Self::SourceCommits => include_str!("sql/prune_source_commits.sql"),
            Self::FeedEvents => include_str!("sql/prune_feed_events.sql"),
            Self::QuarantinedEvents => include_str!("sql/prune_quarantined_events.sql"),
            Self::GoneFeedEvents | Self::GoneQuarantinedEvents => {
                include_str!("sql/prune_gone_events.sql")
            }
            Self::Actions => include_str!("sql/prune_operator_actions.sql"),
            Self::Nodes => include_str!("sql/prune_nodes.sql"),
        };
        let quarantined = self == Self::GoneQuarantinedEvents;
        let events = if quarantined {
            "quarantined_events"
        } else {
            "feed_events"
        };
        statement.replace("{events}", events)
    }
}

/// Deletes at most [`BATCH`] rows that are older than so many days, and says how many; none while
/// another node deletes.
pub async fn prune(store: &Store, aged: Aged, days: u16) -> Result<u64, Error> {
    detached(&store.reads, |pool| async move {
        let mut turn = pool.begin().await?;
        turn.execute(PATIENCE).await?;
        let mine: bool = sqlx::query_scalar(include_str!("sql/prune_turn.sql"))
            .fetch_one(&mut *turn)
            .await?;
        if !mine {
            return Ok(0);
        }
        let done = sqlx::query(AssertSqlSafe(aged.statement()))
            .bind(i32::from(days))
            .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
            .execute(&mut *turn)
            .await?;
        turn.commit().await?;
        Ok(done.rows_affected())
    })
    .await
}
