use serde_json::json;

use super::{Scope, commit_body, events_body, list_body, load_body, sent};
use crate::json::parse_object;
use crate::operation::{OnStale, Operation, OperationKind};
use crate::query::{Condition, Operator, OrderBy, Query};

fn scope() -> Scope {
    Scope {
        participant_id: Some("u1".to_owned()),
        participant_kind: Some("user".to_owned()),
        organization_id: Some("org_1".to_owned()),
        required_sync_groups: vec!["team:1".to_owned()],
        mode: Some("test".to_owned()),
    }
}

fn operation(kind: OperationKind, id: &str, input: &str) -> Operation {
    Operation {
        kind,
        model: "tasks".to_owned(),
        id: id.to_owned(),
        input: parse_object(input.as_bytes()).unwrap(),
        transaction_id: None,
        read_at: None,
        on_stale: OnStale::Reject,
    }
}

fn text(body: Vec<u8>) -> String {
    String::from_utf8(body).unwrap()
}

#[test]
fn a_commit_names_itself_twice_and_keeps_digits() {
    let mut update = operation(OperationKind::Update, "b", r#"{"n":1.10}"#);
    update.transaction_id = Some("t".to_owned());
    update.read_at = Some(7);
    let operations = [
        operation(OperationKind::Create, "a", r#"{"z":1E2,"id":"x"}"#),
        update,
    ];
    assert_eq!(
        text(commit_body("tx-1", "ab12", &operations, &scope())),
        concat!(
            r#"{"type":"commit","clientTxId":"tx-1","correlationId":"tx-1","intentHash":"ab12","#,
            r#""operations":[{"type":"CREATE","model":"tasks","id":"a","input":{"id":"x","z":1E2}},"#,
            r#"{"type":"UPDATE","model":"tasks","id":"b","input":{"n":1.10},"transactionId":"t","#,
            r#""readAt":7,"onStale":"reject"}],"scope":{"participantId":"u1","#,
            r#""participantKind":"user","organizationId":"org_1","#,
            r#""requiredSyncGroups":["team:1"],"mode":"test"}}"#,
        )
    );
}

#[test]
fn only_reject_leaves_the_house() {
    for on_stale in [OnStale::Force, OnStale::Flag] {
        let mut delete = operation(OperationKind::Delete, "a", "{}");
        delete.read_at = Some(7);
        delete.on_stale = on_stale;
        assert_eq!(
            text(commit_body("t", "h", &[delete], &Scope::default())),
            r#"{"type":"commit","clientTxId":"t","correlationId":"t","intentHash":"h","operations":[{"type":"DELETE","model":"tasks","id":"a"}],"scope":{}}"#
        );
    }
}

#[test]
fn an_update_without_fields_is_not_sent() {
    let operations = [
        operation(OperationKind::Update, "a", "{}"),
        operation(OperationKind::Archive, "b", "{}"),
        operation(OperationKind::Update, "c", r#"{"id":"c"}"#),
        operation(OperationKind::Create, "d", "{}"),
    ];
    let positions: Vec<_> = sent(&operations).map(|(position, _)| position).collect();
    assert_eq!(positions, [1, 3]);
    let body = text(commit_body("t", "h", &operations, &Scope::default()));
    assert!(!body.contains("UPDATE"));
    assert!(body.contains(r#"{"type":"CREATE","model":"tasks","id":"d","input":{}}"#));
}

#[test]
fn reads_say_what_they_want() {
    assert_eq!(
        text(load_body("tasks", "a", &Scope::default())),
        r#"{"type":"load","model":"tasks","id":"a","scope":{}}"#
    );
    let query = Query {
        conditions: vec![Condition {
            field: "n".to_owned(),
            operator: Operator::NotIn,
            value: json!([1, 2]),
        }],
        order: Some(OrderBy {
            field: "n".to_owned(),
            descending: true,
        }),
        limit: 10,
        cursor: Some("c".to_owned()),
    };
    assert_eq!(
        text(list_body("tasks", &query, &Scope::default())),
        r#"{"type":"list","model":"tasks","query":{"where":[["n","NOT IN",[1,2]]],"limit":10,"orderBy":"n","order":"desc","cursor":"c"},"scope":{}}"#
    );
    let all = Query {
        conditions: vec![],
        order: None,
        limit: 1,
        cursor: None,
    };
    assert_eq!(
        text(list_body("tasks", &all, &Scope::default())),
        r#"{"type":"list","model":"tasks","query":{"limit":1},"scope":{}}"#
    );
    assert_eq!(
        text(events_body(None, 100, &Scope::default())),
        r#"{"type":"events","limit":100,"scope":{}}"#
    );
    assert_eq!(
        text(events_body(Some("9"), 5, &Scope::default())),
        r#"{"type":"events","cursor":"9","limit":5,"scope":{}}"#
    );
}
