//! Bytes that are no HTTP answer, or more than one, or longer than anybody reads: an attempt of
//! unknown fate each, and the same commit again. What one answer smuggles in answers nothing else.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use integration::app::{Flags, Source, Tenant, TestApp, intent};
use integration::endpoint::{Answer, Endpoint, Kind, Reply};
use serde_json::json;

use crate::command::EXECUTABLE;

async fn tenant(app: &TestApp, name: &str) -> (Tenant, Endpoint) {
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization(name).await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        request_timeout: Duration::from_secs(20),
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    (tenant, endpoint)
}

/// A body as an answer, with these headers.
fn answer(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

const FITS: &str = r#"{"rows":[{"id":"1","text":"smuggled"}]}"#;

/// Broken answers, each with its name.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let flood = "x-flood: more\r\n".repeat(5_000);
    let wide = format!("x-wide: {}\r\n", "w".repeat(1 << 20));
    let split = [answer("", "{}"), answer("", FITS)].concat();
    let head = "HTTP/1.1 200 OK\r\n";
    vec![
        ("gzip", answer("content-encoding: gzip\r\n", FITS)),
        ("brotli", answer("content-encoding: br\r\n", FITS)),
        ("zstd", answer("content-encoding: zstd\r\n", FITS)),
        (
            "gzip twice",
            answer("content-encoding: gzip, gzip\r\n", FITS),
        ),
        ("a flood of headers", answer(&flood, FITS)),
        ("a wide header", answer(&wide, FITS)),
        ("two answers at once", split),
        ("no status line", b"hello".to_vec()),
        ("HTTP/0.9", FITS.into()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        (
            "a bad chunk",
            format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{FITS}\r\n0\r\n\r\n").into(),
        ),
        (
            "a chunk that never ends",
            format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{FITS}").into(),
        ),
        (
            "two lengths",
            format!("{head}content-length: 2\r\ncontent-length: 39\r\n\r\n{FITS}").into(),
        ),
        (
            "a negative length",
            format!("{head}content-length: -1\r\n\r\n{FITS}").into(),
        ),
        (
            "a length of 10 GiB",
            format!("{head}content-length: 10737418240\r\n\r\n{FITS}").into(),
        ),
        (
            "less than it says",
            format!("{head}content-length: 4000\r\n\r\n{FITS}").into(),
        ),
        (
            "informational answers without end",
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000).into(),
        ),
        (
            "a status of four digits",
            b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_broken_on_the_wire_decides_nothing() {
    let app = TestApp::start().await;
    let cases = broken().into_iter().enumerate();
    join_all(cases.map(async |(number, (case, bytes))| {
        let (tenant, endpoint) = tenant(&app, &format!("org-{number}")).await;
        endpoint.script(Kind::Commit, Answer::unapplied(Reply::Raw(bytes)));
        let create = intent::create("airports", "1", &json!({"text": "one"}));
        let receipt = tenant.confirm(intent::commit("create", vec![create])).await;
        assert_eq!(receipt.attempt_count, 2, "{case}");
        let attempts = tenant.attempts("create").await;
        assert_eq!(attempts[0].outcome, "unknown", "{case}: {attempts:?}");
        let class = attempts[0].error_class.as_str();
        let classes = ["protocol", "closed", "response_invalid", "timeout_body"];
        assert!(classes.contains(&class), "{case}: {class}");
        assert_eq!(
            tenant.row("airports", "1").await.unwrap()["text"],
            "one",
            "{case}"
        );
    }))
    .await;
}

/// Answers that go on for as long as they are read, each with its name.
fn endless() -> [(&'static str, Reply); 5] {
    let head = "HTTP/1.1 200 OK\r\n";
    let part = vec![b'0'; 1 << 16];
    let chunk = [b"10000\r\n", &part[..], b"\r\n"].concat();
    // A deflated block of nothing but one byte again and again: a thousandth of what it stands for.
    let bomb = [
        &b"\xec\xc1\x01\x01\x00\x00\x00\x80\x90\xfe\xaf\xee\x08\x0a"[..],
        &[0; 1 << 12],
    ]
    .concat();
    let endless = |head: String, again: Vec<u8>| Reply::Endless(head.into_bytes(), again);
    [
        (
            "chunks",
            endless(format!("{head}transfer-encoding: chunked\r\n\r\n"), chunk),
        ),
        ("no length", endless(format!("{head}\r\n"), part.clone())),
        (
            "gzip",
            endless(format!("{head}content-encoding: gzip\r\n\r\n"), bomb),
        ),
        (
            "headers",
            endless(head.to_owned(), b"x-more: and more\r\n".repeat(1_000)),
        ),
        ("one header", endless(format!("{head}x-wide: "), part)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_is_cut_off_and_fills_no_memory() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        request_timeout: Duration::from_secs(20),
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    let create = |id: &str| {
        let create = intent::create("airports", id, &json!({"text": "one"}));
        intent::commit(&format!("create-{id}"), vec![create])
    };
    join_all((0..16).map(async |it| tenant.confirm(create(&format!("first-{it}"))).await)).await;
    let memory = node.peak_memory();
    for (case, reply) in endless() {
        // As many at once as the source may be sent.
        let ids: Vec<_> = (0..16).map(|it| format!("{case}-{it}")).collect();
        for _ in &ids {
            endpoint.script(Kind::Commit, Answer::unapplied(reply.clone()));
        }
        join_all(ids.iter().map(async |id| tenant.confirm(create(id)).await)).await;
        let attempts = tenant.attempts("").await;
        let broken: Vec<_> = attempts
            .iter()
            .filter(|it| it.client_tx_id.contains(case) && it.outcome != "applied")
            .map(|it| &it.outcome[..])
            .collect();
        assert_eq!(broken, ["unknown"; 16], "{case}");
    }
    let grown = node.peak_memory().saturating_sub(memory);
    // A body of 1 MiB each, some room, and what the allocator keeps of that.
    assert!(grown < 128 << 20, "{} MiB", grown >> 20);
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closes_after_each_answer_makes_nobody_send_twice() {
    let app = TestApp::start().await;
    let (tenant, endpoint) = tenant(&app, "acme").await;
    // The connection is said to stay open, and is closed.
    let reply = Reply::Raw(answer("connection: keep-alive\r\n", FITS));
    endpoint.always(Kind::Commit, Answer::unapplied(reply));
    for number in 0..40 {
        let update = intent::update("airports", "1", &json!({"text": number.to_string()}));
        let commit = intent::commit(&format!("tx-{number}"), vec![update]);
        tenant.confirm(commit).await;
    }
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for arrival in endpoint.arrivals_of(Kind::Commit) {
        *arrived.entry(arrival.webhook_id().to_owned()).or_default() += 1;
    }
    let mut answered: HashMap<String, usize> = HashMap::new();
    for attempt in tenant.attempts("").await {
        let count = answered.entry(attempt.commit_id).or_default();
        *count += usize::from(attempt.outcome == "applied");
    }
    assert_eq!(arrived.len(), 40);
    assert_eq!(arrived, answered);
}
