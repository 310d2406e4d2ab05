//! Taking in pushed events.

use backends::data_source::wire::Unreadable;
use backends::json;

use super::take::{Batch, Raw};
use super::{FeedReader, Trouble};
use crate::decide::Step;

/// Pushed events taken in at a time: so many, and so many bytes.
const BATCH: (i64, i64) = (500, 4 << 20);

impl FeedReader {
    /// Takes in the first pushed events that wait.
    pub(super) async fn drain(&mut self) -> Result<(), Trouble> {
        let store = &self.tools.store;
        let waiting = store.pushed_batch(&self.organization, &self.source, BATCH);
        let waiting = waiting.await?;
        let Some(oldest) = waiting.iter().map(|one| one.received_at).min() else {
            self.waits.pushed = false;
            return Ok(());
        };
        let lag = self.look.as_ref().map(|look| look.lag).unwrap_or_default();
        let floor = self.history.floor(oldest - lag);
        let events = waiting.into_iter().map(|one| Raw {
            // What was written was checked; a text that reads otherwise is quarantined as it is.
            told: json::parse_stored(&one.event)
                .map_err(|error| Unreadable::new(one.event.as_bytes(), &error)),
            pushed: Some(one.position),
        });
        let batch = Batch {
            events: events.collect(),
            behind: false,
            floor,
            step: Step::Stay,
            caught_up: false,
        };
        self.take(batch).await.map(drop)
    }
}
