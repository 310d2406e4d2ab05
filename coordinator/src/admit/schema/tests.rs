use serde_json::json;

use super::Schema;
use crate::admit::Backing;
use crate::refusal::Refusal;

fn compile(document: &str) -> Result<Schema, Refusal> {
    Schema::compile(3, document.as_bytes())
}

fn model(entry: &str) -> String {
    format!(r#"{{"models": {{"m": {entry}}}}}"#)
}

#[test]
fn a_document_names_models_backings_and_groups() {
    let schema = compile(
        r#"{"models": {
            "reports": {"schema": {"type": "object", "properties": {"station": {"type": "string"}}},
                        "syncGroups": ["station:{station}", "id:{id}"]},
            "contacts": {"backing": {"dataSource": "crm"},
                         "schema": {"$schema": "https://json-schema.org/draft/2020-12/schema",
                                    "$id": "https://example.com/contacts", "type": "object"}},
            "notes": {"backing": "managed", "schema": {"type": "object"}}
        }}"#,
    )
    .unwrap();
    assert_eq!(schema.version, 3);
    assert_eq!(schema.sources().into_iter().collect::<Vec<_>>(), ["crm"]);
    assert_eq!(schema.models_of("crm"), ["contacts"]);
    assert_eq!(schema.models_of("hr"), [""; 0]);
    assert_eq!(schema.model("notes").unwrap().backing, Backing::Managed);
    let reports = schema.model("reports").unwrap();
    assert_eq!(reports.backing, Backing::Managed);
    let row = json!({"id": "r1", "station": "S"});
    assert_eq!(
        reports.groups(row.as_object().unwrap()),
        ["id:r1", "station:S"]
    );
    assert!(schema.model("airports").is_none());
}

#[test]
fn equal_documents_have_one_text() {
    let one = compile(r#"{"models":{"m":{"schema":{"type":"object"},"backing":"managed"}}}"#);
    let other =
        compile(r#" {"models": {"m": {"backing": "managed", "schema": {"type": "object"}}}}"#);
    assert_eq!(
        one.unwrap().canonical_document(),
        other.unwrap().canonical_document()
    );
}

fn refused_at(cases: &[(String, &str)]) {
    for (document, path) in cases {
        let refusal = compile(document).expect_err(document);
        assert_eq!(refusal.reason, "schema_invalid", "{document}");
        assert_eq!(
            refusal.metadata,
            [("path", (*path).to_owned())],
            "{document}: {}",
            refusal.message
        );
    }
}

#[test]
fn a_faulty_document_is_refused_where_it_is_wrong() {
    let text = str::to_owned;
    let object = |more: &str| model(&format!(r#"{{"schema": {{"type": "object"}}, {more}}}"#));
    refused_at(&[
        (text(""), ""),
        (text("[]"), ""),
        (text("{}"), "models"),
        (text(r#"{"models": {}, "models": {}}"#), "models"),
        (text(r#"{"models": {}, "more": 1}"#), ""),
        (text(r#"{"models": {"1a": {}}}"#), "models.`1a`"),
        (text(r#"{"models": {"a.b": {}}}"#), "models.`a.b`"),
        (
            text(r#"{"models": {"m\"; drop table x": {}}}"#),
            "models.`m\\\"; drop table x`",
        ),
        (model("{}"), "models.m.schema"),
        (model(r#"{"schema": true}"#), "models.m.schema"),
        (object(r#""x": 1"#), "models.m"),
        (object(r#""backing": "crm""#), "models.m.backing"),
        (
            object(r#""backing": {"dataSource": ""}"#),
            "models.m.backing",
        ),
        (object(r#""syncGroups": ["{x}"]"#), "models.m.syncGroups[0]"),
        (object(r#""syncGroups": "x""#), "models.m.syncGroups"),
    ]);
}

#[test]
fn a_faulty_schema_of_a_model_is_refused_where_it_is_wrong() {
    let schema = |schema: &str| model(&format!(r#"{{"schema": {schema}}}"#));
    let object = |more: &str| schema(&format!(r#"{{"type": "object", {more}}}"#));
    let properties = |fields: &str| object(&format!(r#""properties": {fields}"#));
    let draft = r#""$schema": "http://json-schema.org/draft-07/schema#""#;
    let remote = r#"{"a": {"$ref": "https://example.com/x"}}"#;
    refused_at(&[
        (schema("{}"), "models.m.schema.type"),
        (schema(r#"{"type": "array"}"#), "models.m.schema.type"),
        (object(draft), "models.m.schema.$schema"),
        (
            object(r#""patternProperties": {}"#),
            "models.m.schema.patternProperties",
        ),
        (properties("[]"), "models.m.schema.properties"),
        (
            properties(r#"{"id": {"type": "integer"}}"#),
            "models.m.schema.properties.id.type",
        ),
        (
            properties(r#"{"a": {"type": "text"}}"#),
            "models.m.schema.properties.a.type",
        ),
        (
            properties(r#"{"a\u0001": {}}"#),
            "models.m.schema.properties.`a\\u{1}`",
        ),
        (properties(remote), "models.m.schema.properties.a.$ref"),
        (
            object(r#""allOf": [{"$ref": "file:///x"}]"#),
            "models.m.schema.allOf[0].$ref",
        ),
    ]);
}

#[test]
fn a_reference_to_nothing_and_a_broken_pattern_are_refused() {
    for fields in [
        r##"{"a": {"$ref": "#/$defs/missing"}}"##,
        r#"{"a": {"pattern": "("}}"#,
        r#"{"a": {"pattern": "(a{1000}){1000}"}}"#,
    ] {
        let schema = format!(r#"{{"schema": {{"type": "object", "properties": {fields}}}}}"#);
        let refusal = compile(&model(&schema)).expect_err(fields);
        assert_eq!(refusal.reason, "schema_invalid");
    }
}

#[test]
fn a_model_name_has_at_most_63_characters() {
    let document = |length| {
        let name = "m".repeat(length);
        format!(r#"{{"models": {{"{name}": {{"schema": {{"type": "object"}}}}}}}}"#)
    };
    assert!(compile(&document(63)).is_ok());
    assert!(compile(&document(64)).is_err());
}
