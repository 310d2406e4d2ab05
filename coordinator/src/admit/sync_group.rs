//! The groups that a row belongs to, from its model's templates.

use serde_json::{Map, Value};

use super::text::is_printable;

/// The longest template, in bytes.
const MAX_TEMPLATE: usize = 255;

/// A group's name with places for fields: `station:{stationId}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// Reads a template. A brace that stands for itself cannot be written.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_TEMPLATE || !is_printable(text) {
            return Err("must be 1 to 255 printable characters");
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (field, behind) = after.split_once('}').ok_or("has a `{` without its `}`")?;
            if before.contains('}') || field.contains('{') || field.is_empty() {
                return Err("must name one field between each `{` and `}`");
            }
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(field.to_owned()));
            rest = behind;
        }
        if rest.contains('}') {
            return Err("has a `}` without its `{`");
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The fields that it names.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The row's group; none when a field is absent, null, or not a scalar, or when the name that
    /// results is not 1 to 255 printable characters. Numbers stand as they are written.
    pub(super) fn group(&self, row: &Map<String, Value>) -> Option<String> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(field) => match row.get(field)? {
                    Value::String(text) => name.push_str(text),
                    Value::Number(number) => name.push_str(number.as_str()),
                    Value::Bool(word) => name.push_str(if *word { "true" } else { "false" }),
                    Value::Null | Value::Array(_) | Value::Object(_) => return None,
                },
            }
        }
        is_printable(&name).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Template;

    fn group(template: &str, row: Value) -> Option<String> {
        let Value::Object(row) = row else {
            panic!("a row is an object")
        };
        Template::parse(template).unwrap().group(&row)
    }

    #[test]
    fn fields_take_their_places() {
        let row = json!({"stationId": "S1", "zone": 4, "open": true});
        assert_eq!(
            group("station:{stationId}", row.clone()),
            Some("station:S1".to_owned())
        );
        assert_eq!(
            group("{zone}/{open}", row.clone()),
            Some("4/true".to_owned())
        );
        assert_eq!(group("everyone", row), Some("everyone".to_owned()));
    }

    #[test]
    fn a_row_without_the_field_is_in_no_group() {
        for row in [
            json!({}),
            json!({"a": null}),
            json!({"a": []}),
            json!({"a": "\n"}),
        ] {
            assert_eq!(group("g:{a}", row), None);
        }
    }

    #[test]
    fn a_template_with_loose_braces_is_refused() {
        for text in ["", "{", "}", "a{b", "a}b", "{}", "{{a}}", "{a{b}}", "a\n"] {
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
    }
}
