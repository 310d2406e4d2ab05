//! A model's JSON Schema, compiled into the two checks that a row meets.

use std::collections::BTreeSet;
use std::fmt::Write;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value, json};

use super::Invalid;
use crate::admit::model::{Shape, fault};
use crate::admit::text;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The name that the fields' schemas are found under while they are compiled.
const BASE: &str = "urn:coordinator:row";

/// How often a pattern may backtrack before a value is refused.
const BACKTRACK_LIMIT: usize = 20_000;

/// The largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 20;

/// Compiles the schema of a model's rows.
///
/// # Errors
/// What is wrong with it, by path from the schema.
pub(super) fn of(schema: &Map<String, Value>) -> Result<Shape, Invalid> {
    check_root(schema)?;
    let mut schema = schema.clone();
    // Every reference is local, so the root's own name is of no use; BASE takes its place.
    schema.remove("$id");
    check_references(&schema, &mut String::new())?;

    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    let Value::Object(properties) = properties else {
        return Err(Invalid::new("properties", "must be an object"));
    };
    check_id(properties)?;
    let fields = properties.keys().cloned().collect::<BTreeSet<_>>();
    if let Some(field) = fields.iter().find(|field| !text::is_name(field)) {
        let path = format!("properties.{}", text::quoted(field));
        let rule = "a field's name is 1 to 255 characters without control characters";
        return Err(Invalid::new(path, rule));
    }
    let open = schema
        .get("additionalProperties")
        .is_some_and(|more| *more != Value::Bool(false));
    let row = compile(&Value::Object(schema.clone()))?;
    let each_field = compile(&field_by_field(&fields, open, schema))?;
    Ok(Shape {
        fields,
        open,
        row,
        each_field,
    })
}

fn check_root(schema: &Map<String, Value>) -> Result<(), Invalid> {
    if schema
        .get("$schema")
        .is_some_and(|dialect| dialect != DIALECT)
    {
        return Err(Invalid::new(
            "$schema",
            format!("must be absent or \"{DIALECT}\""),
        ));
    }
    if schema.get("type") != Some(&Value::from("object")) {
        return Err(Invalid::new("type", "must be \"object\""));
    }
    if schema.contains_key("patternProperties") {
        let rule = "is not supported here: name the fields in `properties`, or allow any with \
                    `additionalProperties`";
        return Err(Invalid::new("patternProperties", rule));
    }
    Ok(())
}

/// Every model has the field `id`, and it is a string.
fn check_id(properties: &mut Map<String, Value>) -> Result<(), Invalid> {
    let id = properties
        .entry("id")
        .or_insert_with(|| json!({"type": "string"}));
    match id.get("type") {
        Some(kind) if kind != "string" => {
            Err(Invalid::new("properties.id.type", "must be \"string\""))
        }
        _ => Ok(()),
    }
}

/// Nothing is ever fetched: a reference that leaves the schema is refused.
fn check_references(schema: &Map<String, Value>, path: &mut String) -> Result<(), Invalid> {
    for (key, value) in schema {
        let length = path.len();
        path.push_str(if path.is_empty() { "" } else { "." });
        path.push_str(key);
        if let ("$ref" | "$dynamicRef", Value::String(target)) = (key.as_str(), value)
            && !target.starts_with('#')
        {
            return Err(Invalid::new(
                path.as_str(),
                "must point into this schema, with `#`",
            ));
        }
        check_references_in(value, path)?;
        path.truncate(length);
    }
    Ok(())
}

fn check_references_in(value: &Value, path: &mut String) -> Result<(), Invalid> {
    match value {
        Value::Object(schema) => check_references(schema, path),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            let length = path.len();
            write!(path, "[{index}]").expect("a String takes every text");
            check_references_in(item, path)?;
            path.truncate(length);
            Ok(())
        }),
        _ => Ok(()),
    }
}

/// A schema that checks each field by its own schema in `row`, and asks for nothing else: no field
/// is required, and no rule looks at two fields at once.
fn field_by_field(fields: &BTreeSet<String>, open: bool, mut row: Map<String, Value>) -> Value {
    let properties: Map<_, _> = fields
        .iter()
        .map(|field| {
            (
                field.clone(),
                json!({"$ref": format!("{BASE}#/properties/{}", pointer(field))}),
            )
        })
        .collect();
    row.insert("$id".to_owned(), Value::from(BASE));
    let mut schema = json!({"type": "object", "properties": properties, "$defs": {"row": row}});
    if open {
        schema["additionalProperties"] = json!({"$ref": format!("{BASE}#/additionalProperties")});
    }
    schema
}

/// A field's name as one segment of a JSON Pointer in a URI's fragment (RFC 6901, section 6).
fn pointer(field: &str) -> String {
    let mut segment = String::new();
    for byte in field.bytes() {
        match byte {
            b'~' => segment.push_str("~0"),
            b'/' => segment.push_str("~1"),
            byte if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) => {
                segment.push(char::from(byte));
            }
            byte => write!(segment, "%{byte:02X}").expect("a String takes every text"),
        }
    }
    segment
}

fn compile(schema: &Value) -> Result<Validator, Invalid> {
    let patterns = PatternOptions::fancy_regex()
        .backtrack_limit(BACKTRACK_LIMIT)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE);
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(patterns)
        .build(schema)
        .map_err(|error| invalid(&error))
}

fn invalid(error: &ValidationError<'_>) -> Invalid {
    let fault = fault::of(error);
    Invalid::new(fault.field, fault.rule)
}
