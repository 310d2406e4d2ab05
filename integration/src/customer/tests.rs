use axum::http::HeaderValue;
use time::OffsetDateTime;

use super::*;
use crate::postgres::TestDatabase;

const KEY: &str = "sk_test_demo_key";

struct Sender {
    app: App,
    /// Kept as long as the app uses it.
    database: TestDatabase,
}

impl Sender {
    async fn new() -> Self {
        let database = TestDatabase::empty().await;
        let app = App::open(database.pool(4), KEY).await.unwrap();
        Self { app, database }
    }

    async fn send(&self, body: &Value) -> Result<Value, (u16, &'static str)> {
        let body = body.to_string().into_bytes();
        self.send_signed(&body, &body, OffsetDateTime::now_utc().unix_timestamp())
            .await
    }

    async fn send_signed(
        &self,
        body: &[u8],
        signed: &[u8],
        timestamp: i64,
    ) -> Result<Value, (u16, &'static str)> {
        let webhook = standardwebhooks::Webhook::from_bytes(KEY.into()).unwrap();
        let signature = webhook.sign("msg_1", timestamp, signed).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", HeaderValue::from_static("msg_1"));
        headers.insert("webhook-timestamp", timestamp.into());
        headers.insert("webhook-signature", signature.parse().unwrap());
        self.app
            .answer(&headers, body)
            .await
            .map_err(|refusal| match refusal {
                Refusal::Final(status, code, _) => (status.as_u16(), code),
                Refusal::Database(error) => panic!("{error}"),
            })
    }
}

fn commit(name: &str, operations: &Value) -> Value {
    json!({"type": "commit", "clientTxId": name, "correlationId": name, "intentHash": name,
        "operations": operations, "scope": {"mode": "test"}})
}

/// Text, so that the numbers' digits are the test's.
fn create(id: &str, latitude: &str) -> Value {
    let row = format!(
        r#"{{"name": "Thigpen", "country": "USA", "city": null, "latitude": {latitude}, "longitude": -89.23450472}}"#
    );
    let input: Value = serde_json::from_str(&row).unwrap();
    json!({"type": "CREATE", "model": "airports", "id": id, "input": input})
}

