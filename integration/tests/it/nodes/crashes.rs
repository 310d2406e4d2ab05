//! A node that dies at each step of a delivery: the commit has its one effect, and the record says
//! what happened.

use std::time::Duration;

use integration::app::{Flags, Tenant, eventually};
use integration::endpoint::{Answer, Gate, Kind};
use nix::sys::signal::Signal;
use proto::v1::{self, AttemptTrigger};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{EXECUTABLE, Pair, create};

/// What is promised after a crash is a lease of three seconds, a second to notice, and room.
const TAKEOVER: f64 = LEASE + ROOM;
const LEASE: f64 = 3.0;
const ROOM: f64 = 7.0;

/// The leases of production.
fn real_leases() -> Flags {
    Flags::default()
        .with("node-lease", "3s")
        .with("node-renewal", "1s")
}

fn queued(mut request: v1::CommitRequest) -> v1::CommitRequest {
    request.set_wait(v1::Wait::Queued);
    request
}

/// Seconds, by the clock of the database.
async fn clock(pool: &PgPool) -> f64 {
    sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// When a commit's last attempt was recorded, by the same clock, and by which node.
async fn last_start(pool: &PgPool, client_tx_id: &str) -> (f64, String) {
    sqlx::query_as(
        "SELECT extract(epoch FROM started_at)::float8, node::text FROM attempts
         WHERE client_tx_id = $1 ORDER BY started_at DESC LIMIT 1",
    )
    .bind(client_tx_id)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Waits until a node renews its lease once more.
async fn renewed(pool: &PgPool, node: &str) {
    let lease = async || -> Option<f64> {
        sqlx::query_scalar(
            "SELECT extract(epoch FROM expires_at)::float8 FROM nodes WHERE node_id::text = $1",
        )
        .bind(node)
        .fetch_optional(pool)
        .await
        .unwrap()
    };
    let before = lease().await.expect("the node has a lease");
    eventually("the lease to be renewed", async || {
        lease().await.filter(|until| *until > before)
    })
    .await;
}

/// What became of each attempt of a commit.
async fn outcomes(tenant: &Tenant, client_tx_id: &str) -> Vec<(String, String)> {
    let attempts = tenant.attempts(client_tx_id).await.into_iter();
    attempts.map(|it| (it.outcome, it.error_class)).collect()
}

fn lost_then_applied() -> Vec<(String, String)> {
    [("unknown", "owner_lost"), ("applied", "")]
        .map(|(outcome, class)| (outcome.to_owned(), class.to_owned()))
        .into()
}

/// Holds all rows of a table, so that a statement that writes one of them stops there.
async fn hold(pool: &PgPool, table: &str) -> Transaction<'static, Postgres> {
    let mut holder = pool.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(format!("SELECT FROM {table} FOR UPDATE")))
        .execute(&mut *holder)
        .await
        .unwrap();
    holder
}

