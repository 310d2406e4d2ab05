//! Several nodes over one database: sources change hands, and no node harms another's work.

mod crashes;
mod faults;
mod late_copies;
mod restarts;

use std::time::{Duration, Instant};

use integration::app::{Flags, Source, Tenant, TestApp, TestNode, eventually, intent};
use integration::endpoint::{Answer, Endpoint, Gate, Kind};
use nix::sys::signal::Signal;
use proto::v1::{AttemptTrigger, CommitRequest, CommitState};
use serde_json::json;
use time::OffsetDateTime;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

fn create(id: &str) -> CommitRequest {
    let create = intent::create("airports", id, &json!({"text": "one"}));
    intent::commit(&format!("create-{id}"), vec![create])
}

/// Two processes, the first of which owns the tenant's source.
struct Pair {
    owner: TestNode,
    other: TestNode,
    tenant: Tenant,
    endpoint: Endpoint,
    app: TestApp,
}

impl Pair {
    async fn start(flags: Flags) -> Self {
        let app = TestApp::without_nodes(flags).await;
        let owner = app.spawn_node(EXECUTABLE).await;
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = Tenant::create(owner.address(), "acme").await;
        endpoint.set_keys(&[tenant.key()]);
        tenant.prepare(&Source::at(&endpoint)).await;
        tenant.confirm(create("first")).await;
        let other = app.spawn_node(EXECUTABLE).await;
        Self {
            owner,
            other,
            tenant,
            endpoint,
            app,
        }
    }

    fn elsewhere(&self) -> Tenant {
        self.tenant.at(self.other.address())
    }

    /// Gives requests so long.
    async fn give_time(&self, request_timeout: Duration) {
        let source = Source {
            request_timeout,
            ..Source::at(&self.endpoint)
        };
        self.tenant.update_source(&source).await;
    }

