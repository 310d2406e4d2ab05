use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Number, Value, json};

use super::{
    JsonRule, MAX_BYTES, MAX_DEPTH, canonical, compare_numbers, parse, parse_object, parse_stored,
    same,
};

fn rule(text: impl AsRef<[u8]>) -> Result<(), (String, JsonRule)> {
    parse(text.as_ref())
        .map(drop)
        .map_err(|error| (error.path, error.rule))
}

fn number(text: &str) -> Number {
    match parse(text.as_bytes()).unwrap() {
        Value::Number(number) => number,
        other => panic!("{other} is no number"),
    }
}

#[test]
fn a_text_that_breaks_a_rule_is_refused_with_its_place() {
    let broken: &[(&[u8], &str, JsonRule)] = &[
        (b"", "", JsonRule::Invalid),
        (b"nul", "", JsonRule::Invalid),
        (b"{} {}", "", JsonRule::Invalid),
        (b"\xef\xbb\xbf{}", "", JsonRule::Invalid),
        (b"{\"a\":1,}", "", JsonRule::Invalid),
        (b"[1,]", "[1]", JsonRule::Invalid),
        (b"[01]", "", JsonRule::Invalid),
        (b"[+1]", "[0]", JsonRule::Invalid),
        (b"[1.]", "[0]", JsonRule::Invalid),
        (b"[.5]", "[0]", JsonRule::Invalid),
        (b"[NaN]", "[0]", JsonRule::Invalid),
        (b"[Infinity]", "[0]", JsonRule::Invalid),
        (b"['a']", "[0]", JsonRule::Invalid),
        (b"\"tab\there\"", "", JsonRule::Invalid),
        (b"\"open", "", JsonRule::Invalid),
        (br#""\x41""#, "", JsonRule::Invalid),
        (br#""\u00g1""#, "", JsonRule::Invalid),
        (b"// no\n1", "", JsonRule::Invalid),
        (b"\"\xff\"", "", JsonRule::Utf8),
        (b"\"\xed\xa0\x80\"", "", JsonRule::Utf8),
        (br#"{"a":"\ud800"}"#, "a", JsonRule::Utf8),
        (br#"{"a":"\udc00"}"#, "a", JsonRule::Utf8),
        (br#"{"a":"\ud800\ud800"}"#, "a", JsonRule::Utf8),
        (br#"{"a":{"b":[0,1,2,"\u0000"]}}"#, "a.b[3]", JsonRule::Nul),
        (br#"{"a\u0000":1}"#, "", JsonRule::Nul),
        (
            br#"{"a":1,"b":{"c":1,"\u0063":2}}"#,
            "b.c",
            JsonRule::DuplicateKey,
        ),
        (
            br#"{"$serde_json::private::Number":"1"}"#,
            "$serde_json::private::Number",
            JsonRule::ReservedKey,
        ),
        (br#"{"a":1e400}"#, "a", JsonRule::NumberOutOfRange),
        (br#"{"a":-1e400}"#, "a", JsonRule::NumberOutOfRange),
        (br#"{"a":1e-1001}"#, "a", JsonRule::NumberOutOfRange),
        (
            br#"{"a":0e99999999999999999999}"#,
            "a",
            JsonRule::NumberOutOfRange,
        ),
    ];
    for (text, path, expected) in broken {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(rule(text), Err(((*path).to_owned(), *expected)), "{shown}");
    }
}

#[test]
fn limits_are_where_they_are_said_to_be() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(rule(nested(MAX_DEPTH)), Ok(()));
    assert_eq!(
        rule(nested(MAX_DEPTH + 1)).unwrap_err().1,
        JsonRule::TooDeep
    );
    assert_eq!(rule(nested(10_000)).unwrap_err().1, JsonRule::TooDeep);

    let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    assert_eq!(rule(text(MAX_BYTES)), Ok(()));
    assert_eq!(rule(text(MAX_BYTES + 1)).unwrap_err().1, JsonRule::TooLarge);

    let object = |fields: usize| {
        let fields: Vec<_> = (0..fields).map(|field| format!("\"{field}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    assert_eq!(rule(object(1_000)), Ok(()));
    assert_eq!(rule(object(1_001)).unwrap_err().1, JsonRule::TooManyFields);

    assert_eq!(rule("1".repeat(308)), Ok(()));
    assert_eq!(
        rule("1".repeat(310)).unwrap_err().1,
        JsonRule::NumberOutOfRange
    );
    assert_eq!(rule(format!("0.{}", "1".repeat(998))), Ok(()));
    assert_eq!(
        rule(format!("0.{}", "1".repeat(999))).unwrap_err().1,
        JsonRule::NumberOutOfRange
    );
}

#[test]
fn a_number_is_as_long_as_its_text_without_an_exponent() {
    for text in [
        "1e-998",
        "-0.5e-996",
        "12e-998",
        "1e308",
        "0.001e310",
        "1.5e1",
    ] {
        assert_eq!(rule(text), Ok(()), "{text}");
    }
    for text in ["1e-999", "1e-1000", "-0.5e-997", "0e-1000"] {
        let fault = rule(text).unwrap_err();
        assert_eq!(fault.1, JsonRule::NumberOutOfRange, "{text}");
    }
}

#[test]
fn what_was_accepted_in_parts_is_read_as_a_whole() {
    let long = "x".repeat(MAX_BYTES);
    let fields: Vec<_> = (0..1_001).map(|n| format!("\"{n:04}\":1E5")).collect();
    let text = format!("{{{},\"s\":\"{long}\"}}", fields.join(","));
    assert_eq!(canonical(&parse_stored(&text).unwrap()), text);
    for text in ["", "{", "{} {}", "{\"a\":1,\"a\":1}"] {
        assert!(parse_stored(text).is_err(), "{text}");
    }
}

#[test]
fn numbers_keep_their_text() {
    let text = r"[1.10,1E5,1e5,-0,5e-324,0.1e+2,9007199254740993,123456789012345678901234567890]";
    assert_eq!(canonical(&parse(text.as_bytes()).unwrap()), text);
}

#[test]
fn strings_are_read_whole() {
    let value = parse(r#""\"\\\/\b\f\n\r\t\u00e9é\ud83d\ude00😀""#.as_bytes()).unwrap();
    assert_eq!(value, json!("\"\\/\u{8}\u{c}\n\r\téé😀😀"));
}

#[test]
fn only_an_object_is_an_object() {
    for text in ["null", "[]", "1", "\"{}\""] {
        assert_eq!(
            parse_object(text.as_bytes()).unwrap_err().rule,
            JsonRule::NotObject
        );
    }
    assert_eq!(parse_object(b" {\"a\":1} ").unwrap().len(), 1);
}

#[test]
fn an_error_names_place_and_rule() {
    let error = parse(br#"{"a":[1e999]}"#).unwrap_err();
    assert_eq!(error.to_string(), "a[0]: a number out of range");
    assert_eq!(error.rule.code(), "number_out_of_range");
}

#[test]
fn canonical_text_is_sorted_by_code_point_without_white_space() {
    let value = parse(
        r#" { "b" : 1 , "a" : [ true , null ] , "é" : {"z":0,"Z":0} , "😀":2, "￿":1 } "#.as_bytes(),
    );
    assert_eq!(
        canonical(&value.unwrap()),
        r#"{"a":[true,null],"b":1,"é":{"Z":0,"z":0},"￿":1,"😀":2}"#
    );
}

#[test]
fn maps_are_sorted_whatever_features_the_workspace_turns_on() {
    let value: Value = json!({"b": 1, "a": 2});
    assert_eq!(
        value.to_string(),
        r#"{"a":2,"b":1}"#,
        "serde_json/preserve_order is on"
    );
}

#[test]
fn numbers_compare_by_exact_value() {
    let equal = [
        ["1", "1.0"],
        ["10e-1", "1"],
        ["0", "-0.00"],
        ["0e5", "0"],
        ["1200", "12E+2"],
    ];
    for [a, b] in equal {
        assert_eq!(
            compare_numbers(&number(a), &number(b)),
            Ordering::Equal,
            "{a} {b}"
        );
    }
    let ascending = [
        "-1e10",
        "-100",
        "-99.5",
        "-0.5",
        "-1e-9",
        "0",
        "1e-324",
        "0.1",
        "0.10000000000000000001",
        "1",
        "9.99",
        "10",
        "9007199254740992",
        "9007199254740993",
        "1e300",
    ];
    for pair in ascending.windows(2) {
        let (a, b) = (number(pair[0]), number(pair[1]));
        assert_eq!(
            compare_numbers(&a, &b),
            Ordering::Less,
            "{} {}",
            pair[0],
            pair[1]
        );
        assert_eq!(
            compare_numbers(&b, &a),
            Ordering::Greater,
            "{} {}",
            pair[0],
            pair[1]
        );
    }
}

#[test]
fn sameness_looks_through_how_numbers_are_written() {
    let read = |text: &str| parse(text.as_bytes()).unwrap();
    assert!(same(
        &read(r#"{"a":[1.0,{"b":1e2}]}"#),
        &read(r#"{"a":[1,{"b":100}]}"#)
    ));
    assert!(!same(&read(r#"{"a":1}"#), &read(r#"{"a":1,"b":null}"#)));
    assert!(!same(&read("[1]"), &read("[1,1]")));
    assert!(!same(&read("1"), &read("\"1\"")));
}

fn any_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        "[^\u{0}]{0,8}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[^\u{0}]{0,4}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_json()) {
        let text = canonical(&value);
        prop_assert_eq!(parse(text.as_bytes()).unwrap(), value);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _answer = parse(&bytes);
    }

    #[test]
    fn json_like_text_is_judged_as_serde_json_judges_it(text in r#"[\[\]{}",:0-9eE.+\- \\utrn]{0,24}"#) {
        if parse(text.as_bytes()).is_ok() {
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
        }
    }

    #[test]
    fn integers_compare_as_integers(a in any::<i64>(), b in any::<i64>(), zeros in 0_usize..5) {
        let b_text = format!("{b}.{}", "0".repeat(zeros + 1));
        prop_assert_eq!(compare_numbers(&Number::from(a), &number(&b_text)), a.cmp(&b));
    }
}
