//! `source push-events`, `source quarantine`, `source reset-feed`: changes made outside.

use proto::v1;
use serde_json::{Map, Value};

use super::connection::{Server, every_page};
use super::output::Output;
use super::schemas::document;
use super::sources::{FeedCommand, name, page_size};
use super::status;
use crate::failure::Failure;

/// What `push-events` reads.
pub(super) const EXAMPLE: &str = r#"Each line is an event as a feed tells it:
{"id": "e1", "model": "airports", "entityId": "00M", "type": "UPDATE", "data": {"id": "00M", "city": "Bay Springs"}}"#;

/// Events of one call.
const EVENTS: usize = 100;

/// Runs a command about a feed.
pub(super) async fn run(
    server: &Server,
    command: &FeedCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        FeedCommand::PushEvents { id, file } => push(server, id, file, output).await,
        FeedCommand::Quarantine { id, limit } => quarantine(server, id, *limit, output).await,
        FeedCommand::ResetFeed { id, cursor, actor } => {
            let request = v1::ResetFeedRequest {
                name: name(id),
                cursor: cursor.clone(),
                actor: actor.clone(),
            };
            let mut sources = server.data_sources();
            let answer = sources.reset_feed(server.request(request));
            status::status(&answer.await?.into_inner(), output)
        }
    }
}

/// The whole file is read, and its faults reported, before anything is sent.
async fn push(server: &Server, id: &str, file: &str, output: &mut Output) -> Result<(), Failure> {
    let text = document(file)?;
    let lines = text.lines().enumerate();
    let events = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            event(line).map_err(|rule| Failure::input(format!("line {}: {rule}", index + 1)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    for events in events.chunks(EVENTS) {
        let request = v1::PushEventsRequest {
            name: name(id),
            events: events.to_vec(),
        };
        server
            .data_sources()
            .push_events(server.request(request))
            .await?;
    }
    let count = events.len();
    output.record(
        || serde_json::json!({"id": id, "pushed": count}),
        &[("source", id.to_owned()), ("pushed", count.to_string())],
    )
}

fn event(line: &str) -> Result<v1::ExternalEvent, String> {
    let parsed =
        backends::json::parse_object(line.as_bytes()).map_err(|error| error.to_string())?;
    let text = |fields: &Map<String, Value>, field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{field}` is not a string")),
    };
    let kind = text(&parsed, "type")?;
    let kind = v1::OperationType::from_str_name(&format!("OPERATION_TYPE_{kind}"))
        .ok_or("`type` is not CREATE, UPDATE, DELETE, ARCHIVE or UNARCHIVE")?;
    let row = match parsed.get("data") {
        None | Some(Value::Null) => Vec::new(),
        Some(row) => backends::json::canonical(row).into_bytes(),
    };
    Ok(v1::ExternalEvent {
        event_id: text(&parsed, "id")?,
        model: text(&parsed, "model")?,
        id: text(&parsed, "entityId")?,
        r#type: kind.into(),
        row_json: row.into(),
        client_tx_id: text(&parsed, "clientTxId")?,
        transaction_id: text(&parsed, "transactionId")?,
        occur_time: None,
    })
}

async fn quarantine(
    server: &Server,
    id: &str,
    limit: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut sources = server.data_sources();
    let mut left = limit;
    let all = every_page(async |page_token| {
        let request = v1::ListQuarantinedEventsRequest {
            name: name(id),
            page_size: page_size(left),
            page_token,
        };
        let page = sources.list_quarantined_events(server.request(request));
        let page = page.await?.into_inner();
        left = left.saturating_sub(page.events.len());
        let next = if left == 0 {
            String::new()
        } else {
            page.next_page_token
        };
        Ok((page.events, next))
    });
    status::quarantined(&all.await?, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_event_as_a_feed_tells_it() {
        let example = EXAMPLE.lines().last().unwrap();
        let event = event(example).unwrap();
        assert_eq!((event.event_id.as_str(), event.id.as_str()), ("e1", "00M"));
        assert_eq!(event.r#type(), v1::OperationType::Update);
        assert_eq!(
            event.row_json,
            br#"{"city":"Bay Springs","id":"00M"}"#.as_slice()
        );
        for line in [
            "",
            "[]",
            r#"{"type":"UPSERT"}"#,
            r#"{"id":7,"type":"DELETE"}"#,
        ] {
            assert!(super::event(line).is_err(), "{line}");
        }
    }
}
