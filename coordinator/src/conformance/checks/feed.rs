//! What the feed tells.

use std::collections::HashSet;

use backends::data_source::wire::Event;

use super::super::finding::{Finding, ensure, wrong};
use super::super::probe::Probe;

/// A page, as the coordinator asks for it.
const PAGE: u32 = 100;

/// How far a feed is read to find its end.
const MOST_PAGES: usize = 10_000;

pub(super) async fn own_writes(probe: &Probe) -> Result<(), Finding> {
    let cursor = tail(probe).await?;
    let id = probe.new_id();
    let commit = probe.commit(vec![probe.create(&id)]);
    probe.apply(&commit).await?;
    let event = one_event(probe, cursor.as_deref(), &id).await?;
    ensure(names(&event, &commit.client_tx_id), || {
        format!(
            "the event has clientTxId {:?} and correlationId {:?}, not {:?}",
            event.client_tx_id, event.correlation_id, commit.client_tx_id
        )
    })
}

pub(super) async fn stable_ids(probe: &Probe) -> Result<(), Finding> {
    let cursor = tail(probe).await?;
    let id = probe.created().await?;
    let first = one_event(probe, cursor.as_deref(), &id).await?;
    let again = one_event(probe, cursor.as_deref(), &id).await?;
    ensure(first.id == again.id, || {
        format!("first {:?}, then {:?}", first.id, again.id)
    })
}

pub(super) async fn pages(probe: &Probe) -> Result<(), Finding> {
    let mut cursor = tail(probe).await?;
    let ids = [probe.new_id(), probe.new_id(), probe.new_id()];
    let creates = ids.iter().map(|id| probe.create(id)).collect();
    probe.apply(&probe.commit(creates)).await?;
    let (mut seen, mut rows) = (HashSet::new(), HashSet::new());
    // Others may write at the same time, so there may be more events than ours.
    for _ in 0..MOST_PAGES {
        let page = probe.events(cursor.as_deref(), 1).await?;
        let Some(event) = page.events.first() else {
            break;
        };
        ensure(page.events.len() == 1, || {
            format!(
                "a limit of 1 was answered with {} events",
                page.events.len()
            )
        })?;
        if !seen.insert(event.id.clone()) {
            return wrong(format!("event {:?} came twice", event.id));
        }
        rows.insert(event.entity_id.clone());
        ensure(page.next_cursor.is_some(), || {
            "a page with events has no nextCursor".to_owned()
        })?;
        cursor = page.next_cursor;
    }
    ensure(ids.iter().all(|id| rows.contains(id)), || {
        "events are missing when they are read one at a time".to_owned()
    })
}

pub(super) async fn outside_writes(probe: &Probe) -> Result<(), Finding> {
    let Some(write) = &probe.write_outside else {
        return Err(Finding::Untried(
            "a way to write past the endpoint is needed: --outside".to_owned(),
        ));
    };
    let id = probe.created().await?;
    let cursor = tail(probe).await?;
    write(id.clone()).await.map_err(|error| {
        Finding::Untried(format!(
            "the row could not be changed from outside: {error}"
        ))
    })?;
    let event = one_event(probe, cursor.as_deref(), &id).await?;
    ensure(
        event.client_tx_id.is_none() && event.correlation_id.is_none(),
        || "the event names a commit that did not make it".to_owned(),
    )
}

/// Where the feed ends now; none when it is empty.
pub(super) async fn tail(probe: &Probe) -> Result<Option<String>, Finding> {
    let mut cursor = None;
    for _ in 0..MOST_PAGES {
        let page = probe.events(cursor.as_deref(), PAGE).await?;
        let moved = page.next_cursor.is_some() && page.next_cursor != cursor;
        if page.events.is_empty() || !moved {
            return Ok(page.next_cursor.or(cursor));
        }
        cursor = page.next_cursor;
    }
    Err(Finding::Untried(
        "the feed is too long: use a database with fewer events".to_owned(),
    ))
}

/// What the feed has after a cursor.
pub(super) async fn after(probe: &Probe, cursor: Option<&str>) -> Result<Vec<Event>, Finding> {
    let mut cursor = cursor.map(str::to_owned);
    let mut events = Vec::new();
    for _ in 0..MOST_PAGES {
        let page = probe.events(cursor.as_deref(), PAGE).await?;
        let moved = page.next_cursor.is_some() && page.next_cursor != cursor;
        let ended = page.events.is_empty() || !moved;
        events.extend(page.events);
        if ended {
            break;
        }
        cursor = page.next_cursor;
    }
    Ok(events)
}

/// Whether an event says that this commit made it.
pub(super) fn names(event: &Event, client_tx_id: &str) -> bool {
    [&event.client_tx_id, &event.correlation_id]
        .into_iter()
        .any(|id| id.as_deref() == Some(client_tx_id))
}

/// The one event on a row after a cursor.
async fn one_event(probe: &Probe, cursor: Option<&str>, id: &str) -> Result<Event, Finding> {
    let events = after(probe, cursor).await?;
    let mut events: Vec<_> = events
        .into_iter()
        .filter(|event| event.entity_id == id && event.model == probe.model)
        .collect();
    match events.len() {
        1 => Ok(events.swap_remove(0)),
        0 => wrong("the feed does not tell of the change"),
        count => wrong(format!("the feed tells of one change {count} times")),
    }
}
