use backends::json;
use backends::query::{Condition, Operator, OrderBy, Query, compare_rows, matches};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};

use super::{Loaded, LoadedRow, Page, PageRequest, list, load};
use crate::store::scratch::{Scratch, acme};

type Row = Map<String, Value>;

async fn insert(scratch: &Scratch, rows: &[Row]) {
    for (number, row) in rows.iter().enumerate() {
        sqlx::query(
            "INSERT INTO managed_rows (org_id, model, row_id, row, sync_id, archived_at)
             VALUES ('acme', 'm', $1, $2::jsonb, 1, CASE WHEN $3 THEN now() END)",
        )
        .bind(row["id"].as_str())
        .bind(json::canonical(&Value::Object(row.clone())))
        .bind(is_archived(number))
        .execute(&scratch.store.reads)
        .await
        .unwrap();
    }
}

fn is_archived(number: usize) -> bool {
    number % 7 == 6
}

fn request(query: Query) -> PageRequest {
    let model = "m".to_owned();
    PageRequest {
        organization: acme(),
        model,
        query,
        include_archived: false,
        after: None,
    }
}

fn everything(limit: u32) -> Query {
    Query {
        conditions: Vec::new(),
        order: None,
        limit,
        cursor: None,
    }
}

fn number() -> impl Strategy<Value = Value> {
    let literals = [
        "0",
        "-0.0",
        "1",
        "1.0",
        "1.00",
        "10e-1",
        "-1",
        "2",
        "9007199254740993",
        "9007199254740992.5",
        "1e300",
        "-1e300",
        "1e-300",
        "0.1",
        "123456789012345678901234567890.123456789",
    ];
    prop::sample::select(literals.to_vec()).prop_map(|text| json::parse(text.as_bytes()).unwrap())
}

fn text() -> impl Strategy<Value = String> {
    let samples = [
        "true",
        "false",
        "null",
        "a%b",
        "a_b",
        "a\\b",
        "Äpfel",
        "äpfel",
        "\u{1f600}",
    ];
    prop_oneof![
        "[aB%_]{0,2}",
        prop::sample::select(samples.to_vec()).prop_map(str::to_owned),
        // Above and below the surrogates, where UTF-16 would sort otherwise.
        "[\u{fffd}\u{10000}é]{0,2}",
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        number(),
        text().prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ]
}

fn content() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => scalar(),
        1 => Just(Value::Null),
        1 => prop::collection::vec(scalar(), 0..2).prop_map(Value::from),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let field = || prop::option::weighted(0.8, content());
    ("[a-zé]{1,4}", field(), field()).prop_map(|(id, a, b)| {
        let fields = [("id", Some(Value::from(id))), ("a", a), ("b'\"", b)];
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}

fn field() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a", "b'\"", "b'\"", "id", "absent"]).prop_map(str::to_owned)
}

fn condition() -> impl Strategy<Value = Condition> {
    let value = prop_oneof![
        4 => content(),
        1 => prop::collection::vec(scalar(), 0..4).prop_map(Value::from),
    ];
    (field(), prop::sample::select(Operator::ALL.to_vec()), value)
        .prop_map(|(field, operator, value)| Condition {
            field,
            operator,
            value,
        })
        .prop_filter("the value fits", |condition| condition.check().is_ok())
}

fn query() -> impl Strategy<Value = Query> {
    let order = prop::option::of((field(), any::<bool>()));
    (prop::collection::vec(condition(), 1..3), order, 1_u32..9).prop_map(
        |(conditions, order, limit)| {
            let order = order.map(|(field, descending)| OrderBy { field, descending });
            Query {
                conditions,
                order,
                limit,
                cursor: None,
            }
        },
    )
}

