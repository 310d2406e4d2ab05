//! How streams end, and what one costs the others.

use std::time::{Duration, Instant};

use integration::app::{Flags, Follower, PATIENCE, Tenant, TestApp, TestNode, reason};
use integration::endpoint::Endpoint;
use integration::log_check::{Seen, dense};
use integration::node::{Authorization, Authorized};
use proto::v1;
use proto::v1::SubscribeRequest;
use proto::v1::log_client::LogClient;
use proto::v1::subscribe_response::Frame;
use tonic::transport::Endpoint as Connection;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{change, note};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_never_reads_is_closed_with_a_cursor_and_costs_nobody_anything() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let node = app.spawn_node(env!("CARGO_BIN_EXE_demo")).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    tenant
        .prepare(&integration::app::Source::at(&endpoint))
        .await;
    let mut unread = narrow(&tenant).await;
    let stalled = unread.subscribe(SubscribeRequest::default()).await;
    let mut stalled = stalled.unwrap().into_inner();
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Follower::from_now(&tenant.connected_anew()).await);
    }
    let text = "x".repeat(200_000);
    tenant.confirm(note("a", "first")).await;
    let before = resident(&node);
    let begun = Instant::now();
    let count = 320;
    for number in 1..count {
        tenant
            .confirm(change(&format!("c{number}"), "a", &text))
            .await;
        for other in &mut others {
            let change = other.changes(if number == 1 { 2 } else { 1 }).await;
            assert_eq!(change.last().unwrap().sync_id, number + 1);
        }
    }
    let grown = resident(&node).saturating_sub(before);
    // Of 64 MB that one has not read, and four have.
    assert!(grown < 40 << 10, "{grown} KiB");
    // A second after the thirtieth, at the latest; the rest is for a busy machine.
    tokio::time::sleep_until((begun + Duration::from_secs(34)).into()).await;
    let (mut seen, end) = read_to_end(&mut stalled).await;
    assert_eq!(end.code(), Code::ResourceExhausted);
    assert_eq!(reason(&end), "slow_consumer");
    assert!(seen.len() < 10, "{}", seen.len());
    let mut resumed = Follower::resume(&tenant, &resumes_from(&end))
        .await
        .unwrap();
    while seen.len() < usize::try_from(count).unwrap() {
        seen.push(Seen::of(&resumed.change().await));
    }
    dense(&seen, 1, count).unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_resume_at_once_all_get_everything() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let begin = Follower::from_now(&tenant).await.cursor().to_owned();
    // More changes than the node keeps in memory.
    let last = 4_600;
    for some in (0..last).collect::<Vec<_>>().chunks(460) {
        let rows = some.iter().map(|row| {
            integration::app::intent::create("notes", &row.to_string(), &serde_json::json!({}))
        });
        let name = format!("rows-{}", some[0]);
        let commit = integration::app::intent::commit(&name, rows.collect());
        tenant.confirm(commit).await;
    }
    let mut readers = tokio::task::JoinSet::new();
    let mut tenants = Vec::new();
    for number in 0..60 {
        if number % 20 == 0 {
            tenants.push(tenant.connected_anew());
        }
        let (tenant, begin) = (tenants.last().unwrap().clone(), begin.clone());
        readers.spawn(async move {
            let mut follower = Follower::resume(&tenant, &begin).await.unwrap();
            let changes = follower.changes(usize::try_from(last).unwrap()).await;
            let seen: Vec<_> = changes.iter().map(Seen::of).collect();
            dense(&seen, 1, last)
        });
    }
    // Writers go on meanwhile.
    let begun = Instant::now();
    tenant.confirm(change("meanwhile", "7", "small")).await;
    let took = begun.elapsed();
    while let Some(read) = readers.join_next().await {
        read.unwrap().unwrap();
    }
    assert!(took < Duration::from_secs(5), "{took:?}");
}
