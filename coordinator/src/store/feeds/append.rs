//! What an append writes of feeds.

use crate::decide::{Append, Feed};
use crate::store::Error;
use crate::store::append::{Statement, array};

/// The parts of an append that are about feeds.
pub(in crate::store) fn append(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if !append.feeds.is_empty() {
        let put: Vec<_> = append.feeds.iter().collect();
        feed_columns(statement, &put.iter().collect::<Vec<_>>())?;
    }
    if !append.events.is_empty() {
        let new: Vec<&(String, String)> = append.events.iter().collect();
        let part = statement.part("events_new", include_str!("../sql/append/events.sql"));
        part.column(&new, |(source, _)| source.as_str())?;
        part.column(&new, |(_, id)| id.as_str())?;
    }
    if !append.quarantined.is_empty() {
        let new: Vec<_> = append.quarantined.iter().collect();
        let part = statement.part(
            "events_quarantined",
            include_str!("../sql/append/quarantined.sql"),
        );
        part.column(&new, |one| one.source.as_str())?;
        part.column(&new, |one| one.id.as_str())?;
        part.column(&new, |one| one.misfit.reason.as_str())?;
        part.column(&new, |one| one.misfit.message.as_str())?;
        part.column(&new, |one| one.misfit.event.as_str())?;
    }
    if !append.pushed_done.is_empty() {
        let done: Vec<&(String, i64)> = append.pushed_done.iter().collect();
        let part = statement.part("pushed_done", include_str!("../sql/append/pushed_done.sql"));
        part.column(&done, |(source, _)| source.as_str())?;
        part.column(&done, |(_, position)| *position)?;
    }
    rereads(statement, append)
}

fn rereads(statement: &mut Statement, append: &Append) -> Result<(), Error> {
    if !append.rereads.is_empty() {
        let new: Vec<_> = append.rereads.iter().collect();
        let part = statement.part("rereads_new", include_str!("../sql/append/rereads.sql"));
        part.column(&new, |(source, _)| source.as_str())?;
        part.column(&new, |(_, row)| row.model.as_str())?;
        part.column(&new, |(_, row)| row.id.as_str())?;
    }
    if !append.rereads_done.is_empty() {
        let done: Vec<_> = append.rereads_done.iter().collect();
        let part = statement.part(
            "rereads_done",
            include_str!("../sql/append/rereads_done.sql"),
        );
        part.column(&done, |(source, _)| source.as_str())?;
        part.column(&done, |(_, position)| *position)?;
    }
    Ok(())
}

fn feed_columns(statement: &mut Statement, put: &[&(&String, &Feed)]) -> Result<(), Error> {
    let part = statement.part("feeds_put", include_str!("../sql/append/feeds.sql"));
    part.column(put, |(source, _)| source.as_str())?;
    part.column(put, |(_, feed)| feed.state.as_str())?;
    part.column(put, |(_, feed)| feed.trail.newest())?;
    part.column(put, |(_, feed)| feed.trail.durable())?;
    part.column(put, |(_, feed)| {
        let cursors = feed.trail.passed().iter().map(|one| one.cursor.as_str());
        cursors.collect::<serde_json::Value>().to_string()
    })?;
    part.column(put, |(_, feed)| {
        let seen = feed.trail.passed().iter().map(|one| {
            i64::try_from(one.seen_at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
        });
        array(&seen.collect::<Vec<_>>())
    })?;
    part.column(put, |(_, feed)| feed.last_event_at)?;
    part.column(put, |(_, feed)| feed.caught_up_at)?;
    part.column(put, |(_, feed)| {
        i64::try_from(feed.largest_lateness.as_millis()).unwrap_or(i64::MAX)
    })?;
    part.column(put, |(_, feed)| feed.taken)?;
    part.column(put, |(_, feed)| feed.duplicates)?;
    part.column(put, |(_, feed)| feed.echoes)?;
    part.column(put, |(_, feed)| feed.quarantined)
}
