//! Whether an event can be taken in: what passes here is well-formed and fits the schema.

use backends::data_source::wire::{Event, Row, Unreadable, id_text, parse_event};
use backends::json::{Document, canonical};
use backends::operation::{Change, OperationKind};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::admit::{Backing, Schema, is_name};
use crate::decide::{ExternalEvent, Misfit, lane};
use crate::domain::OrganizationId;

/// How much of a misfit is kept, in bytes.
const KEPT: usize = 64 << 10;

/// What events are judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge<'a> {
    pub(super) organization: &'a OrganizationId,
    pub(super) source: &'a str,
    /// `None` when none was pushed: then nothing fits.
    pub(super) schema: Option<&'a Schema>,
}

/// An event as it came.
pub(super) type Told = Result<Value, Unreadable>;

/// Why an event does not fit: a code, and a sentence.
type Fault = (String, String);

impl Judge<'_> {
    /// An event as it came, judged; with the names of the commits that it says it came from.
    pub(super) fn event(&self, raw: &Told) -> (ExternalEvent, Vec<String>) {
        let id = Some(event_id(raw));
        let read = match raw {
            Ok(value) => parse_event(value.clone()).map_err(|fault| fault.to_string()),
            Err(unreadable) => Err(unreadable.rule.clone()),
        };
        let judged = read
            .map_err(|rule| fault_of("event_invalid", rule))
            .and_then(|event| {
                self.change(&event)
                    .map(|(change, bare)| (event, change, bare))
            });
        let (change, bare, names) = match judged {
            Ok((event, change, bare)) => (Ok(change), bare, names(&event)),
            Err((reason, message)) => {
                let event = beginning(match raw {
                    Ok(value) => canonical(value),
                    Err(unreadable) => unreadable.text.clone(),
                });
                let misfit = Misfit {
                    reason,
                    message,
                    event,
                };
                (Err(misfit), false, Vec::new())
            }
        };
        let lane = change.as_ref().map_or(0, |change| {
            lane(self.organization, &change.model, &change.id)
        });
        let event = ExternalEvent {
            id,
            change,
            bare,
            loaded: false,
            lane,
            echoes: Vec::new(),
            again: false,
            known: None,
            pushed: None,
        };
        (event, names)
    }

    /// What an event changed, and whether it leaves out what the row became.
    fn change(&self, event: &Event) -> Result<(Change, bool), Fault> {
        let stranger = event
            .organization_id
            .as_ref()
            .is_some_and(|id| id != self.organization.as_str());
        if stranger {
            let rule = "`organizationId` is not this source's organization";
            return Err(fault_of("organization_mismatch", rule));
        }
        let row = match (&event.kind, &event.data) {
            (OperationKind::Delete, _) => None,
            (_, None) => {
                self.model(&event.model)?;
                None
            }
            (_, Some(row)) => Some(self.row(&event.model, &event.entity_id, row.clone())?),
        };
        if event.kind == OperationKind::Delete {
            self.model(&event.model)?;
        }
        let bare = row.is_none() && event.kind != OperationKind::Delete;
        let change = Change {
            operation: None,
            kind: event.kind,
            model: event.model.clone(),
            id: event.entity_id.clone(),
            row,
            transaction_id: event.transaction_id.clone().filter(|name| is_name(name)),
        };
        Ok((change, bare))
    }

    fn model(&self, name: &str) -> Result<&crate::admit::Model, Fault> {
        let model = self.schema.and_then(|schema| schema.model(name));
        let model =
            model.ok_or_else(|| fault_of("model_unknown", "the schema has no such model"))?;
        if model.backing != Backing::Source(self.source.to_owned()) {
            let rule = "the model's rows do not live in this source";
            return Err(fault_of("model_elsewhere", rule));
        }
        Ok(model)
    }

    /// A row that fits its model, with its id.
    pub(super) fn row(&self, model: &str, id: &str, mut row: Row) -> Result<Document, Fault> {
        let model = self.model(model)?;
        if row.contains_key("__proto__") {
            return Err(fault_of("row_invalid", "a row with a field `__proto__`"));
        }
        // A number stays one: endpoints have such ids.
        let own = row.entry("id").or_insert_with(|| id.into());
        if id_text(own) != Some(id) {
            return Err(fault_of("id_mismatch", "the row's `id` is another one"));
        }
        let row = Document::from(row);
        model
            .check_held(row.value())
            .map_err(|fault| fault_of(fault.reason, fault.to_string()))?;
        Ok(row)
    }
}

fn fault_of(reason: &str, message: impl Into<String>) -> Fault {
    (reason.to_owned(), message.into())
}

/// The event's own id; a hash of it when it is none that can be kept, or of the whole event when it
/// has none.
pub(super) fn event_id(raw: &Told) -> String {
    let (id, text) = match raw {
        Ok(value) => {
            let id = value.get("id");
            let text = match id {
                Some(Value::String(id)) if !id.is_empty() => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                _ => canonical(value),
            };
            (id.and_then(id_text), text)
        }
        Err(unreadable) => (unreadable.id.as_deref(), unreadable.text.clone()),
    };
    if let Some(id) = id {
        return id.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    let hex = digest.iter().fold(String::new(), |mut hex, byte| {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).expect("four bits are a digit"));
        hex.push(char::from_digit(u32::from(byte & 15), 16).expect("four bits are a digit"));
        hex
    });
    format!("sha256:{hex}")
}

