//! What a subscriber asks to see.

use std::collections::BTreeSet;

use super::schema::Schema;
use super::text;
use crate::refusal::{Class, Refusal};

/// The most models, and the most sync groups, that a filter may name.
const MAX_NAMES: usize = 100;

/// Models and sync groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Models; all when empty.
    pub models: BTreeSet<String>,
    /// Sync groups; all rows when empty.
    pub groups: BTreeSet<String>,
}

impl Filter {
    /// Checks a filter against the schema; `None` when none has been pushed.
    ///
    /// # Errors
    /// `too_many`, `model_unknown`, `sync_group_invalid`, `schema_missing`.
    pub fn of(
        models: &[String],
        groups: &[String],
        schema: Option<&Schema>,
    ) -> Result<Self, Refusal> {
        for (field, names) in [("models", models), ("sync_groups", groups)] {
            if names.len() > MAX_NAMES {
                let rule = format!("must be at most {MAX_NAMES}");
                return Err(Refusal::field("too_many", field, rule));
            }
        }
        for (index, name) in models.iter().enumerate() {
            let schema = schema.ok_or_else(|| {
                let message = "no schema has been pushed yet";
                Refusal::new(Class::Precondition, "schema_missing", message)
            })?;
            if schema.model(name).is_none() {
                let rule = format!("the schema has no model {}", text::quoted(name));
                let field = format!("models[{index}]");
                return Err(Refusal::field("model_unknown", field, rule));
            }
        }
        for (index, group) in groups.iter().enumerate() {
            let field = format!("sync_groups[{index}]");
            text::printable("sync_group_invalid", &field, group)?;
        }
        Ok(Self {
            models: models.iter().cloned().collect(),
            groups: groups.iter().cloned().collect(),
        })
    }

    /// Whether changes of this model are asked for.
    pub fn takes_model(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.contains(model)
    }

    /// Whether rows in these groups are asked for.
    pub fn takes_groups(&self, groups: &[String]) -> bool {
        self.groups.is_empty() || self.names_one_of(groups)
    }

    /// Whether one of these groups is asked for by name.
    pub fn names_one_of(&self, groups: &[String]) -> bool {
        groups.iter().any(|group| self.groups.contains(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_filter_names_what_exists() {
        let schema = Schema::compile(
            1,
            br#"{"models": {"notes": {"schema": {"type": "object"}}}}"#,
        );
        let schema = schema.unwrap();
        let of = |models: &[&str], groups: &[&str]| {
            Filter::of(&names(models), &names(groups), Some(&schema))
        };
        assert!(of(&["notes"], &["a", "b"]).is_ok());
        assert_eq!(of(&["nots"], &[]).unwrap_err().reason, "model_unknown");
        assert_eq!(of(&[], &["a\n"]).unwrap_err().reason, "sync_group_invalid");
        let many = vec!["a"; 101];
        assert_eq!(of(&[], &many).unwrap_err().reason, "too_many");
        let none = Filter::of(&names(&["notes"]), &[], None).unwrap_err();
        assert_eq!(none.reason, "schema_missing");
        assert_eq!(Filter::of(&[], &[], None), Ok(Filter::default()));
    }

    #[test]
    fn an_empty_filter_takes_everything() {
        let all = Filter::default();
        assert!(all.takes_model("notes") && all.takes_groups(&[]));
        assert!(!all.names_one_of(&names(&["a"])));
        let some = Filter {
            groups: BTreeSet::from(["a".to_owned()]),
            ..Filter::default()
        };
        assert!(some.takes_groups(&names(&["b", "a"])));
        assert!(!some.takes_groups(&names(&["b"])) && !some.takes_groups(&[]));
    }
}
