//! The flusher: takes every command of an organization that waits, decides them together and
//! appends them in one statement.
//!
//! While one statement is in flight the next batch gathers, as in a write-ahead log: no timer, no
//! delay when idle. When enough of it is there, it is read and decided before that statement has
//! ended (`ahead`). A flusher runs while its organization has commands and ends when there are
//! none. It runs in a task of its own, so that a dropped call cannot interrupt database work.

mod ahead;
mod flusher;
mod memory;
mod pace;
mod several;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::admit::Schema;
use crate::broken::{self, Control};
use crate::courier::departures::{Departures, Desks};
use crate::decide::{Append, Command, Reply, Touched};
use crate::domain::OrganizationId;
use crate::refusal::Class;
use crate::schemas::SchemaCache;
use crate::store::append::Statement;
use crate::store::round::Round;
use crate::store::{Error, Store};
use crate::telemetry::metrics::Metrics;
use crate::wake::Wake;

use self::flusher::Flusher;
use self::several::Sharing;

/// Commands in one batch at most.
const BATCH: usize = 512;
/// Bytes of intents in one batch, beyond which it takes no further command.
const BATCH_WEIGHT: usize = 8 << 20;
/// Commits that may wait for an organization's flusher; more are turned away.
const WAITING: usize = 16_384;

/// The flushers of the organizations that have commands now.
#[derive(Clone, Debug)]
pub struct Flushers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    schemas: Arc<SchemaCache>,
    wake: Arc<Wake>,
    metrics: Metrics,
    tasks: TaskTracker,
    /// Where commits depart from.
    desks: Desks,
    /// Statements that serve several organizations.
    sharing: Sharing,
    /// An organization is here while its flusher runs; the commands that wait for it.
    waiting: Mutex<HashMap<OrganizationId, Queue>>,
}

/// What waits for a flusher.
#[derive(Debug, Default)]
struct Queue {
    submitted: Submitted,
    /// There is one more.
    arrived: Arc<Notify>,
}

/// Commands, and where the reply to each goes.
#[derive(Debug, Default)]
struct Submitted {
    commands: Vec<Command>,
    /// See [`Command::weight`].
    weights: Vec<usize>,
    answers: Vec<Answer>,
}

/// Where a command's reply goes.
type Answer = oneshot::Sender<Result<Reply, Error>>;

impl Submitted {
    fn one(command: Command, answer: Answer) -> Self {
        Self {
            weights: vec![command.weight()],
            commands: vec![command],
            answers: vec![answer],
        }
    }

    fn append(&mut self, mut others: Self) {
        self.commands.append(&mut others.commands);
        self.weights.append(&mut others.weights);
        self.answers.append(&mut others.answers);
    }

    /// Keeps the first so many, and gives the others away.
    fn split_off(&mut self, at: usize) -> Self {
        Self {
            commands: self.commands.split_off(at),
            weights: self.weights.split_off(at),
            answers: self.answers.split_off(at),
        }
    }

    /// Takes the first so many.
    fn take(&mut self, count: usize) -> Self {
        let rest = self.split_off(count);
        std::mem::replace(self, rest)
    }

    /// Takes what fits in a batch, and is among the first so many; one at least.
    fn first(&mut self, among: usize) -> Self {
        let room = Self::default().room_for(&self.weights[..among]);
        self.take(room.max(1))
    }

    /// How many of these, by their weights, fit in the batch that this is.
    fn room_for(&self, weights: &[usize]) -> usize {
        let mut weight: usize = self.weights.iter().sum();
        let room = BATCH.saturating_sub(self.weights.len());
        let fit = weights.iter().take(room).take_while(|one| {
            weight += **one;
            weight <= BATCH_WEIGHT
        });
        fit.count()
    }
}

/// A caller that went away does not need its answer.
fn answer(answers: &mut Vec<Answer>, replies: impl IntoIterator<Item = Result<Reply, Error>>) {
    for (answer, reply) in answers.drain(..).zip(replies) {
        drop(answer.send(reply));
    }
}

