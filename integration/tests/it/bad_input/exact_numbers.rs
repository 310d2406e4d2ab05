//! Numbers keep their exact decimal value, whichever backing they go through.

use backends::json::{compare_numbers, parse_object};
use proto::v1::{Condition, ListRequest, LoadRequest, OperationType, Operator};
use serde_json::{Number, Value};

use super::house::{House, operation};

const LITERALS: [&str; 21] = [
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1.50",
    "-2.250",
    "1e2",
    "1E+2",
    "1e-2",
    "0.1",
    "0.30000000000000004",
    "9007199254740993",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890.123456789",
    "3.14159265358979323846264338327950288419716939937510",
    "1e308",
    "1e-998",
    "5e-324",
    "0.000000000000000000000000000000000000000000000000001",
];

#[tokio::test]
async fn numbers_keep_their_exact_decimal_value_in_either_backing() {
    let house = House::furnished().await;
    for model in ["notes", "contacts"] {
        round_trip(&house, model).await;
    }
    house.close().await;
}

async fn round_trip(house: &House, model: &str) {
    let create = |(index, literal): (usize, &&str)| {
        let input = format!("{{\"title\":\"n\",\"price\":{literal}}}");
        operation(OperationType::Create, model, &id(index), input)
    };
    let operations = LITERALS.iter().enumerate().map(create).collect();
    let receipt = house.commit(&format!("numbers-{model}"), operations).await;
    assert_eq!(receipt.changes.len(), LITERALS.len());
    for (change, literal) in receipt.changes.iter().zip(LITERALS) {
        check(&change.row_json, literal, "the receipt");
    }
    for (index, literal) in LITERALS.iter().enumerate() {
        let load = LoadRequest {
            model: model.to_owned(),
            id: id(index),
            ..LoadRequest::default()
        };
        let loaded = house.coordinator().load(load).await.unwrap().into_inner();
        check(&loaded.row_json.unwrap(), literal, "Load");
        let found = list(house, model, literal).await;
        assert!(
            found.contains(&id(index)),
            "{model}: {literal} finds {found:?}"
        );
    }
    // A double would take it for its neighbour.
    assert_eq!(
        list(house, model, "9007199254740992").await,
        [] as [String; 0]
    );
    assert_eq!(list(house, model, "100").await, [id(6), id(7)]);
}

/// The ids of the rows with this price; each row must hold it exactly.
async fn list(house: &House, model: &str, price: &str) -> Vec<String> {
    let condition = Condition {
        field: "price".to_owned(),
        operator: Operator::Eq.into(),
        value_json: price.to_owned().into(),
    };
    let request = ListRequest {
        model: model.to_owned(),
        r#where: vec![condition],
        ..ListRequest::default()
    };
    let page = house
        .coordinator()
        .list(request)
        .await
        .unwrap()
        .into_inner();
    let read = |row: &tonic::codegen::Bytes| {
        check(row, price, "List");
        let row = parse_object(row).unwrap();
        row["id"].as_str().unwrap().to_owned()
    };
    page.rows_json.iter().map(read).collect()
}

fn check(row: &[u8], literal: &str, place: &str) {
    let row = parse_object(row).unwrap();
    let Value::Number(given) = &row["price"] else {
        panic!("{place} has {:?} for {literal}", row["price"]);
    };
    let expected: Number = parse_object(format!("{{\"n\":{literal}}}").as_bytes()).unwrap()["n"]
        .as_number()
        .unwrap()
        .clone();
    assert!(
        compare_numbers(given, &expected).is_eq(),
        "{place} has {given} for {literal}"
    );
}

fn id(index: usize) -> String {
    format!("n{index:02}")
}
