//! Five times as many calls as there is room for: what does not fit is refused at the door, at once
//! and with a time to return, so that the rest goes on as fast as before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use integration::app::{Flags, PATIENCE, Source, Tenant, TestApp, TestNode, intent, reason};
use integration::endpoint::Endpoint;
use integration::node::temporary_folder;
use proto::v1;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::command::EXECUTABLE;

/// Commits that the source is sent in a second, so that the capacity is one that a slow machine has.
const RATE: u32 = 10;
/// The same for managed commits: each append takes a tenth of a second.
const SLOWLY: [(&str, &str); 2] = [("commit_delay", "100000"), ("commit_siblings", "0")];
const TICK: Duration = Duration::from_millis(10);

fn commit(model: &str, name: &str) -> v1::CommitRequest {
    let create = intent::create(model, name, &json!({"text": name}));
    intent::commit(name, vec![create])
}

/// What is written, by how many at a time, and for how long too much is asked for.
#[derive(Clone, Copy)]
struct Plan {
    model: &'static str,
    /// Calls that the node has in hand for one organization.
    seats: u32,
    long: Duration,
}

/// Commits a second that so many callers get done who each wait for their answer.
async fn capacity(doors: &[Tenant], plan: Plan, run: &str) -> f64 {
    let Plan { model, seats, long } = plan;
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..seats {
        let door = doors[caller as usize % doors.len()].clone();
        let over = Arc::clone(&over);
        let run = format!("{run}-{caller}");
        callers.spawn(async move {
            let mut done = 0;
            while !over.load(Ordering::Relaxed) {
                door.confirm(commit(model, &format!("{run}-{done}"))).await;
                done += 1;
            }
            done
        });
    }
    let begun = Instant::now();
    // So long it is measured.
    tokio::time::sleep(long / 4).await;
    over.store(true, Ordering::Relaxed);
    let done: u32 = callers.join_all().await.into_iter().sum();
    f64::from(done) / begun.elapsed().as_secs_f64()
}

/// What came of calls that are made at a pace of their own, answered or not.
#[derive(Debug, Default)]
struct Storm {
    confirmed: BTreeSet<String>,
    queued: BTreeSet<String>,
    latencies: Vec<Duration>,
    refused: Vec<Status>,
    /// Until the last answer.
    took: Duration,
}

impl Storm {
    async fn over(doors: &[Tenant], plan: Plan, rate: f64) -> Self {
        let Plan { model, long, .. } = plan;
        let mut calls = JoinSet::new();
        let mut ticks = tokio::time::interval(TICK);
        let begun = Instant::now();
        let mut made = 0_u32;
        while begun.elapsed() < long {
            ticks.tick().await;
            while f64::from(made) < rate * begun.elapsed().as_secs_f64() {
                let door = doors[made as usize % doors.len()].clone();
                let name = format!("storm-{made}");
                calls.spawn(async move {
                    let begun = Instant::now();
                    let answer = door.commit(commit(model, &name)).await;
                    (name, answer, begun.elapsed())
                });
                made += 1;
            }
        }
        let mut storm = Self::default();
        for (name, answer, took) in calls.join_all().await {
            match answer {
                Ok(receipt) => {
                    storm.latencies.push(took);
                    match receipt.state() {
                        v1::CommitState::Confirmed => storm.confirmed.insert(name),
                        _ => storm.queued.insert(name),
                    };
                }
                Err(status) => storm.refused.push(status),
            }
        }
        storm.took = begun.elapsed();
        storm.latencies.sort();
        storm
    }

