use backends::operation::{OnStale, OperationKind};
use proto::v1::{self, OperationType};

use super::commit;
use crate::admit::Schema;
use crate::domain::{Commit, Route};
use crate::refusal::{Class, Refusal};

fn schema() -> Schema {
    Schema::compile(
        1,
        br#"{"models": {
            "reports": {"schema": {"type": "object", "required": ["date"], "properties": {
                "date": {"type": "string"}, "temp": {"type": "number"}}}},
            "contacts": {"backing": {"dataSource": "crm"}, "schema": {"type": "object",
                "required": ["name"], "properties": {"name": {"type": "string"}}}},
            "orders": {"backing": {"dataSource": "erp"}, "schema": {"type": "object"}}
        }}"#,
    )
    .unwrap()
}

fn operation(kind: OperationType, model: &str, id: &str, input: &str) -> v1::Operation {
    v1::Operation {
        r#type: kind.into(),
        model: model.to_owned(),
        id: id.to_owned(),
        input_json: input.to_owned().into(),
        ..v1::Operation::default()
    }
}

fn request(operations: Vec<v1::Operation>) -> v1::CommitRequest {
    v1::CommitRequest {
        client_tx_id: "tx-1".to_owned(),
        participant: Some(v1::Participant {
            id: "ada".to_owned(),
            kind: v1::ParticipantKind::User.into(),
        }),
        operations,
        ..v1::CommitRequest::default()
    }
}

fn admitted(request: v1::CommitRequest) -> Commit {
    commit(request, &schema(), None).unwrap()
}

fn refused(request: v1::CommitRequest) -> Refusal {
    let refusal = commit(request, &schema(), None).unwrap_err();
    assert_eq!(refusal.class, Class::Invalid);
    refusal
}

/// Reason and field of the refusal of a commit whose second operation is at fault.
fn at_fault(operation: v1::Operation) -> (&'static str, String) {
    let before = self::operation(OperationType::Delete, "reports", "other", "");
    let refusal = refused(request(vec![before, operation]));
    assert!(
        refusal.metadata.contains(&("operation", "1".to_owned())),
        "{refusal:?}"
    );
    assert!(
        refusal.metadata.iter().any(|(key, _)| *key == "model"),
        "{refusal:?}"
    );
    (refusal.reason, refusal.violations[0].field.clone())
}

