//! However commits, disconnects, killed nodes and retention fall together: every reader ends with
//! exactly the log, but for what it was told, rightly, to begin anew behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use integration::app::follower::{from_cursor, from_oldest};
use integration::app::{Flags, Follower, Source, Tenant, TestApp, TestNode, intent, reason};
use integration::endpoint::Endpoint;
use integration::log_check::{Joined, Seen, whole};
use proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status};

use super::{note, table};

/// To repeat a run that failed, build with the seed that it printed.
const SEED: Option<&str> = option_env!("LOG_SEED");
const ROUNDS: u64 = 4;

/// How long each round is disturbed.
const DISTURBED: Duration = Duration::from_secs(5);

/// What a reader keeps, as a customer's would: changes first, then the cursor behind them.
struct Reader {
    nodes: Vec<Tenant>,
    random: StdRng,
    /// Known to be wrong: the cursor first.
    cursor_first: bool,
    cursor: Option<String>,
    /// The position behind which the cursor resumes: a reader that died has one more.
    stands_at: i64,
    spans: Vec<Joined>,
    /// Below this nothing is dropped yet.
    floor: Arc<AtomicI64>,
}

impl Reader {
    fn new(nodes: &[Tenant], seed: u64, floor: &Arc<AtomicI64>) -> Self {
        Self {
            nodes: nodes.to_vec(),
            random: StdRng::seed_from_u64(seed),
            cursor_first: false,
            cursor: None,
            stands_at: 0,
            spans: Vec::new(),
            floor: Arc::clone(floor),
        }
    }

    fn reached(&self) -> i64 {
        let span = self.spans.last();
        span.map_or(0, |span| {
            span.seen.last().map_or(span.after, |last| last.position)
        })
    }

    /// Connects to one node or another, reads for a while, and goes; until it has all that was told.
    async fn run(mut self, told: watch::Receiver<i64>) -> Vec<Joined> {
        while self.reached() < *told.borrow() {
            let turn = Instant::now() + Duration::from_millis(self.random.random_range(5..400));
            if let Err(status) = self.turn(turn).await {
                self.ended(&status);
                sleep(Duration::from_millis(10)).await;
            }
            if *told.borrow() == i64::MAX && self.random.random_ratio(1, 8) {
                // Away for so long that the log may be gone meanwhile.
                sleep(Duration::from_millis(self.random.random_range(200..900))).await;
            }
        }
        self.spans
    }

    async fn turn(&mut self, leave: Instant) -> Result<(), Status> {
        let node = self.random.random_range(0..self.nodes.len());
        let mut follower = self.begin(&self.nodes[node].connected_anew()).await?;
        loop {
            let Ok(next) = timeout_at(leave, follower.try_change()).await else {
                return Ok(());
            };
            let dies = self.random.random_ratio(1, 100);
            if !self.take(&next?, dies) {
                return Ok(());
            }
        }
    }

    async fn begin(&mut self, node: &Tenant) -> Result<Follower, Status> {
        let request = self.cursor.as_deref().map_or_else(from_oldest, from_cursor);
        let follower = Follower::start(node, request).await?;
        if self.cursor.is_none() {
            self.spans.push(Joined {
                after: follower.position(),
                seen: Vec::new(),
                reset: None,
            });
            self.cursor = Some(follower.cursor().to_owned());
            self.stands_at = follower.position();
        }
        Ok(follower)
    }

    /// Keeps a change and its cursor, unless it dies between the two: then `false`.
    fn take(&mut self, change: &v1::Change, dies: bool) -> bool {
        let cursor = Some(change.cursor.clone());
        if self.cursor_first {
            (self.cursor, self.stands_at) = (cursor, change.sync_id);
            return !dies && self.keep(Seen::of(change));
        }
        self.keep(Seen::of(change));
        if !dies {
            (self.cursor, self.stands_at) = (cursor, change.sync_id);
        }
        !dies
    }

    /// What it has already, because it died before it kept the cursor, is the same as it was.
    fn keep(&mut self, seen: Seen) -> bool {
        let span = self.spans.last_mut().expect("it has begun");
        match span.seen.last() {
            Some(last) if seen.position <= last.position => {
                let back = usize::try_from(last.position - seen.position).unwrap();
                let had = &span.seen[span.seen.len() - 1 - back];
                assert_eq!(had, &seen, "it changed");
            }
            _ => span.seen.push(seen),
        }
        true
    }

    /// A node that is gone is tried again; a position that is gone is a new beginning.
    fn ended(&mut self, status: &Status) {
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => {}
            Code::OutOfRange => {
                assert_eq!(reason(status), "cursor_expired");
                let span = self.spans.last_mut().expect("it has begun");
                span.reset = Some((self.stands_at, self.floor.load(Ordering::SeqCst)));
                self.cursor = None;
            }
            _ => panic!("a reader was told {status:?}"),
        }
    }
}

