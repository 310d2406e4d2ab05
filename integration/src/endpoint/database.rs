//! The endpoint's honest database: rows, the ledger of commits, and the feed of events.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// A row, with its `id`.
pub type Row = Map<String, Value>;

/// By which id an endpoint tells commits apart; both kinds are in the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ledger {
    /// By `clientTxId`; refuses `onStale: notify`.
    #[default]
    ClientTxId,
    /// By `correlationId`; refuses a commit without one, and `onStale: force` and `flag`.
    CorrelationId,
    /// By the request's `webhook-id`, as a general receiver of webhooks does.
    WebhookId,
}

#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) ledger: Ledger,
    /// Whether commits are in the feed as well.
    pub(super) echoes: bool,
    /// The feed: what is visible, by position.
    pub(super) events: BTreeMap<u64, Value>,
    models: BTreeMap<String, BTreeMap<String, Row>>,
    answers: HashMap<String, Value>,
}

/// Why a commit is refused.
type Refusal = (StatusCode, &'static str);

impl Database {
    pub(super) fn row(&self, model: &str, id: &str) -> Option<&Row> {
        self.models.get(model)?.get(id)
    }

    pub(super) fn rows(&self, model: &str) -> impl Iterator<Item = (&String, &Row)> {
        self.models.get(model).into_iter().flatten()
    }

    /// Writes a row, and tells of it at the feed's end.
    pub(super) fn write_outside(&mut self, model: &str, id: &str, row: Row) {
        let event = self.change_outside(model, id, row);
        self.publish(event);
    }

    /// Writes a row; the event that tells of it.
    pub(super) fn change_outside(&mut self, model: &str, id: &str, mut row: Row) -> Value {
        row.insert("id".to_owned(), id.into());
        let rows = self.models.entry(model.to_owned()).or_default();
        let kind = if rows.contains_key(id) {
            "UPDATE"
        } else {
            "CREATE"
        };
        rows.insert(id.to_owned(), row.clone());
        let event = format!("event-{}", self.next_position());
        json!({"id": event, "model": model, "entityId": id, "type": kind, "data": row})
    }

    /// Adds an event at the feed's end.
    pub(super) fn publish(&mut self, event: Value) {
        self.events.insert(self.next_position(), event);
    }

    pub(super) fn next_position(&self) -> u64 {
        self.events.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// The answer to a request, and whether it changed the rows.
    pub(super) fn answer(&mut self, body: &Value, id: &str) -> (StatusCode, Value, bool) {
        let answer = match body["type"].as_str() {
            Some("commit") => return self.commit(body, id),
            Some("load") => json!({"row": self.row(text(body, "model"), text(body, "id"))}),
            Some("list") => match self.list(body) {
                Some(page) => page,
                None => return invalid(),
            },
            Some("events") => self.feed(body),
            _ => return invalid(),
        };
        (StatusCode::OK, answer, false)
    }

    fn commit(&mut self, body: &Value, id: &str) -> (StatusCode, Value, bool) {
        let name = match self.ledger {
            Ledger::ClientTxId => text(body, "clientTxId"),
            Ledger::CorrelationId => text(body, "correlationId"),
            Ledger::WebhookId => id,
        };
        let Some(operations) = body["operations"].as_array() else {
            return invalid();
        };
        if operations.is_empty() {
            return invalid();
        }
        let refused: &[&str] = match self.ledger {
            Ledger::ClientTxId => &["notify"],
            Ledger::CorrelationId => &["force", "flag"],
            Ledger::WebhookId => &[],
        };
        if name.is_empty()
            || operations
                .iter()
                .any(|it| refused.contains(&text(it, "onStale")))
        {
            return invalid();
        }
        if let Some(first) = self.answers.get(name) {
            return (StatusCode::OK, first.clone(), false);
        }
        let before: Vec<_> = operations.iter().map(|it| self.stands(it)).collect();
        let applied: Result<Vec<_>, _> = operations.iter().map(|it| self.apply(it)).collect();
        match applied {
            Ok(rows) => {
                if self.echoes {
                    self.echo(body, operations, &rows);
                }
                let answer = json!({"rows": rows});
                self.answers.insert(name.to_owned(), answer.clone());
                (StatusCode::OK, answer, true)
            }
            Err((status, code)) => {
                for (model, id, row) in before {
                    self.put_back(model, id, row);
                }
                (
                    status,
                    json!({"error": code, "message": format!("refused: {code}")}),
                    false,
                )
            }
        }
    }

    fn echo(&mut self, body: &Value, operations: &[Value], rows: &[Row]) {
        for (operation, row) in operations.iter().zip(rows) {
            let deleted = operation["type"] == "DELETE";
            self.publish(json!({
                "id": format!("event-{}", self.next_position()),
                "model": operation["model"],
                "entityId": operation["id"],
                "type": operation["type"],
                "data": if deleted { Value::Null } else { Value::Object(row.clone()) },
                "clientTxId": body["clientTxId"],
                "correlationId": body["correlationId"],
            }));
        }
    }

    /// The row that an operation is about, as it stands.
    fn stands(&self, operation: &Value) -> (String, String, Option<Row>) {
        let (model, id) = (text(operation, "model"), text(operation, "id"));
        (
            model.to_owned(),
            id.to_owned(),
            self.row(model, id).cloned(),
        )
    }

    fn put_back(&mut self, model: String, id: String, row: Option<Row>) {
        let rows = self.models.entry(model).or_default();
        match row {
            Some(row) => rows.insert(id, row),
            None => rows.remove(&id),
        };
    }

    fn apply(&mut self, operation: &Value) -> Result<Row, Refusal> {
        let id = text(operation, "id");
        let rows = self
            .models
            .entry(text(operation, "model").to_owned())
            .or_default();
        let input = operation["input"].as_object().cloned().unwrap_or_default();
        let missing = (StatusCode::NOT_FOUND, "entity_not_found");
        match text(operation, "type") {
            "CREATE" if id.is_empty() => Err((StatusCode::BAD_REQUEST, "id_missing")),
            "CREATE" if rows.contains_key(id) => Err((StatusCode::CONFLICT, "entity_exists")),
            "CREATE" => {
                let mut row = input;
                row.insert("id".to_owned(), id.into());
                rows.insert(id.to_owned(), row.clone());
                Ok(row)
            }
            "DELETE" => {
                let gone = rows.remove(id);
                Ok(gone.unwrap_or_else(|| Row::from_iter([("id".to_owned(), id.into())])))
            }
            kind @ ("UPDATE" | "ARCHIVE" | "UNARCHIVE") => {
                let row = rows.get_mut(id).ok_or(missing)?;
                row.extend(input);
                if kind != "UPDATE" {
                    row.insert("archived".to_owned(), (kind == "ARCHIVE").into());
                }
                Ok(row.clone())
            }
            _ => Err((StatusCode::BAD_REQUEST, "source_commit_invalid")),
        }
    }

    /// The cursor is the last id of the page before, so a list that is ordered has one page only.
    fn list(&self, body: &Value) -> Option<Value> {
        let query = &body["query"];
        let empty = Vec::new();
        let conditions = query["where"].as_array().unwrap_or(&empty);
        let mut rows: Vec<_> = self
            .rows(text(body, "model"))
            .filter(|(id, _)| id.as_str() > text(query, "cursor"))
            .map(|(_, row)| row)
            .filter(|row| conditions.iter().all(|condition| meets(row, condition)))
            .collect();
        if let Some(field) = query["orderBy"].as_str() {
            let value = |row: &Row| row.get(field).cloned().unwrap_or_default();
            rows.sort_by(|a, b| compare(&value(a), &value(b)).unwrap_or(Ordering::Equal));
            if text(query, "order").eq_ignore_ascii_case("desc") {
                rows.reverse();
            }
        }
        let limit = usize::try_from(query["limit"].as_u64().unwrap_or(100)).ok()?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let mut page = json!({"rows": rows});
        if more && query["orderBy"].is_null() {
            page["nextCursor"] = rows.last()?["id"].clone();
        }
        Some(page)
    }

    /// The cursor is a position in the feed: that of the last event that was answered.
    fn feed(&self, body: &Value) -> Value {
        let after: u64 = text(body, "cursor").parse().unwrap_or(0);
        let limit = body["limit"]
            .as_u64()
            .and_then(|it| usize::try_from(it).ok())
            .unwrap_or(100);
        let page: Vec<_> = self.events.range(after + 1..).take(limit).collect();
        let Some((last, _)) = page.last() else {
            return json!({"events": []});
        };
        let next = last.to_string();
        let events: Vec<_> = page.into_iter().map(|(_, event)| event).collect();
        json!({"events": events, "nextCursor": next})
    }
}

fn invalid() -> (StatusCode, Value, bool) {
    (
        StatusCode::BAD_REQUEST,
        json!({"error": "source_commit_invalid"}),
        false,
    )
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// `[field, value]` or `[field, op, value]`; pattern operators are none of this database's.
fn meets(row: &Row, condition: &Value) -> bool {
    let empty = Vec::new();
    let (field, operator, value) = match condition.as_array().unwrap_or(&empty).as_slice() {
        [field, value] => (field, "=", value),
        [field, operator, value] => (field, operator.as_str().unwrap_or_default(), value),
        _ => return false,
    };
    let found = field
        .as_str()
        .and_then(|field| row.get(field))
        .unwrap_or(&Value::Null);
    match operator {
        "IS" => return found == value,
        "IS NOT" => return found != value,
        "IN" => {
            return value
                .as_array()
                .is_some_and(|values| values.contains(found));
        }
        "NOT IN" => {
            return value
                .as_array()
                .is_some_and(|values| !values.contains(found));
        }
        _ => {}
    }
    let Some(order) = compare(found, value) else {
        return false;
    };
    match operator {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        _ => false,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