/// What the pure code makes of a query.
fn expected(rows: &[Row], request: &PageRequest) -> Vec<String> {
    let Query {
        conditions, order, ..
    } = &request.query;
    let mut chosen: Vec<&Row> = rows
        .iter()
        .enumerate()
        .filter(|(number, _)| request.include_archived || !is_archived(*number))
        .map(|(_, row)| row)
        .filter(|row| conditions.iter().all(|condition| matches(row, condition)))
        .collect();
    // Arrays are equal to each other here.
    let comparable = |row: &Row| -> Row {
        let same = |value: &Value| {
            if value.is_array() {
                Value::Array(Vec::new())
            } else {
                value.clone()
            }
        };
        row.iter()
            .map(|(name, value)| (name.clone(), same(value)))
            .collect()
    };
    chosen.sort_by(|a, b| compare_rows(order.as_ref(), &comparable(a), &comparable(b)));
    chosen
        .into_iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

fn ids(page: &Page) -> Vec<String> {
    let id = |row: &String| {
        json::parse_object(row.as_bytes()).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    page.rows.iter().map(id).collect()
}

#[tokio::test]
async fn sql_agrees_with_the_pure_meaning_of_a_query_page_by_page() {
    let scratch = Scratch::start().await;
    let mut runner = TestRunner::deterministic();
    let mut rows = prop::collection::vec(row(), 80)
        .new_tree(&mut runner)
        .unwrap()
        .current();
    rows.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    rows.dedup_by(|a, b| a["id"] == b["id"]);
    insert(&scratch, &rows).await;

    let mut telling = 0;
    for _ in 0..400 {
        let mut request = request(query().new_tree(&mut runner).unwrap().current());
        request.include_archived = any::<bool>().new_tree(&mut runner).unwrap().current();
        let mut found = Vec::new();
        loop {
            let page = list(&scratch.store, request.clone()).await.unwrap();
            assert_eq!(page.last_sync_id, 41);
            assert!(page.rows.len() <= request.query.limit as usize);
            found.extend(ids(&page));
            let Some(next) = page.next else { break };
            assert_eq!(page.rows.len(), request.query.limit as usize);
            request.after = Some(next);
        }
        assert_eq!(found, expected(&rows, &request), "{request:?}");
        telling += usize::from(!found.is_empty() && found.len() * 4 < rows.len() * 3);
    }
    assert!(
        telling > 100,
        "{telling} queries chose some rows and left most"
    );
}

#[tokio::test]
async fn a_row_is_loaded_with_the_position_of_its_snapshot() {
    let scratch = Scratch::start().await;
    let row = |text: &str| json::parse_object(text.as_bytes()).unwrap();
    insert(&scratch, &[row(r#"{"id": "é1", "n": 1.50}"#)]).await;
    let load =
        |model: &str, id: &str| load(&scratch.store, acme(), model.to_owned(), id.to_owned());
    let json = r#"{"id":"é1","n":1.50}"#.to_owned();
    let found = Some(LoadedRow {
        json,
        archived: false,
    });
    assert_eq!(
        load("m", "é1").await.unwrap(),
        Loaded {
            last_sync_id: 41,
            row: found
        }
    );
    for (model, id) in [
        ("m", "e1"),
        ("other", "é1"),
        ("m", "'; DROP TABLE managed_rows; --"),
    ] {
        assert_eq!(
            load(model, id).await.unwrap(),
            Loaded {
                last_sync_id: 41,
                row: None
            }
        );
    }
}

#[tokio::test]
async fn a_page_of_long_rows_ends_early_and_the_next_one_goes_on() {
    let scratch = Scratch::start().await;
    let row = |number: usize| {
        let text = format!(
            r#"{{"id": "r{number}", "text": "{}"}}"#,
            "x".repeat(900_000)
        );
        json::parse_object(text.as_bytes()).unwrap()
    };
    let rows: Vec<_> = (0..6).map(row).collect();
    insert(&scratch, &rows).await;

    let mut request = request(everything(10));
    request.include_archived = true;
    let first = list(&scratch.store, request.clone()).await.unwrap();
    assert_eq!(ids(&first), ["r0", "r1", "r2"]);
    request.after = first.next;
    let second = list(&scratch.store, request.clone()).await.unwrap();
    assert_eq!(ids(&second), ["r3", "r4", "r5"]);
    assert_eq!(second.next, None);
}
