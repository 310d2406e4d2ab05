//! What the sample rows give to write.

use backends::json;
use serde_json::{Map, Value};

use super::finding::{Finding, ensure};

/// More significant digits than any binary double keeps.
const BEYOND_DOUBLE: usize = 18;

/// The sample rows, without their ids; at least one.
#[derive(Debug)]
pub(super) struct Sample(Vec<Map<String, Value>>);

impl Sample {
    pub(super) fn new(mut rows: Vec<Map<String, Value>>) -> Self {
        for row in &mut rows {
            row.remove("id");
        }
        Self(rows)
    }

    /// What a CREATE writes.
    pub(super) fn row(&self) -> Map<String, Value> {
        self.0[0].clone()
    }

    /// What UPDATEs may write to the created row, each differing from the one before.
    pub(super) fn changes(&self) -> Result<[Map<String, Value>; 2], Finding> {
        if let [first, second, ..] = self.0.as_slice()
            && first != second
        {
            return Ok([second.clone(), first.clone()]);
        }
        let untried = |_| {
            let needed = "a second --row that differs, or a row with a text field, is needed";
            Finding::Untried(needed.to_owned())
        };
        let first = self.text("first change").map_err(untried)?;
        Ok([first, self.text("second change").map_err(untried)?])
    }

    /// A change that writes this text to a text field.
    pub(super) fn text(&self, text: &str) -> Result<Map<String, Value>, Finding> {
        let field = self.0[0].iter().find(|(_, value)| value.is_string());
        match field {
            Some((field, _)) => Ok(Map::from_iter([(field.clone(), text.into())])),
            None => Err(Finding::Untried(
                "a --row with a text field is needed".to_owned(),
            )),
        }
    }

    /// The fields whose numbers a double cannot hold.
    pub(super) fn exact_numbers(&self) -> Result<Map<String, Value>, Finding> {
        let row = self.0[0].iter();
        let exact: Map<_, _> = row
            .filter(|(_, value)| matches!(value, Value::Number(number) if is_long(number.as_str())))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        if exact.is_empty() {
            return Err(Finding::Untried(format!(
                "a --row with a number of {BEYOND_DOUBLE} digits or more is needed, as \
                 9007199254740993.01"
            )));
        }
        Ok(exact)
    }
}

/// Fails unless a row has every field of `input`; numbers as near as a double tells. Digits are a
/// check of their own.
pub(super) fn carries(row: &Map<String, Value>, input: &Map<String, Value>) -> Result<(), Finding> {
    let near = |found: &Value, wanted: &Value| match (found, wanted) {
        (Value::Number(found), Value::Number(wanted)) => found.as_f64() == wanted.as_f64(),
        _ => json::same(found, wanted),
    };
    compare(row, input, near)
}

/// Fails unless a row has every field of `input`, to the last digit.
pub(super) fn carries_exactly(
    row: &Map<String, Value>,
    input: &Map<String, Value>,
) -> Result<(), Finding> {
    compare(row, input, json::same)
}

fn compare(
    row: &Map<String, Value>,
    input: &Map<String, Value>,
    same: impl Fn(&Value, &Value) -> bool,
) -> Result<(), Finding> {
    for (field, wanted) in input {
        let found = row.get(field).unwrap_or(&Value::Null);
        ensure(same(found, wanted), || {
            format!("{field} was written as {wanted} and came back as {found}")
        })?;
    }
    Ok(())
}

fn is_long(number: &str) -> bool {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.chars().filter(char::is_ascii_digit);
    digits.skip_while(|digit| *digit == '0').count() >= BEYOND_DOUBLE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        json::parse_object(text.as_bytes()).unwrap()
    }

    #[test]
    fn changes_come_from_the_second_row_or_from_a_text_field() {
        let (first, second) = (object(r#"{"id": "x", "n": 1}"#), object(r#"{"n": 2}"#));
        let both = Sample::new(vec![first.clone(), second.clone()]);
        assert_eq!(both.row(), object(r#"{"n": 1}"#));
        assert_eq!(both.changes().unwrap(), [second, object(r#"{"n": 1}"#)]);
        assert!(matches!(
            Sample::new(vec![first]).changes(),
            Err(Finding::Untried(_))
        ));
        let [one, other] = Sample::new(vec![object(r#"{"n": 1, "t": "x"}"#)])
            .changes()
            .unwrap();
        assert_ne!(one, other);
        assert!(one.contains_key("t") && !one.contains_key("n"));
    }

    #[test]
    fn only_numbers_that_no_double_holds_test_digits() {
        let row = r#"{"a": 0.000000000000000001, "b": 31.953764720000000000010, "c": 1e300}"#;
        let exact = Sample::new(vec![object(row)]).exact_numbers().unwrap();
        assert_eq!(exact.keys().collect::<Vec<_>>(), ["b"]);
        let short = Sample::new(vec![object(r#"{"a": 1.5}"#)]);
        assert!(matches!(short.exact_numbers(), Err(Finding::Untried(_))));
    }

    #[test]
    fn a_row_carries_what_was_written_nearly_or_exactly() {
        let written = object(r#"{"n": 9007199254740993, "t": "x"}"#);
        let near = object(r#"{"id": "1", "n": 9007199254740992, "t": "x"}"#);
        assert!(carries(&near, &written).is_ok());
        assert!(carries_exactly(&near, &written).is_err());
        assert!(carries(&object(r#"{"n": 9007199254740993}"#), &written).is_err());
    }
}
