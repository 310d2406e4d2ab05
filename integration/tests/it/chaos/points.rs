//! A node that dies, or freezes, at each named point on a write's way: the write has its one effect.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::StreamExt;
use integration::app::{Flags, Source, Tenant, TestApp, TestNode, eventually, intent};
use integration::endpoint::{self, Endpoint, Kind, Row};
use integration::history::{self, Answer, Fault, History, Write};
use nix::sys::signal::Signal;
use proto::v1;
use serde_json::json;

use super::EXECUTABLE;

/// Cases at a time.
const AT_ONCE: usize = 4;

/// Points that a write of either kind passes.
const EVERY: [&str; 8] = [
    "lease.renewed:3",
    "accept.received",
    "accept.admitted",
    "round.accept",
    "append.accept",
    "appended.accept",
    "told.accept",
    "accept.decided",
];

/// Points that only a write to a Data Source passes, or a change that is made there.
const DELIVERED: [&str; 27] = [
    "round.control",
    "append.control",
    "appended.control",
    "told.control",
    "courier.claimed",
    "courier.read:2",
    "attempt.chosen",
    "attempt.equipped",
    "round.start",
    "append.start",
    "appended.start",
    "told.start",
    "attempt.started",
    "attempt.answered",
    "attempt.judged",
    "round.settle",
    "append.settle",
    "appended.settle",
    "told.settle",
    "attempt.settled",
    "courier.moved",
    "receipt.read",
    "feed.polled",
    "round.take_events",
    "append.take_events",
    "appended.take_events",
    "told.take_events",
];

/// Points on the way of a commit whose first attempt is recorded with its accept, since the node knows
/// from one before it how its source stands. All others go by whether the node owns the source yet.
const DEPARTED: [&str; 3] = ["appended.accept:2", "told.accept:2", "attempt.chosen:2"];

/// Points where it is dangerous to wake up after others have gone on.
const DANGEROUS: [&str; 10] = [
    "append.accept",
    "appended.accept",
    "appended.accept:2",
    "attempt.equipped",
    "append.start",
    "attempt.started",
    "attempt.answered",
    "append.settle",
    "feed.polled",
    "append.take_events",
];

#[derive(Clone, Copy, Debug)]
struct Case {
    point: &'static str,
    delivered: bool,
    /// Whether the client comes back to the node that died, which was started again.
    same: bool,
    freezes: bool,
}

impl Case {
    fn model(self) -> &'static str {
        if self.delivered { "airports" } else { "notes" }
    }

    /// Whether the write is the second that the node delivers.
    fn departs(self) -> bool {
        self.point.ends_with(":2") && !self.point.starts_with("courier.")
    }

    /// Whether only an attempt that has a start of its own passes the point.
    fn starts(self) -> bool {
        self.point.strip_suffix(".start").is_some()
    }
}

/// One organization, and a node that is going to die.
struct Scene {
    app: TestApp,
    endpoint: Endpoint,
    tenant: Tenant,
    node: TestNode,
}

impl Scene {
    async fn set(case: Case) -> Self {
        let flags = Flags::default()
            .with("node-lease", "800ms")
            .with("node-renewal", "100ms");
        let mut app = TestApp::start_with(flags).await;
        let endpoint = Endpoint::start("").await.unwrap();
        let tenant = app.organization("acme").await;
        endpoint.set_keys(&[tenant.key()]);
        tenant.prepare(&Source::at(&endpoint)).await;
        let freezes = if case.freezes { ":freeze" } else { "" };
        let armed = (
            coordinator::broken::CRASHPOINT,
            format!("{}{freezes}", case.point),
        );
        let node = app.spawn_node_in(EXECUTABLE, vec![armed]).await;
        // Its source is another's until it serves.
        app.stop().await;
        Self {
            app,
            endpoint,
            tenant,
            node,
        }
    }

    async fn frozen(&self, case: Case) {
        let stat = format!("/proc/{}/stat", self.node.pid());
        let what = format!("the node to freeze, {case:?}");
        eventually(&what, async || {
            std::fs::read_to_string(&stat)
                .unwrap()
                .contains(") T ")
                .then_some(())
        })
        .await;
    }
}

fn request(case: Case, token: &str, id: &str) -> v1::CommitRequest {
    let create = intent::create(case.model(), id, &json!({"token": token}));
    intent::commit(token, vec![create])
}

