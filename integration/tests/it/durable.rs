//! Promise 1: what was acknowledged is not lost, and nothing is acknowledged too early.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use integration::app::{Flags, Source, Tenant, TestApp, intent};
use integration::endpoint::Endpoint;
use integration::node::temporary_folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::v1::{CommitRequest, CommitState};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

/// Clients that write, each commit with a token of its own, until they are told to stop; what they
/// have begun they finish.
struct Load {
    clients: JoinSet<Vec<String>>,
    over: Arc<AtomicBool>,
    confirmed: Arc<AtomicU64>,
}

/// Rows that many clients change.
const HOT: [&str; 3] = ["hot-0", "hot-1", "hot-2"];

/// A commit that creates the row that its token names; some of the source's change a hot row too.
fn commit(token: &str) -> CommitRequest {
    let managed = token.ends_with('m');
    let model = if managed { "notes" } else { "airports" };
    let written = json!({"token": token});
    let mut operations = vec![intent::create(model, token, &written)];
    let number = token.bytes().fold(0, |sum, byte| sum + usize::from(byte));
    if let Some(hot) = HOT.get(number % 12).filter(|_| !managed) {
        operations.push(intent::update(model, hot, &written));
    }
    intent::commit(token, operations)
}

/// The hot rows, before anybody changes them.
async fn create_hot_rows(tenant: &Tenant) {
    let creates = HOT.map(|hot| intent::create("airports", hot, &json!({})));
    tenant
        .confirm(intent::commit("hot", creates.to_vec()))
        .await;
}

/// Which tokens a row had: as the endpoint executed them, and as the log tells. The log may also tell
/// of a row that was read again, because a killed node left an answer in doubt, if the row was not as the
/// log had it: the next commit was in doubt then, too.
async fn histories(pool: &PgPool, endpoint: &Endpoint, row: &str) -> (Vec<String>, Vec<String>) {
    let executed = endpoint
        .executions()
        .into_iter()
        .filter(|it| it.operations.iter().any(|operation| operation["id"] == row));
    let told: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT client_tx_id, row::json->>'token' FROM deltas WHERE row_id = $1 ORDER BY sync_id",
    )
    .bind(row)
    .fetch_all(pool)
    .await
    .unwrap();
    let mut logged: Vec<String> = Vec::new();
    let mut read_again: Vec<(usize, String)> = Vec::new();
    for (client_tx_id, token) in told {
        match client_tx_id {
            Some(client_tx_id) => logged.push(client_tx_id),
            None => read_again.push((logged.len(), token.unwrap())),
        }
    }
    for (place, token) in read_again {
        assert_eq!(logged.get(place), Some(&token), "{row} was read again");
    }
    (executed.map(|it| it.client_tx_id).collect(), logged)
}

