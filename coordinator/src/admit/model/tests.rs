use serde_json::{Map, Value, json};

use super::{FieldFault, Model};
use crate::admit::Schema;

fn compiled(schema: &str) -> Schema {
    let document = format!(r#"{{"models": {{"reports": {{"schema": {schema}}}}}}}"#);
    Schema::compile(1, document.as_bytes()).unwrap()
}

fn row(text: &str) -> Map<String, Value> {
    backends::json::parse_object(text.as_bytes()).unwrap()
}

fn verdict(result: Result<(), FieldFault>) -> Option<(&'static str, String)> {
    result.err().map(|fault| (fault.reason, fault.field))
}

fn of_row(model: &Model, text: &str) -> Option<(&'static str, String)> {
    verdict(model.check_row(&row(text)))
}

fn of_fields(model: &Model, text: &str) -> Option<(&'static str, String)> {
    verdict(model.check_fields(&row(text)))
}

#[expect(clippy::unnecessary_wraps, reason = "compared with a verdict")]
fn fault(reason: &'static str, field: &str) -> Option<(&'static str, String)> {
    Some((reason, field.to_owned()))
}

const REPORT: &str = r##"{
    "type": "object",
    "required": ["date"],
    "properties": {
        "date": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"},
        "temp_max": {"anyOf": [{"type": "number", "maximum": 60}, {"type": "null"}]},
        "count": {"type": "integer", "maximum": 9007199254740993},
        "price": {"type": "number", "multipleOf": 0.01},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        "parent": {"$ref": "#"}
    },
    "$defs": {"tag": {"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}}, "additionalProperties": false}}
}"##;

#[test]
fn a_row_is_checked_whole_and_the_fault_is_named() {
    let schema = compiled(REPORT);
    let model = schema.model("reports").unwrap();
    assert_eq!(
        of_row(
            model,
            r#"{"id": "r1", "date": "2012-01-01", "temp_max": null}"#
        ),
        None
    );
    assert_eq!(
        of_row(model, r#"{"id": "r1"}"#),
        fault("field_required", "date")
    );
    assert_eq!(of_row(model, r#"{"date": 1}"#), fault("field_type", "date"));
    assert_eq!(
        of_row(model, r#"{"date": "today"}"#),
        fault("field_invalid", "date")
    );
    assert_eq!(
        of_row(model, r#"{"date": "2012-01-01", "x": 1}"#),
        fault("field_unknown", "x")
    );
    let nested = r#"{"date": "2012-01-01", "tags": [{"name": "a"}, {}]}"#;
    assert_eq!(
        of_row(model, nested),
        fault("field_required", "tags[1].name")
    );
    let unknown = r#"{"date": "2012-01-01", "tags": [{"name": "a", "b": 1}]}"#;
    assert_eq!(of_row(model, unknown), fault("field_unknown", "tags[0].b"));
}

#[test]
fn a_value_that_no_alternative_takes_for_its_type_is_a_fault_of_type() {
    let schema = compiled(REPORT);
    let model = schema.model("reports").unwrap();
    assert_eq!(
        of_fields(model, r#"{"temp_max": "warm"}"#),
        fault("field_type", "temp_max")
    );
    assert_eq!(
        of_fields(model, r#"{"temp_max": 61}"#),
        fault("field_invalid", "temp_max")
    );
}

#[test]
fn fields_are_checked_one_by_one_without_the_others() {
    let schema = compiled(REPORT);
    let model = schema.model("reports").unwrap();
    assert_eq!(of_fields(model, r#"{"count": 1}"#), None);
    assert_eq!(
        of_fields(model, r#"{"count": 1.5}"#),
        fault("field_type", "count")
    );
    assert_eq!(
        of_fields(model, r#"{"other": 1}"#),
        fault("field_unknown", "other")
    );
    // A field's own rules hold to their full depth, through references too.
    assert_eq!(
        of_fields(model, r#"{"parent": {}}"#),
        fault("field_required", "parent.date")
    );
    assert_eq!(
        of_fields(model, r#"{"tags": [{}]}"#),
        fault("field_required", "tags[0].name")
    );
    assert_eq!(of_fields(model, r#"{"id": 7}"#), fault("field_type", "id"));
}

#[test]
fn a_row_that_a_source_holds_has_the_declared_types_and_is_free_otherwise() {
    let schema = compiled(REPORT);
    let model = schema.model("reports").unwrap();
    let of_held = |text| verdict(model.check_held(&Value::Object(row(text))));
    for held in [
        r#"{"id": 7}"#,
        r#"{"id": "r1", "date": null, "count": null, "column": [1]}"#,
        r#"{"id": "r1", "date": "long ago", "temp_max": 61, "price": 0.001}"#,
        r#"{"id": "r1", "tags": [{"name": "a", "colour": "red"}]}"#,
    ] {
        assert_eq!(of_held(held), None, "{held}");
    }
    assert_eq!(
        of_held(r#"{"id": "r1", "date": "long ago", "temp_max": "warm"}"#),
        fault("field_type", "temp_max")
    );
    assert_eq!(
        of_held(r#"{"id": "r1", "tags": [{"name": 1}]}"#),
        fault("field_type", "tags[0].name")
    );
}

#[test]
fn numbers_are_judged_by_their_exact_value() {
    let schema = compiled(REPORT);
    let model = schema.model("reports").unwrap();
    assert_eq!(of_fields(model, r#"{"count": 9007199254740993}"#), None);
    assert_eq!(
        of_fields(model, r#"{"count": 9007199254740994}"#),
        fault("field_invalid", "count")
    );
    assert_eq!(
        of_fields(model, r#"{"price": 12345678901234567890.01}"#),
        None
    );
    let finer = r#"{"price": 12345678901234567890.001}"#;
    assert_eq!(of_fields(model, finer), fault("field_invalid", "price"));
    assert_eq!(of_fields(model, r#"{"count": 1.0}"#), None);
}

#[test]
fn field_names_may_hold_any_printable_character() {
    let schema = compiled(
        r#"{"type": "object", "properties": {
            "a/b~c": {"type": "integer"}, "größe %": {"type": "integer"}, "a.b": {"type": "integer"}
        }}"#,
    );
    let model = schema.model("reports").unwrap();
    assert_eq!(
        of_fields(model, r#"{"a/b~c": 1, "größe %": 1, "a.b": 1}"#),
        None
    );
    for field in ["a/b~c", "größe %", "a.b"] {
        assert_eq!(
            of_fields(model, &format!(r#"{{"{field}": "x"}}"#)),
            fault("field_type", field)
        );
    }
}

#[test]
fn a_model_may_be_open_to_other_fields() {
    let open = compiled(r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#);
    let model = open.model("reports").unwrap();
    assert!(model.has_field("anything") && !model.has_field("a\u{7}"));
    for check in [of_row, of_fields] {
        assert_eq!(check(model, r#"{"id": "a", "x": 1}"#), None);
        assert_eq!(
            check(model, r#"{"id": "a", "x": "1"}"#),
            fault("field_type", "x")
        );
        assert_eq!(
            check(model, r#"{"a\u0007": 1}"#),
            fault("field_unknown", "a\u{7}")
        );
    }
    let closed = compiled(r#"{"type": "object", "additionalProperties": false}"#);
    let model = closed.model("reports").unwrap();
    assert_eq!(of_row(model, r#"{"id": "a"}"#), None);
    assert_eq!(
        of_row(model, r#"{"id": "a", "x": 1}"#),
        fault("field_unknown", "x")
    );
}

#[test]
fn a_pattern_that_backtracks_without_end_refuses_the_value() {
    let schema = compiled(
        r#"{"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=(a+)+$)b"}}}"#,
    );
    let model = schema.model("reports").unwrap();
    let text = format!(r#"{{"a": "{}!"}}"#, "a".repeat(5_000));
    assert_eq!(of_fields(model, &text), fault("field_invalid", "a"));
}

#[test]
fn a_schema_that_refers_to_itself_comes_to_an_end() {
    let schema = compiled(r##"{"type": "object", "allOf": [{"$ref": "#"}], "$ref": "#"}"##);
    assert_eq!(
        of_row(schema.model("reports").unwrap(), r#"{"id": "a"}"#),
        None
    );
}

#[test]
fn merged_rows_stay_within_bounds() {
    let schema = compiled(r#"{"type": "object", "additionalProperties": true}"#);
    let model = schema.model("reports").unwrap();
    let wide: Map<_, _> = (0..1_001).map(|n| (format!("f{n}"), json!(n))).collect();
    assert_eq!(verdict(model.check_row(&wide)), fault("row_too_large", ""));
    let half = "x".repeat(600_000);
    let long = json!({"a": half, "b": half});
    assert_eq!(
        verdict(model.check_row(long.as_object().unwrap())),
        fault("row_too_large", "")
    );
}

#[test]
fn a_rule_quotes_no_value_of_the_row() {
    let schema = compiled(REPORT);
    let fault = schema
        .model("reports")
        .unwrap()
        .check_row(&row(r#"{"date": "secret"}"#));
    let fault = fault.unwrap_err();
    assert!(!fault.rule.contains("secret"), "{}", fault.rule);
    let refusal = fault.refusal(2, "reports");
    assert_eq!(refusal.violations[0].field, "operations[2].input_json.date");
    assert_eq!(
        refusal.metadata,
        [
            ("operation", "2".to_owned()),
            ("model", "reports".to_owned()),
            ("field", "date".to_owned())
        ]
    );
}
