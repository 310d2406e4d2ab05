use backends::operation::OnStale;

use super::*;

fn schema() -> Schema {
    let fields = json!({
        "type": "object",
        "properties": {"n": {"type": "number"}},
        "required": ["n"],
    });
    let models = json!({"airports": {"backing": {"dataSource": "crm"}, "schema": fields}});
    Schema::compile(1, json!({"models": models}).to_string().as_bytes()).unwrap()
}

fn operation(kind: OperationKind, id: &str) -> Operation {
    let input = if kind == OperationKind::Delete {
        json!({})
    } else {
        json!({"n": 1})
    };
    Operation {
        kind,
        model: "airports".to_owned(),
        id: id.to_owned(),
        input: input.as_object().cloned().unwrap(),
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    }
}

fn fit(operations: &[Operation], rows: &[&'static str]) -> Result<Vec<Change>, Refusal> {
    let rows: Vec<Bytes> = rows
        .iter()
        .map(|row| Bytes::from_static(row.as_bytes()))
        .collect();
    fitted(operations, &rows, &schema())
}

#[test]
fn rows_become_the_changes_that_an_endpoint_would_have_told() {
    let operations = [
        operation(OperationKind::Update, "a"),
        operation(OperationKind::Delete, "b"),
    ];
    for gone in ["", r#"{"id":"b"}"#] {
        let changes = fit(&operations, &[r#"{"id":"a","n":1.50}"#, gone]).unwrap();
        let row = changes[0].row.as_ref().unwrap();
        assert_eq!(row.text(), r#"{"id":"a","n":1.50}"#);
        assert_eq!(changes[1].row, None);
    }
    // Columns that the model does not declare, or that have no value, are the customer's.
    let update = [operation(OperationKind::Update, "a")];
    for row in [r#"{"id":"a"}"#, r#"{"id":"a","m":2,"n":null}"#] {
        let changes = fit(&update, &[row]).unwrap();
        let told = changes[0].row.as_ref().map(|row| row.text().to_owned());
        assert_eq!(told.as_deref(), Some(row));
    }
    let deletes = [operation(OperationKind::Delete, "b")];
    assert_eq!(fit(&deletes, &[""]).unwrap().len(), 1);
}

#[test]
fn rows_that_do_not_fit_are_refused_with_the_place() {
    let update = [operation(OperationKind::Update, "a")];
    for (rows, field) in [
        (&[][..], "applied.rows_json"),
        (&[""], "applied.rows_json[0]"),
        (&["[]"], "applied.rows_json[0]"),
        (&["{}],\"deltas\":[{}"], "applied.rows_json[0]"),
        (&[r#"{"id":"a","n":"x"}"#], "applied.rows_json[0].n"),
        (&[r#"{"id":"other","n":1}"#], "applied.rows_json"),
    ] {
        let refusal = fit(&update, rows).unwrap_err();
        assert_eq!(refusal.reason, "rows_mismatched", "{rows:?}");
        assert_eq!(refusal.violations[0].field, field, "{rows:?}");
    }
}
