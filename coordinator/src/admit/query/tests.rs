use backends::query::{Operator, OrderBy};
use proto::v1;

use super::{list, load};
use crate::admit::Schema;

fn schema() -> Schema {
    Schema::compile(
        1,
        br#"{"models": {"reports": {"schema": {"type": "object", "properties": {
            "date": {"type": "string"}, "up desc": {"type": "number"}, "up": {}}}}}}"#,
    )
    .unwrap()
}

fn listed(request: v1::ListRequest) -> Result<super::Listing, (&'static str, String)> {
    let request = v1::ListRequest {
        model: "reports".to_owned(),
        ..request
    };
    list(&request, &schema())
        .map(|(_, listing)| listing)
        .map_err(|refusal| (refusal.reason, refusal.violations[0].field.clone()))
}

fn condition(field: &str, operator: i32, value: &str) -> v1::ListRequest {
    let value_json = value.to_owned().into();
    let condition = v1::Condition {
        field: field.to_owned(),
        operator,
        value_json,
    };
    v1::ListRequest {
        r#where: vec![condition],
        ..v1::ListRequest::default()
    }
}

fn ordered(order_by: &str) -> Result<super::Listing, (&'static str, String)> {
    listed(v1::ListRequest {
        order_by: order_by.to_owned(),
        ..v1::ListRequest::default()
    })
}

#[test]
fn conditions_name_fields_of_the_model() {
    let listing = listed(condition("date", v1::Operator::NotIlike.into(), r#""%a""#)).unwrap();
    let found = &listing.query.conditions[0];
    assert_eq!(
        (found.field.as_str(), found.operator),
        ("date", Operator::NotILike)
    );
    assert!(listed(condition("id", v1::Operator::Eq.into(), r#""r1""#)).is_ok());

    let refused = |request| listed(request).unwrap_err();
    let at = |field: &str| format!("where[0].{field}");
    let eq = v1::Operator::Eq.into();
    assert_eq!(
        refused(condition("x", eq, "1")),
        ("field_unknown", at("field"))
    );
    assert_eq!(
        refused(condition("date", 0, "1")),
        ("operator_invalid", at("operator"))
    );
    assert_eq!(
        refused(condition("date", 15, "1")),
        ("operator_invalid", at("operator"))
    );
    assert_eq!(
        refused(condition("date", eq, "")),
        ("json_invalid", at("value_json"))
    );
    assert_eq!(
        refused(condition("date", eq, "null")),
        ("condition_not_scalar", at("value_json"))
    );
    let is = v1::Operator::Is.into();
    assert_eq!(
        refused(condition("date", is, "1")),
        ("condition_not_truth_value", at("value_json"))
    );
}

#[test]
fn an_order_is_a_field_and_a_direction() {
    let order = |field: &str, descending| {
        Some(OrderBy {
            field: field.to_owned(),
            descending,
        })
    };
    assert_eq!(ordered("").unwrap().query.order, None);
    assert_eq!(ordered("date").unwrap().query.order, order("date", false));
    assert_eq!(
        ordered("date asc").unwrap().query.order,
        order("date", false)
    );
    assert_eq!(
        ordered("date desc").unwrap().query.order,
        order("date", true)
    );
    assert_eq!(ordered("id desc").unwrap().query.order, order("id", true));
    // The longer name is a field itself.
    assert_eq!(
        ordered("up desc").unwrap().query.order,
        order("up desc", false)
    );
    assert_eq!(
        ordered("up desc desc").unwrap().query.order,
        order("up desc", true)
    );
    for unknown in [
        "x",
        "date  desc",
        "date DESC",
        "date; drop table x",
        " desc",
    ] {
        assert_eq!(
            ordered(unknown).unwrap_err(),
            ("field_unknown", "order_by".to_owned())
        );
    }
}

#[test]
fn a_page_has_100_rows_or_as_many_as_asked_up_to_1000() {
    let limit = |page_size| {
        listed(v1::ListRequest {
            page_size,
            ..v1::ListRequest::default()
        })
        .map(|listing| listing.query.limit)
    };
    assert_eq!(limit(0), Ok(100));
    assert_eq!(limit(7), Ok(7));
    assert_eq!(limit(1_001), Ok(1_000));
    assert_eq!(
        limit(-1),
        Err(("page_size_invalid", "page_size".to_owned()))
    );
}

#[test]
fn a_list_has_at_most_50_conditions() {
    let one = condition("date", v1::Operator::Is.into(), "null")
        .r#where
        .remove(0);
    let many = |count| v1::ListRequest {
        r#where: vec![one.clone(); count],
        ..v1::ListRequest::default()
    };
    assert!(listed(many(50)).is_ok());
    assert_eq!(
        listed(many(51)).unwrap_err(),
        ("conditions_count", "where".to_owned())
    );
}

#[test]
fn a_load_names_a_model_and_a_row() {
    let reason = |model: &str, id: &str, participant| {
        let request = v1::LoadRequest {
            model: model.to_owned(),
            id: id.to_owned(),
            participant,
            required_sync_groups: vec!["g".to_owned()],
        };
        load(&request, &schema())
            .err()
            .map(|refusal| refusal.reason)
    };
    let ada = |kind| {
        Some(v1::Participant {
            id: "ada".to_owned(),
            kind,
        })
    };
    assert_eq!(reason("reports", "r1", ada(1)), None);
    assert_eq!(reason("reports", "r1", None), None);
    assert_eq!(reason("reports", "r1", ada(0)), Some("participant_invalid"));
    assert_eq!(reason("reports", "", None), Some("id_invalid"));
    assert_eq!(reason("reports", "a\0", None), Some("id_invalid"));
    assert_eq!(reason("pg_catalog", "r1", None), Some("model_unknown"));
}
