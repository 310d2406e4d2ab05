//! Which bodies of a 200 fit a commit.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Exchange, Operation, OperationKind, Outcome, commit_outcome, operation, summary};

fn told(operations: &[Operation], body: &str) -> Result<Vec<String>, String> {
    let models = ["tasks".to_owned(), "notes".to_owned()];
    match commit_outcome(
        &Exchange::answered(200, body.to_owned()),
        operations,
        &models,
    ) {
        Outcome::Applied(changes) => Ok(summary(&changes)),
        Outcome::Unknown { error } => Err(error.message),
        other => panic!("a 200 is {}", other.as_str()),
    }
}

fn create(id: &str) -> Operation {
    operation(OperationKind::Create, id, r#"{"n":1}"#)
}

fn update(id: &str) -> Operation {
    operation(OperationKind::Update, id, r#"{"n":2}"#)
}

fn delete(id: &str) -> Operation {
    operation(OperationKind::Delete, id, "{}")
}

#[test]
fn a_body_that_is_no_answer_fits_nothing() {
    let deep = format!(r#"{{"rows":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let many: Vec<_> = (0..50_000).map(|key| format!(r#""{key}":0"#)).collect();
    let many = format!(r#"{{"rows":[{{"id":"a",{}}}]}}"#, many.join(","));
    let bodies = [
        "",
        " ",
        "null",
        "true",
        "1",
        "[]",
        "\"ok\"",
        "{}",
        "{",
        "OK",
        "<!doctype html><html></html>",
        r#"{"ok":true}"#,
        r#"{"success":true,"data":{"id":"a"}}"#,
        r#"{"error":"x"}"#,
        r#"{"error":"x","rows":[{"id":"a"}]}"#,
        r#"{"rows":null}"#,
        r#"{"rows":null,"deltas":null}"#,
        r#"{"rows":{}}"#,
        r#"{"rows":"a"}"#,
        r#"{"deltas":{}}"#,
        r#"{"rows":[{"id":"a"}]} trailing"#,
        r#"{"rows":[{"id":"a"}],"rows":[]}"#,
        r#"{"__proto__":{"rows":[{"id":"a"}]}}"#,
        r#"{"rows":[{"id":"a","s":"\u0000"}]}"#,
        r#"{"rows":[{"id":"a","s":"\ud800"}]}"#,
        r#"{"rows":[{"id":"a","n":1e400}]}"#,
        r#"{"rows":[{"id":"a","n":NaN}]}"#,
        &deep,
        &many,
    ];
    for body in bodies {
        let shown: String = body.chars().take(60).collect();
        assert!(told(&[create("a")], body).is_err(), "{shown}");
    }
    let bytes = Exchange::answered(200, &b"{\"rows\":[{\"id\":\"\xff\"}]}"[..]);
    assert_eq!(
        commit_outcome(&bytes, &[create("a")], &[]).as_str(),
        "unknown"
    );
}

#[test]
fn rows_that_do_not_fit_the_operations_tell_nothing() {
    let one = [
        r#"{"rows":[]}"#,
        r#"{"rows":[null]}"#,
        r#"{"rows":["a"]}"#,
        r#"{"rows":[{}]}"#,
        r#"{"rows":[{"id":null}]}"#,
        r#"{"rows":[{"id":"b"}]}"#,
        r#"{"rows":[{"id":"A"}]}"#,
        r#"{"rows":[{"id":"a"},{"id":"b"}]}"#,
        r#"{"rows":[{"id":"a"},{"id":"a"}]}"#,
        r#"{"rows":[{"id":"a","__proto__":{}}]}"#,
        r#"{"rows":[{"id":"a","id":"a"}]}"#,
    ];
    for body in one {
        assert!(told(&[create("a")], body).is_err(), "{body}");
    }
    let two = [
        r#"{"rows":[{"id":"a"}]}"#,
        r#"{"rows":[{"id":"a"},{"id":"a"}]}"#,
        r#"{"rows":[{"id":"a"},{"id":"c"}]}"#,
        r#"{"rows":[{"id":"a"},null]}"#,
    ];
    for body in two {
        assert!(told(&[create("a"), update("b")], body).is_err(), "{body}");
    }
}

#[test]
fn rows_are_matched_by_position_or_else_by_id() {
    let operations = [create("a"), update("b")];
    let expected = [
        r#"0 CREATE tasks/a {"id":"a","n":1.50}"#,
        r#"1 UPDATE tasks/b {"id":"b"}"#,
    ];
    let bodies = [
        r#"{"rows":[{"id":"a","n":1.50},{"id":"b"}]}"#,
        r#"{"rows":[{"id":"b"},{"id":"a","n":1.50}]}"#,
    ];
    for body in bodies {
        assert_eq!(told(&operations, body).unwrap(), expected, "{body}");
    }
    let numbers = [update("7")];
    assert_eq!(
        told(&numbers, r#"{"rows":[{"id":7}]}"#).unwrap(),
        [r#"0 UPDATE tasks/7 {"id":7}"#]
    );
}

#[test]
fn equal_ids_of_two_models_need_their_positions() {
    let mut note = create("a");
    note.model = "notes".to_owned();
    let operations = [create("a"), note, delete("c")];
    let placed = r#"{"rows":[{"id":"a","t":1},{"id":"a","t":2},{"id":"c"}]}"#;
    assert_eq!(
        told(&operations, placed).unwrap(),
        [
            r#"0 CREATE tasks/a {"id":"a","t":1}"#,
            r#"1 CREATE notes/a {"id":"a","t":2}"#,
            "2 DELETE tasks/c gone",
        ]
    );
    let ambiguous = r#"{"rows":[{"id":"a","t":1},{"id":"a","t":2}]}"#;
    assert!(
        told(&operations, ambiguous)
            .unwrap_err()
            .contains("either of two rows")
    );
}

#[test]
fn the_row_of_a_delete_is_never_a_live_row() {
    let bodies = [
        r#"{"rows":[]}"#,
        r#"{"rows":[{"id":"a"}]}"#,
        r#"{"rows":[{"id":"a","n":1}]}"#,
        r#"{"rows":[null]}"#,
        r#"{"deltas":[]}"#,
        r#"{"deltas":[{"model":"tasks","id":"a","type":"DELETE","data":{"id":"a"}}]}"#,
    ];
    for body in bodies {
        assert_eq!(
            told(&[delete("a")], body).unwrap(),
            ["0 DELETE tasks/a gone"],
            "{body}"
        );
    }
    let mixed = r#"{"rows":[{"id":"b","n":2}]}"#;
    assert_eq!(
        told(&[delete("a"), update("b")], mixed).unwrap(),
        [
            "0 DELETE tasks/a gone",
            r#"1 UPDATE tasks/b {"id":"b","n":2}"#
        ]
    );
    assert!(told(&[delete("a")], r#"{"rows":[{"id":"b"}]}"#).is_err());
}

#[test]
fn an_operation_that_was_not_sent_has_no_change() {
    let empty = operation(OperationKind::Update, "a", "{}");
    assert_eq!(
        told(&[empty, create("b")], r#"{"rows":[{"id":"b"}]}"#).unwrap(),
        [r#"1 CREATE tasks/b {"id":"b"}"#]
    );
}

#[test]
fn deltas_win_over_rows() {
    let body = r#"{"rows":[{"id":"a","n":1}],"deltas":[
        {"model":"tasks","id":"a","type":"UPDATE","data":{"n":2}}]}"#;
    assert_eq!(
        told(&[create("a")], body).unwrap(),
        [r#"0 CREATE tasks/a {"id":"a","n":2}"#]
    );
}

#[test]
fn rows_supply_what_deltas_leave_out() {
    let body = r#"{"rows":[{"id":"a","n":1},{"id":"b","n":2}],"deltas":[
        {"model":"tasks","id":"b","type":"UPDATE","data":{"id":"b","n":3}},
        {"model":"tasks","id":"a","type":"CREATE"}]}"#;
    assert_eq!(
        told(&[create("a"), update("b")], body).unwrap(),
        [
            r#"1 UPDATE tasks/b {"id":"b","n":3}"#,
            r#"0 CREATE tasks/a {"id":"a","n":1}"#
        ]
    );
}

#[test]
fn changes_of_other_rows_are_told_too() {
    let body = r#"{"deltas":[
        {"model":"tasks","id":"a","type":"CREATE","data":{"id":"a"}},
        {"model":"notes","id":9,"type":"UPDATE","data":{"n":1},"transactionId":"t"},
        {"model":"notes","id":"x","type":"DELETE"}]}"#;
    assert_eq!(
        told(&[create("a")], body).unwrap(),
        [
            r#"0 CREATE tasks/a {"id":"a"}"#,
            r#"- UPDATE notes/9 {"id":"9","n":1}"#,
            "- DELETE notes/x gone",
        ]
    );
}

#[test]
fn the_last_delta_of_a_row_counts() {
    let body = r#"{"deltas":[
        {"model":"tasks","id":"a","type":"CREATE","data":{"n":1}},
        {"model":"tasks","id":"a","type":"UPDATE","data":{"n":2}}]}"#;
    assert_eq!(
        told(&[create("a")], body).unwrap(),
        [r#"0 CREATE tasks/a {"id":"a","n":2}"#]
    );
}

#[test]
fn deltas_that_do_not_fit_tell_nothing() {
    let deltas = [
        "[]",
        "[null]",
        r#"[{"model":"tasks","id":"a"}]"#,
        r#"[{"model":"tasks","id":"a","type":"UPSERT","data":{}}]"#,
        r#"[{"model":"tasks","type":"CREATE","data":{}}]"#,
        r#"[{"id":"a","type":"CREATE","data":{}}]"#,
        r#"[{"model":"tasks","id":"a","type":"CREATE"}]"#,
        r#"[{"model":"tasks","id":"a","type":"CREATE","data":[]}]"#,
        r#"[{"model":"tasks","id":"a","type":"CREATE","data":{"id":"b"}}]"#,
        r#"[{"model":"tasks","id":"a","type":"CREATE","data":{"__proto__":1}}]"#,
        r#"[{"model":"tasks","id":"a","type":"DELETE"}]"#,
        r#"[{"model":"tasks","id":"b","type":"CREATE","data":{}}]"#,
        r#"[{"model":"others","id":"a","type":"CREATE","data":{}},{"model":"tasks","id":"a","type":"CREATE","data":{}}]"#,
        r#"[{"model":"notes","id":"x","type":"UPDATE"},{"model":"tasks","id":"a","type":"CREATE","data":{}}]"#,
    ];
    for deltas in deltas {
        let body = format!(r#"{{"deltas":{deltas}}}"#);
        assert!(told(&[create("a")], &body).is_err(), "{deltas}");
    }
    let kept = r#"{"deltas":[{"model":"tasks","id":"a","type":"UPDATE","data":{}}]}"#;
    assert!(told(&[delete("a")], kept).is_err());
}

fn any_kind() -> impl Strategy<Value = OperationKind> {
    prop::sample::select(OperationKind::ALL.to_vec())
}

fn any_operations() -> impl Strategy<Value = Vec<Operation>> {
    let row = (
        "[ab]",
        any_kind(),
        prop::sample::select(vec!["tasks", "notes"]),
    );
    prop::collection::btree_map("[a-d]", row, 1..4).prop_map(|rows| {
        let operation = |(id, (value, kind, model)): (String, (String, OperationKind, &str))| {
            let input = if kind == OperationKind::Update {
                json!({ "f": value })
            } else {
                json!({})
            };
            Operation {
                model: model.to_owned(),
                ..operation(kind, &id, &input.to_string())
            }
        };
        rows.into_iter().map(operation).collect()
    })
}

fn any_body() -> impl Strategy<Value = Value> {
    let row = prop_oneof![
        8 => "[a-e]".prop_map(|id| json!({ "id": id })),
        1 => Just(json!(null)),
        1 => Just(json!({})),
    ];
    let delta = (
        "[a-e]",
        any_kind(),
        prop::sample::select(vec!["tasks", "notes", "others"]),
    );
    let delta = (delta, prop::option::of("[a-e]")).prop_map(|((id, kind, model), of)| {
        json!({
            "id": id, "model": model, "type": kind.as_str(), "data": of.map(|id| json!({ "id": id })),
        })
    });
    (
        prop::collection::vec(row, 0..5),
        prop::collection::vec(delta, 0..4),
    )
        .prop_map(|(rows, deltas)| json!({ "rows": rows, "deltas": deltas }))
}

proptest! {
    #[test]
    fn whatever_fits_answers_every_operation_once_and_names_no_foreign_row(
        operations in any_operations(),
        body in any_body(),
    ) {
        let known = ["tasks".to_owned(), "notes".to_owned()];
        let exchange = Exchange::answered(200, body.to_string());
        if let Outcome::Applied(changes) = commit_outcome(&exchange, &operations, &known) {
            for (index, operation) in operations.iter().enumerate() {
                let own: Vec<_> = changes.iter().filter(|c| c.operation == Some(index)).collect();
                prop_assert_eq!(own.len(), 1);
                prop_assert_eq!((&own[0].model, &own[0].id), (&operation.model, &operation.id));
                prop_assert_eq!(own[0].kind, operation.kind);
            }
            for change in &changes {
                prop_assert!(known.contains(&change.model));
                prop_assert_eq!(change.row.is_none(), change.kind == OperationKind::Delete);
                if let Some(row) = &change.row {
                    prop_assert_eq!(&row["id"], &change.id);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_an_answer_panic(status in 0_u16..1_000, body in prop::collection::vec(any::<u8>(), 0..64)) {
        let exchange = Exchange::answered(status, body);
        let _outcome = commit_outcome(&exchange, &[create("a")], &[]);
    }
}
