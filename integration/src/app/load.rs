//! Clients that write under a seed, whatever happens to the nodes, and the history that comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::tenant::may_succeed;
use super::{Tenant, intent};
use crate::endpoint::{Endpoint, Kind};
use crate::history::{Answer, Arrival, Attempt, Execution, History, Position, Row, Write};

/// Rows that all clients change, by model: most in the Data Source, the rest managed.
const HOT: [(&str, u32); 2] = [("airports", 64), ("notes", 16)];
/// The first rows of each model, to which half of the commits go.
const HOTTEST: u32 = 8;
/// A call of which nothing is heard for so long is made again elsewhere.
const GIVE_UP: Duration = Duration::from_secs(2);
/// A commit that takes longer is not settled at all, however the source backs off meanwhile.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// Clients at work. Each commit has a token of its own, goes to a node at random, and is sent again
/// under the same name, elsewhere, until it is settled.
#[derive(Debug)]
pub struct Load {
    over: Arc<AtomicBool>,
    settled: Arc<AtomicU64>,
    clients: JoinSet<Client>,
    prepared: Vec<Write>,
}

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// What they sent, and were told.
    pub writes: Vec<Write>,
    /// Calls that failed, by how.
    pub failures: BTreeMap<String, u64>,
    /// The longest that a commit took, from its first call to its settled receipt.
    pub longest: Duration,
}

#[derive(Debug)]
struct Client {
    number: u64,
    nodes: Vec<Tenant>,
    random: StdRng,
    moments: Arc<AtomicU64>,
    settled: Arc<AtomicU64>,
    seen: Seen,
}

impl Load {
    /// Creates the hot rows and lets so many clients write to these nodes.
    ///
    /// # Panics
    /// When a commit is refused.
    pub async fn start(nodes: &[Tenant], clients: u64, seed: u64) -> Self {
        let (over, settled) = (Arc::default(), Arc::default());
        let mut load = Self {
            over,
            settled,
            clients: JoinSet::new(),
            prepared: Vec::new(),
        };
        let moments = Arc::new(AtomicU64::new(1));
        let client = |number: u64| Client {
            number,
            nodes: nodes.to_vec(),
            random: StdRng::seed_from_u64(seed.wrapping_add(number)),
            moments: Arc::clone(&moments),
            settled: Arc::clone(&load.settled),
            seen: Seen::default(),
        };
        let mut first = client(0);
        for (model, count) in HOT {
            let token = format!("hot-{model}");
            let ids = (0..count).map(|id| id.to_string());
            let creates = ids.map(|id| intent::create(model, &id, &json!({"token": token})));
            first.write(intent::commit(&token, creates.collect())).await;
        }
        load.prepared = first.seen.writes;
        for number in 1..=clients {
            let (client, over) = (client(number), Arc::clone(&load.over));
            load.clients.spawn(client.run(over));
        }
        load
    }

    /// Commits that are settled so far.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Lets the clients finish what they have begun; what is not settled in a long time has no answer.
    ///
    /// # Panics
    /// When a commit was refused.
    pub async fn finish(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Seen {
            writes: self.prepared,
            ..Seen::default()
        };
        for client in self.clients.join_all().await {
            all.writes.extend(client.seen.writes);
            all.longest = all.longest.max(client.seen.longest);
            for (failure, count) in client.seen.failures {
                *all.failures.entry(failure).or_default() += count;
            }
        }
        all
    }
}

impl Client {
    async fn run(mut self, over: Arc<AtomicBool>) -> Self {
        for count in 0_u64.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let token = format!("c{}-{count}", self.number);
            let request = self.commit(&token);
            self.write(request.clone()).await;
            if self.random.random_ratio(1, 10) {
                let again = self.settle(&request).await.1;
                let write = self.seen.writes.last_mut();
                write.expect("one was just made").answers.extend(again);
            }
        }
        self
    }

    /// Updates one to three hot rows of one model, half of the time the hottest.
    fn commit(&mut self, token: &str) -> v1::CommitRequest {
        let (model, rows) = HOT[usize::from(self.random.random_ratio(1, 5))];
        let count = if self.random.random_ratio(1, 4) { 3 } else { 1 };
        let rows = if self.random.random() { HOTTEST } else { rows };
        let rows: BTreeSet<u32> = (0..count)
            .map(|_| self.random.random_range(0..rows))
            .collect();
        let update = |row: u32| intent::update(model, &row.to_string(), &json!({"token": token}));
        intent::commit(token, rows.into_iter().map(update).collect())
    }

    async fn write(&mut self, request: v1::CommitRequest) {
        let sent = self.moment();
        let begun = Instant::now();
        let (acknowledged, answer) = self.settle(&request).await;
        self.seen.longest = self.seen.longest.max(begun.elapsed());
        self.settled.fetch_add(1, Ordering::Relaxed);
        self.seen.writes.push(Write {
            rows: request
                .operations
                .iter()
                .map(|it| row(&it.model, &it.id))
                .collect(),
            delivered: request.operations.iter().any(|it| it.model == "airports"),
            token: request.client_tx_id,
            sent,
            acknowledged,
            answers: answer.into_iter().collect(),
            ..Write::default()
        });
    }

    /// Sends a commit until it is settled, or for a long time; when it was first acknowledged, and
    /// what it came to.
    async fn settle(&mut self, request: &v1::CommitRequest) -> (Option<u64>, Option<Answer>) {
        let end = Instant::now() + SETTLED_WITHIN;
        let mut acknowledged = None;
        while Instant::now() < end {
            let node = self.random.random_range(0..self.nodes.len());
            let hurried = self.random.random_ratio(1, 4);
            let timeout = if hurried {
                Duration::from_millis(self.random.random_range(5..200))
            } else {
                GIVE_UP
            };
            match self.nodes[node]
                .commit_within(request.clone(), timeout)
                .await
            {
                Ok(receipt) => {
                    acknowledged.get_or_insert_with(|| self.moment());
                    assert!(!receipt.dead, "{receipt:?}");
                    if let Some(answer) = Answer::of(&receipt) {
                        return (acknowledged, Some(answer));
                    }
                }
                // Who gives up early is told so.
                Err(status) if hurried && gave_up(&status) => {}
                Err(status) if may_succeed(&status) => {
                    let failure = format!("{:?}: {}", status.code(), status.message());
                    *self.seen.failures.entry(failure).or_default() += 1;
                }
                Err(status) => panic!("{} was refused: {status:?}", request.client_tx_id),
            }
            let pause = self.random.random_range(10..100);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        (acknowledged, None)
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }
}

