//! What a reader leaves on the record of its requests.

use std::time::Duration;

use tokio::time::Instant;

use super::{FeedReader, Trouble};
use crate::domain::RequestKind;
use crate::store::source_requests::{self, FailedRequest, LastRequests};

/// What polls came to is written so often at most while it is the same.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// What is on record of the feed's requests.
#[derive(Debug, Default)]
pub(super) struct Noted {
    at: Option<Instant>,
    /// The class of the error, if the last one failed.
    class: Option<String>,
}

impl Noted {
    /// Whether this outcome has to be written.
    fn is_due(&self, class: Option<&str>) -> bool {
        self.class.as_deref() != class || self.at.is_none_or(|at| at.elapsed() >= NOTE_EVERY)
    }

    /// Whether the last poll on record did not fail with this class.
    pub(super) fn failed_otherwise(&self, class: &str) -> bool {
        self.class.as_deref() != Some(class)
    }

    /// It was written.
    pub(super) fn wrote(&mut self, class: Option<&str>) {
        self.at = Some(Instant::now());
        self.class = class.map(str::to_owned);
    }
}

impl FeedReader {
    /// A poll succeeded; whether it ended the feed.
    pub(super) async fn note_success(&mut self, ended: bool) -> Result<(), Trouble> {
        if !self.noted.is_due(None) {
            return Ok(());
        }
        let noted = self
            .tools
            .store
            .note_poll(&self.organization, &self.source, ended);
        let (now, last_sync_id) = noted.await?;
        self.observe(now, last_sync_id);
        self.noted.wrote(None);
        Ok(())
    }

    /// A poll failed.
    pub(super) async fn note_failure(&mut self, class: &str, message: &str, status: i32) {
        if !self.noted.is_due(Some(class)) {
            return;
        }
        let failed = failure(class, message, status);
        if self.record(RequestKind::Events, failed).await.is_ok() {
            self.noted.wrote(Some(class));
        }
    }

    /// Puts it on the record.
    pub(super) async fn record(
        &self,
        kind: RequestKind,
        last: LastRequests,
    ) -> Result<(), Trouble> {
        let (organization, source) = (self.organization.clone(), self.source.clone());
        let store = &self.tools.store;
        Ok(source_requests::record(store, organization, source, kind, last).await?)
    }
}

/// A request that failed.
pub(super) fn failure(class: &str, message: &str, http_status: i32) -> LastRequests {
    LastRequests {
        succeeded: false,
        failed: Some(FailedRequest {
            class: class.to_owned(),
            message: message.to_owned(),
            http_status,
        }),
    }
}
