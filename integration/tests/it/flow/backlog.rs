//! A backlog as long as an outage makes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use integration::app::{Flags, Tenant, TestApp, eventually, intent};
use integration::endpoint::{Answer, Endpoint, Execution, Gate, Kind};
use serde_json::json;
use tokio::time::Instant;

use super::{drained, pass_the_time, source_at};

/// Commits that wait. More of them take longer, and in proportion no more memory: `BACKLOG=100000` in
/// the environment makes it so many.
const COMMITS: Option<&str> = option_env!("BACKLOG");

/// Rows that they are spread over.
const ROWS: usize = 500;

/// Bytes that the node's memory may grow by for each, and for all that comes and goes meanwhile, such
/// as what a flusher remembers: 50 MiB for a hundred thousand.
const EACH: u64 = 356;
const PASSING: u64 = 16 << 20;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// The shortest time over which a rate is taken.
const BUCKET: Duration = Duration::from_secs(1);

/// Times that a rate is taken while the backlog drains, at most.
const BUCKETS: u32 = 20;

/// Times that the endpoint answers all that it has in hand together, when it is back.
const ROUNDS: usize = 8;

/// Requests that a source may have in flight: a round of them is its steady rate.
const STEADY: usize = 16;

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

/// Commits that the endpoint has in hand, all of which it answers together.
#[derive(Debug)]
struct Round {
    gate: Gate,
    held: usize,
}

impl Round {
    fn new() -> Self {
        Self {
            gate: Gate::closed(),
            held: 0,
        }
    }
}

/// How many requests an endpoint that is back is met by in each of its first rounds. It answers when
/// as many have come as may by then, and no more do. So this is a rate by its own clock, whatever the
/// machine's.
async fn rounds(tenant: &Tenant, round: &Mutex<Round>) -> Vec<usize> {
    let mut rounds: Vec<usize> = Vec::new();
    for _ in 0..ROUNDS {
        let answered: usize = rounds.iter().sum();
        let may = STEADY.min(1 << answered.min(10));
        eventually("the next requests", async || {
            (round.lock().unwrap().held >= may).then_some(())
        })
        .await;
        pass_the_time(tenant).await;
        let last = std::mem::replace(&mut *round.lock().unwrap(), Round::new());
        rounds.push(last.held);
        last.gate.open();
    }
    round.lock().unwrap().gate.open();
    rounds
}

/// Has the endpoint answer commits in rounds.
fn in_rounds(endpoint: &Endpoint) -> Arc<Mutex<Round>> {
    let round = Arc::new(Mutex::new(Round::new()));
    let of_now = Arc::clone(&round);
    endpoint.behave(move |_| {
        let mut round = of_now.lock().unwrap();
        round.held += 1;
        Answer::honest().once_open(&round.gate)
    });
    round
}

/// All were executed, and each row's in the order of their sequences.
fn in_order(executions: &[Execution], sequences: &HashMap<String, i64>) {
    assert_eq!(executions.len(), sequences.len());
    let mut last: HashMap<&str, i64> = HashMap::new();
    for execution in executions {
        let row = execution.operations[0]["id"].as_str().unwrap();
        let sequence = sequences[&execution.client_tx_id];
        assert!(
            last.insert(row, sequence)
                .is_none_or(|last| last < sequence)
        );
    }
}

/// Commits whose first attempt failed. Of their rows none is read again, unless the source changed
/// hands since: then nobody knows what came in between.
async fn tried_again(app: &TestApp) -> usize {
    let again = "SELECT count(DISTINCT client_tx_id) FROM attempts WHERE number > 1";
    let again: i64 = sqlx::query_scalar(again)
        .fetch_one(&app.pool())
        .await
        .unwrap();
    usize::try_from(again).unwrap()
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
    let round = in_rounds(&endpoint);
    endpoint.restart().await.unwrap();
    // An operator who knows that it is back need not wait for the next probe.
    tenant.disable("maintenance").await;
    tenant.enable().await;
    let rounds = rounds(&tenant, &round).await;
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
    // A herd would be all that waited, or all that the source may have in flight, in the first round.
    eprintln!("requests in each round: {rounds:?}; in equal spans: {rates:?}");
    assert!(rounds.iter().all(|soon| *soon <= STEADY), "{rounds:?}");
    assert_eq!(
        rounds[..3],
        [1, 2, 8],
        "each answer doubles what may be in flight"
    );
    in_order(&endpoint.executions().split_off(before), &sequences);
    assert!(endpoint.most_at_once() <= STEADY);
    assert!(endpoint.arrivals_of(Kind::Load).len() <= tried_again(&app).await);
}