#[tokio::test]
async fn a_commit_happens_once_and_numbers_keep_their_digits() {
    let sender = Sender::new().await;
    let once = commit("a", &json!([create("00M", "31.953764720000000000010")]));
    let first = sender.send(&once).await.unwrap();
    assert_eq!(sender.send(&once).await.unwrap(), first);
    assert!(
        first
            .to_string()
            .contains(r#""latitude":31.953764720000000000010"#),
        "{first}"
    );
    let loaded = sender
        .send(&json!({"type": "load", "model": "airports", "id": "00M"}))
        .await;
    assert_eq!(loaded.unwrap()["row"], first["deltas"][0]["data"]);
    let mut other = once;
    other["intentHash"] = "b".into();
    assert_eq!(
        sender.send(&other).await,
        Err((409, "idempotency_conflict"))
    );
}

#[tokio::test]
async fn copies_of_a_commit_that_race_get_one_answer() {
    let sender = Sender::new().await;
    let once = commit("a", &json!([create("00M", "1")]));
    let answers = futures_util::future::join_all((0..8).map(|_| sender.send(&once))).await;
    let first = answers[0].clone().unwrap();
    assert!(answers.into_iter().all(|answer| answer.unwrap() == first));
    let events = sender.send(&json!({"type": "events"})).await.unwrap();
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refused_commit_changes_nothing_and_its_id_is_free() {
    let sender = Sender::new().await;
    sender
        .send(&commit("a", &json!([create("00M", "1")])))
        .await
        .unwrap();
    let both = commit("b", &json!([create("00R", "1"), create("00M", "2")]));
    assert_eq!(sender.send(&both).await, Err((409, "entity_exists")));
    let update =
        json!({"type": "UPDATE", "model": "airports", "id": "00R", "input": {"city": "x"}});
    assert_eq!(
        sender.send(&commit("b", &json!([update]))).await,
        Err((404, "entity_not_found"))
    );
    let unknown = json!({"type": "UPDATE", "model": "airports", "id": "00M", "input": {"x": 1}});
    assert_eq!(
        sender.send(&commit("b", &json!([unknown]))).await,
        Err((422, "field_unknown"))
    );
    let wrong = json!({"type": "UPDATE", "model": "airports", "id": "00M",
        "input": {"latitude": "north"}});
    assert_eq!(
        sender.send(&commit("b", &json!([wrong]))).await,
        Err((422, "field_invalid"))
    );
    sender
        .send(&commit("b", &json!([create("00R", "1")])))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_update_keeps_what_it_does_not_name_and_a_delete_may_find_nothing() {
    let sender = Sender::new().await;
    sender
        .send(&commit("a", &json!([create("00M", "1.50")])))
        .await
        .unwrap();
    let update = json!({"type": "UPDATE", "model": "airports", "id": "00M",
        "input": {"city": "Bay Springs"}, "transactionId": "t"});
    let updated = sender.send(&commit("b", &json!([update]))).await.unwrap();
    let delta = &updated["deltas"][0];
    assert_eq!(delta["data"]["name"], "Thigpen");
    assert_eq!(delta["data"]["latitude"].to_string(), "1.50");
    assert_eq!(delta["transactionId"], "t");
    for name in ["c", "d"] {
        let delete = json!({"type": "DELETE", "model": "airports", "id": "00M"});
        let deleted = sender.send(&commit(name, &json!([delete]))).await.unwrap();
        assert_eq!(
            deleted,
            json!({"deltas": [{"model": "airports", "id": "00M", "type": "DELETE"}]})
        );
    }
}

#[tokio::test]
async fn rows_are_found_by_condition_in_order_and_by_page() {
    let sender = Sender::new().await;
    let rows = ["1", "10", "9"].map(|it| create(&format!("id{it}"), it));
    sender
        .send(&commit("a", &rows.as_slice().into()))
        .await
        .unwrap();
    let mut list = json!({"type": "list", "model": "airports", "query": {"limit": 1,
        "where": [["latitude", ">", 1], ["country", "USA"], ["city", "IS", null],
            ["id", "IN", ["id9", "id10"]], ["name", "ILIKE", "thig%"]],
        "orderBy": "latitude", "order": "desc"}});
    let first = sender.send(&list).await.unwrap();
    assert_eq!(first["rows"][0]["id"], "id10");
    list["query"]["cursor"] = first["nextCursor"].clone();
    let second = sender.send(&list).await.unwrap();
    assert_eq!(second["rows"][0]["id"], "id9");
    assert!(second["nextCursor"].is_null());
    list["query"]["where"] = json!([["id; DROP TABLE airports", 1]]);
    assert_eq!(sender.send(&list).await, Err((400, "query_invalid")));
}

#[tokio::test]
async fn the_feed_has_what_the_coordinator_wrote_and_what_others_did() {
    let sender = Sender::new().await;
    sender
        .send(&commit("a", &json!([create("00M", "1")])))
        .await
        .unwrap();
    sqlx::query("UPDATE airports SET city = 'x'")
        .execute(&sender.database.pool(1))
        .await
        .unwrap();
    let page = sender
        .send(&json!({"type": "events", "limit": 1}))
        .await
        .unwrap();
    assert_eq!(page["events"][0]["clientTxId"], "a");
    let cursor = &page["nextCursor"];
    let page = sender
        .send(&json!({"type": "events", "cursor": cursor}))
        .await
        .unwrap();
    let outside = &page["events"][0];
    assert_eq!(
        (&outside["type"], &outside["data"]["city"]),
        (&json!("UPDATE"), &json!("x"))
    );
    assert!(outside["clientTxId"].is_null());
    let cursor = &page["nextCursor"];
    let page = sender
        .send(&json!({"type": "events", "cursor": cursor}))
        .await
        .unwrap();
    assert_eq!(page, json!({"events": []}));
}

#[tokio::test]
async fn what_is_not_signed_just_now_is_refused() {
    let sender = Sender::new().await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let body = br#"{"type":"events"}"#;
    assert!(sender.send_signed(body, body, now).await.is_ok());
    let invalid = Err((401, "source_signature_invalid"));
    assert_eq!(
        sender
            .send_signed(body, br#"{"type": "events"}"#, now)
            .await,
        invalid
    );
    let expired = Err((401, "source_timestamp_expired"));
    assert_eq!(sender.send_signed(body, body, now - 301).await, expired);
    assert_eq!(sender.send_signed(body, body, now + 310).await, expired);
}
