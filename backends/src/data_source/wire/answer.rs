//! The answers to reads, and the body that goes with an error.

use serde_json::{Map, Value};

use crate::json::{lossy_string, parse_object, raw_fields};
use crate::operation::OperationKind;

/// The longest id of a row.
const MAX_ID: usize = 255;

/// An answer is not what the request asked for. The text is for a person.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct AnswerFault(pub String);

/// A row, as an endpoint gives it.
pub type Row = Map<String, Value>;

/// One external change, as the endpoint's feed tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The feed's name for it; the same whenever it is told again.
    pub id: String,
    /// The row's model.
    pub model: String,
    /// The row's id.
    pub entity_id: String,
    /// What was done.
    pub kind: OperationKind,
    /// The row afterwards.
    pub data: Option<Row>,
    /// The tenant, if the feed says so.
    pub organization_id: Option<String>,
    /// The commit that it echoes.
    pub client_tx_id: Option<String>,
    /// As `client_tx_id`.
    pub correlation_id: Option<String>,
    /// The operation's own name.
    pub transaction_id: Option<String>,
    /// When, in the feed's words.
    pub occurred_at: Option<String>,
}

/// A page of events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsPage {
    /// In the feed's order.
    pub events: Vec<Event>,
    /// Where to go on; absent means: keep the cursor you had.
    pub next_cursor: Option<String>,
}

/// The body of an answer that is an error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ErrorBody {
    /// The endpoint's code; it may be empty, or hold what cannot be stored.
    pub error: String,
    /// For a person, as raw as the code.
    pub message: Option<String>,
    /// The endpoint says that the same request may succeed later.
    pub retryable: bool,
}

/// Reads `{row: object | null}`.
///
/// # Errors
/// When it is something else.
pub fn parse_load(body: &[u8]) -> Result<Option<Row>, AnswerFault> {
    match fields(body)?.remove("row") {
        Some(Value::Object(row)) => Ok(Some(row)),
        Some(Value::Null) => Ok(None),
        Some(_) => Err(fault("`row` is neither an object nor null")),
        None => Err(fault("the answer has no `row`")),
    }
}

/// Reads `{rows: [...], nextCursor?}`.
///
/// # Errors
/// When it is something else, or a row has no `id`.
pub fn parse_list(body: &[u8]) -> Result<(Vec<Row>, Option<String>), AnswerFault> {
    let mut answer = fields(body)?;
    let Some(Value::Array(items)) = answer.remove("rows") else {
        return Err(fault("the answer has no array `rows`"));
    };
    let rows = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| match item {
            Value::Object(row) if row.get("id").and_then(id_text).is_some() => Ok(row),
            _ => Err(AnswerFault(format!(
                "rows[{index}] is not an object with an `id`"
            ))),
        });
    Ok((rows.collect::<Result<_, _>>()?, cursor(&answer)?))
}

/// Reads `{events: [Event], nextCursor?}`.
///
/// # Errors
/// When it is something else, or any event lacks what it needs; the fault says which.
pub fn parse_events(body: &[u8]) -> Result<EventsPage, AnswerFault> {
    let mut answer = fields(body)?;
    let Some(Value::Array(items)) = answer.remove("events") else {
        return Err(fault("the answer has no array `events`"));
    };
    let events = items.into_iter().enumerate().map(|(index, item)| {
        event(item).map_err(|AnswerFault(rule)| AnswerFault(format!("events[{index}]: {rule}")))
    });
    Ok(EventsPage {
        events: events.collect::<Result<_, _>>()?,
        next_cursor: cursor(&answer)?,
    })
}

/// Reads one event.
///
/// # Errors
/// When it lacks what it needs.
pub fn parse_event(event: Value) -> Result<Event, AnswerFault> {
    self::event(event)
}

/// Reads `{error, message?, retryable?}`; none when the body is no JSON object with a text `error`.
///
/// The rest of it may be what it likes, and a field that comes twice counts as its last: what an
/// endpoint refuses stays refused, however its other words read.
pub fn parse_error(body: &[u8]) -> Option<ErrorBody> {
    let fields = raw_fields(body)?;
    let last = |name: &str| {
        let named = |(key, _): &&(&[u8], &[u8])| lossy_string(key).as_deref() == Some(name);
        fields.iter().rev().find(named).map(|(_, value)| *value)
    };
    Some(ErrorBody {
        error: lossy_string(last("error")?)?,
        message: last("message").and_then(lossy_string),
        retryable: last("retryable") == Some(b"true"),
    })
}

/// A row's id as text: endpoints whose ids are numbers may send them as such.
pub fn id_text(id: &Value) -> Option<&str> {
    let text = match id {
        Value::String(text) => text.as_str(),
        Value::Number(number) => number.as_str(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let sized = !text.is_empty() && text.chars().nth(MAX_ID).is_none();
    (sized && !text.contains(char::is_control)).then_some(text)
}

/// The answer's fields; an error body under a success status is not an answer.
pub(in crate::data_source) fn fields(body: &[u8]) -> Result<Map<String, Value>, AnswerFault> {
    let answer = parse_object(body).map_err(|error| AnswerFault(error.to_string()))?;
    match answer.get("error") {
        None | Some(Value::Null) => Ok(answer),
        Some(_) => Err(fault("the answer says success and holds an `error`")),
    }
}

/// Where to go on; an empty text says no more than none.
pub(super) fn cursor(answer: &Map<String, Value>) -> Result<Option<String>, AnswerFault> {
    match answer.get("nextCursor") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(cursor)) => Ok(Some(cursor.clone()).filter(|it| !it.is_empty())),
        Some(Value::Number(cursor)) => Ok(Some(cursor.to_string())),
        Some(_) => Err(fault("`nextCursor` is not a string")),
    }
}

