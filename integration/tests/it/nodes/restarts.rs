//! Nodes that are replaced while others work, and that come back all at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration::app::load::Load;
use integration::app::{Flags, PATIENCE, Source, Tenant, TestApp, TestNode, eventually, intent};
use integration::endpoint::{Endpoint, Kind};
use integration::history::{Answer, Fault, History, Row, Write};
use proto::v1;
use serde_json::json;
use tokio::task::JoinSet;

use super::EXECUTABLE;

/// Three nodes in processes of their own, and one organization with a door at each.
struct Three {
    nodes: Vec<TestNode>,
    doors: Vec<Tenant>,
    endpoint: Endpoint,
    app: TestApp,
}

impl Three {
    async fn start() -> Self {
        let app = TestApp::without_nodes(Flags::default()).await;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(app.spawn_node(EXECUTABLE).await);
        }
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = Tenant::create(nodes[0].address(), "acme").await;
        endpoint.set_keys(&[tenant.key()]);
        // Not soon, and soon enough for a successor that waits for the end of what was in flight.
        let source = Source {
            request_timeout: Duration::from_secs(10),
            ..Source::at(&endpoint)
        };
        tenant.prepare(&source).await;
        let doors = nodes.iter().map(|it| tenant.at(it.address())).collect();
        Self {
            nodes,
            doors,
            endpoint,
            app,
        }
    }
}

/// A commit that one of many writers sends, by number.
fn numbered(number: usize, rows: usize) -> v1::CommitRequest {
    let row = (number % rows).to_string();
    let token = format!("tx-{number}");
    let update = intent::update("airports", &row, &json!({"token": token}));
    intent::queued(&token, vec![update])
}

/// Creates the rows; what the history has to know of it.
async fn create_rows(tenant: &Tenant, rows: usize) -> Write {
    let creates =
        (0..rows).map(|id| intent::create("airports", &id.to_string(), &json!({"token": "rows"})));
    let request = intent::commit("rows", creates.collect());
    tenant.confirm(request.clone()).await;
    unanswered(&request, (0, 0))
}

fn unanswered(request: &v1::CommitRequest, (sent, acknowledged): (u64, u64)) -> Write {
    let row = |it: &v1::Operation| Row {
        model: it.model.clone(),
        id: it.id.clone(),
    };
    Write {
        token: request.client_tx_id.clone(),
        rows: request.operations.iter().map(row).collect::<BTreeSet<_>>(),
        delivered: true,
        sent,
        acknowledged: Some(acknowledged),
        ..Write::default()
    }
}

/// Eight writers queue these commits on so many rows, each at one node.
async fn queue(doors: &[Tenant], numbers: std::ops::Range<usize>, rows: usize) -> Vec<Write> {
    let moments = Arc::new(AtomicU64::new(1 + 2 * numbers.start as u64));
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (tenant, moments) = (doors[writer % doors.len()].clone(), Arc::clone(&moments));
        let mine: Vec<_> = numbers.clone().filter(|it| it % 8 == writer).collect();
        writers.spawn(async move {
            let mut writes = Vec::new();
            for number in mine {
                let request = numbered(number, rows);
                let sent = moments.fetch_add(1, Ordering::SeqCst);
                tenant.commit(request.clone()).await.unwrap();
                let acknowledged = moments.fetch_add(1, Ordering::SeqCst);
                writes.push(unanswered(&request, (sent, acknowledged)));
            }
            writes
        });
    }
    writers.join_all().await.concat()
}

/// Places of what waits, by name.
async fn sequences(tenant: &Tenant) -> HashMap<String, i64> {
    let pending = tenant.pending().await.into_iter();
    pending.map(|it| (it.client_tx_id, it.sequence)).collect()
}

/// Adds what became of each.
async fn answer(tenant: &Tenant, writes: &mut [Write]) {
    for write in writes {
        let receipt = eventually(&write.token, async || {
            let receipt = tenant.receipt(&write.token).await.ok()?;
            Answer::of(&receipt)
        })
        .await;
        write.answers.push(receipt);
    }
}

