//! What the command says, and what it came to.

use std::collections::BTreeSet;

use backends::json::extent;
use backends::operation::{Change, RowKey};
use time::OffsetDateTime;

use crate::decide::state::Feed;
use crate::domain::FeedState;
use crate::feed::trail::Trail;

/// Changes made outside, to be taken in.
#[derive(Clone, Debug)]
pub struct TakeEvents {
    /// The source.
    pub source: String,
    /// The epoch that the asking node owns it under.
    pub epoch: i64,
    /// The schema that the events were checked under; 0 when there is none.
    pub schema_version: i32,
    /// In the order of the feed.
    pub events: Vec<ExternalEvent>,
    /// Rows that could not be loaded, so that their events are taken at their word: they are read again
    /// later.
    pub unread: BTreeSet<RowKey>,
    /// They were read again from behind the newest cursor.
    pub behind: bool,
    /// A row whose last change is at a position beyond this one may have been changed by us after the
    /// event: it must be loaded.
    pub floor: i64,
    /// What becomes of the feed, once all events are taken in.
    pub step: Step,
    /// The page ended the feed.
    pub caught_up: bool,
}

impl TakeEvents {
    /// About how many bytes it adds to a batch.
    pub(in crate::decide) fn weight(&self) -> usize {
        let told = |event: &ExternalEvent| match &event.change {
            Ok(change) => change.row.as_ref().map_or(0, |row| extent(row.value())),
            Err(misfit) => misfit.event.len(),
        };
        self.events.iter().map(|event| 256 + told(event)).sum()
    }
}

/// What becomes of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// The newest cursor moves, unless somebody moved it meanwhile.
    Newest {
        /// From here.
        from: Option<String>,
        /// To here; absent when the page brought no cursor.
        to: Option<String>,
    },
    /// The durable cursor moves to one of the trail, unless somebody moved it meanwhile.
    Durable {
        /// From here.
        from: Option<String>,
        /// To here.
        to: String,
    },
    /// It is not polled any more.
    Stop(FeedState),
    /// Nothing; these rows were read again, by their positions.
    Reread(Vec<i64>),
}

impl Step {
    /// Whether this step leads from the one trail to the other: nobody reset the feed in between, nor
    /// between the request for what is taken in and the first of them.
    pub fn leads(&self, before: &Trail, after: &Trail) -> bool {
        let (stands, newest, durable) = match self {
            Self::Newest { from, to } => (from.as_deref() == before.newest(), to.as_deref(), None),
            Self::Durable { from, to } => {
                (from.as_deref() == before.durable(), None, Some(to.as_str()))
            }
            Self::Stay | Self::Stop(_) | Self::Reread(_) => (true, None, None),
        };
        let moved = |from: Option<&str>, to: Option<&str>, step: Option<&str>| {
            to == from || step.is_some() && to == step
        };
        stands
            && moved(before.newest(), after.newest(), newest)
            && moved(before.durable(), after.durable(), durable)
    }
}

/// An event, checked against the schema.
#[derive(Clone, Debug)]
pub struct ExternalEvent {
    /// The source's name for it; none for a row that is read again.
    pub id: Option<String>,
    /// What changed, or why it cannot be taken in.
    pub change: Result<Change, Misfit>,
    /// The row must be loaded: the event does not say what it became.
    pub bare: bool,
    /// The row was loaded, while no commit was under way to it.
    pub loaded: bool,
    /// The row's lane.
    pub lane: i64,
    /// Commits that it says it came from.
    pub echoes: Vec<EchoOf>,
    /// It is read again because we asked for it again: that is no duplicate.
    pub again: bool,
    /// Position of the row's last change, if that was an event of this feed which came before.
    pub known: Option<i64>,
    /// Its place among the pushed events, if it was pushed.
    pub pushed: Option<i64>,
}

/// A commit that an event names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EchoOf {
    /// The commit, by its caller's name.
    pub client_tx_id: String,
    /// Its place in the inbox.
    pub sequence: Option<i64>,
    /// Whether the event's row is one of its rows, as far as that is known.
    pub member: Option<bool>,
}

/// Why an event cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// A code in snake case.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// The beginning of the event, as it came.
    pub event: String,
}

/// What events came to.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The time of the batch.
    pub now: OffsetDateTime,
    /// Position of the newest delta.
    pub last_sync_id: i64,
    /// The feed as it stands.
    pub feed: Feed,
    /// Events that were not seen before.
    pub new: usize,
    /// Events of which nothing was taken in, by their place: their rows must be loaded first.
    pub unclear: Vec<usize>,
    /// Rows that events changed, and the positions of the changes.
    pub changed: Vec<(RowKey, i64)>,
    /// Commits to be sent again now, by their place in the inbox.
    pub urged: Vec<i64>,
    /// Commits that were rejected and whose effects came all the same.
    pub denied: Vec<String>,
    /// Something was written, and with it that a poll succeeded.
    pub written: bool,
}
