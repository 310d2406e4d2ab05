//! Conditions as people write them: `temp_max >= 30`, `name ILIKE '%bay%'`, `closed IS null`.

use proto::v1;
use serde_json::Value;

/// Longest first, so that `<=` is not read as `<`; words are followed by a space.
const OPERATORS: [(&str, v1::Operator); 14] = [
    ("NOT ILIKE", v1::Operator::NotIlike),
    ("NOT LIKE", v1::Operator::NotLike),
    ("NOT IN", v1::Operator::NotIn),
    ("IS NOT", v1::Operator::IsNot),
    ("ILIKE", v1::Operator::Ilike),
    ("LIKE", v1::Operator::Like),
    ("IN", v1::Operator::In),
    ("IS", v1::Operator::Is),
    ("!=", v1::Operator::Ne),
    ("<=", v1::Operator::Le),
    (">=", v1::Operator::Ge),
    ("=", v1::Operator::Eq),
    ("<", v1::Operator::Lt),
    (">", v1::Operator::Gt),
];

/// Reads `field op value`. The value is JSON; what is not JSON is a string, quotes around it or not.
pub(super) fn parse(text: &str) -> Result<v1::Condition, String> {
    let rule = || format!("`{text}` is not a condition: write 'field op value'");
    let text = text.trim();
    let end = text
        .find(|c: char| c.is_whitespace() || "!=<>".contains(c))
        .filter(|end| *end > 0)
        .ok_or_else(rule)?;
    let (field, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let found = OPERATORS.iter().find_map(|(sign, operator)| {
        let (head, value) = (rest.get(..sign.len())?, &rest[sign.len()..]);
        let word = sign.starts_with(char::is_alphabetic);
        let ends = !word || value.is_empty() || value.starts_with([' ', '\t', '[', '\'', '"']);
        (head.eq_ignore_ascii_case(sign) && ends).then_some((*operator, value.trim()))
    });
    let (operator, value) = found.ok_or_else(rule)?;
    if value.is_empty() {
        return Err(rule());
    }
    Ok(v1::Condition {
        field: field.to_owned(),
        operator: operator.into(),
        value_json: json(value).into(),
    })
}

fn json(value: &str) -> String {
    if serde_json::from_str::<Value>(value).is_ok() {
        return value.to_owned();
    }
    let quoted = value
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''));
    Value::from(quoted.unwrap_or(value)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_read_as_people_write_them() {
        for (text, field, operator, value) in [
            ("temp_max >= 30", "temp_max", v1::Operator::Ge, "30"),
            ("temp_max>=30.10", "temp_max", v1::Operator::Ge, "30.10"),
            ("id=SEA", "id", v1::Operator::Eq, "\"SEA\""),
            (
                "name = 'New York'",
                "name",
                v1::Operator::Eq,
                "\"New York\"",
            ),
            (
                "name = \"New York\"",
                "name",
                v1::Operator::Eq,
                "\"New York\"",
            ),
            (
                "name not ilike %bay%",
                "name",
                v1::Operator::NotIlike,
                "\"%bay%\"",
            ),
            (
                "kind IN [\"a\",\"b\"]",
                "kind",
                v1::Operator::In,
                "[\"a\",\"b\"]",
            ),
            ("closed IS NOT null", "closed", v1::Operator::IsNot, "null"),
            ("closed is null", "closed", v1::Operator::Is, "null"),
            ("a != -1", "a", v1::Operator::Ne, "-1"),
            ("island < 3", "island", v1::Operator::Lt, "3"),
        ] {
            let condition = parse(text).unwrap();
            assert_eq!(condition.field, field, "{text}");
            assert_eq!(condition.operator(), operator, "{text}");
            assert_eq!(condition.value_json, value.as_bytes(), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_rule() {
        for text in [
            "",
            "name",
            "name =",
            "= 3",
            "name ~ x",
            "name INside x",
            "name is",
        ] {
            assert!(
                parse(text).unwrap_err().contains("field op value"),
                "{text}"
            );
        }
    }
}
