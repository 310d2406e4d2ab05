//! What an operation does to a row that the coordinator itself holds. Pure: state in, effect out.

use serde_json::{Map, Value};

use crate::json::Document;
use crate::operation::{Operation, OperationKind};

/// A row as the coordinator holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedRow {
    /// Its fields; `id` is one of them.
    pub row: Document,
    /// Whether List leaves it out.
    pub archived: bool,
}

/// What becomes of the row.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing: no delta either.
    Unchanged,
    /// It is this from now on.
    Put(ManagedRow),
    /// It is gone.
    Remove,
}

/// Why an operation cannot be applied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// CREATE of a row that exists, archived or not.
    Exists,
    /// UPDATE, ARCHIVE or UNARCHIVE of a row that does not exist.
    NotFound,
}

/// Applies one operation to the row as it is now.
///
/// The row's `id` is always the operation's: a field `id` of the input is not written.
///
/// # Errors
/// A [`Refusal`]; then the row stays as it is.
pub fn apply(current: Option<&ManagedRow>, operation: &Operation) -> Result<Effect, Refusal> {
    match (operation.kind, current) {
        (OperationKind::Create, Some(_)) => Err(Refusal::Exists),
        (OperationKind::Create, None) => Ok(Effect::Put(ManagedRow {
            row: merged(Map::new(), operation),
            archived: false,
        })),
        (OperationKind::Delete, Some(_)) => Ok(Effect::Remove),
        (OperationKind::Delete, None) => Ok(Effect::Unchanged),
        (_, None) => Err(Refusal::NotFound),
        (OperationKind::Update, Some(_)) if operation.is_empty_update() => Ok(Effect::Unchanged),
        (OperationKind::Update, Some(row)) => Ok(Effect::Put(ManagedRow {
            row: merged(Map::clone(&row.row), operation),
            archived: row.archived,
        })),
        (OperationKind::Archive, Some(row)) => Ok(moved(row, true)),
        (OperationKind::Unarchive, Some(row)) => Ok(moved(row, false)),
    }
}

fn merged(mut row: Map<String, Value>, operation: &Operation) -> Document {
    row.extend(operation.input.clone());
    row.insert("id".to_owned(), Value::from(operation.id.as_str()));
    row.into()
}

fn moved(row: &ManagedRow, archived: bool) -> Effect {
    if row.archived == archived {
        Effect::Unchanged
    } else {
        Effect::Put(ManagedRow {
            row: row.row.clone(),
            archived,
        })
    }
}

#[cfg(test)]
mod tests;