/// The commits that an event names, each once.
fn names(event: &Event) -> Vec<String> {
    let mut names: Vec<String> = [&event.client_tx_id, &event.correlation_id]
        .into_iter()
        .flatten()
        .filter(|name| is_name(name))
        .cloned()
        .collect();
    names.dedup();
    names
}

/// At most [`KEPT`] bytes of a text, whole characters.
fn beginning(mut text: String) -> String {
    if text.len() > KEPT {
        let end = (0..=KEPT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(event: &Value) -> (ExternalEvent, Vec<String>) {
        let fields = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let document = json!({"models": {
            "notes": {"backing": "managed", "schema": fields},
            "airports": {"backing": {"dataSource": "crm"}, "schema": fields},
            "people": {"backing": {"dataSource": "hr"}, "schema": fields},
        }});
        let schema = Schema::compile(1, document.to_string().as_bytes()).unwrap();
        let judge = Judge {
            organization: &OrganizationId::new("acme"),
            source: "crm",
            schema: Some(&schema),
        };
        judge.event(&Ok(event.clone()))
    }

    fn event(changes: &Value) -> Value {
        let mut event = json!({
            "id": "e", "model": "airports", "entityId": "a", "type": "UPDATE",
            "data": {"id": "a", "n": 1},
        });
        let fields = event.as_object_mut().unwrap();
        fields.extend(changes.as_object().cloned().unwrap());
        event
    }

    #[test]
    fn what_does_not_fit_is_told_why_and_keeps_its_id() {
        let cases = [
            (json!({"type": "UPSERT"}), "event_invalid"),
            (json!({"entityId": "x".repeat(256)}), "event_invalid"),
            (json!({"organizationId": "other"}), "organization_mismatch"),
            (json!({"model": "planes"}), "model_unknown"),
            (
                json!({"model": "planes", "type": "DELETE"}),
                "model_unknown",
            ),
            (json!({"model": "notes"}), "model_elsewhere"),
            (json!({"model": "people"}), "model_elsewhere"),
            (json!({"data": {"id": "b"}}), "id_mismatch"),
            (json!({"data": {"n": "one"}}), "field_type"),
            (json!({"data": 7}), "event_invalid"),
        ];
        for (changes, reason) in cases {
            let (event, names) = judged(&event(&changes));
            assert_eq!(event.change.unwrap_err().reason, reason, "{changes}");
            assert_eq!((event.id.as_deref(), names.len()), (Some("e"), 0));
        }
    }

    #[test]
    fn what_fits_is_a_change_with_the_commits_that_it_names() {
        let named = json!({
            "organizationId": "acme", "clientTxId": "t", "correlationId": "t", "transactionId": "o",
        });
        let (fits, names) = judged(&event(&named));
        let change = fits.change.unwrap();
        assert_eq!(
            (change.id.as_str(), change.transaction_id.as_deref()),
            ("a", Some("o"))
        );
        assert_eq!(names, ["t"]);
        // Columns that the model does not declare, or that have no value, are the customer's.
        let (wide, _) = judged(&event(&json!({"data": {"m": 1, "n": null}})));
        assert_eq!(
            wide.change.unwrap().row,
            Some(json!({"id": "a", "m": 1, "n": null}).try_into().unwrap())
        );
        let (_, names) = judged(&event(&json!({"clientTxId": "t", "correlationId": "c"})));
        assert_eq!(names, ["t", "c"]);
        let (numbered, _) = judged(&event(&json!({"entityId": 7, "data": {"id": 7}})));
        let row = json!({"id": 7}).try_into().unwrap();
        assert_eq!(numbered.change.unwrap().row, Some(row));
        let (bare, _) = judged(&event(&json!({"data": null})));
        assert!(bare.bare && bare.change.is_ok());
        let (gone, _) = judged(&event(&json!({"type": "DELETE", "data": {"id": "a"}})));
        assert_eq!((gone.bare, gone.change.unwrap().row), (false, None));
    }

    #[test]
    fn an_event_without_an_id_of_its_own_is_known_by_a_hash() {
        let long = "é".repeat(256);
        let (hashed, _) = judged(&event(&json!({"id": long})));
        let id = hashed.id.unwrap();
        assert!(id.starts_with("sha256:") && id.len() == 71 && hashed.change.is_err());
        assert_ne!(event_id(&Ok(json!(7))), event_id(&Ok(json!(8))));
        assert_eq!(event_id(&Ok(json!({"id": 7}))), "7");
        let huge = json!({"id": "e", "x": "é".repeat(KEPT)});
        let misfit = judged(&huge).0.change.unwrap_err();
        assert!(misfit.event.len() <= KEPT && misfit.event.len() > KEPT - 4);
    }

    #[test]
    fn an_event_that_cannot_be_read_is_a_misfit_with_its_text() {
        let judge = Judge {
            organization: &OrganizationId::new("acme"),
            source: "crm",
            schema: None,
        };
        let judged = |id: Option<&str>| {
            let unreadable = Unreadable {
                id: id.map(str::to_owned),
                text: r#"{"id":"e","s":"\u0000"}"#.to_owned(),
                rule: "s: a rule".to_owned(),
            };
            let (event, names) = judge.event(&Err(unreadable));
            assert!(names.is_empty());
            (event.id.unwrap(), event.change.unwrap_err())
        };
        let (id, misfit) = judged(Some("e"));
        assert_eq!(
            (id.as_str(), misfit.reason.as_str()),
            ("e", "event_invalid")
        );
        assert_eq!(misfit.message, "s: a rule");
        assert_eq!(misfit.event, r#"{"id":"e","s":"\u0000"}"#);
        assert!(judged(None).0.starts_with("sha256:"));
    }
}
