//! Operations as JSON, in the shape that Data Sources see.

use proto::v1;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One operation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    kind: String,
    model: String,
    #[serde(default)]
    id: String,
    input: Option<Map<String, Value>>,
    #[serde(default)]
    transaction_id: String,
    read_at: Option<i64>,
    on_stale: Option<String>,
}

/// A line of a file of commits: its id, if it says one, and its operations.
pub(super) fn parse_line(text: &str) -> Result<(Option<String>, Vec<v1::Operation>), String> {
    let mut value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let id = match value
        .as_object_mut()
        .and_then(|object| object.remove("clientTxId"))
    {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err("clientTxId is not a string".to_owned()),
    };
    Ok((id, operations(value)?))
}

/// An array of operations, an object that holds one as `operations`, or one operation.
pub(super) fn parse(text: &str) -> Result<Vec<v1::Operation>, String> {
    operations(serde_json::from_str(text).map_err(|error| error.to_string())?)
}

fn operations(value: Value) -> Result<Vec<v1::Operation>, String> {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut object) => match object.remove("operations") {
            Some(Value::Array(list)) if object.is_empty() => list,
            Some(_) => return Err("an object with operations has nothing beside them".to_owned()),
            None => vec![Value::Object(object)],
        },
        _ => return Err("neither an operation nor an array of them".to_owned()),
    };
    let read =
        |(index, value)| operation(value).map_err(|rule| format!("operation {index}: {rule}"));
    list.into_iter().enumerate().map(read).collect()
}

fn operation(value: Value) -> Result<v1::Operation, String> {
    let written: Written = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let kind = format!("OPERATION_TYPE_{}", written.kind);
    let kind = v1::OperationType::from_str_name(&kind)
        .ok_or_else(|| format!("`{}` is not a type of operation", written.kind))?;
    let on_stale = match written.on_stale.as_deref() {
        None => v1::OnStale::Unspecified,
        Some("reject") => v1::OnStale::Reject,
        Some("force") => v1::OnStale::Force,
        Some("flag") => v1::OnStale::Flag,
        Some(other) => return Err(format!("`{other}` is not reject, force or flag")),
    };
    let input = written.input.map(|input| Value::Object(input).to_string());
    Ok(v1::Operation {
        r#type: kind.into(),
        model: written.model,
        id: written.id,
        input_json: input.unwrap_or_default().into(),
        transaction_id: written.transaction_id,
        read_at: written.read_at,
        on_stale: on_stale.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_many_and_a_named_commit_are_read() {
        let one = r#"{"type":"CREATE","model":"notes","id":"n1","input":{"n":1.10}}"#;
        let operation = &parse(one).unwrap()[0];
        assert_eq!(operation.r#type(), v1::OperationType::Create);
        assert_eq!(
            operation.input_json,
            br#"{"n":1.10}"#.as_slice(),
            "numbers keep their digits"
        );
        assert_eq!(parse(&format!("[{one},{one}]")).unwrap().len(), 2);
        assert_eq!(
            parse(&format!(r#"{{"operations":[{one}]}}"#))
                .unwrap()
                .len(),
            1
        );

        let (id, operations) =
            parse_line(&format!(r#"{{"clientTxId":"t1","operations":[{one}]}}"#)).unwrap();
        assert_eq!((id.as_deref(), operations.len()), (Some("t1"), 1));
        let (id, _) = parse_line(&format!(r#"{{"clientTxId":"t2",{}"#, &one[1..])).unwrap();
        assert_eq!(id.as_deref(), Some("t2"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_operation() {
        for (text, rule) in [
            ("{", "EOF"),
            ("3", "neither an operation"),
            (
                r#"[{"type":"UPSERT","model":"m"}]"#,
                "operation 0: `UPSERT` is not a type",
            ),
            (r#"{"type":"CREATE"}"#, "missing field `model`"),
            (
                r#"{"type":"CREATE","model":"m","inputs":{}}"#,
                "unknown field `inputs`",
            ),
            (
                r#"{"type":"UPDATE","model":"m","onStale":"notify"}"#,
                "`notify` is not reject",
            ),
            (r#"{"operations":[],"more":1}"#, "nothing beside"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(rule), "{text}: {found}");
        }
        assert!(
            parse_line(r#"{"clientTxId":7}"#)
                .unwrap_err()
                .contains("not a string")
        );
    }
}
