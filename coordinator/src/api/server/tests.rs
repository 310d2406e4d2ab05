//! The server on a real socket.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::v1::admin_client::AdminClient;
use proto::v1::coordinator_client::CoordinatorClient;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::*;
use crate::api::scratch::{OPERATOR, rooms};
use crate::domain::Mode;
use crate::store::Store;
use crate::store::scratch::{Scratch, acme};
use crate::store::tests::unreachable;

const COMMIT: &str = "/ablo.coordinator.v1.Coordinator/Commit";

/// A running server, stopped when a test says so.
struct Running {
    api: SocketAddr,
    admin: Option<SocketAddr>,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    async fn over(store: Store) -> Self {
        Self::start(store, Limits::default(), false).await
    }

    async fn start(store: Store, limits: Limits, own_admin: bool) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let api = listen().await.unwrap();
        let admin = if own_admin {
            Some(listen().await.unwrap())
        } else {
            None
        };
        let (api_address, admin_address) = (
            api.local_addr().unwrap(),
            admin.as_ref().map(|admin| admin.local_addr().unwrap()),
        );
        let shutdown = Shutdown::default();
        let server = Server::new(Arc::new(rooms(store)), limits, None);
        let until = shutdown.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        let serving =
            tokio::spawn(async move { server.serve(Listeners { api, admin }, until).await });
        Self {
            api: api_address,
            admin: admin_address,
            shutdown,
            serving,
        }
    }

    async fn stop(self) {
        self.shutdown.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn with<T>(message: T, headers: &[(&str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in headers {
        let key = AsciiMetadataKey::from_bytes(key.as_bytes()).unwrap();
        let value = MetadataValue::try_from(value.as_bytes()).unwrap();
        request.metadata_mut().append(key, value);
    }
    request
}

fn as_operator<T>(message: T) -> Request<T> {
    with(message, &[("authorization", &format!("Bearer {OPERATOR}"))])
}

/// An error's code and reason; every error has one.
fn told(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no reason in {status:?}"));
    assert_eq!(info.domain, "coordinator.ablo");
    (status.code(), info.reason.clone())
}

fn named(display_name: String) -> v1::CreateOrganizationRequest {
    let organization = v1::Organization {
        display_name,
        ..v1::Organization::default()
    };
    v1::CreateOrganizationRequest {
        organization_id: "umbrella".to_owned(),
        organization: Some(organization),
    }
}

#[tokio::test]
async fn without_a_valid_key_every_call_is_refused_with_one_text() {
    let running = Running::over(unreachable()).await;
    let mut client = CoordinatorClient::new(channel(running.api).await);
    let long = format!("Bearer sk_test_{}", "a".repeat(10_000));
    let mut texts = Vec::new();
    for headers in [
        &[][..],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer nonsense")],
        &[("authorization", "Basic sk_test_a")],
        &[("authorization", "Bearer sk_test_\u{e9}")],
        &[("authorization", &long)],
        &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
    ] {
        let status = client
            .commit(with(v1::CommitRequest::default(), headers))
            .await
            .unwrap_err();
        assert_eq!(
            told(&status),
            (Code::Unauthenticated, "unauthenticated".to_owned())
        );
        texts.push(status.message().to_owned());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1);
    let mut admin = AdminClient::new(channel(running.api).await);
    let wrong = with(
        named(String::new()),
        &[("authorization", "Bearer operator-tokem")],
    );
    let status = admin.create_organization(wrong).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, texts[0].as_str())
    );
    running.stop().await;
}

#[tokio::test]
async fn headers_beyond_the_limit_end_the_call_and_not_the_server() {
    let running = Running::over(unreachable()).await;
    let mut client = CoordinatorClient::new(channel(running.api).await);
    let huge = format!("Bearer {}", "a".repeat(1 << 20));
    let request = with(v1::CommitRequest::default(), &[("authorization", &huge)]);
    assert!(client.commit(request).await.is_err());
    let mut client = CoordinatorClient::new(channel(running.api).await);
    let status = client
        .commit(v1::CommitRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    running.stop().await;
}

#[tokio::test]
async fn a_deadline_that_passes_is_told_as_such_and_a_bad_one_is_ignored() {
    // A listener whose backlog takes the connection and never answers: the look-up of the key waits.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(silent.local_addr().unwrap().port())
        .username("x");
    let running = Running::over(Store::open(options, 1, 1)).await;
    let key = "Bearer sk_test_0000000000000000000000000000000000000000000";
    for timeout in ["1n", "1u", "1m", "3m", "20m", "150m"] {
        let status = commit_within(running.api, key, timeout).await;
        let expected = (Code::DeadlineExceeded, "deadline_exceeded".to_owned());
        assert_eq!(told(&status), expected, "{timeout}");
    }
    for ignored in ["abc", "-1S", "1", "999999999S"] {
        let status = commit_within(running.api, "Bearer bad", ignored).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{ignored}");
    }
    running.stop().await;
}

/// What Commit answers under a `grpc-timeout` that the client itself does not watch.
async fn commit_within(server: SocketAddr, key: &str, timeout: &str) -> Status {
    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    let request = hyper::Request::post(format!("http://{server}{COMMIT}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", key)
        .header("grpc-timeout", timeout)
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.unwrap(),
        ended = connection => panic!("the connection ended: {ended:?}"),
    };
    Status::from_header_map(answer.headers()).unwrap()
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable_and_says_when_to_return() {
    let running = Running::over(unreachable()).await;
    let mut admin = AdminClient::new(channel(running.api).await);
    let request = as_operator(v1::ListOrganizationsRequest::default());
    let status = admin.list_organizations(request).await.unwrap_err();
    assert_eq!(
        told(&status),
        (Code::Unavailable, "store_unavailable".to_owned())
    );
    assert!(status.get_error_details().retry_info().is_some());
    running.stop().await;
}

#[tokio::test]
async fn bad_messages_are_refused_and_the_connection_stays_usable() {
    let running = Running::over(unreachable()).await;
    let channel = channel(running.api).await;
    let mut admin = AdminClient::new(channel.clone());

    let large = admin
        .create_organization(as_operator(named("a".repeat(4 << 20))))
        .await;
    let large = told(&large.unwrap_err());
    assert_eq!(large, (Code::OutOfRange, "message_too_large".to_owned()));

    // A number where the method's message has a text.
    let garbage = v1::ListOrganizationsRequest {
        page_size: 5,
        ..Default::default()
    };
    let garbage = raw(
        channel.clone(),
        "/ablo.coordinator.v1.Admin/CreateOrganization",
        garbage,
    );
    let garbage = told(&garbage.await);
    assert_eq!(garbage, (Code::Internal, "message_malformed".to_owned()));

    for path in ["/ablo.coordinator.v1.Admin/Nothing", "/no.Such/Method"] {
        let nothing = raw(
            channel.clone(),
            path,
            v1::ListOrganizationsRequest::default(),
        )
        .await;
        assert_eq!(
            told(&nothing),
            (Code::Unimplemented, "unimplemented".to_owned()),
            "{path}"
        );
    }

    let invalid = admin
        .create_organization(as_operator(named(String::new())))
        .await
        .unwrap_err();
    assert_eq!(
        told(&invalid),
        (Code::InvalidArgument, "field_required".to_owned())
    );
    let fields = invalid
        .get_error_details()
        .bad_request()
        .unwrap()
        .field_violations
        .clone();
    assert_eq!(fields[0].field, "organization.mode");
    running.stop().await;
}

/// What a method answers to a message that is not its own.
async fn raw(
    channel: Channel,
    path: &'static str,
    message: v1::ListOrganizationsRequest,
) -> Status {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<_, v1::Organization> = tonic_prost::ProstCodec::default();
    client
        .unary(as_operator(message), PathAndQuery::from_static(path), codec)
        .await
        .expect_err("it is no message of that method")
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_there_is_room_for_are_refused_with_a_time_to_return() {
    let scratch = Scratch::start().await;
    let keys = rooms(scratch.store.clone()).keys;
    let made = keys
        .create(&acme(), Mode::Test, String::new())
        .await
        .unwrap()
        .unwrap();
    let bearer = format!("Bearer {}", made.key.expose_secret());
    for limits in [
        Limits {
            calls: 0,
            ..Limits::default()
        },
        Limits {
            calls_per_organization: 0,
            ..Limits::default()
        },
    ] {
        let running = Running::start(scratch.store.clone(), limits, false).await;
        let channel = channel(running.api).await;
        let mut client = CoordinatorClient::new(channel.clone());
        let call = with(v1::CommitRequest::default(), &[("authorization", &bearer)]);
        let status = client.commit(call).await.unwrap_err();
        assert_eq!(
            told(&status),
            (Code::ResourceExhausted, "overloaded".to_owned())
        );
        assert!(status.get_error_details().retry_info().is_some());
        let stranger = client
            .commit(v1::CommitRequest::default())
            .await
            .unwrap_err();
        assert_eq!(stranger.code(), Code::Unauthenticated);
        assert_eq!(health(channel).await, ServingStatus::Serving as i32);
        running.stop().await;
    }
}

#[tokio::test]
async fn more_connections_than_one_address_may_have_are_closed() {
    let limits = Limits {
        connections_per_address: 1,
        ..Limits::default()
    };
    let running = Running::start(unreachable(), limits, false).await;
    let held = channel(running.api).await;
    assert_eq!(health(held.clone()).await, ServingStatus::Serving as i32);
    let mut refused = TcpStream::connect(running.api).await.unwrap();
    assert_eq!(refused.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert_eq!(health(held).await, ServingStatus::Serving as i32);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_speak_is_closed() {
    let limits = Limits {
        preface: Duration::from_millis(10),
        ..Limits::default()
    };
    let running = Running::start(unreachable(), limits, false).await;
    for first in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut silent = TcpStream::connect(running.api).await.unwrap();
        silent.write_all(first).await.unwrap();
        let mut sent = Vec::new();
        // Closed or reset, either way it ends.
        drop(silent.read_to_end(&mut sent).await);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_closed_and_one_that_speaks_is_not() {
    let limits = Limits {
        preface: Duration::from_millis(300),
        silence: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = Running::start(unreachable(), limits, false).await;
    let mut silent = TcpStream::connect(running.api).await.unwrap();
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    silent.write_all(hello).await.unwrap();
    let mut speaking = TcpStream::connect(running.api).await.unwrap();
    speaking.write_all(hello).await.unwrap();
    let ping = [&b"\0\0\x08\x06\0\0\0\0\0"[..], &[7; 8]].concat();
    let speaks = async {
        loop {
            speaking.write_all(&ping).await.unwrap();
            let mut answer = [0; 64];
            assert_ne!(speaking.read(&mut answer).await.unwrap(), 0);
        }
    };
    let mut sent = Vec::new();
    tokio::select! {
        // Closed or reset, either way it ends.
        ended = silent.read_to_end(&mut sent) => drop(ended),
        () = speaks => {}
    }
    // Who spoke all the while is still answered.
    speaking.write_all(&ping).await.unwrap();
    assert_ne!(speaking.read(&mut [0; 64]).await.unwrap(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_end_although_it_is_to_is_cut_off() {
    let limits = Limits {
        preface: Duration::from_secs(2),
        connection_age: Duration::from_secs(2),
        connection_end: Duration::ZERO,
        ..Limits::default()
    };
    let running = Running::start(unreachable(), limits, false).await;
    let mut client = HealthClient::new(channel(running.api).await);
    let watched = client.watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());
    // It would go on for as long as the server does.
    assert!(watched.message().await.is_err());
    running.stop().await;
}

#[tokio::test]
async fn bytes_that_are_not_http_end_their_connection_alone() {
    let running = Running::over(unreachable()).await;
    let mut stray = TcpStream::connect(running.api).await.unwrap();
    stray
        .write_all(b"\x16\x03\x01 this is not HTTP/2 at all\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    // Closed or reset, either way it ends.
    drop(stray.read_to_end(&mut rest).await);
    assert_eq!(
        health(channel(running.api).await).await,
        ServingStatus::Serving as i32
    );
    running.stop().await;
}

#[tokio::test]
async fn draining_shows_in_health_and_stopping_lets_go_of_those_who_watch() {
    let running = Running::over(unreachable()).await;
    let mut client = HealthClient::new(channel(running.api).await);
    let mut watched = client
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let serving = watched.message().await.unwrap().unwrap();
    assert_eq!(serving.status, ServingStatus::Serving as i32);
    running.shutdown.draining.cancel();
    let draining = watched.message().await.unwrap().unwrap();
    assert_eq!(draining.status, ServingStatus::NotServing as i32);
    let status = CoordinatorClient::new(channel(running.api).await)
        .commit(v1::CommitRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        status.code(),
        Code::Unauthenticated,
        "calls are still answered"
    );
    running.stop().await;
    assert!(watched.message().await.unwrap().is_none());
}

async fn health(channel: Channel) -> i32 {
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    answer.into_inner().status
}

#[tokio::test]
async fn admin_with_an_address_of_its_own_is_nowhere_else() {
    let running = Running::start(unreachable(), Limits::default(), true).await;
    let call = || as_operator(named(String::new()));
    let mut outside = AdminClient::new(channel(running.api).await);
    let outside = outside.create_organization(call()).await.unwrap_err();
    assert_eq!(told(&outside).0, Code::Unimplemented);
    let own = channel(running.admin.unwrap()).await;
    let inside = AdminClient::new(own.clone())
        .create_organization(call())
        .await
        .unwrap_err();
    assert_eq!(told(&inside).0, Code::InvalidArgument);
    let commit = with(
        v1::CommitRequest::default(),
        &[("authorization", "Bearer x")],
    );
    let commit = CoordinatorClient::new(own)
        .commit(commit)
        .await
        .unwrap_err();
    assert_eq!(commit.code(), Code::Unauthenticated);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_organizations_and_keys_that_work_for_their_own_alone() {
    let scratch = Scratch::start().await;
    let running = Running::over(scratch.store.clone()).await;
    let channel = channel(running.api).await;
    let mut admin = AdminClient::new(channel.clone());
    let mut request = named("Acme".to_owned());
    request.organization.as_mut().unwrap().mode = v1::Mode::Live.into();
    let made = admin
        .create_organization(as_operator(request.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (made.name.as_str(), made.mode()),
        ("organizations/umbrella", v1::Mode::Live)
    );
    let again = admin
        .create_organization(as_operator(request))
        .await
        .unwrap_err();
    assert_eq!(
        told(&again),
        (Code::AlreadyExists, "organization_exists".to_owned())
    );

    let (page, rest) = organizations_in_two_pages(&mut admin).await;
    assert_eq!(
        (page.as_str(), rest.as_str()),
        ("organizations/acme", "organizations/umbrella")
    );

    let create = || v1::CreateApiKeyRequest {
        parent: "organizations/umbrella".to_owned(),
        display_name: "front".to_owned(),
    };
    let key = admin
        .create_api_key(as_operator(create()))
        .await
        .unwrap()
        .into_inner();
    assert!(key.key.starts_with("sk_live_"));
    assert_eq!(key.api_key.as_ref().unwrap().prefix, key.key[..12]);
    for _ in 0..4 {
        admin.create_api_key(as_operator(create())).await.unwrap();
    }
    let sixth = admin
        .create_api_key(as_operator(create()))
        .await
        .unwrap_err();
    assert_eq!(
        told(&sixth),
        (Code::FailedPrecondition, "too_many_keys".to_owned())
    );

    let mut schemas = v1::schemas_client::SchemasClient::new(channel);
    let bearer = format!("Bearer {}", key.key);
    let get = with(
        v1::GetSchemaRequest::default(),
        &[("authorization", &bearer)],
    );
    let none = schemas.get(get).await.unwrap_err();
    assert_eq!(told(&none), (Code::NotFound, "schema_not_found".to_owned()));
    running.stop().await;
}

/// The first name of the first page and of the second.
async fn organizations_in_two_pages(admin: &mut AdminClient<Channel>) -> (String, String) {
    let mut request = v1::ListOrganizationsRequest {
        page_size: 1,
        page_token: String::new(),
    };
    let first = admin
        .list_organizations(as_operator(request.clone()))
        .await
        .unwrap()
        .into_inner();
    request.page_token = first.next_page_token;
    let second = admin
        .list_organizations(as_operator(request.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.next_page_token, "");
    request.page_token.push('A');
    let tampered = admin
        .list_organizations(as_operator(request))
        .await
        .unwrap_err();
    assert_eq!(
        told(&tampered),
        (Code::InvalidArgument, "page_token_invalid".to_owned())
    );
    (
        first.organizations[0].name.clone(),
        second.organizations[0].name.clone(),
    )
}