async fn attempts(app: &TestApp) -> usize {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM attempts")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    usize::try_from(count).unwrap()
}

fn assert_faultless(history: &History) {
    let faults: Vec<_> = history.faults().iter().map(Fault::to_string).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The order in which the commits that stood in line were executed.
fn executed_places(endpoint: &Endpoint, places: &HashMap<String, i64>) -> Vec<i64> {
    let executions = endpoint.executions().into_iter();
    executions
        .filter_map(|it| places.get(&it.client_tx_id).copied())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_commits_of_eight_writers_on_three_nodes_pass_one_row_in_their_order() {
    let mut app = TestApp::start().await;
    let others = [app.add_node().await, app.add_node().await];
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut doors = vec![tenant.clone()];
    doors.extend(others.iter().map(|it| tenant.at(it)));
    let mut writes = vec![create_rows(&tenant, 1).await];
    endpoint.hold(Kind::Commit);
    writes.extend(queue(&doors, 0..250, 1).await);
    let places = sequences(&tenant).await;
    assert_eq!(places.len(), 250);
    endpoint.release(Kind::Commit);
    // The rest comes while the row moves on.
    writes.extend(queue(&doors, 250..500, 1).await);
    answer(&tenant, &mut writes).await;
    let order = executed_places(&endpoint, &places);
    assert!(order.is_sorted(), "{order:?}");
    let history = History::gather(writes, &endpoint, &app.pool(), &tenant).await;
    assert_eq!(history.executions.len(), 501);
    assert_faultless(&history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_start_at_once_drain_what_was_left_in_order() {
    let commits = 600;
    let Three {
        mut nodes,
        doors,
        endpoint,
        app,
    } = Three::start().await;
    let mut writes = vec![create_rows(&doors[0], 100).await];
    endpoint.hold(Kind::Commit);
    writes.extend(queue(&doors, 0..commits, 100).await);
    let places = sequences(&doors[0]).await;
    assert_eq!(places.len(), commits);
    for node in &mut nodes {
        node.kill();
    }
    let attempts_before = attempts(&app).await;
    endpoint.release(Kind::Commit);
    let begun = Instant::now();
    let mut starting = JoinSet::new();
    for mut node in nodes {
        starting.spawn(async move {
            node.restart().await;
            node
        });
    }
    let nodes = starting.join_all().await;
    answer(&doors[0], &mut writes).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_mins(2), "{took:?}");
    let history = History::gather(writes, &endpoint, &app.pool(), &doors[0]).await;
    assert_eq!(history.executions.len(), commits + 1);
    assert_faultless(&history);
    assert_eq!(
        history.attempts.len() - attempts_before,
        commits,
        "each commit is sent once after the start"
    );
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_replaced_one_after_another_fail_no_call_for_good() {
    let Three {
        mut nodes,
        doors,
        endpoint,
        app,
    } = Three::start().await;
    let load = Load::start(&doors, 16, 1).await;
    for _ in 0..2 {
        for node in &mut nodes {
            let settled = load.settled();
            eventually("the clients to go on", async || {
                (load.settled() > settled + 30).then_some(())
            })
            .await;
            let status = node.stop().await;
            assert_eq!(status.code(), Some(0), "{status}: {}", node.log());
            node.restart().await;
        }
    }
    let seen = load.finish().await;
    // Whoever is refused may try again, and soon gets through.
    assert!(seen.longest < PATIENCE, "{:?}", seen.longest);
    let history = History::gather(seen.writes, &endpoint, &app.pool(), &doors[0]).await;
    assert_faultless(&history);
    let outcomes = history.attempts.iter().filter_map(|it| it.outcome.as_ref());
    assert!(
        outcomes.clone().all(|it| it == "applied"),
        "a clean stop loses no attempt"
    );
}
