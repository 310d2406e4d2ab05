use axum::http::StatusCode;
use serde_json::json;
use standardwebhooks::Webhook;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const KEY: &str = "sk_test_demo_key";

/// Sends a signed request on a connection of its own; the raw response, empty if none came.
async fn send(address: SocketAddr, id: &str, body: &Value) -> io::Result<String> {
    let body = body.to_string();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let signer = Webhook::from_bytes(KEY.into()).unwrap();
    let signature = signer.sign(id, now, body.as_bytes()).unwrap();
    let head = format!(
        "POST /ablo HTTP/1.1\r\nwebhook-id: {id}\r\nwebhook-timestamp: {now}\r\n\
         webhook-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

fn create(name: &str, id: &str) -> Value {
    json!({"type": "commit", "clientTxId": name, "correlationId": name, "operations": [
        {"type": "CREATE", "model": "airports", "id": id, "input": {"latitude": 31.25}},
    ]})
}

#[tokio::test]
async fn a_commit_is_executed_once_and_its_answer_replayed() {
    let endpoint = Endpoint::start(KEY).await.unwrap();
    let first = send(endpoint.address(), "msg_1", &create("a", "00M"))
        .await
        .unwrap();
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert!(
        first.ends_with(r#"{"rows":[{"id":"00M","latitude":31.25}]}"#),
        "{first}"
    );
    let again = send(endpoint.address(), "msg_1", &create("a", "00M"))
        .await
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        endpoint.wait_for_arrivals(Kind::Commit, 2).await[1].client_tx_id(),
        "a"
    );
    assert_eq!(endpoint.executions().len(), 1);
    let other = send(endpoint.address(), "msg_2", &create("b", "00M"))
        .await
        .unwrap();
    assert!(
        other.starts_with("HTTP/1.1 409") && other.contains("entity_exists"),
        "{other}"
    );
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_on_the_record() {
    let endpoint = Endpoint::start("sk_test_other").await.unwrap();
    let response = send(endpoint.address(), "msg_1", &create("a", "00M"))
        .await
        .unwrap();
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert!(endpoint.arrivals()[0].signature_error.is_some());
    assert!(endpoint.executions().is_empty());
    endpoint.set_keys(&["sk_test_other", KEY]);
    let response = send(endpoint.address(), "msg_1", &create("a", "00M"))
        .await
        .unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn scripts_are_played_in_order_and_then_the_habit() {
    let endpoint = Endpoint::start(KEY).await.unwrap();
    endpoint.script(Kind::Commit, Answer::applied_but(Reply::Reset));
    let slow = Answer::status(StatusCode::TOO_MANY_REQUESTS).with_header("retry-after", "7");
    endpoint.script(Kind::Commit, slow);
    endpoint.always(Kind::Commit, Answer::error(StatusCode::GONE, "gone"));
    let commit = create("a", "00M");
    assert!(send(endpoint.address(), "msg_1", &commit).await.is_err());
    assert_eq!(endpoint.executions().len(), 1);
    let second = send(endpoint.address(), "msg_1", &commit).await.unwrap();
    assert!(second.contains("429 Too Many Requests\r\n"), "{second}");
    assert!(second.contains("retry-after: 7\r\n"), "{second}");
    for _ in 0..2 {
        let habit = send(endpoint.address(), "msg_1", &commit).await.unwrap();
        assert!(habit.starts_with("HTTP/1.1 410"), "{habit}");
    }
    endpoint.be_honest(Kind::Commit);
    let honest = send(endpoint.address(), "msg_1", &commit).await.unwrap();
    assert!(honest.starts_with("HTTP/1.1 200"), "{honest}");
    assert_eq!(endpoint.executions().len(), 1);
}

#[tokio::test]
async fn a_held_request_arrives_but_is_not_executed_until_released() {
    let endpoint = Endpoint::start(KEY).await.unwrap();
    endpoint.hold(Kind::Commit);
    let address = endpoint.address();
    let mut sending = JoinSet::new();
    sending.spawn(async move { send(address, "msg_1", &create("a", "00M")).await.unwrap() });
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    assert!(endpoint.executions().is_empty());
    endpoint.release(Kind::Commit);
    let arrived = endpoint.arrivals()[0].order;
    assert!(endpoint.wait_for_executions(1).await[0].order > arrived);
    let response = sending.join_next().await.unwrap().unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn a_stopped_endpoint_refuses_and_comes_back_on_its_port() {
    let mut endpoint = Endpoint::start(KEY).await.unwrap();
    send(endpoint.address(), "msg_1", &create("a", "00M"))
        .await
        .unwrap();
    endpoint.stop().await;
    let refused = send(endpoint.address(), "msg_2", &create("b", "00R"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    endpoint.restart().await.unwrap();
    send(endpoint.address(), "msg_2", &create("b", "00R"))
        .await
        .unwrap();
    assert_eq!(endpoint.rows("airports").len(), 2);
}

#[tokio::test]
async fn rows_are_listed_by_page_and_outside_writes_are_in_the_feed() {
    let endpoint = Endpoint::start(KEY).await.unwrap();
    for number in 1..=3 {
        let row = Row::from_iter([("number".to_owned(), number.into())]);
        endpoint.write_outside("airports", &number.to_string(), row);
    }
    let list = json!({"type": "list", "model": "airports", "query": {"limit": 2,
        "where": [["number", ">=", 1]]}});
    let page = send(endpoint.address(), "msg_1", &list).await.unwrap();
    let wanted = r#"{"nextCursor":"2","rows":[{"id":"1","number":1},{"id":"2","number":2}]}"#;
    assert!(page.ends_with(wanted), "{page}");
    let events = json!({"type": "events", "cursor": "2"});
    let events = send(endpoint.address(), "msg_2", &events).await.unwrap();
    assert!(
        events.contains(r#""entityId":"3","id":"event-3","model":"airports""#),
        "{events}"
    );
}
