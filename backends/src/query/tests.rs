use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Condition, ConditionFault, Operator, OrderBy, compare_rows, like, matches};

fn row(fields: Value) -> Map<String, Value> {
    let Value::Object(row) = fields else {
        panic!("a row is an object")
    };
    row
}

fn condition(field: &str, operator: &str, value: Value) -> Condition {
    let operator = Operator::parse(operator).unwrap();
    Condition {
        field: field.to_owned(),
        operator,
        value,
    }
}

fn met(operator: &str, value: Value) -> Vec<&'static str> {
    let condition = condition("f", operator, value);
    let rows = [
        ("absent", json!({})),
        ("null", json!({"f": null})),
        ("true", json!({"f": true})),
        ("false", json!({"f": false})),
        ("1", json!({"f": 1})),
        ("2", json!({"f": 2})),
        ("'1'", json!({"f": "1"})),
        ("'b'", json!({"f": "b"})),
        ("[]", json!({"f": []})),
    ];
    rows.into_iter()
        .filter(|(_, fields)| matches(&row(fields.clone()), &condition))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_operator_has_one_spelling() {
    for operator in Operator::ALL {
        assert_eq!(Operator::parse(operator.as_str()), Some(operator));
    }
    assert_eq!(Operator::parse("not in"), None);
}

#[test]
fn conditions_hold_as_in_sql() {
    assert_eq!(met("=", json!(1.0)), ["1"]);
    assert_eq!(
        met("!=", json!(1)),
        ["true", "false", "2", "'1'", "'b'", "[]"]
    );
    assert_eq!(met("<", json!(2)), ["1"]);
    assert_eq!(met("<=", json!(2)), ["1", "2"]);
    assert_eq!(met(">", json!("a")), ["'b'"]);
    assert_eq!(met(">=", json!(false)), ["true", "false"]);
    assert_eq!(met("IN", json!([1, "b"])), ["1", "'b'"]);
    assert_eq!(met("IN", json!([])), [""; 0]);
    assert_eq!(
        met("NOT IN", json!([1, "b"])),
        ["true", "false", "2", "'1'", "[]"]
    );
    assert_eq!(met("IS", json!(null)), ["absent", "null"]);
    assert_eq!(
        met("IS NOT", json!(null)),
        ["true", "false", "1", "2", "'1'", "'b'", "[]"]
    );
    assert_eq!(met("IS", json!(true)), ["true"]);
    assert_eq!(
        met("IS NOT", json!(true)),
        ["absent", "null", "false", "1", "2", "'1'", "'b'", "[]"]
    );
    assert_eq!(met("LIKE", json!("%")), ["'1'", "'b'"]);
    assert_eq!(met("ILIKE", json!("B")), ["'b'"]);
    assert_eq!(
        met("NOT LIKE", json!("b")),
        ["true", "false", "1", "2", "'1'", "[]"]
    );
    assert_eq!(
        met("NOT ILIKE", json!("_")),
        ["true", "false", "1", "2", "[]"]
    );
}

#[test]
fn patterns_match_as_in_sql() {
    let table = [
        ("", "", true),
        ("", "%", true),
        ("", "_", false),
        ("abc", "abc", true),
        ("abc", "a%", true),
        ("abc", "%c", true),
        ("abc", "%b%", true),
        ("abc", "a_c", true),
        ("abc", "a__c", false),
        ("abc", "a%b", false),
        ("aXbXc", "a%b%c", true),
        ("aab", "%ab", true),
        ("100%", r"100\%", true),
        ("1000", r"100\%", false),
        ("a_b", r"a\_b", true),
        ("axb", r"a\_b", false),
        (r"a\b", r"a\\b", true),
        ("é😀", "__", true),
        ("line\nbreak", "line%", true),
        ("ABC", "abc", false),
    ];
    for (text, pattern, expected) in table {
        assert_eq!(
            like::matches(text, pattern, false),
            expected,
            "{text:?} LIKE {pattern:?}"
        );
    }
    assert!(like::matches("ÄBC", "äb_", true));
    let long = "a".repeat(20_000);
    assert!(!like::matches(
        &long,
        &format!("{}b", "%a".repeat(40)),
        false
    ));
}

