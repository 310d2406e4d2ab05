//! What the API can ask of the coordinator, behind authentication and in front of the rooms.

mod commit;
mod control;
mod operate;

use std::sync::Arc;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::courier::Couriers;
use crate::flush::Flushers;
use crate::schemas::SchemaCache;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::wake::Wake;

pub use operate::OperatorCall;

/// One version of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// 1, 2, 3 …
    pub version: i32,
    /// Canonical JSON.
    pub document: String,
    /// When it was pushed.
    pub created_at: OffsetDateTime,
    /// Whether commits are checked against it now.
    pub active: bool,
}

/// The coordinator's rooms, put together.
#[derive(Clone, Debug)]
pub struct Service {
    /// The database.
    pub store: Store,
    /// Decides and appends.
    pub flushers: Flushers,
    /// Compiled schemas.
    pub schemas: Arc<SchemaCache>,
    /// Delivers.
    pub couriers: Couriers,
    /// Says when a commit is settled.
    pub wake: Arc<Wake>,
    /// Counts.
    pub metrics: Metrics,
    /// Cancelled when the node drains: who waits for a commit gets its durable receipt.
    pub draining: CancellationToken,
}
