//! Rows as the source holds them: where nobody can tell which of two changes came last, or what became
//! of a commit.

use std::collections::{BTreeSet, HashMap};

use backends::data_source::classify::{ReadFault, ReadFaultKind, load_outcome};
use backends::data_source::wire::{self, Row, load_body};
use backends::json::{self, Document};
use backends::operation::{Change, OperationKind, RowKey};
use futures_util::StreamExt;

use super::judge::Judge;
use super::record::failure;
use super::take::{Anew, Terms, row_of};
use super::{FeedReader, Trouble};
use crate::admit::Schema;
use crate::decide::{ExternalEvent, Misfit, Step, lane};
use crate::domain::RequestKind;
use crate::store::source_requests::LastRequests;

/// Loads of rows in flight.
const LOADS: usize = 8;

/// Rows read again at a time.
const REREADS: i64 = 100;

/// Times in a row that rows cannot be loaded, after which events are taken at their word, and their
/// rows read again later.
const LOAD_TRIES: u32 = 3;

impl FeedReader {
    /// The row as the source holds it.
    async fn load(&self, row: &RowKey) -> Result<Result<Option<Row>, ReadFault>, Trouble> {
        let body = load_body(&row.model, &row.id, &self.scope());
        let exchange = self.ask(wire::RequestKind::Load, body).await?;
        let loaded = load_outcome(&exchange, &row.id);
        let last = match &loaded {
            Ok(_) => LastRequests {
                succeeded: true,
                failed: None,
            },
            Err(fault) => failure(
                &fault.class,
                &fault.message,
                exchange.status.map_or(0, i32::from),
            ),
        };
        self.record(RequestKind::Load, last).await?;
        Ok(loaded)
    }

    /// Gives every event of each row what the source holds now: the log may have a later one already,
    /// and what an event says itself would undo that. The rows that could not be loaded, to be read
    /// again later.
    pub(super) async fn load_rows(
        &mut self,
        events: &mut [ExternalEvent],
        schema: Option<&Schema>,
    ) -> Result<BTreeSet<RowKey>, Trouble> {
        let mut unread = BTreeSet::new();
        let mut rows: HashMap<RowKey, Vec<usize>> = HashMap::new();
        for (place, event) in events.iter().enumerate() {
            if let Ok(change) = &event.change {
                rows.entry(row_of(change)).or_default().push(place);
            }
        }
        let reader = &*self;
        let loads = rows.into_iter().map(|(row, places)| async move {
            let loaded = reader.load(&row).await;
            loaded.map(|loaded| (row, places, loaded))
        });
        let loads: Vec<_> = futures_util::stream::iter(loads)
            .buffer_unordered(LOADS)
            .collect()
            .await;
        for load in loads {
            let (row, places, loaded) = load?;
            match loaded {
                Ok(found) => {
                    for place in places {
                        self.supply(&mut events[place], &row, found.clone(), schema);
                    }
                }
                Err(fault)
                    if fault.kind == ReadFaultKind::Unavailable && self.unloaded < LOAD_TRIES =>
                {
                    self.unloaded += 1;
                    return Err(Trouble::Endpoint(None));
                }
                Err(fault) => {
                    let error = &fault.message;
                    tracing::warn!(source.id = self.source, error, "a row was not loaded");
                    let told = places.iter().any(|place| events[*place].id.is_some());
                    if told && fault.kind == ReadFaultKind::Unavailable {
                        unread.insert(row);
                    }
                    for place in places {
                        without_row(&mut events[place]);
                    }
                }
            }
        }
        self.unloaded = 0;
        for event in events {
            event.loaded = true;
            self.tell_unread(event);
        }
        Ok(unread)
    }

    /// Leaves out the rows that were read again and are what the log ends on: of them there is nothing
    /// to tell.
    pub(super) async fn leave_out_told(
        &self,
        events: Vec<ExternalEvent>,
    ) -> Result<Vec<ExternalEvent>, Trouble> {
        let mut left = Vec::with_capacity(events.len());
        for event in events {
            if !self.is_told(&event).await? {
                left.push(event);
            }
        }
        Ok(left)
    }