/// Changes rows that everybody changes, and makes and removes some of its own.
async fn write(
    nodes: Vec<Tenant>,
    writer: u64,
    seed: u64,
    until: Instant,
    written: Arc<AtomicUsize>,
) {
    let mut random = StdRng::seed_from_u64(seed ^ (writer << 20));
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let name = format!("w{writer}-{number}");
        let text = json!({"text": format!("{name} {}", "x".repeat(random.random_range(0..2_000)))});
        let own = format!("{writer}-{}", number / 2);
        let own = match number % 2 {
            0 => intent::create("notes", &own, &text),
            _ => intent::delete("notes", &own),
        };
        let shared = format!("r{}", random.random_range(0..6));
        let shared = intent::update("notes", &shared, &text);
        let commit = intent::commit(&name, vec![own, shared]);
        let mut node = random.random_range(0..nodes.len());
        // Nobody knows what became of a commit whose node died: it is sent again, under its name.
        while let Err(status) = nodes[node].commit(commit.clone()).await {
            let again = matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted
            );
            assert!(again, "{name} was refused: {status:?}");
            node = (node + 1) % nodes.len();
            sleep(Duration::from_millis(10)).await;
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// Kills nodes and starts them again, some at the same time.
async fn kill(mut node: TestNode, seed: u64, until: Instant) -> (TestNode, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    loop {
        let pause = Duration::from_millis(random.random_range(300..1_500));
        if Instant::now() + pause >= until {
            return (node, kills);
        }
        sleep(pause).await;
        node.kill();
        kills += 1;
        sleep(Duration::from_millis(random.random_range(0..200))).await;
        node.restart().await;
    }
}

/// Lets the retention pass over what it likes; says what was there before it did.
async fn expire(app: &TestApp, floor: &AtomicI64, seed: u64, until: Instant) -> Vec<Seen> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kept: Vec<Seen> = Vec::new();
    while Instant::now() < until {
        sleep(Duration::from_millis(random.random_range(100..700))).await;
        let log = table(app).await;
        let Some(last) = log.last().map(|last| last.position) else {
            continue;
        };
        let oldest = kept.last().map_or(0, |last| last.position);
        // Now and then nothing is left.
        let up_to = if random.random_ratio(1, 5) {
            last
        } else {
            random.random_range(oldest..=last)
        };
        kept.extend(log.into_iter().filter(|seen| seen.position <= up_to));
        floor.store(up_to + 1, Ordering::SeqCst);
        app.expire_log(up_to).await;
    }
    kept
}

/// One round: how much of everything happened.
async fn round(seed: u64) -> [usize; 4] {
    let app = TestApp::without_nodes(Flags::default()).await;
    let executable = env!("CARGO_BIN_EXE_demo");
    let first = app.spawn_node(executable).await;
    let second = app.spawn_node(executable).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(first.address(), "acme").await;
    tenant.prepare(&Source::at(&endpoint)).await;
    let nodes = [tenant.clone(), tenant.at(second.address())];
    let rows = (0..6).map(|row| intent::create("notes", &format!("r{row}"), &json!({})));
    tenant.confirm(intent::commit("rows", rows.collect())).await;

    let until = Instant::now() + DISTURBED;
    let (floor, written) = (Arc::new(AtomicI64::new(1)), Arc::default());
    let (tell, told) = watch::channel(i64::MAX);
    let mut readers = JoinSet::new();
    for reader in 0..5 {
        let reader = Reader::new(&nodes, seed ^ (reader << 40), &floor);
        readers.spawn(reader.run(told.clone()));
    }
    let mut writers = JoinSet::new();
    for writer in 0..3 {
        let written = Arc::clone(&written);
        writers.spawn(write(nodes.to_vec(), writer, seed, until, written));
    }
    let (mut log, (first, killed), (second, killed_too)) = tokio::join!(
        expire(&app, &floor, seed ^ 1, until),
        kill(first, seed ^ 2, until),
        kill(second, seed ^ 3, until),
    );
    writers.join_all().await;
    let dropped = log.last().map_or(0, |last| last.position);
    let rest = table(&app).await.into_iter();
    log.extend(rest.filter(|seen| seen.position > dropped));
    tell.send_replace(log.last().unwrap().position);
    let joined = timeout(Duration::from_mins(1), readers.join_all()).await;
    let joined = joined.expect("readers come to the log's end");
    for spans in &joined {
        whole(spans, &log).unwrap();
    }
    drop((first, second));
    let resets = joined.iter().map(|spans| spans.len() - 1).sum();
    let written = written.load(Ordering::Relaxed);
    [written, killed + killed_too, log.len(), resets]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_a_reader_ends_with_the_log_or_was_told_to_begin_anew() {
    let seed: u64 = SEED.map_or_else(rand::random, |seed| seed.parse().unwrap());
    let mut happened = [0; 4];
    for round_seed in (0..ROUNDS).map(|number| seed ^ (number << 56)) {
        println!("LOG_SEED {seed}");
        let round = round(round_seed).await;
        println!("commits, kills, changes, resets: {round:?}");
        for (sum, one) in happened.iter_mut().zip(round) {
            *sum += one;
        }
    }
    assert!(happened.iter().all(|count| *count > 0), "{happened:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_keeps_its_cursor_before_the_change_is_caught() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for number in 0..5 {
        tenant.confirm(note(&format!("n{number}"), "text")).await;
    }
    let log = table(&app).await;
    let floor = Arc::new(AtomicI64::new(1));
    for (cursor_first, caught) in [(false, false), (true, true)] {
        let mut reader = Reader::new(std::slice::from_ref(&tenant), 0, &floor);
        reader.cursor_first = cursor_first;
        let mut follower = reader.begin(&tenant).await.unwrap();
        while reader.reached() < 5 {
            let change = follower.change().await;
            if !reader.take(
                &change,
                change.sync_id == 3 && reader.spans[0].seen.len() == 2,
            ) {
                // It died, and is there again.
                follower = reader.begin(&tenant).await.unwrap();
            }
        }
        let judged = whole(&reader.spans, &log);
        assert_eq!(judged.is_err(), caught, "{judged:?}");
        if let Err(caught) = judged {
            assert!(caught.contains("position 4 came where 3"), "{caught}");
        }
    }
}