    fn p99(&self) -> Duration {
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

/// Asks for five times as much as is done, and says what was acknowledged: all of it is to be done.
async fn overload(node: &TestNode, doors: &[Tenant], plan: Plan) -> BTreeSet<String> {
    let before = capacity(doors, plan, "before").await;
    let memory = node.peak_memory();
    let storm = Storm::over(doors, plan, 5.0 * before).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let goodput = storm.confirmed.len() as f64 / storm.took.as_secs_f64();
    let after = capacity(doors, plan, "after").await;
    let summary = format!(
        "{before:.0}/s before, {goodput:.0}/s in the storm, {after:.0}/s after; p99 {:?}; {} confirmed, \
         {} queued, {} refused",
        storm.p99(),
        storm.confirmed.len(),
        storm.queued.len(),
        storm.refused.len()
    );
    // Whatever else the machine does meanwhile comes and goes.
    assert!(goodput >= 0.8 * before.min(after), "{summary}");
    // All the seats before it, several times over, on a machine that has other things to do.
    let turn = Duration::from_secs_f64(f64::from(plan.seats) / goodput);
    assert!(storm.p99() < 4 * turn + PATIENCE / 10, "{summary}");
    assert!(storm.refused.len() > storm.confirmed.len(), "{summary}");
    for status in &storm.refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(reason(status), "overloaded");
        assert!(status.get_error_details().retry_info().is_some());
    }
    let cost = node.peak_memory().saturating_sub(memory);
    assert!(cost < 100 << 20, "{} MiB", cost >> 20);
    for name in &storm.queued {
        doors[0].confirm(commit(plan.model, name)).await;
    }
    storm.confirmed.union(&storm.queued).cloned().collect()
}

/// Each takes as many calls as a connection may have.
fn doors(tenant: &Tenant) -> Vec<Tenant> {
    (0..8).map(|_| tenant.connected_anew()).collect()
}

fn seated(seats: u32) -> Flags {
    Flags::default().with("calls-in-flight-per-organization", seats.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_five_times_the_capacity_what_does_not_fit_is_refused_and_the_rest_goes_on() {
    let plan = Plan {
        model: "airports",
        seats: 16,
        long: Duration::from_secs(20),
    };
    let app = TestApp::without_nodes(seated(plan.seats)).await;
    let node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant
        .prepare(&Source {
            max_per_second: RATE,
            max_in_flight: 64,
            request_timeout: Duration::from_secs(20),
            ..Source::at(&endpoint)
        })
        .await;
    let acknowledged = overload(&node, &doors(&tenant), plan).await;
    let executed = endpoint.executions().into_iter().map(|it| it.client_tx_id);
    let mut executed: Vec<_> = executed.filter(|it| it.starts_with("storm-")).collect();
    executed.sort();
    assert_eq!(executed, Vec::from_iter(acknowledged));
}

/// The same for managed commits, over a Postgres with these settings.
async fn overload_managed(settings: &[(&str, &str)], plan: Plan) {
    let folder = temporary_folder("coordinator-overload-").unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let cluster = Cluster::start(ClusterOptions {
        folder: folder.path().join("postgres"),
        binaries: None,
        durability: Durability::Kept,
        settings: settings.iter().map(owned).collect(),
    })
    .await
    .unwrap();
    cluster.create_database("ledger").await.unwrap();
    let connect = cluster.connect_options("ledger");
    coordinator::migrate::migrate(&connect).await.unwrap();
    let app = TestApp::over(cluster.url("ledger"), connect, seated(plan.seats));
    let mut node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(&endpoint)).await;
    let acknowledged = overload(&node, &doors(&tenant), plan).await;
    let done = "SELECT client_tx_id FROM deltas WHERE client_tx_id LIKE 'storm-%'";
    let done: Vec<String> = sqlx::query_scalar(done)
        .fetch_all(&app.pool())
        .await
        .unwrap();
    assert_eq!(BTreeSet::from_iter(done), acknowledged);
    node.stop().await;
    drop(app);
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_commits_go_on_too_at_five_times_the_capacity() {
    let plan = Plan {
        model: "notes",
        seats: 4,
        long: Duration::from_secs(8),
    };
    overload_managed(&SLOWLY, plan).await;
}
