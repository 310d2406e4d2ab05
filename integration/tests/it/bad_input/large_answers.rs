//! What was accepted can be answered, however large it is.

use proto::v1::{ListRequest, LoadRequest, OperationType};

use super::house::{House, commit, operation};
use super::refusal::field;

/// Almost the longest input.
const LARGE: usize = 1_000_000;

#[tokio::test]
async fn a_commit_that_its_endpoint_could_not_repeat_in_its_answer_is_refused() {
    let house = House::furnished().await;
    let row = |id: &str, length: usize| {
        let input = format!("{{\"title\":\"{}\"}}", "x".repeat(length));
        operation(OperationType::Create, "contacts", id, input)
    };
    let many = (0..500).map(|n| row(&format!("c{n}"), 8_000)).collect();
    let cases = vec![
        (
            "many rows",
            commit("many", many),
            field("commit_too_large", "operations"),
        ),
        (
            "one row",
            commit("one", vec![row("l", LARGE)]),
            field("commit_too_large", "operations"),
        ),
    ];
    let send = async |request| house.coordinator().commit(request).await;
    house.refuses(cases, send).await;

    let receipt = house.commit("large", vec![row("large", 950_000)]).await;
    assert_eq!(receipt.attempt_count, 1);
    let load = LoadRequest {
        model: "contacts".to_owned(),
        id: "large".to_owned(),
        ..LoadRequest::default()
    };
    let loaded = house.coordinator().load(load).await.unwrap().into_inner();
    assert!(loaded.row_json.unwrap().len() > 950_000);
    house.close().await;
}

#[tokio::test]
async fn a_page_ends_before_it_is_too_large_for_a_message() {
    let house = House::furnished().await;
    let large = format!("{{\"s\":\"{}\"}}", "x".repeat(LARGE));
    for n in 0..5 {
        let create = operation(OperationType::Create, "open", &format!("n{n}"), &large);
        house.commit(&format!("large-{n}"), vec![create]).await;
    }
    let mut request = ListRequest {
        model: "open".to_owned(),
        ..ListRequest::default()
    };
    let mut rows = 0;
    loop {
        let page = house.coordinator().list(request.clone()).await;
        let page = page.unwrap().into_inner();
        rows += page.rows_json.len();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(rows, 5);
    // The receipt says so when its rows are too large, and the commit stands.
    let update = |n| {
        operation(
            OperationType::Update,
            "open",
            &format!("n{n}"),
            r#"{"t":1}"#,
        )
    };
    let receipt = house.commit("all", (0..5).map(update).collect()).await;
    assert!(receipt.changes.is_empty() && receipt.changes_expired);
    house.close().await;
}

#[tokio::test]
async fn a_row_counts_as_long_as_its_numbers_are_when_written_out() {
    let house = House::furnished().await;
    // 48 KiB as they are written, 3 MiB without exponents.
    let numbers = format!("{{\"n\":[{}1]}}", "1e300,".repeat(10_000));
    let create = operation(OperationType::Create, "open", "x", numbers);
    let request = commit("numbers", vec![create]);
    let refusal = field("row_too_large", "operations[0].input_json");
    let send = async |request| house.coordinator().commit(request).await;
    house
        .refuses(vec![("long numbers", request, refusal)], send)
        .await;
    house.close().await;
}
