//! What a new schema takes away from the rows that the old one had.

use super::schema::Schema;

/// The models whose rows would be left behind by a change of schema.
///
/// They matter only while they have rows or pending commits: then the push is refused with
/// `schema_drops_rows` or `schema_moves_rows`, unless forced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Models that the new schema no longer has.
    pub dropped: Vec<String>,
    /// Models whose backing changes.
    pub moved: Vec<String>,
}

impl Losses {
    /// Compares two schemas; the lists are sorted by name.
    pub fn between(old: &Schema, new: &Schema) -> Self {
        let mut losses = Self::default();
        for (name, model) in &old.models {
            match new.model(name) {
                None => losses.dropped.push(name.clone()),
                Some(kept) if kept.backing != model.backing => losses.moved.push(name.clone()),
                Some(_) => {}
            }
        }
        losses
    }

    /// Whether nothing is dropped or moved.
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.moved.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Losses, Schema};

    fn schema(backings: &[(&str, Value)]) -> Schema {
        let model = |backing: &Value| json!({"backing": backing, "schema": {"type": "object"}});
        let models: Value = backings
            .iter()
            .map(|(name, backing)| (*name, model(backing)))
            .collect();
        Schema::compile(1, json!({"models": models}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn models_that_go_or_move_are_named() {
        let (managed, crm) = (json!("managed"), json!({"dataSource": "crm"}));
        let other = json!({"dataSource": "erp"});
        let old = schema(&[
            ("a", managed.clone()),
            ("b", managed.clone()),
            ("c", crm.clone()),
            ("d", crm.clone()),
        ]);
        let new = schema(&[
            ("a", managed.clone()),
            ("b", crm),
            ("c", other),
            ("e", managed),
        ]);
        let losses = Losses::between(&old, &new);
        assert_eq!(losses.dropped, ["d"]);
        assert_eq!(losses.moved, ["b", "c"]);
        assert!(Losses::between(&new, &new).is_empty());
    }
}
