//! A subscriber, as a customer would write one.

use std::time::Duration;

use proto::v1;
use proto::v1::subscribe_response::Frame;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{PATIENCE, Tenant};

/// A stream, and what the last frame said of where it stands.
#[derive(Debug)]
pub struct Follower {
    stream: Streaming<v1::SubscribeResponse>,
    cursor: String,
    position: i64,
}

impl Follower {
    /// Subscribes; the first frame, which says where the stream begins, is taken already.
    pub async fn start(tenant: &Tenant, request: v1::SubscribeRequest) -> Result<Self, Status> {
        let stream = tenant.log().subscribe(request).await?.into_inner();
        let mut follower = Self {
            stream,
            cursor: String::new(),
            position: 0,
        };
        follower.frame().await?;
        Ok(follower)
    }

    /// Subscribes to everything from now on.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn from_now(tenant: &Tenant) -> Self {
        let request = v1::SubscribeRequest::default();
        Self::start(tenant, request).await.expect("a subscription")
    }

    /// Resumes from a cursor.
    pub async fn resume(tenant: &Tenant, cursor: &str) -> Result<Self, Status> {
        Self::start(tenant, from_cursor(cursor)).await
    }

    /// What resumes behind the last frame.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Everything up to here was sent, or was not asked for.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The next frame, whatever it is.
    ///
    /// # Errors
    /// How the stream ended.
    ///
    /// # Panics
    /// When nothing comes for long, or the stream ends without a status.
    pub async fn frame(&mut self) -> Result<Frame, Status> {
        let message = timeout(PATIENCE, self.stream.message())
            .await
            .expect("a heartbeat comes within seconds")?;
        let frame = message.and_then(|message| message.frame);
        let frame = frame.expect("a stream ends with a status");
        let stands = match &frame {
            Frame::Change(it) => Some((&it.cursor, it.sync_id)),
            Frame::Heartbeat(it) => Some((&it.cursor, it.caught_up_to)),
            Frame::SnapshotEnd(it) => Some((&it.cursor, it.sync_id)),
            Frame::SnapshotRow(_) | Frame::Reset(_) => None,
        };
        if let Some((cursor, position)) = stands {
            self.cursor.clone_from(cursor);
            self.position = position;
        }
        Ok(frame)
    }

    /// The next change.
    ///
    /// # Errors
    /// How the stream ended.
    pub async fn try_change(&mut self) -> Result<v1::Change, Status> {
        loop {
            if let Frame::Change(change) = self.frame().await? {
                return Ok(change);
            }
        }
    }

    /// The next change.
    ///
    /// # Panics
    /// When the stream ends, or no change comes for long.
    pub async fn change(&mut self) -> v1::Change {
        let change = timeout(PATIENCE, self.try_change()).await;
        change.expect("a change comes").expect("the stream goes on")
    }

    /// So many changes.
    ///
    /// # Panics
    /// As [`Self::change`].
    pub async fn changes(&mut self, count: usize) -> Vec<v1::Change> {
        let mut changes = Vec::with_capacity(count);
        while changes.len() < count {
            changes.push(self.change().await);
        }
        changes
    }

    /// How the stream ends.
    ///
    /// # Panics
    /// When it does not, within this time.
    pub async fn end(&mut self, within: Duration) -> Status {
        let end = async {
            loop {
                if let Err(status) = self.frame().await {
                    return status;
                }
            }
        };
        timeout(within, end).await.expect("the stream ends")
    }
}

/// A request that resumes behind a cursor.
pub fn from_cursor(cursor: &str) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        start: Some(v1::subscribe_request::Start::Cursor(cursor.to_owned())),
        ..v1::SubscribeRequest::default()
    }
}

/// A request for the oldest change that is kept, and all that follow.
pub fn from_oldest() -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        start: Some(v1::subscribe_request::Start::Oldest(true)),
        ..v1::SubscribeRequest::default()
    }
}

/// A request for the rows as they stand, and all that follows.
pub fn from_snapshot() -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        start: Some(v1::subscribe_request::Start::Snapshot(true)),
        ..v1::SubscribeRequest::default()
    }
}