impl Flushers {
    /// Flushers that append to this store, wake whom it concerns, and run on this tracker.
    pub fn new(
        store: Store,
        schemas: Arc<SchemaCache>,
        wake: Arc<Wake>,
        metrics: Metrics,
        tasks: TaskTracker,
    ) -> Self {
        let waiting = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                store,
                schemas,
                wake,
                metrics,
                tasks,
                desks: Desks::default(),
                sharing: Sharing::default(),
                waiting,
            }),
        }
    }

    /// The desks of the sources that this node owns.
    pub(crate) fn desks(&self) -> &Desks {
        &self.shared.desks
    }

    /// Decides a command and makes it durable. Dropping the call changes nothing about that.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`]: too many commits wait already; nothing happened.
    /// [`Error::Unavailable`]: the database stayed away; whether the command took effect is for the
    /// ledger to say. Others: nothing happened.
    pub async fn submit(
        &self,
        organization: &OrganizationId,
        command: Command,
    ) -> Result<Reply, Error> {
        let (reply, answer) = oneshot::channel();
        let name = command.name();
        if broken::is(Control::RequestFuture) && matches!(command, Command::Accept(_)) {
            return Box::pin(self.shared.decide_here(organization, command)).await;
        }
        self.enqueue(organization, Submitted::one(command, reply))?;
        let span = tracing::debug_span!("append", command = name);
        let answer = answer.instrument(span).await;
        answer.unwrap_or(Err(Error::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    fn enqueue(&self, organization: &OrganizationId, submitted: Submitted) -> Result<(), Error> {
        let mut waiting = self.shared.lock();
        if let Some(queue) = waiting.get_mut(organization) {
            let many = queue.submitted.commands.len() >= WAITING;
            if many && matches!(submitted.commands[..], [Command::Accept(_)]) {
                return Err(Error::Exhausted);
            }
            queue.submitted.append(submitted);
            queue.arrived.notify_one();
            return Ok(());
        }
        let queue = Queue {
            submitted,
            arrived: Arc::default(),
        };
        waiting.insert(organization.clone(), queue);
        let (shared, organization) = (Arc::clone(&self.shared), organization.clone());
        self.shared
            .tasks
            .spawn(async move { shared.run(organization).await });
        Ok(())
    }
}

impl Shared {
    async fn run(self: &Arc<Self>, organization: OrganizationId) {
        let mut flusher = Flusher::new(self, organization);
        while let Some((batch, decided)) = flusher.next() {
            // A panic costs its batch the answers, and nobody else anything.
            let flushed = AssertUnwindSafe(flusher.flush(batch, decided)).catch_unwind();
            if flushed.await.is_err() {
                flusher.forget();
                let organization = &flusher.organization;
                tracing::error!(%organization, "a batch was ended by a panic");
            }
        }
    }

    /// The next batch; `None` ends the flusher, under the lock, so that no command is left behind.
    fn take(&self, organization: &OrganizationId) -> Option<Submitted> {
        let mut waiting = self.lock();
        let queue = &mut waiting.get_mut(organization)?.submitted;
        let count = queue.commands.len();
        if count == 0 {
            waiting.remove(organization);
            return None;
        }
        Some(queue.first(count))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrganizationId, Queue>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides one command on the caller's future: reads in a transaction, appends without one.
    async fn decide_here(
        self: &Arc<Self>,
        organization: &OrganizationId,
        command: Command,
    ) -> Result<Reply, Error> {
        let (answer, mut reply) = oneshot::channel();
        let mut batch = Submitted::one(command, answer);
        let touched = touched(&batch.commands);
        let mut flusher = Flusher::new(self, organization.clone());
        while !flusher.attempt(&mut batch, &touched, true).await? {}
        reply.try_recv().unwrap_or(Err(Error::Exhausted))
    }

    /// Appends when nobody waits for it any more.
    fn append_later(
        &self,
        organization: &OrganizationId,
        round: Round,
        (statement, append, now, departures): (Statement, Append, OffsetDateTime, Departures),
    ) {
        let (organization, wake) = (organization.clone(), Arc::clone(&self.wake));
        self.tasks.spawn(async move {
            if let Ok((Some(appended), _)) = round.append(statement).await {
                let told = departures.leave(&append);
                let written = (now, appended.log_epoch);
                wake.appended(&organization, &append, (written, &told));
            }
        });
    }

    /// The schema that sync groups go by.
    async fn schema(
        &self,
        organization: &OrganizationId,
        version: i32,
    ) -> Result<Option<Arc<Schema>>, Error> {
        if version == 0 {
            return Ok(None);
        }
        match self.schemas.of_version(organization, version).await {
            Ok(schema) => Ok(Some(schema)),
            Err(refusal) if refusal.class == Class::Unavailable => {
                Err(Error::Unavailable(sqlx::Error::PoolTimedOut))
            }
            Err(refusal) => {
                tracing::error!(%organization, version, reason = refusal.reason, "no schema to find sync groups by");
                Ok(None)
            }
        }
    }
}

fn touched(commands: &[Command]) -> Touched {
    let mut touched = Touched::default();
    for command in commands {
        command.touch(&mut touched);
    }
    touched.dedup();
    touched
}