/// Commits until the node is at the point; the receipt, if one came. A call that takes too long on a busy
/// machine may end before it was accepted; and only who asks again has a receipt read.
async fn reach(
    scene: &mut Scene,
    case: Case,
    (here, request): (&Tenant, &v1::CommitRequest),
) -> Option<v1::Receipt> {
    let reached = Cell::new(false);
    let calls = async {
        let mut receipt = None;
        loop {
            let call = here.commit_within(request.clone(), Duration::from_secs(2));
            match tokio::time::timeout(Duration::from_secs(3), call).await {
                Ok(Ok(came)) => {
                    receipt = Some(came);
                    if case.point != "receipt.read" {
                        return receipt;
                    }
                }
                _ if reached.get() => return receipt,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let node = async {
        if case.freezes {
            scene.frozen(case).await;
        } else {
            let status = scene.node.ended().await;
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(9),
                "{case:?}: {}",
                scene.node.log()
            );
        }
        reached.set(true);
    };
    tokio::join!(calls, node).0
}

/// What is wrong after a case, if anything is.
async fn play(case: Case) -> Vec<String> {
    let mut scene = Scene::set(case).await;
    let request = request(case, "write", "a");
    let here = scene.tenant.at(scene.node.address());
    let mut before = None;
    if case.departs() {
        before = Some(here.confirm(self::request(case, "before", "c")).await);
    }
    if case.starts() {
        // The second attempt has a start of its own, whether or not the first had one.
        let busy = endpoint::Answer::status(StatusCode::SERVICE_UNAVAILABLE);
        scene.endpoint.script(Kind::Commit, busy);
    }
    let row = Row::from_iter([("token".to_owned(), "outside".into())]);
    scene.endpoint.write_outside("airports", "b", row);
    let early = reach(&mut scene, case, (&here, &request)).await;
    let mut other = None;
    let there = if case.same {
        scene.node.disarm();
        scene.node.restart().await;
        here.connected_anew()
    } else {
        let node = scene.app.spawn_node(EXECUTABLE).await;
        let there = scene.tenant.at(node.address());
        other = Some(node);
        there
    };
    let receipt = there.confirm(request.clone()).await;
    // The change that was made outside comes in, too.
    eventually("the event to be taken in", async || {
        let feed = there.status().await.feed?;
        (feed.taken_count == 1).then_some(())
    })
    .await;
    if case.freezes {
        scene.node.signal(Signal::SIGCONT);
        let again = here.connected_anew().confirm(request.clone()).await;
        assert_eq!(again, receipt, "{case:?}");
    }
    let history = judged(&scene, case, &there, (before, [early, Some(receipt)]));
    let faults = history.await.faults();
    drop(other);
    let faults = faults.iter().map(Fault::to_string);
    faults.map(|it| format!("{case:?}: {it}")).collect()
}

async fn judged(
    scene: &Scene,
    case: Case,
    tenant: &Tenant,
    (before, receipts): (Option<v1::Receipt>, [Option<v1::Receipt>; 2]),
) -> History {
    let write = |token: &str, id: &str| Write {
        token: token.to_owned(),
        rows: BTreeSet::from([history::Row {
            model: case.model().to_owned(),
            id: id.to_owned(),
        }]),
        delivered: case.delivered,
        sent: 1,
        acknowledged: Some(2),
        ..Write::default()
    };
    let mut writes = vec![Write {
        answers: receipts.iter().flatten().filter_map(Answer::of).collect(),
        ..write("write", "a")
    }];
    writes.extend(before.map(|receipt| Write {
        answers: Answer::of(&receipt).into_iter().collect(),
        ..write("before", "c")
    }));
    History::gather(writes, &scene.endpoint, &scene.app.pool(), tenant).await
}

async fn all(cases: impl Iterator<Item = Case>) {
    let playing = futures_util::stream::iter(cases.map(play));
    let faults: Vec<_> = playing.buffer_unordered(AT_ONCE).collect().await;
    let faults = faults.concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every point, for each backing that passes it.
fn points() -> impl Iterator<Item = (&'static str, bool)> {
    let managed = EVERY.into_iter().map(|it| (it, false));
    let delivered = EVERY.into_iter().chain(DELIVERED).chain(DEPARTED);
    let delivered = delivered.map(|it| (it, true));
    managed.chain(delivered)
}

fn case(point: &'static str, delivered: bool, same: bool) -> Case {
    Case {
        point,
        delivered,
        same,
        freezes: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_at_any_point_of_a_write_costs_it_nothing() {
    // Every other client comes back to the same node.
    let turns = points().zip([true, false].into_iter().cycle());
    all(turns.map(|((point, delivered), same)| case(point, delivered, same))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_at_any_point_of_a_write_costs_it_nothing_elsewhere() {
    let turns = points().zip([false, true].into_iter().cycle());
    all(turns.map(|((point, delivered), same)| case(point, delivered, same))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sleeps_at_a_dangerous_point_and_wakes_up_later_harms_nothing() {
    let cases = DANGEROUS.into_iter().map(|point| Case {
        freezes: true,
        ..case(point, true, false)
    });
    all(cases).await;
}