#[test]
fn a_commit_is_taken_as_it_was_meant() {
    let mut update = operation(OperationType::Update, "reports", "r2", r#"{"temp": 1.50}"#);
    update.read_at = Some(7);
    update.on_stale = v1::OnStale::Flag.into();
    update.transaction_id = "t".to_owned();
    let create = operation(OperationType::Create, "reports", "", r#"{"date": "today"}"#);
    let mut request = request(vec![create, update]);
    request.required_sync_groups = vec!["g".to_owned()];
    let commit = commit(request, &schema(), Some("00-1".to_owned())).unwrap();

    assert_eq!(commit.route, Route::Managed);
    assert_eq!(commit.assigned, [0]);
    assert_eq!(commit.operations[0].id, commit.id.assigned_id(0));
    assert!(!commit.operations[0].input.contains_key("id"));
    let update = &commit.operations[1];
    assert_eq!(
        (update.kind, update.id.as_str()),
        (OperationKind::Update, "r2")
    );
    assert_eq!((update.read_at, update.on_stale), (Some(7), OnStale::Flag));
    assert_eq!(update.input["temp"].to_string(), "1.50");
    assert_eq!(update.transaction_id.as_deref(), Some("t"));
    assert_eq!(commit.required_sync_groups, ["g"]);
    assert_eq!(commit.traceparent.as_deref(), Some("00-1"));
}

#[test]
fn a_create_may_carry_its_id_in_its_input() {
    let input = r#"{"id": "r9", "date": "today"}"#;
    for id in ["", "r9"] {
        let create = operation(OperationType::Create, "reports", id, input);
        let commit = admitted(request(vec![create]));
        assert_eq!(commit.operations[0].id, "r9");
        assert!(commit.assigned.is_empty());
    }
}

#[test]
fn a_data_source_takes_updates_field_by_field() {
    let update = operation(OperationType::Update, "contacts", "c", "{}");
    assert_eq!(
        admitted(request(vec![update])).route,
        Route::Source("crm".to_owned())
    );
    let create = operation(OperationType::Create, "contacts", "c", "{}");
    assert_eq!(refused(request(vec![create])).reason, "field_required");
}

/// Type, model, id, input: reason, field.
const REFUSED: &str = r#"
Unspecified|reports|a|: operation_type_invalid, type
Create|nothing|a|{}: model_unknown, model
Create|"; drop table x|a|{}: model_unknown, model
Create||a|{}: model_unknown, model
Update|reports||{}: id_required, id
Delete|reports||: id_required, id
Delete|reports|a|: id_invalid, id
Delete|reports|a|{}: input_unexpected, input_json
Archive|reports|a|null: input_unexpected, input_json
Update|reports|a|: input_required, input_json
Update|reports|a|[]: json_not_object, input_json
Update|reports|a|{"temp":NaN}: json_invalid, input_json.temp
Update|reports|a|{"temp":1e400}: number_out_of_range, input_json.temp
Update|reports|a|{"date":"\u0000"}: json_nul, input_json.date
Update|reports|a|{"date":"\ud800"}: json_not_utf8, input_json.date
Update|reports|a|{"temp":1,"temp":2}: json_duplicate_key, input_json.temp
Update|reports|a|{"temp":"1"}: field_type, input_json.temp
Update|reports|a|{"more":1}: field_unknown, input_json.more
Update|reports|a|{"id":"b"}: id_mismatch, input_json.id
Create|reports|a|{"id":1}: id_invalid, input_json.id
Create|reports||{"id":""}: id_invalid, input_json.id
Create|reports|a|{}: field_required, input_json.date
Delete|reports|other|: row_repeated, id
Delete|contacts|a|: commit_backing_mixed, model
"#;

#[test]
fn operations_are_refused_by_reason_and_field() {
    for line in REFUSED.trim().lines() {
        let (given, expected) = line.rsplit_once(": ").unwrap();
        let parts: Vec<_> = given.split('|').collect();
        let kind = format!("OPERATION_TYPE_{}", parts[0].to_uppercase());
        let kind = OperationType::from_str_name(&kind).unwrap();
        let id = parts[2].replace("\\x01", "\u{1}");
        let (reason, field) = at_fault(operation(kind, parts[1], &id, parts[3]));
        assert_eq!(
            format!("{reason}, {field}"),
            expected.replace(", ", ", operations[1]."),
            "{line}"
        );
    }
    let long = operation(OperationType::Delete, "reports", &"x".repeat(256), "");
    assert_eq!(
        at_fault(long),
        ("id_invalid", "operations[1].id".to_owned())
    );
}

#[test]
fn two_data_sources_do_not_mix_either() {
    let one = operation(OperationType::Delete, "contacts", "a", "");
    let other = operation(OperationType::Delete, "orders", "a", "");
    assert_eq!(
        refused(request(vec![one, other])).reason,
        "commit_backing_mixed"
    );
}

#[test]
fn staleness_and_names_of_operations_have_rules() {
    let delete = operation(OperationType::Delete, "reports", "a", "");
    let forced = v1::OnStale::Force.into();
    let cases = [
        (
            v1::Operation {
                read_at: Some(-1),
                ..delete.clone()
            },
            "read_at_invalid",
        ),
        (
            v1::Operation {
                on_stale: forced,
                ..delete.clone()
            },
            "on_stale_without_read_at",
        ),
        (
            v1::Operation {
                on_stale: 9,
                ..delete.clone()
            },
            "on_stale_invalid",
        ),
        (
            v1::Operation {
                transaction_id: "x".repeat(256),
                ..delete.clone()
            },
            "transaction_id_invalid",
        ),
        (
            v1::Operation {
                transaction_id: "\t".to_owned(),
                ..delete
            },
            "transaction_id_invalid",
        ),
    ];
    for (operation, reason) in cases {
        assert_eq!(at_fault(operation).0, reason);
    }
}

#[test]
fn the_request_around_the_operations_has_rules() {
    let good = || request(vec![operation(OperationType::Delete, "reports", "a", "")]);
    let with = |change: &dyn Fn(&mut v1::CommitRequest)| {
        let mut request = good();
        change(&mut request);
        refused(request).reason
    };
    let participant = |id: &str, kind| {
        Some(v1::Participant {
            id: id.to_owned(),
            kind,
        })
    };
    for id in ["", "a\u{1}", &"x".repeat(256)] {
        assert_eq!(
            with(&|one| one.client_tx_id = id.to_owned()),
            "client_tx_id_invalid"
        );
        assert_eq!(
            with(&|one| one.participant = participant(id, 1)),
            "participant_invalid"
        );
        assert_eq!(
            with(&|one| one.required_sync_groups = vec![id.to_owned()]),
            "sync_group_invalid"
        );
    }
    assert_eq!(with(&|one| one.participant = None), "participant_required");
    for kind in [0, 4, -1] {
        assert_eq!(
            with(&|one| one.participant = participant("a", kind)),
            "participant_invalid"
        );
    }
    let groups = vec!["g".to_owned(); 101];
    assert_eq!(
        with(&|one| one.required_sync_groups.clone_from(&groups)),
        "sync_groups_count"
    );
    assert_eq!(with(&|one| one.operations.clear()), "operations_count");
    let deletes = |count: usize| {
        let delete = |n| operation(OperationType::Delete, "reports", &format!("r{n}"), "");
        (0..count).map(delete).collect::<Vec<_>>()
    };
    assert_eq!(
        with(&|one| one.operations = deletes(501)),
        "operations_count"
    );
    assert_eq!(admitted(request(deletes(500))).operations.len(), 500);
}

#[test]
fn inputs_at_the_limits_of_json_are_refused_with_their_rule() {
    let deep = format!(r#"{{"date": {}{}}}"#, "[".repeat(64), "]".repeat(64));
    let long = format!(r#"{{"date": "{}"}}"#, "x".repeat(1 << 20));
    let fields: Vec<_> = (0..10_000).map(|n| format!(r#""f{n}": 1"#)).collect();
    let wide = format!("{{{}}}", fields.join(","));
    for (input, reason) in [
        (deep, "json_too_deep"),
        (long, "json_too_large"),
        (wide, "json_too_many_fields"),
    ] {
        let update = operation(OperationType::Update, "reports", "a", &input);
        assert_eq!(at_fault(update).0, reason);
    }
    let mut garbage = operation(OperationType::Update, "reports", "a", "");
    garbage.input_json = vec![b'{', b'"', 0xff, b'"'].into();
    assert!(at_fault(garbage).0.starts_with("json_"));
}

fn fingerprint(request: v1::CommitRequest) -> [u8; 32] {
    admitted(request).fingerprint
}

#[test]
fn the_same_intent_has_the_same_fingerprint() {
    let create = |input: &str| {
        let create = operation(OperationType::Create, "reports", "", input);
        fingerprint(request(vec![create]))
    };
    let one = create(r#"{"date": "a", "temp": 1.0}"#);
    assert_eq!(create("{\"temp\":1.0,\n\"date\":\"\\u0061\"}"), one);
    assert_ne!(create(r#"{"date": "a", "temp": 1.00}"#), one);
    assert_ne!(create(r#"{"id": "r", "date": "a", "temp": 1.0}"#), one);
}

#[test]
fn what_is_no_part_of_the_intent_leaves_the_fingerprint_alone() {
    let delete = || operation(OperationType::Delete, "reports", "a", "");
    let one = fingerprint(request(vec![delete()]));
    let mut waiting = request(vec![delete()]);
    waiting.wait = v1::Wait::Queued.into();
    waiting.client_tx_id = "tx-2".to_owned();
    assert_eq!(fingerprint(waiting), one);

    let with = |change: &dyn Fn(&mut v1::CommitRequest)| {
        let mut request = request(vec![delete()]);
        change(&mut request);
        fingerprint(request)
    };
    assert_ne!(with(&|one| one.participant.as_mut().unwrap().kind = 2), one);
    assert_ne!(
        with(&|one| one.participant.as_mut().unwrap().id.push('x')),
        one
    );
    assert_ne!(
        with(&|one| one.operations[0].r#type = OperationType::Archive.into()),
        one
    );
    assert_ne!(
        with(&|one| one.operations[0].transaction_id = "t".to_owned()),
        one
    );
    let read = with(&|one| one.operations[0].read_at = Some(0));
    assert_ne!(read, one);
    let reject = v1::OnStale::Reject.into();
    let rejected = with(&|one| {
        one.operations[0].read_at = Some(0);
        one.operations[0].on_stale = reject;
    });
    assert_eq!(rejected, read, "REJECT is the default");
    let groups = |groups: &[&str]| {
        with(&|one| one.required_sync_groups = groups.iter().map(ToString::to_string).collect())
    };
    assert_ne!(groups(&["a"]), one);
    assert_eq!(groups(&["a", "b"]), groups(&["b", "a", "a"]));
}

#[test]
fn the_time_when_a_commit_is_over_is_a_time_and_no_part_of_its_intent() {
    let create = operation(
        OperationType::Create,
        "reports",
        "r1",
        r#"{"date": "today"}"#,
    );
    let ending = |seconds, nanos| v1::CommitRequest {
        expire_time: Some(prost_types::Timestamp { seconds, nanos }),
        ..request(vec![create.clone()])
    };
    let commit = admitted(ending(4_102_444_800, 500_000_000));
    let at = commit.expires_at.unwrap();
    assert_eq!((at.year(), at.millisecond()), (2100, 500));
    let without = admitted(request(vec![create.clone()]));
    assert_eq!(without.expires_at, None);
    assert_eq!(without.fingerprint, commit.fingerprint);
    for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)] {
        let refusal = refused(ending(seconds, nanos));
        assert_eq!(refusal.reason, "expire_time_invalid");
        assert_eq!(refusal.violations[0].field, "expire_time");
    }
}
