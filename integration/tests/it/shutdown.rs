//! A stop that was asked for loses nothing and leaves nobody without an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use integration::app::{Flags, Source, Tenant, TestApp, intent};
use integration::endpoint::{Endpoint, Kind};
use nix::sys::signal::Signal;
use proto::v1::{CommitRequest, CommitState};
use serde_json::json;
use tokio::task::JoinSet;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

async fn tenant(address: &str, endpoint: &Endpoint) -> Tenant {
    let tenant = Tenant::create(address, "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(endpoint)).await;
    tenant
}

fn create(name: &str) -> CommitRequest {
    let model = if name.ends_with('m') {
        "notes"
    } else {
        "airports"
    };
    intent::commit(
        name,
        vec![intent::create(model, name, &json!({"text": "one"}))],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_exits_with_zero_and_loses_nothing() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = tenant(node.address(), &endpoint).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let (tenant, over) = (tenant.connected_anew(), Arc::clone(&over));
        clients.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let backing = if number % 2 == 0 { 'm' } else { 's' };
                let name = format!("c{client}-{number}-{backing}");
                match tenant.commit(create(&name)).await {
                    Ok(_) => acknowledged.push(name),
                    Err(_) if over.load(Ordering::Relaxed) => break,
                    Err(status) => panic!("{name}: {status:?}"),
                }
            }
            acknowledged
        });
    }
    endpoint.wait_for_executions(50).await;
    over.store(true, Ordering::Relaxed);
    let status = node.stop().await;
    assert_eq!(status.code(), Some(0), "{status}: {}", node.log());
    let acknowledged = clients.join_all().await.concat();
    assert!(acknowledged.len() > 100);
    // Nothing is left in flight: what was begun was finished.
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM attempts WHERE outcome IS NULL")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    assert_eq!(open, 0);
    node.restart().await;
    for name in &acknowledged {
        tenant.confirm(create(name)).await;
    }
    // Those that nobody heard of settle too.
    integration::app::eventually("everything to settle", async || {
        tenant.pending().await.is_empty().then_some(())
    })
    .await;
    let doubled: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM deltas GROUP BY row_id HAVING count(*) > 1) AS doubled",
    )
    .fetch_one(&app.pool())
    .await
    .unwrap();
    assert_eq!(doubled, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_during_a_stop_gets_the_queued_receipt() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = tenant(node.address(), &endpoint).await;
    endpoint.hold(Kind::Commit);
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let tenant = tenant.clone();
        calls.spawn(async move { tenant.commit(create(&format!("waits-{number}"))).await });
    }
    endpoint.wait_for_arrivals(Kind::Commit, 10).await;
    let begun = Instant::now();
    node.signal(Signal::SIGTERM);
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap().state(), CommitState::Queued);
    }
    // None of the requests has come to its end.
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    endpoint.release(Kind::Commit);
    let status = node.ended().await;
    assert_eq!(status.code(), Some(0), "{status}: {}", node.log());
    node.restart().await;
    for number in 0..10 {
        tenant.confirm(create(&format!("waits-{number}"))).await;
    }
    assert_eq!(endpoint.executions().len(), 10);
}
