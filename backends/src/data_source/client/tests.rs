use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::net::TcpListener;

use super::{EndpointClient, Request};
use crate::data_source::clock::Clock;
use crate::data_source::egress::EgressPolicy;
use crate::data_source::endpoint::EndpointUrl;
use crate::data_source::exchange::{Exchange, FailureClass};
use crate::data_source::name_server::name_server;
use crate::data_source::sign::{SigningKey, signature_header};
use crate::data_source::wire::LONGEST_ANSWER;
use crate::data_source::wire::RequestKind;
use server::{Script, Server};

mod server;
mod tls;

const NOON: u64 = 1_700_000_000;

/// A clock that stands still.
#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOON)
    }
}

fn development() -> EgressPolicy {
    EgressPolicy {
        allowed_subnets: vec!["127.0.0.1/32".parse().unwrap()],
        ..EgressPolicy::default()
    }
}

fn client() -> EndpointClient {
    EndpointClient::builder(development())
        .clock(Arc::new(Stopped))
        .build()
        .unwrap()
}

fn url(address: SocketAddr) -> EndpointUrl {
    EndpointUrl::parse(&format!("http://{address}/hook?a=b"), &development()).unwrap()
}

fn keys() -> [SigningKey; 2] {
    ["sk_test_new", "sk_test_old"].map(|key| SigningKey::from(key.to_owned()))
}

