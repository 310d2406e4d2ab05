//! Subscribers: each keeps what it saw and its cursor, leaves every few seconds, and resumes anywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use proto::v1::subscribe_response::Frame;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::actors::value;
use super::next;
use super::world::{MANAGED, World};
use crate::app::follower::{from_cursor, from_oldest};
use crate::history::{Position, Reader, Row};

/// How many subscribers each organization has.
const SUBSCRIBERS: [u64; 2] = [6, 2];

/// One that sees nothing more for so long, once it was told where the logs end, never gets there.
const STANDSTILL: Duration = Duration::from_secs(20);

/// Subscribers that follow until they are told where the logs end.
#[derive(Debug)]
pub(super) struct Subscribers {
    tasks: JoinSet<(usize, Reader)>,
    ends: watch::Sender<Option<Vec<i64>>>,
}

struct Subscriber {
    world: Arc<World>,
    organization: usize,
    reader: Reader,
    cursor: Option<String>,
    /// It has seen everything up to this.
    reached: i64,
    random: StdRng,
}

pub(super) fn start(world: &Arc<World>, seed: u64) -> Subscribers {
    let (mut tasks, ends) = (JoinSet::new(), watch::Sender::new(None));
    for (organization, count) in SUBSCRIBERS.into_iter().enumerate() {
        for number in 0..count {
            // Some follow a part of it.
            let models = match number {
                4 => BTreeSet::from([MANAGED.to_owned()]),
                5 => BTreeSet::from(["good".to_owned(), "slow".to_owned()]),
                _ => BTreeSet::new(),
            };
            let subscriber = Subscriber {
                world: Arc::clone(world),
                organization,
                reader: Reader {
                    name: format!("subscriber {number}"),
                    models,
                    changes: Vec::new(),
                    beginnings: BTreeSet::new(),
                },
                cursor: None,
                reached: 0,
                random: StdRng::seed_from_u64(seed ^ (2 << 40) ^ (number << 8)),
            };
            tasks.spawn(subscriber.run(ends.subscribe()));
        }
    }
    Subscribers { tasks, ends }
}

/// What each of them saw, by organization, once it had time to see everything.
pub(super) async fn finish(world: &World, subscribers: Subscribers) -> Vec<(usize, Reader)> {
    let mut heads = Vec::new();
    for organization in &world.organizations {
        let head: i64 = sqlx::query_scalar("SELECT last_sync_id FROM heads WHERE org_id = $1")
            .bind(organization.name)
            .fetch_one(&world.pool)
            .await
            .expect("nothing is harmed any more");
        heads.push(head);
    }
    subscribers.ends.send_replace(Some(heads));
    subscribers.tasks.join_all().await
}

impl Subscriber {
    async fn run(mut self, mut ends: watch::Receiver<Option<Vec<i64>>>) -> (usize, Reader) {
        let mut moved = Instant::now();
        loop {
            let end = ends
                .borrow_and_update()
                .as_ref()
                .map(|it| it[self.organization]);
            // One that never gets there has not seen everything, which is judged.
            if end.is_some_and(|end| self.reached >= end || moved.elapsed() > STANDSTILL) {
                break;
            }
            let before = self.reached;
            let stay = Duration::from_millis(self.random.random_range(1_000..5_000));
            tokio::select! {
                () = self.follow(Instant::now() + stay, end) => {}
                _ = ends.changed() => {}
            }
            if end.is_none() || self.reached != before {
                moved = Instant::now();
            }
            let pause = self.random.random_range(0..200);
            sleep(Duration::from_millis(pause)).await;
        }
        (self.organization, self.reader)
    }

    /// One stream. What was seen is kept before the cursor is.
    async fn follow(&mut self, until: Instant, end: Option<i64>) {
        let doors = &self.world.organizations[self.organization].doors;
        let door = &doors[self.random.random_range(0..doors.len())];
        if self.cursor.is_none() {
            self.reader.beginnings.insert(self.reader.changes.len());
        }
        let request = self.cursor.as_deref().map_or_else(from_oldest, from_cursor);
        let request = v1::SubscribeRequest {
            models: self.reader.models.iter().cloned().collect(),
            ..request
        };
        let opened = timeout(Duration::from_secs(3), door.log().subscribe(request)).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => return self.expired(),
            Ok(Err(_)) | Err(_) => return,
        };
        let mut stream = stream.into_inner();
        while Instant::now() < until && end.is_none_or(|end| self.reached < end) {
            let Some(frame) = next(&mut stream).await.and_then(|it| it.frame) else {
                return;
            };
            match frame {
                Frame::Change(change) => {
                    self.reached = change.sync_id;
                    let cursor = change.cursor.clone();
                    self.reader.changes.push(position(change));
                    self.cursor = Some(cursor);
                }
                Frame::Heartbeat(beat) => {
                    self.reached = beat.caught_up_to;
                    self.cursor = Some(beat.cursor);
                }
                Frame::Reset(_) => return self.expired(),
                Frame::SnapshotRow(_) | Frame::SnapshotEnd(_) => return,
            }
        }
    }

    /// The retention has passed over what follows: it begins at the oldest change.
    fn expired(&mut self) {
        self.world.reset();
        self.cursor = None;
    }
}

fn position(change: v1::Change) -> Position {
    let outside = change.client_tx_id.is_empty();
    Position {
        sync_id: change.sync_id,
        value: value(&change.row_json),
        row: Row {
            model: change.model,
            id: change.id,
        },
        event: if outside {
            change.transaction_id
        } else {
            String::new()
        },
        token: change.client_tx_id,
    }
}
