//! The feed of changes made outside: events that are pushed, events that did not fit, and a new start.

use backends::json::{self, canonical};
use backends::operation::OperationKind;
use proto::v1;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DataSourcesApi, NAME};
use crate::admit::is_name;
use crate::api::{encode, names};
use crate::domain::Caller;
use crate::pages::{cut, limit, page_size};
use crate::refusal::{Class, Refusal};
use crate::store::feeds::{self, Push};

/// Events of one call at most.
const MOST_EVENTS: usize = 500;

/// The longest cursor, in bytes.
const LONGEST_CURSOR: usize = 4 << 10;

/// What page tokens of this service are bound to.
const QUARANTINED: &str = "data_sources.list_quarantined_events";

/// Where a page of quarantined events ends, as page tokens carry it: nanoseconds since 1970, and an id.
type Token = (i128, String);

impl DataSourcesApi {
    pub(super) async fn pushed(
        &self,
        caller: &Caller,
        request: v1::PushEventsRequest,
    ) -> Result<v1::PushEventsResponse, Refusal> {
        let id = names::parse_source(NAME, &request.name)?;
        let count = request.events.len();
        if !(1..=MOST_EVENTS).contains(&count) {
            let rule = format!("must be 1 to {MOST_EVENTS}, not {count}");
            return Err(Refusal::field("event_invalid", "events", rule));
        }
        let events = request.events.into_iter().enumerate();
        let events = events
            .map(|(index, event)| {
                wire_event(event).map_err(|(field, rule)| {
                    Refusal::field("event_invalid", format!("events[{index}].{field}"), rule)
                        .with("event", index)
                        .with("field", field)
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        match self.rooms.service.push_events(caller, &id, events).await? {
            Push::Kept => Ok(v1::PushEventsResponse {}),
            Push::NoSource => Err(Refusal::no_source(&id)),
            Push::TooDeep => {
                let message = "too many pushed events wait to be taken in";
                Err(Refusal::new(Class::Exhausted, "queue_too_deep", message)
                    .with("data_source", &id)
                    .retry_after(std::time::Duration::from_secs(1)))
            }
        }
    }

    pub(super) async fn quarantined(
        &self,
        caller: &Caller,
        request: v1::ListQuarantinedEventsRequest,
    ) -> Result<v1::ListQuarantinedEventsResponse, Refusal> {
        let (store, pages) = (&self.rooms.store, &self.rooms.pages);
        let source = names::parse_source(NAME, &request.name)?;
        self.stored(caller, source.clone()).await?;
        let asked = [QUARANTINED, caller.organization.as_str(), &source];
        let size = page_size(request.page_size)?;
        let before: Option<Token> = pages.open(&asked, &request.page_token)?;
        let before = before.and_then(|(nanos, id)| {
            let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
            Some((at, id))
        });
        let organization = caller.organization.clone();
        let page = feeds::quarantined(store, organization, source.clone(), before, limit(size));
        let mut rows = page.await?;
        let more = cut(&mut rows, size);
        let last = rows.last().filter(|_| more);
        let token = last.map(|last| {
            let position: Token = (last.seen_at.unix_timestamp_nanos(), last.event_id.clone());
            pages.seal(&asked, &position)
        });
        Ok(v1::ListQuarantinedEventsResponse {
            events: rows.into_iter().map(encode::quarantined).collect(),
            next_page_token: token.unwrap_or_default(),
        })
    }

    pub(super) async fn feed_reset(
        &self,
        caller: &Caller,
        request: v1::ResetFeedRequest,
    ) -> Result<v1::DataSourceStatus, Refusal> {
        let id = names::parse_source(NAME, &request.name)?;
        if request.cursor.len() > LONGEST_CURSOR || request.cursor.contains('\0') {
            let rule = format!("has at most {LONGEST_CURSOR} bytes, none of them zero");
            return Err(Refusal::field("field_invalid", "cursor", rule));
        }
        let cursor = (!request.cursor.is_empty()).then_some(request.cursor);
        let actor = super::actor(request.actor)?;
        let service = &self.rooms.service;
        service.reset_feed(caller, &id, cursor, &actor).await?;
        self.status_of(caller, &request.name).await
    }
}

/// What is wrong with an event: a field, and the rule that it breaks.
type Fault = (&'static str, String);

/// An event as a feed would tell it.
fn wire_event(event: v1::ExternalEvent) -> Result<String, Fault> {
    let kind = kind(event.r#type())?;
    let mut wire = Map::new();
    let named = [
        ("id", "event_id", event.event_id, true),
        ("model", "model", event.model, true),
        ("entityId", "id", event.id, true),
        ("clientTxId", "client_tx_id", event.client_tx_id, false),
        (
            "transactionId",
            "transaction_id",
            event.transaction_id,
            false,
        ),
    ];
    for (field, given, text, required) in named {
        if text.is_empty() && !required {
            continue;
        }
        if !is_name(&text) {
            let rule = "must be 1 to 255 characters without control characters";
            return Err((given, rule.to_owned()));
        }
        wire.insert(field.to_owned(), text.into());
    }
    wire.insert("type".to_owned(), kind.as_str().into());
    match (kind, event.row_json.is_empty()) {
        (OperationKind::Delete, true) => {}
        (OperationKind::Delete, false) => {
            return Err(("row_json", "must be empty for DELETE".to_owned()));
        }
        (_, true) => return Err(("row_json", "is required".to_owned())),
        (_, false) => {
            let row = json::parse_object(&event.row_json);
            let row = row.map_err(|error| ("row_json", error.to_string()))?;
            wire.insert("data".to_owned(), Value::Object(row));
        }
    }
    if let Some(at) = event.occur_time {
        wire.insert("occurredAt".to_owned(), occurred(at)?.into());
    }
    Ok(canonical(&Value::Object(wire)))
}

fn kind(given: v1::OperationType) -> Result<OperationKind, Fault> {
    match given {
        v1::OperationType::Create => Ok(OperationKind::Create),
        v1::OperationType::Update => Ok(OperationKind::Update),
        v1::OperationType::Delete => Ok(OperationKind::Delete),
        v1::OperationType::Archive => Ok(OperationKind::Archive),
        v1::OperationType::Unarchive => Ok(OperationKind::Unarchive),
        v1::OperationType::Unspecified => {
            let rule = "must be CREATE, UPDATE, DELETE, ARCHIVE or UNARCHIVE";
            Err(("type", rule.to_owned()))
        }
    }
}

fn occurred(at: prost_types::Timestamp) -> Result<String, Fault> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .ok_or_else(|| ("occur_time", "is no time of the calendar".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> v1::ExternalEvent {
        v1::ExternalEvent {
            event_id: "e".to_owned(),
            model: "airports".to_owned(),
            id: "a".to_owned(),
            r#type: v1::OperationType::Update.into(),
            row_json: br#"{"n":1.10}"#.as_slice().into(),
            occur_time: Some(prost_types::Timestamp::default()),
            ..v1::ExternalEvent::default()
        }
    }

    #[test]
    fn a_pushed_event_reads_as_a_feed_would_tell_it() {
        let wire = wire_event(event()).unwrap();
        assert_eq!(
            wire,
            r#"{"data":{"n":1.10},"entityId":"a","id":"e","model":"airports","occurredAt":"1970-01-01T00:00:00Z","type":"UPDATE"}"#
        );
    }

    #[test]
    fn an_event_at_fault_is_refused_with_its_field() {
        type Change = fn(&mut v1::ExternalEvent);
        let cases: [(&str, Change); 9] = [
            ("event_id", |it| it.event_id.clear()),
            ("event_id", |it| it.event_id = "é".repeat(256)),
            ("model", |it| it.model.clear()),
            ("id", |it| it.id = "a\0".to_owned()),
            ("type", |it| it.r#type = 0),
            ("row_json", |it| it.row_json.clear()),
            ("row_json", |it| it.row_json = b"[]".as_slice().into()),
            ("row_json", |it| {
                it.r#type = v1::OperationType::Delete.into();
            }),
            ("client_tx_id", |it| it.client_tx_id = "\n".to_owned()),
        ];
        for (field, change) in cases {
            let mut event = event();
            change(&mut event);
            assert_eq!(wire_event(event).unwrap_err().0, field);
        }
    }
}
