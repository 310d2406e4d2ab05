//! How streams end, and what one costs the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use integration::app::follower::from_cursor;
use integration::app::{
    Flags, Follower, PATIENCE, Tenant, TestApp, TestNode, eventually, intent, reason,
};
use integration::endpoint::Endpoint;
use integration::log_check::{Seen, dense};
use integration::node::{Authorization, Authorized};
use proto::v1;
use proto::v1::SubscribeRequest;
use proto::v1::log_client::LogClient;
use proto::v1::subscribe_response::Frame;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::transport::Endpoint as Connection;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{change, note};
use crate::cost::Counting;

/// A connection that takes little that is not read.
pub(super) async fn narrow(tenant: &Tenant) -> LogClient<Authorized> {
    let url = format!("http://{}", tenant.address());
    let channel = Connection::from_shared(url)
        .unwrap()
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(65_535)
        .connect()
        .await
        .unwrap();
    let authorization = Authorization::bearer(tenant.key()).unwrap();
    LogClient::new(authorization.over(channel))
}

fn resumes_from(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    info.metadata["cursor"].clone()
}

/// Memory of a process that is in use, in KiB.
fn resident(node: &TestNode) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

async fn read_to_end(stream: &mut Streaming<v1::SubscribeResponse>) -> (Vec<Seen>, Status) {
    let mut seen = Vec::new();
    loop {
        match stream.message().await {
            Ok(message) => {
                if let Some(Frame::Change(change)) = message.unwrap().frame {
                    seen.push(Seen::of(&change));
                }
            }
            Err(status) => return (seen, status),
        }
    }
}

/// Two managed models, so that some can follow one of them.
fn two_models() -> String {
    let fields = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    let model = json!({"backing": "managed", "schema": fields});
    json!({"models": {"notes": model, "marks": model}}).to_string()
}

fn of_models(models: &[&str], cursor: Option<&str>) -> SubscribeRequest {
    SubscribeRequest {
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        ..cursor.map(from_cursor).unwrap_or_default()
    }
}

/// After how long 99 of 100 readings of a change had ended, since it was sent.
async fn lateness(tenant: &Tenant, followers: &mut [Follower], round: usize) -> Duration {
    let mut late = Vec::new();
    for number in 0..40 {
        let name = format!("{round}-{number}");
        let begun = Instant::now();
        tenant.confirm(change(&name, "a", &name)).await;
        let read = followers.iter_mut().map(async |follower| {
            assert_eq!(follower.change().await.client_tx_id, name);
            begun.elapsed()
        });
        late.extend(join_all(read).await);
    }
    late.sort_unstable();
    late[late.len() * 99 / 100]
}

/// Five such rounds, the best first.
async fn rounds(tenant: &Tenant, followers: &mut [Follower], first: usize) -> Vec<Duration> {
    let mut late = Vec::new();
    for round in first..first + 5 {
        late.push(lateness(tenant, followers, round).await);
    }
    late.sort_unstable();
    late
}