fn gave_up(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

fn row(model: &str, id: &str) -> Row {
    Row {
        model: model.to_owned(),
        id: id.to_owned(),
    }
}

impl Answer {
    /// What a receipt says, once it is settled.
    pub fn of(receipt: &v1::Receipt) -> Option<Self> {
        let confirmed = match receipt.state() {
            v1::CommitState::Confirmed => true,
            v1::CommitState::Rejected => false,
            v1::CommitState::Queued | v1::CommitState::Unspecified => return None,
        };
        let changes = receipt.changes.iter();
        Some(Self {
            confirmed,
            expired: receipt.changes_expired,
            changes: changes
                .map(|it| (row(&it.model, &it.id), it.sync_id))
                .collect(),
        })
    }
}

impl History {
    /// What clients saw, together with what the endpoint, the log and the record of attempts have.
    ///
    /// # Panics
    /// When one of them cannot be read.
    pub async fn gather(
        writes: Vec<Write>,
        endpoint: &Endpoint,
        pool: &PgPool,
        tenant: &Tenant,
    ) -> Self {
        Self {
            writes,
            arrivals: arrivals(endpoint),
            executions: executions(endpoint),
            log: log(pool).await,
            attempts: attempts(pool).await,
            ends: ends(tenant).await,
            unsettled: tenant
                .pending()
                .await
                .into_iter()
                .map(|it| it.client_tx_id)
                .collect(),
            ..Self::default()
        }
    }
}

fn arrivals(endpoint: &Endpoint) -> Vec<Arrival> {
    let arrivals = endpoint.arrivals_of(Kind::Commit).into_iter();
    arrivals
        .map(|it| Arrival {
            token: it.client_tx_id().to_owned(),
            webhook_id: it.webhook_id().to_owned(),
            signed: it.signature_error.is_none(),
            body: it.bytes,
            ..Arrival::default()
        })
        .collect()
}

fn executions(endpoint: &Endpoint) -> Vec<Execution> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let executions = endpoint.executions().into_iter();
    executions
        .map(|it| Execution {
            token: it.client_tx_id,
            rows: it
                .operations
                .iter()
                .map(|operation| row(&text(&operation["model"]), &text(&operation["id"])))
                .collect(),
        })
        .collect()
}

async fn log(pool: &PgPool) -> Vec<Position> {
    let log: Vec<(i64, String, String, String, String, String)> = sqlx::query_as(
        "SELECT sync_id, coalesce(client_tx_id, ''),
                CASE WHEN client_tx_id IS NULL THEN coalesce(transaction_id, '') ELSE '' END,
                model, row_id, coalesce(row::json->>'token', '')
         FROM deltas ORDER BY sync_id",
    )
    .fetch_all(pool)
    .await
    .expect("the log can be read");
    log.into_iter()
        .map(|(sync_id, token, event, model, id, value)| Position {
            sync_id,
            token,
            event,
            row: row(&model, &id),
            value,
        })
        .collect()
}

async fn attempts(pool: &PgPool) -> Vec<Attempt> {
    let attempts: Vec<(String, String, i32, bool, Option<String>)> = sqlx::query_as(
        "SELECT client_tx_id, replace(commit_id::text, '-', ''), number, deadline > started_at,
                outcome
         FROM attempts ORDER BY started_at",
    )
    .fetch_all(pool)
    .await
    .expect("the attempts can be read");
    attempts
        .into_iter()
        .map(|(token, webhook_id, number, begun, outcome)| Attempt {
            token,
            webhook_id,
            number,
            begun,
            outcome,
            ..Attempt::default()
        })
        .collect()
}

/// The rows, as a front-end reads them.
async fn ends(tenant: &Tenant) -> BTreeMap<Row, String> {
    let mut ends = BTreeMap::new();
    for (model, _) in HOT {
        let page = tenant.list(model).await.expect("the rows can be read");
        for read in page.rows_json {
            let read: serde_json::Value = serde_json::from_slice(&read).expect("rows are JSON");
            let text = |field: &str| read[field].as_str().unwrap_or_default().to_owned();
            ends.insert(row(model, &text("id")), text("token"));
        }
    }
    ends
}
