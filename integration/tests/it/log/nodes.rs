//! One log, several nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use integration::app::follower::from_oldest;
use integration::app::{Flags, Follower, Source, Tenant, TestApp, eventually, intent};
use integration::endpoint::Endpoint;
use integration::log_check::{Seen, dense, ends_on, same};
use serde_json::json;
use tokio::task::JoinSet;

use super::{change, note, positions, table};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// Writes for a while, to a few rows that everybody writes to and in both backings; says how many
/// changes were confirmed.
async fn write(tenant: Tenant, writer: usize, until: Instant) -> usize {
    let mut confirmed = 0;
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let name = format!("w{writer}-{number}");
        let model = if number % 8 == 7 { "airports" } else { "notes" };
        let (one, two) = ((writer + number) % 5, 5 + (writer * 7 + number) % 5);
        let operations = [one, two].map(|row| {
            let token = json!({"token": format!("{name}-{row}")});
            intent::update(model, &format!("r{row}"), &token)
        });
        let receipt = tenant
            .settle(intent::commit(&name, operations.to_vec()))
            .await;
        confirmed += receipt.changes.len();
    }
    confirmed
}

/// Ten rows in either backing: twenty changes.
async fn populate(tenant: &Tenant) {
    for model in ["notes", "airports"] {
        let rows = (0..10).map(|row| intent::create(model, &format!("r{row}"), &json!({})));
        tenant.confirm(intent::commit(model, rows.collect())).await;
    }
}

/// The rows as the log should leave them, by the positions at which the database says they stand.
async fn check_rows(app: &TestApp, log: &[Seen]) {
    let at: BTreeMap<i64, &Seen> = log.iter().map(|seen| (seen.position, seen)).collect();
    let rows = positions(app).await.into_iter();
    let rows = rows.map(|(row, position)| (row, at[&position].token.clone()));
    ends_on(log, &rows.collect()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_on_two_nodes_make_one_log_that_everybody_sees_alike() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let other = tenant.at(&app.add_node().await);
    populate(&tenant).await;
    let mut followers = Vec::new();
    for tenant in [&tenant, &other, &tenant, &other] {
        let follower = Follower::start(&tenant.connected_anew(), from_oldest()).await;
        followers.push(follower.unwrap());
    }
    let until = Instant::now() + Duration::from_secs(20);
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let tenant = if writer % 2 == 0 { &tenant } else { &other };
        writers.spawn(write(tenant.clone(), writer, until));
    }
    let mut reading = JoinSet::new();
    let (tell, told) = tokio::sync::watch::channel(usize::MAX);
    for mut follower in followers {
        let told = told.clone();
        reading.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < *told.borrow() {
                let next = tokio::time::timeout(Duration::from_secs(1), follower.try_change());
                if let Ok(change) = next.await {
                    seen.push(Seen::of(&change.unwrap()));
                }
            }
            seen
        });
    }
    let changes: usize = writers.join_all().await.into_iter().sum::<usize>() + 20;
    tell.send_replace(changes);
    let log = table(&app).await;
    dense(&log, 1, i64::try_from(changes).unwrap()).unwrap();
    check_rows(&app, &log).await;
    for seen in reading.join_all().await {
        same(&seen, &log).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_everything_once_through_disconnects_and_a_killed_node() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut first = app.spawn_node(EXECUTABLE).await;
    let second = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(second.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    // Whoever takes over waits for the end of what was in flight.
    let source = Source {
        request_timeout: Duration::from_secs(4),
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    let begin = Follower::from_now(&tenant).await.cursor().to_owned();
    populate(&tenant).await;
    let until = Instant::now() + Duration::from_secs(6);
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        writers.spawn(write(tenant.clone(), writer, until));
    }
    let nodes = [tenant.at(first.address()), tenant.clone()];
    let (tell, told) = tokio::sync::watch::channel(usize::MAX);
    let mut readers = JoinSet::new();
    for reader in 0..3_u64 {
        readers.spawn(hop(nodes.clone(), begin.clone(), told.clone(), reader));
    }
    // In the midst of the writing; nothing below depends on when.
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.kill();
    let changes: usize = writers.join_all().await.into_iter().sum::<usize>() + 20;
    tell.send_replace(changes);
    let log = table(&app).await;
    dense(&log, 1, i64::try_from(changes).unwrap()).unwrap();
    for seen in readers.join_all().await {
        same(&seen, &log).unwrap();
    }
}

/// Reads from one node, then from another, a short while each, from the cursor of the last change.
async fn hop(
    nodes: [Tenant; 2],
    mut cursor: String,
    told: tokio::sync::watch::Receiver<usize>,
    reader: u64,
) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    for turn in reader.. {
        if seen.len() >= *told.borrow() {
            break;
        }
        let node = &nodes[usize::from(turn % 2 == 0)];
        let Ok(mut follower) = Follower::resume(&node.connected_anew(), &cursor).await else {
            // That node is gone.
            continue;
        };
        let leave = tokio::time::Instant::now() + Duration::from_millis(100 + 70 * (turn % 5));
        while let Ok(Ok(change)) = tokio::time::timeout_at(leave, follower.try_change()).await {
            seen.push(Seen::of(&change));
            cursor = change.cursor;
        }
    }
    seen
}

