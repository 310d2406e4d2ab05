//! Clients: each commit has a token of its own and is sent to a node at random, again and elsewhere
//! under the same name while nobody knows what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use super::world::{CLASSES, MANAGED, World};
use crate::app::{intent, reason};
use crate::history::{Answer, Replay, Row, Write};

/// How many clients each organization has.
const CLIENTS: [u64; 2] = [10, 2];
/// Calls for one commit at most, before its fate is left for the end.
const CALLS: u32 = 20;
/// A call of which nothing is heard for so long is made again elsewhere.
const GIVE_UP: Duration = Duration::from_secs(2);

/// What a client did, and was told.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its organization's place.
    pub(super) organization: usize,
    pub(super) writes: Vec<Write>,
    /// What errors said.
    pub(super) texts: Vec<String>,
    /// Commits of which it did not know what became of them after a call.
    pub(super) unknown: u64,
}

struct Client {
    world: Arc<World>,
    number: u64,
    random: StdRng,
    seen: Seen,
    sent: Vec<v1::CommitRequest>,
}

pub(super) fn start(world: &Arc<World>, rate: u64, seed: u64) -> JoinSet<Seen> {
    let mut clients = JoinSet::new();
    let all: u64 = CLIENTS.iter().sum();
    let pause = Duration::from_secs(all) / u32::try_from(rate).unwrap_or(u32::MAX);
    for (organization, count) in CLIENTS.into_iter().enumerate() {
        for number in 0..count {
            let client = Client {
                world: Arc::clone(world),
                number,
                random: StdRng::seed_from_u64(seed ^ (number << 8) ^ organization as u64),
                seen: Seen {
                    organization,
                    writes: Vec::new(),
                    texts: Vec::new(),
                    unknown: 0,
                },
                sent: Vec::new(),
            };
            clients.spawn(client.run(pause));
        }
    }
    clients
}

impl Client {
    async fn run(mut self, pause: Duration) -> Seen {
        let mut due = Instant::now() + pause.mul_f64(self.random.random());
        for count in 0_u64.. {
            sleep_until(due).await;
            if self.world.over.is_cancelled() {
                break;
            }
            // Whoever was held up does not make up for it.
            due = (due + pause).max(Instant::now());
            match self.random.random_range(0..100) {
                0..10 if !self.sent.is_empty() => self.replay(false).await,
                10..12 if !self.sent.is_empty() => self.replay(true).await,
                _ => self.write(count).await,
            }
        }
        self.seen
    }

    async fn write(&mut self, count: u64) {
        let organization = &self.world.organizations[self.seen.organization];
        let token = format!("{}~c{}-{count}", organization.name, self.number);
        let model = self.model();
        let rows = self.rows();
        let read_at = if self.random.random_ratio(1, 5) {
            self.look(model, &rows[0]).await
        } else {
            None
        };
        let update = |id: &String| intent::update(model, id, &json!({"token": token}));
        let mut operations: Vec<_> = rows.iter().map(update).collect();
        operations[0].read_at = read_at;
        let mut request = intent::commit(&token, operations);
        if self.random.random() {
            request.set_wait(v1::Wait::Queued);
        }
        let row = |id: &String| Row {
            model: model.to_owned(),
            id: id.clone(),
        };
        let write = Write {
            token,
            rows: rows.iter().map(row).collect(),
            delivered: model != MANAGED,
            sent: self.world.moment(),
            guard: read_at.map(|at| (row(&rows[0]), at)),
            ..Write::default()
        };
        let write = self.send(&request, write).await;
        self.seen.writes.push(write);
        self.sent.push(request);
    }