impl Load {
    fn start(tenant: &Tenant, count: usize) -> Self {
        let (over, confirmed) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut clients = JoinSet::new();
        for client in 0..count {
            let (tenant, over) = (tenant.connected_anew(), Arc::clone(&over));
            let confirmed = Arc::clone(&confirmed);
            clients.spawn(async move {
                let mut tokens = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let backing = if tokens.len() % 2 == 0 { 'm' } else { 's' };
                    let token = format!("c{client}-{}-{backing}", tokens.len());
                    let receipt = tenant.settle(commit(&token)).await;
                    assert_eq!(receipt.state(), CommitState::Confirmed, "{receipt:?}");
                    confirmed.fetch_add(1, Ordering::Relaxed);
                    tokens.push(token);
                }
                tokens
            });
        }
        Self {
            clients,
            over,
            confirmed,
        }
    }

    /// Lets so many commits more be confirmed.
    async fn go_on_for(&self, commits: u64) {
        let until = self.confirmed.load(Ordering::Relaxed) + commits;
        integration::app::eventually("the clients to go on", async || {
            (self.confirmed.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    }

    async fn tokens(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

/// Every token has one effect where it belongs, and one delta; nothing else has.
async fn check(pool: &PgPool, endpoint: &Endpoint, tokens: &[String]) {
    let deltas: Vec<(String, i64)> =
        sqlx::query_as("SELECT row_id, count(*) FROM deltas GROUP BY row_id")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut deltas: HashMap<_, _> = deltas.into_iter().collect();
    for hot in HOT {
        let (executed, logged) = histories(pool, endpoint, hot).await;
        assert_eq!(executed, logged, "{hot}");
        assert!(logged.len() > 3, "{hot} is hot");
        deltas.remove(hot);
    }
    let managed: HashMap<String, String> =
        sqlx::query_as("SELECT row_id, row->>'token' FROM managed_rows")
            .fetch_all(pool)
            .await
            .unwrap()
            .into_iter()
            .collect();
    let mut executions: HashMap<String, usize> = HashMap::new();
    for execution in endpoint.executions() {
        *executions.entry(execution.client_tx_id).or_default() += 1;
    }
    let mut rows = endpoint.rows("airports");
    rows.retain(|id, _| !HOT.contains(&id.as_str()));
    executions.remove("hot");
    for token in tokens {
        assert_eq!(deltas.get(token), Some(&1), "deltas of {token}");
        if token.ends_with('m') {
            assert_eq!(managed.get(token), Some(token));
        } else {
            assert_eq!(executions.get(token), Some(&1), "executions of {token}");
            assert_eq!(rows[token]["token"], token.as_str());
        }
    }
    assert_eq!(deltas.len(), tokens.len());
    assert_eq!(managed.len() + rows.len(), tokens.len());
    assert_eq!(executions.len(), rows.len());
    let positions: (i64, i64) = sqlx::query_as("SELECT max(sync_id), count(*) FROM deltas")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(positions.0, positions.1, "the log has no gaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_under_load_lose_nothing_and_double_nothing() {
    // The shortest lease that there is: whoever is started after a kill has to wait for its end.
    let flags = Flags::default()
        .with("node-lease", "600ms")
        .with("node-renewal", "50ms");
    let app = TestApp::without_nodes(flags).await;
    let mut node = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant
        .prepare(&Source {
            retry_delays: vec![Duration::from_millis(20); 30],
            // What was in flight is sent again after this.
            request_timeout: Duration::from_secs(1),
            ..Source::at(&endpoint)
        })
        .await;
    create_hot_rows(&tenant).await;
    let load = Load::start(&tenant, 6);
    for _ in 0..50 {
        let executed = endpoint.executions().len();
        let more = rand::random_range(1..20);
        endpoint.wait_for_executions(executed + more).await;
        node.kill();
        node.restart().await;
    }
    let tokens = load.tokens().await;
    check(&app.pool(), &endpoint, &tokens).await;
    let lost: i64 =
        sqlx::query_scalar("SELECT count(*) FROM attempts WHERE error_class = 'owner_lost'")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    assert!(
        lost >= 10,
        "too few kills came between accept and settle: {lost}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_under_load_loses_nothing_that_was_acknowledged() {
    let folder = temporary_folder("coordinator-postgres-").unwrap();
    let options = ClusterOptions {
        folder: folder.path().to_owned(),
        binaries: None,
        durability: Durability::Kept,
        settings: Vec::new(),
    };
    let mut cluster = Cluster::start(options.clone()).await.unwrap();
    cluster.create_database("ledger").await.unwrap();
    let connect = cluster.connect_options("ledger");
    coordinator::migrate::migrate(&connect).await.unwrap();
    let mut app = TestApp::over(cluster.url("ledger"), connect, Flags::default());
    app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    // A node that lost its lease waits for the end of what was in flight.
    let source = Source {
        request_timeout: Duration::from_secs(4),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&source).await;
    create_hot_rows(&tenant).await;
    let load = Load::start(&tenant, 8);
    for _ in 0..5 {
        load.go_on_for(rand::random_range(20..60)).await;
        kill(Pid::from_raw(cluster.pid()), Signal::SIGKILL).unwrap();
        cluster.ended().await;
        drop(cluster);
        cluster = Cluster::start(options.clone()).await.unwrap();
    }
    load.go_on_for(60).await;
    let tokens = load.tokens().await;
    check(&app.pool(), &endpoint, &tokens).await;
    app.stop().await;
    drop(app);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_append_has_committed() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for model in ["notes", "airports"] {
        let create = intent::create(model, "1", &json!({"text": "one"}));
        let request = intent::queued(&format!("early-{model}"), vec![create]);
        // Appends move the head, so they wait for whoever holds it.
        let mut holder = app.pool().begin().await.unwrap();
        sqlx::query("SELECT FROM heads FOR UPDATE")
            .execute(&mut *holder)
            .await
            .unwrap();
        let timeout = Duration::from_millis(500);
        let answer = tenant.commit_within(request.clone(), timeout).await;
        answer.expect_err("the append has not committed");
        holder.rollback().await.unwrap();
        tenant.confirm(request).await;
    }
    assert_eq!(endpoint.executions().len(), 1);
}