async fn sent(client: &EndpointClient, url: &EndpointUrl, timeout: Duration) -> Exchange {
    let request = Request {
        url,
        webhook_id: "c_1",
        body: Bytes::from_static(br#"{"type":"commit"}"#),
        keys: &keys(),
        timeout,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        kind: RequestKind::Commit,
    };
    client.send(request).await
}

async fn answer(script: Script) -> Exchange {
    let server = Server::start(script).await;
    sent(&client(), &url(server.address), Duration::from_secs(10)).await
}

fn class(exchange: &Exchange) -> Option<FailureClass> {
    exchange.failure.as_ref().map(|failure| failure.class)
}

fn reply(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_request_carries_what_the_wires_reference_says() {
    let server = Server::start(Script::Reply(reply("200 OK", "{}"))).await;
    let exchange = sent(&client(), &url(server.address), Duration::from_secs(10)).await;
    assert_eq!((exchange.status, class(&exchange)), (Some(200), None));
    assert_eq!(exchange.peer, Some(server.address));
    assert_eq!(&exchange.body[..], b"{}");

    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, r#"{"type":"commit"}"#);
    let head = head.to_lowercase();
    let signature = signature_header(&keys(), "c_1", NOON.cast_signed(), body.as_bytes());
    let expected = [
        "post /hook?a=b http/1.1".to_owned(),
        "content-type: application/json".to_owned(),
        "webhook-id: c_1".to_owned(),
        "idempotency-key: c_1".to_owned(),
        format!("webhook-timestamp: {NOON}"),
        format!("webhook-signature: {}", signature.to_lowercase()),
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        format!("user-agent: coordinator/{}", env!("CARGO_PKG_VERSION")),
        "content-length: 17".to_owned(),
    ];
    for line in expected {
        assert!(
            head.lines().any(|other| other == line),
            "{line} is not in\n{head}"
        );
    }
    for absent in [
        "accept-encoding",
        "referer",
        "cookie",
        "authorization",
        "expect",
    ] {
        assert!(!head.contains(absent), "{absent} is in\n{head}");
    }
}

#[tokio::test]
async fn what_an_answer_says_about_time_is_read() {
    let pause = "503 Service Unavailable\r\nretry-after: 7\r\ndate: Tue, 14 Nov 2023 22:13:30 GMT";
    let exchange = answer(Script::Reply(reply(pause, ""))).await;
    assert_eq!(exchange.retry_after, Some(Duration::from_secs(7)));
    let skew = exchange
        .server_date
        .unwrap()
        .duration_since(exchange.started)
        .unwrap();
    assert_eq!(skew, Duration::from_secs(10));

    let two = "429 Too Many Requests\r\nretry-after: 7\r\nretry-after: 9\r\ndate: now";
    let exchange = answer(Script::Reply(reply(two, ""))).await;
    assert_eq!((exchange.retry_after, exchange.server_date), (None, None));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start(Script::Reply(reply("200 OK", "{}"))).await;
    let (client, url) = (client(), url(server.address));
    for _ in 0..3 {
        assert_eq!(
            sent(&client, &url, Duration::from_secs(10)).await.status,
            Some(200)
        );
    }
    assert_eq!((server.connections(), server.requests().len()), (1, 3));
}

#[tokio::test]
async fn every_call_is_at_most_one_request() {
    let server = Server::start(Script::ReplyAndClose(reply("200 OK", "{}"))).await;
    let (client, url) = (client(), url(server.address));
    for calls in 1..=5 {
        let _either = sent(&client, &url, Duration::from_secs(10)).await;
        assert!(server.requests().len() <= calls);
    }
    let server = Server::start(Script::ReplyAndClose(Vec::new())).await;
    let exchange = sent(&client, &self::url(server.address), Duration::from_secs(10)).await;
    assert_eq!(
        (exchange.status, class(&exchange)),
        (None, Some(FailureClass::Closed))
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_deadline_covers_head_and_body() {
    let table = [
        (
            Script::ReplyAndHold(Vec::new()),
            None,
            FailureClass::TimeoutAfterSend,
        ),
        (
            Script::ReplyAndHold(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
            Some(200),
            FailureClass::TimeoutBody,
        ),
        (
            Script::ReplyAndDrip(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n".to_vec()),
            Some(200),
            FailureClass::TimeoutBody,
        ),
    ];
    for (script, status, expected) in table {
        let server = Server::start(script).await;
        let timeout = Duration::from_millis(300);
        let exchange = sent(&client(), &url(server.address), timeout).await;
        assert_eq!(
            (exchange.status, class(&exchange)),
            (status, Some(expected))
        );
        assert!(exchange.elapsed >= timeout && exchange.elapsed < Duration::from_secs(2));
        assert!(!exchange.not_sent());
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    let exchange = answer(Script::Reply(reply("200 OK", vec![b'x'; LONGEST_ANSWER]))).await;
    assert_eq!(
        (exchange.body.len(), class(&exchange)),
        (LONGEST_ANSWER, None)
    );

    let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n".to_vec();
    let endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let scripts = [
        Script::Reply(reply("200 OK", vec![b'x'; LONGEST_ANSWER + 1])),
        Script::ReplyAndHold(announced),
        Script::ReplyAndRepeat(endless, vec![b'x'; 65_536]),
        Script::ReplyAndRepeat(chunked, b"4\r\nxxxx\r\n".repeat(1_024)),
    ];
    for script in scripts {
        let exchange = answer(script).await;
        assert_eq!(class(&exchange), Some(FailureClass::BodyTooLarge));
        assert_eq!(exchange.status, Some(200));
        assert!(exchange.body.len() <= LONGEST_ANSWER);
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_opened() {
    for encoding in ["gzip", "br", "zstd", "deflate", "GZIP", "identity, gzip"] {
        let head = format!("200 OK\r\ncontent-encoding: {encoding}");
        let exchange = answer(Script::Reply(reply(&head, [0x1f, 0x8b, 0x08]))).await;
        assert_eq!(
            class(&exchange),
            Some(FailureClass::ContentEncoded),
            "{encoding}"
        );
        assert!(exchange.body.is_empty());
    }
    let plain = reply("200 OK\r\ncontent-encoding: identity", "{}");
    assert_eq!(class(&answer(Script::Reply(plain)).await), None);
}

#[tokio::test]
async fn what_is_not_http_is_not_an_answer() {
    let flood = "x-y: z\r\n".repeat(2_000);
    let broken = [
        b"SMTP ready\r\n\r\n".to_vec(),
        b"\0\x01\x02\x03\x04\x05\x06\x07\r\n\r\n".to_vec(),
        b"HTTP/9.9 200 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(),
        b"HTTP/1.1 abc\r\n\r\n".to_vec(),
        b"<html>version 0.9</html>".to_vec(),
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}".to_vec(),
        format!("HTTP/1.1 200 OK\r\n{flood}\r\n").into_bytes(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes(),
    ];
    for bytes in broken {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let exchange = answer(Script::ReplyAndClose(bytes)).await;
        assert_eq!(
            (exchange.status, class(&exchange)),
            (None, Some(FailureClass::Protocol)),
            "{shown}"
        );
    }
    let bad_chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n".to_vec();
    let exchange = answer(Script::ReplyAndClose(bad_chunk)).await;
    assert_eq!(
        (exchange.status, class(&exchange)),
        (Some(200), Some(FailureClass::Protocol))
    );
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec();
    let exchange = answer(Script::ReplyAndClose(short)).await;
    assert_eq!(
        (exchange.status, class(&exchange)),
        (Some(200), Some(FailureClass::Closed))
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Server::start(Script::Reply(reply("200 OK", "{}"))).await;
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary",
        "308 Permanent",
    ] {
        let head = format!("{status}\r\nlocation: http://{}/", target.address);
        let exchange = answer(Script::Reply(reply(&head, ""))).await;
        assert!(
            exchange
                .status
                .is_some_and(|status| (300..400).contains(&status))
        );
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn nobody_listening_means_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let exchange = sent(&client(), &url(address), Duration::from_secs(10)).await;
    assert_eq!(class(&exchange), Some(FailureClass::Connect));
    assert!(exchange.not_sent());
    let message = exchange.failure.unwrap().message;
    assert_eq!(message, "no connection to the endpoint: connection refused");
}

#[tokio::test]
async fn an_address_is_judged_again_when_a_request_is_sent() {
    let server = Server::start(Script::Reply(reply("200 OK", "{}"))).await;
    let own = EgressPolicy {
        own_addresses: vec![server.address],
        ..development()
    };
    for policy in [EgressPolicy::default(), own] {
        let client = EndpointClient::new(policy).unwrap();
        let exchange = sent(&client, &url(server.address), Duration::from_secs(10)).await;
        assert_eq!(class(&exchange), Some(FailureClass::AddressForbidden));
        assert!(exchange.not_sent());
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_is_judged_by_what_it_resolves_to() {
    let policy = EgressPolicy::default();
    let client = EndpointClient::builder(policy.clone()).name_servers(name_server().await);
    let client = client.build().unwrap();
    let table = [
        ("https://local.example/", FailureClass::AddressForbidden),
        ("https://mixed.example/", FailureClass::AddressForbidden),
        ("https://missing.example/", FailureClass::Dns),
        ("https://silent.example/", FailureClass::DnsTimeout),
    ];
    for (raw, expected) in table {
        let url = EndpointUrl::parse(raw, &policy).unwrap();
        let exchange = sent(&client, &url, Duration::from_secs(10)).await;
        assert_eq!(class(&exchange), Some(expected), "{raw}");
        assert!(exchange.not_sent());
    }
}

#[tokio::test]
async fn an_id_that_cannot_stand_in_a_header_is_not_sent() {
    let server = Server::start(Script::Reply(reply("200 OK", "{}"))).await;
    let url = url(server.address);
    let request = Request {
        url: &url,
        webhook_id: "a\r\nx: y",
        body: Bytes::new(),
        keys: &[],
        timeout: Duration::from_secs(1),
        traceparent: None,
        kind: RequestKind::Load,
    };
    let exchange = client().send(request).await;
    assert_eq!(class(&exchange), Some(FailureClass::RequestInvalid));
    assert_eq!(server.connections(), 0);
}
