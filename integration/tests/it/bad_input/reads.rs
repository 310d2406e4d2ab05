//! Reads that must not be.

use proto::v1::{
    Condition, GetCommitRequest, ListRequest, LoadRequest, OperationType, Operator, Participant,
};
use tonic::Code;

use super::house::{House, operation, person};
use super::refusal::{Refusal, field, refused};

#[tokio::test]
async fn a_load_or_a_receipt_that_is_asked_for_badly_is_refused() {
    let house = House::furnished().await;
    let load = async |request| house.coordinator().load(request).await;
    house.refuses(loads(), load).await;

    let asked = |name: &str| GetCommitRequest {
        client_tx_id: name.to_owned(),
    };
    let invalid = || field("client_tx_id_invalid", "client_tx_id");
    let cases = vec![
        ("no id", asked(""), invalid()),
        ("a long id", asked(&"a".repeat(256)), invalid()),
        ("a control character", asked("a\0"), invalid()),
        (
            "an unknown id",
            asked("gone"),
            refused(Code::NotFound, "commit_not_found"),
        ),
    ];
    let get = async |request| house.coordinator().get_commit(request).await;
    house.refuses(cases, get).await;
    house.close().await;
}

#[tokio::test]
async fn a_list_that_is_asked_for_badly_is_refused() {
    let house = House::furnished().await;
    let list = async |request| house.coordinator().list(request).await;
    for model in ["notes", "contacts"] {
        house.refuses(lists(model), list).await;
    }
    house.close().await;
}

