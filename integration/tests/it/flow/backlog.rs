//! A backlog as long as an outage makes it.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use integration::app::{Flags, Tenant, TestApp, intent};
use integration::endpoint::{Endpoint, Kind};
use serde_json::json;
use tokio::time::Instant;

use super::{drained, source_at};

/// Commits that wait. More of them take longer, and in proportion no more memory: `BACKLOG=100000` in
/// the environment makes it so many.
const COMMITS: Option<&str> = option_env!("BACKLOG");

/// Rows that they are spread over.
const ROWS: usize = 500;

/// Bytes that the node's memory may grow by for each: a hundred thousand take 50 MiB.
const EACH: u64 = 524;

/// And for all that comes and goes meanwhile.
const PASSING: u64 = 4 << 20;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// The shortest time over which a rate is taken.
const BUCKET: Duration = Duration::from_secs(1);

/// Times that a rate is taken while the backlog drains, at most.
const BUCKETS: u32 = 20;

fn commits() -> usize {
    COMMITS.map_or(10_000, |commits| commits.parse().unwrap())
}

/// How many requests came in each of so many equal spans, the last of them left out: it is not full.
fn rates(mut times: Vec<Instant>) -> Vec<usize> {
    times.sort_unstable();
    let (first, last) = (times[0], times[times.len() - 1]);
    let bucket = BUCKET.max((last - first) / BUCKETS);
    let mut rates: Vec<usize> = Vec::new();
    for at in times {
        let place = (at - first).as_nanos() / bucket.as_nanos();
        let place = usize::try_from(place).unwrap();
        rates.resize(rates.len().max(place + 1), 0);
        rates[place] += 1;
    }
    rates.pop();
    rates
}

/// Updates the rows in turn, many commits at a time.
async fn submit(tenant: &Tenant, from: usize, to: usize) {
    let clients: Vec<_> = (0..4).map(|_| tenant.connected_anew()).collect();
    let calls = (from..to).map(|number| {
        let client = &clients[number % clients.len()];
        let row = (number % ROWS).to_string();
        let update = intent::update("airports", &row, &json!({"number": number}));
        async move {
            let commit = intent::queued(&format!("tx-{number}"), vec![update]);
            client.commit(commit).await.unwrap();
        }
    });
    stream::iter(calls)
        .buffer_unordered(256)
        .for_each(|()| std::future::ready(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_takes_little_memory_and_drains_in_the_order_of_each_row() {
    let app = TestApp::without_nodes(Flags::default()).await;
    // What an allocator keeps for each thread is not the backlog's.
    let arenas = vec![("MALLOC_ARENA_MAX", "2".to_owned())];
    let node = app.spawn_node_in(EXECUTABLE, arenas).await;
    let mut endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&source_at(&endpoint)).await;
    let rows = (0..ROWS).map(|row| intent::create("airports", &row.to_string(), &json!({})));
    tenant.confirm(intent::commit("rows", rows.collect())).await;
    // What any traffic takes, backlog or not.
    submit(&tenant, 0, 2_000).await;
    drained(&tenant).await;
    endpoint.stop().await;
    let (before, memory) = (endpoint.executions().len(), node.peak_memory());
    let begun = Instant::now();
    let commits = commits();
    submit(&tenant, 2_000, 2_000 + commits).await;
    let queued = begun.elapsed();
    let sequences: HashMap<String, i64> =
        sqlx::query_as("SELECT client_tx_id, sequence FROM inbox")
            .fetch_all(&app.pool())
            .await
            .unwrap()
            .into_iter()
            .collect();
    let status = tenant.status().await;
    assert_eq!((sequences.len(), status.dead_count), (commits, 0));
    let arrived = endpoint.arrivals_of(Kind::Commit).len();
    endpoint.restart().await.unwrap();
    // An operator who knows that it is back need not wait for the next probe.
    tenant.disable("maintenance").await;
    tenant.enable().await;
    drained(&tenant).await;
    let grown = node.peak_memory() - memory;
    eprintln!(
        "{commits} commits: queued in {queued:?}, delivered after {:?}, {} KiB more memory",
        begun.elapsed(),
        grown >> 10
    );
    assert!(grown <= PASSING + EACH * commits as u64, "{grown} bytes");
    let arrivals = endpoint.arrivals_of(Kind::Commit).split_off(arrived);
    let rates = rates(arrivals.iter().map(|it| it.at).collect());
    let mut sorted = rates.clone();
    sorted.sort_unstable();
    eprintln!("requests in equal spans: {rates:?}");
    // The endpoint that is back is met by about what it is sent later on: a herd would be all that
    // waited. What else the machine does meanwhile may halve a rate, or double it.
    let soon = rates.iter().take(rates.len().div_ceil(4)).max();
    let steady = sorted.get(sorted.len() / 2);
    assert!(soon <= steady.map(|it| 5 * it).as_ref(), "{rates:?}");
    let executions = endpoint.executions().split_off(before);
    assert_eq!(executions.len(), commits);
    let mut last: HashMap<&str, i64> = HashMap::new();
    for execution in &executions {
        let row = execution.operations[0]["id"].as_str().unwrap();
        let sequence = sequences[&execution.client_tx_id];
        assert!(
            last.insert(row, sequence)
                .is_none_or(|last| last < sequence)
        );
    }
    assert!(endpoint.most_at_once() <= 16);
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 0);
}
