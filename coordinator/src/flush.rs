//! The flusher: takes every command of an organization that waits, decides them together and
//! appends them in one statement.
//!
//! While one statement is in flight the next batch gathers, as in a write-ahead log: no timer, no
//! delay when idle. A flusher runs while its organization has commands and ends when there are
//! none. It runs in a task of its own, so that a dropped call cannot interrupt database work.

mod pace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::admit::Schema;
use crate::broken::{self, Control, crash_point};
use crate::decide::{self, Append, Command, Reply, State, Touched};
use crate::domain::OrganizationId;
use crate::refusal::Class;
use crate::schemas::SchemaCache;
use crate::store::round::Round;
use crate::store::{Error, Store};
use crate::telemetry::metrics::Metrics;
use crate::wake::Wake;

/// Commands in one batch at most.
const BATCH: usize = 512;
/// Bytes of intents in one batch, beyond which it takes no further command.
const BATCH_WEIGHT: usize = 8 << 20;
/// Commits that may wait for an organization's flusher; more are turned away.
const WAITING: usize = 16_384;
/// Lost races on a hot head after which the batch takes the head's lock first.
const PATIENCE: u32 = 4;

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
    /// An organization is here while its flusher runs; the commands that wait for it.
    waiting: Mutex<HashMap<OrganizationId, Vec<Submitted>>>,
}

#[derive(Debug)]
struct Submitted {
    command: Command,
    /// See [`Command::weight`].
    weight: usize,
    reply: oneshot::Sender<Result<Reply, Error>>,
}

impl Submitted {
    fn new(command: Command, reply: oneshot::Sender<Result<Reply, Error>>) -> Self {
        let weight = command.weight();
        Self {
            command,
            weight,
            reply,
        }
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
                waiting,
            }),
        }
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
        self.enqueue(organization, Submitted::new(command, reply))?;
        let span = tracing::debug_span!("append", command = name);
        let answer = answer.instrument(span).await;
        answer.unwrap_or(Err(Error::Unavailable(sqlx::Error::WorkerCrashed)))
    }

    fn enqueue(&self, organization: &OrganizationId, one: Submitted) -> Result<(), Error> {
        let mut waiting = self
            .shared
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = waiting.get_mut(organization) {
            if queue.len() >= WAITING && matches!(one.command, Command::Accept(_)) {
                return Err(Error::Exhausted);
            }
            queue.push(one);
            return Ok(());
        }
        waiting.insert(organization.clone(), vec![one]);
        let (shared, organization) = (Arc::clone(&self.shared), organization.clone());
        self.shared
            .tasks
            .spawn(async move { shared.run(organization).await });
        Ok(())
    }
}

impl Shared {
    async fn run(&self, organization: OrganizationId) {
        while let Some(batch) = self.take(&organization) {
            // A panic costs its batch the answers, and nobody else anything.
            let flushed = AssertUnwindSafe(self.flush(&organization, batch)).catch_unwind();
            if flushed.await.is_err() {
                tracing::error!(%organization, "a batch was ended by a panic");
            }
        }
    }