#[tokio::test]
async fn a_page_token_serves_the_list_that_it_came_from_and_no_other() {
    let house = House::furnished().await;
    let more = |model| operation(OperationType::Create, model, "other", r#"{"title":"old"}"#);
    house.commit("notes-too", vec![more("notes")]).await;
    house.commit("contacts-too", vec![more("contacts")]).await;
    let page = |model| ListRequest {
        page_size: 1,
        ..listed(model)
    };
    let list = async |request| house.coordinator().list(request).await;
    let token = list(page("notes"))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let of_contacts = list(page("contacts")).await.unwrap().into_inner();
    assert!(!token.is_empty() && !of_contacts.next_page_token.is_empty());

    let with = |page_token: &str, asked: ListRequest| ListRequest {
        page_token: page_token.to_owned(),
        ..asked
    };
    let mut tampered = token.clone().into_bytes();
    let last = tampered.len() - 4;
    tampered[last] = if tampered[last] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let invalid = || field("page_token_invalid", "page_token");
    let ordered = ListRequest {
        order_by: "title".to_owned(),
        ..page("notes")
    };
    let archived = ListRequest {
        include_archived: true,
        ..page("notes")
    };
    let narrowed = ListRequest {
        r#where: vec![condition("title", Operator::Eq.into(), "\"old\"")],
        ..page("notes")
    };
    let cases = vec![
        ("no token at all", with("!", page("notes")), invalid()),
        (
            "a tampered token",
            with(&tampered, page("notes")),
            invalid(),
        ),
        (
            "a cut token",
            with(&token[..token.len() / 2], page("notes")),
            invalid(),
        ),
        (
            "a token of 100,000 characters",
            with(&"A".repeat(100_000), page("notes")),
            invalid(),
        ),
        (
            "the other model's token",
            with(&of_contacts.next_page_token, page("notes")),
            invalid(),
        ),
        ("another order", with(&token, ordered), invalid()),
        ("archived rows too", with(&token, archived), invalid()),
        ("other conditions", with(&token, narrowed), invalid()),
    ];
    house.refuses(cases, list).await;
    let rest = list(with(&token, page("notes")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(rest.rows_json.len(), 1);
    assert_eq!(rest.next_page_token, "");
    house.close().await;
}

fn loads() -> Vec<(&'static str, LoadRequest, Refusal)> {
    let of = |model: &str, id: &str| LoadRequest {
        model: model.to_owned(),
        id: id.to_owned(),
        ..LoadRequest::default()
    };
    let by = |participant| LoadRequest {
        participant: Some(participant),
        ..of("notes", "old")
    };
    let groups = LoadRequest {
        required_sync_groups: vec!["a\n".to_owned()],
        ..of("contacts", "old")
    };
    let unknown = Participant {
        kind: 9,
        ..person("ada")
    };
    let id = || field("id_invalid", "id");
    vec![
        ("no model", of("", "old"), field("model_unknown", "model")),
        (
            "an unknown model",
            of("pg_class", "old"),
            field("model_unknown", "model"),
        ),
        ("no id", of("notes", ""), id()),
        ("a long id", of("notes", &"a".repeat(256)), id()),
        (
            "a long id behind a source",
            of("contacts", &"a".repeat(256)),
            id(),
        ),
        ("U+0000 in the id", of("notes", "\0"), id()),
        (
            "a nameless participant",
            by(person("")),
            field("participant_invalid", "participant.id"),
        ),
        (
            "an unknown kind",
            by(unknown),
            field("participant_invalid", "participant.kind"),
        ),
        (
            "a group with a line break",
            groups,
            field("sync_group_invalid", "required_sync_groups[0]"),
        ),
    ]
}

fn lists(model: &str) -> Vec<(&'static str, ListRequest, Refusal)> {
    let good = || listed(model);
    let by = |order_by: &str| ListRequest {
        order_by: order_by.to_owned(),
        ..good()
    };
    let one = |given: Condition| ListRequest {
        r#where: vec![given],
        ..good()
    };
    let on = |operator: Operator, value: &str| one(condition("title", operator.into(), value));
    let order = || field("field_unknown", "order_by");
    let at = |reason: &str| field(reason, "where[0].value_json");
    let many = vec![condition("title", Operator::Eq.into(), "\"a\""); 51];
    let items = format!("[{}]", vec!["1"; 1_001].join(","));
    let pattern = format!("\"{}\"", "%".repeat(1_001));
    let second = vec![
        condition("title", Operator::Eq.into(), "\"a\""),
        condition("nope", Operator::Eq.into(), "1"),
    ];
    vec![
        (
            "an unknown model",
            listed("nope"),
            field("model_unknown", "model"),
        ),
        (
            "a negative page",
            ListRequest {
                page_size: -1,
                ..good()
            },
            field("page_size_invalid", "page_size"),
        ),
        (
            "a token of nobody's",
            ListRequest {
                page_token: "AQ".to_owned(),
                ..good()
            },
            field("page_token_invalid", "page_token"),
        ),
        ("an unknown order", by("nope"), order()),
        ("an unknown direction", by("title down"), order()),
        ("two orders", by("title, count"), order()),
        ("SQL for an order", by("title; DROP TABLE commits"), order()),
        ("a direction alone", by(" desc"), order()),
        (
            "an unknown field",
            one(condition("nope", Operator::Eq.into(), "1")),
            field("field_unknown", "where[0].field"),
        ),
        (
            "a path for a field",
            one(condition("tags[0]", Operator::Eq.into(), "1")),
            field("field_unknown", "where[0].field"),
        ),
        (
            "no field",
            one(condition("", Operator::Eq.into(), "1")),
            field("field_unknown", "where[0].field"),
        ),
        (
            "a fault in the second condition",
            ListRequest {
                r#where: second,
                ..good()
            },
            field("field_unknown", "where[1].field"),
        ),
        (
            "no operator",
            one(condition("title", 0, "1")),
            field("operator_invalid", "where[0].operator"),
        ),
        (
            "an unknown operator",
            one(condition("title", 99, "1")),
            field("operator_invalid", "where[0].operator"),
        ),
        ("no value", on(Operator::Eq, ""), at("json_invalid")),
        (
            "a value that is not JSON",
            on(Operator::Eq, "old"),
            at("json_invalid"),
        ),
        (
            "NaN for a value",
            on(Operator::Lt, "NaN"),
            at("json_invalid"),
        ),
        (
            "1e400 for a value",
            on(Operator::Lt, "1e400"),
            at("number_out_of_range"),
        ),
        (
            "U+0000 in a value",
            on(Operator::Eq, r#""\u0000""#),
            at("json_nul"),
        ),
        (
            "IN without an array",
            on(Operator::In, "1"),
            at("condition_not_array"),
        ),
        (
            "IN with objects",
            on(Operator::In, "[{}]"),
            at("condition_not_array"),
        ),
        (
            "NOT IN with 1,001 items",
            on(Operator::NotIn, &items),
            at("condition_too_many_items"),
        ),
        (
            "IS with a number",
            on(Operator::Is, "1"),
            at("condition_not_truth_value"),
        ),
        (
            "IS NOT with a text",
            on(Operator::IsNot, "\"null\""),
            at("condition_not_truth_value"),
        ),
        (
            "LIKE with a number",
            on(Operator::Like, "1"),
            at("condition_not_string"),
        ),
        (
            "a pattern that is too long",
            on(Operator::Ilike, &pattern),
            at("condition_pattern_invalid"),
        ),
        (
            "< with an array",
            on(Operator::Lt, "[]"),
            at("condition_not_scalar"),
        ),
        (
            "= with null",
            on(Operator::Eq, "null"),
            at("condition_not_scalar"),
        ),
        (
            "51 conditions",
            ListRequest {
                r#where: many,
                ..good()
            },
            field("conditions_count", "where"),
        ),
    ]
}

fn listed(model: &str) -> ListRequest {
    ListRequest {
        model: model.to_owned(),
        ..ListRequest::default()
    }
}

fn condition(field: &str, operator: i32, value: &str) -> Condition {
    Condition {
        field: field.to_owned(),
        operator,
        value_json: value.to_owned().into(),
    }
}
