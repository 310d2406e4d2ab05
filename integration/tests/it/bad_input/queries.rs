//! List means the same over either backing: conditions, order, limit, cursor.

use proto::v1::Operator::{
    self, Eq, Ge, Gt, Ilike, In, Is, IsNot, Le, Like, Lt, Ne, NotIlike, NotIn, NotLike,
};
use proto::v1::{Condition, ListRequest, OperationType};
use serde_json::Value;

use super::house::{House, operation};

const ROWS: [(&str, &str); 5] = [
    (
        "a",
        r#"{"title":"Apple","count":1,"price":1.5,"done":true}"#,
    ),
    (
        "b",
        r#"{"title":"banana","count":2,"price":10,"done":false}"#,
    ),
    ("c", r#"{"title":"Cherry%","count":3,"done":null}"#),
    ("d", r#"{"title":"date_","count":10,"price":-2.25}"#),
    ("e", r#"{"title":"Éclair","count":2,"price":1e1}"#),
];

type Case = (
    &'static [(&'static str, Operator, &'static str)],
    &'static str,
    &'static str,
);

/// Conditions, order, and the ids that come, in their order.
const CASES: [Case; 33] = [
    (&[], "", "abcde"),
    (&[("title", Eq, "\"Apple\"")], "", "a"),
    (&[("title", Ne, "\"Apple\"")], "", "bcde"),
    (&[("title", Gt, "\"Cherry%\"")], "", "bde"),
    (&[("count", Lt, "3")], "", "abe"),
    (&[("count", Le, "3")], "", "abce"),
    (&[("count", Gt, "2")], "", "cd"),
    (&[("count", Ge, "2.0")], "", "bcde"),
    (&[("count", In, "[1,10]")], "", "ad"),
    (&[("count", NotIn, "[1,10]")], "", "bce"),
    (&[("count", In, "[]")], "", ""),
    (&[("price", Eq, "10.0")], "", "be"),
    (&[("price", Ne, "10")], "", "ad"),
    (&[("done", Is, "null")], "", "cde"),
    (&[("done", IsNot, "null")], "", "ab"),
    (&[("done", Is, "true")], "", "a"),
    (&[("done", IsNot, "true")], "", "bcde"),
    (&[("done", Eq, "false")], "", "b"),
    (&[("id", Ge, "\"c\"")], "", "cde"),
    (&[("id", In, r#"["a","e","x"]"#)], "", "ae"),
    (&[("count", Ge, "2"), ("price", Gt, "0")], "", "be"),
    (&[("count", Eq, "2"), ("count", Eq, "3")], "", ""),
    (&[("title", Eq, "\"' OR 1=1; --\"")], "", ""),
    (&[], "count", "abecd"),
    (&[], "count asc", "abecd"),
    (&[], "count desc", "dcbea"),
    (&[], "price", "dabec"),
    (&[], "price desc", "cbead"),
    (&[], "title", "acbde"),
    (&[], "done", "bacde"),
    (&[], "id", "abcde"),
    (&[], "id desc", "edcba"),
    (&[("count", Lt, "10")], "title desc", "ebca"),
];

/// Patterns, which the endpoint under test does not know.
const PATTERNS: [Case; 10] = [
    (&[("title", Like, "\"%a%\"")], "", "bde"),
    (&[("title", NotLike, "\"%a%\"")], "", "ac"),
    (&[("title", Ilike, "\"%a%\"")], "", "abde"),
    (&[("title", NotIlike, "\"%a%\"")], "", "c"),
    (&[("title", Like, r#""date\\_""#)], "", "d"),
    (&[("title", Like, r#""Cherry\\%""#)], "", "c"),
    (&[("title", Like, "\"_ate_\"")], "", "d"),
    (&[("title", Like, "\"_clair\"")], "", "e"),
    (&[("title", Ilike, "\"é%\"")], "", "e"),
    (&[("title", Like, "\"\"")], "", ""),
];

#[tokio::test]
async fn list_answers_the_same_rows_from_either_backing() {
    let house = furnished().await;
    for model in ["notes", "contacts"] {
        for case in CASES {
            check(&house, model, case).await;
        }
    }
    for case in PATTERNS {
        check(&house, "notes", case).await;
    }
    house.close().await;
}

#[tokio::test]
async fn pages_of_any_size_add_up_to_the_list() {
    let house = furnished().await;
    for page_size in [1, 2, 3, 4, 5, 6] {
        for (_, order, expected) in CASES
            .iter()
            .filter(|(conditions, ..)| conditions.is_empty())
        {
            let request = ListRequest {
                page_size,
                ..asked("notes", &[], order)
            };
            let ids = all(&house, request).await;
            assert_eq!(ids, *expected, "{order}, {page_size} a page");
        }
        // The endpoint under test has cursors for the order of ids alone.
        for case @ (conditions, order, expected) in &CASES[..24] {
            if order.is_empty() {
                let request = ListRequest {
                    page_size,
                    ..asked("contacts", conditions, "")
                };
                assert_eq!(
                    all(&house, request).await,
                    *expected,
                    "{case:?}, {page_size} a page"
                );
            }
        }
    }
    house.close().await;
}

#[tokio::test]
async fn archived_rows_are_listed_only_when_asked_for() {
    let house = furnished().await;
    let archive = operation(OperationType::Archive, "notes", "b", "");
    house.commit("archive", vec![archive]).await;
    let hidden = asked("notes", &[], "");
    assert_eq!(all(&house, hidden.clone()).await, "acde");
    let shown = ListRequest {
        include_archived: true,
        page_size: 2,
        ..hidden.clone()
    };
    assert_eq!(all(&house, shown).await, "abcde");
    let unarchive = operation(OperationType::Unarchive, "notes", "b", "");
    house.commit("unarchive", vec![unarchive]).await;
    assert_eq!(all(&house, hidden).await, "abcde");
    house.close().await;
}

async fn furnished() -> House {
    let house = House::furnished().await;
    for model in ["notes", "contacts"] {
        let mut operations = vec![operation(OperationType::Delete, model, "old", "")];
        let create = |(id, row)| operation(OperationType::Create, model, id, row);
        operations.extend(ROWS.map(create));
        house.commit(&format!("rows-of-{model}"), operations).await;
    }
    house
}

async fn check(house: &House, model: &str, case: Case) {
    let (conditions, order, expected) = case;
    let ids = all(house, asked(model, conditions, order)).await;
    assert_eq!(ids, expected, "{model}: {case:?}");
}

/// The ids of all pages, one letter each.
async fn all(house: &House, mut request: ListRequest) -> String {
    let mut ids = String::new();
    loop {
        let page = house
            .coordinator()
            .list(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(
            request.page_size == 0
                || page.rows_json.len() <= usize::try_from(request.page_size).unwrap()
        );
        for row in &page.rows_json {
            let row: Value = serde_json::from_slice(row).unwrap();
            ids.push_str(row["id"].as_str().unwrap());
        }
        if page.next_page_token.is_empty() {
            return ids;
        }
        assert!(
            ids.len() <= ROWS.len(),
            "the pages go round in circles: {ids}"
        );
        request.page_token = page.next_page_token;
    }
}

fn asked(model: &str, conditions: &[(&str, Operator, &str)], order: &str) -> ListRequest {
    let condition = |(field, operator, value): &(&str, Operator, &str)| Condition {
        field: (*field).to_owned(),
        operator: (*operator).into(),
        value_json: (*value).to_owned().into(),
    };
    ListRequest {
        model: model.to_owned(),
        r#where: conditions.iter().map(condition).collect(),
        order_by: order.to_owned(),
        ..ListRequest::default()
    }
}
