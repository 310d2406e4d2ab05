//! Three nodes that are killed, frozen and stopped at random, under load, for a minute.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use axum::http::StatusCode;
use integration::app::load::{Load, Seen};
use integration::app::{Flags, Source, Tenant, TestApp, TestNode};
use integration::endpoint::{Answer, Endpoint, Kind, Reply};
use integration::history::{Fault, History};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::EXECUTABLE;

/// For how long nodes are harmed.
const RUN: Duration = Duration::from_mins(1);

/// Longer than a lease and a request together: who sleeps through it wakes up to a successor.
const LONGEST_FREEZE: u64 = 5_000;

/// To repeat a run that failed, build with the seed that it printed.
const SEED: Option<&str> = option_env!("FAULTS_SEED");

/// What was done to the nodes.
#[derive(Debug, Default)]
struct Harm {
    kills: u32,
    freezes: u32,
    stops: u32,
}

impl AddAssign for Harm {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.freezes += other.freezes;
        self.stops += other.stops;
    }
}

/// Harms one node again and again; it serves in the end.
async fn harm(mut node: TestNode, mut random: StdRng) -> (TestNode, Harm) {
    let mut harm = Harm::default();
    let end = Instant::now() + RUN;
    // Whatever the dice say, each of them happens.
    let mut first = [0, 2, 0, 2].into_iter();
    while Instant::now() < end {
        pause(&mut random, 1_000..6_000).await;
        let dice = random.random_range(0..5);
        match first.next().unwrap_or(dice) {
            0 | 1 => {
                harm.kills += 1;
                node.kill();
                pause(&mut random, 0..1_500).await;
                node.restart().await;
            }
            2 | 3 => {
                harm.freezes += 1;
                node.signal(Signal::SIGSTOP);
                pause(&mut random, 100..LONGEST_FREEZE).await;
                node.signal(Signal::SIGCONT);
            }
            _ => {
                harm.stops += 1;
                let status = node.stop().await;
                assert!(status.success(), "{status}: {}", node.log());
                node.restart().await;
            }
        }
    }
    (node, harm)
}

/// The fault itself lasts as long as the dice say.
async fn pause(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

/// Now and then the endpoint answers a few requests badly, some of which it has applied. Bad answers
/// that nobody came for are forgotten: a source that meets nothing else is left alone ever longer.
async fn disturb(endpoint: &Endpoint, mut random: StdRng) {
    let end = Instant::now() + RUN;
    while Instant::now() < end {
        pause(&mut random, 200..1_500).await;
        for _ in 0..random.random_range(1..6) {
            let answer = match random.random_range(0..5) {
                0 => Answer::status(StatusCode::SERVICE_UNAVAILABLE),
                1 => Answer::applied_but(Reply::Reset),
                2 => Answer::applied_but(Reply::Silence),
                3 => Answer::unapplied(Reply::Close),
                _ => Answer::applied_but(Reply::Fixed(StatusCode::OK, vec![], b"{}".to_vec())),
            };
            endpoint.script(Kind::Commit, answer);
        }
        pause(&mut random, 300..1_500).await;
        endpoint.be_honest(Kind::Commit);
    }
}

/// What the run came to, for a person.
fn report(seed: u64, harm: &Harm, seen: &Seen, history: &History) -> String {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in &history.attempts {
        let outcome = attempt.outcome.as_deref().unwrap_or("open");
        *outcomes.entry(outcome).or_default() += 1;
    }
    format!(
        "seed {seed}: {harm:?}; {} commits, {} arrivals, {} executions, attempts {outcomes:?}, \
         failed calls {:?}, longest commit {:?}",
        seen.writes.len(),
        history.arrivals.len(),
        history.executions.len(),
        seen.failures,
        seen.longest,
    )
}

async fn nodes(app: &TestApp) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(app.spawn_node(EXECUTABLE).await);
    }
    nodes
}

/// Owners that the source has had.
async fn epoch(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT epoch FROM data_sources")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

async fn lost_owners(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM attempts WHERE error_class = 'owner_lost'")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_of_kills_and_freezes_on_three_nodes_loses_doubles_and_reorders_nothing() {
    let seed = SEED.map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    // Short leases: else the source would be nobody's most of the time.
    let flags = Flags::default()
        .with("node-lease", "1500ms")
        .with("node-renewal", "200ms");
    let app = TestApp::without_nodes(flags).await;
    let nodes = nodes(&app).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(nodes[0].address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        retry_delays: vec![Duration::from_millis(20); 30],
        // Not soon: that the machine is busy is none of the faults.
        request_timeout: Duration::from_secs(2),
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    let doors: Vec<_> = nodes.iter().map(|it| tenant.at(it.address())).collect();
    let load = Load::start(&doors, 24, seed).await;

    let mut harmed = JoinSet::new();
    for (number, node) in (1..).zip(nodes) {
        harmed.spawn(harm(node, StdRng::seed_from_u64(seed ^ (number << 32))));
    }
    disturb(&endpoint, StdRng::seed_from_u64(!seed)).await;
    let mut harm = Harm::default();
    let mut nodes = Vec::new();
    for (node, done) in harmed.join_all().await {
        harm += done;
        nodes.push(node);
    }
    let seen = load.finish().await;
    let history = History::gather(seen.writes.clone(), &endpoint, &app.pool(), &tenant).await;
    let report = report(seed, &harm, &seen, &history);
    println!("{report}");
    let faults: Vec<_> = history.faults().iter().map(Fault::to_string).collect();
    assert!(faults.is_empty(), "{report}\n{}", faults.join("\n"));
    // It was a bad minute: else this shows nothing.
    let (owners, lost) = (epoch(&app).await, lost_owners(&app).await);
    assert!(owners > 3 && lost > 0, "{owners} owners, {lost}: {report}");
    assert!(harm.kills > 3 && harm.freezes > 3, "{report}");
    assert!(seen.writes.len() > 50, "{report}");
}
