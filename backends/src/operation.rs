//! What a commit is made of, and what comes of it, whatever holds the rows.

use crate::json::Document;
use serde_json::{Map, Value};

/// What an operation does to its row.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OperationKind {
    /// Adds the row.
    Create,
    /// Replaces the fields that the input names.
    Update,
    /// Removes the row.
    Delete,
    /// Hides the row from List.
    Archive,
    /// Shows an archived row again.
    Unarchive,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::Archive,
        Self::Unarchive,
    ];

    /// The kind's name on every wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Archive => "ARCHIVE",
            Self::Unarchive => "UNARCHIVE",
        }
    }

    /// The kind of that name; none for another spelling.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What to do when the row has changed after `read_at`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnStale {
    /// Refuse the commit.
    #[default]
    Reject,
    /// Apply all the same.
    Force,
    /// Apply, and mark the receipt and the delta.
    Flag,
}

/// One change of one row, as asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What it does.
    pub kind: OperationKind,
    /// The row's model.
    pub model: String,
    /// The row's id; assigned before dispatch when the caller gave none.
    pub id: String,
    /// The fields to set, as the caller gave them; empty for DELETE, ARCHIVE and UNARCHIVE.
    pub input: Map<String, Value>,
    /// The caller's name for this operation.
    pub transaction_id: Option<String>,
    /// The sync id that the writer's view of the row rests on.
    pub read_at: Option<i64>,
    /// Has a meaning only with `read_at`.
    pub on_stale: OnStale,
}

impl Operation {
    /// The row that it touches.
    pub fn key(&self) -> RowKey {
        RowKey {
            model: self.model.clone(),
            id: self.id.clone(),
        }
    }

    /// Whether it asks for nothing: an UPDATE that names no field but `id`. Such an operation is
    /// not sent to a Data Source.
    pub fn is_empty_update(&self) -> bool {
        self.kind == OperationKind::Update && self.input.keys().all(|field| field == "id")
    }
}

/// Names one row of an organization.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RowKey {
    /// The row's model.
    pub model: String,
    /// The row's id.
    pub id: String,
}

/// One confirmed change of one row: what becomes a delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Position of the operation that it answers; none for a change that the Data Source reported
    /// on another row.
    pub operation: Option<usize>,
    /// What was done.
    pub kind: OperationKind,
    /// The row's model.
    pub model: String,
    /// The row's id.
    pub id: String,
    /// The row as its backing holds it, with its `id`; none after a DELETE.
    pub row: Option<Document>,
    /// The operation's own name, or the Data Source's.
    pub transaction_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::OperationKind;

    #[test]
    fn every_kind_has_one_name() {
        for kind in OperationKind::ALL {
            assert_eq!(OperationKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(OperationKind::parse("create"), None);
        assert_eq!(OperationKind::parse(""), None);
    }
}
