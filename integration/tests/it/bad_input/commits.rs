//! Commits that must not be.

use proto::v1::{CommitRequest, GetCommitRequest, OnStale, Operation, OperationType, Participant};
use tonic::Code;

use super::house::{House, commit, operation, person};
use super::refusal::{Refusal, field, refused};

type Case = (&'static str, CommitRequest, Refusal);

/// Every case asks under this id: what is refused is not recorded.
const NAME: &str = "refused";

#[tokio::test]
async fn a_commit_that_names_itself_or_its_writer_badly_is_refused() {
    check(requests()).await;
}

#[tokio::test]
async fn an_operation_that_breaks_a_rule_is_refused_with_its_position() {
    check(operations()).await;
}

#[tokio::test]
async fn an_input_that_is_not_strict_json_is_refused_with_its_path() {
    check(inputs()).await;
}

#[tokio::test]
async fn an_input_that_its_model_forbids_is_refused_with_its_field() {
    check(rows()).await;
}

#[tokio::test]
async fn a_commit_that_the_state_forbids_is_refused_and_takes_no_id() {
    check(states()).await;
}

#[tokio::test]
async fn a_row_at_the_limits_is_read_back_as_it_was_answered() {
    let house = House::furnished().await;
    let text = format!(
        "{{\"n\":1e-998,\"s\":\"{}\"}}",
        "\\n".repeat((1 << 19) - 10)
    );
    let mut request = commit(
        "large",
        vec![operation(OperationType::Create, "open", "x", text)],
    );
    let before = house.commit("large", request.operations.clone()).await;
    // The merged row is larger than any text that may be sent.
    let more = format!("{{\"t\":\"{}\"}}", "\\n".repeat(1 << 18));
    let update = vec![operation(OperationType::Update, "open", "x", more)];
    let after = house.commit("larger", update.clone()).await;
    for (receipt, operations) in [(before, request.operations.clone()), (after, update)] {
        let get = GetCommitRequest {
            client_tx_id: receipt.client_tx_id.clone(),
        };
        let again = house.coordinator().get_commit(get).await.unwrap();
        assert_eq!(again.into_inner().changes, receipt.changes);
        request.client_tx_id.clone_from(&receipt.client_tx_id);
        request.operations = operations;
        let replay = house.coordinator().commit(request.clone()).await.unwrap();
        assert_eq!(replay.into_inner().changes, receipt.changes);
    }
    house.close().await;
}

/// Makes the calls; then the corrected commit takes the id that all of them asked for.
async fn check(cases: Vec<Case>) {
    let house = House::furnished().await;
    let call = async |request| house.coordinator().commit(request).await;
    house.refuses(cases, call).await;
    let receipt = house
        .commit(NAME, vec![new_note("{\"title\":\"new\"}")])
        .await;
    assert_eq!(receipt.client_tx_id, NAME);
    assert_eq!(receipt.changes.len(), 1);
    house.close().await;
}

fn requests() -> Vec<Case> {
    let good = || commit(NAME, vec![new_note("{\"title\":\"a\"}")]);
    let named = |name: &str| commit(name, good().operations);
    let by = |participant| CommitRequest {
        participant,
        ..good()
    };
    let kind = |kind| {
        by(Some(Participant {
            kind,
            ..person("ada")
        }))
    };
    let groups = |required_sync_groups| CommitRequest {
        required_sync_groups,
        ..good()
    };
    let name = || field("client_tx_id_invalid", "client_tx_id");
    let participant = || field("participant_invalid", "participant.id");
    let of_kind = || field("participant_invalid", "participant.kind");
    let count = || field("operations_count", "operations");
    let many = (0..501).map(|n| note(&format!("n{n}"), "{\"title\":\"a\"}"));
    vec![
        ("no id", named(""), name()),
        ("a long id", named(&"é".repeat(256)), name()),
        ("a control character in the id", named("a\nb"), name()),
        ("U+0000 in the id", named("a\0b"), name()),
        ("a line separator in the id", named("a\u{2028}b"), name()),
        (
            "no participant",
            by(None),
            field("participant_required", "participant"),
        ),
        (
            "a nameless participant",
            by(Some(person(""))),
            participant(),
        ),
        (
            "a long participant",
            by(Some(person(&"a".repeat(256)))),
            participant(),
        ),
        (
            "a participant with a tab",
            by(Some(person("a\tb"))),
            participant(),
        ),
        ("no kind", kind(0), of_kind()),
        ("an unknown kind", kind(99), of_kind()),
        (
            "an unknown wait",
            CommitRequest { wait: 99, ..good() },
            field("wait_invalid", "wait"),
        ),
        ("no operation", commit(NAME, vec![]), count()),
        ("501 operations", commit(NAME, many.collect()), count()),
        (
            "101 groups",
            groups(vec!["g".to_owned(); 101]),
            field("sync_groups_count", "required_sync_groups"),
        ),
        (
            "an empty group",
            groups(vec!["g".to_owned(), String::new()]),
            field("sync_group_invalid", "required_sync_groups[1]"),
        ),
        (
            "a long group",
            groups(vec!["g".repeat(256)]),
            field("sync_group_invalid", "required_sync_groups[0]"),
        ),
    ]
}

fn operations() -> Vec<Case> {
    let title = "{\"title\":\"a\"}";
    let at = |reason: &str, place: &str| field(reason, &format!("operations[0].{place}"));
    let of = |given: Operation| commit(NAME, vec![given]);
    let model = |name: &str| of(operation(OperationType::Create, name, "x", title));
    let named = |id: &str| of(note(id, title));
    let unknown = || at("model_unknown", "model");
    let transaction = |id: &str| {
        of(Operation {
            transaction_id: id.to_owned(),
            ..new_note(title)
        })
    };
    let kind = |kind| {
        of(Operation {
            r#type: kind,
            ..new_note(title)
        })
    };
    let read = |read_at, on_stale| {
        of(Operation {
            read_at,
            on_stale,
            ..new_note(title)
        })
    };
    vec![
        ("no type", kind(0), at("operation_type_invalid", "type")),
        (
            "an unknown type",
            kind(99),
            at("operation_type_invalid", "type"),
        ),
        (
            "a negative type",
            kind(-1),
            at("operation_type_invalid", "type"),
        ),
        ("no model", model(""), unknown()),
        (
            "SQL for a model",
            model("\"; DROP TABLE commits; --"),
            unknown(),
        ),
        ("a catalog for a model", model("pg_catalog"), unknown()),
        ("a field of a model", model("notes.title"), unknown()),
        ("a look-alike of a model", model("n\u{43e}tes"), unknown()),
        ("a model in capitals", model("Notes"), unknown()),
        (
            "a long model of long characters",
            model(&"😀".repeat(10_000)),
            unknown(),
        ),
        ("a long model", model(&"m".repeat(10_000)), unknown()),
        ("a long id", named(&"é".repeat(256)), at("id_invalid", "id")),
        (
            "a control character in the id",
            named("a\u{7f}"),
            at("id_invalid", "id"),
        ),
        ("U+0000 in the id", named("a\0"), at("id_invalid", "id")),
        (
            "an id that the input gives otherwise",
            of(note("x", r#"{"id":"y","title":"a"}"#)),
            at("id_mismatch", "input_json.id"),
        ),
        (
            "an id in the input that is a number",
            of(new_note(r#"{"id":7,"title":"a"}"#)),
            at("id_invalid", "input_json.id"),
        ),
        (
            "an empty id in the input",
            of(new_note(r#"{"id":"","title":"a"}"#)),
            at("id_invalid", "input_json.id"),
        ),
        (
            "UPDATE without an id",
            of(operation(OperationType::Update, "notes", "", title)),
            at("id_required", "id"),
        ),
        (
            "DELETE without an id",
            of(operation(OperationType::Delete, "notes", "", "")),
            at("id_required", "id"),
        ),
        (
            "CREATE without input",
            of(new_note("")),
            at("input_required", "input_json"),
        ),
        (
            "UPDATE without input",
            of(operation(OperationType::Update, "notes", "old", "")),
            at("input_required", "input_json"),
        ),
        (
            "DELETE with input",
            of(operation(OperationType::Delete, "notes", "old", "{}")),
            at("input_unexpected", "input_json"),
        ),
        (
            "ARCHIVE with input",
            of(operation(OperationType::Archive, "notes", "old", "{}")),
            at("input_unexpected", "input_json"),
        ),
        (
            "a negative read_at",
            read(Some(-1), 0),
            at("read_at_invalid", "read_at"),
        ),
        (
            "on_stale without read_at",
            read(None, OnStale::Force.into()),
            at("on_stale_without_read_at", "on_stale"),
        ),
        (
            "an unknown on_stale",
            read(Some(1), 99),
            at("on_stale_invalid", "on_stale"),
        ),
        (
            "a long transaction id",
            transaction(&"t".repeat(256)),
            at("transaction_id_invalid", "transaction_id"),
        ),
        (
            "a transaction id with a line break",
            transaction("t\n"),
            at("transaction_id_invalid", "transaction_id"),
        ),
        (
            "one row twice",
            commit(
                NAME,
                vec![
                    note("x", title),
                    operation(OperationType::Delete, "notes", "x", ""),
                ],
            ),
            field("row_repeated", "operations[1].id"),
        ),
        (
            "two backings",
            commit(
                NAME,
                vec![
                    new_note(title),
                    operation(OperationType::Create, "contacts", "x", title),
                ],
            ),
            field("commit_backing_mixed", "operations[1].model"),
        ),
        (
            "a fault in the last of many",
            commit(
                NAME,
                vec![note("x", title), note("y", title), note("z", "{}")],
            ),
            field("field_required", "operations[2].input_json.title"),
        ),
    ]
}

fn inputs() -> Vec<Case> {
    let nested = |depth: usize| {
        let levels = depth - 1;
        format!("{{\"deep\":{}1{}}}", "[".repeat(levels), "]".repeat(levels))
    };
    let wide = |fields: usize| {
        let fields: Vec<String> = (0..fields).map(|n| format!("\"f{n}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let long = format!("{{\"s\":\"{}\"}}", "x".repeat((1 << 20) + 1 - 8));
    assert_eq!(long.len(), (1 << 20) + 1);
    let deep = format!("deep{}", "[0]".repeat(64));
    let texts: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("no JSON", "{".into(), "json_invalid", ""),
        ("an array", "[]".into(), "json_not_object", ""),
        ("null", "null".into(), "json_not_object", ""),
        ("two texts", "{} {}".into(), "json_invalid", ""),
        ("a byte order mark", "\u{feff}{}".into(), "json_invalid", ""),
        ("a comment", "{/* */}".into(), "json_invalid", ""),
        ("a trailing comma", r#"{"a":1,}"#.into(), "json_invalid", ""),
        ("single quotes", "{'a':1}".into(), "json_invalid", ""),
        ("NaN", r#"{"a":NaN}"#.into(), "json_invalid", "a"),
        (
            "Infinity",
            r#"{"a":[0,-Infinity]}"#.into(),
            "json_invalid",
            "a[1]",
        ),
        ("a leading zero", r#"{"a":01}"#.into(), "json_invalid", ""),
        ("a plus sign", r#"{"a":+1}"#.into(), "json_invalid", "a"),
        (
            "1e400",
            r#"{"a":{"b":1e400}}"#.into(),
            "number_out_of_range",
            "a.b",
        ),
        (
            "1e-1001",
            r#"{"a":1e-1001}"#.into(),
            "number_out_of_range",
            "a",
        ),
        (
            "a number of 1,001 digits",
            format!("{{\"a\":{}}}", "1".repeat(1_001)).into(),
            "number_out_of_range",
            "a",
        ),
        (
            "equal keys",
            r#"{"a":1,"b":{"c":1,"c":2}}"#.into(),
            "json_duplicate_key",
            "b.c",
        ),
        (
            "equal keys, written differently",
            r#"{"a":1,"\u0061":2}"#.into(),
            "json_duplicate_key",
            "a",
        ),
        (
            "U+0000 in a text",
            r#"{"a":"x\u0000"}"#.into(),
            "json_nul",
            "a",
        ),
        (
            "a high surrogate alone",
            r#"{"a":"\ud800"}"#.into(),
            "json_not_utf8",
            "a",
        ),
        (
            "a low surrogate alone",
            r#"{"a":["\udc00"]}"#.into(),
            "json_not_utf8",
            "a[0]",
        ),
        (
            "bytes that are not UTF-8",
            b"{\"a\":\"\xff\xfe\"}".into(),
            "json_not_utf8",
            "",
        ),
        (
            "a raw control character",
            "{\"a\":\"x\ny\"}".into(),
            "json_invalid",
            "a",
        ),
        (
            "65 levels",
            nested(65).into(),
            "json_too_deep",
            &deep[..deep.len() - 3],
        ),
        ("1 MiB and a byte", long.into(), "json_too_large", ""),
        (
            "1,001 fields",
            wide(1_001).into(),
            "json_too_many_fields",
            "",
        ),
        (
            "a reserved key",
            r#"{"a":{"$serde_json::private::Number":"1"}}"#.into(),
            "json_reserved_key",
            "a.$serde_json::private::Number",
        ),
    ];
    let models = ["open", "contacts"];
    let each = |model: &'static str| {
        let cases = texts.clone().into_iter();
        cases.map(move |(name, text, reason, path)| {
            let create = operation(OperationType::Create, model, "", text);
            let dot = if path.is_empty() { "" } else { "." };
            let place = format!("operations[0].input_json{dot}{path}");
            (name, commit(NAME, vec![create]), field(reason, &place))
        })
    };
    models.into_iter().flat_map(each).collect()
}

fn rows() -> Vec<Case> {
    let texts = [
        (
            "an unknown field",
            r#"{"title":"a","nope":1}"#,
            "field_unknown",
            ".nope",
        ),
        (
            "SQL for a field",
            r#"{"title":"a","x'; DROP TABLE commits; --":1}"#,
            "field_unknown",
            ".x'; DROP TABLE commits; --",
        ),
        (
            "a text for a number",
            r#"{"title":"a","count":"1"}"#,
            "field_type",
            ".count",
        ),
        (
            "a fraction for an integer",
            r#"{"title":"a","count":1.5}"#,
            "field_type",
            ".count",
        ),
        (
            "a number for a text",
            r#"{"title":1}"#,
            "field_type",
            ".title",
        ),
        (
            "null for a text",
            r#"{"title":null}"#,
            "field_type",
            ".title",
        ),
        (
            "a text for true, false or null",
            r#"{"title":"a","done":"yes"}"#,
            "field_type",
            ".done",
        ),
        ("no title", r#"{"count":1}"#, "field_required", ".title"),
    ];
    let both = ["notes", "contacts"].into_iter().flat_map(|model| {
        texts.map(|(name, text, reason, place)| {
            let create = operation(OperationType::Create, model, "x", text);
            let place = format!("operations[0].input_json{place}");
            (name, commit(NAME, vec![create]), field(reason, &place))
        })
    });
    let update = |model, text: &str| {
        commit(
            NAME,
            vec![operation(OperationType::Update, model, "old", text)],
        )
    };
    let at =
        |reason: &str, place: &str| field(reason, &format!("operations[0].input_json.{place}"));
    let long = "\u{1f600}".repeat(10_000);
    let named = format!("{{\"title\":\"a\",\"{long}\":1}}");
    let more = [
        (
            "a long field of long characters",
            commit(NAME, vec![new_note(&named)]),
            at("field_unknown", &"\u{1f600}".repeat(255)),
        ),
        (
            "a count below its minimum",
            commit(NAME, vec![new_note(r#"{"title":"a","count":-1}"#)]),
            at("field_invalid", "count"),
        ),
        (
            "a title that is too long",
            commit(
                NAME,
                vec![new_note(&format!("{{\"title\":\"{}\"}}", "a".repeat(101)))],
            ),
            at("field_invalid", "title"),
        ),
        (
            "an item of another type",
            commit(NAME, vec![new_note(r#"{"title":"a","tags":["a",2]}"#)]),
            at("field_type", "tags[1]"),
        ),
        (
            "UPDATE of an unknown field",
            update("notes", r#"{"nope":1}"#),
            at("field_unknown", "nope"),
        ),
        (
            "UPDATE with another type",
            update("contacts", r#"{"title":1}"#),
            at("field_type", "title"),
        ),
        (
            "UPDATE that takes a required field away",
            update("notes", r#"{"title":null}"#),
            at("field_type", "title"),
        ),
    ];
    both.chain(more).collect()
}

fn states() -> Vec<Case> {
    let title = r#"{"title":"a"}"#;
    let of = |kind, id: &str, input: &str| commit(NAME, vec![operation(kind, "notes", id, input)]);
    let stale = Operation {
        read_at: Some(0),
        ..operation(OperationType::Update, "notes", "old", title)
    };
    let old = |model: &str, text: &str| {
        commit(
            &format!("old-{model}"),
            vec![operation(OperationType::Create, model, "old", text)],
        )
    };
    let by_another = CommitRequest {
        participant: Some(person("grace")),
        ..old("notes", r#"{"title":"old"}"#)
    };
    let missing = || refused(Code::NotFound, "entity_not_found");
    let conflict = || refused(Code::AlreadyExists, "idempotency_conflict");
    vec![
        (
            "CREATE of a row that exists",
            of(OperationType::Create, "old", title),
            refused(Code::AlreadyExists, "entity_exists"),
        ),
        (
            "UPDATE of a missing row",
            of(OperationType::Update, "gone", title),
            missing(),
        ),
        (
            "ARCHIVE of a missing row",
            of(OperationType::Archive, "gone", ""),
            missing(),
        ),
        (
            "UNARCHIVE of a missing row",
            of(OperationType::Unarchive, "gone", ""),
            missing(),
        ),
        (
            "a good operation before a bad one",
            commit(
                NAME,
                vec![
                    note("x", title),
                    operation(OperationType::Update, "notes", "gone", title),
                ],
            ),
            missing(),
        ),
        (
            "a row that has changed",
            commit(NAME, vec![stale]),
            refused(Code::Aborted, "stale_context"),
        ),
        (
            "a used id with another intent",
            old("notes", r#"{"title":"new"}"#),
            conflict(),
        ),
        (
            "a used id with another intent, for a source",
            old("contacts", r#"{"title":"new"}"#),
            conflict(),
        ),
        ("a used id by another participant", by_another, conflict()),
    ]
}

fn note(id: &str, input: &str) -> Operation {
    operation(OperationType::Create, "notes", id, input)
}

fn new_note(input: &str) -> Operation {
    note("", input)
}
