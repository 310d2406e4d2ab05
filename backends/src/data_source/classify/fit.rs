//! Whether a 200's body fits the commit, and which changes it then tells.
//!
//! Deltas name their rows and win; `rows` carry no model and are matched by position, or by id. A
//! body that leaves any doubt about an operation fits nothing: no subscriber is told of a row that
//! the endpoint did not clearly answer for.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::Document;

use crate::data_source::wire::{Row, fields, id_text, sent};
use crate::operation::{Change, Operation, OperationKind};

/// The changes that a body tells, or why it does not fit.
pub(super) fn changes(
    body: &[u8],
    operations: &[Operation],
    known_models: &[String],
) -> Result<Vec<Change>, String> {
    let mut answer = fields(body).map_err(|fault| fault.to_string())?;
    let rows = array(&mut answer, "rows")?;
    let deltas = array(&mut answer, "deltas")?;
    if rows.is_none() && deltas.is_none() {
        return Err("the answer has neither `rows` nor `deltas`".to_owned());
    }
    let wanted: Vec<(usize, &Operation)> = sent(operations).collect();
    let mut changes = Vec::new();
    for (index, delta) in deltas.unwrap_or_default().into_iter().enumerate() {
        take_delta(delta, &wanted, known_models, &mut changes)
            .map_err(|rule| format!("deltas[{index}]: {rule}"))?;
    }
    let open: Vec<(usize, &Operation)> = wanted
        .iter()
        .filter(|(index, _)| {
            changes
                .iter()
                .all(|change| change.operation != Some(*index))
        })
        .copied()
        .collect();
    let needs_rows = open
        .iter()
        .any(|(_, operation)| operation.kind != OperationKind::Delete);
    // Rows beside deltas that say all are not looked at.
    let mut matched = match rows {
        Some(rows) if needs_rows || changes.is_empty() => match_rows(rows, &wanted)?,
        Some(_) | None => BTreeMap::new(),
    };
    for (index, operation) in open {
        let row = match operation.kind {
            OperationKind::Delete => None,
            _ => Some(matched.remove(&index).ok_or_else(|| {
                format!("the answer does not say what became of operation {index}")
            })?),
        };
        changes.push(change(index, operation, row, None));
    }
    Ok(changes)
}

fn array(answer: &mut Row, field: &str) -> Result<Option<Vec<Value>>, String> {
    match answer.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(format!("`{field}` is not an array")),
    }
}

/// Adds what one delta tells. A later delta of an operation's row takes the earlier one's place.
fn take_delta(
    delta: Value,
    wanted: &[(usize, &Operation)],
    known_models: &[String],
    changes: &mut Vec<Change>,
) -> Result<(), String> {
    let Value::Object(mut delta) = delta else {
        return Err("not an object".to_owned());
    };
    let data = delta.remove("data").filter(|data| !data.is_null());
    let text = |field: &str| delta.get(field).and_then(Value::as_str);
    let model = text("model").ok_or("`model` is missing")?;
    let id = delta
        .get("id")
        .and_then(id_text)
        .ok_or("`id` is missing or not an id")?;
    let kind = text("type")
        .and_then(OperationKind::parse)
        .ok_or("`type` is not an operation's")?;
    let transaction_id = text("transactionId").map(ToOwned::to_owned);
    let row = match (kind, data) {
        (OperationKind::Delete, _) | (_, None) => None,
        (_, Some(Value::Object(row))) => Some(checked_row(row, id)?),
        (_, Some(_)) => return Err("`data` is not an object".to_owned()),
    };
    let named = wanted
        .iter()
        .find(|(_, wanted)| wanted.model == model && wanted.id == id);
    if let Some((index, operation)) = named {
        if !answers(kind, operation.kind) {
            return Err(format!(
                "{} for a row that is in {}",
                kind.as_str(),
                operation.kind.as_str()
            ));
        }
        changes.retain(|change| change.operation != Some(*index));
        if row.is_some() || kind == OperationKind::Delete {
            changes.push(change(*index, operation, row, transaction_id));
        }
        return Ok(());
    }
    if !known_models.iter().any(|known| known == model) {
        return Err("its model is not one of this source".to_owned());
    }
    if row.is_none() && kind != OperationKind::Delete {
        return Err("`data` is missing".to_owned());
    }
    changes.push(Change {
        operation: None,
        kind,
        model: model.to_owned(),
        id: id.to_owned(),
        row: row.map(Document::from),
        transaction_id,
    });
    Ok(())
}

/// Whether a delta of that kind can be the trace of that operation: handlers upsert, and tell of
/// archiving as of any other field. Only a DELETE removes.
fn answers(delta: OperationKind, operation: OperationKind) -> bool {
    use OperationKind::{Archive, Create, Delete, Unarchive, Update};
    match operation {
        Create | Update => matches!(delta, Create | Update),
        Delete => delta == Delete,
        Archive => matches!(delta, Archive | Update),
        Unarchive => matches!(delta, Unarchive | Update),
    }
}

/// The row that answers each operation, by the operation's position in the commit.
fn match_rows(
    rows: Vec<Value>,
    wanted: &[(usize, &Operation)],
) -> Result<BTreeMap<usize, Row>, String> {
    let in_place = rows.len() == wanted.len()
        && rows.iter().zip(wanted).all(|(row, (_, operation))| {
            let missing = row.is_null() && operation.kind == OperationKind::Delete;
            missing || row.get("id").and_then(id_text) == Some(operation.id.as_str())
        });
    let mut matched = BTreeMap::new();
    for (place, row) in rows.into_iter().enumerate() {
        let Value::Object(row) = row else {
            if in_place {
                continue;
            }
            return Err(format!("rows[{place}] is not an object"));
        };
        let id = row
            .get("id")
            .and_then(id_text)
            .ok_or(format!("rows[{place}] has no `id`"))?;
        let mut of_that_id = wanted.iter().filter(|(_, operation)| operation.id == id);
        let index = match (in_place, of_that_id.next(), of_that_id.next()) {
            (true, _, _) => wanted[place].0,
            (false, Some((index, _)), None) => *index,
            (false, None, _) => return Err(format!("rows[{place}] is not a row of the commit")),
            (false, Some(_), Some(_)) => {
                return Err(format!("rows[{place}] could be either of two rows"));
            }
        };
        let id = id.to_owned();
        let row = checked_row(row, &id).map_err(|rule| format!("rows[{place}]: {rule}"))?;
        if matched.insert(index, row).is_some() {
            return Err(format!(
                "rows[{place}] is the second row for operation {index}"
            ));
        }
    }
    Ok(matched)
}

/// A row that carries its id, and no field that would change what an object is elsewhere.
fn checked_row(mut row: Row, id: &str) -> Result<Row, String> {
    if row.contains_key("__proto__") {
        return Err("a row with a field `__proto__`".to_owned());
    }
    match row.get("id") {
        None => {
            row.insert("id".to_owned(), Value::from(id));
            Ok(row)
        }
        Some(own) if id_text(own) == Some(id) => Ok(row),
        Some(_) => Err("the row's `id` is another one".to_owned()),
    }
}

fn change(
    index: usize,
    operation: &Operation,
    row: Option<Row>,
    transaction_id: Option<String>,
) -> Change {
    Change {
        operation: Some(index),
        kind: operation.kind,
        model: operation.model.clone(),
        id: operation.id.clone(),
        row: row.map(Document::from),
        transaction_id: operation.transaction_id.clone().or(transaction_id),
    }
}