    /// The next batch; `None` ends the flusher, under the lock, so that no command is left behind.
    fn take(&self, organization: &OrganizationId) -> Option<Vec<Submitted>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = waiting.get_mut(organization)?;
        if queue.is_empty() {
            waiting.remove(organization);
            return None;
        }
        let mut weight = 0;
        let fit = queue.iter().take(BATCH).take_while(|one| {
            weight += one.weight;
            weight <= BATCH_WEIGHT
        });
        let count = fit.count().max(1);
        let rest = queue.split_off(count);
        Some(std::mem::replace(queue, rest))
    }

    /// One bad command never fails its neighbours: on an error that is not the database's absence,
    /// each is decided on its own.
    async fn flush(&self, organization: &OrganizationId, batch: Vec<Submitted>) {
        let (commands, replies): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|one| (one.command, one.reply))
            .unzip();
        match self.decide(organization, &commands).await {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    answer_to(reply, Ok(answer));
                }
            }
            Err(Error::TooSlow(cause)) if commands.len() > 1 => {
                tracing::warn!(%organization, error = %cause, "a batch is cut in two");
                let mut first: Vec<_> = commands
                    .into_iter()
                    .zip(replies)
                    .map(|(command, reply)| Submitted::new(command, reply))
                    .collect();
                let second = first.split_off(first.len() / 2);
                Box::pin(self.flush(organization, first)).await;
                Box::pin(self.flush(organization, second)).await;
            }
            Err(error) if commands.len() == 1 || !error.is_about_the_statement() => {
                tracing::warn!(%organization, %error, cause = ?error, "a batch was not appended");
                let mut error = Some(error);
                for reply in replies {
                    let one = error
                        .take()
                        .unwrap_or(Error::Unavailable(sqlx::Error::PoolTimedOut));
                    answer_to(reply, Err(one));
                }
            }
            Err(error) => {
                tracing::warn!(%organization, %error, cause = ?error, "a batch is run one by one");
                for (command, reply) in commands.into_iter().zip(replies) {
                    let answer = self
                        .decide(organization, std::slice::from_ref(&command))
                        .await;
                    answer_to(reply, answer.map(|mut answers| answers.remove(0)));
                }
            }
        }
    }

    /// Reads, decides and appends until the head stood still for it.
    async fn decide(
        &self,
        organization: &OrganizationId,
        commands: &[Command],
    ) -> Result<Vec<Reply>, Error> {
        let mut touched = Touched::default();
        for command in commands {
            command.touch(&mut touched);
        }
        touched.dedup();
        let mut pace = pace::Pace::default();
        let mut lost = 0;
        loop {
            match self
                .attempt(organization, commands, &touched, lost >= PATIENCE)
                .await
            {
                Ok(Some(replies)) => return Ok(replies),
                Ok(None) | Err(Error::Conflict(_) | Error::Exists(_)) if lost < 2 * PATIENCE => {
                    lost += 1;
                    self.metrics.lost_race();
                }
                Ok(None) => return Err(Error::Exhausted),
                Err(error @ (Error::Unavailable(_) | Error::Exhausted)) => {
                    pace.wait_or(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One round; `None` when another node moved the head in between.
    async fn attempt(
        &self,
        organization: &OrganizationId,
        commands: &[Command],
        touched: &Touched,
        locked: bool,
    ) -> Result<Option<Vec<Reply>>, Error> {
        crash_point!("round", named(commands));
        let mut round = if locked {
            self.store.locked_round(organization).await?
        } else {
            self.store.round().await?
        };
        let Some(mut state) = round.read(organization, touched).await? else {
            let row = organization.to_string();
            return Err(Error::Corrupt {
                table: "heads",
                column: "org_id",
                row,
            });
        };
        if !touched.groups.is_empty() {
            state.schema = self.schema(organization, state.head.schema_version).await?;
        }
        let (replies, append) = decide::decide(organization, &mut state, commands);
        if append.is_empty() {
            return Ok(Some(replies));
        }
        let begun = Instant::now();
        crash_point!("append", named(commands));
        if locked && broken::is(Control::RequestFuture) {
            // Its transaction ends as one does that nobody commits.
            drop(round);
            round = self.store.round().await?;
        }
        let accepts = matches!(commands, [Command::Accept(_), ..]);
        if accepts && broken::is(Control::AcknowledgeEarly) {
            return Ok(Some(self.append_later(
                organization,
                round,
                (state, append),
                replies,
            )));
        }
        if !round.append(organization, &state, &append).await? {
            return Ok(None);
        }
        crash_point!("appended", named(commands));
        if locked {
            self.metrics.head_lock();
        }
        self.metrics.append(commands.len() as u64, begun.elapsed());
        self.metrics.deltas(append.deltas.len() as u64);
        self.metrics.pending(append.pending_change());
        self.wake.appended(organization, &append);
        crash_point!("told", named(commands));
        Ok(Some(replies))
    }

    /// Decides one command on the caller's future: reads in a transaction, appends without one.
    async fn decide_here(
        &self,
        organization: &OrganizationId,
        command: Command,
    ) -> Result<Reply, Error> {
        let mut touched = Touched::default();
        command.touch(&mut touched);
        touched.dedup();
        loop {
            let commands = std::slice::from_ref(&command);
            let replies = self.attempt(organization, commands, &touched, true).await?;
            if let Some(mut replies) = replies {
                return Ok(replies.remove(0));
            }
        }
    }

    /// Appends when nobody waits for it any more.
    fn append_later(
        &self,
        organization: &OrganizationId,
        round: Round,
        (state, append): (State, Append),
        replies: Vec<Reply>,
    ) -> Vec<Reply> {
        let (organization, wake) = (organization.clone(), Arc::clone(&self.wake));
        self.tasks.spawn(async move {
            if let Ok(true) = round.append(&organization, &state, &append).await {
                wake.appended(&organization, &append);
            }
        });
        replies
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

/// What a batch begins with.
#[cfg(feature = "broken")]
fn named(commands: &[Command]) -> &'static str {
    commands.first().map_or("nothing", Command::name)
}

/// A caller that went away does not need its answer.
fn answer_to(reply: oneshot::Sender<Result<Reply, Error>>, answer: Result<Reply, Error>) {
    drop(reply.send(answer));
}
