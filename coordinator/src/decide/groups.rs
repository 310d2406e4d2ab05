//! The sync groups of changes: where a row is after a change, and what it left by it.

use backends::operation::{Change, OperationKind, RowKey};
use serde_json::{Map, Value};

use super::append::Append;
use super::state::State;
use crate::admit::schema::Schema;

/// Whom a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Groups of the row after the change; after a DELETE, those that it was in.
    pub groups: Vec<String>,
    /// Groups that the row left by the change.
    pub left: Vec<String>,
}

impl Membership {
    /// What a change of this kind means for a row that was in the groups `before` and is in `after`.
    pub(super) fn of(kind: OperationKind, before: Vec<String>, after: Vec<String>) -> Self {
        if kind == OperationKind::Delete {
            return Self {
                groups: before,
                left: Vec::new(),
            };
        }
        let mut left = before;
        left.retain(|group| !after.contains(group));
        Self {
            groups: after,
            left,
        }
    }
}

/// The groups of a row by its model's templates.
pub(super) fn of_row(schema: &Schema, model: &str, row: &Map<String, Value>) -> Vec<String> {
    let model = schema.model(model);
    model.map_or_else(Vec::new, |model| model.groups(row))
}

/// Whom a change of a row in a Data Source concerns. The row before is not kept: its groups are, and
/// this notes the new ones. The row must be among [`super::Touched::groups`].
pub(super) fn of_source_change(
    state: &mut State,
    append: &mut Append,
    change: &Change,
) -> Membership {
    let key = RowKey {
        model: change.model.clone(),
        id: change.id.clone(),
    };
    let before = state.groups.get(&key).cloned().unwrap_or_default();
    let after = match (&state.schema, &change.row) {
        _ if change.kind == OperationKind::Delete => Vec::new(),
        (Some(schema), Some(row)) => of_row(schema, &change.model, row),
        // Nothing shows that it moved.
        _ => before.clone(),
    };
    if after != before {
        append.groups.insert(key.clone(), after.clone());
        state.grouped = true;
        state.groups.insert(key, after.clone());
    }
    Membership::of(change.kind, before, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_row_that_moves_leaves_what_it_was_in_and_nothing_else() {
        let moved = Membership::of(
            OperationKind::Update,
            groups(&["a", "b"]),
            groups(&["b", "c"]),
        );
        assert_eq!(moved.groups, ["b", "c"]);
        assert_eq!(moved.left, ["a"]);
    }

    #[test]
    fn a_removal_concerns_the_groups_that_the_row_was_in() {
        let removed = Membership::of(OperationKind::Delete, groups(&["a"]), Vec::new());
        assert_eq!(removed.groups, ["a"]);
        assert!(removed.left.is_empty());
    }
}
