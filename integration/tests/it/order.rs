//! Promise 4: commits on one row take effect in the order of acceptance; others do not wait.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use axum::http::StatusCode;
use integration::app::{Source, Tenant, TestApp, intent};
use integration::endpoint::{Answer, Endpoint, Execution, Gate, Kind, Reply};
use proto::v1;
use serde_json::json;
use tokio::task::JoinSet;

use crate::flow::drained;

const ROWS: usize = 4;

/// One to three of a few rows.
fn rows_of_a_commit() -> HashSet<usize> {
    let count = if rand::random_ratio(1, 4) { 3 } else { 1 };
    (0..count).map(|_| rand::random_range(0..ROWS)).collect()
}

/// Scripts what a bad day brings; honest in the end.
fn be_flaky(endpoint: &Endpoint, requests: usize) {
    for _ in 0..requests {
        let answer = match rand::random_range(0..25) {
            0 => Answer::status(StatusCode::SERVICE_UNAVAILABLE),
            1 => Answer::status(StatusCode::TOO_MANY_REQUESTS),
            2 => Answer::applied_but(Reply::Reset),
            3 => Answer::unapplied(Reply::Close),
            4 => Answer::applied_but(Reply::Fixed(StatusCode::OK, Vec::new(), b"{}".to_vec())),
            _ => Answer::honest(),
        };
        endpoint.script(Kind::Commit, answer);
    }
}

async fn submit(tenants: &[Tenant], commits: usize) {
    let mut calls = JoinSet::new();
    for number in 0..commits {
        let tenant = tenants[number % tenants.len()].clone();
        calls.spawn(async move {
            let updates = rows_of_a_commit().into_iter().map(|row| {
                intent::update("airports", &row.to_string(), &json!({"number": number}))
            });
            let commit = intent::queued(&format!("tx-{number}"), updates.collect());
            tenant.commit(commit).await.unwrap();
        });
    }
    calls.join_all().await;
}

/// By row, the commits that touched it, in the order of their execution.
fn histories(executions: &[Execution]) -> BTreeMap<String, Vec<String>> {
    let mut histories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for execution in executions {
        for operation in &execution.operations {
            let row = operation["id"].as_str().unwrap().to_owned();
            histories
                .entry(row)
                .or_default()
                .push(execution.client_tx_id.clone());
        }
    }
    histories
}

fn at(stamp: Option<prost_types::Timestamp>) -> Duration {
    let stamp = stamp.unwrap();
    let seconds = Duration::from_secs(stamp.seconds.unsigned_abs());
    seconds + Duration::from_nanos(stamp.nanos.unsigned_abs().into())
}

