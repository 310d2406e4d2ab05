//! How long a batch insists when the database is away. The only user of the
//! `backoff` crate, which has no maintainer any more: to swap it, change this file.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

use crate::store::Error;

/// A batch insists for this long; then its callers are told.
const INSIST: Duration = Duration::from_secs(4);

/// The pauses of one batch.
#[derive(Debug)]
pub(super) struct Pace {
    pauses: ExponentialBackoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pauses: ExponentialBackoff {
                initial_interval: Duration::from_millis(20),
                current_interval: Duration::from_millis(20),
                max_interval: Duration::from_millis(500),
                max_elapsed_time: Some(INSIST),
                ..ExponentialBackoff::default()
            },
        }
    }
}

impl Pace {
    /// Waits before the batch is tried again, or gives the error back when it insisted long enough.
    pub(super) async fn wait_or(&mut self, error: Error) -> Result<(), Error> {
        let Some(pause) = self.pauses.next_backoff() else {
            return Err(error);
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