    async fn is_told(&self, event: &ExternalEvent) -> Result<bool, Trouble> {
        let (None, Ok(change)) = (&event.id, &event.change) else {
            return Ok(false);
        };
        let (store, row) = (&self.tools.store, row_of(change));
        let told = store.row_in_log(&self.organization, &row).await?;
        Ok(told.is_some_and(|told| {
            let told = told.as_deref().map(json::parse_stored);
            let held = change.row.as_ref().map(Document::value);
            told.transpose().is_ok_and(|told| told.as_ref() == held)
        }))
    }

    /// No event of the source's stands for a row that is read again: that it could not be is told here.
    fn tell_unread(&self, event: &ExternalEvent) {
        let (None, Err(misfit)) = (&event.id, &event.change) else {
            return;
        };
        tracing::error!(
            organization = %self.organization,
            source.id = self.source,
            row = misfit.event,
            reason = misfit.reason,
            error = misfit.message,
            "a row could not be read again: the log may not end on what the source holds of it"
        );
        self.tools.metrics.feed_alarm("row_unread");
    }

    /// The event's row is this one now; none when it is gone.
    fn supply(
        &self,
        event: &mut ExternalEvent,
        row: &RowKey,
        found: Option<Row>,
        schema: Option<&Schema>,
    ) {
        let judge = Judge {
            organization: &self.organization,
            source: &self.source,
            schema,
        };
        let Ok(change) = &mut event.change else {
            return;
        };
        let Some(found) = found else {
            (change.kind, change.row) = (OperationKind::Delete, None);
            event.loaded = true;
            return;
        };
        match judge.row(&row.model, &row.id, found) {
            Ok(found) => {
                if change.kind == OperationKind::Delete {
                    change.kind = OperationKind::Update;
                }
                change.row = Some(found);
                event.loaded = true;
            }
            Err((reason, message)) => {
                event.change = Err(Misfit {
                    reason,
                    message: format!("the row, as it was loaded: {message}"),
                    event: format!("{}/{}", row.model, row.id),
                });
            }
        }
    }

    /// Reads rows again of which the log may not end on what the source holds.
    pub(super) async fn reread(&mut self) -> Result<(), Trouble> {
        let store = &self.tools.store;
        let waiting = store.rereads(&self.organization, &self.source, REREADS);
        let (positions, rows): (Vec<i64>, BTreeSet<RowKey>) = waiting.await?.into_iter().unzip();
        if positions.is_empty() {
            self.waits.rereads = false;
            return Ok(());
        }
        let schema = self.tools.schemas.latest(&self.organization).await?;
        let terms = Terms {
            schema_version: schema.as_ref().map_or(0, |schema| schema.version),
            behind: false,
            again: false,
            floor: 0,
            step: Step::Reread(positions),
            caught_up: false,
        };
        let again = rows.into_iter().map(|row| ExternalEvent {
            id: None,
            lane: lane(&self.organization, &row.model, &row.id),
            change: Ok(Change {
                operation: None,
                kind: OperationKind::Update,
                model: row.model,
                id: row.id,
                row: None,
                transaction_id: None,
            }),
            bare: true,
            loaded: false,
            echoes: Vec::new(),
            again: false,
            known: None,
            pushed: None,
        });
        let read = self
            .events(again.collect(), &terms, schema.as_deref())
            .await;
        if let Err(Anew::Schema(version)) = read? {
            let schemas = &self.tools.schemas;
            schemas.refresh(&self.organization, version).await?;
        }
        Ok(())
    }
}

/// An event without the row that it needs cannot be taken in; one that has a row is taken at its word.
fn without_row(event: &mut ExternalEvent) {
    if !event.bare {
        return;
    }
    let row = event.change.as_ref().map(row_of);
    if let Ok(row) = row {
        event.change = Err(Misfit {
            reason: "row_missing".to_owned(),
            message: "the event has no `data`, and the row could not be loaded".to_owned(),
            event: format!("{}/{}", row.model, row.id),
        });
    }
}