    fn model(&mut self) -> &'static str {
        if self.random.random() {
            return MANAGED;
        }
        let sinks = &self.world.organizations[self.seen.organization].sinks;
        let place = match self.random.random_range(0..20) {
            0..9 => 0,
            9..14 => 1,
            14..18 => 2,
            _ => 3,
        };
        sinks[place % sinks.len()].model
    }

    /// Half of the commits go to a few rows; one in four changes several.
    fn rows(&mut self) -> Vec<String> {
        let class = match self.random.random_range(0..10) {
            0..5 => 0,
            5..9 => 1,
            _ => 2,
        };
        let (class, among) = CLASSES[class];
        let count = if self.random.random_ratio(1, 4) {
            self.random.random_range(2..=4)
        } else {
            1
        };
        let numbers: BTreeSet<u32> = (0..count)
            .map(|_| self.random.random_range(0..among))
            .collect();
        numbers.iter().map(|it| format!("{class}{it}")).collect()
    }

    fn door(&mut self) -> crate::app::Tenant {
        let doors = &self.world.organizations[self.seen.organization].doors;
        doors[self.random.random_range(0..doors.len())].clone()
    }

    /// A position that a commit may rest on.
    async fn look(&mut self, model: &str, id: &str) -> Option<i64> {
        let door = self.door();
        let loaded = timeout(GIVE_UP, door.load(model, id)).await;
        loaded.ok()?.ok().map(|it| it.read_at)
    }

    async fn send(&mut self, request: &v1::CommitRequest, mut write: Write) -> Write {
        for call in 0..CALLS {
            let within = if self.random.random_ratio(3, 10) {
                Duration::from_millis(self.random.random_range(1..15))
            } else {
                GIVE_UP
            };
            let door = self.door();
            let told = timeout(GIVE_UP * 2, self.call(&door, request.clone(), within)).await;
            match told {
                Ok(Ok(receipt)) => {
                    write.acknowledged = Some(self.world.moment());
                    write.answers.extend(Answer::of(&receipt));
                    return write;
                }
                Ok(Err(status)) if is_definite(&status) => {
                    self.note(&status);
                    // An earlier copy may have been accepted: then the end tells.
                    write.refused = (call == 0).then(|| reason(&status));
                    return write;
                }
                Ok(Err(status)) => self.note(&status),
                Err(_) => {}
            }
            if call == 0 {
                self.seen.unknown += 1;
            }
            if self.world.over.is_cancelled() {
                break;
            }
            let pause = self.random.random_range(10..100);
            sleep(Duration::from_millis(pause)).await;
        }
        write
    }

    /// One in three sends its commits on a stream that it shares with others.
    async fn call(
        &self,
        door: &crate::app::Tenant,
        request: v1::CommitRequest,
        within: Duration,
    ) -> Result<v1::Receipt, Status> {
        if !self.number.is_multiple_of(3) {
            return door.commit_within(request, within).await;
        }
        let line = &self.world.organizations[self.seen.organization].line;
        line.commit(door, request, (within, GIVE_UP)).await
    }

    /// Sends an acknowledged commit once more, long after, with its intent or another one.
    async fn replay(&mut self, changed: bool) {
        let place = self.random.random_range(0..self.sent.len());
        if self.seen.writes[place].acknowledged.is_none() {
            return;
        }
        let mut request = self.sent[place].clone();
        request.set_wait(v1::Wait::Queued);
        if changed {
            request.operations[0].input_json = b"{\"token\":\"changed\"}".to_vec().into();
        }
        let told = self.door().commit_within(request, GIVE_UP).await;
        let write = &mut self.seen.writes[place];
        match told {
            Ok(receipt) => {
                if !changed {
                    write.answers.extend(Answer::of(&receipt));
                }
                write.replays.push(Replay {
                    changed,
                    accepted: true,
                });
            }
            Err(status) if is_definite(&status) => write.replays.push(Replay {
                changed,
                accepted: false,
            }),
            Err(status) => self.note(&status),
        }
    }

    fn note(&mut self, status: &Status) {
        let text = format!("{:?}: {}", status.code(), status.message());
        self.seen.texts.push(text);
    }
}

/// Nothing happened, and nothing will.
pub(super) fn is_definite(status: &Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}
