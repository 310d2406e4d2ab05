//! Schemas that must not be.

use proto::v1::{GetSchemaRequest, ListSchemaVersionsRequest, PushSchemaRequest};
use tonic::Code;

use super::house::{House, SCHEMA};
use super::refusal::{Refusal, field, refused};

#[tokio::test]
async fn a_document_that_is_no_schema_is_refused_with_its_path() {
    let house = House::furnished().await;
    let push = async |request| house.schemas().push(request).await;
    house.refuses(documents(), push).await;
    house.close().await;
}

#[tokio::test]
async fn a_schema_that_the_state_forbids_is_refused() {
    let house = House::furnished().await;
    let managed = SCHEMA.replace(r#""backing": {"dataSource": "crm"}, "#, "");
    let elsewhere = SCHEMA.replace("\"crm\"", "\"erp\"");
    let behind = SCHEMA.replacen(
        r#""notes": {"#,
        r#""notes": {"backing": {"dataSource": "crm"}, "#,
        1,
    );
    let precondition = |reason| refused(Code::FailedPrecondition, reason);
    let cases = vec![
        (
            "a source that does not exist",
            pushed(&elsewhere),
            precondition("source_unknown"),
        ),
        (
            "a model with rows dropped",
            pushed(r#"{"models":{}}"#),
            precondition("schema_drops_rows"),
        ),
        (
            "a source's model moved",
            pushed(&managed),
            precondition("schema_moves_rows"),
        ),
        (
            "a managed model moved",
            pushed(&behind),
            precondition("schema_moves_rows"),
        ),
    ];
    let push = async |request| house.schemas().push(request).await;
    house.refuses(cases, push).await;
    house.close().await;
}

#[tokio::test]
async fn a_version_that_is_asked_for_badly_is_refused() {
    let house = House::furnished().await;
    let get = async |version| house.schemas().get(GetSchemaRequest { version }).await;
    let cases = vec![
        (
            "a negative version",
            -1,
            field("version_invalid", "version"),
        ),
        (
            "a version to come",
            2,
            refused(Code::NotFound, "schema_not_found"),
        ),
    ];
    house.refuses(cases, get).await;
    let page = |page_size, page_token: &str| ListSchemaVersionsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let cases = vec![
        (
            "a negative page",
            page(-1, ""),
            field("page_size_invalid", "page_size"),
        ),
        (
            "a token of nobody's",
            page(1, "AQ"),
            field("page_token_invalid", "page_token"),
        ),
    ];
    let list = async |request| house.schemas().list_versions(request).await;
    house.refuses(cases, list).await;
    house.close().await;
}

fn documents() -> Vec<(&'static str, PushSchemaRequest, Refusal)> {
    let object = r#"{"type":"object"}"#;
    let model = |entry: &str| format!(r#"{{"models":{{"m":{entry}}}}}"#);
    let schema = |schema: &str| model(&format!(r#"{{"schema":{schema}}}"#));
    let backed = |backing: &str| model(&format!(r#"{{"backing":{backing},"schema":{object}}}"#));
    let groups = |groups: &str| model(&format!(r#"{{"schema":{object},"syncGroups":{groups}}}"#));
    let named = |name: &str| format!(r#"{{"models":{{"{name}":{{"schema":{object}}}}}}}"#);
    let long = "m".repeat(64);
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let documents: Vec<(&str, String, String)> = [
        ("nothing", String::new(), ""),
        ("no JSON", "{".to_owned(), ""),
        ("a list", "[]".to_owned(), ""),
        ("more than 1 MiB", large, ""),
        (
            "equal models",
            r#"{"models":{"m":{},"m":{}}}"#.to_owned(),
            "models.m",
        ),
        ("no models", "{}".to_owned(), "models"),
        ("models in a list", r#"{"models":[]}"#.to_owned(), "models"),
        (
            "a key that nobody knows",
            r#"{"models":{},"version":1}"#.to_owned(),
            "",
        ),
        ("a model's name with a dot", named("a.b"), "models.`a.b`"),
        ("a model without a name", named(""), "models.``"),
        (
            "a model's name with a digit first",
            named("1a"),
            "models.`1a`",
        ),
        (
            "a model's name that is too long",
            named(&long),
            &format!("models.`{long}`"),
        ),
        ("a model that is a text", model("\"notes\""), "models.m"),
        ("a model without a schema", model("{}"), "models.m.schema"),
        (
            "a model with a key that nobody knows",
            model(&format!(r#"{{"schema":{object},"table":"t"}}"#)),
            "models.m",
        ),
        (
            "a backing that nobody knows",
            backed("\"postgres\""),
            "models.m.backing",
        ),
        (
            "a source that is a number",
            backed(r#"{"dataSource":7}"#),
            "models.m.backing",
        ),
        (
            "a source and more",
            backed(r#"{"dataSource":"crm","table":"t"}"#),
            "models.m.backing",
        ),
        ("a schema that is true", schema("true"), "models.m.schema"),
        (
            "a schema of lists",
            schema(r#"{"type":"array"}"#),
            "models.m.schema.type",
        ),
        (
            "an older dialect",
            schema(r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}"#),
            "models.m.schema.$schema",
        ),
        (
            "patterns of fields",
            schema(r#"{"type":"object","patternProperties":{}}"#),
            "models.m.schema.patternProperties",
        ),
        (
            "properties in a list",
            schema(r#"{"type":"object","properties":[]}"#),
            "models.m.schema.properties",
        ),
        (
            "an id that is a number",
            schema(r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#),
            "models.m.schema.properties.id.type",
        ),
        (
            "a field without a name",
            schema(r#"{"type":"object","properties":{"":{}}}"#),
            "models.m.schema.properties.``",
        ),
        (
            "a type that nobody knows",
            schema(r#"{"type":"object","properties":{"a":{"type":"date"}}}"#),
            "models.m.schema.properties.a.type",
        ),
        (
            "a limit that is a text",
            schema(r#"{"type":"object","properties":{"a":{"maximum":"1"}}}"#),
            "models.m.schema.properties.a.maximum",
        ),
        (
            "a reference to a file",
            schema(r#"{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}"#),
            "models.m.schema.properties.a.$ref",
        ),
        (
            "a reference to the network",
            schema(r#"{"type":"object","allOf":[{"$ref":"http://127.0.0.1/"}]}"#),
            "models.m.schema.allOf[0].$ref",
        ),
        (
            "groups that are a text",
            groups("\"g\""),
            "models.m.syncGroups",
        ),
        (
            "a group that is a number",
            groups("[\"g\",1]"),
            "models.m.syncGroups[1]",
        ),
        (
            "a group with half a brace",
            groups("[\"g:{id\"]"),
            "models.m.syncGroups[0]",
        ),
        (
            "a group of an unknown field",
            groups("[\"g:{nope}\"]"),
            "models.m.syncGroups[0]",
        ),
    ]
    .map(|(name, document, path)| (name, document, path.to_owned()))
    .into();
    let case = |(name, document, path): (&'static str, String, String)| {
        let dot = if path.is_empty() { "" } else { "." };
        let place = format!("document_json{dot}{path}");
        (name, pushed(&document), field("schema_invalid", &place))
    };
    documents.into_iter().map(case).collect()
}

fn pushed(document: &str) -> PushSchemaRequest {
    PushSchemaRequest {
        document_json: document.to_owned().into(),
        force: false,
    }
}
