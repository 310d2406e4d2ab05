//! One model of a schema, compiled: what its rows must look like, and where they live.

use std::collections::BTreeSet;
use std::fmt;

use backends::json::{MAX_BYTES, MAX_FIELDS, extent};
use jsonschema::Validator;
use serde_json::{Map, Value};

use super::sync_group::Template;
use super::text;
use crate::refusal::Refusal;

pub(super) mod fault;

/// Where the rows of a model live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// In the coordinator's Postgres.
    Managed,
    /// Behind the Data Source with this id.
    Source(String),
}

/// One field of a row that breaks a rule of its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// Path within the row, `limits.max[3]` say; empty for the row as a whole.
    pub field: String,
    /// `field_unknown`, `field_type`, `field_required`, `field_invalid` or `row_too_large`.
    pub reason: &'static str,
    /// The rule, for a person; at most a few hundred characters.
    pub rule: String,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.rule),
            field => write!(f, "{field}: {}", self.rule),
        }
    }
}

impl FieldFault {
    /// The refusal of the operation whose input is at fault.
    pub fn refusal(self, operation: usize, model: &str) -> Refusal {
        let input = format!("operations[{operation}].input_json");
        Refusal::field(self.reason, text::joined(&input, &self.field), self.rule)
            .at_operation(operation)
            .with("model", model)
            .with("field", self.field)
    }
}

/// A model, ready to check rows.
pub struct Model {
    /// Its name in the schema.
    pub name: String,
    /// Where its rows live.
    pub backing: Backing,
    pub(super) shape: Shape,
    pub(super) groups: Vec<Template>,
}

/// What the rows of a model must look like.
pub(super) struct Shape {
    /// The declared fields, and `id`.
    pub(super) fields: BTreeSet<String>,
    /// Whether rows may have other fields.
    pub(super) open: bool,
    /// Checks a row.
    pub(super) row: Validator,
    /// Checks each field that is there by its own schema, and nothing else.
    pub(super) each_field: Validator,
}

impl Model {
    /// Checks a whole row, `id` included: every CREATE, and what an UPDATE of a managed row
    /// comes to.
    ///
    /// A field that the model does not declare is unknown, unless its `additionalProperties` is
    /// `true` or a schema.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check_row(&self, row: &Map<String, Value>) -> Result<(), FieldFault> {
        self.check_value(&Value::Object(row.clone()))
    }

    /// Checks the fields of an UPDATE one by one, each by its own schema: what they come to
    /// together is the backing's to judge.
    ///
    /// # Errors
    /// The first rule that one breaks.
    pub fn check_fields(&self, fields: &Map<String, Value>) -> Result<(), FieldFault> {
        self.check_field_values(&Value::Object(fields.clone()))
    }

    /// Checks a row, an object, that a Data Source holds, whoever tells: its answer, its feed, a load, an operator.
    /// A declared field that is not null has a type that its
    /// own schema takes. The rest is the customer's: rows that are older than a rule, columns that
    /// the model does not declare, columns without a value.
    ///
    /// # Errors
    /// The first field of a wrong type.
    pub fn check_held(&self, row: &Value) -> Result<(), FieldFault> {
        // Of a row that keeps all rules of its fields one look tells so.
        if self.check_field_values(row).is_ok() {
            return Ok(());
        }
        let judged = |(field, value): &(&String, &Value)| {
            *field != "id" && !value.is_null() && self.declares(field)
        };
        let fields = row.as_object().into_iter().flatten();
        for (field, value) in fields.filter(judged) {
            let alone = Value::Object(Map::from_iter([(field.clone(), value.clone())]));
            match self.check_field_values(&alone) {
                Err(fault) if fault.reason == "field_type" => return Err(fault),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether rows may have this field.
    pub fn has_field(&self, name: &str) -> bool {
        self.declares(name) || (self.shape.open && text::is_name(name))
    }

    /// Whether the schema names this field.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.shape.fields.contains(name)
    }

    /// The sync groups that a row belongs to, by name, besides its organization's own. A template whose
    /// fields are absent or null gives none.
    pub fn groups(&self, row: &Map<String, Value>) -> Vec<String> {
        let groups = self.groups.iter();
        let mut groups: Vec<_> = groups.filter_map(|template| template.group(row)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// As [`Self::check_row`], of an object.
    pub(crate) fn check_value(&self, row: &Value) -> Result<(), FieldFault> {
        self.check_names(row)?;
        if extent(row) > MAX_BYTES {
            let rule = format!(
                "a row is longer than {MAX_BYTES} bytes as it is stored, its numbers written out \
                 without exponents"
            );
            return Err(FieldFault {
                field: String::new(),
                reason: "row_too_large",
                rule,
            });
        }
        self.shape
            .row
            .validate(row)
            .map_err(|error| fault::of(&error))
    }

    /// As [`Self::check_fields`], of an object.
    pub(super) fn check_field_values(&self, fields: &Value) -> Result<(), FieldFault> {
        self.check_names(fields)?;
        self.shape
            .each_field
            .validate(fields)
            .map_err(|error| fault::of(&error))
    }

    fn check_names(&self, row: &Value) -> Result<(), FieldFault> {
        let names = row.as_object().map(|row| row.keys()).into_iter().flatten();
        if let Some(unknown) = names.clone().find(|name| !self.has_field(name)) {
            let rule = format!("{} has no field {}", self.name, text::quoted(unknown));
            let field = unknown.chars().take(text::MAX_CHARACTERS).collect();
            return Err(FieldFault {
                field,
                reason: "field_unknown",
                rule,
            });
        }
        if names.count() > MAX_FIELDS {
            let rule = format!("a row has more than {MAX_FIELDS} fields");
            return Err(FieldFault {
                field: String::new(),
                reason: "row_too_large",
                rule,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("backing", &self.backing)
            .field("fields", &self.shape.fields)
            .field("open", &self.shape.open)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
