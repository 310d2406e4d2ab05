//! What the validator found, as refusals.

use std::fmt::Write;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::paths::{Location, LocationSegment};

use super::FieldFault;

/// The longest path and the longest rule, in characters.
const MAX_TEXT: usize = 300;

/// The fault that an error of the validator stands for. Its rule quotes no value of the row.
pub(in crate::admit) fn of(error: &ValidationError<'_>) -> FieldFault {
    let mut field = path(error.instance_path());
    let reason = match error.kind() {
        Kind::Required { property } => {
            field = super::text::joined(&field, property.as_str().unwrap_or_default());
            "field_required"
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            field = super::text::joined(&field, unexpected.first().map_or("", String::as_str));
            "field_unknown"
        }
        Kind::Type { .. } => "field_type",
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } if all_types(error, context) => {
            "field_type"
        }
        _ => "field_invalid",
    };
    FieldFault {
        field: cut(field),
        reason,
        rule: cut(error.masked().to_string()),
    }
}

/// A place in JSON, as in `a.b[3]`.
pub(in crate::admit) fn path(location: &Location) -> String {
    let mut path = String::new();
    for segment in location {
        match segment {
            LocationSegment::Index(index) => {
                write!(path, "[{index}]").expect("a String takes every text");
            }
            LocationSegment::Property(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            }
        }
    }
    path
}

/// Whether every alternative was refused for the type of this very value, as when a nullable
/// number is given a string.
fn all_types(error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>]) -> bool {
    context.iter().flatten().all(|inner| {
        matches!(inner.kind(), Kind::Type { .. }) && inner.instance_path() == error.instance_path()
    })
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