/// Who is told of a change has it before this; who is not, looks each half second.
const NOTIFIED: Duration = Duration::from_millis(400);

/// How long changes that one node confirmed took to reach a subscriber of another.
async fn delays(writer: &Tenant, reader: &Tenant, count: usize) -> Vec<Duration> {
    let mut follower = Follower::from_now(reader).await;
    writer.confirm(note("a", "first")).await;
    follower.change().await;
    let mut delays = Vec::new();
    for number in 0..count {
        let name = format!("c{number}");
        writer.confirm(change(&name, "a", &name)).await;
        let begun = Instant::now();
        assert_eq!(follower.change().await.client_tx_id, name);
        delays.push(begun.elapsed());
    }
    delays.sort_unstable();
    delays
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_subscribers_of_another_node_before_they_look() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let other = tenant.at(&app.add_node().await);
    let delays = delays(&tenant, &other, 60).await;
    let median = delays[delays.len() / 2];
    assert!(median < NOTIFIED, "{delays:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_them_all_the_same_when_every_notification_is_lost() {
    let mut app = TestApp::without_nodes(Flags::default()).await;
    // Nobody can notify in this database.
    let lost = "ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_lost";
    sqlx::query(lost).execute(&app.pool()).await.unwrap();
    app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let other = tenant.at(&app.add_node().await);
    let delays = delays(&tenant, &other, 9).await;
    let median = delays[delays.len() / 2];
    assert!(median < Duration::from_secs(5), "{delays:?}");
    assert!(
        median > Duration::from_millis(50),
        "they were notified: {delays:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_is_cut_off_listens_again() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let other = tenant.at(&app.add_node().await);
    let listening = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let pool = app.pool();
    let listeners = async || -> BTreeSet<i32> {
        let pids = sqlx::query_scalar(listening).fetch_all(&pool).await;
        pids.unwrap().into_iter().collect()
    };
    let before = eventually("both nodes to listen", async || {
        Some(listeners().await).filter(|pids| pids.len() == 2)
    })
    .await;
    for pid in &before {
        let cut = sqlx::query("SELECT pg_terminate_backend($1)").bind(pid);
        cut.execute(&pool).await.unwrap();
    }
    eventually("both nodes to listen again", async || {
        let now = listeners().await;
        (now.len() == 2 && now.is_disjoint(&before)).then_some(())
    })
    .await;
    let delays = delays(&tenant, &other, 20).await;
    let median = delays[delays.len() / 2];
    assert!(median < NOTIFIED, "{delays:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_and_a_courier_on_different_nodes_wake_each_other() {
    // The courier's own look, each second.
    let flags = Flags::default()
        .with("node-lease", "3s")
        .with("node-renewal", "1s");
    let app = TestApp::without_nodes(flags).await;
    let owner = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(owner.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(&endpoint)).await;
    let airport = |id: &str| {
        let create = intent::create("airports", id, &json!({"text": "one"}));
        intent::commit(id, vec![create])
    };
    tenant.confirm(airport("first")).await;
    let other = app.spawn_node(EXECUTABLE).await;
    let elsewhere = tenant.at(other.address());
    let mut took = Vec::new();
    for number in 0..15 {
        let begun = Instant::now();
        elsewhere.confirm(airport(&format!("a{number}"))).await;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    // Without being woken, the caller looks after a second, and the courier once a second.
    assert!(took[7] < Duration::from_secs(1), "{took:?}");
}