/// Waits until a statement has just stopped at what a test holds: it waits for two seconds at most.
async fn stopped(pool: &PgPool) {
    eventually("a statement to wait for a lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'
               AND clock_timestamp() - query_start < '500 ms'",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
}

/// Ends the statements that wait, as the database does when it notices that nobody asks any more.
async fn end_waiting_statements(pool: &PgPool) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .execute(pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_accepted_and_never_claimed_is_applied_once_by_whoever_comes() {
    // Long: nobody is to take over between the accept and the kill.
    let lease = 6.0;
    let flags = real_leases().with("node-lease", format!("{lease}s"));
    let mut pair = Pair::start(flags).await;
    pair.owner.signal(Signal::SIGSTOP);
    let request = create("a");
    let receipt = pair.elsewhere().commit(queued(request.clone())).await;
    assert_eq!(receipt.unwrap().state(), v1::CommitState::Queued);
    pair.other.kill();
    pair.owner.kill();
    let killed = clock(&pair.app.pool()).await;
    assert_eq!(pair.epoch().await, 1, "nobody had claimed it");
    let third = pair.app.spawn_node(EXECUTABLE).await;
    let tenant = pair.tenant.at(third.address());
    assert_eq!(tenant.confirm(request).await.attempt_count, 1);
    let (started, _) = last_start(&pair.app.pool(), "create-a").await;
    assert!(started - killed < lease + ROOM, "{}", started - killed);
    assert_eq!(pair.endpoint.executions().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_after_its_claim_and_before_its_attempt_leaves_no_attempt() {
    let mut pair = Pair::start(real_leases()).await;
    let pool = pair.app.pool();
    pair.owner.signal(Signal::SIGSTOP);
    let request = create("a");
    let accepted = pair.elsewhere().commit(queued(request.clone())).await;
    accepted.unwrap();
    // A claim writes nothing in the inbox, a start does.
    let holder = hold(&pool, "inbox").await;
    let claimed = eventually("the other node to claim the source", async || {
        Some(pair.epoch().await).filter(|epoch| *epoch >= 2)
    })
    .await;
    stopped(&pool).await;
    pair.other.kill();
    pair.owner.kill();
    end_waiting_statements(&pool).await;
    holder.rollback().await.unwrap();
    let third = pair.app.spawn_node(EXECUTABLE).await;
    let tenant = pair.tenant.at(third.address());
    assert_eq!(tenant.confirm(request).await.attempt_count, 1);
    assert!(pair.epoch().await > claimed);
    let attempts = tenant.attempts("create-a").await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].trigger(), AttemptTrigger::Accept);
    assert_eq!(pair.endpoint.arrivals_of(Kind::Commit).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_between_its_attempt_and_the_first_byte_is_followed_by_one_request() {
    let mut pair = Pair::start(real_leases()).await;
    pair.give_time(Duration::from_secs(4)).await;
    pair.endpoint.stop().await;
    let deaf = Deaf::at(pair.endpoint.address()).await;
    let tenant = pair.elsewhere();
    let request = create("a");
    tenant.commit(queued(request.clone())).await.unwrap();
    eventually("the attempt to be on record", async || {
        (tenant.attempts("create-a").await.len() == 1).then_some(())
    })
    .await;
    pair.owner.kill();
    drop(deaf);
    pair.endpoint.restart().await.unwrap();
    assert_eq!(tenant.confirm(request).await.attempt_count, 2);
    assert_eq!(outcomes(&tenant, "create-a").await, lost_then_applied());
    let arrivals = pair.endpoint.arrivals_of(Kind::Commit);
    assert_eq!(arrivals.len(), 2, "the first commit, and this one once");
    assert_eq!(arrivals[1].signature_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_before_the_answer_is_followed_by_the_same_request_and_one_effect() {
    let mut pair = Pair::start(real_leases()).await;
    pair.give_time(Duration::from_secs(4)).await;
    let gate = Gate::closed();
    let answer = Answer::honest().replied_once_open(&gate);
    pair.endpoint.script(Kind::Commit, answer);
    let tenant = pair.elsewhere();
    let request = create("a");
    tenant.commit(queued(request.clone())).await.unwrap();
    pair.endpoint.wait_for_executions(2).await;
    pair.owner.kill();
    let killed = clock(&pair.app.pool()).await;
    let receipt = tenant.confirm(request).await;
    assert_eq!(receipt.attempt_count, 2);
    let (started, _) = last_start(&pair.app.pool(), "create-a").await;
    assert!(started - killed < TAKEOVER, "{}", started - killed);
    assert_eq!(outcomes(&tenant, "create-a").await, lost_then_applied());
    assert_eq!(pair.endpoint.executions().len(), 2);
    let arrivals = pair.endpoint.arrivals_of(Kind::Commit);
    assert_eq!(arrivals.len(), 3);
    let (first, second) = (&arrivals[1], &arrivals[2]);
    assert_eq!(first.webhook_id(), second.webhook_id());
    assert_eq!(first.bytes, second.bytes);
    for header in ["webhook-timestamp", "webhook-signature"] {
        assert_ne!(first.header(header), second.header(header), "{header}");
    }
    assert_eq!(second.signature_error, None);
    gate.open();
}

/// Everything that the record of an outcome writes, counted: all of it or nothing is there.
async fn recorded(pool: &PgPool) -> (i64, i64, i64, i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM commits WHERE client_tx_id = 'create-a' AND state = 'confirmed'),
                (SELECT count(*) FROM deltas WHERE client_tx_id = 'create-a'),
                (SELECT 1 - count(*) FROM inbox WHERE client_tx_id = 'create-a'),
                (SELECT count(*) FROM attempts WHERE client_tx_id = 'create-a' AND outcome = 'applied'),
                (SELECT 1 - pending_count FROM data_sources)",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Kills the owner while the statement that records an answer waits for a row of this table; requests
/// may take so long.
async fn die_while_recording(
    table: &str,
    request_timeout: Duration,
) -> (Pair, Transaction<'static, Postgres>) {
    let mut pair = Pair::start(real_leases()).await;
    pair.give_time(request_timeout).await;
    let gate = Gate::closed();
    let answer = Answer::honest().replied_once_open(&gate);
    pair.endpoint.script(Kind::Commit, answer);
    let accepted = pair.elsewhere().commit(queued(create("a"))).await;
    accepted.unwrap();
    pair.endpoint.wait_for_executions(2).await;
    let pool = pair.app.pool();
    let holder = hold(&pool, table).await;
    gate.open();
    stopped(&pool).await;
    pair.owner.kill();
    (pair, holder)
}

/// Tables that the record of an outcome writes rows of that were there before.
const RECORD: [&str; 5] = ["heads", "commits", "inbox", "attempts", "data_sources"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_record_dies_with_its_node_is_asked_for_again_and_nothing_is_half_written()
{
    for table in RECORD {
        let (pair, holder) = die_while_recording(table, Duration::from_secs(4)).await;
        let pool = pair.app.pool();
        end_waiting_statements(&pool).await;
        assert_eq!(recorded(&pool).await, (0, 0, 0, 0, 0), "{table}");
        holder.rollback().await.unwrap();
        let tenant = pair.elsewhere();
        assert_eq!(tenant.confirm(create("a")).await.attempt_count, 2);
        assert_eq!(recorded(&pool).await, (1, 1, 1, 1, 1), "{table}");
        assert_eq!(outcomes(&tenant, "create-a").await, lost_then_applied());
        assert_eq!(pair.endpoint.executions().len(), 2, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_outlives_its_node_is_whole_and_nothing_is_sent_again() {
    for table in RECORD {
        let (pair, holder) = die_while_recording(table, Duration::from_secs(20)).await;
        let pool = pair.app.pool();
        // Nobody waits for it any more; the database goes on with it all the same.
        holder.rollback().await.unwrap();
        let tenant = pair.elsewhere();
        assert_eq!(tenant.confirm(create("a")).await.attempt_count, 1);
        assert_eq!(recorded(&pool).await, (1, 1, 1, 1, 1), "{table}");
        // The successor has looked at everything once this is through.
        tenant.confirm(create("b")).await;
        assert_eq!(pair.endpoint.arrivals_of(Kind::Commit).len(), 3, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_drains_starts_nothing_more_and_is_replaced() {
    let mut pair = Pair::start(real_leases()).await;
    pair.give_time(Duration::from_secs(8)).await;
    let gate = Gate::closed();
    let answer = Answer::honest().replied_once_open(&gate);
    pair.endpoint.script(Kind::Commit, answer);
    let (tenant, pool) = (pair.elsewhere(), pair.app.pool());
    tenant.commit(queued(create("a"))).await.unwrap();
    pair.endpoint.wait_for_executions(2).await;
    let (_, drained) = last_start(&pool, "create-a").await;
    pair.owner.signal(Signal::SIGTERM);
    eventually("the owner to drain", async || {
        pair.owner.log().contains("draining").then_some(())
    })
    .await;
    tenant.commit(queued(create("b"))).await.unwrap();
    // It is given time: it goes on renewing its lease, and with that looks at what there is to do.
    for _ in 0..2 {
        renewed(&pool, &drained).await;
    }
    pair.owner.kill();
    let killed = clock(&pool).await;
    for id in ["b", "a"] {
        tenant.confirm(create(id)).await;
        let (started, node) = last_start(&pool, &format!("create-{id}")).await;
        assert!(
            started > killed && started - killed < TAKEOVER,
            "{id}: {}",
            started - killed
        );
        assert_ne!(node, drained);
    }
    assert_eq!(outcomes(&tenant, "create-a").await, lost_then_applied());
    assert_eq!(outcomes(&tenant, "create-b").await.len(), 1);
    assert_eq!(pair.endpoint.executions().len(), 3);
    gate.open();
}

/// A port where connections are neither taken nor refused: whoever knocks waits.
pub(super) struct Deaf {
    _listener: tokio::net::TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    pub(super) async fn at(address: std::net::SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        let patience = Duration::from_millis(200);
        // Fills its queue, until one more is left without an answer.
        while let Ok(connected) = timeout(patience, TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 100, "the queue is short");
        }
        Self {
            _listener: listener,
            _waiting: waiting,
        }
    }
}
