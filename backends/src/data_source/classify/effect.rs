//! Whether a row that was loaded afterwards shows that an operation took effect.

use serde_json::{Map, Value};

use crate::json::same;
use crate::operation::{Change, Operation, OperationKind};

/// The change that a loaded row proves, for an attempt whose answer did not fit; none when the row
/// does not carry the operation's effect.
///
/// A DELETE is proved by the row's absence, a CREATE or UPDATE by a row in which every field of
/// the input has the input's value, numbers by value. ARCHIVE and UNARCHIVE cannot be seen in a
/// row. `index` is the operation's position in its commit.
pub fn change_from_load(
    index: usize,
    operation: &Operation,
    loaded: Option<&Map<String, Value>>,
) -> Option<Change> {
    let row = match (operation.kind, loaded) {
        (OperationKind::Delete, None) => None,
        (OperationKind::Create | OperationKind::Update, Some(row)) if carries(row, operation) => {
            Some(row.clone().into())
        }
        _ => return None,
    };
    Some(Change {
        operation: Some(index),
        kind: operation.kind,
        model: operation.model.clone(),
        id: operation.id.clone(),
        row,
        transaction_id: operation.transaction_id.clone(),
    })
}

fn carries(row: &Map<String, Value>, operation: &Operation) -> bool {
    let asked = operation.input.iter().filter(|(field, _)| *field != "id");
    // A null that was asked for may be kept as a field that is absent.
    asked
        .into_iter()
        .all(|(field, value)| same(row.get(field).unwrap_or(&Value::Null), value))
}