    /// Owners so far, the present one included.
    async fn epoch(&self) -> i64 {
        sqlx::query_scalar("SELECT epoch FROM data_sources")
            .fetch_one(&self.app.pool())
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_taken_over_within_ten_seconds_of_its_owners_crash() {
    // The leases of production.
    let flags = Flags::default()
        .with("node-lease", "3s")
        .with("node-renewal", "1s");
    let mut pair = Pair::start(flags).await;
    let tenant = pair.elsewhere();
    let epoch = pair.epoch().await;
    pair.owner.kill();
    let begun = Instant::now();
    let receipt = tenant.confirm(create("second")).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(receipt.attempt_count, 1);
    assert!(pair.epoch().await > epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_taken_over_long_before_its_lease_ends_when_its_owner_stops() {
    let flags = Flags::default()
        .with("node-lease", "8s")
        .with("node-renewal", "1s");
    let mut pair = Pair::start(flags).await;
    let tenant = pair.elsewhere();
    assert!(pair.owner.stop().await.success());
    let begun = Instant::now();
    tenant.confirm(create("second")).await;
    // The last renewal was a second ago at most.
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_owner_that_wakes_up_finds_itself_fenced_and_harms_nothing() {
    let pair = Pair::start(Flags::default()).await;
    pair.give_time(Duration::from_secs(4)).await;
    let gate = Gate::closed();
    pair.endpoint
        .script(Kind::Commit, Answer::honest().replied_once_open(&gate));
    let tenant = pair.elsewhere();
    let mut request = create("a");
    request.set_wait(proto::v1::Wait::Queued);
    tenant.commit(request.clone()).await.unwrap();
    pair.endpoint.wait_for_executions(2).await;
    pair.owner.signal(Signal::SIGSTOP);
    let receipt = tenant.confirm(request.clone()).await;
    let update = intent::update("airports", "a", &json!({"text": "two"}));
    tenant
        .confirm(intent::commit("update-a", vec![update]))
        .await;
    gate.open();
    pair.owner.signal(Signal::SIGCONT);
    eventually("the frozen node to notice", async || {
        pair.owner.log().contains("fenced").then_some(())
    })
    .await;
    // It serves on, and what it missed is as the other node left it.
    assert_eq!(pair.tenant.commit(request).await.unwrap(), receipt);
    pair.tenant.confirm(create("b")).await;
    assert_eq!(
        pair.tenant.row("airports", "a").await.unwrap()["text"],
        "two"
    );
    assert_eq!(pair.endpoint.executions().len(), 4);
    let attempts = tenant.attempts("create-a").await;
    assert_eq!(attempts.len(), 2);
    assert_eq!(
        (
            attempts[0].outcome.as_str(),
            attempts[0].error_class.as_str()
        ),
        ("unknown", "owner_lost")
    );
    assert_eq!(
        (attempts[1].outcome.as_str(), attempts[1].trigger()),
        ("applied", AttemptTrigger::Takeover)
    );
    // Rows that a commit sent twice may have left old are read again, which nobody's commit tells.
    let commits = "SELECT client_tx_id FROM deltas WHERE client_tx_id IS NOT NULL ORDER BY sync_id";
    let told: Vec<String> = sqlx::query_scalar(commits)
        .fetch_all(&pair.app.pool())
        .await
        .unwrap();
    assert_eq!(told, ["create-first", "create-a", "update-a", "create-b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_resends_an_open_attempt_only_after_its_deadline() {
    let mut pair = Pair::start(Flags::default()).await;
    let request_timeout = Duration::from_secs(4);
    pair.give_time(request_timeout).await;
    let gate = Gate::closed();
    pair.endpoint
        .script(Kind::Commit, Answer::honest().once_open(&gate));
    let tenant = pair.elsewhere();
    let mut request = create("a");
    request.set_wait(proto::v1::Wait::Queued);
    tenant.commit(request.clone()).await.unwrap();
    pair.endpoint.wait_for_arrivals(Kind::Commit, 2).await;
    pair.owner.kill();
    // Another row is not held up.
    tenant.confirm(create("b")).await;
    let receipt = tenant.confirm(request).await;
    assert_eq!(
        (receipt.state(), receipt.attempt_count),
        (CommitState::Confirmed, 2)
    );
    let arrivals = pair.endpoint.arrivals_of(Kind::Commit);
    let again = arrivals.last().unwrap();
    assert_eq!(again.client_tx_id(), "create-a");
    // By the clock that deadlines go by.
    let started: Vec<OffsetDateTime> = sqlx::query_scalar(
        "SELECT started_at FROM attempts WHERE client_tx_id = 'create-a' ORDER BY started_at",
    )
    .fetch_all(&pair.app.pool())
    .await
    .unwrap();
    let pause = started[1] - started[0];
    assert!(pause >= request_timeout, "resent after {pause}");
    gate.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_of_a_fenced_node_leaves_its_successors_attempt_alone() {
    let pair = Pair::start(Flags::default()).await;
    let (first, second) = (Gate::closed(), Gate::closed());
    for gate in [&first, &second] {
        pair.endpoint
            .script(Kind::Commit, Answer::honest().replied_once_open(gate));
    }
    pair.give_time(Duration::from_secs(6)).await;
    let tenant = pair.elsewhere();
    let mut request = create("a");
    request.set_wait(proto::v1::Wait::Queued);
    tenant.commit(request.clone()).await.unwrap();
    pair.endpoint.wait_for_executions(2).await;
    pair.owner.signal(Signal::SIGSTOP);
    // The successor's attempt is under way when the frozen node finds out what became of its own.
    pair.endpoint.wait_for_arrivals(Kind::Commit, 3).await;
    let before = tenant.status().await.attempts_by_outcome;
    first.open();
    pair.owner.signal(Signal::SIGCONT);
    eventually("the frozen node to notice", async || {
        let log = pair.owner.log();
        log.contains("fenced: an answer came after").then_some(())
    })
    .await;
    assert_eq!(tenant.status().await.attempts_by_outcome, before);
    second.open();
    assert_eq!(tenant.confirm(request).await.attempt_count, 2);
    let outcomes: Vec<_> = tenant
        .attempts("create-a")
        .await
        .into_iter()
        .map(|it| (it.outcome, it.error_class))
        .collect();
    let wanted = [("unknown", "owner_lost"), ("applied", "")];
    assert_eq!(outcomes, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(pair.endpoint.executions().len(), 2);
}