#[test]
fn a_value_must_fit_its_operator() {
    use ConditionFault::*;
    let table = [
        ("=", json!(null), Err(NotAScalar)),
        ("<", json!([1]), Err(NotAScalar)),
        (">=", json!({}), Err(NotAScalar)),
        ("!=", json!("a"), Ok(())),
        ("IN", json!("a"), Err(NotAnArray)),
        ("IN", json!([null]), Err(NotAnArray)),
        ("NOT IN", json!([[1]]), Err(NotAnArray)),
        ("IN", json!(vec![1; 1_001]), Err(TooManyItems)),
        ("IN", json!(vec![1; 1_000]), Ok(())),
        ("IS", json!(1), Err(NotATruthValue)),
        ("IS NOT", json!(null), Ok(())),
        ("LIKE", json!(1), Err(NotAPattern)),
        ("LIKE", json!(r"a\"), Err(BadPattern)),
        ("LIKE", json!(r"a\\"), Ok(())),
        ("ILIKE", json!("x".repeat(1_001)), Err(BadPattern)),
        ("NOT ILIKE", json!("x".repeat(1_000)), Ok(())),
    ];
    for (operator, value, expected) in table {
        let shown = value.to_string();
        assert_eq!(
            condition("f", operator, value).check(),
            expected,
            "{operator} {shown}"
        );
    }
}

#[test]
fn rows_are_ordered_by_field_then_id() {
    let order = |descending| {
        Some(OrderBy {
            field: "f".to_owned(),
            descending,
        })
    };
    let mut rows = [
        row(json!({"id": "d", "f": null})),
        row(json!({"id": "b", "f": 10})),
        row(json!({"id": "a", "f": 10.0})),
        row(json!({"id": "c", "f": 9})),
        row(json!({"id": "e"})),
        row(json!({"id": "f", "f": "x"})),
    ];
    let ids = |rows: &[Map<String, Value>]| -> String {
        rows.iter().filter_map(|row| row["id"].as_str()).collect()
    };
    rows.sort_by(|a, b| compare_rows(order(false).as_ref(), a, b));
    assert_eq!(ids(&rows), "fcabde");
    rows.sort_by(|a, b| compare_rows(order(true).as_ref(), a, b));
    assert_eq!(ids(&rows), "deabcf");
    rows.sort_by(|a, b| compare_rows(None, a, b));
    assert_eq!(ids(&rows), "abcdef");
}

fn any_field() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        (-3_i64..3).prop_map(|n| json!(n)),
        "[ab]{0,2}".prop_map(|s| json!(s)),
        Just(json!([1])),
    ]
}

proptest! {
    #[test]
    fn an_operator_and_its_negation_divide_what_is_not_null(field in any_field(), value in any_field()) {
        let row = row(json!({"f": field}));
        let pairs = [("=", "!="), ("IN", "NOT IN"), ("IS", "IS NOT"), ("LIKE", "NOT LIKE"), ("ILIKE", "NOT ILIKE")];
        for (positive, negative) in pairs {
            let value = if positive == "IN" { json!([value]) } else { value.clone() };
            let (yes, no) = (condition("f", positive, value.clone()), condition("f", negative, value));
            if yes.check().is_ok() {
                let known = positive == "IS" || !row["f"].is_null();
                prop_assert_eq!(matches(&row, &yes) ^ matches(&row, &no), known);
            }
        }
    }

    #[test]
    fn the_order_of_rows_is_total(a in any_field(), b in any_field(), c in any_field()) {
        let [a, b, c] = [a, b, c].map(|field| row(json!({"id": "x", "f": field})));
        let order = OrderBy { field: "f".to_owned(), descending: false };
        let compare = |x, y| compare_rows(Some(&order), x, y);
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
            prop_assert_ne!(compare(&a, &c), Ordering::Greater);
        }
    }
}