/// From when to when an attempt was under way at least.
fn span(attempt: &v1::Attempt) -> (Duration, Duration) {
    let begun = at(attempt.start_time);
    let took = attempt.duration.unwrap();
    (begun, begun + Duration::try_from(took).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_changed_in_the_order_of_acceptance_whatever_the_endpoint_does() {
    let commits = 200;
    let mut app = TestApp::start().await;
    let second = app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant
        .update_source(&Source {
            retry_delays: vec![Duration::from_millis(5); 30],
            ..Source::at(&endpoint)
        })
        .await;
    let creates = (0..ROWS).map(|row| intent::create("airports", &row.to_string(), &json!({})));
    tenant
        .confirm(intent::commit("rows", creates.collect()))
        .await;
    endpoint.hold(Kind::Commit);
    let clients: Vec<_> = (0..8)
        .map(|number| {
            if number % 2 == 0 {
                tenant.connected_anew()
            } else {
                tenant.at(&second)
            }
        })
        .collect();
    submit(&clients, commits).await;
    let pending = tenant.pending().await;
    assert_eq!(pending.len(), commits);
    let sequences: HashMap<_, _> = pending
        .into_iter()
        .map(|commit| (commit.client_tx_id, commit.sequence))
        .collect();
    be_flaky(&endpoint, 500);
    endpoint.release(Kind::Commit);
    drained(&tenant).await;
    for name in sequences.keys() {
        settled(&tenant, name).await;
    }
    let executions = endpoint.executions().split_off(1);
    assert_eq!(executions.len(), commits);
    for (row, history) in histories(&executions) {
        assert!(
            history.is_sorted_by_key(|name| sequences[name]),
            "row {row}: {history:?}"
        );
    }
    one_at_a_time(&tenant, &executions, &sequences).await;
}

async fn settled(tenant: &Tenant, name: &str) -> v1::Receipt {
    integration::app::eventually(&format!("{name} to be confirmed"), async || {
        let receipt = tenant.receipt(name).await.unwrap();
        (receipt.state() == v1::CommitState::Confirmed).then_some(receipt)
    })
    .await
}

/// No two attempts overlap if they are of one commit, or of commits that share a row.
async fn one_at_a_time(
    tenant: &Tenant,
    executions: &[Execution],
    sequences: &HashMap<String, i64>,
) {
    let mut attempts: HashMap<String, Vec<v1::Attempt>> = HashMap::new();
    for attempt in tenant.attempts("").await {
        attempts
            .entry(attempt.client_tx_id.clone())
            .or_default()
            .push(attempt);
    }
    let retried = attempts.values().filter(|it| it.len() > 1).count();
    assert!(retried > 10, "the endpoint was bad enough: {retried}");
    for mut history in histories(executions).into_values() {
        history.sort_by_key(|name| sequences[name]);
        let spans: Vec<_> = history
            .iter()
            .flat_map(|name| attempts[name].iter().map(span))
            .collect();
        assert!(
            spans.is_sorted_by(|before, after| before.1 <= after.0),
            "{spans:?}"
        );
    }
}

#[tokio::test]
async fn a_held_commit_holds_its_own_row_and_no_other() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let gate = Gate::closed();
    endpoint.script(Kind::Commit, Answer::honest().once_open(&gate));
    let create = |id: &str| vec![intent::create("airports", id, &json!({"text": "first"}))];
    let update = |id: &str| vec![intent::update("airports", id, &json!({"text": "second"}))];
    tenant
        .commit(intent::queued("held", create("a")))
        .await
        .unwrap();
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    tenant
        .commit(intent::queued("behind", update("a")))
        .await
        .unwrap();
    let both = [create("b"), update("a")].concat();
    tenant.commit(intent::queued("spans", both)).await.unwrap();
    tenant
        .commit(intent::queued("behind both", update("b")))
        .await
        .unwrap();
    let free = tenant.confirm(intent::commit("free", create("c"))).await;
    assert_eq!(free.attempt_count, 1);
    let arrived: Vec<_> = endpoint
        .arrivals_of(Kind::Commit)
        .iter()
        .map(|it| it.client_tx_id().to_owned())
        .collect();
    assert_eq!(arrived, ["held", "free"]);
    gate.open();
    for name in ["behind both", "spans", "behind", "held"] {
        settled(&tenant, name).await;
    }
    let names: Vec<_> = endpoint
        .executions()
        .into_iter()
        .map(|it| it.client_tx_id)
        .collect();
    assert_eq!(names, ["free", "held", "behind", "spans", "behind both"]);
}

#[tokio::test]
async fn managed_writes_of_one_row_take_effect_in_the_order_of_their_answers() {
    let mut app = TestApp::start().await;
    let second = app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let create = intent::create("notes", "1", &json!({"number": 0}));
    tenant.confirm(intent::commit("create", vec![create])).await;
    let mut calls = JoinSet::new();
    for number in 1..=100 {
        let tenant = if number % 2 == 0 {
            tenant.clone()
        } else {
            tenant.at(&second)
        };
        calls.spawn(async move {
            let update = intent::update("notes", "1", &json!({"number": number}));
            let receipt = tenant
                .confirm(intent::commit(&format!("tx-{number}"), vec![update]))
                .await;
            (receipt.changes[0].sync_id, number)
        });
    }
    let mut history = calls.join_all().await;
    history.sort_unstable();
    let sync_ids: Vec<i64> = history.iter().map(|(sync_id, _)| *sync_id).collect();
    assert_eq!(sync_ids, (2..=101).collect::<Vec<_>>());
    let (_, last) = history.pop().unwrap();
    assert_eq!(tenant.row("notes", "1").await.unwrap()["number"], last);
}