/// Seven to a connection. The first four follow everything, the others only notes.
async fn forty_nine(tenant: &Tenant) -> Vec<Follower> {
    let mut followers = Vec::new();
    let mut connected = tenant.clone();
    for number in 0..49 {
        if number % 7 == 0 {
            connected = tenant.connected_anew();
        }
        let models: &[_] = if number < 4 { &[] } else { &["notes"] };
        let follower = Follower::start(&connected, of_models(models, None)).await;
        followers.push(follower.unwrap());
    }
    followers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_who_never_reads_is_closed_with_a_cursor_and_costs_nobody_anything() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let node = app.spawn_node(env!("CARGO_BIN_EXE_demo")).await;
    let tenant = Tenant::create(node.address(), "acme").await;
    tenant.push(&two_models()).await;
    tenant.confirm(note("a", "first")).await;
    let mut followers = forty_nine(&tenant).await;
    let before = rounds(&tenant, &mut followers, 0).await;

    let mut unread = narrow(&tenant).await;
    let stalled = unread.subscribe(SubscribeRequest::default()).await;
    let mut stalled = stalled.unwrap().into_inner();
    let first = followers[0].position() + 1;
    let text = json!({"text": "x".repeat(200_000)});
    let mut flood = 0;
    let mut mark = async |followers: &mut [Follower]| {
        flood += 1;
        let create = intent::create("marks", &flood.to_string(), &text);
        let create = intent::commit(&format!("mark-{flood}"), vec![create]);
        tenant.confirm(create).await;
        for follower in &mut followers[..4] {
            assert_eq!(follower.change().await.model, "marks");
        }
    };
    // More than its connection takes.
    for _ in 0..3 {
        mark(&mut followers).await;
    }
    let beside = rounds(&tenant, &mut followers, 5).await;
    let memory = resident(&node);
    let begun = Instant::now();
    for _ in 0..320 {
        mark(&mut followers).await;
    }
    let grown = resident(&node).saturating_sub(memory);
    // Of 64 MB that one has not read, and four have.
    assert!(grown < 50 << 10, "{grown} KiB");
    // A second after the thirtieth, at the latest; the rest is for a busy machine.
    tokio::time::sleep_until((begun + Duration::from_secs(34)).into()).await;
    let (mut seen, end) = read_to_end(&mut stalled).await;
    assert_eq!(end.code(), Code::ResourceExhausted);
    assert_eq!(reason(&end), "slow_consumer");
    assert!(seen.len() < 10, "{}", seen.len());
    let last = followers[0].position();
    let mut resumed = Follower::resume(&tenant, &resumes_from(&end))
        .await
        .unwrap();
    while seen.last().is_none_or(|seen| seen.position < last) {
        seen.push(Seen::of(&resumed.change().await));
    }
    dense(&seen, first, last).unwrap();
    drop(resumed);

    let after = rounds(&tenant, &mut followers, 10).await;
    println!("{before:?} {beside:?} {after:?}, {grown} KiB");
    // The machine has others to serve, too: the best round against middling ones.
    let (usual, best) = (before[2].max(after[2]), beside[0]);
    assert!(best.as_secs_f64() <= 1.5 * usual.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_within_five_seconds_of_its_keys_revocation() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let parent = "organizations/acme".to_owned();
    let made = tenant
        .admin()
        .create_api_key(v1::CreateApiKeyRequest {
            parent,
            display_name: "second".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    let mut follower = Follower::from_now(&tenant.with(&made.key)).await;
    let mut other = Follower::from_now(&tenant).await;
    let name = made.api_key.unwrap().name;
    tenant
        .admin()
        .revoke_api_key(v1::RevokeApiKeyRequest { name })
        .await
        .unwrap();
    let begun = Instant::now();
    let end = follower.end(PATIENCE).await;
    let took = begun.elapsed();
    assert_eq!(end.code(), Code::Unauthenticated);
    assert!(took < Duration::from_secs(6), "{took:?}");
    tenant.confirm(note("a", "one")).await;
    assert_eq!(other.change().await.sync_id, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_sends_its_streams_elsewhere() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let other = tenant.at(&app.add_node().await);
    let mut follower = Follower::from_now(&tenant).await;
    tenant.confirm(note("a", "one")).await;
    assert_eq!(follower.change().await.sync_id, 1);
    let stop = app.stop();
    let (ending, end) = tokio::join!(stop, follower.end(PATIENCE));
    assert_eq!(ending, coordinator::lifecycle::Ending::Drained);
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unavailable, "node_draining")
    );
    other.confirm(note("b", "two")).await;
    let mut resumed = Follower::resume(&other, &resumes_from(&end)).await.unwrap();
    assert_eq!(resumed.change().await.sync_id, 2);
}

#[tokio::test]
async fn subscriptions_beyond_a_bound_are_refused_with_a_time_to_return() {
    let flags = Flags::default().with("streams", "3");
    let flags = flags.with("streams-per-organization", "2");
    let app = TestApp::start_with(flags).await;
    let tenant = app.organization("acme").await;
    let stranger = app.organization("stranger").await;
    let subscribe = |tenant: &Tenant| {
        let mut log = tenant.log();
        async move { log.subscribe(SubscribeRequest::default()).await }
    };
    let refused = async |tenant: &Tenant| {
        let status = subscribe(tenant).await.unwrap_err();
        let told = (status.code(), reason(&status));
        assert_eq!(told, (Code::ResourceExhausted, "overloaded".to_owned()));
        assert!(status.get_details_retry_info().is_some(), "{status:?}");
    };
    let one = subscribe(&tenant).await.unwrap();
    let _other = subscribe(&tenant).await.unwrap();
    refused(&tenant).await;
    // The organization's bound is not the stranger's; the node's is.
    let _third = subscribe(&stranger).await.unwrap();
    refused(&stranger).await;
    drop(one);
    eventually("a place that is free again", async || {
        subscribe(&stranger).await.ok()
    })
    .await;
}

/// Rows that everybody who resumes has behind, more than the node keeps in memory, and in each
/// hundred of them one that is marked.
const ROWS: i64 = 4_600;

async fn populate(tenant: &Tenant) {
    for some in (1..=ROWS).collect::<Vec<_>>().chunks(460) {
        let rows = some.iter().map(|row| {
            let model = if row % 100 == 0 { "marks" } else { "notes" };
            intent::create(model, &row.to_string(), &json!({}))
        });
        let name = format!("rows-{}", some[0]);
        tenant.confirm(intent::commit(&name, rows.collect())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_resume_at_once_share_what_is_read_and_writers_go_on() {
    let counting = Counting::start().await;
    let tenant = counting.app.organization("acme").await;
    tenant.push(&two_models()).await;
    let begin = Follower::from_now(&tenant).await.cursor().to_owned();
    populate(&tenant).await;
    counting.reset().await;
    let mut readers = JoinSet::new();
    let mut connections = Vec::new();
    for number in 0..1_000 {
        if number % 100 == 0 {
            connections.push(tenant.connected_anew());
        }
        // Some take everything, the others what is marked: all of it is looked through for each.
        let every = if number % 250 == 0 { 1 } else { 100 };
        let models: &[_] = if every == 1 { &[] } else { &["marks"] };
        let request = of_models(models, Some(&begin));
        let tenant = connections.last().unwrap().clone();
        readers.spawn(async move {
            let mut follower = Follower::start(&tenant, request).await.unwrap();
            for position in (1..=ROWS).filter(|position| position % every == 0) {
                assert_eq!(follower.change().await.sync_id, position);
            }
        });
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (tenant, over) = (tenant.clone(), Arc::clone(&over));
        writers.spawn(async move {
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    return number;
                }
                let name = format!("{writer}-{number}");
                tenant
                    .confirm(change(&name, &(1 + writer).to_string(), "on"))
                    .await;
            }
            unreachable!("there are more numbers")
        });
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let written = writers.join_all().await;
    assert!(written.iter().all(|count| *count > 0), "{written:?}");
    let ran = counting.calls(&["log_page", "append"]).await;
    // Alone, each would read eighteen pages; the tail reads after an append.
    assert!(ran["log_page"] < 500 + ran["append"], "{ran:?}");
    counting.stop().await;
}
