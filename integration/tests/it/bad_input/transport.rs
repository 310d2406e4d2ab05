//! What no well-behaved client sends: nothing of it panics, none of it is `UNKNOWN`, and the
//! connection serves the next call.

use proto::v1::{CommitRequest, LoadRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codegen::http::StatusCode;

use super::house::{House, commit, operation};
use super::refusal::{Refusal, refused};
use super::wire::Wire;

const COMMIT: &str = "/ablo.coordinator.v1.Coordinator/Commit";
const LOAD: &str = "/ablo.coordinator.v1.Coordinator/Load";

/// The largest message that is read.
const LARGEST: usize = 4 << 20;

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_connection_stays_usable() {
    let house = House::furnished().await;
    let before = house.contents().await;
    let mut wire = Wire::open(&house.app.address()).await;
    let bearer = format!("Bearer {}", house.acme);
    let key: (&str, &[u8]) = ("authorization", bearer.as_bytes());
    let gzip: (&str, &[u8]) = ("grpc-encoding", b"gzip");
    let malformed = || refused(Code::Internal, "message_malformed");
    let unimplemented = || refused(Code::Unimplemented, "unimplemented");
    // Field 1, a text of two bytes that are no UTF-8.
    let not_utf8 = b"\x0a\x02\xff\xfe";
    let message = Wire::message;
    let cases = [
        ("nothing", COMMIT, vec![key], Vec::new(), malformed()),
        (
            "garbage",
            COMMIT,
            vec![key],
            message(&[0xff; 100]),
            malformed(),
        ),
        (
            "a text that is not UTF-8",
            LOAD,
            vec![key],
            message(not_utf8),
            malformed(),
        ),
        (
            "a field that says it is longer",
            LOAD,
            vec![key],
            message(b"\x0a\x7fab"),
            malformed(),
        ),
        (
            "a field of another type",
            LOAD,
            vec![key],
            message(b"\x08\x01"),
            malformed(),
        ),
        (
            "a frame cut short",
            COMMIT,
            vec![key],
            Wire::frame(0, 100, b"ten bytes!"),
            malformed(),
        ),
        (
            "half a frame's head",
            COMMIT,
            vec![key],
            vec![0, 0],
            malformed(),
        ),
        (
            "a flag that nobody knows",
            COMMIT,
            vec![key],
            Wire::frame(7, 0, b""),
            malformed(),
        ),
        (
            "a compressed message, unannounced",
            COMMIT,
            vec![key],
            Wire::frame(1, 4, b"\x1f\x8b\x08\x00"),
            malformed(),
        ),
        (
            "a compressed message",
            COMMIT,
            vec![key, gzip],
            Wire::frame(1, 4, b"\x1f\x8b\x08\x00"),
            unimplemented(),
        ),
        (
            "an unknown method",
            "/ablo.coordinator.v1.Coordinator/Nothing",
            vec![key],
            message(b""),
            unimplemented(),
        ),
        (
            "an unknown service",
            "/ablo.coordinator.v9.Nothing/Nothing",
            vec![],
            message(b""),
            unimplemented(),
        ),
        ("no path", "/", vec![], message(b""), unimplemented()),
        (
            "4 MiB and a byte",
            COMMIT,
            vec![key],
            message(&vec![0; LARGEST + 1]),
            refused(Code::OutOfRange, "message_too_large"),
        ),
        (
            "a length of 4 GiB",
            COMMIT,
            vec![key],
            Wire::frame(0, u32::MAX as usize, b""),
            refused(Code::OutOfRange, "message_too_large"),
        ),
    ];
    let good = message(&prost::Message::encode_to_vec(&load()));
    for (name, path, headers, body, expected) in cases {
        let status = wire.call(path, &headers, &body).await;
        assert_eq!(
            Refusal::of(&status),
            expected,
            "{name}: {}",
            status.message()
        );
        let status = wire.call(LOAD, &[key], &good).await;
        assert_eq!(status.code(), Code::Ok, "after {name}: {status:?}");
    }
    assert_eq!(house.contents().await, before);
    house.close().await;
}

#[tokio::test]
async fn a_timeout_that_leaves_no_time_is_exceeded_and_a_bad_one_is_ignored() {
    let house = House::furnished().await;
    let mut wire = Wire::open(&house.app.address()).await;
    let bearer = format!("Bearer {}", house.acme);
    let body = |name: &str| {
        let create = operation(
            proto::v1::OperationType::Create,
            "notes",
            "",
            r#"{"title":"a"}"#,
        );
        let request: CommitRequest = commit(name, vec![create]);
        Wire::message(&prost::Message::encode_to_vec(&request))
    };
    let before = house.contents().await;
    for timeout in ["1n", "0S", "1u", "2m", "00000000H"] {
        let headers: [(&str, &[u8]); 2] = [
            ("authorization", bearer.as_bytes()),
            ("grpc-timeout", timeout.as_bytes()),
        ];
        let status = wire.call(COMMIT, &headers, &body("too-late")).await;
        let expected = refused(Code::DeadlineExceeded, "deadline_exceeded");
        assert_eq!(Refusal::of(&status), expected, "{timeout}");
    }
    assert_eq!(house.contents().await, before);
    for timeout in [
        "99999999H",
        "abc",
        "-1S",
        "+1S",
        "1",
        "1s",
        "1.5S",
        "123456789S",
        "",
        "é",
    ] {
        let headers: [(&str, &[u8]); 2] = [
            ("authorization", bearer.as_bytes()),
            ("grpc-timeout", timeout.as_bytes()),
        ];
        let status = wire
            .call(COMMIT, &headers, &body(&format!("t{timeout}")))
            .await;
        assert_eq!(status.code(), Code::Ok, "{timeout}: {status:?}");
    }
    house.close().await;
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_and_others_are_served() {
    let house = House::furnished().await;
    let mut wire = Wire::open(&house.app.address()).await;
    let bearer = format!("Bearer {}", house.acme);
    let good = Wire::message(&prost::Message::encode_to_vec(&load()));
    let long = |length| vec![("x-long", vec![b'a'; length])];
    let many = vec![("x-many", b"a".to_vec()); 10_000];
    for flood in [long(17 << 10), long(1 << 20), many] {
        let headers: Vec<(&str, &[u8])> = flood
            .iter()
            .map(|(name, value)| (*name, value.as_slice()))
            .collect();
        // The stream or the connection ends, as the transport sees fit; nothing is answered.
        let mut flooding = Wire::open(&house.app.address()).await;
        if let Ok(answer) = flooding.ask(LOAD, &headers, &good).await {
            assert_eq!(answer.http, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let key: (&str, &[u8]) = ("authorization", bearer.as_bytes());
        let status = wire.call(LOAD, &[key], &good).await;
        assert_eq!(status.code(), Code::Ok, "{status:?}");
    }
    house.close().await;
}

#[tokio::test]
async fn what_is_not_http2_ends_its_own_connection_alone() {
    let house = House::furnished().await;
    let mut wire = Wire::open(&house.app.address()).await;
    let bearer = format!("Bearer {}", house.acme);
    let good = Wire::message(&prost::Message::encode_to_vec(&load()));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: coordinator\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 1_000],
        preface,
        &[&preface[..], &[0xff; 1_000]].concat(),
    ];
    for bytes in cases {
        let mut stream = TcpStream::connect(house.app.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        // It ends, in order or not; what it says before that is for whoever speaks HTTP.
        drop(stream.read_to_end(&mut Vec::new()).await);
        let key: (&str, &[u8]) = ("authorization", bearer.as_bytes());
        let status = wire.call(LOAD, &[key], &good).await;
        assert_eq!(status.code(), Code::Ok, "{status:?}");
    }
    house.close().await;
}

fn load() -> LoadRequest {
    LoadRequest {
        model: "notes".to_owned(),
        id: "old".to_owned(),
        ..LoadRequest::default()
    }
}