fn event(item: Value) -> Result<Event, AnswerFault> {
    let Value::Object(mut event) = item else {
        return Err(fault("not an object"));
    };
    let required = |field: &str| {
        let text = event.get(field).and_then(id_text).map(ToOwned::to_owned);
        text.ok_or_else(|| AnswerFault(format!("`{field}` is missing or not an id")))
    };
    let (id, model, entity_id) = (required("id")?, required("model")?, required("entityId")?);
    let kind = event
        .get("type")
        .and_then(Value::as_str)
        .and_then(OperationKind::parse);
    let kind = kind.ok_or_else(|| fault("`type` is not an operation's"))?;
    let optional = |field: &str| {
        event
            .get(field)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    let [
        organization_id,
        client_tx_id,
        correlation_id,
        transaction_id,
        occurred_at,
    ] = [
        "organizationId",
        "clientTxId",
        "correlationId",
        "transactionId",
        "occurredAt",
    ]
    .map(optional);
    let data = match event.remove("data") {
        Some(Value::Object(row)) => Some(row),
        None | Some(Value::Null) => None,
        Some(_) => return Err(fault("`data` is not an object")),
    };
    Ok(Event {
        id,
        model,
        entity_id,
        kind,
        data,
        organization_id,
        client_tx_id,
        correlation_id,
        transaction_id,
        occurred_at,
    })
}

pub(super) fn fault(rule: &str) -> AnswerFault {
    AnswerFault(rule.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{parse_error, parse_events, parse_list, parse_load};
    use crate::operation::OperationKind;

    #[test]
    fn a_load_answers_with_a_row_or_null() {
        assert_eq!(parse_load(br#"{"row":null}"#), Ok(None));
        let row = parse_load(br#"{"row":{"id":"a","n":1.0},"more":1}"#)
            .unwrap()
            .unwrap();
        assert_eq!(row["n"].to_string(), "1.0");
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"row":[]}"#,
            r#"{"row":null,"error":"x"}"#,
        ] {
            assert!(parse_load(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_list_answers_with_rows_that_have_ids() {
        let (rows, cursor) = parse_list(br#"{"rows":[{"id":"a"},{"id":7}]}"#).unwrap();
        assert_eq!((rows.len(), cursor), (2, None));
        for (given, cursor) in [(r#""c""#, Some("c")), ("7", Some("7")), (r#""""#, None)] {
            let body = format!(r#"{{"rows":[],"nextCursor":{given}}}"#);
            assert_eq!(parse_list(body.as_bytes()).unwrap().1.as_deref(), cursor);
        }
        let broken = [
            "{}",
            r#"{"rows":{}}"#,
            r#"{"rows":[{}]}"#,
            r#"{"rows":[{"id":null}]}"#,
            r#"{"rows":[{"id":""}]}"#,
            r#"{"rows":[null]}"#,
            r#"{"rows":[],"nextCursor":{}}"#,
        ];
        for body in broken {
            assert!(parse_list(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn events_say_what_changed() {
        let body = json!({"events": [{
            "id": 12, "model": "tasks", "entityId": "a", "type": "UPDATE", "data": {"id": "a"},
            "clientTxId": "tx", "occurredAt": "2026-01-01T00:00:00Z",
        }, {"id": "13", "model": "tasks", "entityId": "b", "type": "DELETE"}], "nextCursor": 13});
        let page = parse_events(body.to_string().as_bytes()).unwrap();
        assert_eq!(page.next_cursor.as_deref(), Some("13"));
        assert_eq!(page.events[0].id, "12");
        assert_eq!(page.events[0].client_tx_id.as_deref(), Some("tx"));
        assert_eq!(page.events[1].kind, OperationKind::Delete);
        assert_eq!(page.events[1].data, None);
        let broken =
            json!({"events": [{"id": "1", "model": "m", "entityId": "e", "type": "UPSERT"}]});
        let fault = parse_events(broken.to_string().as_bytes()).unwrap_err();
        assert_eq!(fault.to_string(), "events[0]: `type` is not an operation's");
    }

    #[test]
    fn an_error_needs_a_code() {
        let error = parse_error(br#"{"error":"taken","message":"m","retryable":true}"#).unwrap();
        assert_eq!((error.error.as_str(), error.retryable), ("taken", true));
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"error":1}"#,
            r#"{"error":"x","n":}"#,
            r#"{"error":"x"} more"#,
            r#"["error"]"#,
        ] {
            assert_eq!(parse_error(body.as_bytes()), None, "{body}");
        }
        assert!(
            !parse_error(br#"{"error":"x","retryable":"true"}"#)
                .unwrap()
                .retryable
        );
    }

    #[test]
    fn an_error_is_read_whatever_stands_beside_it() {
        let deep = format!(
            r#"{{"error":"x","n":{}{}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        );
        for body in [
            r#"{"error":"x","limit":1e400}"#,
            r#"{"error":"x","a":1,"a":2}"#,
            r#"{"error":"y","error":"x"}"#,
            r#"{"error":"x","message":7}"#,
            r#"{"error":"x","seen":"\ud800"}"#,
            &deep,
        ] {
            let error = parse_error(body.as_bytes()).unwrap();
            assert_eq!((error.error.as_str(), error.message), ("x", None), "{body}");
        }
        let error = parse_error(br#"{"error":"","message":"bad byte \u0000"}"#).unwrap();
        assert_eq!(
            (error.error.as_str(), error.message.unwrap().as_str()),
            ("", "bad byte \0")
        );
        assert!(parse_error(b"{\"error\":\"x\",\"m\":\"\xff\"}").is_some());
    }
}
